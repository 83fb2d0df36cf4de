package redisq_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	modelItems   = 25
	modelWorkers = 5
	modelSteps   = 400
)

// model is what the queue must agree with after every step. It knows the tokens
// and not the clock: whether a lease has expired by now it learns from the queue.
type model struct {
	*world
	rng    *rand.Rand
	live   map[item.ID]bool
	done   map[item.ID]bool
	tokens map[item.ID]queue.Token // the newest of each live item
	leases map[string][]queue.Lease
	barred []string
	log    []string
}

func TestRandomSteps(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 2, rand.Uint64()} {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(w *world) {
				m := &model{
					world: w, rng: rand.New(rand.NewPCG(seed, 0)), live: map[item.ID]bool{}, done: map[item.ID]bool{},
					tokens: map[item.ID]queue.Token{}, leases: map[string][]queue.Lease{},
				}
				for step := range modelSteps {
					m.step()
					m.check()
					if w.Failed() {
						w.Fatalf("seed %d, after step %d; the last ones were:\n%s", seed, step, strings.Join(m.log[max(0, len(m.log)-15):], "\n"))
					}
				}
			})
		})
	}
}

func (m *model) note(format string, args ...any) { m.log = append(m.log, fmt.Sprintf(format, args...)) }

func (m *model) worker() string { return "w" + itoa(m.rng.IntN(modelWorkers)) }

func (m *model) step() {
	switch n := m.rng.IntN(100); {
	case n < 25:
		m.enqueueSome()
	case n < 75:
		m.turnSome()
	case n < 83:
		m.extendSome()
	case n < 90:
		d := time.Duration(m.rng.IntN(10)) * time.Millisecond
		m.note("pass %v", d)
		m.advance(d)
	case n < 94:
		n := m.rng.IntN(modelWorkers)
		names, err := m.q.Bar(m.Context(), n)
		m.note("bar %d: %v, %v", n, names, err)
		if err != nil || len(names) > max(n, len(m.barred)) {
			m.Errorf("Bar(%d) = %v, %v; barred before: %v", n, names, err, m.barred)
		}
		m.barred = names
	case n < 97:
		w := m.worker()
		err := m.q.Unbar(m.Context(), w)
		m.note("unbar %s: %v", w, err)
		if err != nil {
			m.Errorf("Unbar: %v", err)
		}
		m.barred = slices.DeleteFunc(m.barred, func(b string) bool { return b == w })
	case n < 98:
		m.forget()
	default:
		w := m.worker()
		m.note("leave %s", w)
		if err := m.q.Leave(m.Context(), w); err != nil {
			m.Errorf("Leave: %v", err)
		}
	}
}

func (m *model) enqueueSome() {
	var items []item.Item
	for range 1 + m.rng.IntN(5) {
		items = append(items, thing(m.rng.IntN(modelItems)))
	}
	added := m.enqueue(items...)
	m.note("enqueue: %v", added)
	for i, it := range items {
		id := it.ID()
		want := queue.AddedNew
		switch {
		case m.live[id]:
			want = queue.AddedLive
		case m.done[id]:
			want = queue.AddedDone
		default:
			m.live[id] = true
		}
		if added[i] != want {
			m.Errorf("Enqueue of %s = %v, want %v", id, added[i], want)
		}
	}
}

// forget makes all tombstones expire.
func (m *model) forget() {
	m.note("forget")
	m.advance(time.Millisecond) // a forgotten item's tokens grow with the clock alone
	keys, err := m.raw.Keys(m.Context(), m.base+"done:*").Result()
	if err == nil && len(keys) > 0 {
		err = m.raw.Del(m.Context(), keys...).Err()
	}
	if err != nil {
		m.Fatal(err)
	}
	clear(m.done)
}

func (m *model) turnSome() {
	kinds := []queue.Kind{queue.Done, queue.Done, queue.Skip, queue.Retry, queue.Bury, queue.Defer, queue.Release}
	t := queue.Turn{Worker: m.worker(), Want: m.rng.IntN(4), Lease: long}
	if m.rng.IntN(3) == 0 {
		t.Lease = time.Duration(1+m.rng.IntN(8)) * time.Millisecond
	}
	var kept []queue.Lease
	for _, l := range m.leases[t.Worker] {
		if m.rng.IntN(3) == 0 {
			kept = append(kept, l)
			continue
		}
		c := ended(l, kinds[m.rng.IntN(len(kinds))])
		c.Delay = time.Duration(m.rng.IntN(6)) * time.Millisecond
		t.Completions = append(t.Completions, c)
		if m.rng.IntN(4) == 0 {
			kept = append(kept, l) // it is finished a second time later on
		}
	}
	turned, err := m.q.Turn(m.Context(), t)
	m.note("turn %+v: %+v, %v", t, turned, err)
	if err != nil || len(turned.Verdicts) != len(t.Completions) {
		m.Fatalf("Turn(%+v) = %+v, %v", t, turned, err)
	}
	for i, c := range t.Completions {
		newest := m.live[c.ID] && m.tokens[c.ID] == c.Token
		switch v := turned.Verdicts[i]; {
		case v == queue.Finished && !newest:
			m.Errorf("%s of %s with the token %v was accepted; the newest is %v", c.Kind, c.ID, c.Token, m.tokens[c.ID])
		case v == queue.Repeated && !newest && !m.done[c.ID]:
			m.Errorf("%s of %s counts as repeated", c.Kind, c.ID)
		case v == queue.Finished && (c.Kind == queue.Done || c.Kind == queue.Skip):
			delete(m.live, c.ID)
			m.done[c.ID] = true
		}
	}
	barred := slices.Contains(m.barred, t.Worker)
	if turned.Barred != barred || barred && len(turned.Leases) > 0 {
		m.Errorf("%s: barred %v with %d leases, want %v", t.Worker, turned.Barred, len(turned.Leases), barred)
	}
	for _, l := range turned.Leases {
		id := l.Item.ID()
		if !m.live[id] || !m.tokens[id].Less(l.Token) {
			m.Errorf("leased %s (live: %v) with the token %v after %v", id, m.live[id], l.Token, m.tokens[id])
		}
		m.tokens[id] = l.Token
	}
	m.leases[t.Worker] = append(kept, turned.Leases...)
}

func (m *model) extendSome() {
	w := m.worker()
	var held []queue.Held
	for _, l := range m.leases[w] {
		held = append(held, queue.Held{ID: l.Item.ID(), Token: l.Token})
	}
	lost, err := m.q.Extend(m.Context(), w, long, held)
	m.note("extend %v: lost %v, %v", held, lost, err)
	if err != nil {
		m.Errorf("Extend: %v", err)
	}
	for _, h := range held {
		if !slices.Contains(lost, h) && (!m.live[h.ID] || m.tokens[h.ID] != h.Token) {
			m.Errorf("Extend revived %s with the token %v; the newest is %v", h.ID, h.Token, m.tokens[h.ID])
		}
	}
}

// check compares the keys with each other, with the model and with Stats.
func (m *model) check() {
	m.Helper()
	ctx := m.Context()
	places := map[item.ID]string{}
	place := func(state string, ids []string, err error) {
		if err != nil {
			m.Fatal(err)
		}
		for _, id := range ids {
			if was, twice := places[item.ID(id)]; twice {
				m.Errorf("%s is in %s and in %s", id, was, state)
			}
			places[item.ID(id)] = state
		}
	}
	s := m.stats() // first, as it moves what is due
	ids, err := m.raw.LRange(ctx, m.base+"pending", 0, -1).Result()
	place("w", ids, err)
	for state, key := range map[string]string{"l": "leases", "d": "delayed", "x": "dead"} {
		ids, err := m.raw.ZRange(ctx, m.base+key, 0, -1).Result()
		place(state, ids, err)
	}
	keys, err := m.raw.Keys(ctx, m.base+"item:*").Result()
	if err != nil {
		m.Fatal(err)
	}
	states, holders := map[item.ID]string{}, map[string]string{}
	leased := map[string]int{}
	for _, key := range keys {
		fields, err := m.raw.HMGet(ctx, key, "s", "w").Result()
		if err != nil {
			m.Fatal(err)
		}
		states[item.ID(strings.TrimPrefix(key, m.base+"item:"))] = fields[0].(string)
		if fields[0] == "l" {
			leased[fields[1].(string)]++
		}
	}
	for worker, n := range leased {
		holders[worker] = itoa(n)
	}
	if diff := cmp.Diff(states, places); diff != "" {
		m.Errorf("items (-by their hash +by their place):\n%s", diff)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(m.live)), slices.Sorted(maps.Keys(states))); diff != "" {
		m.Errorf("live items (-model +redis):\n%s", diff)
	}
	counted, err := m.raw.HGetAll(ctx, m.base+"holders").Result()
	if err != nil {
		m.Fatal(err)
	}
	if diff := cmp.Diff(holders, counted); diff != "" {
		m.Errorf("holders (-leases grouped +counted):\n%s", diff)
	}
	if total := s.Waiting + s.Leased + s.Delayed + s.Dead; total != int64(len(m.live)) || s.Holders != int64(len(holders)) {
		m.Errorf("stats %+v; want %d items, %d holders", s, len(m.live), len(holders))
	}
	slices.Sort(m.barred)
	if !slices.Equal(s.Barred, m.barred) {
		m.Errorf("barred %v, want %v", s.Barred, m.barred)
	}
	for _, b := range s.Barred {
		if leased[b] > 0 {
			m.Errorf("%s is barred and holds %d leases", b, leased[b])
		}
	}
}
