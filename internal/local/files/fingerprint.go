package files

import (
	"io/fs"
	"time"
)

// fingerprint tells one version of a file from another without reading it. The
// change time is part of it because, unlike the modification time, no program
// can set it back.
type fingerprint struct {
	Size  int64  `json:"size"`            // bytes
	Mtime int64  `json:"mtime"`           // ns since 1970
	Ctime int64  `json:"ctime,omitempty"` // ns since 1970; 0 where the system has none
	Inode uint64 `json:"inode,omitempty"`
}

// unreadable stands for the version of something that can't be looked at.
func unreadable() fingerprint { return fingerprint{Size: -1} }

func fingerprintOf(info fs.FileInfo) fingerprint {
	ctime, inode := changed(info)
	return fingerprint{Size: info.Size(), Mtime: info.ModTime().UnixNano(), Ctime: ctime, Inode: inode}
}

// rests reports whether the file has not changed for d before now. A time in the
// future, from a server with another clock, is no evidence of rest.
func (p fingerprint) rests(now time.Time, d time.Duration) bool {
	last := p.Ctime
	if last == 0 {
		last = p.Mtime
	}
	return now.Sub(time.Unix(0, last)) >= d
}

// alike reports whether p and q differ only in what copying a folder, or changing
// a file's rights, changes too. The content decides then.
func (p fingerprint) alike(q fingerprint) bool { return p.Size == q.Size && p.Mtime == q.Mtime }
