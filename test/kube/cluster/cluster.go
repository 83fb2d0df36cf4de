// Package cluster runs a real Kubernetes control plane for tests: etcd,
// kube-apiserver and kube-controller-manager on free loopback ports, with RBAC
// and service accounts as in production. There are no nodes, so pods are
// created and stay Pending. test/kube/build.sh builds the binaries.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Version is the Kubernetes release that build/go.mod builds.
const Version = "v1.37.2"

const (
	startTries   = 3
	readyTimeout = 90 * time.Second // a loaded machine takes long; a process that ends is seen at once
	adminToken   = "admin-of-a-test-on-loopback"
)

// Cluster is a running control plane. Its methods are for one goroutine at a
// time.
type Cluster struct {
	dir       string
	binaries  map[string]string
	etcdPorts [2]int
	port      int
	ca        []byte
	etcd      *process
	apiServer *process
	manager   *process
}

// Start starts a control plane and waits until it is ready, which takes a few
// seconds. ctx bounds only the start.
func Start(ctx context.Context) (*Cluster, error) {
	binaries, err := find("etcd", "kube-apiserver", "kube-controller-manager")
	if err != nil {
		return nil, err
	}
	var failed error
	for range startTries { // another process may take a port between the choice and its use
		c, err := start(ctx, binaries)
		if err == nil {
			return c, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, fmt.Errorf("starting a Kubernetes control plane: %w", failed)
}

func start(ctx context.Context, binaries map[string]string) (c *Cluster, err error) {
	dir, err := os.MkdirTemp("", "tidemill-kube-")
	if err != nil {
		return nil, err
	}
	c = &Cluster{dir: dir, binaries: binaries}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	ports, err := freePorts(ctx, 3)
	if err != nil {
		return nil, err
	}
	c.etcdPorts, c.port = [2]int(ports[:2]), ports[2]
	if c.ca, err = writeKeys(dir); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"tokens.csv": adminToken + ",admin,admin,system:masters\n",
		"kubeconfig": c.kubeconfig(adminToken, "default"),
	} {
		if err := os.WriteFile(c.path(name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	if err := c.startEtcd(); err != nil {
		return nil, err
	}
	if err := c.StartAPIServer(ctx); err != nil {
		return nil, err
	}
	return c, c.startManager()
}

// Kubeconfig is the path of a kubeconfig for the cluster's administrator.
func (c *Cluster) Kubeconfig() string { return c.path("kubeconfig") }

// KubeconfigFor writes a kubeconfig for the holder of a token, whose default
// namespace is namespace, and returns its path.
func (c *Cluster) KubeconfigFor(token, namespace string) (string, error) {
	f, err := os.CreateTemp(c.dir, "kubeconfig-"+namespace+"-")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(c.kubeconfig(token, namespace))
	return f.Name(), errors.Join(err, f.Close())
}

// StopAPIServer ends the API server and nothing else: its clients see refused
// connections.
func (c *Cluster) StopAPIServer() error {
	err := c.apiServer.stop()
	c.apiServer = nil
	return err
}

// StartAPIServer starts the API server, with everything that an earlier one
// stored and at the same address, and waits until it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) (err error) {
	c.apiServer, err = c.run("kube-apiserver",
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--secure-port="+strconv.Itoa(c.port),
		"--etcd-servers=http://"+address(c.etcdPorts[0]),
		"--tls-cert-file="+c.path("server.crt"), "--tls-private-key-file="+c.path("server.key"),
		"--cert-dir="+c.path("certificates"),
		"--token-auth-file="+c.path("tokens.csv"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+c.path("accounts.key"),
		"--service-account-signing-key-file="+c.path("accounts.key"),
		"--service-cluster-ip-range=10.0.0.0/24",
	)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return c.apiServer.waitReady(ctx, "https://"+address(c.port)+"/readyz", c.ca, adminToken)
}

// Stop ends every process that Start started and removes what they wrote. It
// may be called more than once.
func (c *Cluster) Stop() error {
	// The API server ends only after its clients' and its own calls to etcd.
	err := errors.Join(c.manager.stop(), c.apiServer.stop(), c.etcd.stop())
	c.manager, c.apiServer, c.etcd = nil, nil, nil
	return errors.Join(err, os.RemoveAll(c.dir))
}

func (c *Cluster) startEtcd() (err error) {
	client, peer := "http://"+address(c.etcdPorts[0]), "http://"+address(c.etcdPorts[1])
	c.etcd, err = c.run("etcd", "--data-dir="+c.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	return err
}

func (c *Cluster) startManager() (err error) {
	c.manager, err = c.run("kube-controller-manager",
		"--kubeconfig="+c.Kubeconfig(), "--leader-elect=false", "--secure-port=0",
		"--service-account-private-key-file="+c.path("accounts.key"), "--root-ca-file="+c.path("server.crt"),
		"--kube-api-qps=500", "--kube-api-burst=1000") // as hosted clusters have it
	return err
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *Cluster) kubeconfig(token, namespace string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test, namespace: %q}}]
clusters: [{name: test, cluster: {server: "https://%s", certificate-authority: %q}}]
users: [{name: test, user: {token: %q}}]
`, namespace, address(c.port), c.path("server.crt"), token)
}

// find looks for the binaries where KUBEBUILDER_ASSETS says and in the cache
// that test/kube/build.sh fills.
func find(names ...string) (map[string]string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	user := cmp.Or(os.Getenv("XDG_CACHE_HOME"), filepath.Join(home, ".cache"))
	cache := cmp.Or(os.Getenv("TIDEMILL_CACHE"), filepath.Join(user, "tidemill"))
	var dirs []string
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		dirs = append(dirs, assets)
	}
	dirs = append(dirs, filepath.Join(cache, "kube-"+Version))
	found := make(map[string]string)
	var missing []string
	for _, name := range names {
		for _, dir := range dirs {
			if file := filepath.Join(dir, name); found[name] == "" && executable(file) {
				found[name] = file
			}
		}
		if found[name] == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("no %s in %s; run test/kube/build.sh, which builds what is missing",
			strings.Join(missing, ", "), strings.Join(dirs, " or "))
	}
	return found, nil
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
