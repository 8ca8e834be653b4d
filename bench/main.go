//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the command-line flags; README.md explains them.
type options struct {
	n            int
	rounds       int
	count        int
	parallel     int
	gets         int
	daemons      string
	drivers      string
	croftDrivers string
	only         string
	timeLimit    time.Duration
	out          string
	tmp          string
	cache        string
	keep         bool

	lxc, lxd, incusd, croftd string

	busybox, debianMeta, debianRootfs, mirror string
}

func parseFlags(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // main prints errors
	fs.IntVar(&o.n, "n", 15, "timed repetitions of each single operation")
	fs.IntVar(&o.rounds, "rounds", 3, "timed repetitions of the rows with many containers")
	fs.IntVar(&o.count, "count", 100, "containers in those rows (the budgets are for 100)")
	fs.IntVar(&o.parallel, "parallel", 4, "clients at a time in those rows (the budgets are for 4)")
	fs.IntVar(&o.gets, "gets", 20, "list requests per round")
	fs.StringVar(&o.daemons, "daemons", "", "comma-separated subset of lxd,incus,croft (default: all that are installed)")
	fs.StringVar(&o.drivers, "drivers", "btrfs", "storage drivers of LXD and Incus: btrfs, dir or both")
	fs.StringVar(&o.croftDrivers, "croft-drivers", "overlay", "storage drivers of Croft; the budgets apply to the first")
	fs.StringVar(&o.only, "only", "", "regular expression: only rows whose id matches (see README.md)")
	fs.DurationVar(&o.timeLimit, "time-limit", 40*time.Minute, "start no further repetition after this time")
	fs.StringVar(&o.out, "out", "", "directory for latest.json and latest.md (default: none, print only)")
	fs.StringVar(&o.tmp, "tmp", os.TempDir(), "where the state directories and loop files go")
	fs.StringVar(&o.cache, "cache", "/var/cache/croft-bench", "where the Debian image is kept between runs")
	fs.BoolVar(&o.keep, "keep", false, "keep the temporary directory with the daemons' logs")
	fs.StringVar(&o.lxc, "lxc", "lxc", "the stock client")
	fs.StringVar(&o.lxd, "lxd", "lxd", "LXD's daemon")
	fs.StringVar(&o.incusd, "incusd", "/usr/libexec/incus/incusd", "Incus' daemon")
	fs.StringVar(&o.croftd, "croftd", "bin/croftd", "Croft's daemon")
	fs.StringVar(&o.busybox, "busybox", "", "unified busybox image to use instead of a generated one")
	fs.StringVar(&o.debianMeta, "debian-meta", "", "metadata tarball of a split Debian image (with --debian-rootfs)")
	fs.StringVar(&o.debianRootfs, "debian-rootfs", "", "squashfs of a split Debian image")
	fs.StringVar(&o.mirror, "mirror", "http://deb.debian.org/debian", "mirror to build the Debian image from")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fs.SetOutput(os.Stdout)
			fs.PrintDefaults()
		}
		return o, err
	}
	return o, o.check(fs.Args())
}

func (o *options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case o.n < 1 || o.rounds < 1 || o.count < 1 || o.gets < 1 || o.parallel < 1:
		return fmt.Errorf("--n, --rounds, --count, --gets and --parallel must be at least 1")
	case (o.debianMeta == "") != (o.debianRootfs == ""):
		return fmt.Errorf("--debian-meta and --debian-rootfs go together")
	}
	_, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	return nil
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == superviseArg {
		os.Exit(supervise(os.Args[2:]))
	}
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures and reports. What was measured is printed even after an interrupt, and written even when steps failed.
func run(o options) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("must run as root: it starts container daemons")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()

	h, err := newHost(o.tmp, o.keep)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := h.close(); cerr != nil && err == nil {
			err = cerr
		}
	}()

	b := &bench{o: o, host: h, rows: selectRows(o), samples: map[string]map[string][]float64{}, na: map[string]map[string]string{}}
	if len(b.rows) == 0 {
		return fmt.Errorf("--only %q matches none of: %s", o.only, strings.Join(rowIDs(), " "))
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	b.measure(ctx)

	rep := b.report()
	fmt.Print(rep.text())
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted; nothing was written")
	}
	if err := rep.write(o.out); err != nil {
		return err
	}
	if len(b.failures) > 0 {
		return fmt.Errorf("%d steps failed, see above", len(b.failures))
	}
	return nil
}

// prepare builds the images, starts the daemons and gives all of them the same configuration.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.images, err = prepareImages(ctx, b.o, b.host.dir, b.wants("-debian$")); err != nil {
		return err
	}
	if b.targets, b.notes, err = chooseTargets(b.o, b.host); err != nil {
		return err
	}
	for _, t := range b.targets {
		progress("starting %s", t.label)
		if err := t.start(ctx); err != nil {
			return fmt.Errorf("start %s: %w\n%s", t.label, err, t.logTail())
		}
	}
	if err := b.networks(ctx); err != nil {
		return err
	}
	for _, t := range b.targets {
		for _, img := range b.images {
			args := append([]string{"image", "import"}, img.files...)
			if err := t.lxc(ctx, append(args, "--alias", img.alias)...); err != nil {
				return fmt.Errorf("%s: %w\n%s", t.label, err, t.logTail())
			}
		}
	}
	return nil
}

// networks gives every daemon a managed bridge and eth0 in the default profile; if one of them cannot have it, none has.
func (b *bench) networks(ctx context.Context) error {
	for _, t := range b.targets {
		err := t.makeNetwork(ctx)
		if err == nil {
			continue
		}
		b.notes = append(b.notes, fmt.Sprintf("no container has a network: %s cannot make a managed bridge here: %v", t.label, err))
		for _, t := range b.targets {
			if err := t.setProfile(ctx, false); err != nil {
				return fmt.Errorf("%s: default profile: %w", t.label, err)
			}
		}
		return nil
	}
	b.notes = append(b.notes, "every container has eth0 on a bridge that its daemon manages")
	for _, t := range b.targets {
		if err := t.setProfile(ctx, true); err != nil {
			return fmt.Errorf("%s: default profile: %w", t.label, err)
		}
	}
	return nil
}

// chooseTargets turns --daemons and the driver lists into targets. Without --daemons a daemon that is not installed
// is left out with a note.
func chooseTargets(o options, h *host) (targets []*target, notes []string, err error) {
	names := []string{"lxd", "incus", "croft"}
	wanted := names
	if o.daemons != "" {
		wanted = strings.Split(o.daemons, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(names, name) {
			return nil, nil, fmt.Errorf("--daemons: %q is not one of %s", name, strings.Join(names, ", "))
		}
		k := kinds(o)[name]
		path, lerr := lookPath(k.binary)
		if lerr != nil {
			if o.daemons != "" {
				return nil, nil, fmt.Errorf("--daemons: %s: %w", name, lerr)
			}
			notes = append(notes, fmt.Sprintf("%s is not measured: %v", name, lerr))
			continue
		}
		k.binary = path
		for i, driver := range strings.Split(k.drivers, ",") {
			targets = append(targets, newTarget(k, driver, i, o, h))
		}
	}
	if len(targets) == 0 {
		return nil, nil, fmt.Errorf("no daemon to measure: %s", strings.Join(notes, "; "))
	}
	return targets, notes, nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

func lookPath(name string) (string, error) {
	if !strings.Contains(name, "/") {
		for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
			if st, err := os.Stat(filepath.Join(dir, name)); err == nil && !st.IsDir() {
				return filepath.Join(dir, name), nil
			}
		}
		return "", fmt.Errorf("%s: not found in PATH", name)
	}
	if _, err := os.Stat(name); err != nil {
		return "", err
	}
	return filepath.Abs(name)
}
