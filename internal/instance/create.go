package instance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/device"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/operation"
	"github.com/croft-project/croft/internal/storage"
	"github.com/croft-project/croft/internal/store"
)

// Create starts an operation that makes an instance. Bad input, a name that is
// taken, a missing image or pool are refused now; nothing has changed then.
func (e *Engine) Create(ctx context.Context, project string, req api.InstancesPost) (*operation.Op, error) {
	if req.Type != "" && req.Type != api.InstanceTypeContainer {
		return nil, api.Errorf(api.Invalid, "type %q is not possible; allowed is container", req.Type)
	}
	if err := applyInstanceType(&req); err != nil {
		return nil, err
	}
	if req.Name == "" {
		name, err := e.freeName(ctx, project)
		if err != nil {
			return nil, err
		}
		req.Name = name
	} else if err := model.CheckInstanceName(req.Name); err != nil {
		return nil, err
	}
	img, err := e.sourceImage(ctx, project, req.Source)
	if err != nil {
		return nil, err
	}
	inst, local, err := e.newRecord(ctx, project, req, img)
	if err != nil {
		return nil, err
	}
	if err := e.reserve(ctx, inst, local); err != nil {
		e.ids.give(idBase(local))
		return nil, err
	}
	op, err := e.begin(ctx, operation.Spec{Project: project, Description: "Creating instance", Resources: resources(inst.Name)}, "creating",
		[]string{lockKey(project, inst.Name)}, func(ctx context.Context, _ *operation.Op) error { return e.create(ctx, inst, img) })
	if err != nil {
		return nil, errors.Join(err, e.forget(e.ctx, inst))
	}
	return op, nil
}

// sourceImage finds the image of a new instance; nil for an empty one.
func (e *Engine) sourceImage(ctx context.Context, project string, src api.InstanceSource) (*model.Image, error) {
	switch src.Type {
	case "none":
		return nil, nil
	case "image":
		if src.Server != "" {
			return nil, api.Errorf(api.Unsupported, "source: images of other servers are not supported by this version; server is %q", src.Server).WithHint("build one: croft image build debian/12")
		}
		return e.Images.Resolve(ctx, project, src)
	case "copy", "migration":
		return nil, api.Errorf(api.Unsupported, "source: type %q is not supported by this version; allowed are image, none", src.Type)
	}
	return nil, api.Errorf(api.Invalid, "source: type %q is not known; allowed are image, none", src.Type)
}

// newRecord makes the records of a new instance and checks them. The id range
// is taken.
func (e *Engine) newRecord(ctx context.Context, project string, req api.InstancesPost, img *model.Image) (*model.Instance, *model.Local, error) {
	put := req.InstancePut
	user, volatile := model.SplitVolatile(put.Config)
	maps.DeleteFunc(volatile, func(key, _ string) bool { return protectedVolatile(key) })
	if err := checkVolatile(volatile); err != nil {
		return nil, nil, err
	}
	put.Config = user
	dropEmpty(put.Config)
	if put.Profiles == nil {
		put.Profiles = []string{"default"}
		if img != nil && len(img.Profiles) > 0 {
			put.Profiles = img.Profiles
		}
	}
	put.Devices = withoutEmpty(put.Devices)
	inst := &model.Instance{Project: project, Name: req.Name, UUID: uuid.NewString(), InstancePut: put, Phase: model.Creating}
	if img != nil {
		inst.Fingerprint = img.Fingerprint
		if inst.Architecture == "" {
			inst.Architecture = img.Architecture
		}
		for k, v := range img.Metadata.Properties {
			inst.Config["image."+k] = v
		}
		volatile["volatile.base_image"] = img.Fingerprint
	}
	if inst.Architecture == "" {
		inst.Architecture = e.arch
	}
	var l *loaded
	err := e.Store.View(ctx, func(tx store.Tx) (err error) {
		if taken, err := nameTaken(tx, project, inst.Name); err != nil || taken {
			return errors.Join(err, alreadyExists(inst.Name))
		}
		if l, err = expand(tx, inst, 0); err != nil {
			return err
		}
		return e.policy(tx, l)
	})
	if err != nil {
		return nil, nil, err
	}
	_, root, ok := model.RootDevice(l.devices)
	if !ok {
		return nil, nil, api.Errorf(api.Invalid, "devices: a new instance needs a root disk (type disk, path / and a pool)").WithHint("give a pool with --storage, or a profile that has a root disk")
	}
	inst.Pool = root["pool"]
	base, err := e.ids.take()
	if err != nil {
		return nil, nil, err
	}
	volatile["volatile.idmap.base"] = strconv.FormatInt(base, 10)
	volatile["volatile.uuid"] = inst.UUID
	volatile["volatile.cloud-init.instance-id"] = uuid.NewString()
	volatile["volatile.apply_template"] = "create"
	addMACs(volatile, l.devices)
	return inst, &model.Local{Volatile: volatile, Power: model.PowerStopped}, nil
}

func alreadyExists(name string) error {
	return api.Errorf(api.Conflict, "instance %s already exists", name)
}

// addMACs gives each network interface that has no address one to keep, and
// takes away those of devices that are gone.
func addMACs(volatile map[string]string, devices map[string]map[string]string) {
	for name, d := range devices {
		key := "volatile." + name + ".hwaddr"
		if d["type"] == "nic" && d["hwaddr"] == "" && volatile[key] == "" {
			volatile[key] = device.NewMAC()
		}
	}
	for key := range volatile {
		if name, ok := strings.CutSuffix(strings.TrimPrefix(key, "volatile."), ".hwaddr"); ok {
			if d, there := devices[name]; !there || d["type"] != "nic" || d["hwaddr"] != "" {
				delete(volatile, key)
			}
		}
	}
}

// reserve puts the record of an instance that is being made, so that its name
// is taken from now on and start-up knows what to undo.
func (e *Engine) reserve(ctx context.Context, inst *model.Instance, local *model.Local) error {
	return e.Store.Update(ctx, func(tx store.Tx) error {
		if taken, err := nameTaken(tx, inst.Project, inst.Name); err != nil || taken {
			return errors.Join(err, alreadyExists(inst.Name))
		}
		l, err := expand(tx, inst, 0)
		if err != nil {
			return err
		}
		if err := e.policy(tx, l); err != nil {
			return err
		}
		inst.CreatedAt = tx.Now()
		if err := store.Put(tx, inst.Key(), inst); err != nil {
			return err
		}
		return store.Put(tx, model.LocalKey(inst.Project, inst.Name), local)
	})
}

// create makes the root volume of a reserved instance. On failure nothing of
// the instance is left.
func (e *Engine) create(ctx context.Context, inst *model.Instance, img *model.Image) (err error) {
	undo := e.forget
	defer func() {
		if err != nil {
			err = errors.Join(err, undo(context.WithoutCancel(ctx), inst))
		}
	}()
	driver, err := e.Pools.Pool(ctx, inst.Pool)
	if err != nil {
		return err
	}
	ref := storage.Ref{Project: inst.Project, Name: inst.Name}
	if err := e.makeVolume(ctx, driver, ref, img); err != nil {
		if errors.Is(err, api.Conflict) {
			undo = e.unreserve // what is there is not ours
		}
		return err
	}
	root, err := driver.Root(ctx, ref)
	if err != nil {
		return err
	}
	if img != nil {
		if err := writeMetadata(root.Dir, img); err != nil {
			return err
		}
	}
	link := e.path("containers", ref.String())
	if err := os.Symlink(root.Dir, link); err != nil {
		return fmt.Errorf("make the link of instance %s: %w", inst.Name, err)
	}
	return e.Store.Update(ctx, func(tx store.Tx) error {
		rec, _, err := store.Edit[model.Instance](tx, inst.Key())
		if err != nil {
			return err
		}
		if rec.Phase, err = rec.Phase.Next(model.Finish); err != nil {
			return err
		}
		if err := store.Put(tx, rec.Key(), rec); err != nil {
			return err
		}
		if img != nil {
			if err := e.Images.NoteUse(tx, img.Project, img.Fingerprint); err != nil {
				return err
			}
		}
		return emit(ctx, tx, "instance-created", inst.Project, inst.Name, map[string]any{"location": "none", "storage-pool": inst.Pool, "type": "container"})
	})
}

// makeVolume makes the root volume of an instance, from an image or empty.
func (e *Engine) makeVolume(ctx context.Context, driver storage.Driver, ref storage.Ref, img *model.Image) error {
	if img == nil {
		return driver.CreateEmpty(ctx, ref)
	}
	release, err := e.Images.Use(ctx, img.Project, img.Fingerprint)
	if err != nil {
		return err
	}
	defer release()
	return driver.Clone(ctx, ref, e.Images.StorageImage(img))
}

// idBase is the first host id of an instance, 0 if it has none.
func idBase(local *model.Local) int64 {
	n, err := strconv.ParseInt(local.Volatile["volatile.idmap.base"], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func idmapOf(local *model.Local) linux.IDMap {
	base := idBase(local)
	if base == 0 {
		return nil
	}
	return linux.IDMap{{ContainerID: 0, HostID: base, Count: idRange, UID: true, GID: true}}
}

// applyInstanceType expands a size such as c2-m4: two processors and four GiB of
// memory. Explicit limits win.
func applyInstanceType(req *api.InstancesPost) error {
	if req.Config == nil {
		req.Config = map[string]string{}
	} else {
		req.Config = maps.Clone(req.Config)
	}
	if req.InstanceType == "" {
		return nil
	}
	limits := map[string]string{}
	for part := range strings.SplitSeq(req.InstanceType, "-") {
		n, err := strconv.ParseFloat(part[min(1, len(part)):], 64)
		switch {
		case err == nil && n >= 1 && n < 1e6 && part[0] == 'c' && n == float64(int(n)):
			limits["limits.cpu"] = strconv.Itoa(int(n))
		case err == nil && n > 0 && n < 1e6 && part[0] == 'm':
			limits["limits.memory"] = strconv.FormatInt(int64(n*1024), 10) + "MB"
		default:
			return api.Errorf(api.Invalid, "instance_type %q is not known; allowed are sizes such as c2-m4 (processors and GiB of memory)", req.InstanceType)
		}
	}
	for k, v := range limits {
		if req.Config[k] == "" {
			req.Config[k] = v
		}
	}
	return nil
}

func (e *Engine) linkPath(project, name string) string {
	return filepath.Join(e.StateDir, "containers", model.DirName(project, name))
}
