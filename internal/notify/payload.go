package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// maxPayload is the most bytes of data that are looked at. An object's
// resource has some kilobytes: custom metadata ends at 8 KiB, access control
// lists at 100 entries.
const maxPayload = 1 << 20

// resource is what is read of the object resource in a payload. 64-bit numbers
// are strings there.
type resource struct {
	Kind        string `json:"kind,omitempty"`
	Bucket      string `json:"bucket,omitempty"`
	Name        string `json:"name,omitempty"`
	Generation  number `json:"generation,omitempty"`
	Size        number `json:"size,omitempty"`
	ContentType string `json:"contentType,omitempty"`
}

// number is the decimal text of a JSON string or number.
type number string

// UnmarshalJSON takes both spellings: publishers other than Cloud Storage, who
// replay events, may write plain numbers.
func (n *number) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte(`"`)) {
		return json.Unmarshal(data, (*string)(n))
	}
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	*n = number(data)
	return nil
}

// addPayload takes size and content type from a JSON_API_V1 payload. An empty
// one says nothing: filters and replays may drop it.
func (e *Event) addPayload(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if len(data) > maxPayload {
		return fmt.Errorf("the payload has %d bytes, more than the %d of any object's resource", len(data), maxPayload)
	}
	var r resource
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("the payload is not an object's resource in JSON: %w", shorten(err))
	}
	for _, c := range []struct{ field, payload, attr, want string }{
		{"bucket", r.Bucket, attrBucket, e.Object.Bucket},
		{"name", r.Name, attrObject, e.Object.Name},
		{"generation", string(r.Generation), attrGeneration, strconv.FormatInt(e.Object.Generation, 10)},
	} {
		if c.payload != "" && c.payload != c.want {
			return fmt.Errorf("the payload's %s %s contradicts attribute %s=%s",
				c.field, quote(c.payload), c.attr, quote(c.want))
		}
	}
	if r.Size != "" {
		size, err := parseNumber(string(r.Size))
		if err != nil {
			return fmt.Errorf("the payload's size %s: %w", quote(string(r.Size)), err)
		}
		e.Size = size
	}
	e.ContentType = usable(r.ContentType)
	return nil
}

// shorten keeps a decoding error from carrying much of the payload.
func shorten(err error) error {
	if s := err.Error(); len(s) > 200 {
		return errors.New(quote(s))
	}
	return err
}

// Encode returns the attributes and the payload that decode to e, as Cloud
// Storage would publish them: for stand-ins, replays and tests. A payload goes
// with a known size or content type.
func (e Event) Encode() (attrs map[string]string, data []byte, err error) {
	attrs = map[string]string{
		attrEventType:  e.Kind.String(),
		attrFormat:     formatNone,
		attrBucket:     e.Object.Bucket,
		attrObject:     e.Object.Name,
		attrGeneration: strconv.FormatInt(e.Object.Generation, 10),
	}
	for key, n := range map[string]int64{attrOverwrote: e.Overwrote, attrOverwrittenBy: e.OverwrittenBy} {
		if n != 0 {
			attrs[key] = strconv.FormatInt(n, 10)
		}
	}
	for key, s := range map[string]string{attrConfig: e.Config, attrClientTrace: e.Traceparent} {
		if s != "" {
			attrs[key] = s
		}
	}
	if !e.EventTime.IsZero() {
		attrs[attrEventTime] = e.EventTime.UTC().Format(time.RFC3339Nano)
	}
	if e.Size < 0 && e.ContentType == "" {
		return attrs, nil, nil
	}
	r := resource{
		Kind: "storage#object", Bucket: e.Object.Bucket, Name: e.Object.Name,
		Generation: number(attrs[attrGeneration]), ContentType: e.ContentType,
	}
	if e.Size >= 0 {
		r.Size = number(strconv.FormatInt(e.Size, 10))
	}
	if data, err = json.Marshal(r); err != nil {
		return nil, nil, fmt.Errorf("encoding the notification of %s: %w", e.Object, err)
	}
	attrs[attrFormat] = formatJSON
	return attrs, data, nil
}
