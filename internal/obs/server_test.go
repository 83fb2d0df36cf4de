package obs_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"tidemill/internal/obs"
)

// patience is how long a test waits for what should take milliseconds.
const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, o obs.ServeOptions) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := obs.Serve(ctx, "127.0.0.1:0", o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	stop = func() error { cancel(); return s.Wait() }
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return "http://" + s.Addr(), stop
}

func client(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestProbes(t *testing.T) {
	t.Parallel()
	h := obs.NewHealth("redis")
	url, _ := serve(t, obs.ServeOptions{Health: h})
	c := client(t)
	check := func(path string, wantCode int, want string) {
		t.Helper()
		code, body := get(t, c, url+path)
		if code != wantCode {
			t.Errorf("GET %s: status %d, want %d", path, code, wantCode)
		}
		var got, wanted any
		if err := errors.Join(json.Unmarshal([]byte(body), &got), json.Unmarshal([]byte(want), &wanted)); err != nil {
			t.Fatalf("GET %s: %v in %q", path, err, body)
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("GET %s (-want +got):\n%s", path, diff)
		}
	}
	check("/readyz", 503, `{"ready":false,"failing":[{"name":"redis","reason":"not checked yet"}]}`)
	check("/healthz", 200, `{"alive":true,"failing":[]}`)
	h.Set("redis", nil)
	check("/readyz", 200, `{"ready":true,"failing":[]}`)
	h.Set("redis", errors.New("refused\n\"by\" peer"))
	check("/readyz", 503, `{"ready":false,"failing":[{"name":"redis","reason":"refused\n\"by\" peer"}]}`)
	check("/healthz", 200, `{"alive":true,"failing":[]}`) // a bad dependency is no reason for a restart
	h.Beat("lease", time.Nanosecond)
	for len(h.Stalled()) == 0 { // a nanosecond
		h.Failing()
	}
	code, body := get(t, c, url+"/healthz")
	if code != 503 || !strings.Contains(body, `"alive":false`) || !strings.Contains(body, `"name":"lease"`) {
		t.Errorf("with a stalled loop /healthz answers %d %s", code, body)
	}
	if code, _ := get(t, c, url+"/metrics"); code != 404 {
		t.Errorf("/metrics without a registry: status %d, want 404", code)
	}
	if code, _ := get(t, c, url+"/other"); code != 404 {
		t.Errorf("/other without a handler: status %d, want 404", code)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg, err := obs.NewRegistry("v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	own := prometheus.NewCounter(prometheus.CounterOpts{Name: "tidemill_test_total", Help: "A test's."})
	reg.MustRegister(own)
	own.Inc()
	url, _ := serve(t, obs.ServeOptions{Metrics: reg, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "page "+r.URL.Path)
	})})
	c := client(t)
	code, body := get(t, c, url+"/metrics")
	if code != 200 {
		t.Errorf("status %d", code)
	}
	for _, want := range []string{
		`tidemill_build_info{version="v1.2.3"} 1`, "tidemill_test_total 1", "\ngo_goroutines ", "\nprocess_start_time_seconds ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	if _, body := get(t, c, url+"/queue"); body != "page /queue" {
		t.Errorf("the handler answered %q", body)
	}
	other, err := obs.NewRegistry("v1.2.3")
	if err != nil {
		t.Fatalf("a second registry in one process: %v", err)
	}
	families, err := other.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tidemill_test_total" {
			t.Error("registries share their metrics")
		}
	}
}

func TestNewRegistryRefusesABadVersion(t *testing.T) {
	t.Parallel()
	if _, err := obs.NewRegistry("\xff"); err == nil || !strings.Contains(err.Error(), `"\xff"`) {
		t.Errorf("error %v does not name the version", err)
	}
}

// A stream must not hold up the shutdown, and a request in progress must be
// allowed to finish.
func TestShutdown(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}, 2), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
		close(release)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "finished")
	})
	url, stop := serve(t, obs.ServeOptions{Handler: mux, Log: zap.NewNop()})
	c := client(t)
	bodies := make(chan string, 2)
	for _, path := range []string{"/stream", "/slow"} {
		go func() {
			resp, err := c.Get(url + path)
			if err != nil {
				bodies <- path + " failed: " + err.Error()
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			bodies <- path + " " + string(body)
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}()
	}
	<-begun
	<-begun
	start := time.Now()
	if err := stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if took := time.Since(start); took >= obs.ShutdownGrace {
		t.Errorf("stopping took %s: the stream held it up", took)
	}
	got := map[string]bool{<-bodies: true, <-bodies: true}
	if diff := cmp.Diff(map[string]bool{"/stream ": true, "/slow finished": true}, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	if resp, err := c.Get(url + "/readyz"); err == nil {
		_ = resp.Body.Close()
		t.Error("the server still answers")
	}
}

func TestListenErrorNamesTheFlag(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for addr, flag := range map[string]string{l.Addr().String(): "--metrics-listen", "nonsense": "--listen"} {
		o := obs.ServeOptions{Flag: flag}
		if flag == "--listen" {
			o.Flag = ""
		}
		_, err := obs.Serve(t.Context(), addr, o)
		if err == nil || !strings.Contains(err.Error(), `"`+addr+`"`) || !strings.Contains(err.Error(), "with "+flag+",") {
			t.Errorf("Serve(%q) = %v, want the address and %s in it", addr, err, flag)
		}
	}
}

func TestNoAddressNoServer(t *testing.T) {
	t.Parallel()
	s, err := obs.Serve(t.Context(), "", obs.ServeOptions{})
	if err != nil || s.Addr() != "" {
		t.Fatalf("Serve = %v, %v", s, err)
	}
	if err := s.Wait(); err != nil {
		t.Errorf("Wait = %v", err)
	}
}
