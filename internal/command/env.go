package command

import (
	"slices"
	"strconv"
	"strings"
)

// maxValue bounds one variable's value, in bytes: Linux refuses to execute with
// a string of 128 KiB, and an uploader's metadata must not make a run fail.
const maxValue = 32 << 10

// scrubbed returns the names that no command may see: the worker's own settings
// and addresses, its credentials, and the trace it was itself started under.
func scrubbed() []string {
	return []string{
		"TIDEMILL_*", "REDIS_*", "GOOGLE_APPLICATION_CREDENTIALS",
		"PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST", "TRACEPARENT", "TRACESTATE",
	}
}

// environ returns the environment of one run: base, which is the worker's,
// without what is scrubbed, and the variables that describe the object.
// All of them are always set, and empty where there is nothing to say, except
// TRACEPARENT, which is there only if the item has a valid one. A NUL byte, which
// no variable can hold, becomes U+FFFD, and a value is cut after 32 KiB.
func environ(base, scrub []string, r Run) []string {
	patterns := slices.Concat(scrubbed(), scrub)
	env := make([]string, 0, len(base)+10)
	for _, kv := range base {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) }) {
			env = append(env, kv)
		}
	}
	set := func(name, value string) {
		if len(value) > maxValue {
			value = strings.ToValidUTF8(value[:maxValue], "")
		}
		env = append(env, name+"="+strings.ReplaceAll(value, "\x00", "\uFFFD"))
	}
	set("TIDEMILL_INPUT", r.Input)
	set("TIDEMILL_OUTPUT", r.Output)
	set("TIDEMILL_BUCKET", r.Item.Bucket)
	set("TIDEMILL_OBJECT", r.Item.Name)
	set("TIDEMILL_GENERATION", strconv.FormatInt(r.Item.Generation, 10))
	set("TIDEMILL_CONTENT_TYPE", r.Item.ContentType)
	set("TIDEMILL_SIZE", strconv.FormatInt(r.Item.Size, 10))
	set("TIDEMILL_ATTEMPT", strconv.Itoa(r.Attempt))
	set("TIDEMILL_PIPELINE", r.Pipeline)
	if validTraceparent(r.Item.Traceparent) {
		set("TRACEPARENT", r.Item.Traceparent)
	}
	return env
}

func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

// validTraceparent follows https://www.w3.org/TR/trace-context/#traceparent-header:
// version-traceid-parentid-flags in lower-case hex, neither ID all zero. A
// version after 00 may append fields.
func validTraceparent(s string) bool {
	f := strings.Split(s, "-")
	if len(f) < 4 || f[0] == "00" && len(f) > 4 || f[0] == "ff" || len(s) > 512 {
		return false
	}
	for i, n := range []int{2, 32, 16, 2} {
		if len(f[i]) != n || strings.Trim(f[i], "0123456789abcdef") != "" {
			return false
		}
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return false
	}
	return strings.Trim(f[1], "0") != "" && strings.Trim(f[2], "0") != ""
}
