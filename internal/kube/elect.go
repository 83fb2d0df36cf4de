package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// A leader that dies is followed after leaseDuration plus at most a retry; one
// that can't renew stops leading leaseDuration-renewDeadline before anyone else
// may start.
const (
	leaseDuration = 10 * time.Second
	renewDeadline = 7 * time.Second
	retryPeriod   = 2 * time.Second
)

// Candidate is a process that stands for election.
type Candidate struct {
	Client    kubernetes.Interface
	Namespace string
	Lease     string // the Lease's name; the candidates of one election share it
	Identity  string // different for every process, restarts included
}

// Elect stands for election until ctx ends, and calls run while this process
// leads; run's context ends when ctx does or the leadership is lost, and run
// must then return soon. After a lost leadership it stands again. It returns nil
// once ctx has ended and run, if it was running, has returned, or after run has
// returned by itself.
//
// The Lease is held until run has returned and then given up, so that the next
// leader starts within a retry. Two leaders can still overlap, when run is slow
// to return after a lost leadership or a process is paused: what a leader writes
// has to be fenced.
func Elect(ctx context.Context, c Candidate, run func(ctx context.Context)) error {
	if c.Identity == "" || c.Lease == "" {
		return errors.New("an election needs the name of a Lease and an identity")
	}
	for ctx.Err() == nil {
		finished, err := c.term(ctx, run)
		if err != nil {
			return fmt.Errorf("standing for election with Lease %s/%s: %w", c.Namespace, c.Lease, err)
		}
		if finished {
			return nil
		}
	}
	return nil
}

// term stands for election until this process has led once, or ctx ends. It
// tells whether run returned by itself.
func (c Candidate) term(ctx context.Context, run func(ctx context.Context)) (finished bool, err error) {
	// The Lease outlives ctx: it is renewed while run winds up.
	lease, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	var (
		mu      sync.Mutex
		leading bool
		done    = make(chan struct{})
	)
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !leading {
			giveUp()
		}
	})
	defer stop()
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Lease},
			Client:     c.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: c.Identity},
		},
		LeaseDuration:   leaseDuration,
		RenewDeadline:   renewDeadline,
		RetryPeriod:     retryPeriod,
		ReleaseOnCancel: true,
		Name:            c.Lease,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) {
				defer close(done)
				defer giveUp()
				mu.Lock()
				leading = lease.Err() == nil
				lead := leading
				mu.Unlock()
				if !lead {
					return // ctx ended while the Lease was being taken
				}
				held, cancel := context.WithCancel(held)
				defer cancel()
				defer context.AfterFunc(ctx, cancel)()
				run(held)
				finished = held.Err() == nil
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return false, err
	}
	elector.Run(lease)
	giveUp() // from here on, a callback that has not begun yet will not call run
	mu.Lock()
	led := leading
	mu.Unlock()
	if led {
		<-done
	}
	return finished, nil
}
