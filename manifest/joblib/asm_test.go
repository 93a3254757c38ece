package joblib_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"galley/manifest/joblib"
)

// The opcodes have the names of Python's pickletools. Those with an operand are
// functions.
const (
	stop       = "."
	mark       = "("
	none       = "N"
	yes        = "\x88"
	no         = "\x89"
	emptyTuple = ")"
	emptyList  = "]"
	emptyDict  = "}"
	emptySet   = "\x8f"
	tuple      = "t"
	tuple1     = "\x85"
	tuple2     = "\x86"
	tuple3     = "\x87"
	list       = "l"
	dict       = "d"
	frozenSet  = "\x91"
	appendOne  = "a"
	appends    = "e"
	setItem    = "s"
	setItems   = "u"
	addItems   = "\x90"
	pop        = "0"
	popMark    = "1"
	dup        = "2"
	reduce     = "R"
	build      = "b"
	newObj     = "\x81"
	newObjEx   = "\x92"
	obj        = "o"
	stackName  = "\x93"
	memoize    = "\x94"
	persID     = "Q"
)

func le(n uint64, width int) string {
	return string(binary.LittleEndian.AppendUint64(nil, n)[:width])
}

func proto(n byte) string      { return "\x80" + string([]byte{n}) }
func frame(body string) string { return frameOf(uint64(len(body))) + body }
func frameOf(n uint64) string  { return "\x95" + le(n, 8) }
func put(n uint64) string      { return "r" + le(n, 4) }
func get(n uint64) string      { return "j" + le(n, 4) }
func i32(n int) string         { return "J" + le(uint64(n), 4) }
func f64(f float64) string {
	return "G" + string(binary.BigEndian.AppendUint64(nil, math.Float64bits(f)))
}
func str(s string) string { return "X" + le(uint64(len(s)), 4) + s }
func raw(s string) string { return "B" + le(uint64(len(s)), 4) + s }

// global is GLOBAL with what "module name" spells.
func global(s string) string {
	module, name, _ := strings.Cut(s, " ")
	return "c" + module + "\n" + name + "\n"
}

// named is STACK_GLOBAL with what "module name" spells.
func named(s string) string {
	module, name, _ := strings.Cut(s, " ")
	return str(module) + str(name) + stackName
}

// tupleOf, listOf and dictOf make containers of any number of items.
func tupleOf(items ...string) string { return mark + strings.Join(items, "") + tuple }
func listOf(items ...string) string  { return emptyList + mark + strings.Join(items, "") + appends }
func dictOf(items ...string) string  { return emptyDict + mark + strings.Join(items, "") + setItems }

// call is REDUCE, instance NEWOBJ without arguments, of "module name".
func call(callee string, args ...string) string { return global(callee) + tupleOf(args...) + reduce }
func instance(class string) string              { return global(class) + emptyTuple + newObj }

// pickle is a whole one of protocol 4, without frames.
func pickle(body ...string) string { return proto(4) + strings.Join(body, "") + stop }

// dtype describes a numpy dtype as pickles do; what is zero has its usual value.
type dtype struct {
	callee string   // instead of numpy dtype
	args   []string // instead of code, False, True
	code   string
	state  []string // instead of what the rest says
	order  string
	size   int
	flags  int
}

func (d dtype) String() string {
	if d.callee == "" {
		d.callee = "numpy dtype"
	}
	if d.args == nil {
		d.args = []string{str(d.code), no, yes}
	}
	return call(d.callee, d.args...) + tupleOf(d.parts()...) + build
}

// parts are the items of the dtype's state: version, byte order, subarray,
// names, fields, element size, alignment and flags.
func (d dtype) parts() []string {
	if d.state != nil {
		return d.state
	}
	if d.order == "" {
		d.order = "<"
	}
	if d.size == 0 {
		d.size = -1
	}
	return []string{i32(3), str(d.order), none, none, none, i32(d.size), i32(-1), i32(d.flags)}
}

var (
	float64s = dtype{code: "f8"}
	bytesOf  = dtype{code: "u1", order: "|"}
	objects  = dtype{code: "O8", order: "|", flags: 63}
)

// wrapper describes joblib's placeholder of an array; what is zero has its
// usual value.
type wrapper struct {
	make     string // instead of NEWOBJ of NumpyArrayWrapper
	subclass string
	shape    string
	order    string
	dtype    string
	mmap     string
	align    string // empty: none, as before joblib 1.2
	more     []string
}

const wrapperClass = "joblib.numpy_pickle NumpyArrayWrapper"

// state is the placeholder's, a dict.
func (w wrapper) state() string {
	def := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	items := []string{
		str("subclass"), def(w.subclass, global("numpy ndarray")),
		str("shape"), def(w.shape, tupleOf(i32(2))),
		str("order"), def(w.order, str("C")),
		str("dtype"), def(w.dtype, float64s.String()),
		str("allow_mmap"), def(w.mmap, yes),
	}
	if w.align != "" {
		items = append(items, str("numpy_array_alignment_bytes"), w.align)
	}
	return dictOf(append(items, w.more...)...)
}

// String is everything up to the array's bytes.
func (w wrapper) String() string {
	if w.make == "" {
		w.make = instance(wrapperClass)
	}
	return w.make + w.state() + build
}

// inspect reads a pickle that is given as a string.
func inspect(t testing.TB, pickle string, o joblib.Options) *joblib.Report {
	t.Helper()
	r, err := joblib.Inspect(strings.NewReader(pickle), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// has reports whether there is a finding of this verdict and rule.
func has(r *joblib.Report, v joblib.Verdict, rule joblib.Rule) bool {
	return slices.ContainsFunc(r.Findings, func(f joblib.Finding) bool { return f.Verdict == v && f.Rule == rule })
}

// want is a case of a table: a pickle, and what is to be said of it. Without a
// rule nothing is to be found.
type want struct {
	name    string
	pickle  string
	verdict joblib.Verdict
	rule    joblib.Rule
}

func judge(t *testing.T, cases []want) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := inspect(t, c.pickle, joblib.Options{})
			if r.Verdict != c.verdict || c.rule != "" && !has(r, c.verdict, c.rule) || c.rule == "" && len(r.Findings) > 0 {
				t.Errorf("got %s, want %s for %q\n%s", r.Verdict, c.verdict, c.rule, spell(r.Findings))
			}
		})
	}
}

func spell(all []joblib.Finding) string {
	var b bytes.Buffer
	for _, f := range all {
		fmt.Fprintf(&b, "%+v\n", f)
	}
	return b.String()
}
