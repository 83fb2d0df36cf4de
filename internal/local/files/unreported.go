package files

import (
	"context"
	"path/filepath"

	"tidemill/internal/item"
)

// Unreported ends an object that is a dead letter without a failure report: its
// worker could not write one. An object that is not outstanding is ignored.
func (f *Files) Unreported(ctx context.Context, obj item.Object) {
	if u := f.claim(obj); u != nil {
		f.settle(ctx, u, isDead, nil, 0)
	}
}

// Reports returns the folder of failure reports; empty if nothing is mirrored.
func (f *Files) Reports() string {
	if f.out == nil {
		return ""
	}
	return filepath.Join(f.o.Out, f.out.book, "failures")
}
