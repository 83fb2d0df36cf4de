package files

import (
	"io/fs"
	"syscall"
)

// changed returns the change time in ns since 1970, and the inode.
func changed(info fs.FileInfo) (ctime int64, inode uint64) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ctimespec.Nano(), st.Ino
	}
	return 0, 0
}
