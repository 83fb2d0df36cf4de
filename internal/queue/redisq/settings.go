package redisq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"tidemill/internal/queue"
)

var _ queue.SettingsStore = (*Server)(nil)

// Settings implements queue.SettingsReader.
func (s *Server) Settings(ctx context.Context) (queue.Settings, error) {
	var held struct {
		Rev  int64  `redis:"rev"`
		Body string `redis:"body"`
	}
	if err := s.client.HGetAll(ctx, settingsKey(s.options.Prefix)).Scan(&held); err != nil {
		return queue.Settings{}, fmt.Errorf("reading the accepted settings: %w", classify(err))
	}
	out := queue.Settings{Revision: held.Rev, Pipelines: map[string]map[string]string{}}
	if held.Rev == 0 {
		return out, nil
	}
	if err := json.Unmarshal([]byte(held.Body), &out.Pipelines); err != nil {
		return queue.Settings{}, fmt.Errorf("reading the accepted settings: %w", err)
	}
	return out, nil
}

// Accept implements queue.SettingsStore. Each queue's own copy of the revision
// is what lease answers carry; it is written on every call, also an unchanged
// one, so that a call that was cut off half-way is mended by the next.
func (s *Server) Accept(ctx context.Context, pipelines map[string]map[string]string) (int64, error) {
	before, err := s.Settings(ctx)
	if err != nil && errors.Is(err, queue.ErrUnavailable) {
		return 0, err
	}
	body, err := json.Marshal(pipelines) // map keys come out sorted
	if err != nil {
		return 0, fmt.Errorf("storing the accepted settings: %w", err)
	}
	rev, err := s.scripts.accept.Run(ctx, s.client, []string{settingsKey(s.options.Prefix)}, string(body)).Int64()
	if err != nil {
		return 0, fmt.Errorf("storing the accepted settings: %w", classify(err))
	}
	_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, names := range []map[string]map[string]string{before.Pipelines, pipelines} {
			for name := range names {
				p.Set(ctx, newKeys(s.options.Prefix, name, 0).revision(), rev, 0)
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("announcing revision %d of the settings: %w", rev, classify(err))
	}
	return rev, nil
}
