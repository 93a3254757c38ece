package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Role says what a file is to the people who use the artifact
// (annotation ml.galley.role).
type Role string

// The roles of files.
const (
	RoleModel    Role = "model"    // the model that predicts
	RolePart     Role = "part"     // a scaler, encoder, selector or calibrator beside it
	RoleFeatures Role = "features" // the features JSON it was trained on
	RoleSummary  Role = "summary"  // the training summary JSON with its metrics
	RoleDoc      Role = "doc"
	RoleCode     Role = "code"
	RoleDataset  Role = "dataset"
)

// Roles lists every [Role] in the order in which their layers stand in an
// artifact.
func Roles() []Role {
	return []Role{RoleModel, RolePart, RoleFeatures, RoleSummary, RoleDoc, RoleCode, RoleDataset}
}

// IsJSON reports whether files of the role are JSON that galley reads.
func (r Role) IsJSON() bool { return r == RoleFeatures || r == RoleSummary }

// ErrUnsafePath is what [CheckPath] and every reader of foreign paths wrap.
var ErrUnsafePath = errors.New("unsafe path")

// maxPath bounds a path in bytes; Linux's PATH_MAX.
const maxPath = 4096

// CheckPath reports whether an artifact may hold a file at path: relative,
// slash-separated, clean, and legal on every system galley runs on, so that
// what packs anywhere unpacks everywhere. It refuses galley's own directory
// .galley and Git's .git at any level. The error wraps [ErrUnsafePath].
func CheckPath(path string) error {
	why := ""
	switch {
	case path == "" || path == ".":
		why = "is empty"
	case len(path) > maxPath:
		why = fmt.Sprintf("is longer than %d bytes", maxPath)
	case !utf8.ValidString(path):
		why = "is not UTF-8"
	case strings.ContainsFunc(path, unicode.IsControl):
		why = "holds a control character"
	case strings.ContainsFunc(path, func(r rune) bool { return unicode.Is(unicode.Bidi_Control, r) }):
		why = "holds a character that turns text around"
	case strings.HasPrefix(path, "/"):
		why = "is absolute"
	case strings.ContainsAny(path, `\:`):
		why = "holds a backslash or colon"
	case !fs.ValidPath(path):
		why = "is not a clean relative path"
	}
	if why == "" {
		for elem := range strings.SplitSeq(path, "/") {
			if why = checkElem(elem); why != "" {
				break
			}
		}
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("%w: %.200q %s", ErrUnsafePath, path, why)
}

// CheckPaths reports whether one artifact may hold files at all of the paths:
// each passes [CheckPath], none is there twice, differs from another only in
// case, or would have to be a directory too. The error wraps [ErrUnsafePath].
func CheckPaths(paths iter.Seq[string]) error {
	seen := make(pathSet)
	for p := range paths {
		if err := seen.add(p); err != nil {
			return err
		}
	}
	return nil
}

// checkElem says why one path element is refused, or nothing.
func checkElem(elem string) string {
	if len(elem) > 255 {
		return "has a name longer than 255 bytes"
	}
	switch strings.ToLower(elem) {
	case ".galley", ".git":
		return "lies in " + elem
	}
	if strings.HasSuffix(elem, ".") || strings.HasSuffix(elem, " ") || strings.ContainsAny(elem, `<>"|?*`) {
		return "has a name that Windows refuses"
	}
	base, _, _ := strings.Cut(strings.ToUpper(elem), ".")
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return "has a Windows device name"
	}
	if len(base) == 4 && (strings.HasPrefix(base, "COM") || strings.HasPrefix(base, "LPT")) && base[3] >= '0' && base[3] <= '9' {
		return "has a Windows device name"
	}
	return ""
}
