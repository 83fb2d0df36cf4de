package kube

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// The kinds of objects that Events are about.
const (
	KindConfigMap   = "ConfigMap"
	KindPodTemplate = "PodTemplate"
)

const (
	maxEventMessage = 1024 // bytes; what the API takes
	lookupTimeout   = 2 * time.Second
)

// Events tells what happened to an object where `kubectl describe` and
// `kubectl get events` show it. Repeated Events are merged into one with a
// count, and each object and reason has a budget of 25 at once and then one
// every five minutes; what exceeds it is dropped, so Events are for people and
// never the only record. Safe for concurrent use.
type Events struct {
	client    kubernetes.Interface
	namespace string
	recorder  record.EventRecorder
}

// NewEvents sends Events about the objects of a namespace, in the background,
// until ctx ends.
func NewEvents(ctx context.Context, client kubernetes.Interface, namespace, component string) *Events {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx), record.WithCorrelatorOptions(record.CorrelatorOptions{
		// Per reason too, or routine Events would use up a warning's budget.
		SpamKeyFunc: func(e *corev1.Event) string {
			o := e.InvolvedObject
			return strings.Join([]string{o.Kind, o.Namespace, o.Name, e.Type, e.Reason}, "/")
		},
	}))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events(namespace)})
	return &Events{
		client: client, namespace: namespace,
		recorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component}),
	}
}

// Warn tells that something about the object of that kind (KindConfigMap or
// KindPodTemplate) and name needs a person. reason is one CamelCase word.
func (e *Events) Warn(ctx context.Context, kind, name, reason, message string) {
	e.tell(ctx, corev1.EventTypeWarning, kind, name, reason, message)
}

// Note is Warn for what is as it should be.
func (e *Events) Note(ctx context.Context, kind, name, reason, message string) {
	e.tell(ctx, corev1.EventTypeNormal, kind, name, reason, message)
}

func (e *Events) tell(ctx context.Context, eventType, kind, name, reason, message string) {
	e.recorder.Event(&corev1.ObjectReference{
		APIVersion: "v1", Kind: kind, Namespace: e.namespace, Name: name, UID: e.uid(ctx, kind, name),
	}, eventType, reason, clip(message, maxEventMessage))
}

// uid looks up the object, because `kubectl describe` shows only Events that
// carry its UID. Without one, as for an object that is gone, the Event is still
// in the namespace's list.
func (e *Events) uid(ctx context.Context, kind, name string) types.UID {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var (
		object metav1.Object
		err    error
	)
	switch kind {
	case KindConfigMap:
		object, err = e.client.CoreV1().ConfigMaps(e.namespace).Get(ctx, name, metav1.GetOptions{})
	case KindPodTemplate:
		object, err = e.client.CoreV1().PodTemplates(e.namespace).Get(ctx, name, metav1.GetOptions{})
	default:
		return ""
	}
	if err != nil {
		return ""
	}
	return object.GetUID()
}

// clip cuts text to at most n bytes and never inside a character.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const more = "..."
	n -= len(more)
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + more
}
