package image

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"encoding/json"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestParseMetadataGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/metadata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m, err := ParseMetadata(data)
			if err != nil {
				t.Fatal(err)
			}
			out, err := json.MarshalIndent(m, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "metadata/"+filepath.Base(file)+".want", string(out)+"\n")
		})
	}
}

func TestParseMetadataRefuses(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'j'; c++ {
		ref := "*" + string(c-1)
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat(ref+",", 9) + ref + "]\n"
	}
	template := func(target, rest string) string {
		return "architecture: x86_64\ntemplates:\n  \"" + target + "\":\n" + rest
	}
	tests := []struct {
		name, yaml string
		kind       api.Kind
		text       string // must be in the message
	}{
		{"empty", "", api.Invalid, "empty"},
		{"no yaml", "\tx", api.Invalid, "metadata.yaml"},
		{"a list", "- x", api.Invalid, "mapping"},
		{"a scalar", "hello", api.Invalid, "mapping"},
		{"null", "null", api.Invalid, `architecture ""`},
		{"no architecture", "creation_date: 1", api.Invalid, `architecture ""`},
		{"unknown architecture", "architecture: pdp11", api.Invalid, "pdp11"},
		{"architecture list", "architecture: [x86_64]", api.Invalid, "architecture must be a single value"},
		{"bad date", "architecture: x86_64\ncreation_date: yesterday", api.Invalid, "creation_date"},
		{"negative date", "architecture: x86_64\ncreation_date: -1", api.Invalid, "creation_date"},
		{"infinite date", "architecture: x86_64\nexpiry_date: .inf", api.Invalid, "expiry_date"},
		{"property list", "architecture: x86_64\nproperties: {os: [a]}", api.Invalid, "properties.os"},
		{"properties scalar", "architecture: x86_64\nproperties: x", api.Invalid, "properties must be a mapping"},
		{"duplicate key", "architecture: x86_64\nproperties: {os: a, os: b}", api.Invalid, `"os" twice`},
		{"templates list", "architecture: x86_64\ntemplates: [a]", api.Invalid, "templates must be a mapping"},
		{"template scalar", template("/x", "    hello\n"), api.Invalid, "templates./x"},
		{"template null", template("/x", "    null\n"), api.Invalid, "template name"},
		{"create_only", template("/x", "    template: a.tpl\n    create_only: maybe\n"), api.Invalid, "create_only"},
		{"target dot dot", template("/etc/../../x", "    template: a.tpl\n"), api.Invalid, `no ".."`},
		{"target relative dot dot", template("../x", "    template: a.tpl\n"), api.Invalid, `no ".."`},
		{"target root", template("/", "    template: a.tpl\n"), api.Invalid, "no path of a file"},
		{"target folder", template("/etc/", "    template: a.tpl\n"), api.Invalid, "no path of a file"},
		{"source dot dot", template("/x", "    template: ../metadata.yaml\n"), api.Invalid, "plain file name"},
		{"source absolute", template("/x", "    template: /etc/shadow\n"), api.Invalid, "plain file name"},
		{"source below", template("/x", "    template: a/b\n"), api.Invalid, "plain file name"},
		{"source dots", template("/x", "    template: ..\n"), api.Invalid, "plain file name"},
		{"NUL", "architecture: \"x86\\0_64\"", api.Invalid, "NUL"},
		{"too large", "architecture: x86_64\n#" + strings.Repeat("x", MaxMetadataSize), api.TooLarge, "1048576"},
		{"bomb", "architecture: x86_64\nproperties:\n  x: 1\n" + bomb + "templates: *i\n", api.Invalid, ""},
		{"bomb in when", "architecture: x86_64\n" + bomb + "templates: {/x: {template: a, when: *i}}\n", api.Invalid, ""},
		{"self alias", "architecture: &a [*a]", api.Invalid, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseMetadata([]byte(tt.yaml))
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v (%v), want %v with %q", err, api.KindOf(err), tt.kind, tt.text)
			}
		})
	}
}

func TestParseMetadataBoundsValues(t *testing.T) {
	// One long list, used often: within the library's own limit on aliases.
	var b strings.Builder
	b.WriteString("architecture: x86_64\nlong: &l [" + strings.Repeat("x,", 2000) + "x]\ntemplates:\n")
	for i := range 100 {
		b.WriteString("  /x" + string(rune('a'+i%26)) + strings.Repeat("y", i) + ": {template: a, when: *l}\n")
	}
	if _, err := ParseMetadata([]byte(b.String())); !errors.Is(err, api.TooLarge) {
		t.Errorf("got %v, want too large", err)
	}
}

func TestArchitectures(t *testing.T) {
	tests := []struct{ in, kernel, debian string }{
		{"amd64", "x86_64", "amd64"}, {"x86_64", "x86_64", "amd64"}, {"arm64", "aarch64", "arm64"},
		{"i386", "i686", "i386"}, {"armhf", "armv7l", "armhf"}, {"armel", "armv6l", "armel"},
		{"ppc64el", "ppc64le", "ppc64el"}, {"s390x", "s390x", "s390x"}, {"riscv64", "riscv64", "riscv64"},
	}
	for _, tt := range tests {
		if got, err := NormalizeArchitecture(tt.in); got != tt.kernel || err != nil {
			t.Errorf("NormalizeArchitecture(%q) = %q, %v", tt.in, got, err)
		}
		if got, err := DebianArchitecture(tt.in); got != tt.debian || err != nil {
			t.Errorf("DebianArchitecture(%q) = %q, %v", tt.in, got, err)
		}
	}
	if _, err := NormalizeArchitecture("AMD64"); !errors.Is(err, api.Invalid) || !strings.Contains(err.Error(), "x86_64") {
		t.Errorf("AMD64: %v", err)
	}
}

func FuzzParseMetadata(f *testing.F) {
	files, err := filepath.Glob("testdata/metadata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a: &a [*a]\narchitecture: *a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseMetadata(data)
		if err != nil {
			if k := api.KindOf(err); k != api.Invalid && k != api.TooLarge {
				t.Errorf("kind %v: %v", k, err)
			}
			return
		}
		if m.Properties == nil || m.Templates == nil {
			t.Error("nil map")
		}
		for target, tpl := range m.Templates {
			if err := CheckTemplate(target, tpl); err != nil {
				t.Errorf("accepted, but %v", err)
			}
			if strings.Contains(tpl.Template, "/") || strings.Contains("/"+target+"/", "/../") {
				t.Errorf("accepted template %q → %q", tpl.Template, target)
			}
		}
	})
}
