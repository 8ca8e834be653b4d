package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

func testContext() TemplateContext {
	return TemplateContext{
		Trigger: OnCreate, Path: "/etc/x",
		Instance:   map[string]string{"name": "c1", "architecture": "x86_64", "privileged": "false", "ephemeral": "false"},
		Config:     map[string]string{"user.colour": "green", "user.multi": "a\nb\n", "user.html": "<&>", "big": strings.Repeat("x", 1000)},
		Devices:    map[string]map[string]string{"eth0": {"type": "nic"}},
		Properties: map[string]string{"greeting": "hello"},
	}
}

// The lines of the conformance scenarios templates.triggers and
// templates.custom, with what LXD 5.0.2 writes, and some of the language.
func TestRender(t *testing.T) {
	tests := []struct {
		tpl, want string
		plain     bool
	}{
		{"{{ container.name }}\n", "c1\n", true},
		{"trigger={{ trigger }} path={{ path }} greeting={{ properties.greeting }} name={{ instance.name }} user={{ config_get(\"user.tpl\", \"unset\") }}\n",
			"trigger=create path=/etc/x greeting=hello name=c1 user=unset\n", true},
		{"n={{ container.name }} a={{ container.architecture }} p={{ container.privileged }} e={{ container.ephemeral }} c={{ config_get(\"user.colour\", \"none\") }} {% if config.user.colour == \"green\" %}yes{% else %}no{% endif %}\n",
			"n=c1 a=x86_64 p=false e=false c=green no\n", false},
		{"no variables, { braces } and %", "no variables, { braces } and %", true},
		{"{{ config_get(\"user.html\", \"\") }}", "<&>", true},
		{"{{ config_get(\"user.multi\", \"\") }}|", "a\nb|", true},
		{"{{ config_get(\"absent\", properties.greeting) }}", "hello", true},
		{"{{ absent }}{{ absent.too }}", "", true},
		{"{{ devices.eth0.type }}", "nic", false},
		{"{% for k, v in devices %}{{ k }}={{ v.type }};{% endfor %}", "eth0=nic;", false},
		{"{% if container.privileged == \"true\" %}p{% endif %}", "", false},
		{"{{ container.name|upper }}", "C1", false},
		{"{# comment #}x", "x", false},
		{"", "", true},
	}
	for _, tt := range tests {
		got, err := Render([]byte(tt.tpl), testContext())
		if string(got) != tt.want || err != nil {
			t.Errorf("Render(%q) = %q, %v; want %q", tt.tpl, got, err, tt.want)
		}
		if IsPlainTemplate([]byte(tt.tpl)) != tt.plain {
			t.Errorf("IsPlainTemplate(%q) = %v", tt.tpl, !tt.plain)
		}
	}
	if got, err := Render([]byte("{{ container.name }}{{ config.x }}"), TemplateContext{}); string(got) != "" || err != nil {
		t.Errorf("empty context: %q, %v", got, err)
	}
}

// CVE-2026-33897: templates that read or write files.
func TestRenderHasNoFileAccess(t *testing.T) {
	secret := saveFile(t, []byte("secret"))
	for _, tpl := range []string{
		`{% include "FILE" %}`, `{% include FILE %}`, `{% extends "FILE" %}`, `{% import "FILE" x %}`, `{% ssi "FILE" %}`,
		`{% ssi "FILE" parsed %}`, `{% include path %}`, `{% include "FILE" if_exists %}`,
		`{% autoescape on %}{% include "FILE" %}{% endautoescape %}`,
		`{% endautoescape %}{% include "FILE" %}{% autoescape off %}`,
		`{% if true %}{% ssi "FILE" %}{% endif %}`, `{% block x %}{% endblock %}`,
		`{% macro x() %}{{ x() }}{% endmacro %}{{ x() }}`, `{% lorem 1000000000 w %}`,
	} {
		tpl := strings.ReplaceAll(tpl, "FILE", secret)
		c := testContext()
		c.Path = secret
		got, err := Render([]byte(tpl), c)
		if !errors.Is(err, api.Invalid) || strings.Contains(string(got), "secret") {
			t.Errorf("Render(%q) = %q, %v", tpl, got, err)
		}
		if IsPlainTemplate([]byte(tpl)) {
			t.Errorf("%q counts as plain", tpl)
		}
	}
}

func TestRenderSurvivesHostileTemplates(t *testing.T) {
	for _, tpl := range []string{
		"{{", "{% if", "{% for x in y %}", "{{ 1/0 }}", "{{ container.name.x.y }}", "{{ container() }}", "{{ config_get() }}",
		"{{ config_get(1, 2, 3) }}", "{% for c in \"abc\" sorted %}{{ c }}{% endfor %}", "{% endautoescape %}", "{{ trigger.0 }}",
		"{{ x|slice:\"a:b\" }}", "{{ x|stringformat:\"%d\" }}", "{% cycle %}", "{{ -}}", "{% widthratio 1 0 1 %}",
		strings.Repeat("{{ (", 1000), "{{ " + strings.Repeat("(", 5000) + "1" + strings.Repeat(")", 5000) + " }}",
	} {
		if _, err := Render([]byte(tpl), testContext()); err != nil && !errors.Is(err, api.Invalid) {
			t.Errorf("Render(%.40q): %v (%v)", tpl, err, api.KindOf(err))
		}
	}
}

func TestRenderBoundsItsResult(t *testing.T) {
	tpl := "{% for a in config.big %}{% for b in config.big %}{% for c in config.big %}{{ config.big }}{% endfor %}{% endfor %}{% endfor %}"
	if _, err := Render([]byte(tpl), testContext()); !errors.Is(err, api.TooLarge) {
		t.Errorf("loops: %v", err)
	}
	if _, err := Render(make([]byte, maxTemplateSize+1), testContext()); !errors.Is(err, api.TooLarge) {
		t.Errorf("large template: %v", err)
	}
	if IsPlainTemplate([]byte(tpl)) || IsPlainTemplate([]byte("{{ pongo2.version }}")) || IsPlainTemplate([]byte("{{ a+a }}")) {
		t.Error("counts as plain")
	}
}

func FuzzRender(f *testing.F) {
	for _, s := range []string{"{{ container.name }}", "{% if trigger == \"x\" %}a{% endif %}", "{{ config_get(\"a\",\"b\") }}", "{{ a|upper }}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, tpl []byte) {
		// What may run in the daemon itself must be harmless.
		if !IsPlainTemplate(tpl) {
			return
		}
		out, err := Render(tpl, testContext())
		if err != nil && !errors.Is(err, api.Invalid) {
			t.Errorf("%v", err)
		}
		if len(out) > 300*len(tpl)+1000 {
			t.Errorf("%d bytes make %d", len(tpl), len(out))
		}
	})
}

// applyIn applies one template per target, all of the same text.
func applyIn(t *testing.T, root, trigger string, targets map[string]api.ImageMetadataTemplate) error {
	t.Helper()
	md := &api.ImageMetadata{Templates: map[string]*api.ImageMetadataTemplate{}}
	for target, tpl := range targets {
		if tpl.Template == "" {
			tpl.Template = "t.tpl"
		}
		if tpl.When == nil {
			tpl.When = []string{OnCreate}
		}
		md.Templates[target] = &tpl
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	tools := &Tools{Unprivileged: true}
	return tools.ApplyTemplates(t.Context(), dir, md, map[string][]byte{"t.tpl": []byte("{{ trigger }} {{ path }} {{ properties.p }}")}, trigger, testContext())
}

func TestApplyTemplates(t *testing.T) {
	old := unix.Umask(0o077) // must not matter
	defer unix.Umask(old)
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "kept"), []byte("a longer text than the new one"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := applyIn(t, root, OnCreate, map[string]api.ImageMetadataTemplate{
		"/new/folders/file": {Properties: map[string]string{"p": "v"}},
		"relative":          {},
		"/kept":             {},
		"/other":            {When: []string{OnStart, OnRename}},
		"/never":            {When: []string{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"new/folders/file": "-rw-r--r-- create /new/folders/file v", "relative": "-rw-r--r-- create relative ", "kept": "-rw------- create /kept ",
	} {
		st, err := os.Lstat(filepath.Join(root, name))
		data, rerr := os.ReadFile(filepath.Join(root, name))
		if err != nil || rerr != nil || fmt.Sprintf("%v %s", st.Mode(), data) != want {
			t.Errorf("%s: %v %q, want %q", name, st.Mode(), data, want)
		}
	}
	if st, err := os.Stat(filepath.Join(root, "new/folders")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("folder: %v, %v", st.Mode(), err)
	}
	for _, name := range []string{"other", "never"} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if err := applyIn(t, root, OnRename, map[string]api.ImageMetadataTemplate{
		"/kept": {When: []string{OnRename}, CreateOnly: true}, "/fresh": {When: []string{OnRename}, CreateOnly: true}}); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(filepath.Join(root, "kept")); string(data) != "create /kept " {
		t.Errorf("create_only overwrote: %q", data)
	}
	if data, _ := os.ReadFile(filepath.Join(root, "fresh")); string(data) != "rename /fresh " {
		t.Errorf("create_only did not create: %q", data)
	}
}

// CVE-2026-23954 and its follow-ups: targets and sources that lead outside.
func TestApplyTemplatesStaysInside(t *testing.T) {
	s := newSandbox(t)
	for name, target := range map[string]string{"up": "../canary", "abs": s.canary, "file": s.canary + "/secret", "dangling": "/new",
		"loop": "loop", "etc": "/real", "proc": "/proc/self/root" + s.canary} {
		if err := os.Symlink(target, filepath.Join(s.dest, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dest, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(s.dest, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Links lead to the same place below the root, or the call is refused.
	inside := map[string]string{"/etc/x": "real/x", "/dangling": "new", "/up/x": "", "/abs/secret": "", "/file": "", "/proc/secret": "",
		"/loop": "", "/loop/x": "", "/pipe": "", "/real": ""}
	for target, want := range inside {
		err := applyIn(t, s.dest, OnCreate, map[string]api.ImageMetadataTemplate{target: {}})
		s.check(t)
		if want == "" {
			if err == nil {
				t.Errorf("%s: no error", target)
			}
			continue
		}
		if _, serr := os.Lstat(filepath.Join(s.dest, want)); err != nil || serr != nil {
			t.Errorf("%s: %v, %v", target, err, serr)
		}
	}
	for _, target := range []string{"../canary/secret", "/../canary/secret", "/a/../../canary/secret", "", "/"} {
		if err := applyIn(t, s.dest, OnCreate, map[string]api.ImageMetadataTemplate{target: {}}); !errors.Is(err, api.Invalid) {
			t.Errorf("target %q: %v", target, err)
		}
	}
	for _, source := range []string{"../t.tpl", "/etc/passwd", "a/b", ".."} {
		if err := applyIn(t, s.dest, OnCreate, map[string]api.ImageMetadataTemplate{"/x": {Template: source}}); !errors.Is(err, api.Invalid) {
			t.Errorf("source %q: %v", source, err)
		}
	}
	if err := applyIn(t, s.dest, OnCreate, map[string]api.ImageMetadataTemplate{"/x": {Template: "absent"}}); !errors.Is(err, api.NotFound) {
		t.Errorf("absent source: %v", err)
	}
	s.check(t)
}

func TestNothingIsWrittenWhenOneTemplateIsBad(t *testing.T) {
	root := t.TempDir()
	err := applyIn(t, root, OnCreate, map[string]api.ImageMetadataTemplate{"/a": {}, "/b": {Template: "absent"}})
	if err == nil || !strings.Contains(err.Error(), "/b") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(root, "a")); err == nil {
		t.Error("a was written")
	}
}
