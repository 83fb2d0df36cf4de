package kube

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const kubeconfig = `apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test, namespace: media}}]
clusters: [{name: test, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: test, user: {token: none}}]
`

func TestClient(t *testing.T) { // not parallel: it sets the environment
	dir := t.TempDir()
	good, bad, none := filepath.Join(dir, "good"), filepath.Join(dir, "bad"), filepath.Join(dir, "none")
	for file, text := range map[string]string{good: kubeconfig, bad: "clusters: {}[]"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		flag, env string
		inCluster bool
		want      string // in the error; "" for none
	}{
		"flag":                        {flag: good},
		"flag wins over a cluster":    {flag: good, inCluster: true},
		"environment":                 {env: good},
		"cluster wins over it":        {env: good, inCluster: true, want: "reading this pod's service account"},
		"flag names nothing":          {flag: none, env: good, want: none},
		"flag names nonsense":         {flag: bad, want: bad},
		"neither cluster nor any one": {env: none, want: "no Kubernetes cluster to talk to"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", test.env)
			t.Setenv("HOME", dir)
			t.Setenv("KUBERNETES_SERVICE_PORT", "1")
			t.Setenv("KUBERNETES_SERVICE_HOST", "")
			if test.inCluster { // but without the files that a pod has
				t.Setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
			}
			client, err := Client(test.flag)
			if test.want == "" && (err != nil || client == nil) {
				t.Errorf("error %v, want a client", err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestNamespace(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Namespace(file); err != nil || got != "media" {
		t.Errorf("the namespace is %q (error: %v), want media", got, err)
	}
	if got, err := Namespace(file + "-missing"); err == nil || !strings.Contains(err.Error(), "-missing") {
		t.Errorf("a missing kubeconfig gives namespace %q and error %v", got, err)
	}
}

func TestElectNeedsNames(t *testing.T) {
	t.Parallel()
	for _, c := range []Candidate{{Lease: "a"}, {Identity: "a"}} {
		if err := Elect(t.Context(), c, nil); err == nil {
			t.Errorf("%+v may stand for election", c)
		}
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "short", strings.Repeat("a", 20), strings.Repeat("é", 20), strings.Repeat("水", 20)} {
		for n := 4; n < 70; n++ {
			got := clip(text, n)
			if len(got) > n || !utf8.ValidString(got) {
				t.Errorf("clip(%q, %d) is %q", text, n, got)
			}
			if len(text) <= n && got != text {
				t.Errorf("clip(%q, %d) is %q, want it whole", text, n, got)
			}
		}
	}
}

func TestSink(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{LevelKey: "level", MessageKey: "msg", NameKey: "name", EncodeLevel: zapcore.LowercaseLevelEncoder})
	log := logger(zap.New(zapcore.NewCore(encoder, zapcore.AddSync(&out), zapcore.InfoLevel)))
	log.WithName("reflector").WithValues("kind", "Job").Error(errors.New("refused"), "watching", "try", 1)
	log.Info("leading", "lease", "tidemill")
	log.V(1).Info("details that nobody asked for")
	const want = `{"level":"warn","name":"reflector","msg":"watching","kind":"Job","try":1,"error":"refused"}
{"level":"info","msg":"leading","lease":"tidemill"}
`
	if got := out.String(); got != want {
		t.Errorf("logged %s\nwant %s", got, want)
	}
}
