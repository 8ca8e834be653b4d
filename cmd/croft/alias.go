package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/croft-project/croft/api"
)

// builtinAliases are the aliases that exist without being defined.
func builtinAliases() map[string]string {
	return map[string]string{"shell": "exec @ARGS@ -- su -l"}
}

// expandAlias replaces the alias that a command line begins with, after global
// flags. The user's own aliases win over built-in ones and over commands; the
// longest name wins among those that fit.
func (g *global) expandAlias(args []string) ([]string, error) {
	start := 0
	for start < len(args) && strings.HasPrefix(args[start], "-") {
		if args[start] == "--project" {
			start++
		}
		start++
	}
	if start >= len(args) || strings.HasPrefix(args[start], "__complete") {
		return args, nil
	}
	conf, err := g.config()
	if err != nil {
		return nil, err
	}
	for _, set := range []map[string]string{conf.Aliases, builtinAliases()} {
		if target, used := findAlias(set, args[start:]); used > 0 {
			words, err := splitWords(target)
			if err != nil {
				return nil, err
			}
			out := append(slices.Clone(args[:start]), fillAlias(words, args[start+used:])...)
			return out, nil
		}
	}
	return args, nil
}

// findAlias finds the longest alias whose words args begin with.
func findAlias(aliases map[string]string, args []string) (target string, used int) {
	for name, t := range aliases {
		words := strings.Fields(name)
		if len(words) > used && len(words) <= len(args) && slices.Equal(words, args[:len(words)]) {
			target, used = t, len(words)
		}
	}
	return target, used
}

// fillAlias puts the remaining arguments where @ARGS@ stands, or at the end.
func fillAlias(words, rest []string) []string {
	var out []string
	filled := false
	for _, w := range words {
		if w == "@ARGS@" {
			out, filled = append(out, rest...), true
			continue
		}
		out = append(out, w)
	}
	if !filled {
		out = append(out, rest...)
	}
	return out
}

// splitWords splits a line as a shell does: blanks separate, quotes join and a
// backslash takes the next character as it is (not within single quotes).
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote, escaped := false, rune(0), false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, api.Errorf(api.Invalid, "alias target %q has an open quote or a trailing backslash", line)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

func newAlias(g *global) *cobra.Command {
	return group("alias", "Manage command aliases", newAliasAdd(g), newAliasList(g), newAliasRemove(g), newAliasRename(g))
}

func newAliasAdd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "add ALIAS TARGET", Short: "Add an alias", Args: args(2, 2),
		Example: `  croft alias add ls2 "list -c ns"`,
		RunE:    func(_ *cobra.Command, args []string) error { return runAliasAdd(g, args[0], args[1]) },
	}
}

func runAliasAdd(g *global, name, target string) error {
	conf, err := g.config()
	if err != nil {
		return err
	}
	if len(strings.Fields(name)) == 0 {
		return api.Errorf(api.Invalid, "alias name is empty")
	}
	if _, ok := conf.Aliases[name]; ok {
		return api.Errorf(api.Conflict, "alias %q exists already", name)
	}
	if _, err := splitWords(target); err != nil {
		return err
	}
	conf.Aliases[name] = target
	return g.saveConfig()
}

func newAliasList(g *global) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List aliases", Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			conf, err := g.config()
			if err != nil {
				return err
			}
			t := table{header: []string{"ALIAS", "TARGET"}, data: conf.Aliases}
			for name, target := range conf.Aliases {
				t.add(name, target)
			}
			return g.render(format, t)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func newAliasRemove(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "remove ALIAS", Aliases: []string{"rm"}, Short: "Remove an alias", Args: args(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			conf, err := g.aliasConfig(args[0])
			if err != nil {
				return err
			}
			delete(conf.Aliases, args[0])
			return g.saveConfig()
		},
	}
}

func newAliasRename(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "rename ALIAS NEW-NAME", Aliases: []string{"mv"}, Short: "Rename an alias", Args: args(2, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			conf, err := g.aliasConfig(args[0])
			if err != nil {
				return err
			}
			if _, ok := conf.Aliases[args[1]]; ok {
				return api.Errorf(api.Conflict, "alias %q exists already", args[1])
			}
			conf.Aliases[args[1]] = conf.Aliases[args[0]]
			delete(conf.Aliases, args[0])
			return g.saveConfig()
		},
	}
}

// aliasConfig is the configuration, if it has the alias.
func (g *global) aliasConfig(name string) (*config, error) {
	conf, err := g.config()
	if err != nil {
		return nil, err
	}
	if _, ok := conf.Aliases[name]; !ok {
		return nil, api.Errorf(api.NotFound, "alias %q does not exist", name)
	}
	return conf, nil
}
