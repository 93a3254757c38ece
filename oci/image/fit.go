package image

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"galley/manifest/joblib"
)

// Outcome is how a package of a base fits a model.
type Outcome string

// The outcomes; Mismatch and Missing are those with which the model would not
// load, or would not predict what it did.
const (
	Fits      Outcome = "fits"
	Patch     Outcome = "patch"     // another patch release: fine, and said
	Unknown   Outcome = "unknown"   // nothing tells
	Mismatch  Outcome = "mismatch"  // another minor release
	Missing   Outcome = "missing"   // it is not there
	Undecided Outcome = "undecided" // there are several Pythons, and which one runs is not known
)

// Refused reports whether a model is not baked in with that outcome.
func (o Outcome) Refused() bool { return o == Mismatch || o == Missing || o == Undecided }

// Fit is what a base has of a package that a model needs.
type Fit struct {
	Package string  `json:"package"`        // as pip knows it
	Want    string  `json:"want,omitempty"` // a version, or a range of them; "": any
	Have    string  `json:"have,omitempty"` // "": none, or not known
	Outcome Outcome `json:"outcome"`
}

// anyVersion is the version of a package that is there in one nobody knows.
const anyVersion = "any"

// Writers are the generations of the libraries that wrote a model, as an
// artifact tells them: "2", ">=1.2,<1.5"; "": not known.
type Writers struct{ Numpy, Joblib string }

// numpyShim is the first numpy 1 that loads what numpy 2 pickled.
const numpyShim = "1.26"

// CheckFit compares what the look found with the packages that a model needs.
// Only a package whose name pip knows can be missing: another may be the app's
// own code.
func CheckFit(l *Look, packages []joblib.Package, w Writers) []Fit {
	fits := make([]Fit, 0, len(packages))
	for _, p := range packages {
		f := Fit{Package: cmp.Or(p.Name, p.Import), Want: p.Version}
		f.Have = l.Packages[Normalize(f.Package)]
		switch {
		case f.Have == "" && l.Python == "" && len(l.Pythons) > 0:
			f.Outcome = Undecided
		case f.Have == "" && p.Name == "":
			f.Outcome = Unknown
		case f.Have == "":
			f.Outcome = Missing
		case f.Have == anyVersion && f.Want != "":
			f.Have, f.Outcome = "", Unknown
		case f.Have == anyVersion:
			f.Have, f.Outcome = "", Fits
		default:
			f.compare(w)
		}
		fits = append(fits, f)
	}
	return fits
}

// compare compares the versions.
func (f *Fit) compare(w Writers) {
	f.Outcome = Fits
	switch {
	case f.Package == "numpy" && w.Numpy == "2":
		if f.Want = "2"; older(f.Have, numpyShim) {
			f.Outcome = Mismatch
		}
	case f.Package == "joblib":
		low, _, _ := strings.Cut(strings.TrimPrefix(w.Joblib, ">="), ",")
		if strings.HasPrefix(w.Joblib, ">=") && older(f.Have, low) {
			f.Want, f.Outcome = w.Joblib, Patch
		}
	case f.Want == "" || f.Want == f.Have:
	case release(f.Want) != release(f.Have):
		f.Outcome = Mismatch
	default:
		f.Outcome = Patch
	}
}

// release is the major and minor number of a version.
func release(version string) [2]int {
	var r [2]int
	for n, part := range strings.SplitN(version, ".", 3) {
		if n < len(r) {
			digits := strings.IndexFunc(part+".", func(c rune) bool { return c < '0' || c > '9' })
			r[n], _ = strconv.Atoi(part[:digits])
		}
	}
	return r
}

func older(a, b string) bool {
	x, y := release(a), release(b)
	return x[0] < y[0] || x[0] == y[0] && x[1] < y[1]
}

// maxRequirements bounds a requirements file in bytes.
const maxRequirements = 1 << 20

var requirement = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*([^;]*)`)
})

var pin = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\(?\s*={2,3}\s*([0-9][^\s,*)]*?)(?:\.\*)?\s*\)?$`)
})

// ParseRequirements reads a requirements file as pip does
// (https://pip.pypa.io/en/stable/reference/requirements-file-format/) into a
// look at the packages alone: what it does not name is not there, and of what
// it does not pin the version is not known. The error names the line.
func ParseRequirements(r io.Reader) (*Look, error) {
	l := &Look{Packages: map[string]string{}, Dirs: map[string]Dir{}, Complete: true}
	s := bufio.NewScanner(io.LimitReader(r, maxRequirements+1))
	s.Buffer(nil, maxRequirements+2)
	continued, size := "", 0
	for n := 1; s.Scan(); n++ {
		if size += len(s.Bytes()) + 1; size > maxRequirements {
			return nil, fmt.Errorf("more than %d bytes", maxRequirements)
		}
		line := continued + strings.TrimPrefix(s.Text(), "\ufeff")
		if before, ok := strings.CutSuffix(line, `\`); ok {
			continued = before
			continue
		}
		continued = ""
		if err := l.require(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	return l, nil
}

// require takes one line.
func (l *Look) require(line string) error {
	if at := strings.Index(line, " #"); at >= 0 {
		line = line[:at]
	}
	line = strings.TrimSpace(line)
	switch {
	case line == "" || line[0] == '#':
		return nil
	case strings.HasPrefix(line, "-r") || strings.HasPrefix(line, "--requirement"):
		return errors.New("it includes another file; name one that has everything, as pip freeze writes it")
	case line[0] == '-':
		return nil // an option of pip's
	}
	if at := strings.Index(line, " --"); at >= 0 { // hashes
		line = line[:at]
	}
	m := requirement().FindStringSubmatch(line)
	if m == nil {
		return nil // a path or an address: nothing tells what it is
	}
	version := anyVersion
	if v := pin().FindStringSubmatch(strings.TrimSpace(m[2])); v != nil {
		version = v[1]
	}
	l.Packages[Normalize(m[1])] = version
	return nil
}
