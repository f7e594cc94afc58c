package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// tableBlock is how many rows are aligned with each other: columns only grow, and output begins before all rows are there.
const tableBlock = 200

// A table is rows of text in columns. Cells may hold what providers wrote: they are escaped. At a terminal the heading is bold, and a marked
// row is red.
type table struct {
	w      io.Writer
	colour bool
	head   []string
	block  []tableRow
	widths []int
	err    error
}

type tableRow struct {
	marked bool
	cells  []string
}

func newTable(env environment, head ...string) *table {
	t := &table{w: env.stdout, head: head}
	_, off := env.lookup("NO_COLOR")
	if terminal, _ := env.lookup("TERM"); isTerminal(rawStream(env.stdout)) && !off && terminal != "dumb" {
		t.w, t.colour = rawStream(env.stdout), true // its cells are escaped, its colours are not
	}
	return t
}

func (t *table) add(marked bool, cells ...string) {
	for i := range cells {
		cells[i] = plain(cells[i])
	}
	if t.block = append(t.block, tableRow{marked, cells}); len(t.block) == tableBlock {
		t.flush()
	}
}

// flush writes what there is and returns the first error of all writes.
func (t *table) flush() error {
	if len(t.block) == 0 {
		return t.err
	}
	t.measure(t.head)
	for _, row := range t.block {
		t.measure(row.cells)
	}
	if t.head != nil {
		t.line("\x1b[1m", t.head)
		t.head = nil
	}
	for _, row := range t.block {
		if row.marked {
			t.line("\x1b[31m", row.cells)
		} else {
			t.line("", row.cells)
		}
	}
	t.block = t.block[:0]
	return t.err
}

func (t *table) measure(cells []string) {
	for i, cell := range cells {
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
	}
}

func (t *table) line(colour string, cells []string) {
	var line strings.Builder
	for i, cell := range cells {
		line.WriteString(cell)
		line.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+2))
	}
	text := strings.TrimRight(line.String(), " ")
	if t.colour && colour != "" {
		text = colour + text + "\x1b[0m"
	}
	if _, err := fmt.Fprintln(t.w, text); err != nil && t.err == nil {
		t.err = err
	}
}

// orDash is the text, or a dash for none.
func orDash(text *string) string {
	if text == nil || *text == "" {
		return "-"
	}
	return *text
}

// utc is a time in a column whose heading says UTC.
func utc(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04")
}
