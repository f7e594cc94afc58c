package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

const (
	maxJSONDepth  = 16
	maxJSONValues = 20000 // in all: a megabyte of zeros would need a hundred to be decoded (JD-05)
)

// decodeObject decodes one JSON object as the issuer of a token meant it, or not at all. encoding/json takes the last of two members of one
// name, matches names without case into structs, and turns lone surrogates into U+FFFD: each a way to show one value to us and another
// one to somebody else (IT-14, RFC 8725 section 3.7). Here duplicates, trailing data, nesting beyond 16 levels, more than 20,000 values and
// text that is not Unicode are errors, names keep their case, and numbers stay json.Number.
func decodeObject(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	if hasLoneSurrogate(data) {
		return nil, errors.New("lone surrogate")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	left := maxJSONValues
	value, err := decodeValue(d, 0, &left)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the object")
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	return object, nil
}

// decodeValue decodes the next value; left is how many more there may be.
func decodeValue(d *json.Decoder, depth int, left *int) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	if *left--; *left < 0 {
		return nil, errors.New("too many values")
	}
	delim, nested := token.(json.Delim)
	if !nested {
		return token, nil
	}
	if depth == maxJSONDepth {
		return nil, errors.New("nested too deeply")
	}
	if delim == '[' {
		list := []any{}
		for d.More() {
			item, err := decodeValue(d, depth+1, left)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err = d.Token()
		return list, err
	}
	object := map[string]any{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		name := key.(string) // the decoder takes nothing else here
		if _, twice := object[name]; twice {
			return nil, fmt.Errorf("member %.64q twice", name)
		}
		if object[name], err = decodeValue(d, depth+1, left); err != nil {
			return nil, err
		}
	}
	_, err = d.Token()
	return object, err
}

// hasLoneSurrogate finds a \uD800…\uDFFF escape that is not half of a pair.
func hasLoneSurrogate(data []byte) bool {
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		high, ok := escapedUnit(data[i:])
		if !ok {
			i++ // another escape, perhaps of a backslash
			continue
		}
		switch {
		case high >= 0xDC00 && high <= 0xDFFF:
			return true
		case high >= 0xD800 && high <= 0xDBFF:
			low, ok := escapedUnit(data[i+6:])
			if !ok || low < 0xDC00 || low > 0xDFFF {
				return true
			}
			i += 6
		}
		i += 5
	}
	return false
}

// escapedUnit reads the \u escape at the start of data.
func escapedUnit(data []byte) (unit uint16, ok bool) {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' {
		return 0, false
	}
	for _, c := range data[2:6] {
		unit <<= 4
		switch {
		case c >= '0' && c <= '9':
			unit |= uint16(c - '0')
		case c >= 'a' && c <= 'f':
			unit |= uint16(c-'a') + 10
		case c >= 'A' && c <= 'F':
			unit |= uint16(c-'A') + 10
		default:
			return 0, false
		}
	}
	return unit, true
}
