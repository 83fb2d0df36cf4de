package redisq_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tidemill/internal/item"
	"tidemill/internal/queue"
	"tidemill/internal/queue/redisq"
)

func itoa(n int) string { return strconv.Itoa(n) }

// What somebody's hands can break, and what mends it. Each case leaves one item,
// thing(1), waiting, with nothing else counted.
func TestCase25DamageIsRepaired(t *testing.T) {
	t.Parallel()
	id := string(thing(1).ID())
	cases := map[string]func(w *world){
		"lease entry deleted, worker alive": func(w *world) {
			l := w.lease("w")
			w.do("ZREM", w.base+"leases", id)
			lost, err := w.q.Extend(w.Context(), "w", long, []queue.Held{{ID: l.Item.ID(), Token: l.Token}})
			if err != nil || len(lost) != 0 {
				w.Errorf("Extend = %v, %v; want the lease kept", lost, err)
			}
			w.wantDepths(0, 1, 0, 0, 1)
			w.turn("w", 0, ended(l, queue.Release))
		},
		"lease entry deleted, worker finishes": func(w *world) {
			l := w.lease("w")
			w.do("ZREM", w.base+"leases", id)
			w.turn("w", 0, ended(l, queue.Release))
		},
		"lease entry deleted, worker dead": func(w *world) {
			w.lease("w")
			w.do("ZREM", w.base+"leases", id)
			w.wantDepths(0, 1, 0, 0, 1)
			if s := w.stats(); s.NextExpiry < 0 || s.NextExpiry > time.Minute {
				w.Errorf("mended lease expires in %v, want a minute at most", s.NextExpiry)
			}
			w.expireAll()
		},
		"lease and owner deleted, sent again": func(w *world) {
			w.lease("w")
			w.do("ZREM", w.base+"leases", id)
			w.do("HDEL", w.base+"owners", id)
			w.do("DEL", w.base+"holders")
			w.enqueue(thing(1))
			w.wantDepths(0, 1, 0, 0, 1)
			w.expireAll()
		},
		"owner deleted": func(w *world) {
			l := w.lease("w")
			w.do("HDEL", w.base+"owners", id)
			w.wantDepths(0, 1, 0, 0, 1)
			w.turn("w", 0, ended(l, queue.Release))
		},
		"holders deleted": func(w *world) {
			l := w.lease("w")
			w.do("DEL", w.base+"holders")
			w.wantDepths(0, 1, 0, 0, 1)
			w.turn("w", 0, ended(l, queue.Release))
		},
		"holder without a lease": func(w *world) {
			w.do("HSET", w.base+"holders", "phantom", 1)
		},
		"item hash deleted while leased": func(w *world) {
			l := w.lease("w")
			w.do("DEL", w.base+"item:"+id)
			if v := w.turn("w", 0, ended(l, queue.Done)).Verdicts[0]; v != queue.Refused {
				w.Errorf("verdict %v, want refused", v)
			}
			w.expireAll()
			w.wantDepths(0, 0, 0, 0, 0)
			w.enqueue(thing(1))
		},
		"item hash deleted while leased, sent and leased again": func(w *world) {
			old := w.lease("old")
			w.do("DEL", w.base+"item:"+id)
			w.enqueue(thing(1))
			l := w.lease("w")
			w.wantDepths(0, 1, 0, 0, 1)
			w.turn("old", 0, ended(old, queue.Done))
			w.wantDepths(0, 1, 0, 0, 1)
			w.turn("w", 0, ended(l, queue.Release))
		},
		"item hash deleted while waiting": func(w *world) {
			w.do("DEL", w.base+"item:"+id)
			w.wantDepths(0, 0, 0, 0, 0) // a phantom must not hold a worker
			w.enqueue(thing(1))
		},
		"item hash deleted while delayed": func(w *world) {
			w.turn("w", 0, ended(w.lease("w"), queue.Defer))
			w.do("DEL", w.base+"item:"+id)
			w.wantDepths(0, 0, 0, 0, 0)
			w.enqueue(thing(1))
		},
		"extra lease entry of a waiting item": func(w *world) {
			w.turn("w", 0, ended(w.lease("w"), queue.Release)) // w last held it
			w.enqueue(thing(2))
			both := w.turn("w", 2).Leases
			w.turn("w", 0, ended(both[0], queue.Release)) // and holds another now
			w.do("ZADD", w.base+"leases", 1, id)
			w.wantDepths(1, 1, 0, 0, 1)
			w.turn("w", 0, ended(both[1], queue.Done))
		},
		"extra lease entry that never expires": func(w *world) {
			w.do("ZADD", w.base+"leases", "+inf", "in/unknown#1")
			w.do("ZADD", w.base+"leases", "+inf", id)
		},
		"extra list entries": func(w *world) {
			w.do("RPUSH", w.base+"pending", id, "in/unknown#1", "no item at all", "")
			if n := len(w.turn("w", 5).Leases); n != 1 {
				w.Errorf("%d leases, want one of the one item", n)
			}
			w.expireAll()
		},
		"list deleted, sent again": func(w *world) {
			w.turn("sleeper", 0)
			w.do("DEL", w.base+"pending")
			w.turn("sleeper", 1)
			w.enqueue(thing(1))
			w.wantWoken("sleeper")
		},
		"delayed entry deleted, sent again": func(w *world) {
			c := ended(w.lease("w"), queue.Defer)
			c.Delay = time.Hour
			w.turn("w", 0, c)
			w.do("ZREM", w.base+"delayed", id)
			w.enqueue(thing(1))
		},
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(w *world) {
				w.enqueue(thing(1))
				damage(w)
				w.wantDepths(1, 0, 0, 0, 0)
				if got := w.lease("last").Item.ID(); got != thing(1).ID() {
					w.Errorf("leased %s, want the item", got)
				}
				w.wantDepths(0, 1, 0, 0, 1)
			})
		})
	}
}

func TestCase25DeadEntryDeleted(t *testing.T) {
	t.Parallel()
	onBoth(t, func(w *world) {
		w.enqueue(thing(1))
		w.turn("w", 0, ended(w.lease("w"), queue.Bury))
		w.do("ZREM", w.base+"dead", string(thing(1).ID()))
		w.enqueue(thing(1))
		w.wantDepths(0, 0, 0, 1, 0)
	})
}

// expireAll makes all leases run out now.
func (w *world) expireAll() {
	w.Helper()
	ids, err := w.raw.ZRange(w.Context(), w.base+"leases", 0, -1).Result()
	if err != nil {
		w.Fatal(err)
	}
	for _, id := range ids {
		if err := w.raw.Do(w.Context(), "ZADD", w.base+"leases", 1, id).Err(); err != nil {
			w.Fatal(err)
		}
	}
	w.stats()
}

func TestStrayEntriesAreClearedInBoundedSteps(t *testing.T) {
	t.Parallel()
	onBoth(t, func(w *world) {
		const strays = 1000
		args := []any{"RPUSH", w.base + "pending"}
		for i := range strays {
			args = append(args, "stray"+itoa(i))
		}
		w.do(args...)
		w.enqueue(thing(1))
		turns := 1
		for ; len(w.turn("w", 1).Leases) == 0; turns++ {
			w.wantWoken("w") // at once, because there may be work behind the strays
			if turns > strays {
				w.Fatal("the item behind the strays was not found")
			}
		}
		if turns < 3 {
			w.Errorf("%d turns for %d strays: one call cleared too many away", turns, strays)
		}
		w.wantDepths(0, 1, 0, 0, 1)
	})
}

func TestCase24DataLost(t *testing.T) {
	t.Parallel()
	onBoth(t, func(w *world) {
		settings := map[string]map[string]string{"p": {"command": "cat"}}
		rev, err := w.server.Accept(w.Context(), settings)
		if err != nil {
			w.Fatal(err)
		}
		w.enqueue(things(3)...)
		l := w.lease("w")
		w.turn("sleeper", 3) // takes the rest
		w.turn("idle", 1)
		if err := w.raw.FlushAll(w.Context()).Err(); err != nil {
			w.Fatal(err)
		}
		w.advance(2 * time.Millisecond)

		turned := w.turn("w", 1, ended(l, queue.Done))
		if turned.Verdicts[0] != queue.Refused || len(turned.Leases) != 0 || turned.Revision != 0 {
			w.Errorf("Turn after the loss = %+v, want a refusal and nothing else", turned)
		}
		if lost, err := w.q.Extend(w.Context(), "w", long, []queue.Held{{ID: l.Item.ID(), Token: l.Token}}); err != nil || len(lost) != 1 {
			w.Errorf("Extend = %v, %v; want the lease lost", lost, err)
		}
		w.wantDepths(0, 0, 0, 0, 0)
		if s := w.stats(); s.Counters != (queue.Counters{}) {
			w.Errorf("counters %+v, want zeros", s.Counters)
		}
		if held, err := w.server.Settings(w.Context()); err != nil || held.Revision != 0 {
			w.Errorf("Settings = %+v, %v; want none", held, err)
		}
		if again, err := w.server.Accept(w.Context(), settings); err != nil || again <= rev {
			w.Errorf("Accept = %d, %v; want a revision after %d", again, err, rev)
		}
		for i, added := range w.enqueue(things(3)...) { // the backfill
			if added != queue.AddedNew {
				w.Errorf("item %d: %v, want new", i, added)
			}
		}
		again := w.lease("w")
		if !l.Token.Less(again.Token) || again.Delivery != 1 {
			w.Errorf("token %v, delivery %d after token %v; want a later one, 1", again.Token, again.Delivery, l.Token)
		}
		w.turn("w", 0, ended(again, queue.Done))
		w.wantDepths(2, 0, 0, 0, 0)
	})
}

// hashTag is the part of a key that decides its slot, as the Cluster
// specification has it.
func hashTag(key string) string {
	open := strings.IndexByte(key, '{')
	if open < 0 {
		return key
	}
	length := strings.IndexByte(key[open+1:], '}')
	if length < 1 {
		return key
	}
	return key[open+1 : open+1+length]
}

func TestCase37And41KeysLeftBehind(t *testing.T) {
	t.Parallel()
	run := func(w *world) {
		for i, name := range []string{"}", "{x}", "a}:pending", "{", "plain", "\r\nDEL x"} {
			w.enqueue(item.Item{Object: item.Object{Bucket: "in", Name: name, Generation: 1}})
			l := w.lease("worker}{" + itoa(i))
			kind := queue.Done
			if i%2 == 1 {
				kind = queue.Skip
			}
			w.turn("worker}{"+itoa(i), 1, ended(l, kind))
		}
		if _, err := w.q.Bar(w.Context(), 2); err != nil {
			w.Fatal(err)
		}
		w.wantDepths(0, 0, 0, 0, 0)
		keys, err := w.raw.Keys(w.Context(), "*").Result()
		if err != nil {
			w.Fatal(err)
		}
		lasting := []string{"idle", "seen", "barred", "counters", "wake"}
		tombstones := 0
		for _, key := range keys {
			if tag := hashTag(key); tag != redisq.DefaultPrefix+"/p" {
				w.Errorf("key %q has the hash tag %q, so it may be in another slot", key, tag)
			}
			rest := strings.TrimPrefix(key, w.base)
			ttl, err := w.raw.PTTL(w.Context(), key).Result()
			if err != nil {
				w.Fatal(err)
			}
			switch {
			case strings.HasPrefix(rest, "done:"):
				tombstones++
				if ttl < 24*time.Hour-patience || ttl > 30*time.Hour {
					w.Errorf("%s lives for %v, want a day and a quarter of it", key, ttl)
				}
			case strings.HasPrefix(rest, "worker:"):
				if ttl <= 0 || ttl > time.Minute {
					w.Errorf("%s lives for %v, want a minute at most", key, ttl)
				}
			case !slices.Contains(lasting, rest):
				w.Errorf("key %q is left, although all items are done", key)
			}
		}
		if tombstones == 0 {
			w.Error("there is no set of tombstones")
		}
	}
	onBoth(t, run)
	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		w := embedded(t, redisq.Options{}, 0)
		run(w)
		for range 24*60 - 1 {
			w.advance(time.Minute)
			if added := w.enqueue(item.Item{Object: item.Object{Bucket: "in", Name: "plain", Generation: 1}}); added[0] != queue.AddedDone {
				t.Fatalf("Enqueue within a day = %v, want a duplicate of a done item", added)
			}
		}
		w.advance(7 * time.Hour)
		keys, err := w.raw.Keys(t.Context(), w.base+"[dw]o*").Result()
		if err != nil || len(keys) != 0 {
			t.Errorf("a day later there are %q, %v; want no tombstones and no wake lists", keys, err)
		}
	})
}

func TestSilentIdleWorkersAreForgotten(t *testing.T) {
	t.Parallel()
	onBoth(t, func(w *world) {
		w.turn("silent", 1)
		w.advance(2 * time.Millisecond)
		w.turn("alive", 1)
		score, err := w.raw.ZScore(w.Context(), w.base+"seen", "silent").Result()
		if err != nil {
			w.Fatal(err)
		}
		aged := func(d time.Duration) {
			w.Helper()
			if err := w.raw.Do(w.Context(), "ZADD", w.base+"seen", int64(score)-d.Milliseconds(), "silent").Err(); err != nil {
				w.Fatal(err)
			}
		}
		aged(15 * time.Second)
		if s := w.stats(); s.Idle != 2 {
			w.Errorf("%d idle, want both: one only missed a call", s.Idle)
		}
		aged(time.Hour)
		if s := w.stats(); s.Idle != 1 {
			w.Errorf("%d idle, want only the one that still calls", s.Idle)
		}
		if names, err := w.q.Bar(w.Context(), 1); err != nil || !slices.Equal(names, []string{"alive"}) {
			w.Errorf("Bar = %v, %v; want the one that is alive", names, err)
		}
	})
}
