package embed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/alicebob/miniredis/v2"
)

// Streams is how many streams to receive with from the embedded Pub/Sub, which
// sends each at most one message per 10 ms.
const Streams = 32

// Options say what to set up. Empty fields mean the defaults given.
type Options struct {
	Addr         string // HOST:PORT of the bucket's HTTP endpoint: 127.0.0.1:0, any free port
	Bucket       string // tidemill
	Project      string // local
	Topic        string // an ID: uploads
	Subscription string // an ID: ingest
}

// Services are the running stand-ins.
type Services struct {
	BucketURL    string // http://HOST:PORT, what STORAGE_EMULATOR_HOST takes
	PubSubAddr   string // HOST:PORT, what PUBSUB_EMULATOR_HOST takes
	RedisURL     string // redis://HOST:PORT
	Bucket       string
	Project      string
	Subscription string // projects/P/subscriptions/S

	close func() error
}

// Start brings up the three services, with the bucket, topic and subscription in
// place: each upload that is acknowledged will be announced. The services
// run until Close; ctx bounds only the start.
func Start(ctx context.Context, o Options) (_ *Services, err error) {
	o = o.withDefaults()
	var stop closers
	defer func() {
		if err != nil {
			err = errors.Join(err, stop.run())
		}
	}()

	// The listener comes first: of all this, only its port is the caller's choice.
	listener, err := listen(ctx, o.Addr)
	if err != nil {
		return nil, err
	}
	stop.add(func() error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	redis, err := startRedis()
	if err != nil {
		return nil, err
	}
	stop.add(func() error { redis.Close(); return nil })
	pubSub, err := startPubSub(ctx, o)
	if err != nil {
		return nil, err
	}
	stop.add(pubSub.Close)
	fake, err := newBucket(o, pubSub.Addr, dialable(listener.Addr()))
	if err != nil {
		return nil, err
	}
	stop.add(func() error { fake.Stop(); return nil })
	server := &http.Server{Handler: mended(fake), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	stop.add(func() error {
		err := server.Close()
		if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
			err = errors.Join(err, serveErr)
		}
		return err
	})
	return &Services{
		BucketURL:    "http://" + dialable(listener.Addr()),
		PubSubAddr:   pubSub.Addr,
		RedisURL:     "redis://" + redis.Addr(),
		Bucket:       o.Bucket,
		Project:      o.Project,
		Subscription: o.subscription(),
		close:        sync.OnceValue(stop.run),
	}, nil
}

// Close stops the services and forgets what they held. It may be called again.
func (s *Services) Close() error { return s.close() }

// Env is what other processes need in their environment for Google's clients to
// find the services.
func (s *Services) Env() []string {
	return []string{
		"STORAGE_EMULATOR_HOST=" + s.BucketURL,
		pubSubVariable + "=" + s.PubSubAddr,
	}
}

func (o Options) withDefaults() Options {
	o.Addr = cmp.Or(o.Addr, "127.0.0.1:0")
	o.Bucket = cmp.Or(o.Bucket, "tidemill")
	o.Project = cmp.Or(o.Project, "local")
	o.Topic = cmp.Or(o.Topic, "uploads")
	o.Subscription = cmp.Or(o.Subscription, "ingest")
	return o
}

func (o Options) topic() string { return fmt.Sprintf("projects/%s/topics/%s", o.Project, o.Topic) }
func (o Options) subscription() string {
	return fmt.Sprintf("projects/%s/subscriptions/%s", o.Project, o.Subscription)
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("starting the bucket's endpoint on %s (is something else using that port? give another, or :0 for any): %w", addr, err)
	}
	return l, nil
}

// dialable is where a listener can be reached from this machine.
func dialable(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return a.String()
	}
	return fmt.Sprintf("127.0.0.1:%d", tcp.Port)
}

func startRedis() (*miniredis.Miniredis, error) {
	redis := miniredis.NewMiniRedis()
	// Otherwise nothing would ever expire by itself.
	redis.ClockTTL(true)
	if err := redis.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("starting Redis: %w", err)
	}
	return redis, nil
}

func startPubSub(ctx context.Context, o Options) (*pstest.Server, error) {
	srv := pstest.NewServerWithAddress("127.0.0.1:0")
	_, err := srv.GServer.CreateTopic(ctx, &pubsubpb.Topic{Name: o.topic()})
	if err == nil {
		_, err = srv.GServer.CreateSubscription(ctx, &pubsubpb.Subscription{
			Name: o.subscription(), Topic: o.topic(), AckDeadlineSeconds: 10,
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("setting up subscription %s: %w", o.subscription(), err), srv.Close())
	}
	return srv, nil
}

// closers stops things in the reverse order of their start.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c *closers) run() error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i]())
	}
	return errors.Join(errs...)
}
