package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/croft-project/croft/api"
)

// maxFilter bounds a filter expression, in bytes.
const maxFilter = 4096

// matcher decides on an object in its JSON form.
type matcher func(object map[string]any) bool

// filterOf reads the filter of the query, nil for none.
func filterOf(r *http.Request) (matcher, error) {
	expr := strings.TrimSpace(r.URL.Query().Get("filter"))
	if expr == "" {
		return nil, nil
	}
	return parseFilter(expr)
}

// parseFilter reads LXD's filter language:
//
//	expression = clause { ("and" | "or") clause }, evaluated from left to right
//	clause     = [ "not" ] field ("eq" | "ne") value
//
// A field is a path of JSON names joined by dots; keys of maps may hold dots
// themselves (config.user.role). A value with blanks is put in double quotes.
// Values are compared without regard to case; one with characters that are
// special in regular expressions is also tried as such, at any position. A list
// equals a value when one of its members does. Errors: Invalid.
func parseFilter(expr string) (matcher, error) {
	if len(expr) > maxFilter {
		return nil, badFilter("it is longer than %d bytes", maxFilter)
	}
	words, err := splitFilter(expr)
	if err != nil {
		return nil, err
	}
	m, words, err := parseClause(words)
	for err == nil && len(words) > 0 {
		var next matcher
		join := strings.ToLower(words[0])
		if join != "and" && join != "or" {
			return nil, badFilter("%q stands where and or or is expected", words[0])
		}
		left := m
		next, words, err = parseClause(words[1:])
		if join == "and" {
			m = func(o map[string]any) bool { return left(o) && next(o) }
		} else {
			m = func(o map[string]any) bool { return left(o) || next(o) }
		}
	}
	return m, err
}

func badFilter(format string, args ...any) error {
	return api.Errorf(api.Invalid, "filter is not understood: "+format, args...).
		WithHint(`write for example: name eq web1 and not config.user.role eq "data base"`)
}

func parseClause(words []string) (matcher, []string, error) {
	negate := false
	if len(words) > 0 && strings.EqualFold(words[0], "not") {
		negate, words = true, words[1:]
	}
	if len(words) < 3 {
		return nil, nil, badFilter("a clause has a field, an operator and a value, found %q", strings.Join(words, " "))
	}
	switch strings.ToLower(words[1]) {
	case "eq":
	case "ne":
		negate = !negate
	default:
		return nil, nil, badFilter("operator %q is not known, allowed are eq and ne", words[1])
	}
	field, same := words[0], equals(words[2])
	return func(o map[string]any) bool { return has(o, field, same) != negate }, words[3:], nil
}

// equals compares with one value.
func equals(want string) func(string) bool {
	var re *regexp.Regexp
	if regexp.QuoteMeta(want) != want {
		re, _ = regexp.Compile("(?i)" + want) // not one: compared as text only
	}
	return func(got string) bool {
		return strings.EqualFold(got, want) || re != nil && re.MatchString(got)
	}
}

// has tells whether the field of o has a value that same accepts.
func has(o map[string]any, field string, same func(string) bool) bool {
	if v, ok := o[field]; ok && hasValue(v, same) {
		return true
	}
	for i, c := range field {
		if c != '.' {
			continue
		}
		switch v := o[field[:i]].(type) {
		case map[string]any:
			if has(v, field[i+1:], same) {
				return true
			}
		case []any:
			for _, member := range v {
				if m, ok := member.(map[string]any); ok && has(m, field[i+1:], same) {
					return true
				}
			}
		}
	}
	return false
}

func hasValue(v any, same func(string) bool) bool {
	switch v := v.(type) {
	case string:
		return same(v)
	case json.Number:
		return same(v.String())
	case bool:
		return same(strconv.FormatBool(v))
	case []any:
		for _, member := range v {
			if hasValue(member, same) {
				return true
			}
		}
	}
	return false
}

// splitFilter splits at blanks outside double quotes.
func splitFilter(expr string) ([]string, error) {
	var words []string
	var word strings.Builder
	quoted, inWord := false, false
	for _, c := range expr {
		switch {
		case c == '"':
			quoted, inWord = !quoted, true
		case (c == ' ' || c == '\t') && !quoted:
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if quoted {
		return nil, badFilter("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// filtered gives the items that match.
func filtered[T any](items []T, match matcher) ([]T, error) {
	out := []T{}
	for _, it := range items {
		raw, err := json.Marshal(it)
		if err != nil {
			return nil, api.Errorf(api.Internal, "filter: %w", err)
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber() // numbers are compared as they are written
		var object map[string]any
		if err := dec.Decode(&object); err != nil {
			return nil, api.Errorf(api.Internal, "filter: %w", err)
		}
		if match(object) {
			out = append(out, it)
		}
	}
	return out, nil
}
