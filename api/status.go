package api

// StatusCode is LXD's numeric status of operations, instances and replies:
// the 100s are in progress or neutral, 200 is success, 400s are failures.
type StatusCode int

// The status codes of the 1.0 API.
const (
	OperationCreated StatusCode = 100
	Started          StatusCode = 101
	Stopped          StatusCode = 102
	Running          StatusCode = 103
	Cancelling       StatusCode = 104
	Pending          StatusCode = 105
	Starting         StatusCode = 106
	Stopping         StatusCode = 107
	Aborting         StatusCode = 108
	Freezing         StatusCode = 109
	Frozen           StatusCode = 110
	Thawed           StatusCode = 111
	StatusError      StatusCode = 112
	Ready            StatusCode = 113
	Success          StatusCode = 200
	Failure          StatusCode = 400
	Cancelled        StatusCode = 401
)

var statusNames = map[StatusCode]string{
	OperationCreated: "Operation created", Started: "Started", Stopped: "Stopped", Running: "Running",
	Cancelling: "Cancelling", Pending: "Pending", Starting: "Starting", Stopping: "Stopping",
	Aborting: "Aborting", Freezing: "Freezing", Frozen: "Frozen", Thawed: "Thawed", StatusError: "Error",
	Ready: "Ready", Success: "Success", Failure: "Failure", Cancelled: "Cancelled",
}

// String is the name that the API shows beside the code.
func (c StatusCode) String() string { return statusNames[c] }

// Final reports whether an operation with this status has ended.
func (c StatusCode) Final() bool { return c == Success || c == Failure || c == Cancelled }
