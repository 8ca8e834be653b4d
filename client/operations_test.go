package client

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/croft-project/croft/api"
)

func opJSON(code api.StatusCode, more map[string]any) map[string]any {
	op := map[string]any{"id": "op1", "class": "task", "status": code.String(), "status_code": code}
	for k, v := range more {
		op[k] = v
	}
	return op
}

func TestOperationWait(t *testing.T) {
	for _, tt := range []struct {
		name  string
		begin map[string]any // nil: answered at once
		end   map[string]any
		want  api.Kind // empty: success
		hint  string
	}{
		{"success", opJSON(api.Running, nil), opJSON(api.Success, nil), "", ""},
		{"done at once", nil, nil, "", ""},
		{"failed at once", opJSON(api.Failure, map[string]any{"err": "no"}), nil, api.Internal, ""},
		{"LXD failure", opJSON(api.Running, nil), opJSON(api.Failure, map[string]any{"err": "no"}), api.Internal, ""},
		{"our failure", opJSON(api.Running, nil),
			opJSON(api.Failure, map[string]any{"err": "no", "err_kind": "no-space", "hint": "grow"}), api.NoSpace, "grow"},
		{"cancelled", opJSON(api.Running, nil), opJSON(api.Cancelled, nil), api.Canceled, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("DELETE /1.0/instances/x", func(w http.ResponseWriter, _ *http.Request) {
				if tt.begin == nil {
					syncReply(w, nil)
					return
				}
				asyncReply(w, tt.begin)
			})
			mux.HandleFunc("GET /1.0/operations/op1/wait", func(w http.ResponseWriter, _ *http.Request) { syncReply(w, tt.end) })
			c := serve(t, Options{}, mux)
			op, err := c.DeleteInstance(t.Context(), "x")
			if err != nil {
				t.Fatal(err)
			}
			_, err = op.Wait(t.Context())
			if tt.want == "" && err != nil || tt.want != "" && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want kind %q", err, tt.want)
			}
			if got := api.HintOf(err); got != tt.hint {
				t.Errorf("got hint %q, want %q", got, tt.hint)
			}
		})
	}
}

// TestOperationCancel checks that the end of the caller's context cancels an
// operation that can be cancelled, and no other.
func TestOperationCancel(t *testing.T) {
	for _, may := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		deleted := false
		mux := http.NewServeMux()
		running := opJSON(api.Running, map[string]any{"may_cancel": may})
		mux.HandleFunc("POST /1.0/instances", func(w http.ResponseWriter, _ *http.Request) { asyncReply(w, running) })
		mux.HandleFunc("GET /1.0/operations/op1", func(w http.ResponseWriter, _ *http.Request) { syncReply(w, running) })
		mux.HandleFunc("GET /1.0/operations/op1/wait", func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		})
		mux.HandleFunc("DELETE /1.0/operations/op1", func(w http.ResponseWriter, _ *http.Request) {
			deleted = true
			syncReply(w, nil)
		})
		c := serve(t, Options{}, mux)
		op, err := c.CreateInstance(ctx, api.InstancesPost{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Wait(ctx); !errors.Is(err, api.Canceled) {
			t.Errorf("got %v, want Canceled", err)
		}
		if deleted != may {
			t.Errorf("may_cancel=%v: cancelled=%v", may, deleted)
		}
	}
}

func TestOperationProgress(t *testing.T) {
	seen := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /1.0/images", func(w http.ResponseWriter, _ *http.Request) { asyncReply(w, opJSON(api.Running, nil)) })
	mux.HandleFunc("GET /1.0/operations/op1/wait", func(w http.ResponseWriter, _ *http.Request) {
		<-seen
		syncReply(w, opJSON(api.Success, nil))
	})
	mux.HandleFunc("GET /1.0/events", func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("type"); got != "operation" {
			t.Errorf("events of type %q, want operation", got)
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for _, op := range []map[string]any{
			opJSON(api.Running, map[string]any{"id": "other", "metadata": map[string]any{"p": "wrong"}}),
			opJSON(api.Running, map[string]any{"metadata": map[string]any{"p": "50%"}}),
		} {
			_ = wsjson.Write(r.Context(), conn, map[string]any{"type": "operation", "metadata": op})
		}
		_, _, _ = conn.Read(r.Context())
	})
	c := serve(t, Options{}, mux)
	op, err := c.CreateImage(t.Context(), api.ImagesPost{})
	if err != nil {
		t.Fatal(err)
	}
	var got []any
	_, err = op.WaitProgress(t.Context(), func(op api.Operation) {
		if p := op.Metadata["p"]; p != nil {
			got = append(got, p)
			close(seen)
		}
	})
	if err != nil || len(got) != 1 || got[0] != "50%" {
		t.Errorf("got %v, %v; want [50%%]", got, err)
	}
}
