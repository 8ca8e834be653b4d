package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

// logLines is how much of the log --show-log prints.
const logLines = 100

type infoOptions struct {
	showLog   bool
	resources bool
}

func newInfo(g *global) *cobra.Command {
	var o infoOptions
	cmd := &cobra.Command{
		Use: "info [REMOTE:][INSTANCE]", Short: "Show an instance or the server", Args: args(0, 1),
		ValidArgsFunction: g.complete(false, instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.optional(cmd.Context(), args)
			if err != nil {
				return err
			}
			return runInfo(cmd.Context(), g, c, o, name)
		},
	}
	cmd.Flags().BoolVar(&o.showLog, "show-log", false, fmt.Sprintf("show the last %d lines of the instance's log", logLines))
	cmd.Flags().BoolVar(&o.resources, "resources", false, "show the hardware of the server; not supported yet")
	targetFlag(cmd)
	return cmd
}

func runInfo(ctx context.Context, g *global, c *client.Client, o infoOptions, name string) error {
	if o.resources {
		return api.Errorf(api.Unsupported, "--resources is not supported yet")
	}
	if name == "" {
		srv, _, err := c.Server(ctx)
		if err != nil {
			return err
		}
		return g.printYAML(srv)
	}
	inst, _, err := c.Instance(ctx, name)
	if err != nil {
		return err
	}
	state, err := c.InstanceState(ctx, name)
	if err != nil {
		return err
	}
	var b strings.Builder
	writeInfo(&b, inst, state)
	if o.showLog {
		if err := writeLog(ctx, &b, c, name); err != nil {
			return err
		}
	}
	_, err = io.WriteString(g.stdout, b.String())
	return err
}

// writeInfo prints what people want to know about an instance.
func writeInfo(b *strings.Builder, inst api.Instance, st api.InstanceState) {
	fmt.Fprintf(b, "Name: %s\nStatus: %s\n", inst.Name, strings.ToUpper(st.Status))
	kind := inst.Type
	if inst.Ephemeral {
		kind += " (ephemeral)"
	}
	fmt.Fprintf(b, "Type: %s\nArchitecture: %s\n", kind, inst.Architecture)
	if inst.Description != "" {
		fmt.Fprintf(b, "Description: %s\n", inst.Description)
	}
	if st.Pid > 0 {
		fmt.Fprintf(b, "PID: %d\n", st.Pid)
	}
	if t := dateTime(inst.CreatedAt); t != "" {
		fmt.Fprintf(b, "Created: %s\n", t)
	}
	if t := dateTime(inst.LastUsedAt); t != "" {
		fmt.Fprintf(b, "Last Used: %s\n", t)
	}
	if st.Pid > 0 {
		fmt.Fprintf(b, "\nResources:\n")
		writeResources(b, st)
	}
}

func writeResources(b *strings.Builder, st api.InstanceState) {
	if st.Processes > 0 {
		fmt.Fprintf(b, "  Processes: %d\n", st.Processes)
	}
	disks := ""
	for _, name := range slices.Sorted(maps.Keys(st.Disk)) {
		if u := st.Disk[name].Usage; u > 0 {
			disks += fmt.Sprintf("    %s: %s\n", name, iecSize(u))
		}
	}
	section(b, "Disk usage", disks)
	section(b, "CPU usage", fmt.Sprintf("    CPU usage (in seconds): %d\n", st.CPU.Usage/1e9))
	mem := ""
	for _, m := range []struct {
		title string
		bytes int64
	}{
		{"Memory (current)", st.Memory.Usage}, {"Memory (peak)", st.Memory.UsagePeak},
		{"Swap (current)", st.Memory.SwapUsage}, {"Swap (peak)", st.Memory.SwapUsagePeak},
	} {
		if m.bytes > 0 {
			mem += fmt.Sprintf("    %s: %s\n", m.title, iecSize(m.bytes))
		}
	}
	section(b, "Memory usage", mem)
	nets := ""
	for _, name := range slices.Sorted(maps.Keys(st.Network)) {
		nets += interfaceInfo(name, st.Network[name])
	}
	section(b, "Network usage", nets)
}

func section(b *strings.Builder, title, body string) {
	if body != "" {
		fmt.Fprintf(b, "  %s:\n%s", title, body)
	}
}

func interfaceInfo(name string, n api.InstanceStateNetwork) string {
	var b strings.Builder
	line := func(title, value string) {
		if value != "" {
			fmt.Fprintf(&b, "      %s: %s\n", title, value)
		}
	}
	fmt.Fprintf(&b, "    %s:\n", name)
	line("Type", n.Type)
	line("State", strings.ToUpper(n.State))
	line("Host interface", n.HostName)
	line("MAC address", n.Hwaddr)
	if n.Mtu > 0 {
		line("MTU", fmt.Sprint(n.Mtu))
	}
	c := n.Counters
	line("Bytes received", siSize(c.BytesReceived))
	line("Bytes sent", siSize(c.BytesSent))
	line("Packets received", fmt.Sprint(c.PacketsReceived))
	line("Packets sent", fmt.Sprint(c.PacketsSent))
	b.WriteString("      IP addresses:\n")
	for _, a := range n.Addresses {
		fmt.Fprintf(&b, "        %-6s %s/%s (%s)\n", a.Family+":", a.Address, a.Netmask, a.Scope)
	}
	return b.String()
}

// writeLog appends the end of the log of an instance's last start.
func writeLog(ctx context.Context, b *strings.Builder, c *client.Client, name string) error {
	r, err := c.InstanceLog(ctx, name, "lxc.log")
	if err != nil {
		return err
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	if len(lines) > logLines {
		lines = lines[len(lines)-logLines:]
	}
	fmt.Fprintf(b, "\nLog:\n\n%s\n\n", strings.Join(lines, "\n"))
	return nil
}
