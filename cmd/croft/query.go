package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

type queryOptions struct {
	method string
	data   string
	wait   bool
	raw    bool
}

func newQuery(g *global) *cobra.Command {
	var o queryOptions
	cmd := &cobra.Command{
		Use: "query [REMOTE:]PATH", Short: "Send a request to the API", Args: args(1, 1),
		Example: "  croft query /1.0/instances\n  croft query -X DELETE --wait /1.0/instances/web1",
		RunE: func(cmd *cobra.Command, args []string) error {
			return runQuery(cmd.Context(), g, o, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.method, "request", "X", "GET", "HTTP `method`")
	f.StringVarP(&o.data, "data", "d", "", "body of the request; - reads standard input")
	f.BoolVar(&o.wait, "wait", false, "wait for the operation that the request begins")
	f.BoolVar(&o.raw, "raw", false, "print the answer as it came, with its envelope")
	return cmd
}

func runQuery(ctx context.Context, g *global, o queryOptions, arg string) error {
	remote, path := "", arg
	if !strings.HasPrefix(arg, "/") {
		var ok bool
		if remote, path, ok = strings.Cut(arg, ":"); !ok || !strings.HasPrefix(path, "/") {
			return api.Errorf(api.Invalid, "path %q does not begin with a slash", arg)
		}
		remote += ":"
	}
	if o.wait && o.raw {
		return api.Errorf(api.Invalid, "--wait and --raw exclude each other")
	}
	c, _, err := g.target(ctx, remote)
	if err != nil {
		return err
	}
	var body io.Reader
	switch o.data {
	case "":
	case "-":
		body = g.stdin
	default:
		body = strings.NewReader(o.data)
	}
	method := strings.ToUpper(o.method)
	if o.raw {
		return rawQuery(ctx, g, c, method, path, body)
	}
	resp, err := c.Raw(ctx, method, path, body)
	if err != nil {
		return err
	}
	meta := resp.Metadata
	if o.wait && resp.Type == api.TypeAsync {
		if meta, err = waitFor(ctx, c, resp.Operation); err != nil {
			return err
		}
	}
	return printMetadata(g, meta)
}

// waitFor waits for an operation by its path and gives its description.
func waitFor(ctx context.Context, c *client.Client, path string) (json.RawMessage, error) {
	op, err := c.AttachOperation(ctx, path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		return nil, err
	}
	done, err := op.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(done)
}

// printMetadata prints JSON with sorted keys; nothing and {} are not printed.
func printMetadata(g *global, meta json.RawMessage) error {
	var v any
	if len(meta) > 0 {
		dec := json.NewDecoder(bytes.NewReader(meta))
		dec.UseNumber() // large numbers stay exact
		if err := dec.Decode(&v); err != nil {
			return api.Errorf(api.Internal, "answer is not JSON: %w", err)
		}
	}
	if m, ok := v.(map[string]any); v == nil || ok && len(m) == 0 {
		return nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	if err := enc.Encode(v); err != nil {
		return err
	}
	g.printf("%s\n", b.String())
	return nil
}

// rawQuery prints the body of the answer, indented if it is JSON.
func rawQuery(ctx context.Context, g *global, c *client.Client, method, path string, body io.Reader) error {
	resp, err := c.RawHTTP(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		_, err = io.Copy(g.stdout, resp.Body)
		return err
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if json.Indent(&b, bytes.TrimSpace(raw), "", "\t") != nil {
		b.Reset()
		b.Write(raw)
	}
	g.printf("%s\n\n", b.String())
	if resp.StatusCode >= 400 {
		return &exitError{code: 1}
	}
	return nil
}
