package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// atOnce bounds how many instances are changed at the same time.
const atOnce = 10

// changeState asks for a change of power state and waits for it.
func (g *global) changeState(ctx context.Context, c *client.Client, name string, put api.InstanceStatePut) error {
	op, err := c.SetInstanceState(ctx, name, put, "")
	if err == nil {
		_, err = g.wait(ctx, op, put.Action+" "+name)
	}
	if put.Action == "start" && api.KindOf(err) == api.Internal && api.HintOf(err) == "" && err != nil && ctx.Err() == nil {
		return withHint(err, "croft info --show-log %s shows what happened", name)
	}
	return err
}

// withHint adds a hint to an error that has none.
func withHint(err error, format string, a ...any) error {
	return api.Errorf(api.KindOf(err), "%w", err).WithHint(format, a...)
}

// instanceArgs wants instance names, or --all and none.
func instanceArgs(all *bool) cobra.PositionalArgs {
	return func(cmd *cobra.Command, names []string) error {
		if *all && len(names) > 0 {
			return api.Errorf(api.Invalid, "--all and names (%q) exclude each other", names[0])
		}
		if *all {
			return nil
		}
		return args(1, -1)(cmd, names)
	}
}

// allInstances are the names of the instances that want is true for.
func (g *global) allInstances(ctx context.Context, want func(api.Instance) bool) ([]string, error) {
	c, _, err := g.target(ctx, "")
	if err != nil {
		return nil, err
	}
	list, err := c.Instances(ctx, client.InstanceFilter{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, i := range list {
		if want(i) {
			out = append(out, i.Name)
		}
	}
	return out, nil
}

// eachInstance runs fn for every name, several at once. A single name gives its
// own error; of several, each failure is printed in the order of the names and
// the error says that there were some.
func (g *global) eachInstance(ctx context.Context, names []string, what string,
	fn func(context.Context, *client.Client, string) error) error {
	run := func(arg string) error {
		c, name, err := g.object(ctx, "instance", arg)
		if err != nil {
			return err
		}
		return fn(ctx, c, name)
	}
	if len(names) == 1 {
		return run(names[0])
	}
	if _, _, err := g.target(ctx, ""); err != nil { // connect once, before the goroutines
		return err
	}
	g.quiet = true // several progress lines would overwrite each other
	errs := make([]error, len(names))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, arg := range names {
		group.Go(func() error {
			errs[i] = run(arg)
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs
	return g.reportEach(names, errs, what)
}

// reportEach prints the errors of several names.
func (g *global) reportEach(names []string, errs []error, what string) error {
	failed := false
	for i, err := range errs {
		if err == nil {
			continue
		}
		failed = true
		fmt.Fprintf(g.stderr, "%s: error: %s\n", names[i], err)
		if hint := hintOf(err); hint != "" {
			fmt.Fprintf(g.stderr, "Hint: %s\n", hint)
		}
	}
	if !failed {
		return nil
	}
	fmt.Fprintln(g.stderr)
	return api.Errorf(api.Internal, "some instances could not be %s", what)
}

// onceEach drops repeated names, keeping the order.
func onceEach(names []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

// consoleFlag accepts --console, which attaching to the console will use.
func consoleFlag(cmd *cobra.Command) {
	cmd.Flags().String("console", "", "attach to the console at once; not supported yet")
	cmd.Flags().Lookup("console").NoOptDefVal = "console"
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("console") {
			return api.Errorf(api.Unsupported, "--console: attaching to the console is not supported yet")
		}
		return inner(cmd, args)
	}
}
