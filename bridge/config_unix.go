//go:build unix

package bridge

import (
	"io/fs"
	"os"
	"syscall"
)

// ownedByUs reports whether this process owns the file.
func ownedByUs(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
