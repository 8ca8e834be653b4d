package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// testInstances is a small host: a running web server, a stopped database and
// an ephemeral builder.
func testInstances() []api.InstanceFull {
	web := api.InstanceFull{State: &api.InstanceState{
		Pid: 42, Processes: 7, CPU: api.InstanceStateCPU{Usage: 3_500_000_000}, Memory: api.InstanceStateMemory{Usage: 32 << 20},
		Disk: map[string]api.InstanceStateDisk{"root": {Usage: 5 << 20}},
		Network: map[string]api.InstanceStateNetwork{
			"lo": {Type: "loopback", Addresses: []api.InstanceStateNetworkAddress{{Family: "inet", Address: "127.0.0.1", Scope: "local"}}},
			"eth0": {Type: "broadcast", Addresses: []api.InstanceStateNetworkAddress{
				{Family: "inet", Address: "10.0.0.5", Scope: "global"}, {Family: "inet", Address: "10.0.0.9", Scope: "global"},
				{Family: "inet6", Address: "fe80::1", Scope: "link"}, {Family: "inet6", Address: "fd00::5", Scope: "global"}}},
		},
	}}
	web.Name, web.Status, web.Type, web.Architecture, web.Profiles = "web1", "Running", "container", "x86_64", []string{"default", "web"}
	web.CreatedAt, web.LastUsedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Unix(0, 0)
	web.Config = map[string]string{"volatile.base_image": strings.Repeat("ab", 32)}
	web.ExpandedConfig = map[string]string{"user.role": "web", "limits.memory": "64MiB", "security.privileged": "true"}
	web.ExpandedDevices = map[string]map[string]string{"root": {"type": "disk", "path": "/", "pool": "fast"}, "eth0": {"parent": "br0"}}
	db := api.InstanceFull{}
	db.Name, db.Status, db.Type, db.Architecture = "db1", "Stopped", "container", "aarch64"
	db.ExpandedConfig = map[string]string{"user.role": "database"}
	build := api.InstanceFull{}
	build.Name, build.Status, build.Type, build.Ephemeral = "web-build", "Frozen", "container", true
	return []api.InstanceFull{web, db, build}
}

func TestFilters(t *testing.T) {
	for _, tt := range []struct {
		filters string
		want    string
	}{
		{"", "web1 db1 web-build"},
		{"web", "web1 web-build"},
		{"web1", "web1"},
		{"eb1", ""},
		{".*1", "web1 db1"},
		{"^w.*d$", "web-build"},
		{"1$", "web1 db1"},
		{"(", ""},
		{"user.role=web", "web1"},
		{"u.r=database", "db1"},
		{"u.role=.*b.*", "web1 db1"},
		{"s.privileged=true", "web1"},
		{"role=web", ""},
		{"status=running", "web1"},
		{"status=stopped,frozen", "db1 web-build"},
		{"type=container", "web1 db1 web-build"},
		{"type=container web", "web1 web-build"},
		{"architecture=aarch64", "db1"},
		{"ipv4=10.0.0.5", "web1"},
		{"ipv4=10.0.0.0/8", "web1"},
		{"ipv4=192.168.0.0/16,10.0.0.9", "web1"},
		{"ipv4=127.0.0.1", ""},
		{"ipv6=fd00::/8", "web1"},
		{"ipv6=fe80::/10", ""},
	} {
		filters, err := parseFilters(strings.Fields(tt.filters))
		if err != nil {
			t.Errorf("%q: %v", tt.filters, err)
			continue
		}
		var got []string
		for _, i := range selectInstances(testInstances(), filters) {
			got = append(got, i.Name)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%q: got %q, want %q", tt.filters, got, tt.want)
		}
	}
	if _, err := parseFilters([]string{"ipv4=nonsense"}); !errors.Is(err, api.Invalid) {
		t.Errorf("bad address: got %v, want Invalid", err)
	}
}

func TestColumns(t *testing.T) {
	for _, tt := range []struct {
		columns string
		header  string
		web     string
		live    bool
	}{
		{"ns", "NAME|STATE", "web1|RUNNING", false},
		{"n,s", "NAME|STATE", "web1|RUNNING", false},
		{"46", "IPV4|IPV6", "10.0.0.9 (eth0)\n10.0.0.5 (eth0)|fd00::5 (eth0)", true},
		{"abcdelt", "ARCHITECTURE|STORAGE POOL|CREATED AT|DESCRIPTION|PROJECT|LAST USED AT|TYPE",
			"x86_64|fast|2026/01/02 03:04 UTC||||CONTAINER", false},
		{"DmMNpuS", "DISK USAGE|MEMORY USAGE|MEMORY USAGE%|PROCESSES|PID|CPU USAGE|SNAPSHOTS",
			"5.00MiB|32.00MiB|50.0%|7|42|3s|0", true},
		{"P", "PROFILES", "default\nweb", false},
		{"fF", "BASE IMAGE|BASE IMAGE", "abababababab|" + strings.Repeat("ab", 32), false},
		{"n,user.role", "NAME|user.role", "web1|web", false},
		{"user.role:ROLE,config:user.role:R:2", "ROLE|R", "web|we", false},
		{"devices:eth0.parent:ETHP:0", "ETHP", "br0", false},
		{"user.role:X:0", "X", "w", false},
	} {
		cols, err := parseColumns(tt.columns)
		if err != nil {
			t.Errorf("%q: %v", tt.columns, err)
			continue
		}
		tab := listTable(cols, testInstances()[:1])
		if got := strings.Join(tab.header, "|"); got != tt.header {
			t.Errorf("%q: header %q, want %q", tt.columns, got, tt.header)
		}
		if got := strings.Join(tab.rows[0], "|"); got != tt.web {
			t.Errorf("%q: row %q, want %q", tt.columns, got, tt.web)
		}
		if got := needsState(cols); got != tt.live {
			t.Errorf("%q: needs state: %v, want %v", tt.columns, got, tt.live)
		}
	}
	for _, bad := range []string{"", "nX", "n,,s", "L", "a.b:c:d:e", "user.x:X:-2", "user.x:X:w", "devices:eth0", "config:"} {
		if _, err := parseColumns(bad); !errors.Is(err, api.Invalid) {
			t.Errorf("%q: got %v, want Invalid", bad, err)
		}
	}
}

func TestSplitWords(t *testing.T) {
	for in, want := range map[string][]string{
		"":                            nil,
		"list -c n":                   {"list", "-c", "n"},
		`exec @ARGS@ -- sh -c "a  b"`: {"exec", "@ARGS@", "--", "sh", "-c", "a  b"},
		`a'b "c'd`:                    {`ab "cd`},
		`\ x "" '\'`:                  {" x", "", `\`},
	} {
		got, err := splitWords(in)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{`"`, `a 'b`, `a\`} {
		if _, err := splitWords(bad); !errors.Is(err, api.Invalid) {
			t.Errorf("%q: got %v, want Invalid", bad, err)
		}
	}
}

func TestExpandAlias(t *testing.T) {
	g := testGlobal(t)
	g.conf = &config{DefaultRemote: "local", Remotes: map[string]remote{"local": {Addr: "unix://"}},
		Aliases: map[string]string{"ll": "list -c ns", "ll all": "list --all-projects", "list": "list -f csv", "in": "exec @ARGS@ -- sh"}}
	for in, want := range map[string]string{
		"start x":           "start x",
		"ll":                "list -c ns",
		"ll web":            "list -c ns web",
		"ll all web":        "list --all-projects web",
		"list":              "list -f csv",
		"in c1":             "exec c1 -- sh",
		"shell c1":          "exec c1 -- su -l",
		"--project p ll":    "--project p list -c ns",
		"-q in c1":          "-q exec c1 -- sh",
		"__complete ll":     "__complete ll",
		"":                  "",
		"--project":         "--project",
		"shell c1 --user 1": "exec c1 --user 1 -- su -l",
	} {
		got, err := g.expandAlias(strings.Fields(in))
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}

// testGlobal has no terminal, no environment and an empty configuration.
func testGlobal(t *testing.T) *global {
	t.Helper()
	return &global{stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{},
		env: func(string) string { return "" }, conf: &config{DefaultRemote: "local", Remotes: map[string]remote{"local": {Addr: "unix://"}}}}
}

func TestParseRemote(t *testing.T) {
	g := testGlobal(t)
	g.conf.Remotes["far"] = remote{Addr: "https://far:8443"}
	g.conf.Remotes["near"] = remote{Addr: "unix:///run/other.socket"}
	for in, want := range map[string][2]string{
		"x": {"local", "x"}, "local:x": {"local", "x"}, "near:": {"near", ""}, "": {"local", ""}, "near:a:b": {"near", "a:b"},
	} {
		r, n, err := g.parse(in)
		if err != nil || r != want[0] || n != want[1] {
			t.Errorf("%q: got %q, %q, %v; want %q", in, r, n, err, want)
		}
	}
	if _, _, err := g.parse("nosuch:x"); !errors.Is(err, api.NotFound) {
		t.Errorf("unknown remote: got %v, want NotFound", err)
	}
	if s, err := g.socket("near"); err != nil || s != "/run/other.socket" {
		t.Errorf("got %q, %v", s, err)
	}
	if s, err := g.socket("local"); err != nil || s != "/var/lib/croft/unix.socket" {
		t.Errorf("got %q, %v", s, err)
	}
	if _, err := g.socket("far"); !errors.Is(err, api.Unsupported) {
		t.Errorf("https remote: got %v, want Unsupported", err)
	}
	g.env = func(k string) string { return map[string]string{"LXD_DIR": "/l", "CROFT_DIR": "/c"}[k] }
	if s, _ := g.socket("local"); s != "/c/unix.socket" {
		t.Errorf("CROFT_DIR: got %q", s)
	}
	g.conf.DefaultRemote, g.forceLocal = "far", true
	if r, _, _ := g.parse("x"); r != "local" {
		t.Errorf("--force-local: got remote %q", r)
	}
}

// TestConfigFile checks that saving keeps what croft does not know.
func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yml")
	before := "default-remote: local\nremotes:\n  far:\n    addr: https://far\n    auth_type: tls\naliases: {}\nlast: thing\n"
	if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	g := testGlobal(t)
	g.conf, g.env = nil, func(k string) string { return map[string]string{"LXD_CONF": dir}[k] }
	if err := runAliasAdd(g, "ll", "list"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	want := "default-remote: local\nremotes:\n  far:\n    addr: https://far\n    auth_type: tls\n  local:\n    addr: unix://\naliases:\n  ll: list\nlast: thing\n"
	if diff := cmp.Diff(want, string(raw)); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

func TestSplitConfigArgs(t *testing.T) {
	for in, want := range map[string]string{
		"core.x=1":        "|core.x=1",
		"core.x 1":        "|core.x 1",
		"c1 a.b=1":        "c1|a.b=1",
		"c1 a.b 1":        "c1|a.b 1",
		"c1 a.b=1 c.d=2":  "c1|a.b=1 c.d=2",
		"a.b=1 c.d=2":     "|a.b=1 c.d=2",
		"c1 user.x a=b":   "c1|user.x a=b",
		"user.x":          "|user.x",
		"local:c1 user.x": "|local:c1 user.x",
	} {
		target, rest := splitConfigArgs(strings.Fields(in))
		if got := target + "|" + strings.Join(rest, " "); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestImportArgs(t *testing.T) {
	files, remote, props, err := importArgs([]string{"m", "r", "local:", "a=b", "c=d=e"})
	if err != nil || !slices.Equal(files, []string{"m", "r"}) || remote != "local:" || !cmp.Equal(props, configMap{"a": "b", "c": "d=e"}) {
		t.Errorf("got %v %v %v %v", files, remote, props, err)
	}
	if _, _, _, err := importArgs([]string{"m", "r", "x"}); !errors.Is(err, api.Invalid) {
		t.Errorf("three files: got %v, want Invalid", err)
	}
}

func TestExecTerminal(t *testing.T) {
	for _, tt := range []struct {
		o       execOptions
		in, out bool
		want    bool
	}{
		{execOptions{mode: "auto"}, true, true, true},
		{execOptions{mode: "auto"}, true, false, false},
		{execOptions{mode: "auto"}, false, true, false},
		{execOptions{mode: "auto", noStdin: true}, true, true, false},
		{execOptions{mode: "auto", interactive: true}, false, false, true},
		{execOptions{mode: "auto", forceNonInteract: true}, true, true, false},
		{execOptions{mode: "interactive"}, false, false, true},
		{execOptions{mode: "non-interactive"}, true, true, false},
	} {
		if got, err := tt.o.terminal(tt.in, tt.out); err != nil || got != tt.want {
			t.Errorf("%+v %v %v: got %v, %v; want %v", tt.o, tt.in, tt.out, got, err, tt.want)
		}
	}
}

func TestNaturalOrder(t *testing.T) {
	rows := []string{"", "c10", "c2", "c1", "b", "c2a", "c", "c02x", "10", "9"}
	slices.SortFunc(rows, func(a, b string) int {
		switch {
		case lessRow([]string{a}, []string{b}):
			return -1
		case lessRow([]string{b}, []string{a}):
			return 1
		}
		return 0
	})
	if diff := cmp.Diff([]string{"9", "10", "b", "c", "c1", "c2", "c2a", "c02x", "c10", ""}, rows); diff != "" {
		t.Error(diff)
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1.00KiB", 528 << 10: "528.00KiB", 1 << 40: "1.00TiB"} {
		if got := iecSize(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
	if got := siSize(1130); got != "1.13kB" {
		t.Errorf("got %s", got)
	}
	for s, want := range map[string]int64{"64MB": 64e6, "1GiB": 1 << 30, "10": 10, "5kB": 5000, "2 MiB": 2 << 20} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", s, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "10%", "1XB", "-1"} {
		if _, err := parseSize(bad); err == nil {
			t.Errorf("%q is taken as a size", bad)
		}
	}
}

func TestTable(t *testing.T) {
	tab := table{header: []string{"A", "LONG"}, rows: [][]string{{"ü\nb", "x"}, {"", "日本"}}}
	want := "+---+------+\n| A | LONG |\n+---+------+\n| ü | x    |\n| b |      |\n+---+------+\n|   | 日本 |\n+---+------+\n"
	if diff := cmp.Diff(want, tab.bordered()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("  A  LONG  \n  ü  x     \n  b        \n     日本  \n", tab.compact()); diff != "" {
		t.Error(diff)
	}
}

func TestFormatEvent(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	life := api.Event{Type: "lifecycle", Timestamp: at, Project: "default", Metadata: json.RawMessage(
		`{"action":"instance-started","source":"/1.0/instances/c1","requestor":{"protocol":"unix","username":"root","address":"@"}}`)}
	log := api.Event{Type: "logging", Timestamp: at, Metadata: json.RawMessage(`{"level":"debug","message":"hi","context":{"k":"a b"}}`)}
	for _, tt := range []struct {
		ev   api.Event
		o    monitorOptions
		want string
	}{
		{life, monitorOptions{format: "pretty"},
			`time="2026-01-02T03:04:05Z" level=info msg="Action: instance-started, Source: /1.0/instances/c1, Requestor: unix/root (@)"` + "\n"},
		{log, monitorOptions{format: "pretty"}, `time="2026-01-02T03:04:05Z" level=debug msg="hi" k="a b"` + "\n"},
		{log, monitorOptions{format: "pretty", logLevel: "INFO"}, ""},
		{log, monitorOptions{format: "json"},
			`{"metadata":{"context":{"k":"a b"},"level":"debug","message":"hi"},"timestamp":"2026-01-02T03:04:05Z","type":"logging"}` + "\n\n"},
		{log, monitorOptions{format: "yaml"},
			"metadata:\n  context:\n    k: a b\n  level: debug\n  message: hi\ntimestamp: \"2026-01-02T03:04:05Z\"\ntype: logging\n\n\n"},
	} {
		got, err := formatEvent(tt.ev, tt.o)
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	}
}

func TestExportName(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		target string
		part   client.ImagePart
		want   string
	}{
		{dir, client.ImagePart{Name: "x.tar.xz"}, filepath.Join(dir, "fp.tar.xz")},
		{dir, client.ImagePart{Field: "metadata", Name: "meta-x.tar.xz"}, filepath.Join(dir, "meta-fp.tar.xz")},
		{dir, client.ImagePart{Field: "rootfs", Name: "x.squashfs"}, filepath.Join(dir, "fp.squashfs")},
		{"web", client.ImagePart{Name: "x.tar.gz"}, "web.tar.gz"},
		{"web", client.ImagePart{Field: "metadata", Name: "m.tar.gz"}, "web.tar.gz"},
		{"web", client.ImagePart{Field: "rootfs", Name: "r.squashfs"}, "web.root.squashfs"},
	} {
		if got := exportName(tt.target, "fp", tt.part); got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.part, got, tt.want)
		}
	}
}

func TestProgressText(t *testing.T) {
	meta := map[string]any{"unpack_progress": "Unpack: 10%\x1b[2J", "progress": map[string]any{"percent": "10"}, "other": "x"}
	if got := printable(progressText(meta)); got != "Unpack: 10%[2J" {
		t.Errorf("got %q", got)
	}
}
