package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tidemill/internal/command"
	"tidemill/internal/daemon"
	"tidemill/internal/local"
	"tidemill/internal/pipeline"
)

// Exit codes of tidemill local, besides those of all commands.
const (
	exitSomeFailed  = 3
	exitInterrupted = 130 // 128 + SIGINT, as a shell says it
)

// localOptions are what the command line says.
type localOptions struct {
	in, out     string
	io          string
	maxWorkers  int
	maxAttempts int
	itemTimeout time.Duration
	once        bool
	addr        string
	json        bool
	verbose     bool
	argv        []string
}

func localCommand() *cobra.Command {
	var o localOptions
	c := &cobra.Command{
		Use:   "local [flags] -- COMMAND [ARG...]",
		Short: "Run a whole pipeline on this machine",
		Long: `Local runs ingest, scaler and workers on this machine, with an embedded bucket,
Pub/Sub and Redis in place of the real ones.

Every file below --in is uploaded to the bucket under uploads/, also new and
changed ones while it runs; COMMAND is run on each, by as many worker processes
as the backlog needs, up to --max-workers. Results are mirrored below --out. The
bucket's address is printed, so that others can upload too.

With --io files, COMMAND finds the object as a file, {input} in an argument or
$TIDEMILL_INPUT in the environment, and leaves its results in the directory
{output} or $TIDEMILL_OUTPUT; each becomes OUT/<path of the input>/<its name>.
With --io stream, COMMAND reads the object from standard input, and its standard
output becomes OUT/<path of the input>. No shell is involved: for pipes and
redirection write sh -c '...'.

A second run with the same --out and COMMAND leaves unchanged files alone. What
failed is tried again; its report is below OUT/.tidemill/failures. A file that
stands in OUT where a result goes is replaced. With --json nothing is printed on
standard output when the run ends with an error.

Ctrl-C finishes what is in hand and stops; a second one stops now.

Exit codes: 0 all done; 3 some files failed or were refused; 130 interrupted
with work left; 1 an error; 2 wrong usage.`,
		Example: `  tidemill local --once --in photos --out thumbs -- convert {input} -resize 200 {output}/small.png
  tidemill local --once --io stream --in logs --out packed -- gzip -9`,
	}
	f := c.Flags()
	f.StringVar(&o.in, "in", "", "folder whose files are uploaded")
	f.StringVar(&o.out, "out", "", "folder for the results; without it they stay in the embedded bucket")
	f.StringVar(&o.io, "io", string(pipeline.Files), "how COMMAND meets a file: files or stream")
	f.IntVar(&o.maxWorkers, "max-workers", max(2, runtime.NumCPU()), "most worker processes at once, 1 to 10000")
	f.IntVar(&o.maxAttempts, "max-attempts", 3, "failed runs of COMMAND before a file is given up, 1 to 100")
	f.DurationVar(&o.itemTimeout, "item-timeout", time.Hour, "hard limit for one run of COMMAND, 1s to 168h")
	f.BoolVar(&o.once, "once", false, "end when everything below --in is done")
	f.StringVar(&o.addr, "addr", "127.0.0.1:0", "host:port of the embedded bucket; port 0 takes a free one")
	f.BoolVar(&o.json, "json", false, "print the summary as one line of JSON, the only line on standard output")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "show what the workers and their commands log")
	c.RunE = func(_ *cobra.Command, argv []string) error {
		o.argv = argv
		if err := o.check(); err != nil {
			return err
		}
		return runLocal(o)
	}
	return c
}

func (o *localOptions) check() error {
	if err := daemon.CheckProgram(o.argv); err != nil {
		return err
	}
	if o.once && o.in == "" {
		return daemon.Usage(errors.New("--once ends when everything below --in is done; give --in"))
	}
	if err := command.Check(o.argv, o.io == string(pipeline.Stream)); err != nil {
		return daemon.Usage(err)
	}
	flags := map[string]string{
		"io": "io", "max-workers": "max-workers", "max-attempts": "max-attempts", "item-timeout": "item-timeout",
	}
	_, problems := pipeline.Parse(localName, o.settings())
	var errs []error
	for _, p := range problems {
		if flag := flags[p.Key]; flag != "" {
			errs = append(errs, fmt.Errorf("--%s: %s", flag, p.Text))
		} else {
			errs = append(errs, p)
		}
	}
	if len(errs) > 0 {
		return daemon.Usage(errors.Join(errs...))
	}
	return nil
}

// localName is the pipeline's, the bucket's, the project's and the subscription's.
const localName = "local"

// uploads is where files are uploaded to.
const uploads = "uploads/"

// settings are the pipeline's, tuned for a machine where a worker starts in a
// blink and costs nothing to stop.
func (o *localOptions) settings() map[string]string {
	rest := "2s"
	if o.once {
		rest = "500ms"
	}
	return map[string]string{
		"bucket":              localName,
		"match":               uploads + "**",
		"io":                  o.io,
		"max-workers":         strconv.Itoa(o.maxWorkers),
		"items-per-worker":    "1",
		"scale-down-window":   rest,
		"scale-to-zero-after": rest,
		"lease-duration":      "15s",
		"item-timeout":        o.itemTimeout.String(),
		"max-attempts":        strconv.Itoa(o.maxAttempts),
		"max-deliveries":      strconv.Itoa(o.maxAttempts + 3),
		"retry-backoff":       "200ms..5s",
	}
}

// localWorkerCommand is what the fleet starts: the worker daemon, told through
// pipes instead of by a cluster.
func localWorkerCommand(version string) *cobra.Command {
	var d daemon.Worker
	c := &cobra.Command{Use: "local-worker", Hidden: true}
	d.Flags(c, daemon.NewEnv(c))
	c.RunE = func(_ *cobra.Command, argv []string) error {
		d.Argv, d.Version = argv, version
		d.Ready = local.Readiness()
		ctx, again, stop := daemon.Signals(context.Background())
		defer stop()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		kill := make(chan struct{})
		gone := local.ParentGone()
		go func() {
			select {
			case <-again:
			case <-gone:
			}
			cancel()
			close(kill)
		}()
		d.Kill = kill
		return d.Run(ctx)
	}
	return c
}
