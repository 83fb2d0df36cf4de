package gcp_test

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Started by the import, for good.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
		// Sees that its stream is gone only at its next tick, seconds later.
		goleak.IgnoreTopFunction("cloud.google.com/go/pubsub/v2.(*messageIterator).streamKeepAliveHandler"))
}
