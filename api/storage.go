package api

// StoragePoolPut is the part of a pool that a client may write.
type StoragePoolPut struct {
	Config      map[string]string `json:"config" yaml:"config"`
	Description string            `json:"description" yaml:"description"`
}

// StoragePool is a place where volumes live.
type StoragePool struct {
	StoragePoolPut `yaml:",inline"`

	Name      string   `json:"name" yaml:"name"`
	Driver    string   `json:"driver" yaml:"driver"`
	UsedBy    []string `json:"used_by" yaml:"used_by"`
	Status    string   `json:"status" yaml:"status"`
	Locations []string `json:"locations" yaml:"locations"`
}

// StoragePoolsPost creates a pool.
type StoragePoolsPost struct {
	StoragePoolPut `yaml:",inline"`

	Name   string `json:"name" yaml:"name"`
	Driver string `json:"driver" yaml:"driver"`
}

// StorageVolume is a volume of a pool: the root of an instance or an image's tree.
type StorageVolume struct {
	Config      map[string]string `json:"config" yaml:"config"`
	Description string            `json:"description" yaml:"description"`
	Name        string            `json:"name" yaml:"name"`
	Type        string            `json:"type" yaml:"type"` // container or image
	UsedBy      []string          `json:"used_by" yaml:"used_by"`
	Location    string            `json:"location" yaml:"location"`
	ContentType string            `json:"content_type" yaml:"content_type"`
	Project     string            `json:"project" yaml:"project"`
}

// ResourcesStoragePool is the space of a pool.
type ResourcesStoragePool struct {
	Space  ResourcesStoragePoolSpace `json:"space" yaml:"space"`
	Inodes ResourcesStoragePoolSpace `json:"inodes" yaml:"inodes"`
}

// ResourcesStoragePoolSpace counts bytes or inodes.
type ResourcesStoragePoolSpace struct {
	Used  uint64 `json:"used" yaml:"used"`
	Total uint64 `json:"total" yaml:"total"`
}
