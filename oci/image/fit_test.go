package image_test

import (
	"slices"
	"strings"
	"testing"

	"galley/manifest/joblib"
	"galley/oci/image"
)

func TestCheckFit(t *testing.T) {
	sklearn := joblib.Package{Import: "sklearn", Name: "scikit-learn", Version: "1.5.2"}
	has := func(pairs ...string) *image.Look {
		l := &image.Look{Python: "3.11", Packages: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			l.Packages[pairs[i]] = pairs[i+1]
		}
		return l
	}
	tests := []struct {
		name string
		look *image.Look
		need joblib.Package
		by   image.Writers
		want image.Outcome
	}{
		{"the same", has("scikit-learn", "1.5.2"), sklearn, image.Writers{}, image.Fits},
		{"another patch", has("scikit-learn", "1.5.0"), sklearn, image.Writers{}, image.Patch},
		{"a candidate", has("scikit-learn", "1.5rc1"), sklearn, image.Writers{}, image.Patch},
		{"another minor", has("scikit-learn", "1.4.2"), sklearn, image.Writers{}, image.Mismatch},
		{"another major", has("scikit-learn", "2.5.2"), sklearn, image.Writers{}, image.Mismatch},
		{"missing", has("scikit-learn", ""), sklearn, image.Writers{}, image.Missing},
		{"nothing known of the stamp", has("scikit-learn", "1.4.2"), joblib.Package{Import: "sklearn", Name: "scikit-learn"}, image.Writers{}, image.Fits},
		{"code of one's own", has(), joblib.Package{Import: "acme"}, image.Writers{}, image.Unknown},
		{"a package of one's own", has("acme", "3"), joblib.Package{Import: "acme"}, image.Writers{}, image.Fits},
		{"several Pythons", &image.Look{Pythons: []string{"/a", "/b"}}, sklearn, image.Writers{}, image.Undecided},
		{"numpy 2 in numpy 1", has("numpy", "1.25.2"), joblib.Package{Import: "numpy", Name: "numpy"}, image.Writers{Numpy: "2"}, image.Mismatch},
		{"numpy 2 in the last numpy 1", has("numpy", "1.26.4"), joblib.Package{Import: "numpy", Name: "numpy"}, image.Writers{Numpy: "2"}, image.Fits},
		{"numpy 1 in numpy 2", has("numpy", "2.1.0"), joblib.Package{Import: "numpy", Name: "numpy"}, image.Writers{Numpy: "1"}, image.Fits},
		{"an older joblib", has("joblib", "1.1.0"), joblib.Package{Import: "joblib", Name: "joblib"}, image.Writers{Joblib: ">=1.2,<1.5"}, image.Patch},
		{"a newer joblib", has("joblib", "1.5.0"), joblib.Package{Import: "joblib", Name: "joblib"}, image.Writers{Joblib: ">=1.2,<1.5"}, image.Fits},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := image.CheckFit(test.look, []joblib.Package{test.need}, test.by)
			if len(got) != 1 || got[0].Outcome != test.want {
				t.Errorf("%+v; want %s", got, test.want)
			}
			refused := []image.Outcome{image.Mismatch, image.Missing, image.Undecided}
			if got[0].Outcome.Refused() != slices.Contains(refused, test.want) {
				t.Errorf("refused: %v", got[0].Outcome.Refused())
			}
		})
	}
}

func TestParseRequirements(t *testing.T) {
	const text = "\ufeff# comment\n\n" +
		"Scikit_Learn==1.5.2\r\n" +
		"numpy [x, y] == 1.26.4 ; python_version > '3'  # why\n" +
		"joblib>=1.2,<2\n" +
		"pandas===2.0\n" +
		"scipy==1.11.*\n" +
		"uvicorn[standard]==0.3 --hash=sha256:aa \\\n  --hash=sha256:bb\n" +
		"--index-url https://example.com\n-e .\n./wheel.whl\n" +
		"torch @ https://example.com/torch.whl\n"
	l, err := image.ParseRequirements(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"scikit-learn": "1.5.2", "numpy": "1.26.4", "joblib": "any", "pandas": "2.0", "scipy": "1.11", "uvicorn": "0.3", "torch": "any",
	}
	for name, version := range want {
		if l.Packages[name] != version {
			t.Errorf("%s is %q; want %q", name, l.Packages[name], version)
		}
	}
	if len(l.Packages) != len(want) || !l.Complete {
		t.Errorf("%q; want %q", l.Packages, want)
	}
	for _, bad := range []string{"joblib\n-r more.txt\n", "--requirement=more.txt", strings.Repeat("x", 2<<20), strings.Repeat("x\n", 1<<20)} {
		if _, err := image.ParseRequirements(strings.NewReader(bad)); err == nil {
			t.Errorf("%.40q: no error", bad)
		}
	}
}

// FuzzParseRequirements holds that whatever is read is a look, without an empty
// name, or an error and nothing.
func FuzzParseRequirements(f *testing.F) {
	for _, seed := range []string{"numpy==1.26.4\n", "a[b]==1 ; c\\\nd", "-r x", "\ufeff#", "==1", "a==(1)"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := image.ParseRequirements(strings.NewReader(text))
		if err != nil {
			if l != nil {
				t.Error("a look and an error")
			}
			return
		}
		for name, version := range l.Packages {
			if name == "" || version == "" {
				t.Errorf("%q at %q", name, version)
			}
		}
	})
}
