package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/croft-project/croft/api"
)

// Deps is what a Manager works with. Zero values stand for what is in brackets.
type Deps struct {
	StateDir    string       // the daemon's directory; required, absolute
	RunDir      string       // [/run/croft/ID] emptied by a reboot, traversable by every user
	InstanceID  string       // [digest of StateDir's real path] identity among the daemons of the host, [0-9a-z]+
	Log         *slog.Logger // [discards]
	DNSMasqPath string       // [dnsmasq on PATH or in /usr/sbin]
	NFTPath     string       // [nft on PATH or in /usr/sbin]
	Now         func() time.Time
}

// Manager makes, watches and removes the managed bridges of one daemon, in the
// network namespace that the daemon runs in. Its methods are safe for concurrent
// use; those that change one network wait for each other.
type Manager struct {
	env     Env
	log     *slog.Logger
	dnsmasq string
	nft     string
	now     func() time.Time

	ctx    context.Context // ends at Detach, and with it every supervisor
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	networks map[string]*managed
}

// managed is one network as the manager knows it.
type managed struct {
	name string
	sem  chan struct{} // held while the network is changed; guards what follows

	plan     *Plan                  // nil while it is not started
	static   map[string]StaticLease // by file name
	complete bool                   // static is the whole set, not only what was added since the daemon started
	super    *supervisor            // nil when no dnsmasq is wanted
}

// New returns a Manager. It changes nothing on the host.
func New(d Deps) *Manager {
	m := &Manager{
		log: d.Log, dnsmasq: d.DNSMasqPath, nft: d.NFTPath, now: d.Now,
		env:      Env{InstanceID: d.InstanceID, HostID: hostID(), StateDir: d.StateDir, RunDir: d.RunDir},
		networks: map[string]*managed{},
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.dnsmasq == "" {
		m.dnsmasq = findProgram("dnsmasq")
	}
	if m.nft == "" {
		m.nft = findProgram("nft")
	}
	if !idRE.MatchString(m.env.InstanceID) {
		m.env.InstanceID = digestID(d.InstanceID, d.StateDir)
	}
	if m.env.RunDir == "" {
		m.env.RunDir = filepath.Join("/run/croft", m.env.InstanceID)
	}
	m.env.User, m.env.Group = unprivileged()
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// idRE keeps identities fit for names of tables and directories, and short
// enough for the alias of a link.
var idRE = regexp.MustCompile(`^[0-9a-z]{1,32}$`)

// digestID derives an identity: from the one given if it has characters that do
// not fit, else from the directory, by whatever name it was reached.
func digestID(given, dir string) string {
	if given == "" {
		given = dir
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			given = real
		}
	}
	sum := sha256.Sum256([]byte(given))
	return hex.EncodeToString(sum[:6])
}

// hostID is systemd's machine id, or empty.
func hostID() string {
	b, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// findProgram looks where a daemon's PATH may not lead.
func findProgram(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	return ""
}

// unprivileged is the user and group that dnsmasq becomes: its own, which
// Debian's dnsmasq package makes, else nobody's.
func unprivileged() (usr, group string) {
	for _, name := range []string{"dnsmasq", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil || u.Uid == "0" {
			continue
		}
		if g, err := user.LookupGroupId(u.Gid); err == nil {
			return name, g.Name
		}
	}
	return "nobody", "nogroup"
}

// network returns the record of a name, made when there is none.
func (m *Manager) network(name string) *managed {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.networks[name]
	if n == nil {
		n = &managed{name: name, sem: make(chan struct{}, 1), static: map[string]StaticLease{}}
		m.networks[name] = n
	}
	return n
}

func (n *managed) lock(ctx context.Context) error {
	select {
	case n.sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (n *managed) unlock() { <-n.sem }

// started returns the record of a started network, locked.
func (m *Manager) started(ctx context.Context, name string) (*managed, error) {
	m.mu.Lock()
	n := m.networks[name]
	m.mu.Unlock()
	if n != nil {
		if err := n.lock(ctx); err != nil {
			return nil, err
		}
		if n.plan != nil {
			return n, nil
		}
		n.unlock()
	}
	return nil, api.Errorf(api.NotFound, "network %s is not running", name)
}

// Start makes the host agree with the configuration: link, addresses, kernel
// settings, packet filter, dnsmasq. It may be repeated, with the same
// configuration or another, and after a crash of the daemon. A dnsmasq of ours
// that already runs with the right configuration is kept; one with another is
// replaced, which costs no lease.
//
// Errors: Invalid for the configuration; Conflict when the name belongs to an
// interface that is not ours; Unsupported when the host lacks a program or
// facility. After an error some of it may be in effect; Start can be repeated,
// and Stop removes it.
func (m *Manager) Start(ctx context.Context, c Config) error {
	plan, err := BuildPlan(c, m.env)
	if err != nil {
		return err
	}
	n := m.network(c.Name)
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	if err := m.startLocked(ctx, n, plan); err != nil {
		return fmt.Errorf("start network %s: %w", c.Name, err)
	}
	return nil
}

func (m *Manager) startLocked(ctx context.Context, n *managed, plan *Plan) error {
	if err := m.makeDirs(plan); err != nil {
		return err
	}
	if err := applyLink(plan, m.markFile(plan.Name)); err != nil {
		return err
	}
	// The table comes before the addresses: nothing leaves untranslated.
	if err := m.runNFT(ctx, plan.Ruleset); err != nil {
		return err
	}
	if err := applySysctls(plan); err != nil {
		return err
	}
	if err := applyAddrs(plan); err != nil {
		return err
	}
	n.plan = plan
	if err := n.syncHosts(); err != nil {
		return err
	}
	if err := m.superviseLocked(ctx, n); err != nil {
		return err
	}
	m.openForeign(ctx, plan)
	return nil
}

// makeDirs makes the directories that the plan's files are in. dnsmasq reads
// those of RunDir after it has dropped its privileges.
func (m *Manager) makeDirs(plan *Plan) error {
	if err := os.MkdirAll(m.env.leaseDir(plan.Name), 0o711); err != nil {
		return err
	}
	if plan.DNSMasq != nil {
		return openDir(plan.DNSMasq.HostsDir)
	}
	return openDir(m.env.runDir(plan.Name))
}

// openDir is os.MkdirAll, but what it makes is 0755 whatever the umask is.
func openDir(path string) error {
	if exists(path) {
		return nil
	}
	if err := openDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Chmod(path, 0o755)
}

// markFile tells, until the next reboot, that the link of this name is ours: it
// is written before the link is made and so covers a crash before the link has
// its alias.
func (m *Manager) markFile(name string) string { return filepath.Join(m.env.runDir(name), "link") }

// Stop removes all that Start made, the leases included. It works for a network
// that is half made or was started by an earlier daemon; a name that is not in
// use, or is another's link, is left alone. Instances must have been detached,
// see InUse in the caller.
func (m *Manager) Stop(ctx context.Context, name string) error {
	return m.stop(ctx, name, func(n *managed) error {
		n.static, n.complete = map[string]StaticLease{}, false
		if err := os.RemoveAll(m.env.leaseDir(name)); err != nil {
			return err
		}
		os.Remove(filepath.Join(m.env.StateDir, "networks")) // if it was the last one
		return nil
	})
}

// Down is Stop without forgetting the leases: for a daemon that shuts down all
// of its instances.
func (m *Manager) Down(ctx context.Context, name string) error {
	return m.stop(ctx, name, func(*managed) error { return nil })
}

// stop takes a network down and then calls forget, all under its lock.
func (m *Manager) stop(ctx context.Context, name string, forget func(*managed) error) error {
	if err := ValidateName(name); err != nil {
		return err
	}
	n := m.network(name)
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	err := m.stopLocked(ctx, n)
	if err == nil {
		err = forget(n)
	}
	if err != nil {
		return fmt.Errorf("stop network %s: %w", name, err)
	}
	return nil
}

func (m *Manager) stopLocked(ctx context.Context, n *managed) error {
	n.stopSupervisor()
	n.plan = nil
	run := m.env.runDir(n.name)
	if err := m.killDNSMasq(ctx, run); err != nil {
		return err
	}
	m.closeForeign(ctx, n.name)
	gone, err := removeLink(n.name, linkAlias(m.env.InstanceID), m.markFile(n.name))
	if err != nil {
		return err
	}
	if gone || exists(run) { // else it never was ours, and there is no table to look for
		if err := m.runNFT(ctx, deleteTable(tableName(m.env.InstanceID, n.name))); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(run); err != nil {
		return err
	}
	os.Remove(m.env.RunDir) // if it was the last one
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// Detach ends the supervision of all networks and leaves them as they are:
// containers outlive the daemon and go on renewing their leases. The next
// daemon's Start adopts them. No method may be called afterwards.
func (m *Manager) Detach() {
	m.cancel()
	m.wg.Wait()
}

// runNFT feeds nft with one transaction.
func (m *Manager) runNFT(ctx context.Context, rules string) error {
	if m.nft == "" {
		return api.Errorf(api.Unsupported, "the program nft was not found").WithHint("apt-get install nftables")
	}
	cmd := exec.CommandContext(ctx, m.nft, "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, firstLine(out))
	}
	return nil
}

// firstLine keeps messages of programs short.
func firstLine(out []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if len(line) > 300 {
		line = line[:300]
	}
	return line
}
