package bridge

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// ConfigKeys is every key of config.yaml, for the test that holds config.example.yaml complete.
func ConfigKeys() (keys []string) {
	for _, section := range configKeys {
		keys = append(keys, section...)
	}
	return slices.Compact(slices.Sorted(slices.Values(keys)))
}

// NewServer is the server of each listener.
var NewServer = newServer

// Flush writes the last uses that were noted.
func (s *Store) Flush(ctx context.Context, log *slog.Logger) { s.flush(ctx, log) }

// Sweep removes what has ended.
func (s *Store) Sweep(ctx context.Context, keepEvents time.Duration) error {
	return s.sweep(ctx, keepEvents, NewMetrics("test"))
}
