package obs_test

import (
	"strings"
	"testing"

	"tidemill/internal/obs"
)

func TestRedactURL(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	for in, want := range map[string]string{
		"":                                       "",
		"redis://localhost:6379/0":               "redis://localhost:6379/0",
		"localhost:6379":                         "localhost:6379",
		"redis://:s3cr3t@h:6379/0":               "redis://:xxxxx@h:6379/0",
		"rediss://user:s3cr3t@h:6379?db=1":       "rediss://user:xxxxx@h:6379?db=1",
		"redis://user@h:6379":                    "redis://user@h:6379",
		"user:s3cr3t@h:6379":                     "user:xxxxx@h:6379",
		"redis://u:a/s3cr3t@h":                   "redis://u:xxxxx@h",
		"redis://u:12#s3cr3t@h":                  "redis://u:xxxxx@h",
		"redis://u:a?s3cr3t@h":                   "redis://u:xxxxx@h",
		"redis://u:a@s3cr3t@h":                   "redis://u:xxxxx@h",
		"redis://u:a:s3cr3t@h":                   "redis://u:xxxxx@h",
		"redis://u:s3cr3t%zz\n@h":                "redis://u:xxxxx@h",
		"redis://:a@h1,redis://:s3cr3t@h2":       "redis://:xxxxx@h2",
		"redis://h?sentinel_password=s3cr3t&a=b": "redis://h?sentinel_password=xxxxx&a=b",
		"redis://h?a=b;Password=s3cr3t":          "redis://h?a=b&Password=xxxxx",
		"redis://h?p%61ssword=s3cr3t":            "redis://h?p%61ssword=xxxxx",
		"redis://u:s3cr3t@h?auth=s3cr3t":         "redis://u:xxxxx@h?auth=xxxxx",
		"redis://[::1]:6379":                     "redis://[::1]:6379",
		"redis://h:6379?addr=h2:6379&db=3":       "redis://h:6379?addr=h2:6379&db=3",
		"redis://u:s3cr3t@h:6379?addr=h2:6379":   "redis://u:xxxxx@h:6379?addr=h2:6379",
		"unix://u:s3cr3t@/var/run/redis.sock?db": "unix://u:xxxxx@/var/run/redis.sock?db",
	} {
		got := obs.RedactURL(in)
		if got != want {
			t.Errorf("RedactURL(%q) = %q, want %q", in, got, want)
		}
		if strings.Contains(got, secret) {
			t.Errorf("RedactURL(%q) = %q shows the secret", in, got)
		}
		if again := obs.RedactURL(got); again != got {
			t.Errorf("RedactURL(%q) = %q: not stable", got, again)
		}
	}
}
