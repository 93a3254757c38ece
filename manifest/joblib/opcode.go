package joblib

// The opcodes that are named in the code; the others stand as characters, as
// in Python's pickletools.
const (
	opProto        = 0x80
	opNewObj       = 0x81
	opExt1         = 0x82
	opExt2         = 0x83
	opExt4         = 0x84
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
	opNextBuffer   = 0x97
	opReadonly     = 0x98
)

// operand is how the bytes behind an opcode are found: so many bytes, a
// length of so many bytes before the bytes, or a line.
type operand struct {
	fixed, length uint8
	line          bool
	legal         bool
	binary        bool // of protocol 1, which has no PROTO to say so
}

var operands = func() (t [256]operand) {
	for _, op := range "(.012NQR]})abdelostu" {
		t[op].legal = true
	}
	for op := opProto; op <= opReadonly; op++ {
		t[op].legal = true
	}
	for _, op := range "FILPSVgpci" { // GLOBAL and INST have a second line
		t[op] = operand{line: true, legal: true}
	}
	for op, n := range map[byte]uint8{
		'G': 8, 'J': 4, 'K': 1, 'M': 2, 'h': 1, 'j': 4, 'q': 1, 'r': 4,
		opProto: 1, opFrame: 8, opExt1: 1, opExt2: 2, opExt4: 4,
	} {
		t[op] = operand{fixed: n, legal: true}
	}
	for op, n := range map[byte]uint8{
		'T': 4, 'X': 4, 'B': 4, opLong4: 4, 'U': 1, 'C': 1, opLong1: 1, opShortUnicode: 1,
		opUnicode8: 8, opBytes8: 8, opByteArray8: 8,
	} {
		t[op] = operand{length: n, legal: true}
	}
	for _, op := range "1]})euGJKMTUXhjqr" {
		t[op].binary = true
	}
	return t
}()
