package protobuf

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner goes through the fields of a JSON object, which is valid.
type scanner struct {
	rest      []byte
	separator byte // before the next field
}

// skip skips the name of a field, and what is before it. It returns false where they do not come next.
func (s *scanner) skip(name string) bool {
	if len(s.rest) <= len(name) || s.rest[0] != s.separator || string(s.rest[1:1+len(name)]) != name {
		return false
	}
	s.rest, s.separator = s.rest[1+len(name):], ','
	return true
}

// value skips a value and returns it, nil if there is none.
func (s *scanner) value() []byte {
	depth := 0
	for at := 0; at < len(s.rest); at++ {
		switch s.rest[at] {
		case '"':
			end := endOfText(s.rest[at+1:])
			if end < 0 {
				return nil
			}
			at += 1 + end
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',', ':':
		default: // of a number, a literal, or space
			if depth > 0 {
				continue
			}
			for at+1 < len(s.rest) && s.rest[at+1] != ',' && s.rest[at+1] != '}' {
				at++
			}
		}
		if depth <= 0 {
			value := s.rest[:at+1]
			s.rest = s.rest[at+1:]
			return value
		}
	}
	return nil
}

// atEnd reports whether the object ends here, but for the newline of an encoder.
func (s *scanner) atEnd() bool { return string(bytes.TrimSuffix(s.rest, []byte("\n"))) == "}" }

// endOfText returns the place of the quote that ends a text, -1 if there is none.
func endOfText(text []byte) int {
	for at := 0; ; at++ {
		next := bytes.IndexByte(text[at:], '"')
		if next < 0 {
			return -1
		}
		at += next
		escapes := 0
		for escapes < at && text[at-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return at
		}
	}
}

// escapes are the bytes that an escape of one letter stands for, 0 for none.
var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// text skips a text in quotes, and appends the bytes that it stands for to dst. It returns false if there
// is none.
func (s *scanner) text(dst []byte) ([]byte, bool) {
	if len(s.rest) == 0 || s.rest[0] != '"' {
		return dst, false
	}
	rest := s.rest[1:]
	dst = slices.Grow(dst, len(rest)) // an escape is longer than the bytes that it stands for
	for {
		var at int
		if dst, at = appendSimple(dst, rest); at == len(rest) {
			return dst, false
		}
		if rest[at] == '"' {
			s.rest = rest[at+1:]
			return dst, true
		}
		r, size := escapedRune(rest[at+1:])
		if size == 0 {
			return dst, false
		}
		dst, rest = utf8.AppendRune(dst, r), rest[at+1+size:]
	}
}

// appendSimple appends the bytes that the beginning of a text stands for to dst, which has room for it. It returns
// the place in text of the quote at its end, or of an escape of more than a letter, len(text) if there is neither.
//
// A manifest and a config have a quote every few bytes: eight bytes are looked at and copied at a time, also those
// behind a quote or a backslash, which the next ones replace.
func appendSimple(dst, text []byte) (_ []byte, at int) {
	n, out := len(dst), dst[:cap(dst)]
	for at < len(text) {
		if len(text)-at >= 8 && len(out)-n >= 8 {
			word := binary.LittleEndian.Uint64(text[at:])
			binary.LittleEndian.PutUint64(out[n:], word)
			found := (firstZero(word^quotes) | firstZero(word^backslashes)) & highBits
			plain := bits.TrailingZeros64(found) / 8
			at, n = at+plain, n+plain
			if found == 0 {
				continue
			}
		}
		c := text[at]
		if c == '"' {
			break
		}
		if c == '\\' {
			if at+1 == len(text) || escapes[text[at+1]] == 0 {
				break
			}
			at++
			c = escapes[text[at]]
		}
		out[n] = c
		at, n = at+1, n+1
	}
	return out[:n], at
}

// Words of eight equal bytes.
const (
	lowBits     = 0x0101010101010101
	highBits    = lowBits << 7
	quotes      = lowBits * '"'
	backslashes = lowBits * '\\'
)

// firstZero sets the high bit of the first byte of a word that is zero, counted from its low end, and of no byte
// before it.
func firstZero(word uint64) uint64 { return (word - lowBits) &^ word }

// list skips an array, whose items item skips. It returns false where item does, or there is no array.
func (s *scanner) list(item func() bool) bool {
	if len(s.rest) < 2 || s.rest[0] != '[' {
		return false
	}
	for next := byte('['); len(s.rest) > 0 && s.rest[0] == next; next = ',' {
		if s.rest = s.rest[1:]; !item() {
			return false
		}
	}
	if len(s.rest) == 0 || s.rest[0] != ']' {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// plainText skips a field of text without escapes, and returns what is between its quotes.
func (s *scanner) plainText(name string) (text []byte, ok bool) {
	if !s.skip(name) {
		return nil, false
	}
	return s.plain()
}

// plain skips a text without escapes, and returns what is between its quotes.
func (s *scanner) plain() (text []byte, ok bool) {
	if len(s.rest) == 0 || s.rest[0] != '"' {
		return nil, false
	}
	end := endOfText(s.rest[1:])
	if end < 0 || bytes.IndexByte(s.rest[1:1+end], '\\') >= 0 {
		return nil, false
	}
	text, s.rest = s.rest[1:1+end], s.rest[2+end:]
	return text, true
}

// number skips a field with a number of at most 18 digits.
func (s *scanner) number(name string) (n int, ok bool) {
	if !s.skip(name) {
		return 0, false
	}
	digits := 0
	for digits < len(s.rest) && s.rest[digits] >= '0' && s.rest[digits] <= '9' {
		n = 10*n + int(s.rest[digits]-'0')
		digits++
	}
	if digits == 0 || digits > 18 || digits > 1 && s.rest[0] == '0' {
		return 0, false
	}
	s.rest = s.rest[digits:]
	return n, true
}

// escapedRune returns the rune of an escape behind its backslash, one of two halves if it begins with a
// surrogate, and its size, 0 for none.
func escapedRune(text []byte) (r rune, size int) {
	const half = len("u0000")
	r, ok := hexRune(text)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(r) {
		return r, half
	}
	if len(text) <= half || text[half] != '\\' {
		return 0, 0
	}
	low, ok := hexRune(text[half+1:])
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, half + 1 + half
}

// hexRune returns the rune of "u" and four hexadecimal digits.
func hexRune(text []byte) (r rune, ok bool) {
	if len(text) < 5 || text[0] != 'u' {
		return 0, false
	}
	for _, c := range text[1:5] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
