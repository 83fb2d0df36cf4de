package queuetest

import (
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemill/internal/queue"
)

func settingsCases() []testCase {
	return []testCase{
		{"settings before any were accepted", Options{}, noSettings},
		{"settings revisions grow with changes only", Options{}, revisions},
		{"settings revision reaches workers of all pipelines", Options{}, revisionReachesWorkers},
	}
}

func (e *env) accept(pipelines map[string]map[string]string) int64 {
	e.Helper()
	rev, err := e.Settings.Accept(e.ctx(), pipelines)
	if err != nil {
		e.Fatalf("Accept: %v", err)
	}
	return rev
}

func (e *env) wantSettings(want queue.Settings) {
	e.Helper()
	got, err := e.Settings.Settings(e.ctx())
	if err != nil {
		e.Fatalf("Settings: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		e.Errorf("settings (-want +got):\n%s", diff)
	}
}

func noSettings(e *env) {
	e.wantSettings(queue.Settings{Pipelines: map[string]map[string]string{}})
	if turned := e.poll("w"); turned.Revision != 0 {
		e.Errorf("revision %d, want 0: none yet", turned.Revision)
	}
}

func revisions(e *env) {
	one := map[string]map[string]string{"pipeline": {"command": "tr a-z A-Z", "note": "multi\nline \"quoted\" ü"}}
	two := map[string]map[string]string{"pipeline": {"command": "cat"}, "other": {}}
	first := e.accept(one)
	if first <= 0 {
		e.Errorf("first revision %d, want positive", first)
	}
	e.wantSettings(queue.Settings{Revision: first, Pipelines: one})
	e.Advance(2 * time.Millisecond)
	if again := e.accept(one); again != first {
		e.Errorf("revision %d of unchanged settings, want %d", again, first)
	}
	second := e.accept(two)
	if second <= first {
		e.Errorf("revision %d after %d, want a greater one", second, first)
	}
	e.wantSettings(queue.Settings{Revision: second, Pipelines: two})
	if third := e.accept(one); third <= second {
		e.Errorf("revision %d after %d, want a greater one for settings of old", third, second)
	}
}

func revisionReachesWorkers(e *env) {
	other := &env{T: e.T, Server: e.Server, q: e.Server.Queue("other")}
	rev := e.accept(map[string]map[string]string{"pipeline": {}, "other": {}})
	for name, q := range map[string]*env{"pipeline": e, "other": other} {
		if turned := q.poll("w"); turned.Revision != rev {
			e.Errorf("worker of %s was told revision %d, want %d", name, turned.Revision, rev)
		}
	}
	rev = e.accept(map[string]map[string]string{"pipeline": {}})
	if turned := other.poll("w"); turned.Revision != rev {
		e.Errorf("worker of a removed pipeline was told revision %d, want %d", turned.Revision, rev)
	}
}
