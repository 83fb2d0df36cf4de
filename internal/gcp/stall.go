package gcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// errStalled ends a request on which nothing moved for too long.
var errStalled = errors.New("the server stopped answering")

// stallGuard ends a request when neither side has moved a byte for limit. A
// context deadline can't do that: it would have to be long enough for the
// largest object. The client then tries again or resumes where it was.
type stallGuard struct {
	next  http.RoundTripper
	limit time.Duration
}

func (g *stallGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{limit: g.limit}
	w.timer = time.AfterFunc(g.limit, func() {
		cancel(fmt.Errorf("%w: nothing sent or received for %s", errStalled, g.limit))
	})
	sent := req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		sent.Body = &progressBody{ReadCloser: req.Body, watch: w}
	}
	res, err := g.next.RoundTrip(sent)
	w.answered()
	if err != nil {
		err = stallCause(ctx, err)
		cancel(nil)
		return nil, err
	}
	res.Body = &guardedBody{ReadCloser: res.Body, ctx: ctx, cancel: cancel, watch: w}
	return res, nil
}

// watch is the timer of one request. It runs while the request is sent and until
// it is answered, and then during each read of the answer.
type watch struct {
	limit time.Duration

	mu    sync.Mutex
	timer *time.Timer
	reply bool // the answer has begun: sending no longer matters
}

func (w *watch) sending() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.reply {
		w.timer.Reset(w.limit)
	}
}

func (w *watch) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reply = true
	w.timer.Stop()
}

// stallCause replaces the cancellation that the guard itself brought about, so
// that it isn't taken for the caller's.
func stallCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return cause
	}
	return err
}

// progressBody reports each read of a request's body.
type progressBody struct {
	io.ReadCloser
	watch *watch
}

func (b *progressBody) Read(p []byte) (int, error) {
	b.watch.sending()
	return b.ReadCloser.Read(p)
}

// guardedBody times each read of a response's body; the time a slow reader takes
// between reads doesn't count.
type guardedBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	watch  *watch
}

func (b *guardedBody) Read(p []byte) (int, error) {
	b.watch.timer.Reset(b.watch.limit)
	n, err := b.ReadCloser.Read(p)
	b.watch.timer.Stop()
	if err != nil && err != io.EOF { //nolint:errorlint // a reader's io.EOF comes bare
		err = stallCause(b.ctx, err)
	}
	return n, err
}

func (b *guardedBody) Close() error {
	err := b.ReadCloser.Close()
	b.watch.timer.Stop()
	b.cancel(nil)
	return err
}
