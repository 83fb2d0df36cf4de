// Command ingest carries a bucket's object notifications from Pub/Sub into the
// queues of the pipelines that take them.
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
	os.Exit(daemon.Main(command(), os.Stderr))
}

func command() *cobra.Command {
	var d daemon.Ingest
	c := &cobra.Command{
		Use:   "ingest --subscription NAME [flags]",
		Short: "Carry a bucket's object notifications from Pub/Sub into the queues",
		Long: `Ingest pulls a Pub/Sub subscription of a bucket's notifications, gives each
finalized object to the pipeline that takes it, and acknowledges a message only
after Redis holds its item. Any number of replicas may run side by side.

It starts once the scaler has accepted settings. PUBSUB_EMULATOR_HOST is
honoured as the client library does. SIGTERM finishes what is in hand.`,
		Args:    cobra.NoArgs,
		Version: obs.Version(version),
	}
	env := daemon.NewEnv(c)
	d.Flags(c, env)
	c.RunE = func(*cobra.Command, []string) error {
		if err := env.Apply(); err != nil {
			return err
		}
		d.Common.Version = c.Version
		ctx, _, stop := daemon.Signals(context.Background())
		defer stop()
		return d.Run(ctx)
	}
	return c
}
