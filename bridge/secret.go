package bridge

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// A Secret is a string that cannot be printed: every verb of fmt, encoding/json, encoding.TextMarshaler and log/slog show "[redacted]".
// The text is behind a pointer, so that a Secret in an unexported field, where fmt cannot call methods, shows an address.
type Secret struct{ text *string }

// NewSecret makes a Secret of text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text. Each call is a place to look at in a review.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Empty reports whether there is nothing to reveal.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// Format implements fmt.Formatter for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// String implements fmt.Stringer, for callers that ask for it without fmt.
func (s Secret) String() string { return redacted }

// MarshalText implements encoding.TextMarshaler, which encoding/json and YAML use too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
