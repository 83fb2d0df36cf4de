package result

import (
	"errors"
	"net/url"
	"strconv"
	"strings"

	"tidemill/internal/item"
	"tidemill/internal/queue"
)

// Fence orders writers of one object's results: by source generation, then
// run, then lease token. A write may replace only what carries a lower fence.
type Fence struct {
	Source     string // bucket/name
	Generation int64
	Run        int
	Token      queue.Token
}

// FenceOf returns the fence of a leased item.
func FenceOf(it item.Item, t queue.Token) Fence {
	return Fence{Source: it.Path(), Generation: it.Generation, Run: it.Run, Token: t}
}

// Less reports whether f gives way to g. Both must have the same source.
func (f Fence) Less(g Fence) bool {
	switch {
	case f.Generation != g.Generation:
		return f.Generation < g.Generation
	case f.Run != g.Run:
		return f.Run < g.Run
	}
	return f.Token.Less(g.Token)
}

// Metadata keys that every object written by Tidemill carries.
const (
	metaSource     = "tidemill-source"
	metaGeneration = "tidemill-generation"
	metaRun        = "tidemill-run"
	metaToken      = "tidemill-token"
)

// Metadata returns the fence as object metadata.
func (f Fence) Metadata() map[string]string {
	return map[string]string{
		metaSource:     url.PathEscape(f.Source), // metadata travels in HTTP headers
		metaGeneration: strconv.FormatInt(f.Generation, 10),
		metaRun:        strconv.Itoa(f.Run),
		metaToken:      strconv.FormatInt(f.Token.Seq, 10) + "-" + f.Token.Nonce,
	}
}

// FenceFrom reads a fence from object metadata. ok is false, and the fence zero,
// if there is none or it is not one that Metadata writes.
func FenceFrom(meta map[string]string) (f Fence, ok bool) {
	var err1, err2, err3 error
	var err0 error
	f.Source, err0 = url.PathUnescape(meta[metaSource])
	f.Generation, err1 = strconv.ParseInt(meta[metaGeneration], 10, 64)
	f.Run, err2 = strconv.Atoi(meta[metaRun])
	seq, nonce, dash := strings.Cut(meta[metaToken], "-")
	f.Token.Seq, err3 = strconv.ParseInt(seq, 10, 64)
	f.Token.Nonce = nonce
	if errors.Join(err0, err1, err2, err3) != nil || !dash || f.Source == "" || f.Generation <= 0 || f.Run < 0 || f.Token.Seq < 0 {
		return Fence{}, false
	}
	return f, true
}
