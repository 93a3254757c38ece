package oci

import "syscall"

// diskFull are the errors of a system that has no room for a file:
// ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL and ERROR_DISK_QUOTA_EXCEEDED, see
// https://learn.microsoft.com/en-us/windows/win32/debug/system-error-codes
var diskFull = []error{syscall.Errno(39), syscall.Errno(112), syscall.Errno(1295)}
