//go:build !windows

package oci

import "syscall"

// diskFull are the errors of a system that has no room for a file.
var diskFull = []error{syscall.ENOSPC, syscall.EDQUOT}
