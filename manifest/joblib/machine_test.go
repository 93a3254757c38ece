package joblib_test

import (
	"fmt"
	"strings"
	"testing"

	"galley/manifest/joblib"
)

// The verdicts, as the tables below write them.
const (
	pass         = joblib.Pass
	review       = joblib.Review
	unverifiable = joblib.Unverifiable
	dangerous    = joblib.Dangerous
)

// aClass is a class that the policy lists and that has no __setstate__.
const aClass = "sklearn.calibration _CalibratedClassifier"

// padded is the padding before data at offset 0 of what follows s.
func padded(s string) string {
	n := 16 - (len(s)+1)%16
	return s + string([]byte{byte(n)}) + strings.Repeat("\xff", n)
}

func TestFrames(t *testing.T) {
	t.Parallel()
	w := wrapper{}.String()
	data := strings.Repeat("\x00", 16)
	judge(t, []want{
		{"one frame", proto(4) + frame(none+stop), pass, ""},
		{"two frames", proto(4) + frame(none+memoize) + frame(emptyTuple+tuple2+stop), pass, ""},
		{"a frame of nothing", proto(4) + frame("") + frame(none+stop), pass, ""},
		{"opcodes between frames", proto(4) + frame(none) + emptyTuple + frame(tuple2+stop), pass, ""},
		{"an array behind its frame", proto(4) + frame(w) + data + frame(stop), pass, ""},
		{"an array in its frame", proto(4) + frame(w+data+stop), unverifiable, joblib.RuleStream},
		{"opcodes in the frame behind the array", proto(4) + frame(w+none) + data + stop, unverifiable, joblib.RuleStream},
		{"an operand across the end", proto(4) + frameOf(3) + str("abc") + stop, unverifiable, joblib.RuleStream},
		{"a line across the end", proto(4) + frameOf(3) + "I12345\n" + stop, unverifiable, joblib.RuleStream},
		{"the length of a frame across the end", proto(4) + frameOf(4) + frame(none+stop), unverifiable, joblib.RuleStream},
		{"a frame within a frame", proto(4) + frame(none+frame(emptyTuple)) + stop, unverifiable, joblib.RuleStream},
		{"a frame as long as numbers go", proto(4) + frameOf(1<<63) + none + stop, unverifiable, joblib.RuleStream},
		{"a frame beyond the end of numbers", proto(4) + frameOf(1<<63-1) + none + stop, unverifiable, joblib.RuleStream},
		{"a frame longer than the file", proto(4) + frameOf(100) + none + stop, unverifiable, joblib.RuleStream},
		{"an array of objects in its frame", proto(4) + frame(wrapper{dtype: objects.String()}.String()+pickle(none)+stop), unverifiable, joblib.RuleStream},
	})
}

func TestProtocols(t *testing.T) {
	t.Parallel()
	judge(t, []want{
		{"none is protocol 0", none + stop, pass, ""},
		{"protocol 5", proto(5) + none + stop, pass, ""},
		{"protocol 6", proto(6) + none + stop, unverifiable, joblib.RuleStream},
		{"protocol 255", proto(255) + none + stop, unverifiable, joblib.RuleStream},
		{"a second PROTO", proto(4) + proto(4) + none + stop, review, joblib.RuleOpcode},
		{"one that comes late", none + proto(4) + stop, pass, ""},
		{"one in an array of objects", pickle(wrapper{dtype: objects.String()}.String() + proto(2) + none + stop), pass, ""},
		{"two in an array of objects", pickle(wrapper{dtype: objects.String()}.String() + proto(2) + proto(2) + none + stop), review, joblib.RuleOpcode},
		{"a name of Python 2 under protocol 2", proto(2) + global("__builtin__ eval") + stop, dangerous, joblib.RuleDenied},
		{"a name of Python 2 under protocol 4", proto(4) + global("__builtin__ eval") + stop, dangerous, joblib.RuleStdlib},
		{"a name of Python 2 after a change of protocol", proto(4) + proto(2) + global("commands getoutput") + stop, dangerous, joblib.RuleDenied},
		{"a harmless name of Python 2", proto(2) + global("__builtin__ object") + stop, pass, ""},
		{"a name of Python 2 in an array of objects", pickle(wrapper{dtype: objects.String()}.String() + global("commands getoutput") + stop), dangerous, joblib.RuleDenied},
		{"a dotted name", proto(4) + named("joblib.numpy_pickle os.mkdir") + stop, dangerous, joblib.RuleDotted},
	})
}

func TestMemo(t *testing.T) {
	t.Parallel()
	const bad = "posix system"
	module, name, _ := strings.Cut(bad, " ")
	judge(t, []want{
		{"a name from the memo", pickle(str(module), put(0), str(name), put(1), tuple2, get(0), get(1), stackName, tuple2), dangerous, joblib.RuleDenied},
		{"MEMOIZE takes the next slot", pickle(str(module), memoize, str(name), memoize, tuple2, get(0), get(1), stackName, tuple2), dangerous, joblib.RuleDenied},
		{"the last PUT counts", pickle(str("numpy"), put(0), str(module), put(0), str(name), put(1), tuple3, get(0), get(1), stackName, tuple2), dangerous, joblib.RuleDenied},
		{"MEMOIZE counts the slots that are used", pickle(str("a"), put(5), str(module), memoize, str(name), tuple3, get(1), str(name), stackName, tuple2), dangerous, joblib.RuleDenied},
		{"slots out of order", pickle(none, put(1)), unverifiable, joblib.RuleStream},
		{"the highest slot", pickle(none, put(1<<32-1)), unverifiable, joblib.RuleStream},
		{"a slot twice", pickle(none, put(0), put(0)), review, joblib.RuleOpcode},
		{"a slot that is empty", pickle(get(0)), unverifiable, joblib.RuleStream},
		{"nothing to put", pickle(memoize), unverifiable, joblib.RuleStream},
		{"a mark to put", pickle(none, mark, memoize, tuple), unverifiable, joblib.RuleStream},
		{"slots as text", "Np0\n0g0\n.", review, joblib.RuleOpcode},
		{"a slot as odd text", "Np+0\ng0\n\x86.", review, joblib.RuleOpcode},
		{"a negative slot", "Np-1\n.", unverifiable, joblib.RuleStream},
		{"the memo of an array of objects is its own", pickle(none, memoize, wrapper{dtype: objects.String()}.String(), proto(4), get(0), stop, tuple2), unverifiable, joblib.RuleStream},
		{"and does not change the outer one", pickle(str(module), memoize, wrapper{dtype: objects.String()}.String(), proto(4), str("numpy"), memoize, stop, get(0), str(name), stackName, tuple3), dangerous, joblib.RuleDenied},
	})
}

func TestStack(t *testing.T) {
	t.Parallel()
	judge(t, []want{
		{"POP of a value", pickle(none, none, pop), review, joblib.RuleOpcode},
		{"POP of a mark", pickle(none, mark, pop), review, joblib.RuleOpcode},
		{"POP of nothing", pickle(pop), unverifiable, joblib.RuleStream},
		{"POP_MARK", pickle(none, mark, none, popMark), review, joblib.RuleOpcode},
		{"POP_MARK without a mark", pickle(none, popMark), unverifiable, joblib.RuleStream},
		{"DUP", pickle(none, dup, tuple2), review, joblib.RuleOpcode},
		{"DUP of nothing", pickle(dup), unverifiable, joblib.RuleStream},
		{"DUP of a mark", pickle(none, mark, dup, tuple), unverifiable, joblib.RuleStream},
		{"what is popped has run", pickle(none, call("posix system", str("id")), pop), dangerous, joblib.RuleDenied},
		{"values left over", pickle(none, none), review, joblib.RuleOpcode},
		{"a mark left over", pickle(none, mark, none), unverifiable, joblib.RuleStream},
		{"STOP of nothing", pickle(), unverifiable, joblib.RuleStream},
		{"a value is not taken from below a mark", pickle(none, mark, tuple1, tuple), unverifiable, joblib.RuleStream},
		{"a tuple without a mark", pickle(none, tuple), unverifiable, joblib.RuleStream},
		{"a dict of keys alone", pickle(mark, str("a"), dict), unverifiable, joblib.RuleStream},
		{"items for a dict in a list", pickle(emptyList, str("a"), none, setItem), unverifiable, joblib.RuleStream},
		{"items for a list in a dict", pickle(emptyDict, none, appendOne), unverifiable, joblib.RuleStream},
		{"items for a list in a set", pickle(emptySet, mark, none, appends), unverifiable, joblib.RuleStream},
		{"items for a set in a list", pickle(emptyList, mark, none, addItems), unverifiable, joblib.RuleStream},
		{"items in a tuple", pickle(emptyTuple, none, appendOne), unverifiable, joblib.RuleStream},
		{"items in a class", pickle(global("numpy ndarray"), str("a"), none, setItem), dangerous, joblib.RuleState},
		{"every container", pickle(listOf(none), dictOf(none, none), tuple2, mark, none, list, mark, none, none, dict, tuple3, emptySet, mark, none, addItems, mark, none, frozenSet, tuple3), pass, ""},
		{"no opcode", pickle("\xff"), unverifiable, joblib.RuleStream},
		{"nothing behind PROTO", proto(4), unverifiable, joblib.RuleTruncated},
		{"bytes behind STOP", pickle(none) + "x", review, joblib.RuleTrailing},
		{"a pickle behind STOP", pickle(none) + pickle(none), review, joblib.RuleTrailing},
	})
}

// TestText reads the text opcodes of protocol 0 as Python does.
func TestText(t *testing.T) {
	t.Parallel()
	// system names posix system: the module is plain, the name is given.
	system := func(name string) string { return proto(4) + str("posix") + name + stackName + stop }
	judge(t, []want{
		{"STRING", system("S'system'\n"), dangerous, joblib.RuleDenied},
		{"STRING in double quotes", system("S\"system\"\n"), dangerous, joblib.RuleDenied},
		{"STRING with hexadecimal escapes", system(`S'\x73ystem'` + "\n"), dangerous, joblib.RuleDenied},
		{"STRING with octal escapes", system(`S'\163ystem'` + "\n"), dangerous, joblib.RuleDenied},
		{"STRING without quotes", system("Ssystem\n"), unverifiable, joblib.RuleStream},
		{"STRING with quotes that differ", system("S'system\"\n"), unverifiable, joblib.RuleStream},
		{"STRING with an escape that is none", system(`S'\xzz'` + "\n"), unverifiable, joblib.RuleStream},
		{"UNICODE", system("Vsystem\n"), dangerous, joblib.RuleDenied},
		{"UNICODE with escapes", system(`V\u0073ystem` + "\n"), dangerous, joblib.RuleDenied},
		{"UNICODE with long escapes", system(`V\U00000073ystem` + "\n"), dangerous, joblib.RuleDenied},
		{"UNICODE with a backslash before the escape", system(`V\\u0073ystem` + "\n"), unverifiable, joblib.RuleName},
		{"BINSTRING", system("T" + le(6, 4) + "system"), dangerous, joblib.RuleDenied},
		{"SHORT_BINSTRING", system("U\x06system"), dangerous, joblib.RuleDenied},
		{"SHORT_BINUNICODE", system("\x8c\x06system"), dangerous, joblib.RuleDenied},
		{"BINUNICODE8", system("\x8d" + le(6, 8) + "system"), dangerous, joblib.RuleDenied},
		{"bytes are no name", system(raw("system")), unverifiable, joblib.RuleComputed},
		{"a computed name", system(call("_codecs encode", str("system"), str("latin1"))), unverifiable, joblib.RuleComputed},
		{"a byte string beyond ASCII", pickle("U\x01\x80"), unverifiable, joblib.RuleStream},
		{"text that is not UTF-8", pickle(str("\xff")), unverifiable, joblib.RuleStream},
		{"a lone surrogate", pickle(str("\xed\xa0\x80")), pass, ""},
		{"a name of 5000 bytes", system(str(strings.Repeat("a", 5000))), unverifiable, joblib.RuleComputed},
		{"a name in other letters", system(str("ѕystem")), unverifiable, joblib.RuleName},
		{"a name with a blank", system(str("system ")), unverifiable, joblib.RuleName},
		{"a name with a carriage return", "cposix\r\nsystem\r\n.", unverifiable, joblib.RuleName},
		{"no name", pickle("c\n\n"), unverifiable, joblib.RuleName},
		{"numbers", "(I1\nI-5\nL12345678901234567890L\nF1.5\nFnan\nI00\nI01\nt.", pass, ""},
		{"a number that no pickler spells so", "I0x10\n.", review, joblib.RuleOpcode},
		{"a float that is none", pickle("Fx\n"), unverifiable, joblib.RuleStream},
	})
}

// TestNumbers counts the elements of an array as Python does, however the
// number is written: who counts otherwise reads the array's bytes as opcodes.
func TestNumbers(t *testing.T) {
	t.Parallel()
	for _, n := range []string{
		"I5\n", "I 5 \n", "I0x5\n", "I+5\n", "I0b1_01\n", "L5\n", "L5L\n", "K\x05", "M\x05\x00", "J\x05\x00\x00\x00",
		"\x8a\x01\x05", "\x8a\x02\x05\x00", "\x8a\x08" + le(5, 8), "\x8b\x01\x00\x00\x00\x05",
		"L5 L\n", "L 5 L\n", "L+5\tL\n", "I5L\n", "I05\n", "\x8a\x09" + le(5, 8) + "\x00", "L0005L\n", "I٥\n", "I5__0\n",
	} {
		t.Run(fmt.Sprintf("%q", n), func(t *testing.T) {
			t.Parallel()
			w := wrapper{shape: tupleOf(n), dtype: bytesOf.String()}
			r := inspect(t, pickle(w.String()+"ABCDE"), joblib.Options{})
			read := r.Verdict <= review && len(r.Arrays) == 1 && r.Arrays[0].Size == 5
			if !read && r.Verdict < unverifiable {
				t.Errorf("%s, arrays %+v: neither read nor refused", r.Verdict, r.Arrays)
			}
			if r.Verdict == unverifiable && !has(r, unverifiable, joblib.RuleArray) && !has(r, unverifiable, joblib.RuleStream) {
				t.Errorf("refused late, for what is behind the array\n%s", spell(r.Findings))
			}
		})
	}
}

func TestCalls(t *testing.T) {
	t.Parallel()
	const unknown = "mypkg.models Model"
	deque := func(items ...string) string {
		return global("collections deque") + emptyTuple + reduce + mark + strings.Join(items, "") + appends
	}
	ordered := func(items ...string) string {
		return global("collections OrderedDict") + emptyTuple + reduce + mark + strings.Join(items, "") + setItems
	}
	judge(t, []want{
		{"a class without arguments", pickle(instance(aClass)), pass, ""},
		{"a class with arguments", pickle(global(aClass), tupleOf(none), newObj), unverifiable, joblib.RuleUse},
		{"a class that is called", pickle(call(aClass)), unverifiable, joblib.RuleUse},
		{"a class with keywords", pickle(global(aClass), emptyTuple, dictOf(str("a"), none), newObjEx), unverifiable, joblib.RuleUse},
		{"NEWOBJ_EX with nothing", pickle(global(aClass), emptyTuple, emptyDict, newObjEx), pass, ""},
		{"NEWOBJ_EX with keywords of another kind", pickle(global(unknown), emptyTuple, ordered(str("a"), none), newObjEx), unverifiable, joblib.RuleStream},
		{"NEWOBJ_EX with arguments of another kind", pickle(global(unknown), deque(none), emptyDict, newObjEx), dangerous, joblib.RuleArguments},
		{"NEWOBJ_EX with text for arguments", pickle(global(unknown), str("abc"), emptyDict, newObjEx), unverifiable, joblib.RuleArguments},
		{"NEWOBJ with arguments of another kind", pickle(global(unknown), deque(none), newObj), dangerous, joblib.RuleArguments},
		{"INST of a class", "(i" + strings.Replace(aClass, " ", "\n", 1) + "\n.", pass, ""},
		{"OBJ of a class", pickle(mark, global(aClass), obj), pass, ""},
		{"OBJ without a class", pickle(mark, obj), unverifiable, joblib.RuleStream},
		{"INST of a function", "(iposix\nabort\n.", dangerous, joblib.RuleDenied},
		{"INST of what may be a function", "(imypkg\nrun\n.", unverifiable, joblib.RuleUnknownCall},
		{"OBJ of what may be a function", pickle(mark, global("mypkg run"), obj), unverifiable, joblib.RuleUnknownCall},
		{"INST with arguments", "(Niposix\nsystem\n.", dangerous, joblib.RuleDenied},
		{"NEWOBJ of a program", pickle(global("subprocess Popen"), tupleOf(str("id")), newObj), dangerous, joblib.RuleDenied},
		{"an unknown class", pickle(instance(unknown)), review, joblib.RuleUnknown},
		{"an unknown call", pickle(call(unknown)), unverifiable, joblib.RuleUnknownCall},
		{"a class of the script", pickle(instance("__main__ Model")), review, joblib.RuleMain},
		{"a list for arguments", pickle(global("posix system"), listOf(str("id")), reduce), dangerous, joblib.RuleDenied},
		{"a call of what a call made", pickle(instance(aClass), emptyTuple, reduce), dangerous, joblib.RuleComputed},
		{"a call of text", pickle(str("a"), emptyTuple, reduce), dangerous, joblib.RuleComputed},
		{"a function that is only a value", pickle(call("numpy mean", none)), dangerous, joblib.RuleUse},
		{"numpy.memmap, which writes files", pickle(global("numpy memmap"), tupleOf(str("a")), newObj), dangerous, joblib.RuleUse},
		{"persistent ids", pickle(none, persID), unverifiable, joblib.RuleExternal},
		{"persistent ids as text", "Pid\n.", unverifiable, joblib.RuleFormat},
		{"EXT1", pickle("\x82\x01"), unverifiable, joblib.RuleExternal},
		{"EXT2", pickle("\x83\x01\x00"), unverifiable, joblib.RuleExternal},
		{"EXT4", pickle("\x84\x01\x00\x00\x00"), unverifiable, joblib.RuleExternal},
		{"NEXT_BUFFER", pickle("\x97"), unverifiable, joblib.RuleExternal},
		{"READONLY_BUFFER", pickle(none, "\x98"), unverifiable, joblib.RuleExternal},
		{"a factory of lists", pickle(call("collections defaultdict", global("builtins list"))), pass, ""},
		{"a factory of something else", pickle(call("collections defaultdict", global("numpy memmap"))), dangerous, joblib.RuleArguments},
		{"a factory that is in an object", pickle(global("collections defaultdict"), deque(global("numpy memmap")), reduce), dangerous, joblib.RuleArguments},
		{"a generator", pickle(call("numpy.random._pickle __randomstate_ctor", str("MT19937"))), pass, ""},
		{"a generator that calls", pickle(call("numpy.random._pickle __randomstate_ctor", str("MT19937"), global("numpy memmap"))), dangerous, joblib.RuleArguments},
		{"a generator that calls what is in an object", pickle(global("numpy.random._pickle __randomstate_ctor"), deque(str("MT19937"), global("numpy memmap")), reduce), dangerous, joblib.RuleArguments},
		{"a set of what is in an object", pickle(global("builtins set"), deque(none), reduce), dangerous, joblib.RuleArguments},
		{"a class where only literals go", pickle(call("collections deque", global("numpy memmap"))), dangerous, joblib.RuleArguments},
		{"a class for all arguments", pickle(global("builtins complex"), global("numpy memmap"), reduce), dangerous, joblib.RuleArguments},
		{"a class among literals", pickle(call("collections deque", listOf(tupleOf(global("numpy memmap"))))), dangerous, joblib.RuleArguments},
		{"a dict of what is in text", pickle(global("collections OrderedDict"), str("ab"), reduce), unverifiable, joblib.RuleArguments},
		{"_reconstructor of a class", pickle(call("copyreg _reconstructor", global(aClass), global("builtins object"), none)), pass, ""},
		{"_reconstructor with another base", pickle(call("copyreg _reconstructor", global(aClass), global("io FileIO"), str("a"))), dangerous, joblib.RuleDenied},
		{"_reconstructor of what is only a value", pickle(call("copyreg _reconstructor", global("numpy memmap"), global("builtins object"), none)), dangerous, joblib.RuleUse},
		{"latin1", pickle(call("_codecs encode", str("a"), str("latin1"))), pass, ""},
		{"another encoding", pickle(call("_codecs encode", str("a"), str("rot13"))), unverifiable, joblib.RuleArguments},
	})
}

// TestStates sets attributes. What joblib's hook finds on top of the stack is an
// array's placeholder if its class says so, however it got that class.
func TestStates(t *testing.T) {
	t.Parallel()
	class := instance(aClass)
	as := global(wrapperClass)
	ordered := func(items ...string) string {
		return global("collections OrderedDict") + emptyTuple + reduce + mark + strings.Join(items, "") + setItems
	}
	key := dtype{code: "U9", state: []string{i32(3), str("<"), none, none, none, i32(36), i32(4), i32(8)}}.String()
	var utf32 strings.Builder
	for _, c := range "__class__" {
		utf32.WriteString(string(c) + "\x00\x00\x00")
	}
	numpyText := call("numpy.core.multiarray scalar", key, raw(utf32.String()))
	var many []string
	for i := range 40_000 {
		many = append(many, str(fmt.Sprint("a", i)), none)
	}
	judge(t, []want{
		{"attributes", pickle(class, dictOf(str("a"), none), build), pass, ""},
		{"attributes and slots", pickle(class, dictOf(str("a"), none), dictOf(str("b"), none), tuple2, build), pass, ""},
		{"no attributes", pickle(class, none, build), pass, ""},
		{"another class", pickle(class, dictOf(str("a"), none), dictOf(str("__class__"), as), tuple2, build), dangerous, joblib.RuleState},
		{"another class by itself", pickle(class, none, dictOf(str("__class__"), as), tuple2, build), dangerous, joblib.RuleState},
		{"another class in an OrderedDict", pickle(class, none, ordered(str("__class__"), as), tuple2, build), unverifiable, joblib.RuleState},
		{"attributes in an OrderedDict", pickle(class, ordered(str("a"), none), build), unverifiable, joblib.RuleState},
		{"another class by a name that numpy spells", pickle(class, none, dictOf(numpyText, as), tuple2, build), unverifiable, joblib.RuleState},
		{"another class behind 40,000 attributes", pickle(class, none, dictOf(append(many, str("__class__"), as)...), tuple2, build), unverifiable, joblib.RuleLimit},
		{"__dict__", pickle(class, dictOf(str("__dict__"), emptyDict), build), unverifiable, joblib.RuleState},
		{"a method", pickle(class, dictOf(str("predict"), global("numpy mean")), build), dangerous, joblib.RuleState},
		{"a class", pickle(global(aClass), dictOf(str("a"), none), build), dangerous, joblib.RuleState},
		{"a function", pickle(global("numpy mean"), dictOf(str("a"), none), build), dangerous, joblib.RuleState},
		{"the class of placeholders", pickle(as, none, dictOf(str("shape"), none), tuple2, build), dangerous, joblib.RuleState},
		{"text", pickle(str("a"), dictOf(str("a"), none), build), unverifiable, joblib.RuleStream},
		{"nothing, for text", pickle(str("a"), emptyDict, build), pass, ""},
		{"a second state", pickle(class, emptyDict, build, emptyDict, build), review, joblib.RuleState},
		{"pre_dispatch", pickle(class, dictOf(str("pre_dispatch"), str("2*n_jobs")), build), pass, ""},
		{"pre_dispatch as code", pickle(class, dictOf(str("pre_dispatch"), str("exit()")), build), review, joblib.RuleState},
		{"a function as an attribute", pickle(class, dictOf(str("func"), global("posix system")), build), dangerous, joblib.RuleDenied},
	})
}
