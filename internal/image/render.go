package image

import (
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/flosch/pongo2/v6"
	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/helper"
)

// TemplateContext is what a template can see. The maps may be nil.
type TemplateContext struct {
	Trigger string `json:"trigger"` // one of OnCreate, OnCopy, OnRename, OnStart
	Path    string `json:"path"`    // the file that is written, in the instance
	// Instance has name, architecture, privileged, ephemeral and so on, all as
	// strings ("true", "false"). Templates call it instance and container.
	Instance   map[string]string            `json:"instance"`
	Config     map[string]string            `json:"config"`     // expanded
	Devices    map[string]map[string]string `json:"devices"`    // expanded
	Properties map[string]string            `json:"properties"` // of the template in metadata.yaml
}

// MaxRendered is the size of a rendered file, in bytes.
const MaxRendered = 16 << 20

// bannedTags reach files or other templates, never end, or show the clock.
var bannedTags = []string{"include", "extends", "import", "ssi", "block", "macro", "lorem"}

// closedLoader is a template loader without templates.
type closedLoader struct{}

var errClosed = errors.New("templates can't read other files")

func (closedLoader) Abs(_, name string) string     { return name }
func (closedLoader) Get(string) (io.Reader, error) { return nil, errClosed }

// Render renders a template in the language of Django templates, as pongo2
// implements it, without any access to files or other templates. Values are
// not escaped.
//
// A hostile template can still use much memory and time. Who has not written
// the template runs it in a helper: see [Tools.Render].
//
// Errors: Invalid for a malformed or forbidden template; TooLarge if the result
// exceeds [MaxRendered].
func Render(tpl []byte, c TemplateContext) (out []byte, err error) {
	if len(tpl) > maxTemplateSize {
		return nil, api.Errorf(api.TooLarge, "the template has %d bytes; at most %d are allowed", len(tpl), maxTemplateSize)
	}
	defer func() { // the library panics on some malformed templates
		switch p := recover(); {
		case p == nil:
		case p == any(errOutput):
			out, err = nil, api.Errorf(api.TooLarge, "the rendered template has more than %d bytes", MaxRendered)
		default:
			out, err = nil, api.Errorf(api.Invalid, "template: %v", p)
		}
	}()
	set := pongo2.NewSet("image", closedLoader{})
	for _, tag := range bannedTags {
		if err := set.BanTag(tag); err != nil {
			return nil, api.Errorf(api.Internal, "template: %w", err)
		}
	}
	parsed, err := set.FromString("{% autoescape off %}" + string(tpl) + "{% endautoescape %}")
	if err != nil {
		return nil, api.Errorf(api.Invalid, "template: %w", err)
	}
	w := &cappedBuffer{}
	if err := parsed.ExecuteWriterUnbuffered(c.variables(), w); err != nil {
		return nil, api.Errorf(api.Invalid, "template: %w", err)
	}
	return w.b, nil
}

var errOutput = errors.New("output limit")

// cappedBuffer stops the rendering by a panic, which Render catches: the
// library ignores the errors of its writer.
type cappedBuffer struct{ b []byte }

func (w *cappedBuffer) Write(p []byte) (int, error) {
	if len(w.b)+len(p) > MaxRendered {
		panic(errOutput)
	}
	w.b = append(w.b, p...)
	return len(p), nil
}

// variables are the names that templates use. All values are strings or plain
// maps of them: a type with methods would let templates call these.
func (c TemplateContext) variables() pongo2.Context {
	return pongo2.Context{
		"trigger":    c.Trigger,
		"path":       c.Path,
		"container":  orEmpty(c.Instance),
		"instance":   orEmpty(c.Instance),
		"config":     orEmpty(c.Config),
		"devices":    c.Devices,
		"properties": orEmpty(c.Properties),
		"config_get": func(key, fallback *pongo2.Value) *pongo2.Value {
			if v, ok := c.Config[key.String()]; ok {
				return pongo2.AsValue(strings.TrimRight(v, "\r\n"))
			}
			return fallback
		},
	}
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

type renderRequest struct {
	Template []byte
	Context  TemplateContext
}

// Render is the function [Render], in a helper with little memory and time
// unless the template only puts values into text.
//
// Errors: those of Render; Invalid also when memory or time do not suffice.
func (t *Tools) Render(ctx context.Context, tpl []byte, c TemplateContext) ([]byte, error) {
	if IsPlainTemplate(tpl) {
		return Render(tpl, c)
	}
	const mebibytes, seconds = 512, 5
	out, err := helper.Call[[]byte](ctx, t.runner(), helperRender, renderRequest{tpl, c}, nil,
		t.harmless(map[int]uint64{unix.RLIMIT_FSIZE: 0, unix.RLIMIT_DATA: mebibytes << 20, unix.RLIMIT_CPU: seconds}))
	if errors.Is(err, helper.ErrDied) {
		return nil, api.Errorf(api.Invalid, "the template can't be rendered within %d MiB and %d s", mebibytes, seconds)
	}
	return out, err
}

func renderHelper(_ context.Context, req renderRequest, _ []*os.File) ([]byte, error) {
	return Render(req.Template, req.Context)
}

// plainExpr is a variable, perhaps with a key, or config_get of a quoted name.
var plainExpr = regexp.MustCompile(`^\{\{-?\s*(?:config_get\(\s*"[^"\\{}%]*"\s*,\s*(?:"[^"\\{}%]*"|[a-z_]+(?:\.[a-z_]+)?)\s*\)|[a-z_]+(?:\.[a-z_]+)?)\s*-?\}\}`)

// IsPlainTemplate tells whether a template is so simple that rendering it takes
// time and memory in proportion to its size: text and variables, nothing that
// computes, loops or nests. The usual /etc/hostname and /etc/hosts are. In
// doubt it says no.
func IsPlainTemplate(tpl []byte) bool {
	s := string(tpl)
	if len(s) > 64<<10 || strings.Contains(s, "pongo2") {
		return false
	}
	for {
		i := strings.IndexByte(s, '{')
		if i < 0 {
			return true
		}
		s = s[i:]
		switch {
		case !strings.HasPrefix(s, "{{") && !strings.HasPrefix(s, "{%") && !strings.HasPrefix(s, "{#"):
			s = s[1:]
		case plainExpr.MatchString(s):
			s = s[len(plainExpr.FindString(s)):]
		default:
			return false
		}
	}
}
