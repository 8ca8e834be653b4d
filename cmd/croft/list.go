package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

const (
	defaultColumns = "ns46tS"
	fastColumns    = "nsacPt"
)

type listOptions struct {
	columns     string
	format      string
	fast        bool
	allProjects bool
}

func newList(g *global) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use: "list [REMOTE:] [FILTER...]", Aliases: []string{"ls"}, Short: "List instances", Args: args(0, -1),
		Long: listHelp,
		Example: `  croft list -c nFs46,volatile.eth0.hwaddr:MAC,config:image.os,devices:eth0.parent:ETHP
  croft list -c ns,user.comment:comment
  croft list status=running user.role=web`,
		ValidArgsFunction: g.complete(true, instanceNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return runList(cmd.Context(), g, o, args) },
	}
	cmd.Flags().StringVarP(&o.columns, "columns", "c", defaultColumns, "columns, see above")
	cmd.Flags().BoolVar(&o.fast, "fast", false, "leave out what is slow to find out; the same as --columns="+fastColumns)
	cmd.Flags().BoolVar(&o.allProjects, "all-projects", false, "list the instances of all projects")
	formatFlag(cmd, &o.format)
	return cmd
}

func runList(ctx context.Context, g *global, o listOptions, args []string) error {
	if err := checkFormat(o.format); err != nil {
		return err
	}
	if o.fast {
		o.columns = fastColumns
	}
	if o.allProjects && o.columns == defaultColumns {
		o.columns = "e" + o.columns
	}
	cols, err := parseColumns(o.columns)
	if err != nil {
		return err
	}
	c, args, err := g.listTarget(ctx, args)
	if err != nil {
		return err
	}
	filters, err := parseFilters(args)
	if err != nil {
		return err
	}
	live := needsState(cols) || needsStateFilter(filters) || o.format == formatJSON || o.format == formatYAML
	all, err := fetchInstances(ctx, c, client.InstanceFilter{AllProjects: o.allProjects}, live)
	if err != nil {
		return err
	}
	return g.render(o.format, listTable(cols, selectInstances(all, filters)))
}

// fetchInstances gets the instances, with their state only when it is needed.
func fetchInstances(ctx context.Context, c *client.Client, f client.InstanceFilter, live bool) ([]api.InstanceFull, error) {
	if live {
		return c.InstancesFull(ctx, f)
	}
	plain, err := c.Instances(ctx, f)
	full := make([]api.InstanceFull, len(plain))
	for i := range plain {
		full[i].Instance = plain[i]
	}
	return full, err
}

func listTable(cols []column, instances []api.InstanceFull) table {
	t := table{data: instances}
	for _, col := range cols {
		t.header = append(t.header, col.title)
	}
	for i := range instances {
		row := make([]string, len(cols))
		for j, col := range cols {
			row[j] = col.value(&instances[i])
		}
		t.add(row...)
	}
	return t
}

const listHelp = `List instances

Filters:
  web                 names that begin with "web"
  .*web.*01$          names that match a regular expression
  user.role=web       instances whose (expanded) configuration says so; each part
                      of the key may be shortened to a prefix (u.role=web) and the
                      value may be a regular expression
  type=container      also status=, architecture=, location=, ipv4= and ipv6=
                      (address or CIDR); several values are separated by commas
All filters must fit.

Columns (-c), with or without commas between letters:
  n name                   s state                t type (and ephemeral)
  4 IPv4 addresses         6 IPv6 addresses       S number of snapshots
  a architecture           b storage pool         c creation date
  d description            D disk usage           e project
  f fingerprint of image   F the same, in full    l date of last use
  m memory usage           M memory usage in %    N number of processes
  p pid of init            P profiles             u CPU usage in seconds
  L location, for clusters
  [config:|devices:]KEY[:TITLE[:WIDTH]]  a configuration or device key

The default is ` + defaultColumns + `, with --fast ` + fastColumns + `.`
