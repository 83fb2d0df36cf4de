package obs

import (
	"runtime/debug"
	"strconv"
	"strings"

	"go.uber.org/zap/zapcore"
)

// stackTrace returns the entry's message and the calling goroutine's trace in
// the form of runtime/debug.Stack, the only one that Error Reporting parses for
// Go. It must run on the goroutine that logged.
func stackTrace(ent zapcore.Entry) string {
	return ent.Message + "\n\n" + fromCaller(string(debug.Stack()), ent.Caller)
}

// fromCaller drops the logging library's frames from the top of a trace:
// Error Reporting groups errors by their first frames, and those would be the
// same for all. A trace without the caller's line is returned whole.
func fromCaller(trace string, caller zapcore.EntryCaller) string {
	header, frames, ok := strings.Cut(trace, "\n")
	if !ok || !caller.Defined {
		return trace
	}
	// A frame is two lines: the function, and a tab with file:line.
	at := "\n\t" + caller.File + ":" + strconv.Itoa(caller.Line)
	for search := 0; ; {
		i := strings.Index(frames[search:], at)
		if i < 0 {
			return trace
		}
		i += search
		// The number must end there: line 12 is not line 120.
		if end := i + len(at); end == len(frames) || frames[end] == ' ' || frames[end] == '\n' {
			start := strings.LastIndexByte(frames[:i], '\n') + 1
			return header + "\n" + frames[start:]
		}
		search = i + len(at)
	}
}
