// Command scaler keeps each pipeline's fleet of workers as large as its backlog
// needs, and puts the operator's settings in force.
package main

import (
	"context"
	"errors"
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
	var s scaler
	c := &cobra.Command{
		Use:   "scaler [flags]",
		Short: "Scale the pipelines' workers and put their settings in force",
		Long: `Scaler watches the pipelines' ConfigMaps, stores the valid settings in Redis for
ingest and the workers, and sets the parallelism of each pipeline's Job from the
depth of its queue. Several replicas may run; one of them leads.

With --pipelines DIR there is no cluster: settings come from ConfigMap manifests
in a directory, and workers are run by hand.

Invalid settings are refused and the last good ones stay in force. What can't be
read is never taken for zero: the fleet is then left as it is.`,
		Args:    cobra.NoArgs,
		Version: obs.Version(version),
	}
	env := daemon.NewEnv(c)
	s.flags(c, env)
	c.RunE = func(*cobra.Command, []string) error {
		if err := env.Apply(); err != nil {
			return err
		}
		if s.pipelines != "" && (s.namespace != "" || s.kubeconfig != "") {
			return daemon.Usage(errors.New("--pipelines means that there is no cluster; leave out --namespace and --kubeconfig"))
		}
		s.Version = c.Version
		ctx, _, stop := daemon.Signals(context.Background())
		defer stop()
		return s.run(ctx)
	}
	return c
}
