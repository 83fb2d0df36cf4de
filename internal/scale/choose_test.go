package scale

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

type settings = map[string]map[string]string

// keys are a pipeline's settings: its match, and more keys and values.
func keys(match string, more ...string) map[string]string {
	m := map[string]string{"bucket": "in-bucket", "match": match}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

func TestChoose(t *testing.T) {
	t.Parallel()
	a, b, c := keys("a/**"), keys("b/**"), keys("c/**")
	bad := keys("x/**", "max-workers", "none")
	for _, test := range []struct {
		name                string
		offer, before, want settings
		blamed, set         []string
	}{
		{"all are good", settings{"a": a, "b": b}, nil, settings{"a": a, "b": b}, nil, []string{"a", "b"}},
		{"one is new and bad", settings{"a": bad, "b": b}, nil, settings{"b": b}, []string{"a"}, []string{"b"}},
		{"one was good and is bad", settings{"a": bad, "b": c}, settings{"a": a, "b": b}, settings{"a": a, "b": c}, []string{"a"}, []string{"a", "b"}},
		{"one goes, one is bad", settings{"a": bad}, settings{"a": a, "b": b}, settings{"a": a}, []string{"a"}, []string{"a"}},
		{"all go", settings{}, settings{"a": a}, settings{}, nil, nil},
		{"two change places", settings{"a": b, "b": a}, settings{"a": a, "b": b}, settings{"a": b, "b": a}, nil, []string{"a", "b"}},
		{"two change places beside a bad one", settings{"a": b, "b": a, "z": bad}, settings{"a": a, "b": b}, settings{"a": b, "b": a}, []string{"z"}, []string{"a", "b"}},
		{
			"a newcomer that sorts first disturbs one in force", settings{"a": keys("b/*"), "b": b, "c": c}, settings{"b": b},
			settings{"b": b, "c": c}, []string{"a"}, []string{"b", "c"},
		},
		{
			"a change makes room for a newcomer, another one is in the way", settings{"a": b, "b": c, "c": keys("b/*")}, settings{"b": b},
			settings{"a": b, "b": c}, []string{"c"}, []string{"a", "b"},
		},
		{
			"one in force is not valid for this program", settings{"a": bad, "b": b}, settings{"a": bad, "b": b},
			settings{"a": bad, "b": b}, []string{"a"}, []string{"b"},
		},
		{
			"and is mended", settings{"a": a, "b": b}, settings{"a": bad, "b": b},
			settings{"a": a, "b": b}, nil, []string{"a", "b"},
		},
	} {
		for range 5 { // maps have no order, the choice has
			got := choose(test.offer, test.before)
			if diff := cmp.Diff(test.want, got.accepted); diff != "" {
				t.Errorf("%s: accepted (-want +got):\n%s", test.name, diff)
			}
			var blamed []string
			for _, p := range got.problems {
				blamed = append(blamed, p.Pipeline)
			}
			if diff := cmp.Diff(test.blamed, blamed); diff != "" {
				t.Errorf("%s: blamed (-want +got):\n%s", test.name, diff)
			}
			if diff := cmp.Diff(test.set, got.set.Names()); diff != "" {
				t.Errorf("%s: in the set (-want +got):\n%s", test.name, diff)
			}
		}
	}
}
