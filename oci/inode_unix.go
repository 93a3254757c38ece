//go:build linux || darwin

package oci

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// inode returns what tells a file's content without reading it, and when its
// inode changed last.
func inode(info fs.FileInfo) (id string, changed time.Time, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", time.Time{}, false
	}
	changed = changeTime(s)
	return fmt.Sprintf("device %d inode %d size %d mtime %d ctime %d", s.Dev, s.Ino, s.Size, info.ModTime().UnixNano(), changed.UnixNano()), changed, true
}

// private reports whether nobody but this user, or root, could have written the
// file.
func private(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Geteuid() && info.Mode().Perm()&0o022 == 0
}
