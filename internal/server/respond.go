package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/operation"
)

// maxPooled bounds the buffers that are kept for reuse.
const maxPooled = 1 << 20

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// envelope writes the JSON answer around metadata. It encodes everything before
// it writes anything, so that an error can still be answered.
func envelope(w http.ResponseWriter, httpStatus int, head api.Response, metadata any) error {
	head.Metadata = json.RawMessage("null")
	outer, err := json.Marshal(head)
	if err != nil {
		return api.Errorf(api.Internal, "encode the answer: %w", err)
	}
	buf := buffers.Get().(*bytes.Buffer)
	buf.Reset()
	defer func() {
		if buf.Cap() <= maxPooled {
			buffers.Put(buf)
		}
	}()
	// Metadata goes where the null is. Putting it there by hand saves a second
	// pass over lists of many instances.
	before, after, _ := bytes.Cut(outer, []byte(`"metadata":null`))
	buf.Write(before)
	buf.WriteString(`"metadata":`)
	if err := json.NewEncoder(buf).Encode(metadata); err != nil {
		return api.Errorf(api.Internal, "encode the answer: %w", err)
	}
	buf.Truncate(buf.Len() - 1) // the encoder's newline
	buf.Write(after)
	buf.WriteByte('\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(buf.Len()))
	w.WriteHeader(httpStatus)
	_, _ = w.Write(buf.Bytes()) // nobody is left to be told of an error
	return nil
}

func syncHead() api.Response {
	return api.Response{Type: api.TypeSync, Status: api.Success.String(), StatusCode: api.Success}
}

// ok answers with metadata.
func ok(w http.ResponseWriter, metadata any) error {
	return envelope(w, http.StatusOK, syncHead(), metadata)
}

// okTagged is ok for an object that has a revision.
func okTagged(w http.ResponseWriter, etag string, metadata any) error {
	if etag != "" {
		w.Header().Set("ETag", strconv.Quote(etag))
	}
	return ok(w, metadata)
}

// done answers a change that has nothing to show.
func done(w http.ResponseWriter) error { return ok(w, struct{}{}) }

// created answers the making of an object at path.
func created(w http.ResponseWriter, path string) error {
	w.Header().Set("Location", path)
	return envelope(w, http.StatusCreated, syncHead(), nil)
}

// accepted answers with an operation that goes on.
func accepted(w http.ResponseWriter, r *http.Request, op *operation.Op) error {
	w.Header().Set("Location", op.Path())
	head := api.Response{
		Type: api.TypeAsync, Status: api.OperationCreated.String(), StatusCode: api.OperationCreated, Operation: op.Path(),
	}
	return envelope(w, http.StatusAccepted, head, op.APIFor(auth.From(r.Context()).Key()))
}

// writeError is the only place that knows which status an error has.
func writeError(w http.ResponseWriter, err error) {
	kind := kindOf(err)
	status := kind.Status()
	var o *overridden
	if errors.As(err, &o) {
		status = o.status
	}
	h := w.Header()
	for _, k := range []string{"Content-Disposition", "Content-Encoding", "ETag", "Last-Modified", "Location"} {
		h.Del(k) // what a handler had set for the answer that it did not give
	}
	h.Set("X-Content-Type-Options", "nosniff")
	head := api.Response{Type: api.TypeError, ErrorCode: status, Error: err.Error(), Kind: kind, Hint: api.HintOf(err)}
	if envelope(w, status, head, nil) != nil {
		w.WriteHeader(http.StatusInternalServerError) // not reached: strings can be encoded
	}
}

// kindOf is api.KindOf that also knows the errors of contexts.
func kindOf(err error) api.Kind {
	var e *api.Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.Canceled):
		return api.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return api.Timeout
	}
	return api.Internal
}
