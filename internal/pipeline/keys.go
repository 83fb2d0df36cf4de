package pipeline

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"tidemill/internal/result"
)

// Key is one key of a pipeline's ConfigMap.
type Key struct {
	Name    string
	Default string // as written; empty means that nothing is the default, or that the key is required
	Doc     string // one line for the reference
	set     func(*Pipeline, string) error
}

var bucketRule = regexp.MustCompile(`^[a-z0-9][-a-z0-9_.]{1,220}[a-z0-9]$`)

// Keys returns the keys in the order of the reference.
func Keys() []Key {
	return []Key{
		{"bucket", "", "the bucket whose uploads this pipeline takes; required", func(p *Pipeline, v string) error {
			p.Bucket = v
			if !bucketRule.MatchString(v) {
				return fmt.Errorf("%q is not a bucket name, such as my-bucket (without gs://)", v)
			}
			return nil
		}},
		{"match", "**", "globs over the object name, comma-separated; `*` stops at `/`, `**` (as a whole part between slashes) does not", func(p *Pipeline, v string) error {
			p.Match = globs(v)
			if len(p.Match) == 0 {
				return errors.New("no pattern is given, so nothing would match")
			}
			return checkGlobs(p.Match)
		}},
		{"exclude", "", "globs of objects to leave alone, though they match", func(p *Pipeline, v string) error {
			p.Exclude = globs(v)
			return checkGlobs(p.Exclude)
		}},
		{"results", "gs://{bucket}/results/{object}", "where results go; placeholders {" + strings.Join(result.Placeholders(), "} {") + "}", func(p *Pipeline, v string) error {
			p.Results = result.Template(v)
			return p.Results.Check()
		}},
		{"failures", "gs://{bucket}/failures/{object}.json", "where a dead letter's report goes", func(p *Pipeline, v string) error {
			p.Failures = result.Template(v)
			return p.Failures.Check()
		}},
		{"io", "files", "`files`: the object is a file, every file left in the output directory is a result; `stream`: standard input to standard output", func(p *Pipeline, v string) error {
			p.IO = IO(v)
			if p.IO != Files && p.IO != Stream {
				return fmt.Errorf("%q is neither files nor stream", v)
			}
			return nil
		}},
		{"min-workers", "0", "fewest workers, 0 to 10000", func(p *Pipeline, v string) error { return number(v, 0, 10_000, &p.Scaling.MinWorkers) }},
		{"max-workers", "100", "most workers, 1 to 10000", func(p *Pipeline, v string) error { return number(v, 1, 10_000, &p.Scaling.MaxWorkers) }},
		{"items-per-worker", "10", "backlog (waiting and leased) that one worker should face, 1 to 1000000", func(p *Pipeline, v string) error {
			return number(v, 1, 1_000_000, &p.Scaling.ItemsPerWorker)
		}},
		{"scale-down-window", "30s", "going down takes the most that was wanted within this time, 0s to 1h", func(p *Pipeline, v string) error {
			return duration(v, 0, time.Hour, &p.Scaling.ScaleDownWindow)
		}},
		{"scale-to-zero-after", "60s", "one worker stays until nothing has been waiting, leased or due for this long, 0s to 24h", func(p *Pipeline, v string) error {
			return duration(v, 0, 24*time.Hour, &p.Scaling.ScaleToZeroAfter)
		}},
		{"freeze", "false", "true: the fleet stays at its current size", func(p *Pipeline, v string) error {
			p.Scaling.Freeze = v == "true"
			if v != "true" && v != "false" {
				return fmt.Errorf("%q is neither true nor false", v)
			}
			return nil
		}},
		{"fixed-workers", "none", "a number from 0 to 10000: exactly that many, whatever the backlog", func(p *Pipeline, v string) error {
			p.Scaling.FixedWorkers = -1
			if v == "none" {
				return nil
			}
			return number(v, 0, 10_000, &p.Scaling.FixedWorkers)
		}},
		{"lease-duration", "60s", "a lost worker's item is free again after this long; heartbeats extend it, 5s to 1h", func(p *Pipeline, v string) error {
			return duration(v, 5*time.Second, time.Hour, &p.LeaseDuration)
		}},
		{"item-timeout", "1h", "hard limit for one run of the command, 1s to 168h", func(p *Pipeline, v string) error {
			return duration(v, time.Second, 168*time.Hour, &p.ItemTimeout)
		}},
		{"max-attempts", "3", "failed runs of the command before an item is a dead letter, 1 to 100", func(p *Pipeline, v string) error { return number(v, 1, 100, &p.MaxAttempts) }},
		{"max-deliveries", "5", "hand-outs, lost workers included, before an item is a dead letter, 1 to 1000", func(p *Pipeline, v string) error { return number(v, 1, 1000, &p.MaxDeliveries) }},
		{"retry-backoff", "10s..10m", "wait before a retry: exponential with full jitter, between these, 0s to 24h", func(p *Pipeline, v string) error {
			low, high, ok := strings.Cut(v, "..")
			if !ok {
				return fmt.Errorf("%q is not a range such as 10s..10m", v)
			}
			if err := errors.Join(duration(low, 0, 24*time.Hour, &p.RetryBackoffMin), duration(high, 0, 24*time.Hour, &p.RetryBackoffMax)); err != nil {
				return err
			}
			if p.RetryBackoffMin > p.RetryBackoffMax {
				return fmt.Errorf("%q starts above its end", v)
			}
			return nil
		}},
		{"permanent-exit-codes", "65", "exit codes that make an item a dead letter at once, comma-separated, or none", func(p *Pipeline, v string) error {
			p.PermanentExitCodes = nil
			if v == "none" {
				return nil
			}
			for part := range strings.SplitSeq(v, ",") {
				var code int
				if err := number(strings.TrimSpace(part), 1, 255, &code); err != nil {
					return err
				}
				p.PermanentExitCodes = append(p.PermanentExitCodes, code)
			}
			return nil
		}},
		{"max-object-size", "none", "a number of bytes, with or without Ki, Mi, Gi or Ti, or none; larger objects are dead letters at once", func(p *Pipeline, v string) error { return size(v, &p.MaxObjectSize) }},
	}
}

func number(v string, low, high int, to *int) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return fmt.Errorf("%q is not a whole number from %d to %d", v, low, high)
	}
	*to = n
	return nil
}

func duration(v string, low, high time.Duration, to *time.Duration) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < low || d > high {
		return fmt.Errorf("%q is not a duration from %s to %s, such as 90s or 1h30m", v, short(low), short(high))
	}
	*to = d
	return nil
}

// short writes 1h instead of 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func size(v string, to *int64) error {
	*to = -1
	if v == "none" {
		return nil
	}
	digits, shift := v, 0
	for i, unit := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if d, ok := strings.CutSuffix(v, unit); ok {
			digits, shift = d, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return fmt.Errorf("%q is neither none nor a number of bytes such as 500Mi", v)
	}
	*to = n << shift
	return nil
}

// globs splits at commas, but for those in braces: {png,jpg} is one glob's.
func globs(v string) []string {
	var out []string
	add := func(g string) {
		if g = strings.TrimSpace(g); g != "" {
			out = append(out, g)
		}
	}
	depth, from := 0, 0
	for i := range len(v) {
		switch v[i] {
		case '{':
			depth++
		case '}':
			depth--
		case ',':
			if depth <= 0 {
				add(v[from:i])
				from = i + 1
			}
		}
	}
	add(v[from:])
	return out
}

func checkGlobs(patterns []string) error {
	for _, g := range patterns {
		if !doublestar.ValidatePattern(g) {
			return fmt.Errorf("%q is not a valid glob; brackets and braces must be closed, and a \\ must precede something", g)
		}
	}
	return nil
}
