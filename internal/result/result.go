// Package result is the contract for what stands in the results bucket: names,
// manifests, failure reports, and the fence that says which of two writers'
// results stay. Pure: no I/O.
package result

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"tidemill/internal/item"
)

// Reserved is the folder, beside the results, that holds manifests.
const Reserved = ".tidemill"

// maxBucketBytes is the longest bucket name, one with dots in it
// (https://cloud.google.com/storage/docs/buckets#naming).
const maxBucketBytes = 222

// Location is a bucket and a name in it.
type Location struct {
	Bucket string
	Name   string
}

// String returns gs://bucket/name.
func (l Location) String() string { return "gs://" + l.Bucket + "/" + l.Name }

// Placeholders are the names that a template may use in braces.
func Placeholders() []string {
	return []string{"bucket", "object", "dir", "base", "stem", "ext", "generation"}
}

// Template is a gs:// URL with placeholders: where results or reports go.
type Template string

// Check reports what is wrong with the template, or nil. It can't promise that
// no two objects get the same name ({dir}{base} without a slash, say); whoever
// writes results finds that out by the fence that stands there.
func (t Template) Check() error {
	rest, ok := strings.CutPrefix(string(t), "gs://")
	if !ok {
		return fmt.Errorf("%q does not start with gs://", string(t))
	}
	bucket, name, _ := strings.Cut(rest, "/")
	if bucket == "" || name == "" {
		return fmt.Errorf("%q does not name a bucket and an object in it", string(t))
	}
	if err := checkPlaceholders(rest); err != nil {
		return fmt.Errorf("%q %w", string(t), err)
	}
	if !strings.Contains(name, "{object}") && !(strings.Contains(name, "{base}") && strings.Contains(name, "{dir}")) &&
		!(strings.Contains(name, "{dir}") && strings.Contains(name, "{stem}") && strings.Contains(name, "{ext}")) {
		return fmt.Errorf("%q gives two objects the same result name; use {object}, or {dir} with {base}", string(t))
	}
	if b := strings.ReplaceAll(bucket, "{bucket}", ""); strings.Contains(b, "{") {
		return fmt.Errorf("%q: of the placeholders only {bucket} may stand in the bucket's name", string(t))
	}
	sample := item.Object{Bucket: "bucket", Name: "dir/stem.ext", Generation: 1}
	if err := item.CheckName(t.Expand(sample).Name); err != nil {
		return fmt.Errorf("%q makes names that Cloud Storage refuses: %w", string(t), err)
	}
	sample.Bucket = strings.Repeat("b", maxBucketBytes)
	if n := len(t.Manifest(sample).Name) - item.MaxNameBytes; n > 0 {
		return fmt.Errorf("%q: its folder leaves no room for manifests; shorten it by %d bytes", string(t), n)
	}
	return nil
}

// checkPlaceholders refuses braces that are no placeholder.
func checkPlaceholders(s string) error {
	for {
		open := strings.IndexByte(s, '{')
		if open < 0 {
			return nil
		}
		end := strings.IndexByte(s[open:], '}')
		if end < 0 {
			return errors.New("has an opening brace without a closing one")
		}
		if word := s[open+1 : open+end]; !slices.Contains(Placeholders(), word) {
			return fmt.Errorf("uses {%s}; the placeholders are {%s}", word, strings.Join(Placeholders(), "} {"))
		}
		s = s[open+end+1:]
	}
}

// Prefix returns the bucket and the constant start of every name that the
// template makes for objects of source: what must never be taken as input.
func (t Template) Prefix(source string) Location {
	rest := strings.TrimPrefix(string(t), "gs://")
	bucket, name, _ := strings.Cut(rest, "/")
	bucket = strings.ReplaceAll(bucket, "{bucket}", source)
	name = strings.ReplaceAll(name, "{bucket}", source)
	if i := strings.IndexByte(name, '{'); i >= 0 {
		name = name[:i]
	}
	return Location{Bucket: bucket, Name: name}
}

// Expand returns the location for one object. It is purely textual: an object
// name can't change the bucket or leave the template's prefix, because Cloud
// Storage names are flat.
func (t Template) Expand(o item.Object) Location {
	dir, base := path.Split(o.Name)
	ext := path.Ext(base)
	if ext == base { // a dot file has no extension
		ext = ""
	}
	r := strings.NewReplacer(
		"{bucket}", o.Bucket,
		"{object}", o.Name,
		"{dir}/", dir, // an object at the top has no dir, and no slash for it
		"{dir}", strings.TrimSuffix(dir, "/"),
		"{base}", base,
		"{stem}", strings.TrimSuffix(base, ext),
		"{ext}", strings.TrimPrefix(ext, "."),
		"{generation}", strconv.FormatInt(o.Generation, 10),
	)
	rest := strings.TrimPrefix(string(t), "gs://")
	bucket, name, _ := strings.Cut(rest, "/")
	return Location{Bucket: strings.ReplaceAll(bucket, "{bucket}", o.Bucket), Name: r.Replace(name)}
}

// File returns the location of one file of a result set (io: files).
func (t Template) File(o item.Object, file string) Location {
	l := t.Expand(o)
	l.Name += "/" + file
	return l
}

// Manifest returns where the manifest of an object's result set stands: under
// the reserved folder beside the results, named by a digest of the source
// object, so that no two sources share one and no name is too long.
func (t Template) Manifest(o item.Object) Location {
	return t.reserved(o, "manifests")
}

// Report returns where the failure report of an object stands. A name that
// Cloud Storage would refuse gives way to a digest under the reserved folder.
func (t Template) Report(o item.Object) Location {
	if l := t.Expand(o); item.CheckName(l.Name) == nil {
		return l
	}
	return t.reserved(o, "reports")
}

// ReservedFolder returns the bucket and the start of the names that are kept for
// manifests: Reserved, in the last folder that all results of source have in
// common. It ends in a slash.
func (t Template) ReservedFolder(source string) Location {
	p := t.Prefix(source)
	return Location{Bucket: p.Bucket, Name: p.Name[:strings.LastIndexByte(p.Name, '/')+1] + Reserved + "/"}
}

func (t Template) reserved(o item.Object, kind string) Location {
	l := t.ReservedFolder(o.Bucket)
	l.Name += kind + "/" + digest(o) + ".json"
	return l
}

// InReserved reports whether an object's name is one that Manifest or Report
// makes in a reserved folder, for any template. A file that an uploader keeps in
// a folder of that name is not meant.
func InReserved(name string) bool {
	folder, file := path.Split(name)
	sum, isJSON := strings.CutSuffix(file, ".json")
	if _, err := hex.DecodeString(sum); !isJSON || err != nil || len(sum) != 2*sha256.Size {
		return false
	}
	for _, kind := range []string{"manifests", "reports"} {
		if own := Reserved + "/" + kind + "/"; folder == own || strings.HasSuffix(folder, "/"+own) {
			return true
		}
	}
	return false
}

func digest(o item.Object) string {
	sum := sha256.Sum256([]byte(o.Path()))
	return hex.EncodeToString(sum[:])
}
