package strictjson

import (
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// escapeLen returns the length of the escape sequence s begins with, or 0 when
// it is none of JSON's.
func escapeLen(s string) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if hex4(s) >= 0 {
			return 6
		}
	}
	return 0
}

// hex4 returns the code unit of the \uXXXX that s begins with, or -1.
func hex4(s string) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range []byte(s[2:6]) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// unquote decodes the inside of a string whose escapes are known to be right.
// Without any it returns raw itself.
func unquote(raw string) string {
	if !strings.Contains(raw, `\`) {
		return raw
	}
	b := make([]byte, 0, len(raw))
	for raw != "" {
		text, _, _ := strings.Cut(raw, `\`)
		b = append(b, text...)
		if raw = raw[len(text):]; raw == "" {
			break
		}
		r, n := unescape(raw)
		b = utf8.AppendRune(b, r)
		raw = raw[n:]
	}
	return string(b)
}

// unescape decodes the escape sequence s begins with, or the two of a surrogate
// pair, and returns its length.
func unescape(s string) (r rune, n int) {
	switch s[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r = hex4(s)
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if r = utf16.DecodeRune(r, hex4(s[6:])); r == unicode.ReplacementChar {
			return r, 6
		}
		return r, 12
	}
	return rune(s[1]), 2
}

// foldKey returns what all keys that encoding/json takes for the same struct
// field have in common: every letter as the first of those it folds to.
func foldKey(key string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, key)
}
