package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/catalog"
	"github.com/croft-project/croft/internal/operation"
)

const testFingerprint = "b58764a44686015b4a0f767a672d08b498a1a1541c63c3fcc3888fdeb3eaf055"

// fakeImages has one image and keeps what is uploaded.
type fakeImages struct {
	ops     *operation.Manager
	dir     string
	split   bool
	uploads []catalog.Upload
	files   [][]byte // of the last upload, when they are small
	from    api.ImagesPost
}

func (f *fakeImages) image() api.Image {
	return api.Image{
		ImagePut: api.ImagePut{Properties: map[string]string{"os": "Busybox"}}, Fingerprint: testFingerprint,
		Type: "container", Architecture: "x86_64", Aliases: []api.ImageAlias{{Name: "bb"}},
	}
}

func (f *fakeImages) List(context.Context, string) ([]api.Image, error) {
	return []api.Image{f.image()}, nil
}

func (f *fakeImages) Get(_ context.Context, _, prefix string) (api.Image, string, error) {
	if !strings.HasPrefix(testFingerprint, prefix) {
		return api.Image{}, "", notFound("image", prefix)
	}
	return f.image(), "7", nil
}

func (f *fakeImages) TempDir() string { return f.dir }

func (f *fakeImages) Import(_ context.Context, _ string, up catalog.Upload) (*operation.Op, error) {
	f.uploads = append(f.uploads, up)
	f.files = nil
	for _, name := range up.Files {
		st, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if st.Size() < 1<<20 {
			raw, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			f.files = append(f.files, raw)
		}
		if err := os.Remove(name); err != nil {
			return nil, err
		}
	}
	return f.start("Downloading image")
}

func (f *fakeImages) start(description string) (*operation.Op, error) {
	return f.ops.Start(operation.Spec{
		Project: "default", Description: description,
		Run: func(context.Context, *operation.Op) error { return nil },
	})
}

func (f *fakeImages) CreateFrom(_ context.Context, _ string, req api.ImagesPost) (*operation.Op, error) {
	f.from = req
	return f.start("Building image")
}

func (f *fakeImages) Update(ctx context.Context, _, fingerprint, ifMatch string, mutate func(*api.ImagePut) error) error {
	img, _, err := f.Get(ctx, "", fingerprint)
	if err != nil {
		return err
	}
	if err := checkTag(ifMatch); err != nil {
		return err
	}
	return mutate(&img.ImagePut)
}

func (f *fakeImages) Delete(context.Context, string, string) (*operation.Op, error) {
	return f.start("Deleting image")
}

func (f *fakeImages) Export(_ context.Context, _, fingerprint string) (e catalog.Export, err error) {
	if !strings.HasPrefix(testFingerprint, fingerprint) {
		return e, notFound("image", fingerprint)
	}
	open := func(name, content string) *os.File {
		path := filepath.Join(f.dir, name)
		err = errors.Join(err, os.WriteFile(path, []byte(content), 0o600))
		file, openErr := os.Open(path)
		err = errors.Join(err, openErr)
		return file
	}
	e.Meta, e.MetaName = open("meta", "the metadata"), testFingerprint+".tar.gz"
	if f.split {
		e.MetaName = "meta-" + e.MetaName
		e.Rootfs, e.RootfsName = open("rootfs", strings.Repeat("root", 100)), testFingerprint+".squashfs"
	}
	return e, err
}

// fakeAliases remembers the names it was asked for.
type fakeAliases struct{ asked []string }

func (f *fakeAliases) ask(name string) error {
	f.asked = append(f.asked, name)
	if strings.HasPrefix(name, "none") {
		return notFound("image alias", name)
	}
	return nil
}

func (f *fakeAliases) ListAliases(context.Context, string) ([]api.ImageAliasesEntry, error) {
	return []api.ImageAliasesEntry{{Name: "bb", Type: "container"}, {Name: "debian/12", Type: "container"}}, nil
}

func (f *fakeAliases) GetAlias(_ context.Context, _, name string) (api.ImageAliasesEntry, string, error) {
	return api.ImageAliasesEntry{Name: name, Type: "container"}, "7", f.ask(name)
}

func (f *fakeAliases) CreateAlias(_ context.Context, _ string, req api.ImageAliasesPost) error {
	return f.ask(req.Name)
}

func (f *fakeAliases) UpdateAlias(_ context.Context, _, name, ifMatch string, mutate func(*api.ImageAliasesEntryPut) error) error {
	return errors.Join(f.ask(name), checkTag(ifMatch), mutate(&api.ImageAliasesEntryPut{}))
}

func (f *fakeAliases) RenameAlias(_ context.Context, _, from, to string) error {
	return errors.Join(f.ask(from), f.ask(to))
}

func (f *fakeAliases) DeleteAlias(_ context.Context, _, name string) error { return f.ask(name) }

// fakeInventory has the pool default and the network br0.
type fakeInventory struct {
	config map[string]string
}

func (f *fakeInventory) pool(name string) (api.StoragePool, error) {
	if name != "default" {
		return api.StoragePool{}, notFound("storage pool", name)
	}
	return api.StoragePool{Name: name, Driver: "dir", Status: "Created", UsedBy: []string{}, Locations: []string{"none"}}, nil
}

func (f *fakeInventory) ListPools(context.Context) ([]api.StoragePool, error) {
	p, err := f.pool("default")
	return []api.StoragePool{p}, err
}

func (f *fakeInventory) GetPool(_ context.Context, name string) (api.StoragePool, string, error) {
	p, err := f.pool(name)
	return p, "7", err
}

func (f *fakeInventory) CreatePool(_ context.Context, req api.StoragePoolsPost) error {
	if req.Name == "default" {
		return api.Errorf(api.Conflict, "storage pool default exists")
	}
	return nil
}

func (f *fakeInventory) UpdatePool(_ context.Context, name, ifMatch string, mutate func(*api.StoragePoolPut) error) error {
	if _, err := f.pool(name); err != nil {
		return err
	}
	return errors.Join(checkTag(ifMatch), mutate(&api.StoragePoolPut{}))
}

func (f *fakeInventory) DeletePool(context.Context, string) error {
	return api.Errorf(api.InUse, "storage pool default is used by instance c1").WithHint("delete it first")
}

func (f *fakeInventory) PoolResources(_ context.Context, name string) (api.ResourcesStoragePool, error) {
	_, err := f.pool(name)
	return api.ResourcesStoragePool{Space: api.ResourcesStoragePoolSpace{Used: 1, Total: 2}}, err
}

func (f *fakeInventory) Volumes(_ context.Context, pool string) ([]api.StorageVolume, error) {
	_, err := f.pool(pool)
	return []api.StorageVolume{{Name: "c1", Type: "container"}, {Name: testFingerprint, Type: "image"}}, err
}

func (f *fakeInventory) network(name string) (api.Network, error) {
	if name != "br0" {
		return api.Network{}, notFound("network", name)
	}
	return api.Network{Name: name, Type: "bridge", Managed: true, Status: "Created", UsedBy: []string{}}, nil
}

func (f *fakeInventory) ListNetworks(context.Context) ([]api.Network, error) {
	n, err := f.network("br0")
	return []api.Network{n}, err
}

func (f *fakeInventory) GetNetwork(_ context.Context, name string) (api.Network, string, error) {
	n, err := f.network(name)
	return n, "7", err
}

func (f *fakeInventory) CreateNetwork(context.Context, api.NetworksPost) error { return nil }

func (f *fakeInventory) UpdateNetwork(_ context.Context, name, ifMatch string, mutate func(*api.NetworkPut) error) error {
	if _, err := f.network(name); err != nil {
		return err
	}
	return errors.Join(checkTag(ifMatch), mutate(&api.NetworkPut{}))
}

func (f *fakeInventory) RenameNetwork(_ context.Context, from, _ string) error {
	_, err := f.network(from)
	return err
}

func (f *fakeInventory) DeleteNetwork(_ context.Context, name string) error {
	_, err := f.network(name)
	return err
}

func (f *fakeInventory) Leases(_ context.Context, name string) ([]api.NetworkLease, error) {
	_, err := f.network(name)
	return nil, err
}

func (f *fakeInventory) NetworkState(_ context.Context, name string) (api.NetworkState, error) {
	_, err := f.network(name)
	return api.NetworkState{Mtu: 1500, State: "up"}, err
}

func (f *fakeInventory) GetServerConfig(context.Context) (map[string]string, string, error) {
	return f.config, "7", nil
}

func (f *fakeInventory) UpdateServerConfig(_ context.Context, ifMatch string, mutate func(map[string]string) error) error {
	if err := checkTag(ifMatch); err != nil {
		return err
	}
	return mutate(f.config)
}
