package kube

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Watch follows the ConfigMaps of a namespace that are labelled as pipelines,
// until ctx ends, and then returns nil. It calls changed with all of them, by
// name and with their data, once they have been read and again whenever one is
// added, edited or removed. Calls never overlap; a change during a call leads to
// one more call afterwards, with everything that happened meanwhile. The maps
// belong to changed.
//
// While the API server can't be reached nothing is called: the last set stands.
func Watch(ctx context.Context, client kubernetes.Interface, namespace string,
	changed func(map[string]map[string]string),
) error {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.LabelSelector = labels.Set{LabelPartOf: PartOf, LabelComponent: ComponentPipeline}.String()
		}))
	informer := factory.Core().V1().ConfigMaps()
	wake := make(chan struct{}, 1)
	notify := func() {
		select {
		case wake <- struct{}{}:
		default: // a call is due already and will see this change too
		}
	}
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	})
	if err != nil {
		return fmt.Errorf("watching the ConfigMaps of namespace %s: %w", namespace, err)
	}
	ctx, stop := context.WithCancel(ctx)
	factory.Start(ctx.Done())
	defer factory.Shutdown() // waits, so it has to come after stop
	defer stop()
	if !cache.WaitForCacheSync(ctx.Done(), informer.Informer().HasSynced) {
		return nil
	}
	var last map[string]map[string]string
	for {
		configs, err := informer.Lister().ConfigMaps(namespace).List(labels.Everything())
		if err != nil {
			return fmt.Errorf("listing the ConfigMaps of namespace %s: %w", namespace, err)
		}
		now := contents(configs)
		if last == nil || !same(last, now) {
			last = now
			changed(contents(configs))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
	}
}

// contents copies the data out of the informer's objects, which are shared.
func contents(configs []*corev1.ConfigMap) map[string]map[string]string {
	all := make(map[string]map[string]string, len(configs))
	for _, c := range configs {
		all[c.Name] = with(nil, c.Data)
	}
	return all
}

// same tells whether nothing but labels and annotations differs.
func same(a, b map[string]map[string]string) bool {
	return maps.EqualFunc(a, b, maps.Equal)
}
