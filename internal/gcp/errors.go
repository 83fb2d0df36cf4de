package gcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"

	"tidemill/internal/bucket"
)

// uri names an object in a message. Quoted: an object name may hold anything.
func uri(bucketName, name string) string {
	return fmt.Sprintf("%q", "gs://"+bucketName+"/"+name)
}

// failure wraps what the client returned so that errors.Is finds the contract's
// error, and ctx's own where ctx is what ended the call, and nothing of the
// original text is lost.
func failure(ctx context.Context, doing, bucketName, name string, err error) error {
	kind := sentinel(err)
	if kind == nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		kind = ctx.Err()
	}
	if kind == nil {
		return fmt.Errorf("%s %s: %w", doing, uri(bucketName, name), err)
	}
	return fmt.Errorf("%s %s: %w: %w", doing, uri(bucketName, name), kind, err)
}

// sentinel is the contract's error for err, nil if it has none.
func sentinel(err error) error {
	if errors.Is(err, storage.ErrObjectNotExist) {
		return bucket.ErrNotExist
	}
	var api *googleapi.Error
	if !errors.As(err, &api) || transient(err) {
		return nil
	}
	switch api.Code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return bucket.ErrDenied
	case http.StatusPreconditionFailed:
		return bucket.ErrPrecondition
	case http.StatusConflict:
		if hasReason(api, "conditionNotMet") {
			return bucket.ErrPrecondition
		}
	}
	return nil
}

func isNotFound(err error) bool {
	var api *googleapi.Error
	return errors.Is(err, storage.ErrObjectNotExist) || errors.As(err, &api) && api.Code == http.StatusNotFound
}

func hasReason(api *googleapi.Error, reasons ...string) bool {
	if len(api.Errors) == 0 {
		// Downloads leave the server's answer unparsed.
		return containsAny(api.Body, reasons...)
	}
	return slices.ContainsFunc(api.Errors, func(e googleapi.ErrorItem) bool {
		return slices.Contains(reasons, e.Reason)
	})
}

// transient tells faults that pass. It knows more of them than the client's own
// rule, which doesn't repeat a write whose connection was closed after the
// server had stored it.
func transient(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	var api *googleapi.Error
	if errors.As(err, &api) {
		switch {
		case api.Code == http.StatusRequestTimeout, api.Code == http.StatusTooManyRequests, api.Code >= 500:
			return true
		case api.Code == http.StatusForbidden:
			// Quota refusals come as 403 too.
			return hasReason(api, "rateLimitExceeded", "userRateLimitExceeded")
		}
		return false
	}
	if storage.ShouldRetry(err) {
		return true
	}
	for _, passing := range []error{
		errStalled, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.ECONNABORTED, syscall.EPIPE,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return true
	}
	// net/http keeps the types of its HTTP/2 errors to itself.
	return containsAny(err.Error(), "http2: ", "stream error: ", "transport connection broken", "server closed idle connection")
}

func containsAny(s string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(s, p) })
}
