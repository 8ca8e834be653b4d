package api

import "encoding/json"

// The values of [Response].Type.
const (
	TypeSync  = "sync"
	TypeAsync = "async"
	TypeError = "error"
)

// Response is the envelope of every JSON answer. A client reads Metadata as the
// type that the endpoint documents.
type Response struct {
	Type       string          `json:"type"`
	Status     string          `json:"status"`
	StatusCode StatusCode      `json:"status_code"`
	Operation  string          `json:"operation"`  // path of the operation, for async answers
	ErrorCode  int             `json:"error_code"` // HTTP status, for errors
	Error      string          `json:"error"`
	Metadata   json.RawMessage `json:"metadata"`

	Kind Kind   `json:"kind,omitempty"` // ours: the kind of the error
	Hint string `json:"hint,omitempty"` // ours: what to try next
}
