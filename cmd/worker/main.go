// Command worker runs a pipeline's command on one object after another.
package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"tidemill/internal/daemon"
	"tidemill/internal/obs"
)

var version string // set by the linker

func main() {
	os.Exit(daemon.Main(root(), os.Stderr))
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:     "worker",
		Short:   "Run a pipeline's command on one object after another",
		Version: obs.Version(version),
	}
	c.AddCommand(run(c.Version))
	return c
}

func run(version string) *cobra.Command {
	var d daemon.Worker
	c := &cobra.Command{
		Use:   "run --pipeline NAME [flags] -- COMMAND [ARG...]",
		Short: "Work on a pipeline's items until told to stop",
		Long: `Run leases items of a pipeline's queue, runs COMMAND on each object, and writes
the results to the bucket.

With io "files", {input} and {output} in the arguments stand for the object's
file and the directory whose files become results; with io "stream" the object
is standard input and standard output the result. TIDEMILL_INPUT,
TIDEMILL_OUTPUT, TIDEMILL_BUCKET, TIDEMILL_OBJECT, TIDEMILL_GENERATION,
TIDEMILL_CONTENT_TYPE, TIDEMILL_SIZE, TIDEMILL_ATTEMPT, TIDEMILL_PIPELINE and
TRACEPARENT are in the command's environment. No shell is involved.

STORAGE_EMULATOR_HOST and Google's application default credentials are honoured
as the client library does. After SIGTERM the item in hand may go on for
--drain, then it goes back to the queue; the exit code is 143. A second SIGTERM
ends the command at once.`,
	}
	env := daemon.NewEnv(c)
	d.Flags(c, env)
	c.RunE = func(_ *cobra.Command, argv []string) error {
		if err := env.Apply(); err != nil {
			return err
		}
		d.Argv, d.Common.Version = argv, version
		ctx, kill, stop := daemon.Signals(context.Background())
		defer stop()
		d.Kill = kill
		if err := d.Run(ctx); err != nil {
			return err
		}
		return &daemon.Exit{Code: daemon.ExitTerminated}
	}
	return c
}
