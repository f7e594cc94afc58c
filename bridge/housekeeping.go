package bridge

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	touchEvery   = time.Minute // a session's last use is noted at most this often
	flushEvery   = time.Second // what was noted is written
	maxTouches   = 100_000     // noted at most, while the database does not take them
	sweepEvery   = time.Minute
	sweepBatch   = 1000 // rows of each table in one statement, so that a login never waits long
	sweepLimit   = 30 * time.Second
	sweepPause   = 20 * time.Millisecond // between batches
	sweepsAtOnce = 500
)

// touches are sessions that were used lately, until the database knows.
type touches struct {
	mu sync.Mutex
	at map[string]time.Time // by session id
}

func (t *touches) note(session string, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at == nil {
		t.at = map[string]time.Time{}
	}
	before, known := t.at[session]
	if known && before.Before(at) || !known && len(t.at) < maxTouches {
		t.at[session] = at
	}
}

func (t *touches) take() map[string]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.at
	t.at = nil
	return taken
}

// Touch notes that the session is in use, which moves its idle end: at most once a minute, or in a tenth of a shorter idle limit. It is
// written with others, soon.
func (s *Store) Touch(session Session) {
	now := s.now()
	if now.Sub(session.LastSeen) < min(touchEvery, s.idle/10) {
		return
	}
	s.memory.touched(session, now, now.Add(s.idle))
	s.touches.note(session.ID, now)
}

// housekeep writes what Touch noted and removes rows that have ended, until the context ends; then it writes what is left. Every replica does
// it: rows that another one has in hand are skipped.
func (s *Store) housekeep(ctx context.Context, keepEvents time.Duration, log *slog.Logger, m *Metrics) {
	flush, sweep := time.NewTicker(flushEvery), time.NewTicker(sweepEvery)
	defer flush.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flush(context.WithoutCancel(ctx), log)
			return
		case <-flush.C:
			s.flush(ctx, log)
		case <-sweep.C:
			if err := s.sweep(ctx, keepEvents, m); err != nil && ctx.Err() == nil {
				log.Warn("rows that have ended were not removed; the next try is in a minute", "cause", err.Error())
			}
		}
	}
}

// flush writes the last uses. A session that somebody ended meanwhile stays ended, also when that was by an earlier idle end (LO-10). Should the
// database not take them (it may be read-only for a while: F-07), they are noted again.
func (s *Store) flush(ctx context.Context, log *slog.Logger) {
	taken := s.touches.take()
	if len(taken) == 0 {
		return
	}
	ids := slices.Sorted(maps.Keys(taken))
	times := make([]time.Time, len(ids))
	for i, id := range ids {
		times[i] = taken[id]
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	// A row that somebody else changes at this moment is skipped: it is being used, or ended, there.
	_, err := s.pool.Exec(ctx, `
WITH used AS (
	SELECT u.id, u.at FROM ROWS FROM (pg_catalog.unnest($1::text[]::uuid[]), pg_catalog.unnest($2::timestamptz[])) AS u (id, at)
), free AS (
	SELECT s.id FROM bridge.sessions s JOIN used ON used.id = s.id ORDER BY s.id FOR UPDATE OF s SKIP LOCKED
)
UPDATE bridge.sessions s SET last_seen_at = used.at, idle_expires_at = used.at + $3::bigint * interval '1 microsecond'
FROM used JOIN free ON free.id = used.id
WHERE s.id = used.id AND s.last_seen_at < used.at AND s.idle_expires_at > used.at
	AND (s.idle_expires_at > greatest($4::timestamptz, now()) OR s.idle_expires_at >= s.last_seen_at + $3::bigint * interval '1 microsecond')`,
		ids, times, s.idle.Microseconds(), s.now())
	if err != nil {
		log.Warn("last uses of sessions were not written", "sessions", len(ids), "cause", err.Error())
		for id, at := range taken {
			s.touches.note(id, at)
		}
	}
}

// sweep removes ended sessions, used login states, logout tokens and old events, a batch at a time, until one finds nothing: less than a whole
// batch may mean that another replica has the rest in hand.
func (s *Store) sweep(ctx context.Context, keepEvents time.Duration, m *Metrics) error {
	for range sweepsAtOnce {
		removed, err := s.sweepBatch(ctx, keepEvents)
		if err != nil {
			return err
		}
		found := false
		for table, n := range removed {
			m.swept.WithLabelValues(table).Add(float64(n))
			found = found || n > 0
		}
		if !found {
			return nil
		}
		wait(ctx, sweepPause)
	}
	return nil
}

func (s *Store) sweepBatch(ctx context.Context, keepEvents time.Duration) (removed map[string]int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, sweepLimit)
	defer cancel()
	now := s.now()
	var sessions, guards, logouts, events int64
	err = s.pool.QueryRow(ctx, `SELECT sessions, replay_guard, provider_logouts, events FROM bridge.sweep($1, $2, $3)`,
		now, now.Add(-keepEvents), sweepBatch).Scan(&sessions, &guards, &logouts, &events)
	return map[string]int64{"sessions": sessions, "replay_guard": guards, "provider_logouts": logouts, "events": events}, storeError(err)
}
