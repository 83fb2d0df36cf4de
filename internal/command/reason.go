package command

import (
	"fmt"
	"strings"
	"syscall"
)

// Reason says in one line, for a person, how the run ended. It starts with a
// fixed word for each cause: ok, exit, killed, timeout, canceled, not started,
// input, output.
func (r Result) Reason() string {
	switch r.Cause {
	case CauseOK:
		return "ok"
	case CauseExit:
		return fmt.Sprintf("exit %d%s", r.ExitCode, exitHint(r.ExitCode))
	case CauseSignal:
		return "killed by " + r.Signal + signalHint(r.Signal)
	case CauseTimeout:
		return "timeout after " + r.Timeout.String()
	case CauseCanceled:
		return "canceled" + r.because()
	case CauseStart:
		return "not started" + r.because()
	case CauseInput:
		return "input failed" + r.because()
	case CauseOutput:
		return "output failed" + r.because()
	}
	return string(r.Cause) + r.because()
}

func (r Result) because() string {
	if r.Err == nil {
		return ""
	}
	return ": " + strings.Join(strings.Fields(r.Err.Error()), " ")
}

// exitHint explains the codes that shells give for what became of a program.
func exitHint(code int) string {
	switch {
	case code == 126:
		return " (as a shell reports a program that it can't execute)"
	case code == 127:
		return " (as a shell reports a program that it doesn't find)"
	case code == 128+int(syscall.SIGKILL):
		return " (as a shell reports SIGKILL, possibly out of memory)"
	case code > 128 && code <= 128+31:
		return " (as a shell reports " + signalName(syscall.Signal(code-128)) + ")"
	}
	return ""
}

func signalHint(name string) string {
	if name == "SIGKILL" {
		return " (possibly out of memory)"
	}
	return ""
}
