package joblib

import (
	"encoding/binary"
	"fmt"
	"math"
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
	illegal bool  // it is no opcode at all
	sure    bool  // Python's readers fail here too, whichever it is
	past    int64 // where an operand that is too long to be read would end
}

func (e *streamError) Error() string { return e.msg }

// external is the error of opcodes whose meaning is not in the file.
func external(op string) error {
	return &streamError{rule: RuleExternal, sure: true, msg: op + ", whose meaning is kept outside the file"}
}

// fails is the error of what Python's readers fail on.
func fails(format string, args ...any) error {
	return &streamError{rule: RuleStream, sure: true, msg: fmt.Sprintf(format, args...)}
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
	partial   bool       // a name was cut by the end of the file, which may be imported all the same
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
	return top, m.placeholders(top)
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
		return &streamError{rule: RuleStream, msg: fmt.Sprintf("0x%02x is no opcode", op), illegal: true, sure: true}
	case o.length > 0:
		return m.counted(op, int(o.length))
	case o.line:
		line, err := m.in.line()
		if err != nil {
			// Python in Python takes what there is for a line, but for its
			// last byte.
			m.partial = m.partial || (op == 'c' || op == 'i') && len(line) > 1 && isName(string(line[:len(line)-1]))
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
	case 'Q', opNextBuffer:
		return external(map[byte]string{'Q': "BINPERSID", opNextBuffer: "NEXT_BUFFER"}[op])
	case opReadonly:
		return &streamError{rule: RuleExternal, msg: "READONLY_BUFFER, which no file needs"}
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
		return nil, fails("too few values on the stack")
	}
	taken := m.stack[at:]
	m.stack = m.stack[:at]
	return taken, nil
}

// popMark takes the values behind the last mark, and the mark.
func (m *machine) popMark() ([]value, error) {
	if len(m.marks) == 0 {
		return nil, fails("no mark on the stack")
	}
	at := m.floor()
	m.marks = m.marks[:len(m.marks)-1]
	taken := m.stack[at:]
	m.stack = m.stack[:at]
	return taken, nil
}

func (m *machine) top() (value, error) {
	if len(m.stack) <= m.floor() {
		return 0, fails("too few values on the stack")
	}
	return m.stack[len(m.stack)-1], nil
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
		if v.kind() == kGlobal {
			m.globals[v.index()].count++
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
	if err := m.placeholders(items...); err != nil {
		return err
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
	if pairs && len(items) == 0 {
		return nil // as in Python, whatever v is
	}
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
	if m.boxes.at(v.index()).frozen {
		return malformed("what an object was made of is changed afterwards")
	}
	m.extend(v, items)
	return nil
}
