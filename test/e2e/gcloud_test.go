//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"tidemill/internal/testutil/proctest"
)

// gcloudUpload copies what is in dir to the uploads in the bucket, with the
// Google Cloud CLI. The CLI's configuration is this test's own.
func (s *system) gcloudUpload(t *testing.T, dir string) {
	t.Helper()
	path, err := exec.LookPath("gcloud")
	if err != nil {
		t.Fatalf("this test uploads with a real client: install the Google Cloud CLI (https://cloud.google.com/sdk/docs/install): %v", err)
	}
	// A trailing slash and star would let the shell's rules in: gcloud copies the
	// directory itself, so its name becomes a part of the objects' names.
	cmd := exec.Command(path, "storage", "cp", "--recursive", dir, "gs://"+bucketName+"/"+uploads)
	cmd.Env = append(os.Environ(),
		"CLOUDSDK_CONFIG="+t.TempDir(),
		"CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE="+s.store.url+"/storage/v1/",
		"CLOUDSDK_AUTH_DISABLE_CREDENTIALS=true",
		"CLOUDSDK_CORE_PROJECT="+project,
		"CLOUDSDK_CORE_DISABLE_PROMPTS=1",
		"CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=true",
		"CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK=true",
		"NO_PROXY=127.0.0.1",
	)
	p, err := proctest.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	select {
	case <-p.Done():
	case <-ctx.Done():
		t.Fatalf("gcloud has not finished: %v; it wrote:\n%s", ctx.Err(), p.Output())
	}
	if code := exitCode(t, p.Err()); code != 0 {
		t.Fatalf("gcloud ended with %d and wrote:\n%s", code, p.Output())
	}
}
