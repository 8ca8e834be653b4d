package instance

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/internal/auth"
	"github.com/croft-project/croft/internal/linux"
	"github.com/croft-project/croft/internal/lxc"
	"github.com/croft-project/croft/internal/model"
	"github.com/croft-project/croft/internal/operation"
)

// connectTimeout is how long a client may take to connect its websockets.
const connectTimeout = 5 * time.Second

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// session is an exec session as it is recorded beside its keeper's socket, so
// that a later daemon can go on with it.
type session struct {
	ID      string            `json:"id"` // of the operation
	Project string            `json:"project"`
	Name    string            `json:"name"`
	Class   string            `json:"class"`
	Owner   string            `json:"owner"`
	TTY     bool              `json:"tty"`
	Secrets map[string]string `json:"secrets"` // by stream; empty without websockets
	Output  map[string]string `json:"output"`  // recorded output: paths in the API
}

// Exec starts an operation that runs a command in a running instance. With
// websockets it begins when the client has connected them all.
func (e *Engine) Exec(ctx context.Context, project, name string, req api.InstanceExecPost) (*operation.Op, error) {
	inst, err := e.load(ctx, project, name, false)
	if err != nil {
		return nil, err
	}
	running, err := e.running(project, name)
	if err != nil {
		return nil, err
	}
	cmd, err := command(req, inst.config)
	if err != nil {
		return nil, err
	}
	if _, _, err := hostIDs(running.idmap, int64(req.User), int64(req.Group)); err != nil {
		return nil, err
	}
	s := &session{ID: uuid.NewString(), Project: project, Name: name, Class: api.ClassTask, TTY: req.Interactive && req.WaitForWS}
	spec := operation.Spec{ID: s.ID, Project: project, Description: "Executing command", Resources: resources(name)}
	x := &execRun{engine: e, session: s, cmd: cmd, running: running, width: req.Width, height: req.Height, record: req.RecordOutput && !req.WaitForWS}
	spec.Run = x.run
	if req.WaitForWS {
		x.streams = newStreams(s.TTY)
		s.Class, s.Secrets = api.ClassWebsocket, newSecrets(s.TTY)
		spec.Secrets, spec.Owner, spec.Connect = s.Secrets, auth.From(ctx).Key(), x.streams.connect
		s.Owner = spec.Owner
		spec.Metadata = map[string]any{"command": req.Command, "environment": environment(cmd.Env), "interactive": req.Interactive}
	}
	spec.Class, spec.Requestor = s.Class, requestorOf(ctx)
	x.who = auth.From(ctx)
	return e.Ops.Start(spec)
}

func environment(vars []lxc.Variable) map[string]string {
	out := map[string]string{}
	for _, v := range vars {
		out[v.Name] = v.Value
	}
	return out
}

func newSecrets(tty bool) map[string]string {
	out := map[string]string{}
	for _, name := range streamNames(tty) {
		var b [32]byte
		_, _ = rand.Read(b[:])
		out[name] = hex.EncodeToString(b[:])
	}
	return out
}

// command makes the command of a request, with the environment that LXD gives.
func command(req api.InstanceExecPost, config map[string]string) (lxc.Command, error) {
	if req.Cwd != "" && !strings.HasPrefix(req.Cwd, "/") {
		return lxc.Command{}, api.Errorf(api.Invalid, "cwd: %q is not absolute", req.Cwd)
	}
	env := map[string]string{"PATH": defaultPath, "LANG": "C.UTF-8"}
	if req.User == 0 {
		env["HOME"], env["USER"] = "/root", "root"
	}
	for key, value := range config {
		if name, ok := strings.CutPrefix(key, "environment."); ok {
			env[name] = value
		}
	}
	maps.Copy(env, req.Environment)
	c := lxc.Command{Args: req.Command, UID: req.User, GID: req.Group, Cwd: req.Cwd}
	if c.Cwd == "" {
		c.Cwd, c.AnyCwd = cmp.Or(env["HOME"], "/"), true
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(env[name], "\x00") {
			return lxc.Command{}, api.Errorf(api.Invalid, "environment: %q cannot be the name of a variable, or its value holds a NUL", name)
		}
		c.Env = append(c.Env, lxc.Variable{Name: name, Value: env[name]})
	}
	for _, a := range append(req.Command, req.Cwd) {
		if strings.Contains(a, "\x00") {
			return lxc.Command{}, api.Errorf(api.Invalid, "command: %q holds a NUL", a)
		}
	}
	return c, nil
}

func hostIDs(m linux.IDMap, uid, gid int64) (int, int, error) {
	u, okU := m.HostUID(uid)
	g, okG := m.HostGID(gid)
	if !okU || !okG {
		return 0, 0, api.Errorf(api.Invalid, "user %d, group %d: an instance has the ids 0 to %d only", uid, gid, idRange-1)
	}
	return int(u), int(g), nil
}

// execRun is one run of a command.
type execRun struct {
	engine        *Engine
	session       *session
	cmd           lxc.Command
	running       *live
	streams       *streams // nil without websockets
	width, height int
	record        bool
	who           auth.Identity
}

func (x *execRun) run(ctx context.Context, op *operation.Op) error {
	if len(x.cmd.Args) == 0 { // clients of LXD learn of it from the operation
		return api.Errorf(api.Invalid, "command: the list is empty; at least the name of a program is needed")
	}
	s, err := x.start(ctx)
	if err != nil {
		if x.streams != nil {
			x.streams.close()
		}
		if api.KindOf(err) != api.Timeout {
			op.ExtendMetadata(x.outcome(failureCode(err)))
		}
		return err
	}
	return x.engine.follow(ctx, op, x.session, s, x.streams)
}

// failureCode is the exit code for a command that could not be run, as a shell
// has it.
func failureCode(err error) int {
	switch api.KindOf(err) {
	case api.NotFound:
		return 127
	case api.Invalid:
		return 126
	}
	return -1
}

func (x *execRun) outcome(code int) map[string]any { return x.session.outcome(code) }

func (s *session) outcome(code int) map[string]any {
	out := map[string]any{"return": code}
	if len(s.Output) > 0 {
		out["output"] = s.Output
	}
	return out
}

// start runs the command. The record is written first: a session without one
// would be lost to later daemons, a record without a session is swept away.
func (x *execRun) start(ctx context.Context) (*lxc.Session, error) {
	e := x.engine
	stdio, err := x.stdio()
	if err != nil {
		return nil, err
	}
	if err := e.writeSession(x.session); err != nil {
		stdio.Close()
		return nil, err
	}
	s, err := e.Runtime.Exec(ctx, lxc.ExecRequest{
		Name: model.DirName(x.session.Project, x.session.Name), Conf: e.path("logs", model.DirName(x.session.Project, x.session.Name), "lxc.conf"),
		Socket: e.sessionPath(x.session.ID, "sock"), Command: x.cmd, Stdio: stdio, Await: x.await,
	})
	if err != nil {
		_ = os.Remove(e.sessionPath(x.session.ID, "json"))
		if api.KindOf(err) == api.Internal && e.liveOf(x.session.Project, x.session.Name) != x.running {
			err = api.Errorf(api.BadState, "instance %s stopped before the command began: %w", x.session.Name, err)
		}
		return nil, err
	}
	if err := e.announce(auth.With(ctx, x.who), x.session.Project, x.session.Name, "instance-exec"); err != nil {
		e.Log.Warn("cannot announce a command", "instance", x.session.Name, "err", err)
	}
	return s, nil
}

// await returns when the client has connected its websockets.
func (x *execRun) await(ctx context.Context) error {
	if x.streams == nil {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return x.streams.await(wait)
}

func (x *execRun) stdio() (*lxc.Stdio, error) {
	uid, gid, err := hostIDs(x.running.idmap, int64(x.cmd.UID), int64(x.cmd.GID))
	if err != nil {
		return nil, err
	}
	switch {
	case x.session.TTY:
		width, height := x.width, x.height
		if width <= 0 || height <= 0 {
			width, height = 80, 25 // as LXD has it for a client that does not know
		}
		return lxc.NewTerminal(x.running.initPID(), uid, gid, width, height)
	case x.streams != nil:
		return lxc.NewPipes(uid, gid)
	}
	return x.files()
}

// files are the streams of a command without websockets: nothing to read, and
// output into log files or nowhere.
func (x *execRun) files() (*lxc.Stdio, error) {
	s := &lxc.Stdio{}
	var err error
	if s.Inner[0], err = os.Open(os.DevNull); err != nil {
		return nil, err
	}
	for i, name := range []string{"stdout", "stderr"} {
		if !x.record {
			s.Inner[i+1], err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		} else {
			file := "exec_" + x.session.ID + "." + name
			s.Inner[i+1], err = os.OpenFile(x.engine.path("logs", model.DirName(x.session.Project, x.session.Name), file), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if x.session.Output == nil {
				x.session.Output = map[string]string{}
			}
			x.session.Output[fmt.Sprint(i+1)] = "/1.0/instances/" + x.session.Name + "/logs/" + file
		}
		if err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// follow relays a session's streams until its command has ended, and reports
// the exit code. When the daemon stops it lets go; the next one goes on.
func (e *Engine) follow(ctx context.Context, op *operation.Op, rec *session, s *lxc.Session, st *streams) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.execs, cancel)()
	var relayed func()
	if st != nil {
		relayed = st.relay(ctx, s)
	}
	code, err := s.Wait(ctx)
	if err != nil && ctx.Err() != nil {
		s.Leave()
		if st != nil {
			st.close()
		}
		return err
	}
	if relayed != nil {
		relayed()
	}
	s.Done()
	_ = os.Remove(e.sessionPath(rec.ID, "json"))
	if err != nil {
		return err
	}
	op.ExtendMetadata(rec.outcome(code))
	return nil
}

func (e *Engine) sessionPath(id, suffix string) string { return e.path("sessions", id+"."+suffix) }

func (e *Engine) writeSession(s *session) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(e.sessionPath(s.ID, "json"), data, 0o600)
}

// adoptSessions goes on with the exec sessions that an earlier daemon left.
func (e *Engine) adoptSessions(ctx context.Context) error {
	entries, err := os.ReadDir(e.path("sessions"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok {
			continue
		}
		if err := e.adoptSession(ctx, id); err != nil && !errors.Is(err, linux.ErrGone) {
			e.Log.Warn("cannot go on with an exec session", "session", id, "err", err)
		}
	}
	// A socket without a record belongs to a session that never began.
	for _, entry := range entries {
		if id, ok := strings.CutSuffix(entry.Name(), ".sock"); ok {
			if _, err := os.Stat(e.sessionPath(id, "json")); errors.Is(err, fs.ErrNotExist) {
				_ = os.Remove(e.sessionPath(id, "sock"))
			}
		}
	}
	return nil
}

func (e *Engine) adoptSession(ctx context.Context, id string) error {
	data, err := os.ReadFile(e.sessionPath(id, "json"))
	if err != nil {
		return err
	}
	rec := &session{}
	if err := json.Unmarshal(data, rec); err != nil || rec.ID != id {
		return errors.Join(os.Remove(e.sessionPath(id, "json")), err)
	}
	s, err := lxc.Adopt(ctx, e.sessionPath(id, "sock"))
	if err != nil {
		_ = os.Remove(e.sessionPath(id, "json"))
		return err
	}
	spec := operation.Spec{ID: rec.ID, Project: rec.Project, Class: rec.Class, Description: "Executing command", Resources: resources(rec.Name), Owner: rec.Owner, Secrets: rec.Secrets}
	var st *streams
	if len(rec.Secrets) > 0 {
		st = newStreams(rec.TTY)
		spec.Connect = st.connect
	}
	spec.Run = func(ctx context.Context, op *operation.Op) error { return e.follow(ctx, op, rec, s, st) }
	if _, err := e.Ops.Start(spec); err != nil {
		s.Leave()
		return err
	}
	return nil
}
