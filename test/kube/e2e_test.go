//go:build kube

// Package kube_test runs internal/kube against a real Kubernetes API server and
// controller-manager. Everything that the scaler does is done with a token of
// the ServiceAccount in deploy/base/scaler-rbac.yaml, so that its Role is shown
// to be enough.
package kube_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"

	"tidemill/internal/kube"
	"tidemill/test/kube/cluster"
)

const (
	scalerRBAC = "../../deploy/base/scaler-rbac.yaml"
	scaler     = "tidemill-scaler" // the ServiceAccount and the Lease

	patience = time.Minute // how long a condition may take on a loaded machine
	pollsAt  = 20 * time.Millisecond
)

func TestKubernetes(t *testing.T) {
	c, err := cluster.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Errorf("stopping the cluster: %v", err)
		}
	})
	t.Run("running", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *namespace){
			"fleet follows Resize":              testFleet,
			"ready workers stay":                testReadyStay,
			"one of many resizes wins":          testConcurrentResize,
			"new template after zero":           testNewTemplate,
			"ended Job is replaced":             testEndedJob,
			"unusable PodTemplates are refused": testRefused,
			"settings are watched":              testWatch,
			"leadership is handed over":         testHandOver,
			"events are told":                   testEvents,
			"the Role is no wider":              testRole,
			"the scaler scales a Job":           testScaler,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, newNamespace(t, c))
			})
		}
	})
	// Last and alone, because everything else needs the API server.
	t.Run("outage", func(t *testing.T) { testOutage(t, c, newNamespace(t, c)) })
}

// namespace is a test's own, with the scaler's ServiceAccount in it.
type namespace struct {
	name   string
	admin  kubernetes.Interface
	scaler kubernetes.Interface

	kubeconfig string // of the scaler
}

func newNamespace(t *testing.T, c *cluster.Cluster) *namespace {
	t.Helper()
	ctx := t.Context()
	n := &namespace{admin: client(t, c.Kubeconfig())}
	created, err := n.admin.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "tidemill-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.name = created.Name
	n.applyRBAC(t)
	token, err := n.admin.CoreV1().ServiceAccounts(n.name).CreateToken(ctx, scaler,
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := c.KubeconfigFor(token.Status.Token, n.name)
	if err != nil {
		t.Fatal(err)
	}
	n.scaler, n.kubeconfig = client(t, kubeconfig), kubeconfig
	if got, err := kube.Namespace(kubeconfig); err != nil || got != n.name {
		t.Fatalf("the kubeconfig's namespace is read as %q (%v), want %q", got, err, n.name)
	}
	// Roles reach the authorizer, and the default account the admission of pods,
	// through watches of their own.
	eventually(t, "the Role to be in force", func() error {
		if allowed, err := n.may(ctx, "create", "batch", "jobs"); err != nil || !allowed {
			return fmt.Errorf("allowed: %t, error: %w", allowed, err)
		}
		_, err := n.admin.CoreV1().ServiceAccounts(n.name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return n
}

// applyRBAC creates what the manifest says, in this namespace.
func (n *namespace) applyRBAC(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(scalerRBAC)
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range strings.Split(string(text), "\n---\n") {
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(document), nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", scalerRBAC, err)
		}
		switch o := object.(type) {
		case *corev1.ServiceAccount:
			o.Namespace = n.name
			_, err = n.admin.CoreV1().ServiceAccounts(n.name).Create(t.Context(), o, metav1.CreateOptions{})
		case *rbacv1.Role:
			o.Namespace = n.name
			_, err = n.admin.RbacV1().Roles(n.name).Create(t.Context(), o, metav1.CreateOptions{})
		case *rbacv1.RoleBinding:
			o.Namespace, o.Subjects[0].Namespace = n.name, n.name
			_, err = n.admin.RbacV1().RoleBindings(n.name).Create(t.Context(), o, metav1.CreateOptions{})
		default:
			t.Fatalf("%s has a %T, which this test does not know", scalerRBAC, object)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// may asks the API server whether the scaler may do something here.
func (n *namespace) may(ctx context.Context, verb, group, resource string) (bool, error) {
	review, err := n.scaler.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx,
		&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: n.name, Verb: verb, Group: group, Resource: resource,
			},
		}}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

// testRole: the other tests show that the Role is wide enough.
func testRole(t *testing.T, n *namespace) {
	for _, no := range [][3]string{
		{"list", "", "pods"}, {"delete", "", "pods"}, {"get", "", "secrets"}, {"update", "", "configmaps"},
		{"update", "", "podtemplates"}, {"update", "coordination.k8s.io", "leases"}, {"create", "apps", "deployments"},
	} {
		if allowed, err := n.may(t.Context(), no[0], no[1], no[2]); err != nil || allowed {
			t.Errorf("the scaler may %q (error: %v)", no, err)
		}
	}
	if _, err := n.scaler.CoreV1().Pods(n.name).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("listing pods as the scaler gives %v, want a refusal", err)
	}
}

func client(t *testing.T, kubeconfig string) kubernetes.Interface {
	t.Helper()
	c, err := kube.Client(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// eventually polls until condition returns nil.
func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(pollsAt)
	defer ticker.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v: %v", what, context.Cause(ctx), err)
		}
	}
}

// receive takes one value from a channel within patience.
func receive[T any](t *testing.T, what string, from <-chan T) (value T) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case value = <-from:
	case <-timer.C:
		t.Fatalf("waiting for %s: nothing came within %v", what, patience)
	}
	return value
}
