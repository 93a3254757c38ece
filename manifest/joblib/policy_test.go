package joblib

import (
	"slices"
	"strings"
	"testing"
)

// TestPolicy holds the tables to what the code takes for granted.
func TestPolicy(t *testing.T) {
	t.Parallel()
	p := thePolicy()
	for _, table := range []struct {
		name      string
		got, want int
	}{
		{"allow.txt", len(p.allow), 1700}, {"deny.txt", len(p.deny), 400}, {"stdlib.txt", len(p.stdlib), 400},
		{"python2.txt", len(p.modules) + len(p.names), 100}, {"packages.txt", len(p.packages), 100},
	} {
		if table.got < table.want {
			t.Errorf("%s: %d records, want at least %d", table.name, table.got, table.want)
		}
	}
	records(allowText, func(f []string) {
		switch {
		case len(f) != 5:
			t.Errorf("allow.txt: %q", f)
		case strings.Trim(f[2], "NCVDL") != "" || f[2] == "":
			t.Errorf("%s:%s: uses %q", f[0], f[1], f[2])
		case strings.Contains(f[2], "C") && argumentRules[f[3]] == nil:
			t.Errorf("%s:%s is called by no known rule: %q", f[0], f[1], f[3])
		case f[3] != "-" && argumentRules[f[3]] == nil && stateRules[f[3]] == nil:
			t.Errorf("%s:%s: unknown rule %q", f[0], f[1], f[3])
		case !isName(f[0]) || !isName(f[1]) || strings.Contains(f[1], "."):
			t.Errorf("%s:%s is no name", f[0], f[1])
		}
	})
	used := make(map[string]bool)
	records(allowText, func(f []string) { used[f[3]] = true })
	for rule := range argumentRules {
		if !used[rule] {
			t.Errorf("no global uses the rule %s", rule)
		}
	}
}

// TestPolicyOverrules pins what is allowed in spite of what is denied around
// it: each is a decision.
func TestPolicyOverrules(t *testing.T) {
	t.Parallel()
	p := thePolicy()
	var got []string
	for name := range p.allow {
		if _, denied := p.denied(name[0], name[1]); denied {
			got = append(got, name[0]+":"+name[1])
		}
	}
	slices.Sort(got)
	want := []string{
		"builtins:getattr",  // scipy's discrete distributions keep a method of their own
		"functools:partial", // HistGradientBoosting keeps one of check_array
		"joblib.numpy_pickle:NumpyArrayWrapper",
		"numpy:vectorize", // around that method
		"pathlib._local:PosixPath", "pathlib._local:PurePosixPath", "pathlib._local:PureWindowsPath", "pathlib._local:WindowsPath",
		"pathlib:PosixPath", "pathlib:PurePosixPath", "pathlib:PureWindowsPath", "pathlib:WindowsPath", // made of text alone
		"scipy._lib.array_api_compat.numpy._aliases:asarray", // SplineTransformer
		"sklearn.externals.joblib.numpy_pickle:NumpyArrayWrapper",
		"sklearn.utils.deprecation:DeprecationDict",
		"sklearn.utils.validation:check_array",
		"uuid:UUID",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestPython2 reads names of Python 2 as unpicklers do.
func TestPython2(t *testing.T) {
	t.Parallel()
	for _, c := range [][4]string{
		{"__builtin__", "eval", "builtins", "eval"},
		{"__builtin__", "xrange", "builtins", "range"},
		{"copy_reg", "_reconstructor", "copyreg", "_reconstructor"},
		{"commands", "getoutput", "subprocess", "getoutput"},
		{"urllib2", "urlopen", "urllib.request", "urlopen"},
		{"sklearn.svm.classes", "SVC", "sklearn.svm.classes", "SVC"},
	} {
		if module, name := thePolicy().python3(c[0], c[1]); module != c[2] || name != c[3] {
			t.Errorf("%s.%s: got %s.%s", c[0], c[1], module, name)
		}
	}
}

func TestCheckAllow(t *testing.T) {
	t.Parallel()
	for s, ok := range map[string]bool{
		"acme.features:Clip": true, "__main__:Clip": true, "collections:UserDict": true,
		"posix:system": false, "os:path": false, "numpy:load": false, "joblib.memory:Memory": false, "acme:a.b": false,
		"acme": false, ":": false, "acme:": false, "acme.*:x": false, "acme:*": false, "": false,
	} {
		if err := CheckAllow(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}
