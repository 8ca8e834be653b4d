package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// newRoot builds the command tree. A new command is one line here.
func newRoot(g *global) *cobra.Command {
	root := &cobra.Command{
		Use:   "croft",
		Short: "Command-line client of the Croft container manager",
		Long: `Command-line client of the Croft container manager

Croft runs system containers: complete Linux machines with their own init,
services, users and logs. Exit codes: 0 success, 1 failure, 130 interrupted;
"croft exec" passes on the exit code of the command.

The server is the one whose state directory CROFT_DIR (or LXD_DIR) names,
/var/lib/croft by default. CROFT_CONF (or LXD_CONF) names the directory of
the client's own configuration.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Args:              cobra.NoArgs,
		Version:           version,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpFunc(printHelp)
	f := root.PersistentFlags()
	f.StringVar(&g.project, "project", "", "use this project instead of the default one")
	f.BoolVar(&g.forceLocal, "force-local", false, "use the local unix socket, whatever the default remote is")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "show no progress information")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "show what is being done")
	f.BoolVar(&g.debug, "debug", false, "show all debug messages")
	f.BoolP("help", "h", false, "print help")
	f.Bool("version", false, "print the version number")
	root.AddCommand(
		newAlias(g), newConfig(g), newDelete(g), newExec(g), newFile(g), newGenDocs(root), newImage(g), newInfo(g),
		newInit(g), newLaunch(g), newList(g), newMonitor(g), newNetwork(g), newOperation(g), newPause(g),
		newProfile(g), newQuery(g), newRename(g), newRestart(g), newStart(g), newStop(g), newStorage(g),
		newVersion(g), newWait(g),
	)
	return root
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(subs...)
	return cmd
}

// args wants between low and high arguments; high < 0 is no limit. Without any
// argument a command that needs some prints its help.
func args(low, high int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0 && low > 0:
			return &usageError{}
		case len(args) < low || high >= 0 && len(args) > high:
			return &usageError{message: "invalid number of arguments"}
		}
		return nil
	}
}

// printHelp prints the description and the usage of a command.
func printHelp(cmd *cobra.Command, _ []string) {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	cmd.Printf("Description:\n%s\n\n%s", indent(text), cmd.UsageString())
}

// indent sets every line that is not empty two columns in.
func indent(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = "  " + l
		}
	}
	return strings.Join(lines, "\n")
}

const usageTemplate = `Usage:{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]{{else}}
  {{.UseLine}}{{end}}{{if .Aliases}}

Aliases:
  {{.NameAndAliases}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Available Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global Flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

Use "{{.CommandPath}} [command] --help" for more information about a command.{{end}}
`
