package option

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/croft-project/croft/api"
)

// Type is how the value of a key is written.
type Type string

// The types of value.
const (
	TypeBool   Type = "bool"    // true, 1, yes, on or false, 0, no, off, in any case
	TypeInt    Type = "integer" // decimal, 64 bits, signed
	TypeSize   Type = "size"    // bytes with an optional unit: 512MiB, 10GB; see [ParseSize]
	TypeMemory Type = "memory"  // a size, or a percentage of the host's memory: 50%
	TypeCPUs   Type = "cpus"    // a number of CPUs, or a set of them: 0-3,5
	TypeString Type = "string"  // one line
	TypeEnum   Type = "enum"    // one of Key.Allowed
	TypeLines  Type = "lines"   // several lines, separated by \n alone
	TypeText   Type = "text"    // any text, CR and LF included
)

// Key describes one configuration key.
type Key struct {
	Name        string   `json:"name"`              // exact, or a prefix that ends in "*"
	Type        Type     `json:"type"`              //
	Default     string   `json:"default,omitempty"` // what holds without the key; empty: nothing is set
	Live        bool     `json:"live"`              // a change applies to what runs
	Scope       string   `json:"scope,omitempty"`   // server keys: global or local (to a member)
	Description string   `json:"description"`       //
	Allowed     []string `json:"allowed,omitempty"` // TypeEnum: the values
	Min         *int64   `json:"min,omitempty"`     // TypeInt: smallest value
	Max         *int64   `json:"max,omitempty"`     // TypeInt: largest value
	Supported   bool     `json:"supported"`         // false: known, but refused by name

	// Inert is a value that asks for nothing, such as "false". It is accepted for
	// an unsupported key too, as it is what happens anyway.
	Inert string `json:"-"`
	// AliasOf is the key that this older name stands for.
	AliasOf string `json:"alias_of,omitempty"`
	// Secret values are never shown, in messages neither.
	Secret bool `json:"secret,omitempty"`
	// Validate refuses more than the type does; its error says what is allowed.
	Validate func(value string) error `json:"-"`
	// CheckName refuses names below a prefix; it gets what follows the prefix.
	CheckName func(rest string) error `json:"-"`
}

// Table is the set of keys of one entity. It is never changed after it was made.
type Table struct {
	entity   string
	exact    map[string]Key
	prefixes []Key // longest first
	aliases  map[string]string
	cross    func(cfg map[string]string) error
}

// newTable indexes keys; cross, which may be nil, checks what concerns several
// keys.
func newTable(entity string, cross func(map[string]string) error, groups ...[]Key) *Table {
	t := &Table{entity: entity, exact: map[string]Key{}, aliases: map[string]string{}, cross: cross}
	for _, k := range slices.Concat(groups...) {
		if strings.HasSuffix(k.Name, "*") {
			t.prefixes = append(t.prefixes, k)
			continue
		}
		t.exact[k.Name] = k
		if k.AliasOf != "" {
			t.aliases[k.AliasOf] = k.Name
		}
	}
	slices.SortStableFunc(t.prefixes, func(a, b Key) int { return len(b.Name) - len(a.Name) })
	return t
}

// Lookup finds the description of a key: the exact one, or the longest prefix.
func (t *Table) Lookup(name string) (Key, bool) {
	if k, ok := t.exact[name]; ok {
		return k, true
	}
	for _, k := range t.prefixes {
		if rest, ok := strings.CutPrefix(name, strings.TrimSuffix(k.Name, "*")); ok && rest != "" {
			return k, true
		}
	}
	return Key{}, false
}

// Live tells whether a change of the key applies to what runs.
func (t *Table) Live(name string) bool {
	k, ok := t.Lookup(name)
	return ok && k.Live
}

// Docs gives all keys by name.
func (t *Table) Docs() []Key {
	out := slices.Concat(slices.Collect(maps.Values(t.exact)), t.prefixes)
	slices.SortFunc(out, func(a, b Key) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Get gives the value that holds for a key: the one in cfg, by its name or an
// older one, else the default. An empty value counts as not set.
func (t *Table) Get(cfg map[string]string, name string) string {
	if v := cfg[name]; v != "" {
		return v
	}
	if alias, ok := t.aliases[name]; ok && cfg[alias] != "" {
		return cfg[alias]
	}
	k, _ := t.Lookup(name)
	return k.Default
}

// Bool is the truth of [Table.Get].
func (t *Table) Bool(cfg map[string]string, name string) bool { return IsTrue(t.Get(cfg, name)) }

// Validate checks a configuration and gives the error of the first bad key in
// alphabetical order. Errors: Invalid, naming key, value and what is allowed.
func (t *Table) Validate(cfg map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(cfg)) {
		if err := t.Check(name, cfg[name]); err != nil {
			return err
		}
	}
	if t.cross == nil {
		return nil
	}
	return t.cross(cfg)
}

// Check checks one key and its value; an empty value, which unsets the key, is
// always allowed for a known key. Errors: Invalid.
func (t *Table) Check(name, value string) error {
	k, ok := t.Lookup(name)
	if !ok || strings.ContainsFunc(name, unicode.IsControl) {
		return t.unknown(name)
	}
	if k.CheckName != nil {
		if err := k.CheckName(strings.TrimPrefix(name, strings.TrimSuffix(k.Name, "*"))); err != nil {
			return api.Errorf(api.Invalid, "%s key %q: %w", t.entity, name, err)
		}
	}
	if value == "" {
		return nil
	}
	if err := k.checkValue(value); err != nil {
		return api.Errorf(api.Invalid, "%s key %s: value %s: %w", t.entity, name, k.show(value), err)
	}
	if !k.Supported && !k.isInert(value) {
		return api.Errorf(api.Invalid, "%s key %s (value %s) is not supported by this version yet", t.entity, name, k.show(value))
	}
	return nil
}

func (t *Table) unknown(name string) error {
	err := api.Errorf(api.Invalid, "%s has no key %q", t.entity, name)
	if near := t.nearest(name); near != "" {
		return err.WithHint("did you mean %s?", near)
	}
	return err.WithHint("free-form keys begin with user.")
}

// nearest finds a supported key that differs from name by a slip of the hand.
func (t *Table) nearest(name string) string {
	best, dist := "", 3
	for _, k := range t.Docs() {
		if !k.Supported || strings.HasSuffix(k.Name, "*") {
			continue
		}
		if d := distance(name, k.Name, dist); d < dist {
			best, dist = k.Name, d
		}
	}
	return best
}

// show quotes a value for a message.
func (k Key) show(value string) string {
	if k.Secret {
		return "(secret)"
	}
	if len(value) > 80 {
		return strconv.Quote(value[:80]) + "…"
	}
	return strconv.Quote(value)
}

func (k Key) isInert(value string) bool {
	if k.Inert == "" {
		return false
	}
	if k.Type == TypeBool {
		return IsTrue(value) == IsTrue(k.Inert)
	}
	return value == k.Inert
}

func (k Key) checkValue(value string) error {
	if err := checkBreaks(k.Type, value); err != nil {
		return err
	}
	if err := k.checkType(value); err != nil {
		return err
	}
	if k.Validate == nil {
		return nil
	}
	return k.Validate(value)
}

// checkBreaks keeps values from growing lines in files made of them.
func checkBreaks(typ Type, value string) error {
	refused := "\x00\r\n"
	switch typ {
	case TypeLines:
		refused = "\x00\r"
	case TypeText:
		refused = "\x00"
	}
	if i := strings.IndexAny(value, refused); i >= 0 {
		return fmt.Errorf("character %q is not allowed here", value[i])
	}
	return nil
}

func (k Key) checkType(value string) (err error) {
	switch k.Type {
	case TypeBool:
		_, err = ParseBool(value)
	case TypeInt:
		err = k.checkInt(value)
	case TypeSize:
		_, err = ParseSize(value)
	case TypeMemory:
		_, err = ParseMemory(value, 1<<40)
	case TypeCPUs:
		_, err = ParseCPUs(value)
	case TypeEnum:
		if !slices.Contains(k.Allowed, value) {
			err = fmt.Errorf("allowed are %s", strings.Join(k.Allowed, ", "))
		}
	}
	return err
}

func (k Key) checkInt(value string) error {
	n, err := ParseInt(value)
	switch {
	case err != nil:
		return err
	case k.Min != nil && n < *k.Min, k.Max != nil && n > *k.Max:
		return fmt.Errorf("%s", k.bounds())
	}
	return nil
}

func (k Key) bounds() string {
	switch {
	case k.Min != nil && k.Max != nil:
		return fmt.Sprintf("allowed are whole numbers from %d to %d", *k.Min, *k.Max)
	case k.Min != nil:
		return fmt.Sprintf("allowed are whole numbers from %d on", *k.Min)
	}
	return fmt.Sprintf("allowed are whole numbers up to %d", *k.Max)
}

// distance is the number of single-byte edits between a and b, or limit when
// there are that many or more.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	prev, cur := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		cur[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j]+cost, prev[j+1]+1, cur[j]+1)
		}
		prev, cur = cur, prev
	}
	return min(prev[len(b)], limit)
}
