package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
	"github.com/croft-project/croft/client"
)

func newProfile(g *global) *cobra.Command {
	cmd := group("profile", "Manage profiles",
		newProfileAdd(g), newProfileAssign(g), newProfileCopy(g), newProfileCreate(g), newProfileDelete(g),
		newDevice(g, "profile", loadProfile, profileNames), newProfileEdit(g), newProfileList(g),
		newProfileRemove(g), newProfileRename(g), newProfileShow(g))
	cmd.AddCommand(keyCommands(g, "profile", loadProfile, profileNames)...)
	return cmd
}

// profileCommand is a command about one profile that exists.
func profileCommand(g *global, use, short string, run func(context.Context, *client.Client, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args(1, 1), ValidArgsFunction: g.complete(false, profileNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.object(cmd.Context(), "profile", args[0])
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, name)
		},
	}
}

// changeProfiles is a command that changes the list of an instance's profiles.
func changeProfiles(g *global, use, short string, change func(api.Instance, string) ([]string, error), said string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args(2, 2), ValidArgsFunction: g.complete(false, instanceNames, profileNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, name, err := g.object(ctx, "instance", args[0])
			if err != nil {
				return err
			}
			inst, etag, err := c.Instance(ctx, name)
			if err != nil {
				return err
			}
			if inst.Profiles, err = change(inst, args[1]); err != nil {
				return err
			}
			if err := g.updateInstance(ctx, c, name, inst.InstancePut, etag); err != nil {
				return err
			}
			what := args[1]
			if what == "" {
				what = "(none)"
			}
			g.say(said, what, name)
			return nil
		},
	}
}

func newProfileAdd(g *global) *cobra.Command {
	return changeProfiles(g, "add [REMOTE:]INSTANCE PROFILE", "Add a profile to an instance",
		func(inst api.Instance, profile string) ([]string, error) {
			if slices.Contains(inst.Profiles, profile) {
				return nil, api.Errorf(api.Conflict, "instance %s uses profile %s already", inst.Name, profile)
			}
			return append(inst.Profiles, profile), nil
		}, "Profile %s added to %s")
}

func newProfileAssign(g *global) *cobra.Command {
	cmd := changeProfiles(g, "assign [REMOTE:]INSTANCE PROFILE,...", "Replace the profiles of an instance",
		func(_ api.Instance, profiles string) ([]string, error) {
			if profiles == "" {
				return []string{}, nil
			}
			return strings.Split(profiles, ","), nil
		}, "Profiles %s applied to %s")
	cmd.Aliases = []string{"apply"}
	cmd.Example = "  croft profile assign web1 default,docker\n  croft profile assign web1 ''      uses no profile at all"
	return cmd
}

func newProfileRemove(g *global) *cobra.Command {
	return changeProfiles(g, "remove [REMOTE:]INSTANCE PROFILE", "Remove a profile from an instance",
		func(inst api.Instance, profile string) ([]string, error) {
			i := slices.Index(inst.Profiles, profile)
			if i < 0 {
				return nil, api.Errorf(api.Invalid, "instance %s does not use profile %s", inst.Name, profile)
			}
			return slices.Delete(inst.Profiles, i, i+1), nil
		}, "Profile %s removed from %s")
}

func newProfileCopy(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "copy [REMOTE:]PROFILE NEW-NAME", Aliases: []string{"cp"}, Short: "Copy a profile", Args: args(2, 2),
		ValidArgsFunction: g.complete(false, profileNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.object(cmd.Context(), "profile", args[0])
			if err != nil {
				return err
			}
			to, err := g.sameRemote(args[0], args[1])
			if err != nil {
				return err
			}
			p, _, err := c.Profile(cmd.Context(), name)
			if err != nil {
				return err
			}
			return c.CreateProfile(cmd.Context(), api.ProfilesPost{Name: to, ProfilePut: p.ProfilePut})
		},
	}
}

func newProfileCreate(g *global) *cobra.Command {
	cmd := profileCommand(g, "create [REMOTE:]PROFILE", "Create a profile",
		func(ctx context.Context, c *client.Client, name string) error {
			err := c.CreateProfile(ctx, api.ProfilesPost{Name: name})
			if err == nil {
				g.say("Profile %s created", name)
			}
			return err
		})
	cmd.ValidArgsFunction = nil
	return cmd
}

func newProfileDelete(g *global) *cobra.Command {
	cmd := profileCommand(g, "delete [REMOTE:]PROFILE", "Delete a profile",
		func(ctx context.Context, c *client.Client, name string) error {
			err := c.DeleteProfile(ctx, name)
			if err == nil {
				g.say("Profile %s deleted", name)
			}
			return err
		})
	cmd.Aliases = []string{"rm"}
	return cmd
}

func newProfileEdit(g *global) *cobra.Command {
	cmd := profileCommand(g, "edit [REMOTE:]PROFILE", "Edit a profile as YAML",
		func(ctx context.Context, c *client.Client, name string) error {
			p, etag, err := c.Profile(ctx, name)
			if err != nil {
				return err
			}
			return editYAML(ctx, g, "profile "+name, p.ProfilePut, func(put api.ProfilePut) error {
				return c.UpdateProfile(ctx, name, put, etag)
			})
		})
	cmd.Example = "  croft profile edit web < web.yaml"
	return cmd
}

func newProfileList(g *global) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List profiles", Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := g.optional(cmd.Context(), args)
			if err != nil {
				return err
			}
			profiles, err := c.Profiles(cmd.Context())
			if err != nil {
				return err
			}
			t := table{header: []string{"NAME", "DESCRIPTION", "USED BY"}, data: profiles}
			for _, p := range profiles {
				t.add(p.Name, p.Description, strconv.Itoa(len(p.UsedBy)))
			}
			return g.render(format, t)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func newProfileRename(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "rename [REMOTE:]PROFILE NEW-NAME", Aliases: []string{"mv"}, Short: "Rename a profile", Args: args(2, 2),
		ValidArgsFunction: g.complete(false, profileNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := g.object(cmd.Context(), "profile", args[0])
			if err != nil {
				return err
			}
			if err := c.RenameProfile(cmd.Context(), name, args[1]); err != nil {
				return fmt.Errorf("rename profile %s: %w", name, err)
			}
			g.say("Profile %s renamed to %s", name, args[1])
			return nil
		},
	}
}

func newProfileShow(g *global) *cobra.Command {
	return profileCommand(g, "show [REMOTE:]PROFILE", "Show a profile as YAML",
		func(ctx context.Context, c *client.Client, name string) error {
			p, _, err := c.Profile(ctx, name)
			if err != nil {
				return err
			}
			return g.printYAML(p)
		})
}
