package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"galley/manifest"
	"galley/oci/image"
)

// imageFlags say what is in the image, and how it runs.
type imageFlags struct {
	dest, entrypoint, cmd, user string
	chown, chmod, created       string
	setEntrypoint, setCmd       bool
	env, labels, annotations    []string
	copy, noLook                bool
}

func (o *imageFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&o.dest, "dest", "", "`directory` in which the app looks for the model (the working directory)")
	f.BoolVar(&o.copy, "copy", false, "write the model's files there, not links: their bytes move")
	f.BoolVar(&o.noLook, "no-look", false, "do not look into the base: write to /models and /data only")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set a variable: `NAME=VALUE`")
	f.StringArrayVar(&o.labels, "label", nil, "add a label: `key=value`")
	f.StringArrayVarP(&o.annotations, "annotation", "a", nil, "add `key=value` to the manifest's annotations")
	f.StringVar(&o.entrypoint, "entrypoint", "", "`command` as in a Dockerfile: a JSON array, or words for a shell")
	f.StringVar(&o.cmd, "cmd", "", "`command` or arguments as in a Dockerfile")
	f.StringVar(&o.user, "user", "", "`user` that runs it")
	f.StringVar(&o.chown, "chown", "", "`uid:gid` of what bake writes; of the model with --copy")
	f.StringVar(&o.chmod, "chmod", "", "octal `mode` of the files that bake writes; of the model with --copy")
	f.StringVar(&o.created, "created", "", "creation `time`, RFC 3339 (SOURCE_DATE_EPOCH, else the base's)")
}

// options reads the flags.
func (o *imageFlags) options(a *app) (io image.Options, err error) {
	io = image.Options{Dest: o.dest, Copy: o.copy, NoLook: o.noLook, Env: o.env, User: o.user}
	for _, kv := range o.env {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" {
			return io, &usageError{msg: fmt.Sprintf("--env %q: want NAME=VALUE", kv)}
		}
	}
	if io.Labels, err = unreserved("--label", o.labels); err != nil {
		return io, err
	}
	if io.Annotations, err = unreserved("--annotation", o.annotations); err != nil {
		return io, err
	}
	if o.setEntrypoint {
		if io.Entrypoint, err = commandLine("--entrypoint", o.entrypoint); err != nil {
			return io, err
		}
	}
	if o.setCmd {
		if io.Cmd, err = commandLine("--cmd", o.cmd); err != nil {
			return io, err
		}
	}
	if io.UID, io.GID, err = owner(o.chown); err != nil {
		return io, err
	}
	if o.chmod != "" {
		if io.Chmod, err = strconv.ParseInt(o.chmod, 8, 32); err != nil || io.Chmod <= 0 || io.Chmod > 0o7777 {
			return io, &usageError{msg: fmt.Sprintf("--chmod %q: want an octal mode as in 0644", o.chmod)}
		}
	}
	io.Created, err = a.created(o.created)
	return io, err
}

// unreserved reads key=value, of which galley's own keys are not to be had.
func unreserved(flag string, list []string) (map[string]string, error) {
	m := make(map[string]string)
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, &usageError{msg: fmt.Sprintf("%s %q: want key=value", flag, s)}
		}
		if strings.HasPrefix(k, manifest.AnnotationPrefix) {
			return nil, fmt.Errorf("%s %q: %w", flag, s, manifest.ErrReserved)
		}
		m[k] = v
	}
	return m, nil
}

// commandLine reads a command as a Dockerfile has it: a JSON array is taken as
// it is, anything else is for a shell, and nothing is none.
func commandLine(flag, s string) ([]string, error) {
	text := strings.TrimSpace(s)
	if text == "" {
		return []string{}, nil
	}
	if text[0] != '[' {
		return []string{"/bin/sh", "-c", s}, nil
	}
	args := []string{}
	if err := json.Unmarshal([]byte(text), &args); err != nil {
		return nil, &usageError{msg: fmt.Sprintf(`%s %q: want ["program", "argument"], or words for a shell`, flag, s)}
	}
	return args, nil
}

// owner reads uid[:gid].
func owner(s string) (uid, gid int, err error) {
	if s == "" {
		return 0, 0, nil
	}
	u, g, both := strings.Cut(s, ":")
	if !both {
		g = u
	}
	id, err1 := strconv.ParseUint(u, 10, 31)
	group, err2 := strconv.ParseUint(g, 10, 31)
	if err1 != nil || err2 != nil {
		return 0, 0, &usageError{msg: fmt.Sprintf("--chown %q: want numbers as in 1000:1000; the names are in the image's /etc/passwd", s)}
	}
	return int(id), int(group), nil
}
