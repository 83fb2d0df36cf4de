package files

import (
	"context"
	"sync"
	"time"
)

// job is a path to look at, and the version it had when it was last found to be
// fresh: if it still has that, it rests.
type job struct {
	rel string
	at  fingerprint
}

// maxWaiting bounds the names that change events can pile up; past it the folder
// is scanned again instead.
const maxWaiting = 100_000

// quiet holds back paths until nothing has been heard of them for a while, and
// counts the jobs that are under way.
type quiet struct {
	delay time.Duration

	mu      sync.Mutex
	waiting map[string]*waiter
	order   []*waiter // each once; a touched one moves when it comes up
	jobs    int       // waiting or under way
	wake    chan struct{}
	rest    chan struct{}
}

type waiter struct {
	job
	due time.Time
}

func newQuiet(delay time.Duration) *quiet {
	return &quiet{
		delay:   delay,
		waiting: map[string]*waiter{},
		wake:    make(chan struct{}, 1),
		rest:    make(chan struct{}, 1),
	}
}

// touch holds rel back for the delay from now. It reports false, and does
// nothing, if too many are held back already.
func (q *quiet) touch(j job) bool { return q.add(j, maxWaiting) }

// again is touch for a job that must not get lost.
func (q *quiet) again(j job) { q.add(j, 0) }

func (q *quiet) add(j job, limit int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	due := time.Now().Add(q.delay)
	if w := q.waiting[j.rel]; w != nil {
		w.job, w.due = j, due
		return true
	}
	if limit > 0 && len(q.waiting) >= limit {
		return false
	}
	w := &waiter{job: j, due: due}
	q.waiting[j.rel] = w
	q.order = append(q.order, w)
	q.jobs++
	signal(q.wake)
	return true
}

// next takes the first job that is due, or returns how long that is away;
// negative means that none waits.
func (q *quiet) next(now time.Time) (job, bool, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.order) > 0 {
		w := q.order[0]
		if wait := w.due.Sub(now); wait > 0 {
			// Touched since it was lined up? Those behind it may be due.
			if len(q.order) > 1 && q.order[1].due.Before(w.due) {
				q.order = append(q.order[1:], w)
				continue
			}
			return job{}, false, wait
		}
		q.order = q.order[1:]
		delete(q.waiting, w.rel)
		return w.job, true, 0
	}
	return job{}, false, -1
}

// begin counts a job that did not wait here; every job ends with done.
func (q *quiet) begin() {
	q.mu.Lock()
	q.jobs++
	q.mu.Unlock()
}

func (q *quiet) done() {
	q.mu.Lock()
	q.jobs--
	if q.jobs == 0 {
		signal(q.rest)
	}
	q.mu.Unlock()
}

// deliver sends due jobs to jobs until ctx ends.
func (q *quiet) deliver(ctx context.Context, jobs chan<- job) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		j, ok, wait := q.next(time.Now())
		if ok {
			select {
			case jobs <- j:
				continue
			case <-ctx.Done():
				return
			}
		}
		if wait < 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-q.wake:
		case <-ctx.Done():
			return
		}
	}
}

// settle returns when no job is left, or ctx has ended.
func (q *quiet) settle(ctx context.Context) {
	for {
		q.mu.Lock()
		left := q.jobs
		q.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-q.rest:
		case <-ctx.Done():
			return
		}
	}
}

// signal leaves one token in a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
