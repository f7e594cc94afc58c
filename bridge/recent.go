package bridge

import "sync"

// recent is a map of bounded size that forgets what was not used for long: it has two generations, and when the younger one is full, the
// older one goes. It holds between limit and twice the limit.
type recent[K comparable, V any] struct {
	limit int

	mu             sync.RWMutex
	younger, older map[K]V
}

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{limit: limit, younger: map[K]V{}}
}

// get returns the value, which counts as used.
func (r *recent[K, V]) get(key K) (V, bool) {
	r.mu.RLock()
	value, found := r.younger[key]
	r.mu.RUnlock()
	if found {
		return value, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.find(key)
}

func (r *recent[K, V]) put(key K, value V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(key, value)
}

// getOrPut returns the value, made by create when there is none.
func (r *recent[K, V]) getOrPut(key K, create func() V) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	value, found := r.find(key)
	if !found {
		value = create()
		r.add(key, value)
	}
	return value
}

func (r *recent[K, V]) find(key K) (V, bool) {
	if value, found := r.younger[key]; found {
		return value, true
	}
	value, found := r.older[key]
	if found {
		r.add(key, value)
	}
	return value, found
}

func (r *recent[K, V]) add(key K, value V) {
	if len(r.younger) >= r.limit {
		r.older, r.younger = r.younger, make(map[K]V, r.limit)
	}
	r.younger[key] = value
}
