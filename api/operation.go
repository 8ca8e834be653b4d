package api

import (
	"encoding/json"
	"time"
)

// The classes of operation.
const (
	ClassTask      = "task"
	ClassWebsocket = "websocket"
	ClassToken     = "token"
)

// Operation is work that goes on in the background.
type Operation struct {
	ID          string              `json:"id" yaml:"id"`
	Class       string              `json:"class" yaml:"class"`
	Description string              `json:"description" yaml:"description"`
	CreatedAt   time.Time           `json:"created_at" yaml:"created_at"`
	UpdatedAt   time.Time           `json:"updated_at" yaml:"updated_at"`
	Status      string              `json:"status" yaml:"status"`
	StatusCode  StatusCode          `json:"status_code" yaml:"status_code"`
	Resources   map[string][]string `json:"resources" yaml:"resources"` // collection name to paths
	Metadata    map[string]any      `json:"metadata" yaml:"metadata"`
	MayCancel   bool                `json:"may_cancel" yaml:"may_cancel"`
	Err         string              `json:"err" yaml:"err"`
	Location    string              `json:"location" yaml:"location"`

	Kind Kind   `json:"err_kind,omitempty" yaml:"err_kind,omitempty"` // ours: the kind of Err
	Hint string `json:"hint,omitempty" yaml:"hint,omitempty"`         // ours: what to try next
}

// The types of event.
const (
	EventLifecycle = "lifecycle"
	EventOperation = "operation"
	EventLogging   = "logging"
)

// Event is one message of the events websocket.
type Event struct {
	Type      string          `json:"type" yaml:"type"`
	Timestamp time.Time       `json:"timestamp" yaml:"timestamp"`
	Metadata  json.RawMessage `json:"metadata" yaml:"metadata"`
	Location  string          `json:"location,omitempty" yaml:"location,omitempty"`
	Project   string          `json:"project,omitempty" yaml:"project,omitempty"`
}

// EventLifecycleMetadata tells that something happened to an object.
type EventLifecycleMetadata struct {
	Action    string                   `json:"action"` // such as instance-created
	Source    string                   `json:"source"` // path of the object
	Context   map[string]any           `json:"context,omitempty"`
	Requestor *EventLifecycleRequestor `json:"requestor,omitempty"`
}

// EventLifecycleRequestor is who asked for it.
type EventLifecycleRequestor struct {
	Username string `json:"username"`
	Protocol string `json:"protocol"` // unix or tls
	Address  string `json:"address"`
}

// EventLoggingMetadata is a log line.
type EventLoggingMetadata struct {
	Message string            `json:"message"`
	Level   string            `json:"level"`
	Context map[string]string `json:"context"`
}
