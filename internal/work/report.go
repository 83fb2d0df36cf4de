package work

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.uber.org/zap"

	"tidemill/internal/bucket"
	"tidemill/internal/result"
)

// reportTimeout bounds the writing of a failure report: the reason also stands
// in the queue, so that an unwritable report must not keep the item circling.
const reportTimeout = time.Minute

// report writes the failure report of a dead letter, and says whether one stands.
func (j *job) report(ctx context.Context, o outcome) bool {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	it := j.lease.Item
	r := result.Report{
		Version: result.Version, Source: "gs://" + it.Path(), Generation: it.Generation, Run: it.Run,
		Pipeline: j.Pipeline, Worker: j.Name, Reason: o.reason,
		Attempts: j.lease.Attempt, Deliveries: j.lease.Delivery,
		Seconds: time.Since(j.started).Seconds(), Failed: time.Now().UTC(), Traceparent: it.Traceparent,
	}
	if o.run == nil {
		r.Attempts-- // this time the command did not run
	} else {
		r.LastOutput = strings.ToValidUTF8(string(o.run.Tail), "�")
		r.Signal = o.run.Signal
		if o.run.ExitCode >= 0 {
			r.ExitCode = &o.run.ExitCode
		}
	}
	l := j.settings.Failures.Report(it.Object)
	_, err := j.put(ctx, write{Location: l, contentType: "application/json", kind: kindReport, open: asJSON(r)})
	if err != nil && !errors.Is(err, errFenced) && !errors.Is(err, errOutrun) {
		j.log.Error("could not write the failure report; the reason stands in the queue", zap.Stringer("url", l), zap.Error(err))
		return false
	}
	return true
}

// removeReport removes the report of an earlier failure, now that results stand.
// That of a later holder of the same generation and run goes, too: these results
// are what it could not make.
func (j *job) removeReport(ctx context.Context) {
	l := j.settings.Failures.Report(j.lease.Item.Object)
	there, err := j.look(ctx, l)
	var foreign *permanentError
	switch {
	case errors.Is(err, errFenced), errors.As(err, &foreign):
		return
	case err == nil && there.Generation == 0:
		return
	case err == nil, errors.Is(err, errOutrun):
		if there.Metadata[metaKind] != kindReport {
			return // templates can give a result and a report the same name
		}
		err = j.Store.Delete(ctx, l.Bucket, l.Name, there.Generation)
	}
	if err != nil && !errors.Is(err, bucket.ErrPrecondition) {
		j.log.Warn("could not remove an earlier failure report", zap.Stringer("url", l), zap.Error(err))
	}
}
