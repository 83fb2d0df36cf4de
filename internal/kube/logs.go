package kube

import (
	"github.com/go-logr/logr"
	"go.uber.org/zap"
	"k8s.io/klog/v2"
)

// RouteLogs sends what the Kubernetes client library logs about itself to log:
// its errors as warnings, since it goes on trying, and of the rest only what it
// would show by default. Call it once, before anything else here: the library's
// logger is the process's.
func RouteLogs(log *zap.Logger) {
	klog.SetLogger(logger(log))
}

func logger(log *zap.Logger) logr.Logger { return logr.New(sink{log.Sugar()}) }

// sink is a logr.LogSink on zap.
type sink struct{ log *zap.SugaredLogger }

func (s sink) Init(logr.RuntimeInfo)                { /* call depth is not used */ }
func (s sink) Enabled(level int) bool               { return level == 0 }
func (s sink) Info(_ int, msg string, kv ...any)    { s.log.Infow(msg, kv...) }
func (s sink) WithValues(kv ...any) logr.LogSink    { return sink{s.log.With(kv...)} }
func (s sink) WithName(name string) logr.LogSink    { return sink{s.log.Named(name)} }
func (s sink) Error(err error, m string, kv ...any) { s.log.Warnw(m, append(kv, "error", err)...) }
