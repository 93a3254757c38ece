package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"galley/oci"
	"galley/oci/serve"
)

type serveOptions struct {
	addr, htpasswd string
	readOnly       bool
}

func (a *app) serveCmd() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the local registry over HTTP",
		Long: `Serve puts the local registry on a port, for docker, oras, kubelet and galley on
other machines. Commands and other servers may use the same directory meanwhile,
and nothing that was acknowledged is lost however it ends.

It speaks plain HTTP. Any program on this machine may read and write; for others
a login or --read-only is needed, and TLS is left to a proxy in front. Without a
login it answers on the loopback only to localhost and to the host of --addr, so
that no web page reaches it under another name.`,
		Example: `  galley serve
  galley serve --addr 0.0.0.0:5117 --read-only
  galley serve --addr 0.0.0.0:5117 --htpasswd users`,
		GroupID: groupMake,
		Args:    none,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:5117", "`host:port` to listen on")
	f.BoolVar(&o.readOnly, "read-only", false, "refuse everything that would write")
	f.StringVar(&o.htpasswd, "htpasswd", "", "let in only the users of this `file`, as htpasswd -B makes it")
	return cmd
}

// command is the command line at another address, with further flags.
func (o serveOptions) command(addr string, flags ...string) string {
	if o.readOnly {
		flags = append(flags, "--read-only")
	}
	if o.htpasswd != "" {
		flags = append(flags, "--htpasswd", shellWord(o.htpasswd))
	}
	return strings.Join(append([]string{"galley serve --addr", shellWord(addr)}, flags...), " ")
}

func (a *app) serve(ctx context.Context, o serveOptions) error {
	host, port, err := net.SplitHostPort(o.addr)
	if err != nil {
		return &usageError{msg: fmt.Sprintf("serve on %q: want HOST:PORT", o.addr), hint: "galley serve --addr 127.0.0.1:5117"}
	}
	root, err := oci.LocalRoot(a.env)
	if err != nil {
		return err
	}
	if root, err = filepath.Abs(root); err != nil {
		return err
	}
	if err := serve.Check(root); err != nil {
		return err
	}
	so := serve.Options{Addr: o.addr, ReadOnly: o.readOnly, Log: a.serveLog()}
	if o.htpasswd != "" {
		if so.Users, err = readUsers(o.htpasswd); err != nil {
			return err
		}
	}
	l, err := serve.Listen(ctx, o.addr, so)
	switch {
	case errors.Is(err, serve.ErrOpen):
		return &hinted{
			&usageError{msg: fmt.Sprintf("serve on %q: other machines could write without a login", o.addr)},
			[]string{o.command(o.addr, "--read-only"), o.command(o.addr, "--htpasswd", "users")},
		}
	case errors.Is(err, serve.ErrTaken):
		return &hinted{err, []string{o.command(net.JoinHostPort(host, nextPort(port)))}}
	case err != nil:
		return err
	}
	a.note("listening on http://%s, serving %s", l.Addr(), root)
	return serve.Run(ctx, l, serve.New(root, so), so.Log)
}

// serveLog is where a server's troubles go, for nobody else sees them.
func (a *app) serveLog() *slog.Logger {
	level := slog.LevelWarn
	if a.flags.debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}

func readUsers(name string) (*serve.Users, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	users, err := serve.ParseUsers(f)
	if err != nil {
		return nil, fmt.Errorf("read users %q: %w", name, err)
	}
	return users, nil
}

// nextPort is a port worth trying when this one is taken.
func nextPort(port string) string {
	n, err := strconv.Atoi(port)
	if err != nil || n >= 65535 {
		return "5118"
	}
	return strconv.Itoa(n + 1)
}
