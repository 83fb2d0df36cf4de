package result_test

import (
	"cmp"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"tidemill/internal/item"
	"tidemill/internal/queue"
	"tidemill/internal/result"
)

// Any two fences of one source are ordered: by generation, then run, then token.
func TestLessIsATotalOrder(t *testing.T) {
	t.Parallel()
	var fences []result.Fence // built in ascending order
	for _, generation := range []int64{1, 2} {
		for _, run := range []int{0, 1} {
			for _, seq := range []int64{0, 9} {
				for _, nonce := range []string{"", "0a", "ff"} {
					fences = append(fences, result.Fence{
						Source: "b/n", Generation: generation, Run: run, Token: queue.Token{Seq: seq, Nonce: nonce},
					})
				}
			}
		}
	}
	for i, f := range fences {
		for j, g := range fences {
			if got, want := f.Less(g), i < j; got != want {
				t.Errorf("%+v.Less(%+v) = %t, want %t", f, g, got, want)
			}
		}
	}
	shuffled := slices.Clone(fences)
	slices.Reverse(shuffled)
	slices.SortFunc(shuffled, func(f, g result.Fence) int {
		return cmp.Compare(b2i(g.Less(f)), b2i(f.Less(g)))
	})
	if diff := gocmp.Diff(fences, shuffled); diff != "" {
		t.Errorf("sorted by Less (-want +got):\n%s", diff)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestFenceOf(t *testing.T) {
	t.Parallel()
	it := item.Item{Object: item.Object{Bucket: "b", Name: "d/n", Generation: 3}, Run: 2}
	want := result.Fence{Source: "b/d/n", Generation: 3, Run: 2, Token: queue.Token{Seq: 5, Nonce: "ab"}}
	if got := result.FenceOf(it, queue.Token{Seq: 5, Nonce: "ab"}); got != want {
		t.Errorf("FenceOf: %+v, want %+v", got, want)
	}
}

func TestFenceFromRefuses(t *testing.T) {
	t.Parallel()
	good := result.Fence{Source: "b/n", Generation: 1, Token: queue.Token{Seq: 5, Nonce: "ab"}}.Metadata()
	if _, ok := result.FenceFrom(good); !ok {
		t.Fatalf("%v is not read", good)
	}
	if f, ok := result.FenceFrom(nil); ok || f != (result.Fence{}) {
		t.Errorf("no metadata is read as %+v", f)
	}
	for key, values := range map[string][]string{
		"tidemill-source":     {""},
		"tidemill-generation": {"", "x", "0", "-1", "9223372036854775808"},
		"tidemill-run":        {"", "x", "-1"},
		"tidemill-token":      {"", "x", "5", "-5-ab", "x-ab"},
	} {
		for _, v := range values {
			bad := map[string]string{"other": "kept"}
			for k, w := range good {
				bad[k] = w
			}
			bad[key] = v
			if f, ok := result.FenceFrom(bad); ok || f != (result.Fence{}) {
				t.Errorf("%s %q is read as %+v", key, v, f)
			}
		}
	}
}

func FuzzFenceMetadata(f *testing.F) {
	f.Add("b/n", int64(1), 0, int64(1760000000000001), "00ff00ff")
	f.Add("b/n#1-2", int64(9), 3, int64(0), "-a-b-")
	f.Fuzz(func(t *testing.T, source string, generation int64, run int, seq int64, nonce string) {
		want := result.Fence{Source: source, Generation: generation, Run: run, Token: queue.Token{Seq: seq, Nonce: nonce}}
		valid := source != "" && generation > 0 && run >= 0 && seq >= 0
		got, ok := result.FenceFrom(want.Metadata())
		if ok != valid || ok && got != want {
			t.Errorf("%+v is read as %+v, %t", want, got, ok)
		}
	})
}
