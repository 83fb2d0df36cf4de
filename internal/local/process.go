package local

import (
	"os/exec"
	"syscall"
)

// isolate keeps the terminal's Ctrl-C from the worker: this process decides
// what it means.
func isolate(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
