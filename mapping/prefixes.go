package mapping

import (
	"slices"
	"strings"
)

// prefixes are the beginnings that conditions ask a claim for, sorted. However many they are, a text is looked for once, by binary search,
// and not compared with each of them (P13).
type prefixes []beginning

type beginning struct {
	text    string
	literal int // its index in the provider
	parent  int // the longest other one that it begins with itself; -1: none
}

func newPrefixes(literals map[string]int) prefixes {
	sorted := make(prefixes, 0, len(literals))
	for text, literal := range literals {
		sorted = append(sorted, beginning{text: text, literal: literal})
	}
	slices.SortFunc(sorted, func(a, b beginning) int { return strings.Compare(a.text, b.text) })
	for i := range sorted {
		sorted[i].parent = sorted.longest(i-1, sorted[i].text)
	}
	return sorted
}

// of returns the longest one that the text begins with, -1 when there is none. The text begins with its parents too, and with no other.
func (p prefixes) of(text string) int {
	next, found := slices.BinarySearchFunc(p, text, func(b beginning, text string) int { return strings.Compare(b.text, text) })
	if found {
		return next
	}
	// What stands between a beginning of the text and the text begins with it, too: so it is the last one before the text, or a parent of that.
	return p.longest(next-1, text)
}

func (p prefixes) longest(i int, text string) int {
	for i >= 0 && !strings.HasPrefix(text, p[i].text) {
		i = p[i].parent
	}
	return i
}
