package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/croft-project/croft"

// levels is the order of packages: one may import those of lower levels, its own
// parents, and nothing beside it. Intent flows down as plain values, results flow
// up as return values; nothing calls upward. A sideways need is a small interface
// at the consumer, wired in daemon.
var levels = [][]string{
	0: {"api"},
	1: {"client", "internal/model", "internal/option", "internal/pki"},
	2: {"internal/store", "internal/linux", "internal/helper"},
	3: {
		"internal/event", "internal/operation", "internal/auth", "internal/storage", "internal/network",
		"internal/device", "internal/image", "internal/lxc", "internal/migrate",
	},
	4: {"internal/instance", "internal/catalog", "internal/inventory", "internal/cluster"},
	5: {"internal/server"},
	6: {"internal/daemon"},
	7: {"cmd/croftd"},
}

// apart are programs that stand beside the levels, with all that they may import
// of this module, and why.
var apart = map[string]struct {
	may    []string
	reason string
}{
	"cmd/croft":         {[]string{"api", "client"}, "the client builds for systems that no daemon runs on, and knows no more than other clients of the API"},
	"bench":             {nil, "the measuring program treats all daemons alike, from outside"},
	"internal/archtest": {nil, "rules look at packages, they do not use them"},
}

// only lists packages that few may import, and why.
var only = []struct {
	prefix string   // the package and all below it
	by     []string // packages, and those below them
	reason string
}{
	{"internal/storage/", []string{"internal/daemon", "internal/storage"}, "a storage driver is reached through storage.Driver; daemon/all.go lists them"},
	{"internal/store/", []string{"internal/daemon", "internal/store"}, "a store back-end is reached through store.Store; daemon opens it"},
	{"C", []string{"internal/lxc"}, "liblxc is bound in one place, and nothing else needs C"},
	{"internal/lxc", []string{"internal/instance", "internal/daemon", "cmd/croftd"}, "liblxc is the engine's affair"},
	{"go.etcd.io/bbolt", []string{"internal/store/bolt"}, "the database is an implementation of store.Store"},
	{"github.com/vishvananda/netlink", []string{"internal/network", "internal/linux"}, "links and addresses are made in one place"},
	{"github.com/spf13/cobra", []string{"cmd"}, "command lines are for main packages"},
}

// standard lists packages that may import the standard library and, of this
// module and others, only what is named.
var standard = map[string][]string{
	"api":    {},
	"client": {module + "/api", "github.com/coder/websocket", "golang.org/x/sync/errgroup"},
}

// levelOf finds a package's level: its own, or that of the parent it belongs to.
func levelOf(pkg string) (level int, parent string, ok bool) {
	for l, names := range levels {
		for _, n := range names {
			if pkg == n || strings.HasPrefix(pkg, n+"/") {
				return l, n, true
			}
		}
	}
	return 0, "", false
}

// TestImportOrder checks what packages import, outside their tests.
func TestImportOrder(t *testing.T) {
	for _, p := range packages(t) {
		for imp, file := range p.imports {
			if err := checkImport(p.path, imp); err != nil {
				t.Errorf("%s imports %s: %v", path.Join(p.path, file), imp, err)
			}
		}
	}
}

func checkImport(pkg, imp string) error {
	if strings.HasPrefix(pkg, "test/") {
		return nil // test harnesses look at the product from all sides, and nothing imports them
	}
	if err := checkOnly(pkg, imp); err != nil {
		return err
	}
	if allowed, ok := standard[pkg]; ok && !isStandard(imp) && !slices.Contains(allowed, imp) {
		return fmt.Errorf("%s is for other programs too and depends on nothing but %v", pkg, append([]string{"the standard library"}, allowed...))
	}
	target, ours := strings.CutPrefix(imp, module+"/")
	if !ours {
		return nil
	}
	if rule, ok := apart[pkg]; ok {
		if slices.Contains(rule.may, target) {
			return nil
		}
		return fmt.Errorf("it may import %v only: %s", rule.may, rule.reason)
	}
	from, fromParent, ok := levelOf(pkg)
	if !ok {
		return fmt.Errorf("package %s has no level: give it one in levels", pkg)
	}
	to, toParent, ok := levelOf(target)
	switch {
	case !ok:
		return fmt.Errorf("package %s has no level: give it one in levels", target)
	case to > from:
		return fmt.Errorf("level %d must not import level %d: results flow up as return values", from, to)
	case to == from && toParent != fromParent:
		return fmt.Errorf("both are of level %d: declare a small interface in %s and wire it in daemon", from, pkg)
	}
	return nil
}

func checkOnly(pkg, imp string) error {
	target := strings.TrimPrefix(imp, module+"/")
	for _, r := range only {
		below := strings.HasSuffix(r.prefix, "/")
		if target != r.prefix && !(below && strings.HasPrefix(target, r.prefix)) {
			continue
		}
		if !slices.ContainsFunc(r.by, func(by string) bool { return pkg == by || strings.HasPrefix(pkg, by+"/") }) {
			return fmt.Errorf("only %v may: %s", r.by, r.reason)
		}
	}
	return nil
}

// isStandard goes by the dot that every module path has in its first element.
func isStandard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".") && imp != "C"
}

// TestRules tries the rules on imports that must and must not be.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		pkg, imp string
		ok       bool
	}{
		{"internal/instance", module + "/internal/storage", true},
		{"internal/instance", module + "/internal/catalog", false}, // sideways
		{"internal/storage", module + "/internal/instance", false}, // upward
		{"internal/storage/dir", module + "/internal/storage", true},
		{"internal/instance", module + "/internal/storage/dir", false},
		{"internal/daemon", module + "/internal/storage/dir", true},
		{"internal/linux", "C", false},
		{"internal/lxc", "C", true},
		{"api", "golang.org/x/sys/unix", false},
		{"api", "encoding/json", true},
		{"client", "github.com/coder/websocket", true},
		{"cmd/croft", module + "/internal/model", false},
		{"cmd/croft", module + "/client", true},
		{"cmd/croftd", module + "/internal/daemon", true},
		{"internal/nowhere", module + "/api", false},
	} {
		if err := checkImport(c.pkg, c.imp); (err == nil) != c.ok {
			t.Errorf("%s imports %s: got %v, want allowed: %v", c.pkg, c.imp, err, c.ok)
		}
	}
}
