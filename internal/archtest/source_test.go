package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// root is the module's directory as seen from this package.
const root = "../.."

// pkg is what the rules look at.
type pkg struct {
	path    string            // below the module: "internal/store"
	imports map[string]string // import path to a file that has it; tests not counted
	files   map[string]*ast.File
	fset    *token.FileSet
}

// packages parses all of the module, whatever system a file is for.
func packages(t *testing.T) map[string]*pkg {
	t.Helper()
	out := map[string]*pkg{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := e.Name()
		if e.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		return addFile(out, path)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 10 {
		t.Fatalf("only %d packages found below %s", len(out), root)
	}
	return out
}

func addFile(out map[string]*pkg, path string) error {
	dir, err := filepath.Rel(root, filepath.Dir(path))
	if err != nil {
		return err
	}
	p := out[dir]
	if p == nil {
		p = &pkg{path: filepath.ToSlash(dir), imports: map[string]string{}, files: map[string]*ast.File{}, fset: token.NewFileSet()}
		out[dir] = p
	}
	f, err := parser.ParseFile(p.fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	p.files[filepath.Base(path)] = f
	for _, imp := range f.Imports {
		target, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			return err
		}
		p.imports[target] = filepath.Base(path)
	}
	return nil
}

// TestPackageDocs wants a comment that says what each package is for.
func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		documented := false
		for _, f := range p.files {
			documented = documented || f.Doc != nil
		}
		if !documented {
			t.Errorf("%s: no file has a package comment", p.path)
		}
	}
}

// The sizes beyond which code is to be split: nobody reads further.
const (
	maxFile = 600 // lines
	maxFunc = 60  // lines; aim at 40
)

// long are functions that may be longer, and why.
var long = map[string]string{
	"internal/server.routes": "the route table is one literal",
}

// TestSizes bounds files and functions.
func TestSizes(t *testing.T) {
	for _, p := range packages(t) {
		for name, f := range p.files {
			lines := p.fset.Position(f.FileEnd).Line
			if lines > maxFile {
				t.Errorf("%s/%s has %d lines, at most %d are allowed: split it by noun or verb", p.path, name, lines, maxFile)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					n := p.fset.Position(fn.End()).Line - p.fset.Position(fn.Pos()).Line + 1
					if n > maxFunc && long[p.path+"."+fn.Name.Name] == "" {
						t.Errorf("%s/%s: %s has %d lines, at most %d are allowed", p.path, name, fn.Name.Name, n, maxFunc)
					}
				}
			}
		}
	}
}

// TestNoHiddenStart wants no code that runs by being imported: registration is
// one explicit line in daemon.
func TestNoHiddenStart(t *testing.T) {
	for _, p := range packages(t) {
		for name, f := range p.files {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s/%s has an init function: be explicit in daemon instead", p.path, name)
				}
			}
		}
	}
}

// banned are calls that have no place outside tests, by package and name.
var banned = map[string]string{
	"context.TODO":   "pass the caller's context on",
	"time.Sleep":     "wait for the event itself, or for a timer together with the context",
	"log.Fatal":      "return an error",
	"log.Printf":     "use the slog.Logger that was passed in",
	"slog.Default":   "use the slog.Logger that was passed in",
	"slog.Info":      "use the slog.Logger that was passed in",
	"slog.Error":     "use the slog.Logger that was passed in",
	"http.Get":       "use a client with a context",
	"ioutil.ReadAll": "use package io",
}

// sleepers may call time.Sleep: they are programs whose whole work is waiting.
var sleepers = map[string]bool{"bench": true}

func TestBannedCalls(t *testing.T) {
	for _, p := range packages(t) {
		for name, f := range p.files {
			ast.Inspect(f, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				x, ok := sel.X.(*ast.Ident)
				if !ok {
					return true
				}
				call := x.Name + "." + sel.Sel.Name
				if why, bad := banned[call]; bad && !(call == "time.Sleep" && sleepers[p.path]) {
					t.Errorf("%s/%s:%d: %s: %s", p.path, name, p.fset.Position(sel.Pos()).Line, call, why)
				}
				return true
			})
		}
	}
}

// TestOneCFile wants all C in internal/lxc.
func TestOneCFile(t *testing.T) {
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == ".git" || e.Name() == "testdata" || e.Name() == "node_modules") {
			return fs.SkipDir
		}
		switch filepath.Ext(path) {
		case ".c", ".h", ".cc", ".cpp", ".s", ".S":
			if dir := filepath.ToSlash(filepath.Dir(path)); dir != root+"/internal/lxc" {
				t.Errorf("%s: C and assembly belong in internal/lxc, where liblxc is bound", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMakefileLinksNonPIE keeps the flag that the memory of monitors depends on;
// TestNonPIE looks at the result.
func TestMakefileLinksNonPIE(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "-buildmode=exe") {
		t.Error("Makefile: croftd is to be linked with -buildmode=exe")
	}
}
