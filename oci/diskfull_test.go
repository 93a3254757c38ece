package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestIsDiskFull(t *testing.T) {
	t.Parallel()
	for _, full := range diskFull {
		if err := fmt.Errorf("write layer: %w", &fs.PathError{Op: "write", Path: "x", Err: full}); !isDiskFull(err) {
			t.Errorf("%v: not full", err)
		}
	}
	for _, err := range []error{nil, fs.ErrPermission, errors.New("no space left on device")} {
		if isDiskFull(err) {
			t.Errorf("%v: full", err)
		}
	}
}
