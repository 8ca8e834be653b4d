package image

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/croft-project/croft/api"
)

// archive is where a distribution's packages come from when the host does not
// say otherwise.
type archive struct {
	main, security string
	keyring, pkg   string // file with the archive's keys, and the package that has it
	components     string
}

func defaultArchive(distribution, debArch string) archive {
	if distribution == "ubuntu" {
		a := archive{
			main: "http://archive.ubuntu.com/ubuntu", security: "http://security.ubuntu.com/ubuntu",
			keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg", pkg: "ubuntu-keyring (in Debian 12 it is in bookworm-backports)", components: "main universe",
		}
		if debArch != "amd64" && debArch != "i386" {
			a.main = "http://ports.ubuntu.com/ubuntu-ports"
			a.security = a.main
		}
		return a
	}
	return archive{
		main: "http://deb.debian.org/debian", security: "http://deb.debian.org/debian-security",
		keyring: "/usr/share/keyrings/debian-archive-keyring.gpg", pkg: "debian-archive-keyring", components: "main",
	}
}

// mirrorURL is what may stand in a sources.list line that we write: nothing in
// it can end the field or the line.
var mirrorURL = regexp.MustCompile(`^(https?://[A-Za-z0-9.:\[\]_-]+|file://)(/[A-Za-z0-9._~/+-]*)?$`)

func checkMirror(mirror string) error {
	if mirror != "" && !mirrorURL.MatchString(mirror) {
		return api.Errorf(api.Invalid, "mirror %q: it must be a URL such as http://deb.debian.org/debian (http, https or file)", mirror)
	}
	return nil
}

// sources are the sources.list lines for a release: the archive, its updates
// and its security updates.
func (b *Builder) sources(rel release, debArch, mirror string) ([]string, error) {
	a := defaultArchive(rel.distribution, debArch)
	host := b.hostSources(rel.distribution)
	if host.main != "" {
		a.main = host.main
	}
	if host.security != "" {
		a.security = host.security
	}
	if mirror != "" {
		a.main = mirror
	}
	if _, err := os.Stat(filepath.Join(b.root(), a.keyring)); err != nil {
		return nil, api.Errorf(api.Unsupported, "building %s needs the keys of its archive: %w", rel.title, err).
			WithHint("apt-get install %s", a.pkg)
	}
	line := func(uri, suite string) string {
		return fmt.Sprintf("deb [signed-by=%s] %s %s %s", a.keyring, uri, suite, a.components)
	}
	return []string{
		line(a.main, rel.codename), line(a.main, rel.codename+"-updates"), line(a.security, rel.security),
	}, nil
}

func (b *Builder) root() string {
	if b.Root == "" {
		return "/"
	}
	return b.Root
}

// hostSources finds the mirrors that the host uses, if it runs the same
// distribution. What can't be read or is not a plain URL counts as absent.
func (b *Builder) hostSources(distribution string) archive {
	var a archive
	id, codename := b.osRelease()
	if id != distribution {
		return a
	}
	for _, s := range b.aptSources() {
		for _, uri := range s.uris {
			uri = strings.TrimSuffix(uri, "/")
			if checkMirror(uri) != nil {
				continue
			}
			switch {
			case a.main == "" && slices.Contains(s.suites, codename):
				a.main = uri
			case a.security == "" && slices.Contains(s.suites, codename+"-security"):
				a.security = uri
			}
		}
	}
	return a
}

// osRelease gives ID and VERSION_CODENAME of os-release(5).
func (b *Builder) osRelease() (id, codename string) {
	data, err := os.ReadFile(filepath.Join(b.root(), "etc/os-release"))
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch value = strings.Trim(value, `"'`); key {
		case "ID":
			id = value
		case "VERSION_CODENAME":
			codename = value
		}
	}
	return id, codename
}

// aptSource is one entry of the host's package sources.
type aptSource struct{ uris, suites []string }

// aptSources reads sources.list and sources.list.d in both formats of
// sources.list(5).
func (b *Builder) aptSources() []aptSource {
	etc := filepath.Join(b.root(), "etc/apt")
	files := []string{filepath.Join(etc, "sources.list")}
	entries, err := os.ReadDir(filepath.Join(etc, "sources.list.d"))
	if err == nil {
		for _, e := range entries {
			files = append(files, filepath.Join(etc, "sources.list.d", e.Name()))
		}
	}
	var all []aptSource
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		switch filepath.Ext(name) {
		case ".list":
			all = append(all, parseOneLine(string(data))...)
		case ".sources":
			all = append(all, parseDeb822(string(data))...)
		}
	}
	return all
}

// parseOneLine reads "deb [options] uri suite components…" lines.
func parseOneLine(text string) []aptSource {
	var all []aptSource
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "[") {
			_, line, _ = strings.Cut(line, "]")
		}
		if f := strings.Fields(line); len(f) >= 2 {
			all = append(all, aptSource{uris: f[:1], suites: f[1:2]})
		}
	}
	return all
}

// parseDeb822 reads paragraphs of "Field: value" lines.
func parseDeb822(text string) []aptSource {
	var all []aptSource
	fields := map[string]string{}
	flush := func() {
		if slices.Contains(strings.Fields(fields["types"]), "deb") && !strings.EqualFold(fields["enabled"], "no") {
			all = append(all, aptSource{uris: strings.Fields(fields["uris"]), suites: strings.Fields(fields["suites"])})
		}
		fields = map[string]string{}
	}
	last := ""
	scan := bufio.NewScanner(strings.NewReader(text))
	for scan.Scan() {
		line := scan.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += " " + strings.TrimSpace(line)
		default:
			key, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(strings.TrimSpace(key))
			fields[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return all
}
