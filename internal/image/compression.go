package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/croft-project/croft/api"
)

// Format is the outermost format of an image file, found by its first bytes;
// names and suffixes mean nothing.
type Format string

// The formats. All but Squashfs and QCOW2 hold a tarball.
const (
	Plain    Format = "none"
	Gzip     Format = "gzip"
	Bzip2    Format = "bzip2"
	XZ       Format = "xz"
	LZMA     Format = "lzma"
	Zstd     Format = "zstd"
	Squashfs Format = "squashfs"
	QCOW2    Format = "qcow2" // of virtual machines; recognised to be refused
)

// magics are the first bytes of each format. Sources: RFC 1952, bzip2 and xz
// format descriptions, RFC 8878, squashfs_fs.h, qcow2.txt of QEMU.
var magics = []struct {
	prefix []byte
	format Format
}{
	{[]byte{0x1f, 0x8b}, Gzip},
	{[]byte("BZh"), Bzip2},
	{[]byte{0xfd, '7', 'z', 'X', 'Z', 0}, XZ},
	{[]byte{0x28, 0xb5, 0x2f, 0xfd}, Zstd},
	{[]byte("hsqs"), Squashfs},
	{[]byte("QFI\xfb"), QCOW2},
	{[]byte{0x5d, 0, 0}, LZMA}, // properties byte of the usual lc/lp/pb, then the dictionary size
}

const (
	tarMagicOffset = 257
	headerSize     = 512
)

// DetectFormat recognises a file by its beginning; 512 bytes are enough.
//
// Errors: Invalid if it is none of the formats.
func DetectFormat(head []byte) (Format, error) {
	for _, m := range magics {
		if bytes.HasPrefix(head, m.prefix) {
			return m.format, nil
		}
	}
	if len(head) >= headerSize && bytes.HasPrefix(head[tarMagicOffset:], []byte("ustar")) {
		return Plain, nil
	}
	// A tarball of the old V7 format has no magic, but a valid checksum.
	if len(head) >= headerSize && v7Checksum(head) {
		return Plain, nil
	}
	return "", api.Errorf(api.Invalid,
		"the file is no image: it must be a tarball (plain, gzip, bzip2, xz, lzma or zstd) or a squashfs")
}

// v7Checksum tells whether a block's checksum field holds the sum of its bytes.
func v7Checksum(block []byte) bool {
	const from, to = 148, 156
	var want int64
	if _, err := fmt.Sscanf(strings.Trim(string(block[from:to]), " \x00"), "%o", &want); err != nil {
		return false
	}
	var sum int64
	for i, c := range block[:headerSize] {
		if i >= from && i < to {
			c = ' '
		}
		sum += int64(c)
	}
	return sum == want && want > 8*' '
}

func formatOf(f io.ReaderAt) (Format, error) {
	head := make([]byte, headerSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read image file: %w", err)
	}
	return DetectFormat(head[:n])
}

// Bounds of a decompressor's memory, in bytes: compressed data may ask for any
// window, and the daemon's host must survive it. zstd --long=28 and xz -9e fit.
const (
	maxZstdWindow = 256 << 20
	maxLZMADict   = 256 << 20
	xzMemory      = "2GiB"
)

// decompress gives the tarball inside f, which is of the given format. Closing
// the reader ends helpers of it and reports their errors if all was read.
//
// The xz program does xz and lzma several times faster than the Go package and
// on all processors; it is used when the host has it, with fixed arguments.
func decompress(ctx context.Context, f *os.File, format Format) (io.ReadCloser, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read image file: %w", err)
	}
	in := bufio.NewReaderSize(f, 256<<10)
	switch format {
	case Plain:
		return io.NopCloser(in), nil
	case Gzip:
		return wrapFormat(gzip.NewReader(in))(format)
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(in)), nil
	case Zstd:
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, badData(format, err)
		}
		return z.IOReadCloser(), nil
	case XZ, LZMA:
		if path, err := exec.LookPath("xz"); err == nil {
			return startXZ(ctx, path, f)
		}
		return goXZ(in, format)
	default:
		return nil, api.Errorf(api.Invalid, "a %s file holds no tarball", format)
	}
}

func goXZ(in io.Reader, format Format) (io.ReadCloser, error) {
	var r io.Reader
	var err error
	if format == XZ {
		r, err = xz.NewReader(in)
	} else {
		r, err = lzma.ReaderConfig{DictCap: maxLZMADict}.NewReader(in)
	}
	if err != nil {
		return nil, badData(format, err)
	}
	return io.NopCloser(r), nil
}

func wrapFormat[R io.ReadCloser](r R, err error) func(Format) (io.ReadCloser, error) {
	return func(f Format) (io.ReadCloser, error) {
		if err != nil {
			return nil, badData(f, err)
		}
		return r, nil
	}
}

func badData(format Format, err error) error {
	return api.Errorf(api.Invalid, "the image's %s data is damaged: %w", format, err)
}

// xzReader is the output of a running xz.
type xzReader struct {
	io.Reader
	cmd    *exec.Cmd
	stdout io.Closer
	stderr bytes.Buffer
	done   bool
}

func startXZ(ctx context.Context, path string, f *os.File) (io.ReadCloser, error) {
	x := &xzReader{cmd: exec.CommandContext(ctx, path, "-dc", "-T0", "-M", xzMemory)}
	x.cmd.Stdin = f
	x.cmd.Stderr = &x.stderr
	x.cmd.Env = []string{"LANG=C"}
	out, err := x.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start xz: %w", err)
	}
	if err := x.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start xz: %w", err)
	}
	x.Reader, x.stdout = bufio.NewReaderSize(out, 256<<10), out
	return x, nil
}

// Read turns the end of the data into an error when xz failed: a truncated or
// damaged file must not pass for a short one.
func (x *xzReader) Read(p []byte) (int, error) {
	n, err := x.Reader.Read(p)
	if errors.Is(err, io.EOF) && !x.done {
		x.done = true
		if werr := x.cmd.Wait(); werr != nil {
			return n, badData(XZ, fmt.Errorf("xz: %w: %s", werr, strings.TrimSpace(x.stderr.String())))
		}
	}
	return n, err
}

// Close ends xz if it still runs.
func (x *xzReader) Close() error {
	if !x.done {
		x.done = true
		x.stdout.Close() // xz dies of SIGPIPE, or of the kill
		_ = x.cmd.Process.Kill()
		_ = x.cmd.Wait()
	}
	return nil
}
