package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/croft-project/croft/api"
)

// maxYAML bounds what is read as YAML from standard input.
const maxYAML = 16 << 20

// editYAML lets the user change a value as YAML and applies the result. With a
// terminal an editor is started, again after each mistake; otherwise the YAML
// comes from standard input.
func editYAML[T any](ctx context.Context, g *global, what string, current T, apply func(T) error) error {
	applyRaw := func(raw []byte) error {
		var v T
		if err := yaml.Unmarshal(raw, &v); err != nil {
			return api.Errorf(api.Invalid, "%s is not valid YAML: %w", what, err)
		}
		return apply(v)
	}
	if !g.stdinTerminal() {
		raw, err := g.readStdin()
		if err != nil {
			return err
		}
		return applyRaw(raw)
	}
	body, err := yamlBytes(current)
	if err != nil {
		return err
	}
	head := fmt.Sprintf("# This is %s.\n# Lines that begin with # are ignored. Leave the file as it is to change nothing.\n\n", what)
	return g.editLoop(ctx, append([]byte(head), body...), applyRaw)
}

func (g *global) readStdin() ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(g.stdin, maxYAML+1))
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	if len(raw) > maxYAML {
		return nil, api.Errorf(api.TooLarge, "standard input is longer than %d bytes", maxYAML)
	}
	return raw, nil
}

// editLoop opens the editor until the text is accepted or the user gives up.
func (g *global) editLoop(ctx context.Context, text []byte, apply func([]byte) error) error {
	for {
		edited, err := g.editText(ctx, text, ".yaml")
		if err != nil || bytes.Equal(edited, text) {
			return err
		}
		err = apply(edited)
		if err == nil {
			return nil
		}
		fmt.Fprintf(g.stderr, "Error: %s\nPress enter to edit again, Ctrl-C to give up.\n", err)
		if _, rerr := bufio.NewReader(g.stdin).ReadString('\n'); rerr != nil || ctx.Err() != nil {
			return err
		}
		text = edited
	}
}

// editText runs the user's editor on a private copy of text.
func (g *global) editText(ctx context.Context, text []byte, suffix string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "croft-edit-")
	if err != nil {
		return nil, fmt.Errorf("edit: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "edit"+suffix)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("edit: %w", err)
	}
	if err := g.runEditor(ctx, file); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

func (g *global) runEditor(ctx context.Context, file string) error {
	editor := g.getenv("VISUAL", "EDITOR")
	if editor == "" {
		for _, e := range []string{"editor", "vi", "nano"} {
			if _, err := exec.LookPath(e); err == nil {
				editor = e
				break
			}
		}
	}
	words := strings.Fields(editor)
	if len(words) == 0 {
		return api.Errorf(api.Unsupported, "no editor found").WithHint("set EDITOR, or give the YAML on standard input")
	}
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], file)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = g.stdin, g.stdout, g.stderr
	if err := cmd.Run(); err != nil {
		return api.Errorf(api.Invalid, "editor %s failed: %w", words[0], err)
	}
	return nil
}
