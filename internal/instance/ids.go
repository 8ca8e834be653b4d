package instance

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/api"
)

// Id ranges. Each container gets ids of its own, from a range that all Croft
// daemons of a host share. A daemon takes blocks of ranges from it, noted in a
// file that it changes under flock(2), and gives containers ranges of its
// blocks without asking anyone.
const (
	idFirst       = 1_000_000
	idTotal       = 1_000_000_000
	idRange       = 65536 // of one container
	idBlock       = 64    // ranges in a block
	idBlocks      = idTotal / idRange / idBlock
	defaultIDFile = "/var/lib/croft.ids"
)

// idRegister hands out id ranges.
type idRegister struct {
	file     string
	stateDir string

	mu   sync.Mutex
	used map[int64]bool // base of each range in use
	own  map[int]bool   // blocks of this daemon
}

func newIDRegister(file, stateDir string) *idRegister {
	return &idRegister{file: file, stateDir: filepath.Clean(stateDir), used: map[int64]bool{}, own: map[int]bool{}}
}

// reserve notes the ranges that existing instances have, at start-up, and
// claims their blocks again, should the register have been lost.
func (r *idRegister) reserve(bases []int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	need := map[int]bool{}
	for _, b := range bases {
		r.used[b] = true
		if b >= idFirst && b < idFirst+idTotal {
			need[int((b-idFirst)/(idRange*idBlock))] = true
		}
	}
	return r.withFile(func(owners map[int]string) error {
		for block := range need {
			if o, taken := owners[block]; taken && o != r.stateDir {
				return api.Errorf(api.Conflict, "id block %d of this daemon's containers is noted in %s for the daemon of %s", block, r.file, o)
			}
			owners[block] = r.stateDir
		}
		for block, o := range owners {
			if o == r.stateDir {
				r.own[block] = true
			}
		}
		return nil
	})
}

// take gives an unused range, as the first of its 65536 ids.
//
// Errors: NoSpace when all are in use.
func (r *idRegister) take() (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if base, ok := r.freeLocked(); ok {
		return base, nil
	}
	err := r.withFile(func(owners map[int]string) error {
		for block := range idBlocks {
			if _, taken := owners[block]; !taken {
				owners[block] = r.stateDir
				r.own[block] = true
				return nil
			}
		}
		return api.Errorf(api.NoSpace, "all id ranges from %d to %d are in use (see %s)", idFirst, idFirst+idTotal, r.file)
	})
	if err != nil {
		return 0, err
	}
	base, ok := r.freeLocked()
	if !ok {
		return 0, api.Errorf(api.NoSpace, "no free id range in a block that was just taken")
	}
	return base, nil
}

func (r *idRegister) freeLocked() (int64, bool) {
	for block := range idBlocks {
		if !r.own[block] {
			continue
		}
		for i := range idBlock {
			base := int64(idFirst) + int64(block*idBlock+i)*idRange
			if !r.used[base] {
				r.used[base] = true
				return base, true
			}
		}
	}
	return 0, false
}

// give returns a range.
func (r *idRegister) give(base int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, base)
}

// withFile reads the register under its lock, lets fn change it, and writes it
// back. Blocks of daemons whose database is gone are free.
func (r *idRegister) withFile(fn func(owners map[int]string) error) error {
	f, err := os.OpenFile(r.file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the register of id ranges: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", r.file, err)
	}
	owners := map[int]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var block int
		var dir string
		if n, _ := fmt.Sscanf(lines.Text(), "%d %q", &block, &dir); n != 2 || block < 0 || block >= idBlocks {
			continue
		}
		if dir == r.stateDir || hasDatabase(dir) {
			owners[block] = dir
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", r.file, err)
	}
	if err := fn(owners); err != nil {
		return err
	}
	return rewrite(f, owners)
}

// DatabaseFile is the name of the database in a state directory. A directory
// without it is no daemon's.
const DatabaseFile = "db/croft.db"

func hasDatabase(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, DatabaseFile))
	return err == nil
}

func rewrite(f *os.File, owners map[int]string) error {
	var text []byte
	for block := range idBlocks {
		if dir, ok := owners[block]; ok {
			text = fmt.Appendf(text, "%d %q\n", block, dir)
		}
	}
	// One small write that begins at the start, then the cut: a reader after a
	// crash in between finds whole lines, the last ones twice at worst.
	if _, err := f.WriteAt(text, 0); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	if err := f.Truncate(int64(len(text))); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return f.Sync()
}
