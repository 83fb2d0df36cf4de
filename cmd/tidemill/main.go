// Command tidemill is the operator's command line. Its laptop mode runs
// ingest, scaler and workers on embedded stand-ins for the cloud's services.
package main

import (
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
		Use:   "tidemill",
		Short: "Process the files of a bucket with any command, on as many workers as it takes",
		Long: `Files land in a bucket; each is processed by a command, on as many workers as the
backlog needs and none when there is nothing to do; results go back to a bucket.`,
		Version: obs.Version(version),
	}
	c.AddCommand(localCommand(), localWorkerCommand(c.Version))
	c.CompletionOptions.HiddenDefaultCmd = true
	return c
}
