package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

type loginOptions struct {
	username, password string
	passwordStdin      bool
}

func (a *app) loginCmd() *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login REGISTRY",
		Short: "Log in to a registry",
		Long: `Login tries the credentials on the registry and keeps them where docker does:
with the credential helper that docker's config.json names, else in that file,
in plain text. It is the only command that writes credentials.`,
		Example: `  echo "$TOKEN" | galley login ghcr.io -u acme-bot --password-stdin`,
		GroupID: groupMake,
		Args:    exactly("REGISTRY"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.login(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.username, "username", "u", "", "user `name`")
	f.StringVarP(&o.password, "password", "p", "", "`password`; seen by others in the list of processes")
	f.BoolVar(&o.passwordStdin, "password-stdin", false, "read the password from stdin")
	a.registryFlags(f)
	return cmd
}

func (a *app) login(ctx context.Context, registry string, o loginOptions) error {
	if o.password != "" && o.passwordStdin {
		return &usageError{msg: "--password and --password-stdin: want one of them", hint: "galley login --help"}
	}
	if o.password != "" {
		a.warn("a password on the command line is seen by others and kept in the shell's history; use --password-stdin")
	}
	if err := a.askLogin(ctx, &o); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	stored, err := c.Login(ctx, registry, o.username, o.password)
	if err != nil {
		return err
	}
	if stored.Helper == "" {
		a.warn("the password lies in plain text in %s; a credential helper keeps it better", stored.File)
	}
	a.note("logged in to %s", registry)
	return nil
}

// askLogin gets what the flags did not give.
func (a *app) askLogin(ctx context.Context, o *loginOptions) error {
	in := bufio.NewReader(a.in)
	if o.passwordStdin {
		data, err := io.ReadAll(io.LimitReader(in, 1<<20))
		if err != nil {
			return fmt.Errorf("read password: %w", err)
		}
		o.password = strings.TrimRight(string(data), "\r\n")
		if o.password == "" {
			return &usageError{msg: "--password-stdin: stdin is empty"}
		}
	}
	if o.username != "" && o.password != "" || o.passwordStdin {
		return nil
	}
	tty, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		return &usageError{msg: "no password given, and no terminal to ask on", hint: `echo "$TOKEN" | galley login REGISTRY -u USER --password-stdin`}
	}
	return a.prompt(ctx, tty, in, o)
}

// prompt asks on the terminal until ctx is done. A read that is under way then
// stays behind, for nothing can end it; the terminal is as it was.
func (a *app) prompt(ctx context.Context, tty *os.File, in *bufio.Reader, o *loginOptions) error {
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	answer := *o
	go func() { done <- a.ask(tty, in, &answer) }()
	select {
	case err := <-done:
		*o = answer
		return err
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return errors.Join(context.Cause(ctx), term.Restore(int(tty.Fd()), before))
	}
}

func (a *app) ask(tty *os.File, in *bufio.Reader, o *loginOptions) error {
	if o.username == "" {
		fmt.Fprint(a.err, "Username: ")
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read user name: %w", err)
		}
		o.username = strings.TrimSpace(line)
	}
	if o.password == "" {
		fmt.Fprint(a.err, "Password: ")
		secret, err := term.ReadPassword(int(tty.Fd()))
		fmt.Fprintln(a.err)
		if err != nil {
			return fmt.Errorf("read password: %w", err)
		}
		o.password = string(secret)
	}
	return nil
}

func (a *app) logoutCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "logout REGISTRY",
		Short:   "Forget a registry's credentials",
		Example: `  galley logout ghcr.io`,
		GroupID: groupMake,
		Args:    exactly("REGISTRY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if err := c.Logout(cmd.Context(), args[0]); err != nil {
				return err
			}
			a.note("logged out of %s", args[0])
			return nil
		},
	}
	a.registryFlags(cmd.Flags())
	return cmd
}
