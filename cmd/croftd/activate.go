package main

import (
	"github.com/spf13/cobra"

	"github.com/croft-project/croft/internal/daemon"
)

func newActivateIfNeeded() *cobra.Command {
	return &cobra.Command{
		Use: "activateifneeded", Short: "Start the daemon if an instance is to run", Args: noArgs,
		Long: "For hosts on which the daemon is started by the first connection to its socket: connects if instances are to be started with the host.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := stateDir()
			if err != nil {
				return err
			}
			needed, err := daemon.NeedsStart(cmd.Context(), dir)
			if err != nil || !needed {
				return err
			}
			c, err := dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			_, _, err = c.Server(cmd.Context())
			return err
		},
	}
}
