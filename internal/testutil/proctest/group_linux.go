package proctest

import "syscall"

// ownGroup also ties the child's life to the test binary's, which a panic or a
// test timeout ends without running any cleanup.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
