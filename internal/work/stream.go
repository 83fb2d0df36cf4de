package work

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"tidemill/internal/bucket"
	"tidemill/internal/command"
	"tidemill/internal/queue"
)

// errDiscard ends an upload whose command did not succeed.
var errDiscard = errors.New("the result is discarded")

// stream runs the command between the object and its one result, with nothing
// on disk. The result appears only when the command has succeeded and the lease
// has been confirmed after that.
func (j *job) stream(ctx context.Context) outcome {
	target := j.settings.Results.Expand(j.lease.Item.Object)
	if err := j.checkName(target); err != nil {
		return j.faulted("naming the result", err)
	}
	there, done, err := j.before(ctx, target)
	if err != nil {
		return j.faulted("looking for earlier results", err)
	}
	if done {
		return outcome{kind: queue.Done, reason: "its result stood already"}
	}
	in, err := j.open(ctx)
	if err != nil {
		return j.faulted("reading the object", err)
	}
	defer func() { _ = in.Close() }() // it was only read

	meta := j.fence.Metadata()
	meta["tidemill-pipeline"] = j.Pipeline
	meta["tidemill-worker"] = j.Name
	meta["tidemill-attempt"] = strconv.Itoa(j.lease.Attempt)
	meta["tidemill-started"] = j.started.UTC().Format(time.RFC3339Nano)
	upload, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	put := make(chan error, 1)
	go func() {
		_, err := j.Store.Put(upload, target.Bucket, target.Name, r, bucket.PutOptions{
			Replaces: there.Generation, Metadata: meta, Size: -1,
		})
		if err != nil {
			_ = r.CloseWithError(err) // the command's writes fail, and it is ended
		}
		put <- err
	}()
	run := j.Command.Run(ctx, j.spec(command.Run{Stdin: in, Stdout: w}))
	err = nil
	if run.Cause == command.CauseOK {
		err = j.confirmBefore(ctx)
	} else {
		err = errDiscard
	}
	_ = w.CloseWithError(err) // nil is a plain end
	putErr := <-put
	switch {
	case run.Cause != command.CauseOK && run.Cause != command.CauseOutput:
		return j.ranWith(run)
	case err != nil && !errors.Is(err, errDiscard):
		return j.faulted("confirming the lease", err)
	case errors.Is(putErr, bucket.ErrPrecondition):
		if _, err := j.look(ctx, target); err != nil {
			return j.faulted("publishing", err)
		}
		return j.faulted("publishing", fmt.Errorf("%s changed while the command ran: %w", target, putErr))
	case putErr != nil:
		return j.faulted("publishing", putErr)
	case run.Cause != command.CauseOK:
		return j.ranWith(run)
	}
	return outcome{kind: queue.Done, run: &run}
}

// open reads this job's generation of the object.
func (j *job) open(ctx context.Context) (io.ReadCloser, error) {
	o := j.lease.Item.Object
	r, _, err := j.Store.Open(ctx, o.Bucket, o.Name, o.Generation)
	if errors.Is(err, bucket.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	return r, err
}

// spec completes what every run has in common.
func (j *job) spec(r command.Run) command.Run {
	r.Item, r.Attempt, r.Pipeline = j.lease.Item, j.lease.Attempt, j.Pipeline
	r.Timeout, r.Kill = j.settings.ItemTimeout, j.Kill
	return r
}

// confirmBefore makes sure of the lease right before results become valid.
func (j *job) confirmBefore(ctx context.Context) error {
	held, err := j.confirm(ctx, callTimeout)
	if err != nil {
		return err
	}
	if !held {
		return errLost
	}
	return nil
}
