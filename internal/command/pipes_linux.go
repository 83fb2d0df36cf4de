package command

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// takeRest takes what is in the pipe now, and nothing that is written later.
func takeRest(f *os.File, buf []byte, accept func([]byte) error) error {
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("reading the command's output: %w", err)
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("reading the command's output: %w", err)
	}
	left := 0
	var opErr error
	if err := conn.Control(func(fd uintptr) { left, opErr = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
		opErr = err
	}
	for opErr == nil {
		n := 0
		part := buf[:min(len(buf), max(left, 1))] // one byte more tells the end from a holder
		if err := conn.Read(func(fd uintptr) bool {
			n, opErr = unix.Read(int(fd), part)
			return true // don't wait: with nothing to read this is EAGAIN
		}); err != nil {
			opErr = err
		}
		switch {
		case errors.Is(opErr, unix.EINTR):
			opErr = nil
		case errors.Is(opErr, unix.EAGAIN), opErr == nil && n > 0 && left == 0:
			return ErrHeld
		case opErr == nil && n == 0:
			return nil
		case opErr == nil:
			left -= n
			if err := accept(part[:n]); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("reading the command's output: %w", opErr)
}
