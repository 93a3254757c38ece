package joblib

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// counted executes an opcode whose operand follows its length. What is longer
// than what is kept is stepped over: nothing is allocated from a length.
func (m *machine) counted(op byte, width int) error {
	b, err := m.in.take(width)
	if err != nil {
		return err
	}
	var full [8]byte
	copy(full[:], b)
	size := binary.LittleEndian.Uint64(full[:])
	limit := uint64(maxBlob)
	if op == opLong1 || op == opLong4 {
		limit = maxLong
	}
	if size > limit {
		e := &streamError{rule: RuleLimit, msg: fmt.Sprintf("an operand of %d bytes", size)}
		if e.past = m.in.pos() + int64(size); size > math.MaxInt64/2 {
			e.past = math.MaxInt64
		}
		return e
	}
	k, keep := kStr, maxText
	switch op {
	case 'B', 'C', opBytes8:
		k, keep = kBytes, maxRaw
	case opByteArray8:
		k, keep = kByteArray, maxRaw
	case opLong1, opLong4:
		k, keep = kLong, maxRaw
	}
	head, err := m.in.take(int(min(size, uint64(keep))))
	if err != nil {
		return err
	}
	v, err := m.blob(op, k, head)
	if err != nil {
		return err
	}
	if rest := int64(size) - int64(len(head)); rest > 0 {
		return m.rest(v, rest)
	}
	m.push(v)
	return nil
}

// rest steps over what follows the beginning of a long operand. The check of
// trees keeps it, for an array's description may come behind its bytes.
func (m *machine) rest(head value, n int64) error {
	c := cut{kept: head, total: int64(len(m.bytes(head))) + n}
	var see func([]byte)
	if m.deep {
		c.whole = slices.Clone(m.bytes(head))
		see = func(b []byte) {
			if m.memory()+int64(len(c.whole)) < maxMemory {
				c.whole = append(c.whole, b...)
			}
		}
	}
	err := m.in.skip(n, see)
	m.spent += int64(cap(c.whole))
	m.push(newValue(kCut, uint64(m.cuts.add(m.heap, 40, c))))
	return err
}

// blob makes a value of a counted operand.
func (m *machine) blob(op byte, k kind, b []byte) (value, error) {
	switch {
	case k == kLong && len(b) <= 8:
		if len(b) == 0 {
			return m.newInt(0), nil
		}
		return m.newInt(littleEndian(b)), nil
	case op == 'T' || op == 'U':
		// Python 2's str. joblib and pickle decode it as ASCII.
		if slices.ContainsFunc(b, func(c byte) bool { return c >= 0x80 }) {
			return 0, malformed("a byte string of Python 2 that is not ASCII")
		}
	case k == kStr && !utf8.Valid(b) && !validSurrogates(b):
		return 0, malformed("a string that is not UTF-8")
	}
	return m.keep(k, b), nil
}

// validSurrogates reports whether b is UTF-8 but for surrogates, as Python's
// surrogatepass writes them, or is cut within a character.
func validSurrogates(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			switch {
			case len(b) >= 3 && b[0] == 0xed && b[1] >= 0xa0 && b[1] <= 0xbf && b[2] >= 0x80 && b[2] <= 0xbf:
				n = 3
			case !utf8.FullRune(b):
				return true
			default:
				return false
			}
		}
		b = b[n:]
	}
	return true
}

// textual executes an opcode of protocol 0, whose operand is a line.
func (m *machine) textual(op byte, line []byte) error {
	switch op {
	case 'c', 'i':
		module := string(line)
		name, err := m.in.line()
		if err != nil {
			m.partial = m.partial || isName(module)
			return err
		}
		g, err := m.global(module, string(name))
		if err != nil {
			return err
		}
		if op == 'c' {
			m.push(g)
			return nil
		}
		args, err := m.popMark()
		if err != nil {
			return err
		}
		return m.makeMaybe(g, args)
	case 'p', 'g':
		text := strings.TrimSpace(string(line))
		slot, err := strconv.ParseUint(strings.ReplaceAll(strings.TrimPrefix(text, "+"), "_", ""), 10, 63)
		if text != strconv.FormatUint(slot, 10) {
			m.note(Review, RuleOpcode, "a number that is spelled oddly")
		}
		if err != nil {
			return malformed("memo slot %.40q", line)
		}
		if op == 'g' {
			return m.fetch(slot)
		}
		m.view.wrote(slot)
		return m.put(slot)
	case 'P':
		return external("PERSID")
	}
	v, err := m.literal(op, string(line))
	if err == nil {
		m.push(v)
	}
	return err
}

// literal reads a number or string of protocol 0.
func (m *machine) literal(op byte, line string) (value, error) {
	switch op {
	case 'I', 'L':
		if op == 'I' && (line == "00" || line == "01") {
			return boolValue(line == "01"), nil
		}
		if op == 'L' {
			line = strings.TrimSuffix(line, "L")
		}
		return m.decimal(line)
	case 'F':
		text := strings.TrimSpace(line)
		if strings.EqualFold(strings.TrimLeft(text, "+-"), "nan") {
			text = "nan" // Go takes no sign
		}
		f, err := strconv.ParseFloat(text, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) || strings.ContainsAny(line, "xX") {
			return 0, notNumber(line)
		}
		return m.newFloat(math.Float64bits(f)), nil
	case 'S':
		text, ok := unquote(strings.TrimRight(line, " \t\r"))
		if !ok && (line == "" || line[0] != '\'' && line[0] != '"') {
			return 0, fails("string %.40q", line)
		}
		if !ok {
			return 0, malformed("string %.40q", line)
		}
		return m.blobText(text), nil
	}
	return m.blobText(rawUnicode(line)), nil
}

// notNumber is the error for a line that is no number here. Python's readers
// differ about some of them: in C a number can be octal, empty, or end at a NUL.
func notNumber(line string) error {
	start := strings.ToLower(strings.TrimLeft(line, " \t\r\v\f+-"))
	if start == "" || strings.ContainsAny(start[:1], "0123456789._\x00") || strings.HasPrefix(start, "nan") || strings.HasPrefix(start, "inf") || strings.Contains(line, "\x00") {
		return malformed("number %.40q", line)
	}
	return fails("number %.40q", line)
}

// decimal reads a whole number as Python's int(text, 0) does: in any base that
// has a prefix, with underscores and blanks. Picklers write digits alone.
func (m *machine) decimal(text string) (value, error) {
	digits := strings.Trim(text, " \t\r\v\f")
	plain := strings.TrimLeft(strings.TrimLeft(digits, "+-"), "0")
	n, ok := new(big.Int).SetString(digits, 0)
	octal := len(plain) > 0 && plain[0] >= '1' && plain[0] <= '9' && strings.HasPrefix(strings.TrimLeft(digits, "+-"), "0")
	if !ok || octal || len(digits) > maxLine {
		return 0, notNumber(text)
	}
	if n.String() != text {
		m.note(Review, RuleOpcode, "a number that is spelled oddly")
	}
	if len(digits) > maxDigits {
		m.note(Review, RuleOpcode, "a number of %d digits, which Python refuses since 3.11", len(digits))
	}
	if n.IsInt64() {
		return m.newInt(n.Int64()), nil
	}
	// Nobody needs the value of a larger one: more than 8 bytes say so.
	return m.keep(kLong, append(n.Bytes()[:min(len(n.Bytes()), maxText)], make([]byte, 9)...)), nil
}

// blobText keeps a string of any length up to a line's.
func (m *machine) blobText(s string) value {
	if len(s) <= maxText {
		return m.keep(kStr, []byte(s))
	}
	return newValue(kCut, uint64(m.cuts.add(m.heap, 40, cut{kept: m.keep(kStr, []byte(s[:maxText])), total: int64(len(s))})))
}

// unquote reads a string as Python's repr of bytes writes it.
func unquote(s string) (string, bool) {
	if len(s) < 2 || s[0] != s[len(s)-1] || s[0] != '\'' && s[0] != '"' {
		return "", false
	}
	s = s[1 : len(s)-1]
	if !strings.Contains(s, `\`) {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch c := s[i]; {
		case c == 'x' && i+2 < len(s):
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			b.WriteByte(byte(n))
			i += 2
		case c >= '0' && c <= '7':
			n := 0
			for end := min(i+3, len(s)); i < end && s[i] >= '0' && s[i] <= '7'; i++ {
				n = n*8 + int(s[i]-'0')
			}
			b.WriteByte(byte(n))
			i--
		default:
			if at := strings.IndexByte(`\'"abfnrtv`, c); at >= 0 {
				b.WriteByte("\\'\"\a\b\f\n\r\t\v"[at])
			} else {
				b.WriteByte('\\')
				b.WriteByte(c)
			}
		}
	}
	return b.String(), true
}

// rawUnicode reads a string in Python's encoding raw-unicode-escape.
func rawUnicode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		// Of several backslashes in a row only the last of an odd number
		// begins an escape.
		if s[i] == '\\' && i+1 < len(s) {
			if s[i+1] == '\\' {
				b.WriteString(`\\`)
				i++
				continue
			}
			n := map[byte]int{'u': 4, 'U': 8}[s[i+1]]
			if n > 0 && i+2+n <= len(s) {
				if r, err := strconv.ParseUint(s[i+2:i+2+n], 16, 32); err == nil {
					b.WriteRune(rune(r))
					i += 1 + n
					continue
				}
			}
		}
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}
