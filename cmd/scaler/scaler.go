package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tidemill/internal/daemon"
	"tidemill/internal/kube"
	"tidemill/internal/obs"
	"tidemill/internal/pipeline"
	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
	"tidemill/internal/scale"
)

type scaler struct {
	daemon.Common
	namespace  string
	kubeconfig string
	pipelines  string
	tick       time.Duration
}

func (s *scaler) flags(c *cobra.Command, env *daemon.Env) {
	s.Common.Flags(c, env)
	f := c.Flags()
	f.StringVar(&s.namespace, "namespace", "", "namespace of ConfigMaps, PodTemplates and Jobs; by default the pod's own, or the kubeconfig's")
	f.StringVar(&s.kubeconfig, "kubeconfig", "", "how to reach the cluster; by default from within it, else $KUBECONFIG or ~/.kube/config")
	f.StringVar(&s.pipelines, "pipelines", "", "directory of ConfigMap manifests to use instead of a cluster; nothing is scaled then")
	f.DurationVar(&s.tick, "tick", 15*time.Second, "look at queue and fleet at least this often")
	env.Bind("namespace", "TIDEMILL_NAMESPACE")
	env.Bind("pipelines", "TIDEMILL_PIPELINES")
}

func (s *scaler) run(ctx context.Context) error {
	health := obs.NewHealth("queue")
	return s.Host(ctx, "tidemill-scaler", health, func(b daemon.Base) error { return s.scale(ctx, b, health) })
}

func (s *scaler) scale(ctx context.Context, b daemon.Base, health *obs.Health) error {
	metrics, err := scale.NewMetrics(b.Registry)
	if err != nil {
		return err
	}
	go watchQueue(ctx, b.Redis, health, b.Log)
	manager := scale.ManagerConfig{
		Store: b.Redis, Queue: func(name string) queue.Supervisor { return b.Redis.Queue(name) },
		Tick: s.tick, Log: b.Log, Metrics: metrics,
	}
	if s.pipelines != "" {
		return s.runDir(ctx, manager)
	}
	return s.runCluster(ctx, manager)
}

// watchQueue keeps readiness true to whether the queue can be reached, on a
// standby too.
func watchQueue(ctx context.Context, server *redisq.Server, health *obs.Health, log *zap.Logger) {
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for down := false; ; {
		ping, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := server.Ping(ping)
		cancel()
		health.Set("queue", err)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !down:
			log.Warn("the queue can't be reached", zap.Error(err))
		case err == nil && down:
			log.Info("the queue can be reached again")
		}
		down = err != nil
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// runDir offers what stands in the directory, looking every second.
func (s *scaler) runDir(ctx context.Context, c scale.ManagerConfig) error {
	if _, err := os.ReadDir(s.pipelines); err != nil {
		return fmt.Errorf("--pipelines: %w", err)
	}
	m := scale.NewManager(c)
	ended := make(chan struct{})
	go func() { defer close(ended); m.Run(ctx) }()
	defer func() { <-ended }()
	t := time.NewTicker(time.Second)
	defer t.Stop()
	var offered map[string]map[string]string
	for told := ""; ; {
		now, err := pipeline.ReadDir(s.pipelines)
		switch {
		case err != nil && err.Error() != told:
			told = err.Error()
			c.Log.Warn("the settings in force stay, whatever else was edited", zap.Error(err))
		case err == nil:
			told = ""
		}
		if err == nil && !reflect.DeepEqual(now, offered) {
			offered = now
			m.Offer(now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// runCluster stands for election, and scales while it leads.
func (s *scaler) runCluster(ctx context.Context, c scale.ManagerConfig) error {
	kube.RouteLogs(c.Log)
	client, err := kube.Client(s.kubeconfig)
	if err != nil {
		return err
	}
	if s.namespace == "" {
		if s.namespace, err = kube.Namespace(s.kubeconfig); err != nil {
			return err
		}
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("finding this process's identity: %w", err)
	}
	identity := fmt.Sprintf("%s-%d-%d", host, os.Getpid(), time.Now().UnixNano())
	c.Log.Info("standing for election", zap.String("namespace", s.namespace), zap.String("identity", identity))
	return kube.Elect(ctx, kube.Candidate{Client: client, Namespace: s.namespace, Lease: "tidemill-scaler", Identity: identity},
		func(ctx context.Context) {
			c.Log.Info("leading")
			events := kube.NewEvents(ctx, client, s.namespace, "tidemill-scaler")
			c.Fleet = func(name string) scale.Fleet { return kube.NewFleet(client, s.namespace, name) }
			c.Refused = func(p pipeline.Problem) {
				events.Warn(ctx, kube.KindConfigMap, p.Pipeline, "SettingsRefused", p.Error())
			}
			m := scale.NewManager(c)
			ended := make(chan struct{})
			go func() { defer close(ended); m.Run(ctx) }()
			if err := kube.Watch(ctx, client, s.namespace, m.Offer); err != nil && ctx.Err() == nil {
				c.Log.Error("the ConfigMaps can't be followed; the settings in force stay", zap.Error(err))
			}
			<-ended
		})
}
