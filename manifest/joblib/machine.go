package joblib

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
)

// The opcodes that are named in the code; the others stand as characters, as
// in Python's pickletools.
const (
	opProto        = 0x80
	opNewObj       = 0x81
	opTuple1       = 0x85
	opTuple2       = 0x86
	opTuple3       = 0x87
	opTrue         = 0x88
	opFalse        = 0x89
	opLong1        = 0x8a
	opLong4        = 0x8b
	opShortUnicode = 0x8c
	opUnicode8     = 0x8d
	opBytes8       = 0x8e
	opEmptySet     = 0x8f
	opAddItems     = 0x90
	opFrozenSet    = 0x91
	opNewObjEx     = 0x92
	opStackGlobal  = 0x93
	opMemoize      = 0x94
	opFrame        = 0x95
	opByteArray8   = 0x96
)

// operand is how the bytes behind an opcode are found: so many bytes, a
// length of so many bytes before the bytes, or so many lines.
type operand struct{ fixed, length, lines uint8 }

var operands = [256]operand{
	opProto: {fixed: 1}, opFrame: {fixed: 8},
	'F': {lines: 1}, 'I': {lines: 1}, 'L': {lines: 1}, 'P': {lines: 1}, 'S': {lines: 1}, 'V': {lines: 1},
	'g': {lines: 1}, 'p': {lines: 1}, 'c': {lines: 2}, 'i': {lines: 2},
	'G': {fixed: 8}, 'J': {fixed: 4}, 'K': {fixed: 1}, 'M': {fixed: 2},
	'h': {fixed: 1}, 'j': {fixed: 4}, 'q': {fixed: 1}, 'r': {fixed: 4},
	'T': {length: 4}, 'X': {length: 4}, 'B': {length: 4}, opLong4: {length: 4},
	'U': {length: 1}, 'C': {length: 1}, opLong1: {length: 1}, opShortUnicode: {length: 1},
	opUnicode8: {length: 8}, opBytes8: {length: 8}, opByteArray8: {length: 8},
}

// shape is what a symbolic value stands for.
type shape uint8

const (
	value  shape = iota // a number, None, bytes
	mark                // not a value: where a run of items began
	text                // a string
	global              // a class or function, by name
	object              // what a global made
	array               // a numpy array
	dict
	list
	tuple
	set
)

func (s shape) String() string {
	return [...]string{"value", "", "value", "global", "object", "array", "dict", "list", "tuple", "set"}[s]
}

// node is a symbolic value. Nodes are shared through the memo, and may form
// cycles; nothing walks them.
type node struct {
	shape  shape
	text   string   // the text, or module.name of a global or of an object's class
	num    int64    // the number, where it is a small one
	items  []*node  // of a short tuple; of an object the arguments it was made from
	keys   []string // the first few text keys of a dict …
	values []*node  // … and their values
	inside []string // the classes of the objects directly in it
	built  bool     // an object that has received its state
}

const (
	maxOps    = 1 << 17 // bounds the memory for nodes to about 20 MiB
	maxKept   = 16      // tuple items, dict keys and classes kept
	maxDigits = 18
)

var errBad = errors.New("not a pickle")

// machine walks the opcodes of one pickle. It knows of joblib only how long
// an array is.
type machine struct {
	data    []byte
	pos     int
	ops     int
	stack   []*node
	memo    map[uint64]*node
	nested  bool // inside an array of objects, where joblib's arrays do not occur
	wrapped bool // one of joblib's arrays was seen
}

// run walks to the STOP opcode. It returns [io.ErrUnexpectedEOF] at the end
// of the data or of the machine's patience, and errBad for what no pickle
// holds.
func (m *machine) run() error {
	m.memo = map[uint64]*node{}
	for ; m.ops < maxOps; m.ops++ {
		if m.pos >= len(m.data) {
			return io.ErrUnexpectedEOF
		}
		op := m.data[m.pos]
		m.pos++
		arg, err := m.operand(operands[op])
		if err != nil {
			return err
		}
		if op == '.' {
			if len(m.stack) == 0 || m.stack[len(m.stack)-1].shape == mark {
				return errBad
			}
			return nil
		}
		if err := m.step(op, arg); err != nil {
			return err
		}
	}
	return io.ErrUnexpectedEOF
}

// operand takes an opcode's operand; two lines come with the newline between.
func (m *machine) operand(o operand) ([]byte, error) {
	rest := m.data[m.pos:]
	n := uint64(o.fixed)
	switch {
	case o.length > 0:
		if len(rest) < int(o.length) {
			return nil, io.ErrUnexpectedEOF
		}
		var size [8]byte
		copy(size[:], rest[:o.length])
		n = binary.LittleEndian.Uint64(size[:])
		m.pos += int(o.length)
		rest = rest[o.length:]
	case o.lines > 0:
		for range o.lines {
			i := bytes.IndexByte(rest[n:], '\n')
			if i < 0 {
				return nil, io.ErrUnexpectedEOF
			}
			n += uint64(i) + 1
		}
		m.pos += int(n)
		return rest[:n-1], nil
	}
	if n > uint64(len(rest)) {
		return nil, io.ErrUnexpectedEOF
	}
	m.pos += int(n)
	return rest[:n], nil
}

// step executes one opcode, by what it does to the stack.
func (m *machine) step(op byte, arg []byte) error {
	switch op {
	case opProto, opFrame:
	case 'N', 'F', 'G', 'I', 'J', 'K', 'M', 'L', opLong1, opLong4, opTrue, opFalse, 'B', 'C', opBytes8, opByteArray8:
		m.push(&node{num: number(op, arg)})
	case 'S':
		m.push(&node{shape: text, text: strings.Trim(string(arg), `'"`)})
	case 'V', 'X', 'T', 'U', opShortUnicode, opUnicode8:
		m.push(&node{shape: text, text: string(arg)})
	case '(':
		m.push(&node{shape: mark})
	case '}':
		m.push(&node{shape: dict})
	case ']':
		m.push(&node{shape: list})
	case ')':
		m.push(&node{shape: tuple})
	case opEmptySet:
		m.push(&node{shape: set})
	case 'P':
		m.push(&node{})
	case 'p', 'q', 'r', opMemoize, 'g', 'h', 'j':
		return m.remember(op, arg)
	case '0', '1', '2', 'Q':
		return m.shuffle(op)
	case 'd', 'l', 't', opTuple1, opTuple2, opTuple3, opFrozenSet, 'a', 'e', 's', 'u', opAddItems:
		return m.collect(op)
	case 'c', opStackGlobal, 'R', opNewObj, opNewObjEx, 'i', 'o', 'b':
		return m.call(op, arg)
	default:
		return errBad
	}
	return nil
}

// number reads a small number; what does not fit is 0.
func number(op byte, arg []byte) int64 {
	switch op {
	case 'I', 'L':
		n, err := strconv.ParseInt(strings.TrimSuffix(string(arg[:min(len(arg), maxDigits)]), "L"), 10, 64)
		if err != nil {
			return 0
		}
		return n
	case 'J', 'K', 'M', opLong1:
		if len(arg) > 7 {
			return 0
		}
		var b [8]byte
		copy(b[:], arg)
		return int64(binary.LittleEndian.Uint64(b[:]))
	}
	return 0
}

func (m *machine) push(n *node) { m.stack = append(m.stack, n) }

// pop takes n values off the stack, none of them a mark.
func (m *machine) pop(n int) ([]*node, error) {
	at := len(m.stack) - n
	if at < 0 || slices.ContainsFunc(m.stack[at:], func(n *node) bool { return n.shape == mark }) {
		return nil, errBad
	}
	taken := m.stack[at:]
	m.stack = m.stack[:at]
	return taken, nil
}

// popMark takes the values behind the last mark, and the mark.
func (m *machine) popMark() ([]*node, error) {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if m.stack[i].shape == mark {
			taken := m.stack[i+1:]
			m.stack = m.stack[:i]
			return taken, nil
		}
	}
	return nil, errBad
}

func (m *machine) top() (*node, error) {
	if len(m.stack) == 0 || m.stack[len(m.stack)-1].shape == mark {
		return nil, errBad
	}
	return m.stack[len(m.stack)-1], nil
}

// remember executes the opcodes of the memo.
func (m *machine) remember(op byte, arg []byte) error {
	var slot uint64
	switch op {
	case opMemoize:
		slot = uint64(len(m.memo))
	case 'p', 'g':
		var err error
		if slot, err = strconv.ParseUint(string(arg), 10, 32); err != nil {
			return errBad
		}
	default:
		var b [8]byte
		copy(b[:], arg)
		slot = binary.LittleEndian.Uint64(b[:])
	}
	if op == 'g' || op == 'h' || op == 'j' {
		n, ok := m.memo[slot]
		if !ok {
			return errBad
		}
		m.push(n)
		return nil
	}
	n, err := m.top()
	m.memo[slot] = n
	return err
}

// shuffle executes the opcodes that only move values.
func (m *machine) shuffle(op byte) error {
	switch op {
	case '0':
		if len(m.stack) == 0 {
			return errBad
		}
		m.stack = m.stack[:len(m.stack)-1]
	case '1':
		_, err := m.popMark()
		return err
	case '2':
		n, err := m.top()
		if err != nil {
			return err
		}
		m.push(n)
	case 'Q':
		if _, err := m.pop(1); err != nil {
			return err
		}
		m.push(&node{})
	}
	return nil
}

// collect executes the opcodes that make and fill containers.
func (m *machine) collect(op byte) error {
	var (
		items []*node
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
	switch op {
	case 'd':
		n := &node{shape: dict}
		n.set(items)
		m.push(n)
		return nil
	case 'l', opFrozenSet:
		n := &node{shape: list}
		if op == opFrozenSet {
			n.shape = set
		}
		n.hold(items...)
		m.push(n)
		return nil
	case 't', opTuple1, opTuple2, opTuple3:
		m.push(newTuple(items))
		return nil
	}
	n, err := m.top()
	if err != nil {
		return err
	}
	if op == 's' || op == 'u' {
		n.set(items)
	} else {
		n.hold(items...)
	}
	return nil
}
