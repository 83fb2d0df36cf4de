package work

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"tidemill/internal/bucket"
	"tidemill/internal/command"
	"tidemill/internal/queue"
	"tidemill/internal/result"
)

var (
	// errDiscard ends an upload whose command did not succeed.
	errDiscard    = errors.New("the result is discarded")
	errUploadOver = errors.New("the upload is over")
)

// stream runs the command between the object and its one result, with nothing
// on disk. The result appears only when the command has succeeded and the lease
// has been confirmed after that. It replaces what was there before.
func (j *job) stream(ctx context.Context, target result.Location, there standing) outcome {
	// Reading and writing end with this call, even where they are stuck.
	moving, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := j.open(moving)
	if err != nil {
		return j.faulted("reading the object", err)
	}
	defer func() { cancel(); _ = in.Close() }() // it was only read

	r, w := io.Pipe()
	put := make(chan error, 1)
	go func() {
		_, err := j.Store.Put(moving, target.Bucket, target.Name, r, bucket.PutOptions{
			Replaces: there.Generation, Metadata: j.streamMetadata(), Size: -1,
		})
		// Nobody reads any more: the command's writes must fail, or they would hang.
		_ = r.CloseWithError(cmp.Or(err, errUploadOver))
		put <- err
	}()
	run := j.Command.Run(ctx, j.spec(command.Run{Stdin: in, Stdout: w}))
	err = errDiscard
	if run.Cause == command.CauseOK {
		err = j.confirmBefore(ctx)
	}
	_ = w.CloseWithError(err) // nil is a plain end
	putErr := <-put
	var o outcome
	switch {
	case run.Cause == command.CauseOK && err != nil:
		o = j.faulted("confirming the lease", err)
	case run.Cause == command.CauseOK && putErr == nil:
		o = outcome{kind: queue.Done}
	case run.Cause == command.CauseOK, run.Cause == command.CauseOutput && putErr != nil && !errors.Is(putErr, errDiscard):
		o = j.notPut(ctx, target, putErr)
	default:
		return j.ranWith(run)
	}
	o.run = &run
	return o
}

func (j *job) streamMetadata() map[string]string {
	meta := j.fence.Metadata()
	meta["tidemill-pipeline"] = j.Pipeline
	meta["tidemill-worker"] = j.Name
	meta["tidemill-attempt"] = strconv.Itoa(j.lease.Attempt)
	meta["tidemill-started"] = j.started.UTC().Format(time.RFC3339Nano)
	return meta
}

// notPut classifies a failed upload. A stream can't be put a second time, so
// that a change under it costs another run of the command, unless what stands
// there now says that there is nothing left to do.
func (j *job) notPut(ctx context.Context, target result.Location, err error) outcome {
	if errors.Is(err, bucket.ErrPrecondition) {
		if _, lookErr := j.look(ctx, target); lookErr != nil {
			err = lookErr
		} else {
			err = fmt.Errorf("%s changed while the command ran: %w", target, err)
		}
	}
	return j.faulted("publishing", err)
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
