package device

// All are the kinds of device.
var All = []Type{none, nic, disk, unixChar, unixBlock}

// none takes the place of an inherited device and gives nothing.
var none = Type{Name: "none"}
