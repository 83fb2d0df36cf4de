package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// callTimeout bounds one call to the API server, so that one that is
	// reachable but doesn't answer becomes an error and not a stall.
	callTimeout = 10 * time.Second

	// One scaler serves every pipeline of a namespace and must be able to move
	// all of them at once: client-go's default of 5 calls a second would be the
	// slowest part of a wake-up.
	callsPerSecond = 50
	callBurst      = 100

	fieldManager  = "tidemill"
	namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
)

// Client connects to the API server that kubeconfig names. Where kubeconfig is
// empty it is the server of the cluster that this process runs in or, outside
// one, that of $KUBECONFIG or ~/.kube/config. No call is made yet, so a server
// that is down shows only later.
func Client(kubeconfig string) (kubernetes.Interface, error) {
	config, err := restConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = callsPerSecond, callBurst
	config.UserAgent = "tidemill"
	// Half the bytes and a fraction of the work of JSON, on both sides.
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connecting to Kubernetes at %s: %w", config.Host, err)
	}
	return client, nil
}

// Namespace returns the namespace to work in where none is given: that of the
// pod this process runs in or, outside a cluster or with a kubeconfig named,
// that of the kubeconfig's current context. Never empty without an error.
func Namespace(kubeconfig string) (string, error) {
	if kubeconfig == "" {
		text, err := os.ReadFile(namespaceFile)
		if name := strings.TrimSpace(string(text)); err == nil && name != "" {
			return name, nil
		}
	}
	name, _, err := deferred(kubeconfig).Namespace()
	if err != nil {
		return "", fmt.Errorf("reading the namespace from the kubeconfig%s: %w", named(kubeconfig), err)
	}
	return name, nil
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err == nil {
			return config, nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) {
			return nil, fmt.Errorf("reading this pod's service account: %w", err)
		}
	}
	config, err := deferred(kubeconfig).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no Kubernetes cluster to talk to: this process does not run in one, " +
			"and neither KUBECONFIG nor ~/.kube/config names one; give a kubeconfig")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig%s: %w", named(kubeconfig), err)
	}
	return config, nil
}

func deferred(kubeconfig string) clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
}

func named(kubeconfig string) string {
	if kubeconfig == "" {
		return ""
	}
	return fmt.Sprintf(" %q", kubeconfig)
}

// withTimeout is ctx for one call to the API server.
func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}
