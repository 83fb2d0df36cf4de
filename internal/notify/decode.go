package notify

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tidemill/internal/item"
)

// The attributes of a notification.
const (
	attrConfig        = "notificationConfig"
	attrEventType     = "eventType"
	attrFormat        = "payloadFormat"
	attrBucket        = "bucketId"
	attrObject        = "objectId"
	attrGeneration    = "objectGeneration"
	attrEventTime     = "eventTime"
	attrOverwrote     = "overwroteGeneration"
	attrOverwrittenBy = "overwrittenByGeneration"

	// Pub/Sub's clients prefix theirs; other publishers write the plain name.
	attrClientTrace = "googclient_traceparent"
	attrTrace       = "traceparent"

	formatNone = "NONE"
	formatJSON = "JSON_API_V1"

	// maxText is the most bytes kept of a free text; Pub/Sub allows attribute
	// values no more.
	maxText = 1024
)

var (
	// ErrNotNotification means that the message is no notification of Cloud
	// Storage, or a broken one. It will not get better: the same message
	// decodes to the same error.
	ErrNotNotification = errors.New("not a Cloud Storage notification")
	// ErrUnknownEvent means a notification whose event type this version does
	// not know. Nothing was finalized that it could process: count it and
	// acknowledge.
	ErrUnknownEvent = errors.New("unknown Cloud Storage event")
)

// Decode reads a notification from a Pub/Sub message's attributes and data.
// Identity comes from the attributes alone; the payload, where there is one,
// adds size and content type, and must not contradict them. Every error is an
// ErrNotNotification or an ErrUnknownEvent, short, and on one line. The result
// holds no part of data.
func Decode(attrs map[string]string, data []byte) (Event, error) {
	e := Event{Size: -1}
	for _, key := range []string{attrEventType, attrBucket, attrObject} {
		if attrs[key] == "" {
			return Event{}, missing(key)
		}
	}
	if err := checkBucket(attrs[attrBucket]); err != nil {
		return Event{}, bad(attrs, attrBucket, err)
	}
	if err := item.CheckName(attrs[attrObject]); err != nil {
		return Event{}, bad(attrs, attrObject, err)
	}
	e.Object = item.Object{Bucket: attrs[attrBucket], Name: attrs[attrObject]}
	// Before the rest: a future event may not have all of today's attributes.
	var known bool
	if e.Kind, known = parseKind(attrs[attrEventType]); !known {
		return Event{}, fmt.Errorf("%w: attribute %s=%s", ErrUnknownEvent, attrEventType, quote(attrs[attrEventType]))
	}
	if attrs[attrGeneration] == "" {
		return Event{}, missing(attrGeneration)
	}
	for _, g := range []struct {
		key string
		to  *int64
	}{
		{attrGeneration, &e.Object.Generation}, {attrOverwrote, &e.Overwrote}, {attrOverwrittenBy, &e.OverwrittenBy},
	} {
		if attrs[g.key] == "" {
			continue
		}
		n, err := parseNumber(attrs[g.key])
		if err == nil && n == 0 {
			err = errors.New("a generation is positive")
		}
		if err != nil {
			return Event{}, bad(attrs, g.key, err)
		}
		*g.to = n
	}
	if s := attrs[attrEventTime]; s != "" {
		at, err := parseTime(s)
		if err != nil {
			return Event{}, bad(attrs, attrEventTime, err)
		}
		e.EventTime = at
	}
	e.Config = usable(attrs[attrConfig])
	for _, key := range []string{attrClientTrace, attrTrace} {
		if wellFormedTrace(attrs[key]) {
			e.Traceparent = attrs[key]
			break
		}
	}
	switch attrs[attrFormat] {
	case "", formatNone:
		// Whatever the data is, it is not announced as ours.
	case formatJSON:
		if err := e.addPayload(data); err != nil {
			return Event{}, fmt.Errorf("%w: %w", ErrNotNotification, err)
		}
	default:
		return Event{}, bad(attrs, attrFormat, fmt.Errorf("known are %s and %s", formatNone, formatJSON))
	}
	return e, nil
}

func missing(key string) error {
	return fmt.Errorf("%w: attribute %s is missing or empty", ErrNotNotification, key)
}

// bad says which attribute was wrong, and its value.
func bad(attrs map[string]string, key string, why error) error {
	return fmt.Errorf("%w: attribute %s=%s: %w", ErrNotNotification, key, quote(attrs[key]), why)
}

// quote makes a value from outside safe to print, and short.
func quote(s string) string {
	const most = 64
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:most]) + "... (" + strconv.Itoa(len(s)) + " bytes)"
}

// checkBucket is wider than today's naming rules, which old buckets and test
// stand-ins break, but lets no bucket pass for a path or an item's separator.
func checkBucket(s string) error {
	const most = 255
	if len(s) > most {
		return fmt.Errorf("a bucket name has at most %d bytes", most)
	}
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-_.", r)) {
			return errors.New("a bucket name begins with a letter or digit, and has only those, '-', '_' and '.'")
		}
	}
	return nil
}

// parseNumber reads digits in the one way that Cloud Storage writes them: two
// spellings of a generation would be two identities.
func parseNumber(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, errors.New("it is not a plain decimal number of 63 bits")
	}
	return n, nil
}

func parseTime(s string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, errors.New("it is not a time of RFC 3339")
	}
	at = at.UTC()
	if at.Year() < 1970 || at.Year() > 9999 {
		return time.Time{}, errors.New("the year is not between 1970 and 9999")
	}
	return at, nil
}

// usable returns a text that only informs, or nothing if it is too long or
// could not be put into an environment variable or on one line.
func usable(s string) string {
	if len(s) > maxText || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return ""
	}
	return s
}

// wellFormedTrace reports whether s is a traceparent of version 00, the only
// one there is: https://www.w3.org/TR/trace-context/#traceparent-header.
func wellFormedTrace(s string) bool {
	parts := strings.Split(s, "-")
	if len(s) != 55 || len(parts) != 4 || parts[0] != "00" || len(parts[1]) != 32 || len(parts[2]) != 16 {
		return false
	}
	for _, p := range parts[1:] {
		if strings.Trim(p, "0123456789abcdef") != "" {
			return false
		}
	}
	return strings.Trim(parts[1], "0") != "" && strings.Trim(parts[2], "0") != ""
}
