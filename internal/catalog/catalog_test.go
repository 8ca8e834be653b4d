package catalog

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/event"
	"github.com/croft-project/croft/internal/image"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/store"
	"github.com/croft-project/croft/internal/store/bolt"
)

const project = model.DefaultProject

// tools looks at files in this process.
type tools struct{}

func (tools) Inspect(ctx context.Context, meta, root string) (*image.Info, error) {
	m, err := os.Open(meta)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if root == "" {
		return image.Inspect(ctx, m, nil, image.Limits{})
	}
	r, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return image.Inspect(ctx, m, r, image.Limits{})
}

func (tools) Unpack(_ context.Context, source string, what image.What, dest string) (image.Stats, error) {
	return image.Stats{}, os.WriteFile(filepath.Join(dest, "from"), []byte(filepath.Base(source)+" "+string(what)), 0o600)
}

// fakeBuilder "builds" the image that its text names.
type fakeBuilder struct {
	t       *testing.T
	text    string
	started chan struct{} // if set: closed when a build begins, which then waits to be cancelled
}

func (b *fakeBuilder) Check(name string) error {
	if name != "test/1" {
		return api.Errorf(api.Invalid, "image %q cannot be built", name)
	}
	return nil
}

func (b *fakeBuilder) Build(ctx context.Context, _, _, dir string, progress func(string)) ([]string, error) {
	progress("half way")
	meta := filepath.Join(dir, "meta")
	writeTar(b.t, meta, metadata(b.text))
	if b.started != nil {
		close(b.started)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	root := filepath.Join(dir, "root")
	writeTar(b.t, root, map[string]string{"etc/hostname": b.text})
	return []string{meta, root}, nil
}

// fakePool has images and notes which were given up.
type fakePool struct {
	mu     sync.Mutex
	images []string
	gone   []string
}

func (p *fakePool) Images(context.Context) ([]string, error) { return p.images, nil }
func (p *fakePool) DeleteImage(_ context.Context, f string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = append(p.gone, f)
	return nil
}

type world struct {
	*Catalog
	t       *testing.T
	db      store.Store
	dir     string
	builder *fakeBuilder
	pool    *fakePool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), builder: &fakeBuilder{t: t, text: "built"}, pool: &fakePool{}}
	for _, d := range []string{"images", "uploads"} {
		if err := os.Mkdir(filepath.Join(w.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	db, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(w.dir, "db", "croft.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w.db = db
	w.update(func(tx store.Tx) error {
		p := &model.Profile{Project: project, Name: "default"}
		return store.Put(tx, p.Key(), p)
	})
	hub, err := event.New(t.Context(), event.Options{Store: db})
	if err != nil {
		t.Fatal(err)
	}
	ops := operation.New(operation.Deps{Events: hub})
	w.Catalog = New(Deps{
		Store: db, Ops: ops, Locks: operation.NewLocks(nil), StateDir: w.dir, Tools: tools{}, Builder: w.builder,
		Pools: func() []Pool { return []Pool{w.pool} },
	})
	return w
}

func (w *world) update(fn func(store.Tx) error) {
	w.t.Helper()
	if err := w.db.Update(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func metadata(text string) map[string]string {
	return map[string]string{
		"metadata.yaml": "architecture: x86_64\ncreation_date: 5\nproperties:\n  os: Test\n  description: " + text + "\n" +
			"templates:\n  /etc/hostname:\n    when: [create]\n    template: hostname.tpl\n",
		"templates/hostname.tpl": "{{ instance.name }}\n",
	}
}

func writeTar(t *testing.T, path string, files map[string]string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(f)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// upload puts a unified image into the upload directory.
func (w *world) upload(text string) Upload {
	w.t.Helper()
	files := metadata(text)
	files["rootfs/etc/hostname"] = text
	path := filepath.Join(w.TempDir(), fmt.Sprintf("up-%x", text))
	writeTar(w.t, path, files)
	return Upload{Files: []string{path}, Filename: "up.tar"}
}

// run waits for an operation that was started and gives its metadata.
func (w *world) run(op *operation.Op, err error) (map[string]any, error) {
	w.t.Helper()
	if err != nil {
		return nil, err
	}
	err = op.Wait(w.t.Context())
	return op.API().Metadata, err
}

// add imports an image and gives its fingerprint.
func (w *world) add(up Upload) string {
	w.t.Helper()
	md, err := w.run(w.Import(w.t.Context(), project, up))
	if err != nil {
		w.t.Fatal(err)
	}
	return md["fingerprint"].(string)
}

func (w *world) files(dir string) []string {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.dir, dir))
	if err != nil {
		w.t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (w *world) expectFiles(dir string, want ...string) {
	w.t.Helper()
	slices.Sort(want)
	if got := w.files(dir); !slices.Equal(got, want) && len(got)+len(want) > 0 {
		w.t.Errorf("%s holds %v, want %v", dir, got, want)
	}
}

func TestImport(t *testing.T) {
	w := newWorld(t)
	up := w.upload("one")
	up.Properties = map[string]string{"os": "Mine", "extra": "x"}
	up.Public = true
	up.Aliases = []api.ImageAlias{{Name: "a/b", Description: "d"}}
	md, err := w.run(w.Import(t.Context(), project, up))
	if err != nil {
		t.Fatal(err)
	}
	f := md["fingerprint"].(string)
	img, etag, err := w.Get(t.Context(), project, f[:7])
	if err != nil {
		t.Fatal(err)
	}
	if img.Fingerprint != f || etag == "" || !img.Public || img.Filename != "up.tar" || img.Architecture != "x86_64" || img.Type != "container" {
		t.Errorf("image: got %+v", img)
	}
	if want := map[string]string{"os": "Mine", "extra": "x", "description": "one"}; fmt.Sprint(img.Properties) != fmt.Sprint(want) {
		t.Errorf("properties: got %v, want %v: those of the request win", img.Properties, want)
	}
	if img.ExpiresAt.Unix() != 0 || img.CreatedAt.Unix() != 5 || !img.LastUsedAt.IsZero() || !slices.Equal(img.Profiles, []string{"default"}) {
		t.Errorf("image: got %+v", img)
	}
	if len(img.Aliases) != 1 || img.Aliases[0] != up.Aliases[0] {
		t.Errorf("aliases: got %v", img.Aliases)
	}
	if md["size"] != fmt.Sprint(img.Size) {
		t.Errorf("operation metadata: got %v", md)
	}
	w.expectFiles("images", f)
	w.expectFiles("uploads")
	all, err := w.List(t.Context(), project)
	if err != nil || len(all) != 1 || len(all[0].Aliases) != 1 {
		t.Errorf("list: got %v, %v", all, err)
	}
}

func TestImportRefusals(t *testing.T) {
	w := newWorld(t)
	taken := w.upload("taken")
	taken.Aliases = []api.ImageAlias{{Name: "taken"}}
	first := w.add(taken)
	for name, c := range map[string]struct {
		change func(*Upload)
		kind   api.Kind
	}{
		"same image":        {func(u *Upload) { *u = w.upload("taken") }, api.Conflict},
		"wrong fingerprint": {func(u *Upload) { u.Fingerprint = "0000" }, api.Invalid},
		"alias taken":       {func(u *Upload) { u.Aliases = []api.ImageAlias{{Name: "taken"}} }, api.Conflict},
		"alias twice":       {func(u *Upload) { u.Aliases = []api.ImageAlias{{Name: "x"}, {Name: "x"}} }, api.Invalid},
		"alias without name": {func(u *Upload) {
			u.Aliases = []api.ImageAlias{{}}
		}, api.Invalid},
		"file name":       {func(u *Upload) { u.Filename = "a\nb" }, api.Invalid},
		"unknown profile": {func(u *Upload) { u.Profiles = []string{"nosuch"} }, api.Invalid},
		"property":        {func(u *Upload) { u.Properties = map[string]string{"": "x"} }, api.Invalid},
		"not an image": {func(u *Upload) {
			if err := os.WriteFile(u.Files[0], []byte("nonsense"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, api.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			up := w.upload("other")
			u := up
			c.change(&u)
			_, err := w.run(w.Import(t.Context(), project, u))
			if api.KindOf(err) != c.kind {
				t.Errorf("got %v (kind %s), want kind %s", err, api.KindOf(err), c.kind)
			}
			os.Remove(up.Files[0])
			w.expectFiles("images", first)
			w.expectFiles("uploads")
			if all, _ := w.List(t.Context(), project); len(all) != 1 {
				t.Errorf("%d images, want 1", len(all))
			}
		})
	}
}

func TestSplitImageAndExport(t *testing.T) {
	w := newWorld(t)
	meta, root := filepath.Join(w.TempDir(), "m"), filepath.Join(w.TempDir(), "r")
	writeTar(t, meta, metadata("split"))
	writeTar(t, root, map[string]string{"etc/hostname": "x"})
	f := w.add(Upload{Files: []string{meta, root}})
	w.expectFiles("images", f, f+".rootfs")
	e, err := w.Export(t.Context(), project, f[:12])
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.MetaName != "meta-"+f+".tar" || e.RootfsName != f+".tar" || e.Rootfs == nil {
		t.Errorf("export: got %q and %q", e.MetaName, e.RootfsName)
	}
	img, err := w.Resolve(t.Context(), project, api.InstanceSource{Fingerprint: f})
	if err != nil {
		t.Fatal(err)
	}
	dest := t.TempDir()
	if err := w.StorageImage(img).Unpack(t.Context(), dest); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(dest, "from")); string(got) != f+".rootfs " {
		t.Errorf("a split image is unpacked from %q", got)
	}
	if len(img.Templates) != 1 || img.Metadata.Templates["/etc/hostname"] == nil {
		t.Errorf("templates: got %v, %v", img.Templates, img.Metadata.Templates)
	}
}

func TestDelete(t *testing.T) {
	w := newWorld(t)
	up := w.upload("one")
	up.Aliases = []api.ImageAlias{{Name: "a"}, {Name: "b"}}
	f := w.add(up)
	other := w.upload("two")
	other.Aliases = []api.ImageAlias{{Name: "c"}}
	kept := w.add(other)
	if err := w.Touch(t.Context(), project, f); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Delete(t.Context(), project, "0123456789abcdef"); !errors.Is(err, api.NotFound) {
		t.Errorf("unknown image: got %v", err)
	}

	release, err := w.Use(t.Context(), project, f)
	if err != nil {
		t.Fatal(err)
	}
	op, err := w.Catalog.Delete(t.Context(), project, f[:10])
	if err != nil {
		t.Fatal(err)
	}
	for { // the record goes at once, the files when nobody reads them
		if _, _, err := w.Get(t.Context(), project, f); errors.Is(err, api.NotFound) {
			break
		}
	}
	w.expectFiles("images", f, kept)
	if _, err := w.Use(t.Context(), project, f); !errors.Is(err, api.NotFound) {
		t.Errorf("a deleted image may be used: %v", err)
	}
	release()
	if err := op.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.expectFiles("images", kept)
	if !slices.Equal(w.pool.gone, []string{f}) {
		t.Errorf("pools gave up %v", w.pool.gone)
	}
	aliases, err := w.ListAliases(t.Context(), project)
	if err != nil || len(aliases) != 1 || aliases[0].Name != "c" {
		t.Errorf("aliases: got %v, %v", aliases, err)
	}
	w.add(w.upload("one")) // it can come back
}

func TestBuild(t *testing.T) {
	w := newWorld(t)
	post := func(typ, dist string) api.ImagesPost {
		return api.ImagesPost{Source: &api.ImagesPostSource{Type: typ, Distribution: dist}}
	}
	for name, c := range map[string]struct {
		req  api.ImagesPost
		kind api.Kind
	}{
		"no source":    {api.ImagesPost{}, api.Invalid},
		"unknown type": {post("magic", ""), api.Invalid},
		"publish":      {post("instance", ""), api.Unsupported},
		"remote":       {post("image", ""), api.Unsupported},
		"distribution": {post("build", "beos/5"), api.Invalid},
	} {
		if _, err := w.CreateFrom(t.Context(), project, c.req); api.KindOf(err) != c.kind {
			t.Errorf("%s: got %v, want kind %s", name, err, c.kind)
		}
	}
	md, err := w.run(w.CreateFrom(t.Context(), project, post("build", "test/1")))
	if err != nil {
		t.Fatal(err)
	}
	if md["build_progress"] != "half way" {
		t.Errorf("operation metadata: got %v", md)
	}
	alias, _, err := w.GetAlias(t.Context(), project, "test/1")
	if err != nil || alias.Target != md["fingerprint"] {
		t.Errorf("alias: got %+v, %v", alias, err)
	}
	if _, err := w.CreateFrom(t.Context(), project, post("build", "test/1")); !errors.Is(err, api.Conflict) {
		t.Errorf("alias taken: got %v", err)
	}
	again := post("build", "test/1")
	again.Aliases = []api.ImageAlias{{Name: "same"}}
	if _, err := w.run(w.CreateFrom(t.Context(), project, again)); err != nil {
		t.Errorf("the same image once more, with another alias: %v", err)
	}
	if all, _ := w.List(t.Context(), project); len(all) != 1 || len(all[0].Aliases) != 2 {
		t.Errorf("images: got %v", all)
	}
	w.expectFiles("uploads")
}

func TestCancelledBuild(t *testing.T) {
	w := newWorld(t)
	w.builder.started = make(chan struct{})
	op, err := w.CreateFrom(t.Context(), project, api.ImagesPost{Source: &api.ImagesPostSource{Type: "build", Distribution: "test/1"}})
	if err != nil {
		t.Fatal(err)
	}
	<-w.builder.started
	if err := op.Cancel(); err != nil {
		t.Fatal(err)
	}
	if err := op.Wait(t.Context()); err == nil {
		t.Error("a cancelled build succeeded")
	}
	if got := op.API().StatusCode; got != api.Cancelled {
		t.Errorf("status %v, want %v", got, api.Cancelled)
	}
	w.expectFiles("uploads")
	w.expectFiles("images")
}

func TestUpdate(t *testing.T) {
	w := newWorld(t)
	f := w.add(w.upload("one"))
	_, etag, err := w.Get(t.Context(), project, f)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Touch(t.Context(), project, f); err != nil { // must not make the tag stale
		t.Fatal(err)
	}
	set := func(fn func(*api.ImagePut)) func(*api.ImagePut) error {
		return func(p *api.ImagePut) error { fn(p); return nil }
	}
	err = w.Update(t.Context(), project, f, etag, set(func(p *api.ImagePut) { p.Properties["colour"] = "blue" }))
	if err != nil {
		t.Fatal(err)
	}
	err = w.Update(t.Context(), project, f, "", set(func(p *api.ImagePut) { p.Properties["os"] = "" }))
	if err != nil {
		t.Fatal(err)
	}
	img, _, err := w.Get(t.Context(), project, f)
	if want := map[string]string{"colour": "blue", "description": "one"}; err != nil || fmt.Sprint(img.Properties) != fmt.Sprint(want) {
		t.Errorf("properties: got %v, %v, want %v: an empty one is unset", img.Properties, err, want)
	}
	err = w.Update(t.Context(), project, f, etag, set(func(p *api.ImagePut) {}))
	if !errors.Is(err, api.Precondition) {
		t.Errorf("stale tag: got %v", err)
	}
	err = w.Update(t.Context(), project, f, "", set(func(p *api.ImagePut) { p.Profiles = []string{"nosuch"} }))
	if !errors.Is(err, api.Invalid) || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("unknown profile: got %v", err)
	}
	err = w.Update(t.Context(), project, f, "", set(func(p *api.ImagePut) { *p = api.ImagePut{Public: true} }))
	if err != nil {
		t.Fatal(err)
	}
	img, _, err = w.Get(t.Context(), project, f)
	if err != nil || !img.Public || img.Properties == nil || len(img.Properties) != 0 || !slices.Equal(img.Profiles, []string{"default"}) {
		t.Errorf("after a replacement without profiles: got %+v, %v", img, err)
	}
	if img.LastUsedAt.IsZero() {
		t.Error("the last use was not noted")
	}
}

func TestAliases(t *testing.T) {
	w := newWorld(t)
	one, two := w.add(w.upload("one")), w.add(w.upload("two"))
	create := func(name, target string) error {
		req := api.ImageAliasesPost{}
		req.Name, req.Target, req.Description = name, target, "d"
		return w.CreateAlias(t.Context(), project, req)
	}
	if err := create("debian/12", one[:9]); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[api.Kind]error{
		api.Conflict: create("debian/12", one), api.NotFound: create("x", "fff0000fff"), api.Invalid: create("", one),
	} {
		if api.KindOf(err) != name {
			t.Errorf("got %v, want kind %s", err, name)
		}
	}
	a, etag, err := w.GetAlias(t.Context(), project, "debian/12")
	if err != nil || a.Target != one || a.Type != "container" || a.Description != "d" {
		t.Errorf("alias: got %+v, %v", a, err)
	}
	retarget := func(p *api.ImageAliasesEntryPut) error { p.Target = two; return nil }
	if err := w.UpdateAlias(t.Context(), project, "debian/12", etag, retarget); err != nil {
		t.Fatal(err)
	}
	if err := w.UpdateAlias(t.Context(), project, "debian/12", etag, retarget); !errors.Is(err, api.Precondition) {
		t.Errorf("stale tag: got %v", err)
	}
	if err := create("other", one); err != nil {
		t.Fatal(err)
	}
	if err := w.RenameAlias(t.Context(), project, "debian/12", "other"); !errors.Is(err, api.Conflict) {
		t.Errorf("rename to a name that is taken: got %v", err)
	}
	if err := w.RenameAlias(t.Context(), project, "debian/12", "bookworm"); err != nil {
		t.Fatal(err)
	}
	img, err := w.Resolve(t.Context(), project, api.InstanceSource{Alias: "bookworm"})
	if err != nil || img.Fingerprint != two {
		t.Errorf("resolve: got %v, %v", img, err)
	}
	if err := w.DeleteAlias(t.Context(), project, "debian/12"); !errors.Is(err, api.NotFound) {
		t.Errorf("delete the old name: got %v", err)
	}
	if err := w.DeleteAlias(t.Context(), project, "bookworm"); err != nil {
		t.Error(err)
	}
}

func TestResolve(t *testing.T) {
	w := newWorld(t)
	one := w.add(w.upload("one"))
	up := w.upload("two")
	up.Properties = map[string]string{"release": "2"}
	two := w.add(up)
	for name, c := range map[string]struct {
		src  api.InstanceSource
		want string
		kind api.Kind
	}{
		"fingerprint":     {api.InstanceSource{Fingerprint: one}, one, ""},
		"prefix":          {api.InstanceSource{Fingerprint: two[:8]}, two, ""},
		"properties":      {api.InstanceSource{Properties: map[string]string{"os": "Test", "release": "2"}}, two, ""},
		"no such":         {api.InstanceSource{Properties: map[string]string{"os": "BeOS"}}, "", api.NotFound},
		"unknown alias":   {api.InstanceSource{Alias: "nosuch"}, "", api.NotFound},
		"alias with NUL":  {api.InstanceSource{Alias: "a\x00b"}, "", api.NotFound},
		"wildcard":        {api.InstanceSource{Fingerprint: "%"}, "", api.NotFound},
		"path":            {api.InstanceSource{Fingerprint: "../" + one}, "", api.NotFound},
		"nothing":         {api.InstanceSource{}, "", api.Invalid},
		"of other server": {api.InstanceSource{Server: "https://x", Alias: "debian"}, "", api.Unsupported},
	} {
		t.Run(name, func(t *testing.T) {
			img, err := w.Resolve(t.Context(), project, c.src)
			switch {
			case c.kind != "" && api.KindOf(err) != c.kind:
				t.Errorf("got %v, want kind %s", err, c.kind)
			case c.kind == "" && (err != nil || img.Fingerprint != c.want):
				t.Errorf("got %v, %v, want %s", img, err, c.want)
			}
		})
	}
}

func TestAmbiguousFingerprint(t *testing.T) {
	w := newWorld(t)
	seen := map[string]bool{} // first digits
	for i := 0; ; i++ {       // 17 fingerprints have 16 first digits
		digit := w.add(w.upload(fmt.Sprint("image ", i)))[:1]
		if !seen[digit] {
			seen[digit] = true
			continue
		}
		if _, _, err := w.Get(t.Context(), project, digit); !errors.Is(err, api.Invalid) {
			t.Errorf("got %v, want kind %s", err, api.Invalid)
		}
		return
	}
}

func TestRecover(t *testing.T) {
	w := newWorld(t)
	whole, lost := w.add(w.upload("whole")), w.add(w.upload("lost"))
	req := api.ImageAliasesPost{}
	req.Name, req.Target = "lost", lost
	if err := w.CreateAlias(t.Context(), project, req); err != nil {
		t.Fatal(err)
	}
	stray := strings.Repeat("ab", 32)
	for _, path := range []string{"images/" + stray, "images/" + stray + ".rootfs", "images/notes.txt", "uploads/half"} {
		if err := os.WriteFile(filepath.Join(w.dir, path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "uploads", "build-1", "tree"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.dir, "images", lost)); err != nil {
		t.Fatal(err)
	}
	w.pool.images = []string{whole, stray}
	if err := w.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.expectFiles("images", whole, "notes.txt")
	w.expectFiles("uploads")
	if !slices.Equal(w.pool.gone, []string{stray}) {
		t.Errorf("pools gave up %v, want %v", w.pool.gone, []string{stray})
	}
	if all, _ := w.List(t.Context(), project); len(all) != 1 || all[0].Fingerprint != whole {
		t.Errorf("images: got %v", all)
	}
	if _, _, err := w.GetAlias(t.Context(), project, "lost"); !errors.Is(err, api.NotFound) {
		t.Errorf("alias of the lost image: got %v", err)
	}
	if err := w.Recover(t.Context()); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// TestConcurrentImports wants one winner when the same image comes twice.
func TestConcurrentImports(t *testing.T) {
	w := newWorld(t)
	const n = 8
	ops := make([]*operation.Op, n)
	for i := range ops {
		up := w.upload("same")
		name := up.Files[0] + fmt.Sprint(i)
		if err := os.Rename(up.Files[0], name); err != nil {
			t.Fatal(err)
		}
		up.Files[0] = name
		op, err := w.Import(t.Context(), project, up)
		if err != nil {
			t.Fatal(err)
		}
		ops[i] = op
	}
	won := 0
	for _, op := range ops {
		switch err := op.Wait(t.Context()); {
		case err == nil:
			won++
		case !errors.Is(err, api.Conflict):
			t.Error(err)
		}
	}
	if won != 1 || len(w.files("images")) != 1 {
		t.Errorf("%d imports won, %v", won, w.files("images"))
	}
	w.expectFiles("uploads")
}
