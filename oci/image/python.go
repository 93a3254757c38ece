package image

import (
	"archive/tar"
	"cmp"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The names of installed packages' metadata
// (https://packaging.python.org/en/latest/specifications/recording-installed-packages/),
// and those of setuptools before.
var metadataName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([A-Za-z0-9][^-/]*)(?:-(.+?))?(?:-py\d[^-]*)?\.(dist-info|egg-info)$`)
})

var nameSeparators = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[-_.]+`) })

// Normalize returns the name under which a package is known whatever its
// spelling: lower case, with single hyphens.
func Normalize(name string) string {
	return strings.ToLower(nameSeparators().ReplaceAllString(name, "-"))
}

// packages notes the metadata of a package that the entry at p is, or is in.
func (s *recorder) packages(p string, h *tar.Header, r io.Reader) error {
	dir, base := path.Split(p)
	if m := metadataName().FindStringSubmatch(base); m != nil {
		if m[2] == "" && h.Typeflag == tar.TypeReg {
			return s.readMetadata(p, r)
		}
		s.addPackage(p, m[1], m[2])
		return nil
	}
	dir = path.Clean(dir)
	m := metadataName().FindStringSubmatch(path.Base(dir))
	switch {
	case m == nil:
		return nil
	case m[2] != "":
		s.addPackage(dir, m[1], m[2])
		return nil
	case base != "PKG-INFO" || h.Typeflag != tar.TypeReg:
		return nil
	}
	return s.readMetadata(dir, r)
}

// readMetadata takes name and version from the file itself: in a development
// install only that tells them.
func (s *recorder) readMetadata(p string, r io.Reader) error {
	text, err := head(r)
	var name, version string
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(line) == "" {
			break
		}
		switch strings.ToLower(key) {
		case "name":
			name = strings.TrimSpace(value)
		case "version":
			version = strings.TrimSpace(value)
		}
	}
	if name != "" && version != "" {
		s.addPackage(p, name, version)
	}
	return err
}

// addPackage notes a package once.
func (s *recorder) addPackage(p, name, version string) {
	if len(name) > 200 || len(version) > 100 || version == "" {
		return
	}
	if n := len(s.Packages); n > 0 && s.Packages[n-1].Path == p {
		return // the files in it follow one another
	}
	s.Packages = append(s.Packages, recordPackage{p, Normalize(name), version})
	s.facts++
}

// compactPackages leaves each package once, in the order of paths.
func (s *recorder) compactPackages() {
	slices.SortFunc(s.Packages, func(a, b recordPackage) int { return cmp.Compare(a.Path, b.Path) })
	s.Packages = slices.CompactFunc(s.Packages, func(a, b recordPackage) bool { return a.Path == b.Path })
}

// parseVenv reads pyvenv.cfg (https://docs.python.org/3/library/venv.html).
func parseVenv(text string) (v pyenv) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, "=")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "home":
			v.Home = value
		case "include-system-site-packages":
			v.System = strings.EqualFold(value, "true")
		case "version", "version_info":
			v.Version = value
		}
	}
	return v
}

// python is an interpreter in a base.
type python struct {
	bin     string // its directory
	version string // "3.11"
}

func (p python) prefix() string { return path.Dir(p.bin) }

// interpreters are those of the base, by directory.
func (m *merged) interpreters() map[string]python {
	all := map[string]python{}
	for _, p := range slices.Sorted(maps.Keys(m.dirs)) {
		if t := m.dirs[p].Type; !interpreter().MatchString(p) || t != Symlink && t != Other {
			continue
		}
		found := python{bin: path.Dir(p), version: m.versionOf(p)}
		if old, ok := all[found.bin]; !ok || old.version == "" {
			all[found.bin] = found
		}
	}
	return all
}

var pythonVersion = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^python(3\.\d+)$`) })

// versionOf follows the links of an interpreter to the name that tells its
// version, or asks its virtual environment.
func (m *merged) versionOf(p string) string {
	if v, ok := m.venvs[path.Dir(path.Dir(p))]; ok {
		if parts := strings.SplitN(v.Version, ".", 3); len(parts) >= 2 {
			return parts[0] + "." + parts[1]
		}
	}
	for range maxLinks {
		if v := pythonVersion().FindStringSubmatch(path.Base(p)); v != nil {
			return v[1]
		}
		d := m.at(p)
		if d.Type != Symlink {
			break
		}
		dir, err := resolve(path.Dir(p), func(p string) (Dir, bool) { return m.at(p), true })
		if err != nil {
			break
		}
		if p = d.Target; !path.IsAbs(p) {
			p = path.Join(dir, p)
		}
	}
	return ""
}

// candidates are the directories in which the image's interpreter may be, the
// likeliest first: that of what it runs, the active environment's, and PATH's.
func candidates(c v1.ImageConfig) []string {
	var dirs []string
	for _, args := range [][]string{c.Entrypoint, c.Cmd} {
		if len(args) > 0 && path.IsAbs(args[0]) {
			dirs = append(dirs, path.Dir(path.Clean(args[0])))
		}
	}
	if env := envOf(c, "VIRTUAL_ENV"); path.IsAbs(env) {
		dirs = append(dirs, path.Join(env, "bin"))
	}
	search := envOf(c, "PATH")
	if search == "" {
		search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	for dir := range strings.SplitSeq(search, ":") {
		if path.IsAbs(dir) {
			dirs = append(dirs, path.Clean(dir))
		}
	}
	return dirs
}

func envOf(c v1.ImageConfig, name string) string {
	value := ""
	for _, kv := range c.Env {
		if n, v, ok := strings.Cut(kv, "="); ok && n == name {
			value = v
		}
	}
	return value
}

// choose returns the interpreter that the image runs. settled says that the
// layers below will not change that.
func (m *merged) choose(c v1.ImageConfig) (p python, found, settled bool) {
	all := m.interpreters()
	settled = true
	for _, dir := range candidates(c) {
		real, err := resolve(dir, func(p string) (Dir, bool) { return m.at(p), true })
		if err != nil {
			continue
		}
		if p, ok := all[real]; ok && p.version != "" {
			return p, true, settled
		}
		if path.Base(real) == "bin" && !m.settled(path.Join(real, "python3")) {
			settled = false // a layer below may have one
		}
	}
	if len(all) == 1 {
		for _, p := range all {
			return p, p.version != "", false
		}
	}
	return python{}, false, false
}

// sites are the directories from which the interpreter imports, in its order
// (https://docs.python.org/3/library/site.html). Debian's interpreter has
// directories of its own.
func (m *merged) sites(p python, c v1.ImageConfig) []string {
	var dirs []string
	for dir := range strings.SplitSeq(envOf(c, "PYTHONPATH"), ":") {
		if path.IsAbs(dir) {
			dirs = append(dirs, path.Clean(dir))
		}
	}
	if c.User == "" || c.User == "root" || strings.HasPrefix(c.User, "0") || strings.HasPrefix(c.User, "root:") {
		dirs = append(dirs, "/root/.local/lib/python"+p.version+"/site-packages")
	}
	return append(dirs, m.ownSites(p, 0)...)
}

func (m *merged) ownSites(p python, depth int) []string {
	var dirs []string
	prefix := p.prefix()
	for _, lib := range []string{"lib", "lib64"} {
		if prefix == "/usr" {
			dirs = append(dirs, "/usr/local/"+lib+"/python"+p.version+"/dist-packages", "/usr/local/"+lib+"/python"+p.version+"/site-packages")
		}
		dirs = append(dirs, path.Join(prefix, lib, "python"+p.version, "site-packages"))
	}
	if prefix == "/usr" {
		dirs = append(dirs, "/usr/lib/python3/dist-packages", "/usr/lib/python"+p.version+"/dist-packages")
	}
	if v, ok := m.venvs[prefix]; ok && v.System && path.IsAbs(v.Home) && depth < 4 {
		dirs = append(dirs, m.ownSites(python{path.Clean(v.Home), p.version}, depth+1)...)
	}
	return dirs
}

// environment is the Python that runs and what it can import.
func (m *merged) environment(l *Look, c v1.ImageConfig) (settled bool) {
	p, found, settled := m.choose(c)
	l.Python, l.Packages, l.Pythons = "", map[string]string{}, nil
	if !found {
		for _, p := range m.interpreters() {
			l.Pythons = append(l.Pythons, fmt.Sprintf("%s (%s)", p.bin, cmp.Or(p.version, "of unknown version")))
		}
		slices.Sort(l.Pythons)
		return false
	}
	l.Python = p.version
	rank := map[string]int{}
	for n, dir := range m.sites(p, c) {
		real, err := resolve(dir, func(p string) (Dir, bool) { return m.at(p), true })
		if err != nil {
			continue
		}
		if _, ok := rank[real]; !ok {
			rank[real] = n
		}
	}
	best := map[string]int{}
	for _, p := range slices.Sorted(maps.Keys(m.packages)) {
		at, ok := rank[path.Dir(p)]
		pkg := m.packages[p]
		if old, have := best[pkg.Name]; !ok || have && old <= at {
			continue
		}
		best[pkg.Name], l.Packages[pkg.Name] = at, pkg.Version
	}
	return settled
}
