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

const (
	maxDigits = 4300 // of a number that is text: Python's own limit
	maxOps    = 200_000_000
	maxMemory = 256 << 20 // bytes that a walk may keep
)

// streamError is why a walk cannot go on: the stream makes no sense, or more of
// it than can be kept.
type streamError struct {
	rule    Rule
	msg     string
	illegal bool // it is no opcode at all
}

func (e *streamError) Error() string { return e.msg }

// external is the error of opcodes whose meaning is not in the file.
func external(op string) error {
	return &streamError{rule: RuleExternal, msg: op + ", whose meaning is kept outside the file"}
}

func malformed(format string, args ...any) error {
	return &streamError{rule: RuleStream, msg: fmt.Sprintf(format, args...)}
}

// machine walks the opcodes of a pickle with symbolic values, as joblib's
// unpickler would, which is Python's own in pure Python
// (https://github.com/python/cpython/blob/v3.13.0/Lib/pickle.py) with a hook for
// arrays. It imports nothing and calls nothing; what a call makes is an object
// that remembers its callable and arguments. It does not recurse, but once for
// the pickle in an array of objects.
type machine struct {
	*heap
	in     *input
	sink   *sink
	policy *policy

	stack []value
	marks []int // where in the stack each mark lies
	memo  memo
	ops   int
	proto int
	outer int   // the protocol of the pickle around this one
	frame int64 // where the current frame ends; -1: there is none
	held  int64 // bytes of the stack of the pickle around this one
	depth int   // 1 in an array of objects, where joblib's arrays do not occur
	plain bool  // no joblib at all: what pickle.load sees
	limit int64 // of the position; 0: none
	deep  bool  // look into the nodes of trees
	at    int64 // of the opcode under way

	scratch   []byte
	view      *plainView // of the pickle in an array; nil: pickle.load has given up
	shuffled  ['3']bool  // POP, POP_MARK and DUP that were noted
	binary    bool       // opcodes of protocol 1 were seen
	protoSeen bool
	maxProto  int
	rewritten bool // a slot of the memo was written twice
	unordered bool // the memo was not written in order
	padded    bool // a padded array was seen: joblib 1.2 or later
	unpadded  bool
	arrayView bool // the plain view was taken
	nested    int  // the highest protocol of a pickle in an array
}

func newMachine(in *input, s *sink) *machine {
	return &machine{heap: &heap{byName: make(map[[2]string]int)}, in: in, sink: s, policy: thePolicy(), frame: -1, nested: -1}
}

// run walks to the STOP opcode and returns the value that the pickle stands
// for. Errors are io.ErrUnexpectedEOF, a *streamError, or the source's.
func (m *machine) run() (value, error) {
	for ; m.ops < maxOps; m.ops++ {
		if m.frame == m.in.pos() {
			m.frame = -1
		}
		m.at = m.in.pos()
		op, err := m.in.byte()
		if err != nil {
			return 0, err
		}
		if op == '.' {
			return m.stop()
		}
		if err := m.step(op); err != nil {
			return 0, err
		}
		if m.frame >= 0 && m.in.pos() > m.frame {
			return 0, malformed("an opcode crosses the end of its frame")
		}
		if m.limit > 0 && m.in.pos() > m.limit {
			return 0, &streamError{rule: RuleLimit, msg: fmt.Sprintf("more than %d bytes", m.limit)}
		}
		if m.memory() > maxMemory {
			return 0, &streamError{rule: RuleLimit, msg: fmt.Sprintf("more than %d MiB of values", maxMemory>>20)}
		}
	}
	return 0, &streamError{rule: RuleLimit, msg: fmt.Sprintf("more than %d opcodes", maxOps)}
}

// memory is what the walk keeps, in bytes. A slice counts twice, for it is
// copied as it grows.
func (m *machine) memory() int64 { return m.spent + m.held + int64(len(m.stack)+len(m.marks))*16 }

func (m *machine) stop() (value, error) {
	if len(m.stack) == 0 || len(m.marks) > 0 {
		return 0, malformed("STOP without a value")
	}
	if len(m.stack) > 1 {
		m.note(Review, RuleOpcode, "%d values are left on the stack at the end", len(m.stack)-1)
	}
	if m.frame > m.in.pos() {
		return 0, malformed("STOP before the end of its frame")
	}
	top := m.stack[len(m.stack)-1]
	m.use(top, UseValue)
	return top, nil
}

// note adds a finding at the opcode under way.
func (m *machine) note(v Verdict, rule Rule, format string, args ...any) {
	m.sink.add(Finding{Verdict: v, Rule: rule, Offset: m.at, Message: fmt.Sprintf(format, args...)})
}

// step executes one opcode.
func (m *machine) step(op byte) error {
	o := operands[op]
	m.binary = m.binary || o.binary && m.depth == 0
	switch {
	case !o.legal:
		return &streamError{rule: RuleStream, msg: fmt.Sprintf("0x%02x is no opcode", op), illegal: true}
	case o.length > 0:
		return m.counted(op, int(o.length))
	case o.line:
		line, err := m.in.line()
		if err != nil {
			return err
		}
		return m.textual(op, line)
	case o.fixed > 0:
		b, err := m.in.take(int(o.fixed))
		if err != nil {
			return err
		}
		return m.fixed(op, b)
	}
	switch op {
	case 'N':
		m.push(newValue(kNone, 0))
	case opTrue, opFalse:
		m.push(boolValue(op == opTrue))
	case '(':
		m.marks = append(m.marks, len(m.stack))
	case '}':
		m.push(m.newBox(kDict, nil))
	case ']':
		m.push(m.newBox(kList, nil))
	case ')':
		m.push(m.newBox(kTuple, nil))
	case opEmptySet:
		m.push(m.newBox(kSet, nil))
	case opMemoize:
		return m.put(m.memo.size())
	case '0', '1', '2':
		return m.shuffle(op)
	case 'Q', opNextBuffer, opReadonly:
		return external(map[byte]string{'Q': "BINPERSID", opNextBuffer: "NEXT_BUFFER", opReadonly: "READONLY_BUFFER"}[op])
	case 'd', 'l', 't', opTuple1, opTuple2, opTuple3, opFrozenSet, 'a', 'e', 's', 'u', opAddItems:
		return m.collect(op)
	default:
		return m.call(op)
	}
	return nil
}

// fixed executes an opcode with an operand of a fixed length.
func (m *machine) fixed(op byte, b []byte) error {
	var full [8]byte
	copy(full[:], b)
	n := binary.LittleEndian.Uint64(full[:])
	switch op {
	case opProto:
		return m.protocol(int(n))
	case opFrame:
		if m.frame >= 0 {
			return malformed("a frame within a frame")
		}
		end := m.in.pos() + int64(n)
		if n > math.MaxInt64 || end < 0 {
			return malformed("a frame of %d bytes", n)
		}
		m.frame = end
	case opExt1, opExt2, opExt4:
		return external(fmt.Sprintf("EXT%d", len(b)))
	case 'G':
		m.push(m.newFloat(binary.BigEndian.Uint64(b)))
	case 'J':
		m.push(m.newInt(int64(int32(n))))
	case 'K', 'M':
		m.push(m.newInt(int64(n)))
	case 'h', 'j':
		return m.fetch(n)
	case 'q', 'r':
		m.view.wrote(n)
		return m.put(n)
	}
	return nil
}

func (m *machine) protocol(n int) error {
	if n > 5 {
		return malformed("protocol %d", n)
	}
	if m.protoSeen {
		m.note(Review, RuleOpcode, "a second PROTO opcode, which changes how names are read")
	}
	m.protoSeen, m.proto = true, n
	m.maxProto = max(m.maxProto, n)
	return nil
}

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
		return &streamError{rule: RuleLimit, msg: fmt.Sprintf("an operand of %d bytes", size)}
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
		f, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) || strings.ContainsAny(line, "xX") {
			return 0, malformed("number %.40q", line)
		}
		return m.newFloat(math.Float64bits(f)), nil
	case 'S':
		text, ok := unquote(strings.TrimRight(line, " \t\r"))
		if !ok {
			return 0, malformed("string %.40q", line)
		}
		return m.blobText(text), nil
	}
	return m.blobText(rawUnicode(line)), nil
}

// decimal reads a whole number as Python's int(text, 0) does: in any base that
// has a prefix, with underscores and blanks. Picklers write digits alone.
func (m *machine) decimal(text string) (value, error) {
	digits := strings.Trim(text, " \t\r\v\f")
	plain := strings.TrimLeft(strings.TrimLeft(digits, "+-"), "0")
	n, ok := new(big.Int).SetString(digits, 0)
	octal := len(plain) > 0 && plain[0] >= '1' && plain[0] <= '9' && strings.HasPrefix(strings.TrimLeft(digits, "+-"), "0")
	if !ok || octal || len(digits) > maxLine {
		return 0, malformed("number %.40q", text)
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

func (m *machine) push(v value) { m.stack = append(m.stack, v) }

// floor is below what an opcode may take: Python has a stack for each mark.
func (m *machine) floor() int {
	if len(m.marks) == 0 {
		return 0
	}
	return m.marks[len(m.marks)-1]
}

// pop takes n values off the stack. They stay valid until the next push.
func (m *machine) pop(n int) ([]value, error) {
	at := len(m.stack) - n
	if at < m.floor() {
		return nil, malformed("too few values on the stack")
	}
	taken := m.stack[at:]
	m.stack = m.stack[:at]
	return taken, nil
}

// popMark takes the values behind the last mark, and the mark.
func (m *machine) popMark() ([]value, error) {
	if len(m.marks) == 0 {
		return nil, malformed("no mark on the stack")
	}
	at := m.floor()
	m.marks = m.marks[:len(m.marks)-1]
	taken := m.stack[at:]
	m.stack = m.stack[:at]
	return taken, nil
}

func (m *machine) top() (value, error) {
	if len(m.stack) <= m.floor() {
		return 0, malformed("too few values on the stack")
	}
	return m.stack[len(m.stack)-1], nil
}

// memo is the values that can be fetched again. Every pickler fills it in
// order; what it does not is sparse.
type memo struct {
	below  *memo // what is not to be changed; nil: nothing
	dense  arena[value]
	sparse map[uint64]value
	hidden int // slots of below that are in sparse
}

func (o *memo) size() uint64 {
	n := o.dense.n + len(o.sparse) - o.hidden
	if o.below != nil {
		return uint64(n) + o.below.size()
	}
	return uint64(n)
}

func (o *memo) get(slot uint64) (value, bool) {
	if slot < uint64(o.dense.n) {
		return *o.dense.at(int(slot)), true
	}
	v, ok := o.sparse[slot]
	if !ok && o.below != nil {
		return o.below.get(slot)
	}
	return v, ok
}

// over is a memo that begins like o and leaves it alone.
func (o *memo) over() memo { return memo{below: o, sparse: make(map[uint64]value)} }

// put writes the memo.
func (m *machine) put(slot uint64) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	o := &m.memo
	_, there := o.get(slot)
	if there && !m.rewritten {
		m.rewritten = true
		m.note(Review, RuleOpcode, "a slot of the memo is written twice")
	}
	switch {
	case slot < uint64(o.dense.n):
		*o.dense.at(int(slot)) = v
		return nil
	case o.sparse == nil && slot == o.size():
		o.dense.add(m.heap, 8, v)
		return nil
	case o.sparse == nil:
		o.sparse = make(map[uint64]value)
	}
	if slot > o.size() && !m.unordered {
		m.unordered = true
		m.note(Unverifiable, RuleStream, "the memo is not written in order, which some readers fail on")
	}
	if _, own := o.sparse[slot]; there && !own {
		o.hidden++
	}
	o.sparse[slot] = v
	m.spent += 64
	return nil
}

func (m *machine) fetch(slot uint64) error {
	v, ok := m.memo.get(slot)
	if !ok {
		return malformed("slot %d of the memo is fetched and was not written", slot)
	}
	switch v.kind() {
	case kObject:
		if m.objects.at(v.index()).flags&wrapperAt != 0 && !m.plain {
			return malformed("the placeholder of an array is fetched again")
		}
	case kGlobal:
		m.globals[v.index()].count++
	}
	m.push(v)
	m.view.fetched(m, slot)
	return nil
}

// shuffle executes the opcodes that only move values.
func (m *machine) shuffle(op byte) error {
	name := "POP"
	switch op {
	case '0':
		if len(m.stack) > m.floor() {
			m.stack = m.stack[:len(m.stack)-1]
		} else if _, err := m.popMark(); err != nil {
			return err
		}
	case '1':
		name = "POP_MARK"
		if _, err := m.popMark(); err != nil {
			return err
		}
	case '2':
		name = "DUP"
		v, err := m.top()
		if err != nil {
			return err
		}
		m.push(v)
	}
	if !m.shuffled[op] {
		m.shuffled[op] = true
		m.note(Review, RuleOpcode, "%s, which picklers of models do not write", name)
	}
	return nil
}

// collect executes the opcodes that make and fill containers.
func (m *machine) collect(op byte) error {
	var (
		items []value
		err   error
	)
	switch op {
	case opTuple1, opTuple2, opTuple3:
		items, err = m.pop(int(op-opTuple1) + 1)
	case 'a':
		items, err = m.pop(1)
	case 's':
		items, err = m.pop(2)
	default:
		items, err = m.popMark()
	}
	if err != nil {
		return err
	}
	if (op == 'd' || op == 'u') && len(items)%2 == 1 {
		return malformed("a key without a value")
	}
	for _, it := range items {
		m.use(it, UseValue)
	}
	switch op {
	case 'd':
		m.push(m.newBox(kDict, items))
	case 'l':
		m.push(m.newBox(kList, items))
	case opFrozenSet:
		m.push(m.newBox(kSet, items))
	case 't', opTuple1, opTuple2, opTuple3:
		m.push(m.newBox(kTuple, items))
	default:
		return m.fillTop(op, items)
	}
	return nil
}

// fillTop gives items to the container on top of the stack.
func (m *machine) fillTop(op byte, items []value) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	pairs := op == 's' || op == 'u'
	switch v.kind() {
	case kList:
		if pairs || op == opAddItems {
			return malformed("items for a dict or set given to a list")
		}
	case kDict:
		if !pairs {
			return malformed("items for a list given to a dict")
		}
	case kSet:
		if op != opAddItems {
			return malformed("items for a list or dict given to a set")
		}
	case kObject:
		return m.fillObject(v, items, pairs)
	case kGlobal:
		m.blame(&m.globals[v.index()], Dangerous, RuleState, "items are set in a class, function or module")
		return nil
	default:
		return malformed("items given to what holds none")
	}
	if m.plain {
		return nil
	}
	if b := m.boxes.at(v.index()); b.state {
		b.state = false
		m.note(Review, RuleState, "the state of an object is changed after the object has it")
	}
	m.extend(v, items)
	return nil
}
