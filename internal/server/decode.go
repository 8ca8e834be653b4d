package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/model"
)

// maxBody bounds JSON bodies, in bytes.
const maxBody = 16 << 20

// project is the project that a request is about. The middleware has refused
// those that do not exist.
func project(*http.Request) string { return model.DefaultProject }

// body reads the JSON object of a request. Errors: Invalid, TooLarge.
func body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		return nil, api.Errorf(api.TooLarge, "request body exceeds %d MiB", maxBody>>20)
	case err != nil:
		return nil, api.Errorf(api.Invalid, "request body cannot be read: %w", err)
	}
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil, api.Errorf(api.Invalid, "request body is empty, a JSON object is expected")
	}
	if raw[0] != '{' {
		return nil, api.Errorf(api.Invalid, "request body must be a JSON object, it begins with %q", raw[0])
	}
	return raw, nil
}

// decode reads the request's JSON object into v. Fields that v does not have are
// ignored, as clients send those of newer versions. Errors: Invalid, naming the
// field; TooLarge.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	raw, err := body(w, r)
	if err != nil {
		return err
	}
	return unmarshal(raw, v)
}

func unmarshal(raw []byte, v any) error {
	err := json.Unmarshal(raw, v)
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrongType):
		return api.Errorf(api.Invalid, "field %q of the request holds %s at byte %d, expected is %s",
			jsonField(wrongType.Field), jsonValue(wrongType.Value), wrongType.Offset, jsonType(wrongType.Type.Kind()))
	case errors.As(err, &syntax):
		return api.Errorf(api.Invalid, "request body is not JSON, at byte %d: %w", syntax.Offset, err)
	}
	return api.Errorf(api.Invalid, "request body cannot be read: %w", err)
}

// jsonField drops the names of embedded Go structs from the path of a field.
func jsonField(path string) string {
	var out []string
	for part := range strings.SplitSeq(path, ".") {
		if part != "" && (part[0] < 'A' || part[0] > 'Z') {
			out = append(out, part)
		}
	}
	return strings.Join(out, ".")
}

// jsonValue puts an article before what encoding/json calls a value.
func jsonValue(value string) string {
	switch value {
	case "array":
		return "a list"
	case "object":
		return "an object"
	case "bool":
		return "true or false"
	}
	return "a " + value
}

// jsonType names a Go kind in the words of JSON.
func jsonType(kind reflect.Kind) string {
	switch kind {
	case reflect.Map, reflect.Struct, reflect.Pointer:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	}
	return "a whole number"
}

// ifMatch is the revision that a change is conditional on, or "". Clients send
// it with and without the quotes of an ETag.
func ifMatch(r *http.Request) string {
	tag := strings.TrimSpace(r.Header.Get("If-Match"))
	if tag == "*" {
		return ""
	}
	return strings.Trim(strings.TrimPrefix(tag, "W/"), `"`)
}

// change gives the mutate function of a PUT, which replaces the writable part,
// or of a PATCH, which changes the fields that are given: of maps (config,
// devices) the given keys. It may run more than once.
func change[T any](w http.ResponseWriter, r *http.Request) (func(*T) error, error) {
	raw, err := body(w, r)
	if err != nil {
		return nil, err
	}
	var put T
	if err := unmarshal(raw, &put); err != nil {
		return nil, err // also for PATCH: the types are wrong whatever is there
	}
	if r.Method == http.MethodPatch {
		return func(v *T) error { return unmarshal(raw, v) }, nil
	}
	return func(v *T) error {
		var put T // afresh each time, as v's owner may change its maps
		if err := unmarshal(raw, &put); err != nil {
			return err
		}
		*v = put
		return nil
	}, nil
}

// recursion is how much a list shows: 0 paths, 1 objects, 2 objects with all
// that hangs on them. Nonsense counts as 0, as with LXD.
func recursion(r *http.Request) int {
	n, err := strconv.Atoi(r.URL.Query().Get("recursion"))
	if err != nil || n < 0 {
		return 0
	}
	return min(n, 2)
}

// truthy reads a yes-or-no header or query value.
func truthy(s string) bool {
	switch strings.ToLower(s) {
	case "1", "true", "yes", "on":
		return true
	}
	return false
}

// apiPath joins segments below /1.0, escaped.
func apiPath(segments ...string) string {
	var b strings.Builder
	b.WriteString("/1.0")
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}
