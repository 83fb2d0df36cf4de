package redisq

import (
	"embed"
	"fmt"

	"github.com/redis/go-redis/v9"
)

//go:embed scripts/*.lua
var sources embed.FS

// scripts are the queue's operations, each one atomic on the server.
type scripts struct {
	enqueue, turn, extend, leave, stats, bar, unbar, lookup, accept *redis.Script
}

func loadScripts() (scripts, error) {
	var s scripts
	lib, err := sources.ReadFile("scripts/lib.lua")
	if err != nil {
		return s, fmt.Errorf("reading embedded script: %w", err)
	}
	for name, target := range map[string]**redis.Script{
		"enqueue": &s.enqueue, "turn": &s.turn, "extend": &s.extend, "leave": &s.leave, "stats": &s.stats,
		"bar": &s.bar, "unbar": &s.unbar, "lookup": &s.lookup, "accept": &s.accept,
	} {
		body, err := sources.ReadFile("scripts/" + name + ".lua")
		if err != nil {
			return s, fmt.Errorf("reading embedded script: %w", err)
		}
		if name != "accept" { // the settings are no queue: other keys
			body = append(append([]byte{}, lib...), body...)
		}
		*target = redis.NewScript(string(body))
	}
	return s, nil
}
