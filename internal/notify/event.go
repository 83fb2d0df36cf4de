// Package notify reads Cloud Storage's notifications as they arrive through
// Pub/Sub: https://cloud.google.com/storage/docs/pubsub-notifications. It is
// pure: attributes and payload in, an Event or an error out.
package notify

import (
	"strings"
	"time"

	"tidemill/internal/item"
)

// Kind is what happened to an object.
type Kind int

// The kinds of events. The zero Kind is none of them.
const (
	Finalize       Kind = iota + 1 // a new generation is complete
	Delete                         // a generation is gone for good
	Archive                        // a generation became noncurrent
	MetadataUpdate                 // the metadata changed, the content did not
	Initialize                     // an appendable object was begun (zonal buckets)
)

// kinds pairs each kind with its eventType attribute.
func kinds() map[Kind]string {
	return map[Kind]string{
		Finalize:       "OBJECT_FINALIZE",
		Delete:         "OBJECT_DELETE",
		Archive:        "OBJECT_ARCHIVE",
		MetadataUpdate: "OBJECT_METADATA_UPDATE",
		Initialize:     "OBJECT_INITIALIZE",
	}
}

// String returns the kind's eventType attribute, "unknown" for no kind.
func (k Kind) String() string {
	if s, ok := kinds()[k]; ok {
		return s
	}
	return "unknown"
}

func parseKind(eventType string) (Kind, bool) {
	for k, s := range kinds() {
		if s == eventType {
			return k, true
		}
	}
	return 0, false
}

// Event is one notification. The same event can arrive more than once, under
// different Pub/Sub message identifiers, and in any order.
type Event struct {
	Kind        Kind
	Object      item.Object
	Size        int64  // bytes; -1 when the notification does not say
	ContentType string // as the uploader declared it; empty when unknown or unusable
	// EventTime is the bucket's clock, in UTC; zero when unknown. Good for
	// measuring delays roughly, not for ordering: generations order.
	EventTime time.Time
	// Overwrote is the generation that this one replaced, and OverwrittenBy
	// the one that replaced this; 0 for none.
	Overwrote     int64
	OverwrittenBy int64
	Config        string // name of the notification configuration; may be empty
	Traceparent   string // W3C trace context of the publisher; empty or well-formed
}

// Placeholder reports whether the object only makes a folder visible in a
// file browser: its name ends in a slash and it has no content, as far as is
// known.
func (e Event) Placeholder() bool {
	return e.Size <= 0 && strings.HasSuffix(e.Object.Name, "/")
}
