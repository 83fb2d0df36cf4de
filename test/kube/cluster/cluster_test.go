package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The cache is keyed by the version, which build.sh reads from build/go.mod.
func TestVersionIsTheOneBuilt(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile("../build/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "k8s.io/kubernetes " + Version + " "; !strings.Contains(string(mod), want) {
		t.Errorf("../build/go.mod has no %q: Version and go.mod must be changed together", want)
	}
}

func TestFind(t *testing.T) { // not parallel: it sets the environment
	assets, cache := t.TempDir(), t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", assets)
	t.Setenv("TIDEMILL_CACHE", cache)
	built := filepath.Join(cache, "kube-"+Version)
	for file, mode := range map[string]os.FileMode{
		filepath.Join(assets, "etcd"):          0o755,
		filepath.Join(built, "etcd"):           0o755,
		filepath.Join(built, "kube-apiserver"): 0o755,
		filepath.Join(built, "kubelet"):        0o644, // a build that was cut short is no binary
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	found, err := find("etcd", "kube-apiserver")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := found["etcd"], filepath.Join(assets, "etcd"); got != want {
		t.Errorf("etcd is %s, want %s", got, want)
	}
	if got, want := found["kube-apiserver"], filepath.Join(built, "kube-apiserver"); got != want {
		t.Errorf("kube-apiserver is %s, want %s", got, want)
	}
	_, err = find("etcd", "kubelet")
	if err == nil || !strings.Contains(err.Error(), "no kubelet in") || !strings.Contains(err.Error(), "test/kube/build.sh") {
		t.Errorf("a missing kubelet gives the error %v", err)
	}
}
