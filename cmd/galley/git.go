package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// vcs is what version control says about a project.
type vcs struct {
	revision string // commit; with -dirty when other tracked files differ from it
	source   string // https URL without user info
	commit   time.Time
	note     string // why nothing is known, if something should be
}

// readVCS asks Git about dir, and else the CI's environment. Packed files never
// make a commit dirty: they are what is being versioned here.
func readVCS(ctx context.Context, dir string, packed []string, env func(string) string) vcs {
	v, err := readGit(ctx, dir, packed)
	if err != nil {
		if inCheckout(dir) {
			v.note = err.Error()
		}
		v.revision, v.source = ciRevision(env)
	}
	return v
}

func readGit(ctx context.Context, dir string, packed []string) (vcs, error) {
	head, err := git(ctx, dir, "log", "-1", "--no-show-signature", "--format=%H %ct")
	if err != nil {
		return vcs{}, err
	}
	hash, stamp, _ := strings.Cut(strings.TrimSpace(head), " ")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return vcs{}, fmt.Errorf("git log: commit time %q: %w", stamp, err)
	}
	v := vcs{revision: hash, commit: time.Unix(seconds, 0).UTC()}
	if dirty, err := changed(ctx, dir, packed); err != nil {
		return vcs{}, err
	} else if dirty {
		v.revision += "-dirty"
	}
	if remote, err := git(ctx, dir, "config", "--get", "remote.origin.url"); err == nil {
		v.source = cleanURL(strings.TrimSpace(remote))
	}
	return v, nil
}

// changed reports whether a tracked file other than the packed ones, and what
// they link to, differs from the commit.
func changed(ctx context.Context, dir string, packed []string) (bool, error) {
	top, err := git(ctx, dir, "rev-parse", "--show-toplevel")
	if err != nil {
		return false, err
	}
	top = filepath.FromSlash(strings.TrimSuffix(top, "\n"))
	args := []string{"status", "--porcelain", "--untracked-files=no", "--", ":/"}
	for _, p := range packed {
		for _, name := range namesOf(p) {
			if rel, err := filepath.Rel(top, name); err == nil && filepath.IsLocal(rel) {
				args = append(args, ":(top,exclude,literal)"+filepath.ToSlash(rel))
			}
		}
	}
	out, err := git(ctx, dir, args...)
	return out != "", err
}

// namesOf are the names under which Git may know a file: as it is given, in
// its real directory, and with every link followed.
func namesOf(name string) []string {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil
	}
	names := []string{abs}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		names = append(names, filepath.Join(dir, filepath.Base(abs)))
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		names = append(names, real)
	}
	return names
}

// cleanIn reports which files below dir Git has exactly as they are.
func cleanIn(ctx context.Context, dir string, paths []string) map[string]bool {
	tracked, err := git(ctx, dir, append([]string{"ls-files", "-z", "--"}, literal(paths)...)...)
	if err != nil {
		return nil
	}
	dirty, err := git(ctx, dir, append([]string{"diff", "--name-only", "--relative", "-z", "HEAD", "--"}, literal(paths)...)...)
	if err != nil {
		return nil
	}
	clean := make(map[string]bool)
	for p := range strings.SplitSeq(tracked, "\x00") {
		clean[p] = p != ""
	}
	for p := range strings.SplitSeq(dirty, "\x00") {
		clean[p] = false
	}
	return clean
}

func literal(paths []string) []string {
	var out []string
	for _, p := range paths {
		out = append(out, ":(literal)"+p)
	}
	return out
}

// git runs a read-only git command. Its locks and prompts are off.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"--no-optional-locks", "-C", dir}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return "", errors.New("git is not installed")
	}
	if err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(msg.String()), "\n")
		if first == "" {
			first = err.Error()
		}
		return "", fmt.Errorf("git %s: %s", args[0], strings.TrimPrefix(first, "fatal: "))
	}
	return out.String(), nil
}

// inCheckout reports whether dir or a parent of it has a .git.
func inCheckout(dir string) bool {
	dir, err := filepath.Abs(dir)
	for err == nil {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return false
}

// ciRevision is the commit and its URL where only the CI knows them.
func ciRevision(env func(string) string) (revision, source string) {
	switch {
	case env("GITHUB_SHA") != "":
		if server, repo := env("GITHUB_SERVER_URL"), env("GITHUB_REPOSITORY"); server != "" && repo != "" {
			source = cleanURL(server + "/" + repo)
		}
		return env("GITHUB_SHA"), source
	case env("CI_COMMIT_SHA") != "":
		return env("CI_COMMIT_SHA"), cleanURL(env("CI_PROJECT_URL"))
	}
	return "", ""
}

// cleanURL turns a remote into https://host/path: no user, no token, no .git.
// What is no network URL is nothing.
func cleanURL(remote string) string {
	if !strings.Contains(remote, "://") {
		// scp-like: user@host:path
		host, path, ok := strings.Cut(remote, ":")
		if !ok || strings.ContainsAny(host, `/\`) || len(host) < 2 {
			return ""
		}
		remote = "ssh://" + host + "/" + strings.TrimPrefix(path, "/")
	}
	u, err := url.Parse(remote)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	host := u.Hostname()
	if u.Port() != "" && (u.Scheme == "https" || u.Scheme == "http") {
		host = u.Host
	}
	path := strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git")
	if path == "" {
		return ""
	}
	return (&url.URL{Scheme: "https", Host: host, Path: "/" + path}).String()
}
