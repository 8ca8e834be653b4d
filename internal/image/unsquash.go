package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/croft-project/croft/api"
)

// superblock is the part of a squashfs superblock that is checked before
// unsquashfs sees the file. Source: fs/squashfs/squashfs_fs.h of Linux.
type superblock struct {
	Magic, Inodes, MkfsTime, BlockSize, Fragments    uint32
	Compression, BlockLog, Flags, IDs, Major, Minor  uint16
	Root, BytesUsed, IDTable, XattrTable, InodeTable uint64
	DirectoryTable, FragmentTable, ExportTable       uint64
}

// checkSuperblock refuses what unsquashfs needn't try. It returns the number of
// inodes that the file says it has.
func checkSuperblock(f *os.File, limits Limits) (int64, error) {
	raw := make([]byte, binary.Size(superblock{}))
	if _, err := f.ReadAt(raw, 0); err != nil {
		return 0, api.Errorf(api.Invalid, "the squashfs is damaged: %w", err)
	}
	var sb superblock
	if err := binary.Read(bytes.NewReader(raw), binary.LittleEndian, &sb); err != nil {
		return 0, api.Errorf(api.Invalid, "the squashfs is damaged: %w", err)
	}
	st, err := f.Stat()
	switch {
	case err != nil:
		return 0, fmt.Errorf("read image file: %w", err)
	case sb.Major != 4:
		return 0, api.Errorf(api.Unsupported, "the squashfs has version %d.%d; only version 4 is supported", sb.Major, sb.Minor)
	case sb.BytesUsed > uint64(st.Size()):
		return 0, api.Errorf(api.Invalid, "the squashfs is cut off: it has %d bytes of %d", st.Size(), sb.BytesUsed)
	case int64(sb.Inodes) > limits.Entries:
		return 0, api.Errorf(api.TooLarge, "the squashfs has %d entries; at most %d are allowed", sb.Inodes, limits.Entries)
	}
	return int64(sb.Inodes), nil
}

// nonFatal is unsquashfs's exit status after errors that did not stop it.
const nonFatal = 2

// unsquash unpacks a squashfs file with unsquashfs, in the helper. All that
// varies in its arguments are two absolute paths of the daemon's own.
func unsquash(ctx context.Context, f *os.File, req unpackRequest) (Stats, error) {
	if req.Prefix != "" {
		return Stats{}, api.Errorf(api.Invalid, "a squashfs is no unified image")
	}
	inodes, err := checkSuperblock(f, req.Limits.withDefaults())
	if err != nil {
		return Stats{}, err
	}
	program, err := exec.LookPath("unsquashfs")
	if err != nil {
		return Stats{}, api.Errorf(api.Unsupported, "unpacking a squashfs needs the program unsquashfs: %w", err).
			WithHint("apt-get install squashfs-tools")
	}
	xattrs := "-xattrs"
	if req.Unprivileged {
		xattrs = "-user-xattrs"
	}
	// With -ig an attribute that can't be set doesn't end it; what it complains
	// about is looked at below, so no other error passes.
	cmd := exec.CommandContext(ctx, program, "-ig", "-f", "-n", "-q", xattrs, "-da", "64", "-fr", "64", "-d", req.Dest, req.Source)
	cmd.Env = []string{"LANG=C"}
	out, err := cmd.CombinedOutput() // without progress and with -q: errors only
	stats := Stats{Entries: inodes}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return stats, nil
	case ctx.Err() != nil:
		return stats, badArchive(ctx.Err())
	case errors.As(err, &exit) && exit.ExitCode() == nonFatal:
		if stats.Skipped, err = harmlessErrors(out); err == nil {
			return stats, nil
		}
	}
	kind := api.Invalid
	if bytes.Contains(out, []byte("No space left")) || bytes.Contains(out, []byte("Disk quota exceeded")) {
		kind = api.NoSpace
	}
	return stats, api.Errorf(kind, "unpack squashfs: %w: %s", err, firstLines(out))
}

// harmlessErrors accepts the complaint that attributes of the trusted
// namespace can't be set: they must not be.
func harmlessErrors(out []byte) ([]string, error) {
	var skipped []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case strings.HasPrefix(line, "write_xattr:") && strings.Contains(line, "xattr trusted."):
			if len(skipped) < maxSkipped {
				skipped = append(skipped, line)
			}
		default:
			return nil, errors.New("exit status 2")
		}
	}
	return skipped, nil
}

// firstLines shortens a program's output for an error message.
func firstLines(out []byte) string {
	const limit = 500
	s := strings.TrimSpace(string(out))
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.ReplaceAll(s, "\n", "; ")
}
