package operation

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// progressEvery is the shortest time between two progress events of an
// operation. What falls in between is seen in the next one.
const progressEvery = 200 * time.Millisecond

// Progress is how far a step has come.
type Progress struct {
	Text    string // what is being worked on, such as "rootfs"; may be empty
	Percent int    // 0 to 100; below 0 when the total is unknown
	Bytes   int64  // done so far; 0 when not counted
	Speed   int64  // bytes per second; 0 when not measured
}

// Progress shows how far a step has come, in LXD's metadata keys: key, which
// ends in "_progress" ("download_progress", "create_instance_from_image_unpack_progress"),
// holds a text for people, "progress" the numbers. It is cheap to call often.
func (o *Op) Progress(key string, p Progress) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.status.Final() {
		return
	}
	o.metadata = merged(o.metadata, map[string]any{key: p.String(), "progress": p.fields(key)})
	now := o.m.deps.Now()
	// A clock that was set back does not silence the operation.
	if ago := now.Sub(o.shown); p.Percent < 100 && ago >= 0 && ago < progressEvery {
		return
	}
	o.shown = now
	o.publishLocked()
}

// String is the text that clients print: "rootfs: 40% (12.50MB/s)".
func (p Progress) String() string {
	var b strings.Builder
	if p.Text != "" {
		b.WriteString(p.Text + ": ")
	}
	switch {
	case p.Percent >= 0:
		fmt.Fprintf(&b, "%d%%", p.Percent)
	default:
		b.WriteString(bytesText(p.Bytes))
	}
	if p.Speed > 0 {
		fmt.Fprintf(&b, " (%s/s)", bytesText(p.Speed))
	}
	return b.String()
}

// fields is the structured form; LXD's clients expect strings.
func (p Progress) fields(key string) map[string]string {
	f := map[string]string{"stage": strings.TrimSuffix(key, "_progress")}
	if p.Percent >= 0 {
		f["percent"] = strconv.Itoa(p.Percent)
	}
	if p.Bytes > 0 {
		f["processed"] = strconv.FormatInt(p.Bytes, 10)
	}
	if p.Speed > 0 {
		f["speed"] = strconv.FormatInt(p.Speed, 10)
	}
	return f
}

func bytesText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f, u := float64(n), 0
	for f >= 1000 && u < len(units)-1 {
		f, u = f/1000, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%.2f%s", f, units[u])
}
