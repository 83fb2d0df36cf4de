package emulator

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed java/io/grpc/InternalStatus.java
var repairSource []byte

const (
	jarPattern  = "platform/pubsub-emulator/lib/*.jar"
	classFile   = "io/grpc/InternalStatus.class"
	toolTimeout = 2 * time.Minute
)

// install is what running the emulator needs.
type install struct {
	java   string // path of the java command
	jar    string // the emulator's jar
	repair string // directory of the compiled repair
}

// findInstall locates Java and the emulator and compiles the repair. Its error
// names everything that is missing at once, and how to get it.
func findInstall(ctx context.Context) (install, error) {
	java, javaErr := find("java", "install a JDK, version 11 or later (apt-get install openjdk-17-jdk-headless)")
	javac, javacErr := find("javac", "a JRE alone is not enough; install a JDK, version 11 or later (apt-get install openjdk-17-jdk-headless)")
	jar, jarErr := findJar(ctx)
	if err := errors.Join(javaErr, javacErr, jarErr); err != nil {
		return install{}, fmt.Errorf("the Pub/Sub emulator can't be started:\n%w", err)
	}
	repair, err := compileRepair(ctx, javac, jar)
	if err != nil {
		return install{}, err
	}
	return install{java: java, jar: jar, repair: repair}, nil
}

func find(command, advice string) (string, error) {
	path, err := exec.LookPath(command)
	if err != nil {
		return "", fmt.Errorf("%s isn't on PATH: %s", command, advice)
	}
	return path, nil
}

// findJar looks where CLOUDSDK_ROOT_DIR points, then where gcloud says that it is
// installed.
func findJar(ctx context.Context) (string, error) {
	const advice = "install it with `gcloud components install pubsub-emulator`, or `apt-get install google-cloud-cli-pubsub-emulator` where gcloud came from there"
	root := os.Getenv("CLOUDSDK_ROOT_DIR")
	if root == "" {
		gcloud, err := find("gcloud", "install the Google Cloud CLI (https://cloud.google.com/sdk/docs/install) and its component pubsub-emulator")
		if err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(ctx, toolTimeout)
		defer cancel()
		out, err := exec.CommandContext(ctx, gcloud, "info", "--format=value(installation.sdk_root)").Output()
		if err != nil {
			return "", fmt.Errorf("asking %s for its root: %w", gcloud, err)
		}
		root = strings.TrimSpace(string(out))
	}
	jars, err := filepath.Glob(filepath.Join(root, jarPattern))
	if err != nil {
		return "", fmt.Errorf("looking for the Pub/Sub emulator below %q: %w", root, err)
	}
	if len(jars) != 1 {
		return "", fmt.Errorf("%d files match %s, want one: %s", len(jars), filepath.Join(root, jarPattern), advice)
	}
	return jars[0], nil
}

// compileRepair returns a directory with the compiled repair, which it keeps
// between runs for as long as the source and the emulator stay the same.
func compileRepair(ctx context.Context, javac, jar string) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	info, err := os.Stat(jar)
	if err != nil {
		return "", fmt.Errorf("reading the emulator's jar: %w", err)
	}
	key := sha256.New()
	fmt.Fprintf(key, "%s\n%s\n%d\n%d\n%s", javac, jar, info.Size(), info.ModTime().UnixNano(), repairSource)
	done := filepath.Join(cache, hex.EncodeToString(key.Sum(nil)[:8]))
	if _, err := os.Stat(filepath.Join(done, classFile)); err == nil {
		return done, nil
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", fmt.Errorf("making the cache directory: %w", err)
	}
	work, err := os.MkdirTemp(cache, "compile-")
	if err != nil {
		return "", fmt.Errorf("making a directory to compile in: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // a leftover costs a few bytes of cache
	source := filepath.Join(work, "InternalStatus.java")
	if err := os.WriteFile(source, repairSource, 0o600); err != nil {
		return "", fmt.Errorf("writing the repair's source: %w", err)
	}
	classes := filepath.Join(work, "classes")
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, javac, "--release", "11", "-proc:none", "-implicit:none",
		"-cp", jar, "-d", classes, source).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compiling the emulator's repair against %s: %w\n%s", jar, err, out)
	}
	// Another test binary may have been quicker; its result is as good.
	if err := os.Rename(classes, done); err != nil {
		if _, statErr := os.Stat(filepath.Join(done, classFile)); statErr != nil {
			return "", fmt.Errorf("keeping the compiled repair: %w", err)
		}
	}
	return done, nil
}

// cacheDir is the one that the Makefile uses as well.
func cacheDir() (string, error) {
	base := os.Getenv("TIDEMILL_CACHE")
	if base == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("finding a cache directory (set TIDEMILL_CACHE to choose one): %w", err)
		}
		base = filepath.Join(user, "tidemill")
	}
	return filepath.Join(base, "pubsub-emulator"), nil
}
