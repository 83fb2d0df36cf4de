package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// explain adds to an error of Start what a person can do about it.
func explain(path string, err error) error {
	info, statErr := os.Stat(path)
	advice := ""
	switch {
	case errors.Is(err, exec.ErrNotFound):
		advice = "put the program into the worker's image, or give its full path"
	case errors.Is(err, exec.ErrDot):
		advice = "give the program's full path"
	case statErr == nil && info.IsDir():
		advice = "this is a directory: name a program"
	case errors.Is(err, fs.ErrPermission):
		advice = "make it executable (chmod 755) for the worker's user"
	case errors.Is(err, fs.ErrNotExist) && statErr != nil:
		advice = "put the program into the worker's image"
	case errors.Is(err, fs.ErrNotExist):
		advice = "the file is there, so the interpreter in its first line, or its dynamic loader, is missing in the image"
	case errors.Is(err, syscall.ENOEXEC):
		advice = "it was built for another architecture, or is a script without a #! line"
	case errors.Is(err, syscall.E2BIG):
		advice = "shorten the command's arguments or the worker's environment"
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		advice = "the worker is out of processes or memory: raise its limits"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, advice)
}
