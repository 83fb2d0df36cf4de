package redisq

import (
	"fmt"
	"strconv"
	"time"
)

// reader takes a script's reply apart, value by value. The first surprise
// stays in err, and everything read after it is zero.
type reader struct {
	values []any
	err    error
}

func (r *reader) next() any {
	if len(r.values) == 0 {
		r.fail("a value more")
		return nil
	}
	v := r.values[0]
	r.values = r.values[1:]
	return v
}

func (r *reader) fail(want string) {
	if r.err == nil {
		r.err = fmt.Errorf("the queue's script answered otherwise than this program expects (wanted %s)", want)
	}
}

func (r *reader) int() int64 {
	switch v := r.next().(type) {
	case int64:
		return v
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			r.fail("a number")
		}
		return n
	}
	r.fail("a number")
	return 0
}

func (r *reader) string() string {
	s, ok := r.next().(string)
	if !ok {
		r.fail("a string")
	}
	return s
}

func (r *reader) list() *reader {
	l, ok := r.next().([]any)
	if !ok {
		r.fail("a list")
	}
	return &reader{values: l}
}

// milliseconds keeps -1, "none", negative.
func (r *reader) milliseconds() time.Duration {
	return time.Duration(r.int()) * time.Millisecond
}
