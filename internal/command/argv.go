package command

import (
	"errors"
	"fmt"
	"strings"
)

// The placeholders in arguments.
const (
	inputMark  = "{input}"
	outputMark = "{output}"
)

// Check reports what is wrong with a pipeline's command line, or nil. With
// stream set, the object is standard input and there are no paths to put in.
// Whether the program exists is known only where it runs: see CauseStart.
func Check(argv []string, stream bool) error {
	if len(argv) == 0 || argv[0] == "" {
		return errors.New("the command is empty: give the program and its arguments")
	}
	for i, arg := range argv {
		if strings.ContainsRune(arg, 0) {
			return fmt.Errorf("argument %d of the command, %q, contains a NUL byte, which no program can receive: remove it", i, arg)
		}
		for _, mark := range []string{inputMark, outputMark} {
			if !strings.Contains(arg, mark) {
				continue
			}
			switch {
			case i == 0:
				return fmt.Errorf("%s stands in the program's name, %q: "+
					"an object is never executed; name a program and give it %s as an argument", mark, arg, mark)
			case stream:
				return fmt.Errorf("argument %d of the command, %q, uses %s, but with io stream there is no such file: "+
					"read standard input and write standard output, or set io to files", i, arg, mark)
			}
		}
	}
	return nil
}

// expand returns the arguments of one run. The replacement is one pass over
// each argument, so a path that contains a placeholder's text stays as it is.
func expand(argv []string, r Run) ([]string, error) {
	if err := Check(argv, false); err != nil {
		return nil, err
	}
	out := make([]string, len(argv))
	out[0] = argv[0]
	replace := strings.NewReplacer(inputMark, r.Input, outputMark, r.Output)
	for i, arg := range argv[1:] {
		if r.Input == "" && strings.Contains(arg, inputMark) || r.Output == "" && strings.Contains(arg, outputMark) {
			return nil, fmt.Errorf("argument %d of the command, %q, names a file that this run does not have: "+
				"set io to files, or remove the placeholder", i+1, arg)
		}
		out[i+1] = replace.Replace(arg)
	}
	return out, nil
}
