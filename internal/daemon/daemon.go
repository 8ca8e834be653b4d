// Package daemon is the composition root: it opens what the daemon is made of,
// wires it together, serves the API and takes it all down again. No other
// package knows more than its own neighbours.
//
// Order matters. The database lock comes first: who holds it owns the state
// directory, and only then may a socket that is in the way be replaced. What a
// crash interrupted is finished or undone before the first request is served;
// clients that connect meanwhile wait in the socket's queue. Starting the
// instances that ran before goes on in the background.
//
// SIGTERM, SIGINT and SIGQUIT end the daemon and leave containers, exec sessions
// and networks as they are. SIGPWR and the shutdown request stop the instances
// first.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/catalog"
	"github.com/croft-project/croft/internal/event"
	"github.com/croft-project/croft/internal/inventory"
	"github.com/croft-project/croft/internal/network"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/pki"
	"github.com/croft-project/croft/internal/server"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store/bolt"
)

// Options of [Open].
type Options struct {
	StateDir string       // absolute; made if it is absent
	Group    string       // may use the socket besides root; empty: nobody
	Log      slog.Handler // where log lines go; nil discards

	// Inherited is the listening socket that the service manager opened, or nil.
	// It is never unlinked.
	Inherited net.Listener

	Now       func() time.Time // nil means time.Now
	NewEngine NewEngine        // nil means package instance's
}

// Engine makes and runs instances; *instance.Engine behind a thin adapter.
type Engine interface {
	server.Instances
	server.Profiles
	// Recover makes records and kernel agree. It comes before everything else.
	Recover(ctx context.Context) error
	// Restore starts the instances that are to run, and returns when all have
	// been tried.
	Restore(ctx context.Context) error
	// Shutdown stops all instances in order and remembers which ran.
	Shutdown(ctx context.Context) error
	// LeaveSessions lets go of exec sessions, which run on.
	LeaveSessions()
	// Close ends the watching of instances, which go on running.
	Close()
}

// How long the parts may take at the end.
const (
	termGrace  = 10 * time.Second // for operations, when the daemon alone stops
	closeGrace = 5 * time.Second  // for what is left of them once they are cancelled
)

// Daemon is an open state directory and all that works on it.
type Daemon struct {
	opts Options
	log  *slog.Logger

	db       *bolt.DB
	hub      *event.Hub
	hubDone  chan struct{}
	hubStop  context.CancelFunc
	ops      *operation.Manager
	locks    *operation.Locks
	pools    *storage.Pools
	networks *network.Manager
	inv      *inventory.Inventory
	images   *catalog.Catalog
	engine   Engine
	identity *pki.Identity
	host     *host
	server   *server.Server
	listener net.Listener

	ready    chan struct{} // closed when what ran before runs again
	once     sync.Once     // for shutdown
	shutdown chan struct{} // closed when instances are to be stopped too
	force    bool          // set before shutdown is closed: do not wait for operations
}

// Open takes the state directory over and prepares everything but the API's
// socket and the recovery, see [Daemon.Run]. [Daemon.Close] undoes it.
//
// Errors: Conflict for the directory of an LXD server; Unavailable when another
// daemon works on it; Invalid for the group.
func Open(ctx context.Context, opts Options) (*Daemon, error) {
	if opts.Log == nil {
		opts.Log = slog.DiscardHandler
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.NewEngine == nil {
		opts.NewEngine = newEngine
	}
	d := &Daemon{opts: opts, log: slog.New(opts.Log), ready: make(chan struct{}), shutdown: make(chan struct{})}
	if err := d.open(ctx); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) open(ctx context.Context) (err error) {
	if err := prepareDir(d.opts.StateDir); err != nil {
		return err
	}
	d.db, err = bolt.Open(ctx, bolt.Options{
		Path: filepath.Join(d.opts.StateDir, dbDir, dbFile), Log: d.log, Now: d.opts.Now, Backups: dbBackups,
	})
	if err != nil {
		return err
	}
	if err := makeDirs(ctx, d.opts.StateDir); err != nil {
		return err
	}
	if err := d.startHub(ctx); err != nil {
		return err
	}
	// From here on log lines are events too.
	d.log = slog.New(event.NewLogHandler(d.hub, d.opts.Log))
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("read the host's name: %w", err)
	}
	if d.identity, err = pki.LoadOrCreate(d.opts.StateDir, hostname, d.opts.Now()); err != nil {
		return err
	}
	if err := addProfiles(ctx, d.db); err != nil {
		return err
	}
	if err := d.wire(); err != nil {
		return err
	}
	d.host = newHost(ctx, hostname, d.identity, d.pools, filepath.Join(d.opts.StateDir, probeDir), d.log)
	d.server, err = server.New(d.serverDeps())
	return err
}

func (d *Daemon) startHub(ctx context.Context) (err error) {
	d.hub, err = event.New(ctx, event.Options{Store: d.db, Log: d.log, Now: d.opts.Now})
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.hubStop, d.hubDone = stop, make(chan struct{})
	go func() {
		defer close(d.hubDone)
		if err := d.hub.Run(run); err != nil && run.Err() == nil {
			d.log.Error("events have stopped", "err", err)
		}
	}()
	return nil
}

// wire makes the services, each with what it needs and nothing else.
func (d *Daemon) wire() (err error) {
	o := d.opts
	d.locks = operation.NewLocks(o.Now)
	d.ops = operation.New(operation.Deps{Events: d.hub, Log: d.log, Now: o.Now})
	d.pools = storage.NewPools(storage.Options{
		Dir: filepath.Join(o.StateDir, "storage-pools"), StageDir: filepath.Join(o.StateDir, "run", "stage"),
		Drivers: drivers(), Log: d.log,
	})
	d.networks = network.New(network.Deps{StateDir: o.StateDir, Log: d.log, Now: o.Now})
	d.inv = inventory.New(inventory.Deps{
		Store: d.db, Locks: d.locks, Pools: d.pools, Networks: d.networks, Log: d.log,
	})
	tools := newTools()
	d.images = catalog.New(catalog.Deps{
		Store: d.db, Ops: d.ops, Locks: d.locks, StateDir: o.StateDir, Tools: tools, Builder: builder{},
		Pools: d.openPools, Log: d.log, Now: o.Now,
	})
	d.engine, err = o.NewEngine(EngineDeps{
		Store: d.db, Ops: d.ops, Locks: d.locks, Images: d.images, Inventory: d.inv, Tools: tools,
		StateDir: o.StateDir, Log: d.log, Now: o.Now,
	})
	return err
}

func (d *Daemon) openPools() []catalog.Pool {
	var out []catalog.Pool
	for _, p := range d.pools.List() {
		out = append(out, p)
	}
	return out
}

func (d *Daemon) serverDeps() server.Deps {
	return server.Deps{
		Instances: d.engine, Profiles: d.engine, Images: d.images, Aliases: d.images,
		Pools: d.inv, Networks: d.inv, Config: d.inv, Operations: d.ops, Events: d.hub,
		Environment: d.host.environment, Ready: d.ready, Shutdown: d.requestShutdown,
		Product: "Croft/" + Version, Log: d.log,
	}
}

// Ready is closed when the daemon has recovered and has started what ran before.
func (d *Daemon) Ready() <-chan struct{} { return d.ready }

// Shutdown begins to stop the instances and then the daemon; [Daemon.Run] returns
// when that is done. With force, operations in progress are not waited for.
func (d *Daemon) Shutdown(force bool) {
	d.once.Do(func() {
		d.force = force
		close(d.shutdown)
	})
}

func (d *Daemon) requestShutdown(_ context.Context, force bool) error {
	d.Shutdown(force)
	return nil
}

// Run recovers, serves the API, and returns when ctx ends or after
// [Daemon.Shutdown]. The containers run on after the former. It is called once.
func (d *Daemon) Run(ctx context.Context) error {
	l, err := d.listen()
	if err != nil {
		return err
	}
	d.listener = l
	if err := d.recover(ctx); err != nil {
		return err
	}
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	served := make(chan error, 1)
	go func() { served <- d.server.Serve(serving, l) }()
	restoring, stopRestoring := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { d.host.facts() }) // probing takes a moment, which the first client need not wait for
	background.Go(func() { d.restore(restoring) })
	d.notify(sd.SdNotifyReady)
	d.log.Info("the API is up", "socket", filepath.Join(d.opts.StateDir, SocketName), "version", Version)

	select {
	case err = <-served:
		err = fmt.Errorf("serve the API: %w", err)
		served <- nil
	case <-ctx.Done():
	case <-d.shutdown:
	}
	d.notify(sd.SdNotifyStopping)
	stopRestoring()
	background.Wait()
	err = errors.Join(err, d.stop(ctx))
	stopServing()
	return errors.Join(err, <-served)
}

// recover brings up what the store knows and undoes what a crash left.
func (d *Daemon) recover(ctx context.Context) error {
	if err := d.inv.Start(ctx); err != nil {
		return err
	}
	if err := d.images.Recover(ctx); err != nil {
		return err
	}
	return d.engine.Recover(ctx)
}

func (d *Daemon) restore(ctx context.Context) {
	if err := d.engine.Restore(ctx); err != nil && ctx.Err() == nil {
		d.log.Error("not all instances that ran before could be started", "err", err)
	}
	if ctx.Err() == nil {
		close(d.ready)
		d.log.Info("ready")
	}
}

// stop waits for operations; on a shutdown the instances are stopped first.
func (d *Daemon) stop(ctx context.Context) error {
	grace := termGrace
	select {
	case <-d.shutdown:
		grace = d.shutdownGrace()
		d.stopInstances(ctx)
	default:
	}
	d.engine.LeaveSessions()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace+closeGrace)
	defer cancel()
	if err := d.ops.Shutdown(end, grace); err != nil {
		d.log.Warn("the daemon ends with work unfinished; the next start undoes or completes it", "err", err)
	}
	return nil
}

// shutdownGrace is how long operations may take when the host goes down.
func (d *Daemon) shutdownGrace() time.Duration {
	if d.force {
		return 0
	}
	return shutdownTimeout(d.db, d.log)
}

// stopInstances stops everything until ctx ends: a second signal makes the
// daemon leave the rest as it is.
func (d *Daemon) stopInstances(ctx context.Context) {
	d.log.Info("stopping all instances")
	if err := d.engine.Shutdown(ctx); err != nil {
		d.log.Error("not all instances could be stopped", "err", err)
		return // those still need their networks
	}
	if err := d.inv.Down(ctx); err != nil {
		d.log.Error("not all networks could be taken down", "err", err)
	}
}

// notify tells the service manager, if there is one.
func (d *Daemon) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("the service manager could not be notified", "state", state, "err", err)
	}
}

// Close releases the state directory. It may be called on a half-opened daemon
// and more than once.
func (d *Daemon) Close() error {
	var errs []error
	if d.listener != nil {
		errs = append(errs, d.closeListener())
	}
	if d.engine != nil {
		d.engine.Close()
	}
	if d.networks != nil {
		d.networks.Detach()
	}
	if d.pools != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
		defer cancel()
		if err := d.pools.Close(ctx); err != nil {
			d.log.Info("removals go on after the next start", "err", err)
		}
	}
	if d.hubStop != nil {
		d.hubStop()
		<-d.hubDone
	}
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	d.listener, d.engine, d.networks, d.pools, d.hubStop, d.db = nil, nil, nil, nil, nil, nil
	return errors.Join(errs...)
}

// kindOr gives an error of the system a kind.
func kindOr(kind api.Kind, format string, err error) error {
	if err == nil {
		return nil
	}
	return api.Errorf(kind, format+": %w", err)
}
