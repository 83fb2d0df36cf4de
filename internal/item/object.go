// Package item names what Tidemill processes: one generation of one Cloud
// Storage object, and the queue's record of it.
package item

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxNameBytes is the longest object name that Cloud Storage accepts, in bytes
// of UTF-8 (https://cloud.google.com/storage/docs/objects#naming).
const MaxNameBytes = 1024

// Object is one generation of one Cloud Storage object.
type Object struct {
	Bucket     string
	Name       string
	Generation int64 // positive; the store's own version number
}

// String returns bucket/name#generation.
func (o Object) String() string {
	return o.Bucket + "/" + o.Name + "#" + strconv.FormatInt(o.Generation, 10)
}

// Path returns bucket/name: the object without its generation.
func (o Object) Path() string { return o.Bucket + "/" + o.Name }

// CheckName reports why Cloud Storage would refuse name as an object name, or
// nil. The error is short and meant for a person.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > MaxNameBytes:
		return fmt.Errorf("the name has %d bytes, more than the %d that Cloud Storage allows", len(name), MaxNameBytes)
	case !utf8.ValidString(name):
		return errors.New("the name is not valid UTF-8")
	case strings.ContainsAny(name, "\r\n"):
		return errors.New("the name contains a carriage return or a line feed")
	case name == "." || name == "..":
		return fmt.Errorf("%q is not an object name", name)
	case strings.HasPrefix(name, ".well-known/acme-challenge/"):
		return errors.New("names under .well-known/acme-challenge/ are reserved")
	}
	return nil
}
