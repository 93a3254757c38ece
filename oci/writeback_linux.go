//go:build !arm

package oci

import (
	"os"
	"syscall"
)

// SYNC_FILE_RANGE_WRITE of sync_file_range(2).
const syncFileRangeWrite = 2

// beginWriteback has the system begin to write a range of a file to the disk, and
// does not wait for it. That it cannot is for a later Sync to tell.
func beginWriteback(f *os.File, off, n int64) {
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) { _ = syscall.SyncFileRange(int(fd), off, n, syncFileRangeWrite) })
}
