package mapping

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The prefixes of a text that the index finds are those that comparing it with each of them finds.
func TestPrefixesAreFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		short := rapid.StringMatching(`[ab/]{1,6}`)
		wanted := map[string]int{}
		for i, text := range rapid.SliceOfDistinct(short, rapid.ID[string]).Draw(t, "prefixes") {
			wanted[text] = i
		}
		index := newPrefixes(wanted)
		text := rapid.StringMatching(`[ab/]{0,8}`).Draw(t, "text")
		var found []int
		for i := index.of(text); i >= 0; i = index[i].parent {
			found = append(found, index[i].literal)
		}
		for prefix, literal := range wanted {
			if slices.Contains(found, literal) != strings.HasPrefix(text, prefix) {
				t.Errorf("%q begins with %q: %t", text, prefix, !strings.HasPrefix(text, prefix))
			}
		}
		if len(found) > len(wanted) {
			t.Errorf("%d found", len(found))
		}
	})
}
