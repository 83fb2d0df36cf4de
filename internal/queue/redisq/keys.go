package redisq

import (
	"crypto/sha256"
	"strconv"
	"time"

	"tidemill/internal/item"
)

// Every key is built in this file. All keys of a queue carry the same hash tag,
// {PREFIX/NAME}, and so share a slot of a Redis Cluster; the prefix keeps two
// installations on one Redis apart.

const digestBytes = 16

type keys struct {
	fixed []string // in the order that scripts/lib.lua names them
	args  []any    // the leading ARGV of every script
	base  string
}

func newKeys(prefix, name string, tombstones time.Duration) keys {
	base := "tidemill:{" + prefix + "/" + name + "}:"
	k := keys{base: base}
	for _, part := range []string{
		"pending", "leases", "delayed", "dead", "idle", "seen", "barred", "holders", "counters", "wake", "rev", "owners",
	} {
		k.fixed = append(k.fixed, base+part)
	}
	k.args = []any{base + "item:", base + "worker:", base + "done:", strconv.FormatInt(tombstones.Milliseconds(), 10)}
	return k
}

func (k keys) scalerWake() string              { return k.base + "wake" }
func (k keys) workerWake(worker string) string { return k.base + "worker:" + worker }
func (k keys) revision() string                { return k.base + "rev" }

// settingsKey holds the accepted settings of all pipelines of one installation.
func settingsKey(prefix string) string { return "tidemill:{" + prefix + "}:settings" }

// digest stands for a done item in the tombstone sets: 16 bytes instead of a
// name of up to 1 KiB.
func digest(id item.ID) string {
	sum := sha256.Sum256([]byte(id))
	return string(sum[:digestBytes])
}
