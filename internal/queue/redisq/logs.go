package redisq

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// RouteLogs sends what the client library logs about itself to log, instead of
// standard error as bare text. Callers get the same faults as errors, so that
// this is detail. Call it before Open: the library's logger is the process's.
// log must be safe for concurrent use.
func RouteLogs(log func(line string)) { redis.SetLogger(logger(log)) }

// logger is the client library's interface on a function.
type logger func(string)

// Printf implements the library's Logging.
func (l logger) Printf(_ context.Context, format string, args ...any) {
	l(fmt.Sprintf(format, args...))
}
