//go:build !unix

package manifest_test

func setUmask(int) int { return 0 }
