package bridge

import (
	"fmt"
	"testing"
	"time"
)

// TestMemoryAnswersOnlyWhatItMay: each rule of product.md for when a replica may answer from memory, and each way to lose the right.
func TestMemoryAnswersOnlyWhatItMay(t *testing.T) {
	t.Parallel()
	now := time.Now()
	session := Session{ID: "5e0c9a5c-8a52-4b4c-9d0c-3f1f0f6f7a01", userRow: 7, hash: [32]byte{1}, IdleExpires: now.Add(time.Hour), Expires: now.Add(time.Hour)}
	other := Session{ID: "5e0c9a5c-8a52-4b4c-9d0c-3f1f0f6f7a02", userRow: 8, hash: [32]byte{2}, IdleExpires: now.Add(time.Hour), Expires: now.Add(time.Hour)}
	for _, test := range []struct {
		name string
		do   func(m *sessionMemory)
		at   time.Duration // of the question
		mine bool          // may it answer for the session
		its  bool          // and for the other one
	}{
		{"nothing happened", nil, 0, true, true},
		{"29 s old", nil, 29 * time.Second, true, true},
		{"30 s old", nil, 30 * time.Second, false, false},
		{"the clock was set back", nil, -time.Second, false, false},
		{"the session changed", func(m *sessionMemory) { m.change(sessionMessage(session.ID), now) }, 0, false, true},
		{"the user changed", func(m *sessionMemory) { m.change("user 7", now) }, 0, false, true},
		{"everything changed", func(m *sessionMemory) { m.change("all", now) }, 0, false, false},
		{"a session without id", func(m *sessionMemory) { m.change("session", now) }, 0, false, false},
		{"a session with an empty id", func(m *sessionMemory) { m.change("session ", now) }, 0, false, false},
		{"somebody sends nonsense", func(m *sessionMemory) { m.change("session "+fmt.Sprintf("%080d", 0), now) }, 0, false, false},
		{"another user changed", func(m *sessionMemory) { m.change("user 77", now) }, 0, true, true},
		{"the last ping is a second old", func(m *sessionMemory) { m.listening(time.Now().Add(-time.Second)) }, 0, false, false},
		{"the connection was lost", func(m *sessionMemory) { m.deaf() }, 0, false, false},
		{"lost, and back", func(m *sessionMemory) { m.deaf(); m.listening(time.Now()) }, 0, false, false},
		{"it was forgotten", func(m *sessionMemory) { m.forget(session.hash[:]) }, 0, false, true},
		{"idle", func(m *sessionMemory) { m.touched(session, now, now.Add(time.Second)) }, time.Second, false, true},
		{"changed, and memory turned since", func(m *sessionMemory) {
			m.change("user 7", now)
			m.turn(now.Add(memoryLife))
		}, 0, false, true},
		{"changed, and memory turned twice", func(m *sessionMemory) {
			m.change("user 7", now)
			m.turn(now.Add(memoryLife))
			m.turn(now.Add(2 * memoryLife))
		}, 0, false, false},
		{"more changes than it keeps", func(m *sessionMemory) {
			for i := range memoryChanges + 1 {
				m.change(fmt.Sprint("user ", 1000+i), now)
			}
		}, 0, false, false},
	} {
		m := newSessionMemory()
		m.listening(time.Now())
		m.remember(session, now, m.changesSoFar())
		m.remember(other, now, m.changesSoFar())
		if test.do != nil {
			test.do(m)
		}
		if _, found := m.find(session.hash, now.Add(test.at)); found != test.mine {
			t.Errorf("%s: it answers for the session: %t", test.name, found)
		}
		if _, found := m.find(other.hash, now.Add(test.at)); found != test.its {
			t.Errorf("%s: it answers for the other one: %t", test.name, found)
		}
	}
}

// TestMemoryAndALateAnswer: a query that was under way when something changed is not remembered as the truth, whatever came in between.
func TestMemoryAndALateAnswer(t *testing.T) {
	t.Parallel()
	now := time.Now()
	session := Session{ID: "5e0c9a5c-8a52-4b4c-9d0c-3f1f0f6f7a01", userRow: 7, hash: [32]byte{1}, IdleExpires: now.Add(time.Hour), Expires: now.Add(time.Hour)}
	for name, meanwhile := range map[string]func(m *sessionMemory){
		"the session ended":          func(m *sessionMemory) { m.change(sessionMessage(session.ID), now) },
		"the user was disabled":      func(m *sessionMemory) { m.change("user 7", now) },
		"the connection was renewed": func(m *sessionMemory) { m.deaf(); m.listening(time.Now()) },
		"it was long ago": func(m *sessionMemory) {
			m.change("user 7", now)
			m.turn(now.Add(memoryLife))
			m.turn(now.Add(2 * memoryLife))
			m.turn(now.Add(3 * memoryLife))
		},
	} {
		m := newSessionMemory()
		m.listening(time.Now())
		changes := m.changesSoFar()
		meanwhile(m)
		m.remember(session, now, changes)
		if _, found := m.find(session.hash, now); found {
			t.Errorf("%s: what was read before is believed", name)
		}
		m.remember(session, now, m.changesSoFar())
		if _, found := m.find(session.hash, now); !found {
			t.Errorf("%s: what was read after is not believed", name)
		}
	}
}

// TestMemoryIsBounded: whoever logs in a million times does not fill it.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	m := newSessionMemory()
	m.listening(now)
	for i := range 3*memoryEntries + 1 {
		m.remember(Session{hash: [32]byte{byte(i), byte(i >> 8), byte(i >> 16)}}, now, 0)
		m.change(fmt.Sprint("user ", i), now)
	}
	if n := len(m.entries) + len(m.olderEntries); n > 2*memoryEntries {
		t.Errorf("%d entries", n)
	}
	if n := len(m.changed) + len(m.olderChanged); n > 2*memoryChanges {
		t.Errorf("%d changes", n)
	}
	m.turn(now.Add(memoryLife))
	m.turn(now.Add(2 * memoryLife))
	if n := len(m.entries) + len(m.olderEntries); n != 0 {
		t.Errorf("%d entries that are too old", n)
	}
}
