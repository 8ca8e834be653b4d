package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/croft-project/croft/api"
)

// doc is a JSON object.
type doc = map[string]any

const fakeTime = "2026-01-02T03:04:05Z"

// fake is an API server in memory: enough of it for the command scripts. It
// keeps objects as JSON, merges profiles without order and runs the commands
// echo, cat, exit and sigterm.
type fake struct {
	mu      sync.Mutex
	objects map[string]map[string]doc // collection, name
	aliases map[string]doc
	files   map[string]string // instance and path to content; directories end with a slash
	ops     map[string]*fakeOp
	watch   map[chan doc]bool
}

// fakeOp is an operation; done is closed when it has ended.
type fakeOp struct {
	doc     doc
	done    chan struct{}
	streams chan *websocket.Conn // by order 0, 1, 2, control
	conns   map[string]*websocket.Conn
	command []string
}

// startFake serves on a unix socket until the listener is closed.
func startFake(l net.Listener) *http.Server {
	f := &fake{
		objects: map[string]map[string]doc{
			"instances": {}, "images": {}, "networks": {},
			"profiles": {"default": {
				"name": "default", "description": "Default profile", "config": doc{}, "used_by": []string{},
				"devices": doc{"root": doc{"type": "disk", "path": "/", "pool": "default"}},
			}},
			"storage-pools": {"default": {
				"name": "default", "driver": "overlay", "status": "Created", "description": "",
				"config": doc{"source": "/pool"}, "used_by": []string{"/1.0/profiles/default", "/1.0/images/abc"},
			}},
		},
		aliases: map[string]doc{}, files: map[string]string{}, ops: map[string]*fakeOp{}, watch: map[chan doc]bool{},
	}
	srv := &http.Server{Handler: f.routes()}
	go srv.Serve(l)
	return srv
}

func (f *fake) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /1.0", f.server)
	mux.HandleFunc("GET /1.0/events", f.events)
	mux.HandleFunc("GET /1.0/operations", f.listOps)
	mux.HandleFunc("GET /1.0/operations/{id}", f.op)
	mux.HandleFunc("GET /1.0/operations/{id}/wait", f.op)
	mux.HandleFunc("GET /1.0/operations/{id}/websocket", f.attach)
	mux.HandleFunc("GET /1.0/images/aliases", f.listAliases)
	mux.HandleFunc("POST /1.0/images/aliases", f.createAlias)
	mux.HandleFunc("/1.0/images/{name}/{sub}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("name") == "aliases" {
			r.SetPathValue("name", r.PathValue("sub"))
			f.alias(w, r)
			return
		}
		f.export(w, r)
	})
	mux.HandleFunc("POST /1.0/images", f.upload)
	mux.HandleFunc("GET /1.0/instances/{name}/state", f.state)
	mux.HandleFunc("PUT /1.0/instances/{name}/state", f.setState)
	mux.HandleFunc("POST /1.0/instances/{name}/exec", f.exec)
	mux.HandleFunc("/1.0/instances/{name}/files", f.file)
	mux.HandleFunc("GET /1.0/storage-pools/{name}/resources", func(w http.ResponseWriter, _ *http.Request) {
		ok(w, doc{"space": doc{"used": 1 << 30, "total": 4 << 30}, "inodes": doc{"used": 1, "total": 2}})
	})
	mux.HandleFunc("GET /1.0/{kind}", f.list)
	mux.HandleFunc("POST /1.0/{kind}", f.create)
	mux.HandleFunc("/1.0/{kind}/{name}", f.object)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/websocket") && !strings.HasSuffix(r.URL.Path, "/events") {
			f.mu.Lock()
			defer f.mu.Unlock()
		}
		mux.ServeHTTP(w, r)
	})
}

func send(w http.ResponseWriter, status int, env doc) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(env)
}

func ok(w http.ResponseWriter, meta any) {
	send(w, 200, doc{"type": "sync", "status": "Success", "status_code": 200, "metadata": meta})
}

func refuse(w http.ResponseWriter, err *api.Error) {
	send(w, err.Kind.Status(), doc{"type": "error", "error": err.Message, "error_code": err.Kind.Status(), "kind": err.Kind, "hint": err.Hint})
}

func etag(v any) string {
	raw, _ := json.Marshal(v)
	return fmt.Sprintf("%x", sha256.Sum256(raw))[:16]
}

// async answers with an operation that has ended, or failed with err.
func (f *fake) async(w http.ResponseWriter, description string, meta doc, resources doc, err *api.Error) *fakeOp {
	id := fmt.Sprintf("00000000-0000-0000-0000-%012d", len(f.ops)+1)
	op := &fakeOp{done: make(chan struct{}), conns: map[string]*websocket.Conn{}, doc: doc{
		"id": id, "class": "task", "description": description, "status": "Success", "status_code": 200,
		"created_at": fakeTime, "updated_at": fakeTime, "metadata": meta, "resources": resources, "err": "", "may_cancel": false,
	}}
	if err != nil {
		op.doc["status"], op.doc["status_code"], op.doc["err"], op.doc["err_kind"], op.doc["hint"] = "Failure", 400, err.Message, err.Kind, err.Hint
	}
	f.ops[id] = op
	running := maps.Clone(op.doc)
	running["status"], running["status_code"], running["err"] = "Running", 103, ""
	send(w, 202, doc{"type": "async", "status_code": 100, "operation": "/1.0/operations/" + id, "metadata": running})
	return op
}

func (f *fake) emit(action, source string) {
	for ch := range f.watch {
		ch <- doc{"type": "lifecycle", "timestamp": fakeTime, "metadata": doc{"action": action, "source": source}}
	}
}

func (f *fake) server(w http.ResponseWriter, _ *http.Request) {
	ok(w, doc{"config": doc{"user.a": "b"}, "api_version": "1.0", "auth": "trusted", "environment": doc{"server_version": "9.9", "server": "fake"}})
}

func (f *fake) events(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ch := make(chan doc, 100)
	f.mu.Lock()
	f.watch[ch] = true
	f.mu.Unlock()
	ctx := conn.CloseRead(context.WithoutCancel(r.Context()))
	for {
		select {
		case ev := <-ch:
			_ = wsjson.Write(ctx, conn, ev)
		case <-ctx.Done():
			f.mu.Lock()
			delete(f.watch, ch)
			f.mu.Unlock()
			return
		}
	}
}

func (f *fake) listOps(w http.ResponseWriter, _ *http.Request) {
	all := []doc{}
	for _, op := range f.ops {
		all = append(all, op.doc)
	}
	ok(w, doc{"success": all})
}

func (f *fake) op(w http.ResponseWriter, r *http.Request) {
	op := f.ops[r.PathValue("id")]
	if op == nil {
		refuse(w, api.Errorf(api.NotFound, "operation not found"))
		return
	}
	if op.command != nil && strings.HasSuffix(r.URL.Path, "/wait") {
		f.mu.Unlock()
		<-op.done
		f.mu.Lock()
	}
	ok(w, op.doc)
}

func (f *fake) list(w http.ResponseWriter, r *http.Request) {
	kind := r.PathValue("kind")
	objects, known := f.objects[kind]
	if !known {
		refuse(w, api.Errorf(api.NotFound, "not found"))
		return
	}
	out := []any{}
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		if r.URL.Query().Get("recursion") == "" {
			out = append(out, "/1.0/"+kind+"/"+name)
			continue
		}
		out = append(out, f.view(kind, name, r.URL.Query().Get("recursion") == "2"))
	}
	ok(w, out)
}

// view is an object as the API shows it.
func (f *fake) view(kind, name string, full bool) doc {
	o := maps.Clone(f.objects[kind][name])
	if kind == "images" {
		list := []doc{}
		for _, a := range slices.Sorted(maps.Keys(f.aliases)) {
			if f.aliases[a]["target"] == name {
				list = append(list, doc{"name": a, "description": ""})
			}
		}
		o["aliases"] = list
	}
	if kind != "instances" {
		return o
	}
	devices, config := doc{}, doc{}
	profiles, _ := o["profiles"].([]any)
	for _, p := range profiles {
		maps.Copy(devices, f.objects["profiles"][p.(string)]["devices"].(doc))
		maps.Copy(config, f.objects["profiles"][p.(string)]["config"].(doc))
	}
	own, _ := o["devices"].(doc)
	maps.Copy(devices, own)
	ownConfig, _ := o["config"].(doc)
	maps.Copy(config, ownConfig)
	o["expanded_devices"], o["expanded_config"] = devices, config
	if full {
		o["state"] = f.stateOf(o)
	}
	return o
}

func (f *fake) stateOf(o doc) doc {
	st := doc{"status": o["status"], "status_code": o["status_code"]}
	if o["status"] == "Running" {
		st["pid"], st["processes"] = 4711, 3
		st["memory"] = doc{"usage": 3 << 20}
		st["network"] = doc{
			"lo": doc{"type": "loopback", "addresses": []doc{{"family": "inet", "address": "127.0.0.1", "netmask": "8", "scope": "local"}}},
			"eth0": doc{"type": "broadcast", "state": "up", "hwaddr": "00:16:3e:00:00:01", "mtu": 1500, "addresses": []doc{
				{"family": "inet", "address": "10.0.0.5", "netmask": "24", "scope": "global"},
				{"family": "inet6", "address": "fe80::1", "netmask": "64", "scope": "link"}}},
		}
	}
	return st
}

func (f *fake) create(w http.ResponseWriter, r *http.Request) {
	kind := r.PathValue("kind")
	var o doc
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		refuse(w, api.Errorf(api.Invalid, "body: %v", err))
		return
	}
	name, _ := o["name"].(string)
	if name == "" {
		name = "brave-newt"
	}
	if _, exists := f.objects[kind][name]; exists {
		refuse(w, api.Errorf(api.Conflict, "%s %s exists already", kind, name))
		return
	}
	o["name"], o["used_by"] = name, []string{}
	for _, k := range []string{"config", "devices"} {
		if o[k] == nil {
			o[k] = doc{}
		}
	}
	f.objects[kind][name] = o
	switch kind {
	case "networks":
		o["managed"], o["type"], o["status"] = true, "bridge", "Created"
	case "storage-pools":
		o["status"] = "Created"
	case "instances":
		if o["profiles"] == nil {
			o["profiles"] = []any{"default"}
		}
		maps.Copy(o, doc{"status": "Stopped", "status_code": 102, "created_at": fakeTime, "last_used_at": "1970-01-01T00:00:00Z",
			"architecture": "x86_64", "type": "container", "project": "default", "location": "none"})
		f.emit("instance-created", "/1.0/instances/"+name)
		f.async(w, "Creating instance", nil, doc{"instances": []string{"/1.0/instances/" + name}}, nil)
		return
	}
	ok(w, doc{})
}

func (f *fake) object(w http.ResponseWriter, r *http.Request) {
	kind, name := r.PathValue("kind"), r.PathValue("name")
	o, found := f.objects[kind][name]
	if kind == "images" && !found { // partial fingerprints
		for fp := range f.objects[kind] {
			if strings.HasPrefix(fp, name) {
				o, name, found = f.objects[kind][fp], fp, true
			}
		}
	}
	if !found {
		refuse(w, api.Errorf(api.NotFound, "%s %s not found", strings.TrimSuffix(kind, "s"), name))
		return
	}
	if m := r.Header.Get("If-Match"); m != "" && m != etag(o) {
		refuse(w, api.Errorf(api.Precondition, "%s %s was changed by somebody else", kind, name))
		return
	}
	var body doc
	_ = json.NewDecoder(r.Body).Decode(&body) // GET and DELETE have none
	switch r.Method {
	case "GET":
		w.Header().Set("ETag", etag(o))
		ok(w, f.view(kind, name, false))
		return
	case "PUT":
		if cfg, _ := body["config"].(doc); cfg["bogus"] != nil {
			refuse(w, api.Errorf(api.Invalid, "config: unknown key %q", "bogus"))
			return
		}
		maps.Copy(o, body)
	case "POST":
		delete(f.objects[kind], name)
		o["name"] = body["name"]
		f.objects[kind][body["name"].(string)] = o
	case "DELETE":
		delete(f.objects[kind], name)
		maps.DeleteFunc(f.aliases, func(_ string, a doc) bool { return a["target"] == name })
	}
	if kind == "instances" || kind == "images" && r.Method == "DELETE" {
		f.async(w, r.Method+" "+name, nil, nil, nil)
		return
	}
	ok(w, doc{})
}

func (f *fake) state(w http.ResponseWriter, r *http.Request) {
	o, found := f.objects["instances"][r.PathValue("name")]
	if !found {
		refuse(w, api.Errorf(api.NotFound, "instance %s not found", r.PathValue("name")))
		return
	}
	ok(w, f.stateOf(o))
}

func (f *fake) setState(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	o, found := f.objects["instances"][name]
	if !found {
		refuse(w, api.Errorf(api.NotFound, "instance %s not found", name))
		return
	}
	var put api.InstanceStatePut
	_ = json.NewDecoder(r.Body).Decode(&put)
	next := map[string]string{
		"start Stopped": "Running", "stop Running": "Stopped", "stop Frozen": "Stopped", "restart Running": "Running",
		"freeze Running": "Frozen", "unfreeze Frozen": "Running",
	}[put.Action+" "+o["status"].(string)]
	if next == "" {
		f.async(w, put.Action, nil, nil, api.Errorf(api.BadState, "cannot %s instance %s: it is %s", put.Action, name, strings.ToLower(o["status"].(string))))
		return
	}
	o["status"], o["status_code"] = next, map[string]int{"Stopped": 102, "Running": 103, "Frozen": 110}[next]
	if next == "Stopped" && o["ephemeral"] == true {
		delete(f.objects["instances"], name)
	}
	f.emit("instance-"+put.Action, "/1.0/instances/"+name)
	f.async(w, put.Action, nil, nil, nil)
}

func (f *fake) exec(w http.ResponseWriter, r *http.Request) {
	var post api.InstanceExecPost
	_ = json.NewDecoder(r.Body).Decode(&post)
	if f.objects["instances"][r.PathValue("name")]["status"] != "Running" {
		refuse(w, api.Errorf(api.BadState, "instance %s is not running", r.PathValue("name")))
		return
	}
	fds := doc{"0": "s0", "1": "s1", "2": "s2", "control": "sc"}
	op := f.async(w, "Executing command", doc{"fds": fds}, nil, nil)
	op.command = post.Command
	if post.Command[0] == "env" {
		op.command = append(op.command, post.Environment["A"], post.Cwd, fmt.Sprint(post.User))
	}
}

// attach runs the command once all websockets are there.
func (f *fake) attach(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	conn.SetReadLimit(-1)
	f.mu.Lock()
	op := f.ops[r.PathValue("id")]
	op.conns[r.URL.Query().Get("secret")] = conn
	all := len(op.conns) == 4
	f.mu.Unlock()
	if all {
		go f.runCommand(context.WithoutCancel(r.Context()), op)
	}
}

func (f *fake) runCommand(ctx context.Context, op *fakeOp) {
	code := 0
	out := func(s string) { _ = op.conns["s1"].Write(ctx, websocket.MessageBinary, []byte(s)) }
	switch op.command[0] {
	case "echo", "env":
		out(strings.Join(op.command[1:], " ") + "\n")
	case "cat":
		for {
			kind, raw, err := op.conns["s0"].Read(ctx)
			if err != nil || kind == websocket.MessageText {
				break
			}
			out(string(raw))
		}
	case "exit":
		_, _ = fmt.Sscan(op.command[1], &code)
	default:
		code = 127
		op.doc["status"], op.doc["status_code"], op.doc["err"] = "Failure", 400, "command not found: "+op.command[0]
	}
	for _, s := range []string{"s1", "s2"} {
		_ = op.conns[s].Write(ctx, websocket.MessageText, nil)
	}
	f.mu.Lock()
	op.doc["metadata"] = doc{"return": code}
	f.mu.Unlock()
	close(op.done)
}

func (f *fake) file(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("name") + ":" + r.URL.Query().Get("path")
	switch r.Method {
	case "POST":
		raw, _ := io.ReadAll(r.Body)
		if r.Header.Get("X-LXD-type") == "directory" {
			key += "/"
		}
		f.files[key] = string(raw)
		f.files["meta "+key] = strings.Join([]string{r.Header.Get("X-LXD-mode"), r.Header.Get("X-LXD-uid")}, " ")
	case "DELETE":
		delete(f.files, key)
	default:
		f.getFile(w, key)
		return
	}
	ok(w, doc{})
}

func (f *fake) getFile(w http.ResponseWriter, key string) {
	content, isFile := f.files[key]
	_, isDir := f.files[key+"/"]
	w.Header().Set("X-LXD-mode", "0640")
	switch {
	case isFile:
		w.Header().Set("X-LXD-type", "file")
		io.WriteString(w, content)
	case isDir:
		w.Header().Set("X-LXD-type", "directory")
		entries := []string{}
		for _, k := range slices.Sorted(maps.Keys(f.files)) {
			rest, below := strings.CutPrefix(strings.TrimSuffix(k, "/"), key+"/")
			if below && rest != "" && !strings.Contains(rest, "/") {
				entries = append(entries, rest)
			}
		}
		ok(w, entries)
	default:
		refuse(w, api.Errorf(api.NotFound, "file not found: %s", key))
	}
}

func (f *fake) listAliases(w http.ResponseWriter, _ *http.Request) {
	out := []doc{}
	for _, a := range slices.Sorted(maps.Keys(f.aliases)) {
		out = append(out, f.aliases[a])
	}
	ok(w, out)
}

func (f *fake) createAlias(w http.ResponseWriter, r *http.Request) {
	var a doc
	_ = json.NewDecoder(r.Body).Decode(&a)
	a["type"] = "container"
	f.aliases[a["name"].(string)] = a
	ok(w, doc{})
}

func (f *fake) alias(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	a, found := f.aliases[name]
	if !found {
		refuse(w, api.Errorf(api.NotFound, "alias %s not found", name))
		return
	}
	var body doc
	_ = json.NewDecoder(r.Body).Decode(&body)
	switch r.Method {
	case "PUT":
		maps.Copy(a, body)
	case "POST":
		delete(f.aliases, name)
		a["name"] = body["name"]
		f.aliases[body["name"].(string)] = a
	case "DELETE":
		delete(f.aliases, name)
	default:
		ok(w, a)
		return
	}
	ok(w, doc{})
}

// upload stores an image; its fingerprint is the hash of its bytes, as in LXD.
func (f *fake) upload(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	var content []string
	kind, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch kind {
	case "application/json":
		f.build(w, r)
		return
	case "multipart/form-data":
		mr := multipart.NewReader(r.Body, params["boundary"])
		for {
			part, err := mr.NextPart()
			if err != nil {
				break
			}
			raw, _ := io.ReadAll(part)
			hash.Write(raw)
			content = append(content, string(raw))
		}
	default:
		raw, _ := io.ReadAll(r.Body)
		hash.Write(raw)
		content = []string{string(raw)}
	}
	props, _ := url.ParseQuery(r.Header.Get("X-LXD-properties"))
	properties := doc{"description": "Test image"}
	for k := range props {
		properties[k] = props.Get(k)
	}
	f.addImage(w, fmt.Sprintf("%x", hash.Sum(nil)), content, properties, r.Header.Get("X-LXD-public") == "true")
}

func (f *fake) build(w http.ResponseWriter, r *http.Request) {
	var post api.ImagesPost
	_ = json.NewDecoder(r.Body).Decode(&post)
	fp := fmt.Sprintf("%x", sha256.Sum256([]byte(post.Source.Distribution+post.Source.Mirror)))
	for _, a := range post.Aliases {
		f.aliases[a.Name] = doc{"name": a.Name, "target": fp, "type": "container"}
	}
	f.addImage(w, fp, []string{"built"}, doc{"os": post.Source.Distribution, "type": post.Source.Type}, false)
}

func (f *fake) addImage(w http.ResponseWriter, fp string, content []string, props doc, public bool) {
	f.objects["images"][fp] = doc{
		"fingerprint": fp, "architecture": "x86_64", "type": "container", "size": len(strings.Join(content, "")), "public": public,
		"properties": props, "uploaded_at": fakeTime, "created_at": fakeTime, "profiles": []string{"default"},
		"expires_at": "1970-01-01T00:00:00Z", "last_used_at": "1970-01-01T00:00:00Z",
	}
	f.files["image "+fp] = strings.Join(content, "\x00")
	f.async(w, "Importing image", doc{"fingerprint": fp}, nil, nil)
}

func (f *fake) export(w http.ResponseWriter, r *http.Request) {
	content := strings.Split(f.files["image "+r.PathValue("name")], "\x00")
	if len(content) == 1 {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", "inline;filename=x.tar.gz")
		io.WriteString(w, content[0])
		return
	}
	mw := multipart.NewWriter(w)
	w.Header().Set("Content-Type", mw.FormDataContentType())
	for i, name := range []string{"metadata", "rootfs"} {
		part, _ := mw.CreateFormFile(name, []string{"m.tar.xz", "r.squashfs"}[i])
		io.WriteString(part, content[i])
	}
	mw.Close()
}
