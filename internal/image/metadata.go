package image

import (
	"bytes"
	"errors"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/croft-project/croft/api"
)

// Limits of metadata.yaml. A file beyond them is refused, never truncated.
const (
	MaxMetadataSize  = 1 << 20 // bytes
	maxMetadataNodes = 100_000 // YAML nodes, aliases counted as often as used
)

// When a template is rendered.
const (
	OnCreate = "create" // the instance is made from an image
	OnCopy   = "copy"   // the instance is made from another instance
	OnRename = "rename" // the instance has a new name
	OnStart  = "start"  // every start
)

// ParseMetadata reads a metadata.yaml. Unknown keys are ignored; scalars of any
// type are taken as the strings they are written as, because images in the wild
// have unquoted versions and dates. The maps of the result are never nil, nor is
// a template.
//
// Errors: Invalid, naming the field; TooLarge beyond [MaxMetadataSize] or when
// aliases expand without end.
func ParseMetadata(data []byte) (*api.ImageMetadata, error) {
	if len(data) > MaxMetadataSize {
		return nil, api.Errorf(api.TooLarge, "metadata.yaml has %d bytes; at most %d are allowed", len(data), MaxMetadataSize)
	}
	var doc yaml.Node
	err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&doc)
	switch {
	case errors.Is(err, io.EOF):
		return nil, api.Errorf(api.Invalid, "metadata.yaml is empty")
	case err != nil:
		return nil, api.Errorf(api.Invalid, "metadata.yaml: %w", err)
	}
	p := &metaParser{budget: maxMetadataNodes}
	m := p.document(&doc)
	if p.err != nil {
		return nil, p.err
	}
	if m.Architecture, err = NormalizeArchitecture(m.Architecture); err != nil {
		return nil, err
	}
	return m, nil
}

// metaParser walks the YAML tree itself: decoding into structs would fail on
// unquoted scalars and expand aliases without a bound of ours. The first error
// sticks.
type metaParser struct {
	budget int
	err    error
}

func (p *metaParser) fail(kind api.Kind, format string, args ...any) {
	if p.err == nil {
		p.err = api.Errorf(kind, "metadata.yaml: "+format, args...)
	}
}

// resolve follows aliases and pays for the node.
func (p *metaParser) resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode && p.budget > 0 {
		p.budget--
		n = n.Alias
	}
	p.budget--
	if p.budget <= 0 {
		p.fail(api.TooLarge, "more than %d values", maxMetadataNodes)
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// pairs calls fn for each key of a mapping; null is an empty mapping.
func (p *metaParser) pairs(field string, n *yaml.Node, fn func(key string, value *yaml.Node)) {
	n = p.resolve(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.fail(api.Invalid, "%s must be a mapping (line %d)", field, n.Line)
		return
	}
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content) && p.err == nil; i += 2 {
		key := p.scalar("key in "+field, n.Content[i])
		if seen[key] {
			p.fail(api.Invalid, "%s has the key %q twice (line %d)", field, key, n.Content[i].Line)
			return
		}
		seen[key] = true
		fn(key, n.Content[i+1])
	}
}

// scalar is the text of a scalar as written; null is empty.
func (p *metaParser) scalar(field string, n *yaml.Node) string {
	n = p.resolve(n)
	switch {
	case n.Kind != yaml.ScalarNode:
		p.fail(api.Invalid, "%s must be a single value (line %d)", field, n.Line)
		return ""
	case isNull(n):
		return ""
	case strings.ContainsRune(n.Value, 0):
		p.fail(api.Invalid, "%s has a NUL byte (line %d)", field, n.Line)
		return ""
	}
	return n.Value
}

func (p *metaParser) seconds(field string, n *yaml.Node) int64 {
	s := p.scalar(field, n)
	if s == "" {
		return 0
	}
	if v, err := strconv.ParseInt(s, 10, 64); err == nil && v >= 0 {
		return v
	}
	// Some builders write a float.
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f < math.MaxInt64/2 {
		return int64(f)
	}
	p.fail(api.Invalid, "%s is %q; it must be a number of seconds since 1970", field, s)
	return 0
}

func (p *metaParser) boolean(field string, n *yaml.Node) bool {
	switch s := strings.ToLower(p.scalar(field, n)); s {
	case "true", "yes", "on", "1":
		return true
	case "", "false", "no", "off", "0":
		return false
	default:
		p.fail(api.Invalid, "%s is %q; it must be true or false", field, s)
		return false
	}
}

func (p *metaParser) stringMap(field string, n *yaml.Node) map[string]string {
	m := make(map[string]string)
	p.pairs(field, n, func(key string, value *yaml.Node) {
		m[key] = p.scalar(field+"."+key, value)
	})
	return m
}

// strings reads a list of scalars, or one scalar as a list of one.
func (p *metaParser) strings(field string, n *yaml.Node) []string {
	n = p.resolve(n)
	list := []string{}
	if isNull(n) {
		return list
	}
	if n.Kind != yaml.SequenceNode {
		return append(list, p.scalar(field, n))
	}
	for _, item := range n.Content {
		if p.err != nil {
			break
		}
		list = append(list, p.scalar(field, item))
	}
	return list
}

func (p *metaParser) document(doc *yaml.Node) *api.ImageMetadata {
	m := &api.ImageMetadata{Properties: map[string]string{}, Templates: map[string]*api.ImageMetadataTemplate{}}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		p.fail(api.Invalid, "must be one document")
		return m
	}
	p.pairs("the file", doc.Content[0], func(key string, value *yaml.Node) {
		switch key {
		case "architecture":
			m.Architecture = p.scalar(key, value)
		case "creation_date":
			m.CreationDate = p.seconds(key, value)
		case "expiry_date":
			m.ExpiryDate = p.seconds(key, value)
		case "properties":
			m.Properties = p.stringMap(key, value)
		case "templates":
			p.pairs(key, value, func(target string, value *yaml.Node) {
				m.Templates[target] = p.template(target, value)
			})
		}
	})
	return m
}

func (p *metaParser) template(target string, n *yaml.Node) *api.ImageMetadataTemplate {
	t := &api.ImageMetadataTemplate{When: []string{}, Properties: map[string]string{}}
	field := "templates." + target
	p.pairs(field, n, func(key string, value *yaml.Node) {
		switch key {
		case "when":
			t.When = p.strings(field+".when", value)
		case "create_only":
			t.CreateOnly = p.boolean(field+".create_only", value)
		case "template":
			t.Template = p.scalar(field+".template", value)
		case "properties":
			t.Properties = p.stringMap(field+".properties", value)
		}
	})
	if p.err == nil {
		p.err = CheckTemplate(target, t)
	}
	return t
}

// CheckTemplate checks one entry of the templates of a metadata.yaml: the
// target must be a path without "..", the source a plain file name. The daemon
// applies it also to metadata that a user sends.
//
// Errors: Invalid, naming the field and what is allowed.
func CheckTemplate(target string, t *api.ImageMetadataTemplate) error {
	if t == nil {
		return api.Errorf(api.Invalid, "metadata.yaml: templates.%s is empty", target)
	}
	rel := strings.TrimLeft(target, "/")
	if rel == "" || len(target) > 4096 || strings.ContainsRune(target, 0) || path.Clean(rel) == "." ||
		slices.Contains(strings.Split(rel, "/"), "..") || strings.HasSuffix(rel, "/") {
		return api.Errorf(api.Invalid, "metadata.yaml: templates: %q is no path of a file in the instance; it must have no \"..\"", target)
	}
	return CheckTemplateName(t.Template)
}

// CheckTemplateName checks the name of a file in an image's templates folder:
// it must be a plain name, as every name here becomes part of a path.
//
// Errors: Invalid.
func CheckTemplateName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\\\x00\n") {
		return api.Errorf(api.Invalid, "template name %q: it must be a plain file name without / and at most 255 bytes long", name)
	}
	return nil
}

// architectures are the names of each architecture: the kernel's first (what
// the API speaks), then Debian's and other aliases. Source: uname(2), dpkg.
var architectures = [][]string{
	{"x86_64", "amd64"},
	{"i686", "i386", "i586", "x86"},
	{"aarch64", "arm64"},
	{"armv8l"},
	{"armv7l", "armhf", "arm", "armv7a_hardfp"},
	{"armv6l", "armel", "armv6"},
	{"ppc64le", "ppc64el", "powerpc64le"},
	{"ppc64", "powerpc64"},
	{"ppc", "powerpc"},
	{"s390x"},
	{"mips"}, {"mipsel"}, {"mips64"}, {"mips64el"},
	{"riscv64"}, {"riscv32"},
	{"loongarch64", "loong64"},
}

// NormalizeArchitecture gives the kernel's name of an architecture: x86_64 for
// amd64, aarch64 for arm64.
//
// Errors: Invalid for an empty or unknown name.
func NormalizeArchitecture(name string) (string, error) {
	for _, names := range architectures {
		if slices.Contains(names, name) {
			return names[0], nil
		}
	}
	known := make([]string, len(architectures))
	for i, names := range architectures {
		known[i] = names[0]
	}
	return "", api.Errorf(api.Invalid, "architecture %q is unknown; known are %s", name, strings.Join(known, ", "))
}

// DebianArchitecture is the inverse for package archives: amd64 for x86_64.
//
// Errors: Invalid for an unknown name.
func DebianArchitecture(name string) (string, error) {
	kernel, err := NormalizeArchitecture(name)
	if err != nil {
		return "", err
	}
	for _, names := range architectures {
		if names[0] == kernel && len(names) > 1 {
			return names[1], nil
		}
	}
	return kernel, nil
}
