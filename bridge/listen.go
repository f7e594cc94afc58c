package bridge

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	pingEvery     = 250 * time.Millisecond
	reconnectWait = 500 * time.Millisecond
)

var errPooler = errors.New("a pooler stands between this replica and the database")

// listen keeps a connection that hears what ends or changes a session, and tells memory, until the context ends. While there is none, and
// for good where a pooler hands one connection from client to client, every token is read from the database.
func (s *Store) listen(ctx context.Context, mode string, log *slog.Logger, m *Metrics) {
	if mode == "off" {
		return
	}
	lost := false
	for ctx.Err() == nil {
		err := s.hear(ctx, func() {
			m.listening.Set(1)
			if lost {
				log.Info("listening to the database again")
			}
			lost = false
		})
		s.memory.deaf()
		m.listening.Set(0)
		switch {
		case errors.Is(err, errPooler):
			log.Info("sessions are read from the database at every token: a pooler stands in between, where LISTEN may not work; "+
				"if it is in session mode, set database.listen to on", "cause", err.Error())
			return
		case ctx.Err() == nil && !lost:
			lost = true
			log.Warn("not listening to the database; until it can be reached, every token is read from it", "cause", err.Error())
		}
		wait(ctx, reconnectWait)
	}
}

// hear listens on one connection, and returns why it no longer does.
func (s *Store) hear(ctx context.Context, began func()) error {
	config := s.pool.Config().ConnConfig
	config.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { s.memory.change(n.Payload, s.now()) }
	starting, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if between, err := s.pooler.isBetween(starting, config); err != nil {
		return err
	} else if between {
		return errPooler
	}
	conn, err := pgx.ConnectConfig(starting, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(starting, "LISTEN bridge_sessions"); err != nil {
		return err
	}
	s.memory.deaf() // what was read before we listened
	for first := true; ; first = false {
		sent := time.Now()
		if err := ping(ctx, conn); err != nil {
			return err
		}
		s.memory.listening(sent)
		if first {
			began()
		}
		if err := hearUntil(ctx, conn, sent.Add(pingEvery)); err != nil {
			return err
		}
	}
}

// ping returns when the database has answered, and every message that it sent before has been taken in.
func ping(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, listenerLife)
	defer cancel()
	return conn.Ping(ctx)
}

// hearUntil takes in messages until then.
func hearUntil(ctx context.Context, conn *pgx.Conn, end time.Time) error {
	waiting, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	for {
		if err := conn.PgConn().WaitForNotification(waiting); err != nil {
			if waiting.Err() != nil && ctx.Err() == nil && !conn.IsClosed() {
				return nil
			}
			return err
		}
	}
}

// wait waits, or returns when the context ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
