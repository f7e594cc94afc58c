package bridge

import (
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	listenerLife  = time.Second      // how long a replica that heard from the database may take it that it missed nothing
	memoryLife    = 30 * time.Second // of an entry
	memoryEntries = 50_000           // remembered, twice over
	memoryChanges = 50_000           // heard of, twice over; more are as good as all
)

// sessionMemory is what this replica has read of sessions, so that a token need not cost a query. It answers only while the replica's LISTEN
// connection has answered a ping less than a second ago, and only what was read less than 30 s ago (product.md); it never knows more than
// the database.
//
// Entries are not removed when something about them changes: each change has a number, and an entry counts only while no change of its
// session or user has a higher one than the last change before it was read. So it does not matter which comes first, the answer of a query
// or the message that it is out of date.
type sessionMemory struct {
	mu      sync.RWMutex
	heard   time.Time // when the last ping was sent that was answered; zero: not listening
	changes uint64    // so far
	all     uint64    // the last change that may have been of any session

	// Two generations each: what is in the older one has lived for memoryLife already, or was crowded out.
	entries, olderEntries map[[32]byte]*remembered
	changed, olderChanged map[string]uint64 // by the id of a session or user, which never look alike
	turned                time.Time
	olderUntil            uint64 // no change in the older generation has a higher number
}

// The messages of the triggers in migrations/0002_sessions.sql are this, and "user" with its id. Any database role can send them, too: all that
// they do is make us read again.
func sessionMessage(id string) string { return "session " + id }

type remembered struct {
	session Session
	read    time.Time // before the query
	changes uint64    // before the query
	user    string    // id
}

func newSessionMemory() *sessionMemory {
	return &sessionMemory{entries: map[[32]byte]*remembered{}, changed: map[string]uint64{}}
}

// find returns the session with the hash, if memory may answer for it at this time.
func (m *sessionMemory) find(hash [32]byte, now time.Time) (Session, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	entry, found := m.entries[hash]
	if !found {
		if entry, found = m.olderEntries[hash]; !found {
			return Session{}, false
		}
	}
	age := now.Sub(entry.read)
	ended := !entry.session.Expires.After(now) || !entry.session.IdleExpires.After(now)
	if time.Since(m.heard) >= listenerLife || age < 0 || age >= memoryLife || ended || entry.changes < m.lastChange(entry) {
		return Session{}, false
	}
	return entry.session, true
}

// forget removes the session with the hash.
func (m *sessionMemory) forget(hash []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, [32]byte(hash))
	delete(m.olderEntries, [32]byte(hash))
}

func (m *sessionMemory) lastChange(entry *remembered) uint64 {
	id, user := entry.session.ID, entry.user
	return max(m.all, m.changed[id], m.olderChanged[id], m.changed[user], m.olderChanged[user])
}

// changesSoFar is to be asked before a query whose answer is to be remembered.
func (m *sessionMemory) changesSoFar() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.changes
}

// remember keeps what a query answered that began at read, after `changes` changes.
func (m *sessionMemory) remember(session Session, read time.Time, changes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.heard.IsZero() {
		return
	}
	m.turn(read)
	if len(m.entries) >= memoryEntries {
		m.olderEntries, m.entries = m.entries, map[[32]byte]*remembered{}
	}
	m.entries[session.hash] = &remembered{
		session: session, read: read, changes: changes, user: strconv.FormatInt(session.userRow, 10),
	}
}

// touched moves the idle end of a session that is remembered.
func (m *sessionMemory) touched(session Session, now, idleExpires time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, generation := range []map[[32]byte]*remembered{m.entries, m.olderEntries} {
		if entry, found := generation[session.hash]; found {
			entry.session.LastSeen, entry.session.IdleExpires = now, idleExpires
		}
	}
}

// change takes in that something has changed: a message of the database's triggers, or what this replica does itself. What it cannot read
// may mean any session.
func (m *sessionMemory) change(message string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(now)
	m.changes++
	what, id, _ := strings.Cut(message, " ")
	named := (what == "session" || what == "user") && id != "" && len(id) <= 64
	if !named || len(m.changed) >= memoryChanges {
		m.all = m.changes
		m.changed, m.olderChanged = map[string]uint64{}, nil
		return
	}
	m.changed[id] = m.changes
}

// listening takes in that the database answered a ping that was sent at this time, after every message before it was taken in.
func (m *sessionMemory) listening(sent time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = sent
}

// deaf takes in that messages were missed: nothing that was read before may be used.
func (m *sessionMemory) deaf() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = time.Time{}
	m.changes++
	m.all = m.changes
	m.entries, m.olderEntries = map[[32]byte]*remembered{}, nil
}

// turn makes the younger generation the older one when it has had its time.
func (m *sessionMemory) turn(now time.Time) {
	if age := now.Sub(m.turned); age < memoryLife && age >= 0 {
		return
	}
	m.turned = now
	m.all, m.olderUntil = max(m.all, m.olderUntil), m.changes // what is forgotten here may have been of any session
	m.olderEntries, m.entries = m.entries, map[[32]byte]*remembered{}
	m.olderChanged, m.changed = m.changed, map[string]uint64{}
}
