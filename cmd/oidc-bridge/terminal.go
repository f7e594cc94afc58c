package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A safeWriter escapes what a terminal would obey and what reorders a line, in everything that the program prints: files, providers,
// databases and the command line have written parts of it (AD-01). The escapes are JSON's, so that JSON stays what it is.
type safeWriter struct{ io.Writer }

func (w safeWriter) Write(p []byte) (int, error) {
	text := string(p)
	if !utf8.ValidString(text) || strings.ContainsFunc(text, commands) {
		var safe strings.Builder
		for _, r := range text { // what is no UTF-8 becomes U+FFFD
			if commands(r) {
				fmt.Fprintf(&safe, `\u%04x`, r)
			} else {
				safe.WriteRune(r)
			}
		}
		text = safe.String()
	}
	if _, err := io.WriteString(w.Writer, text); err != nil {
		return 0, err
	}
	return len(p), nil
}

func commands(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
}

// rawStream is the stream itself, for the program's own way of talking to a terminal.
func rawStream(w io.Writer) io.Writer {
	if safe, is := w.(safeWriter); is {
		return safe.Writer
	}
	return w
}
