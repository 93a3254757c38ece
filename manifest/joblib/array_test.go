package joblib_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"galley/manifest/joblib"
)

// zeros is the bytes of an array.
func zeros(n int) string { return strings.Repeat("\x00", n) }

// TestPlaceholders reads arrays behind placeholders that are as joblib writes
// them, and refuses any other.
func TestPlaceholders(t *testing.T) {
	t.Parallel()
	good := func(name string, w wrapper, data string) want {
		return want{name, pickle(w.String() + data), pass, ""}
	}
	bad := func(name string, w wrapper) want {
		return want{name, pickle(w.String() + zeros(64)), unverifiable, joblib.RuleArray}
	}
	six := dictOf(str("subclass"), global("numpy ndarray"), str("shape"), tupleOf(i32(2)))
	judge(t, []want{
		good("as joblib before 1.2 writes it", wrapper{}, zeros(16)),
		good("of no dimensions", wrapper{shape: emptyTuple}, zeros(8)),
		good("of no elements", wrapper{shape: tupleOf(i32(0), i32(3))}, ""),
		good("in Fortran's order", wrapper{order: str("F")}, zeros(16)),
		good("numpy.matrix", wrapper{subclass: global("numpy matrix")}, zeros(16)),
		good("numpy.memmap", wrapper{subclass: global("numpy memmap")}, zeros(16)),
		good("an alignment of None", wrapper{align: none}, zeros(16)),
		good("of 32 dimensions", wrapper{shape: tupleOf(slices.Repeat([]string{i32(1)}, 32)...)}, zeros(8)),
		good("an array of objects", wrapper{dtype: objects.String()}, pickle(listOf(none, none))),
		good("the class of scikit-learn's own joblib", wrapper{make: instance("sklearn.externals.joblib.numpy_pickle NumpyArrayWrapper")}, zeros(16)),
		good("made by _reconstructor", wrapper{make: call("copyreg _reconstructor", global(wrapperClass), global("builtins object"), none)}, zeros(16)),

		bad("another class of array", wrapper{subclass: global("numpy mean")}),
		bad("text for a class", wrapper{subclass: str("numpy.ndarray")}),
		bad("a negative shape", wrapper{shape: tupleOf(i32(-1))}),
		bad("a shape of text", wrapper{shape: tupleOf(str("2"))}),
		bad("a shape of floats", wrapper{shape: tupleOf(f64(2))}),
		bad("a shape of bools", wrapper{shape: tupleOf(yes)}),
		bad("a shape that is a list", wrapper{shape: listOf(i32(2))}),
		bad("a shape that is a number", wrapper{shape: i32(2)}),
		bad("of 33 dimensions", wrapper{shape: tupleOf(slices.Repeat([]string{i32(1)}, 33)...)}),
		bad("of more elements than numbers count", wrapper{shape: tupleOf("\x8a\x08"+le(1<<62, 8), i32(4))}),
		bad("of more bytes than numbers count", wrapper{shape: tupleOf("\x8a\x08" + le(1<<61, 8))}),
		bad("of a product that wraps round to little", wrapper{shape: tupleOf("\x8a\x08"+le(1<<32, 8), "\x8a\x08"+le(1<<32, 8))}),
		bad("an order that is neither", wrapper{order: str("K")}),
		bad("an order that is no text", wrapper{order: raw("C")}),
		bad("allow_mmap that is a number", wrapper{mmap: i32(1), align: none}),
		bad("an alignment of 8", wrapper{align: i32(8)}),
		bad("an alignment of text", wrapper{align: str("16")}),
		bad("an alignment of True", wrapper{align: yes}),
		bad("an attribute too many", wrapper{more: []string{str("mode"), str("r")}}),
		bad("an attribute twice", wrapper{more: []string{str("order"), str("F")}}),
		bad("a name that is no text", wrapper{more: []string{none, none}}),
		bad("a dtype without a state", wrapper{dtype: call("numpy dtype", str("f8"), no, yes)}),
		bad("a dtype that is text", wrapper{dtype: str("f8")}),

		{"made with arguments", pickle(call(wrapperClass, none)), dangerous, joblib.RuleArray},
		{"made with a class", pickle(call(wrapperClass, global("numpy ndarray"))), dangerous, joblib.RuleArray},
		{"without most attributes", pickle(instance(wrapperClass) + six + build), unverifiable, joblib.RuleArray},
		{"a state that is no dict", pickle(instance(wrapperClass) + wrapper{}.state() + tuple1 + build), unverifiable, joblib.RuleArray},
		{"attributes and slots", pickle(instance(wrapperClass) + wrapper{}.state() + emptyDict + tuple2 + build + zeros(16)), unverifiable, joblib.RuleArray},
		{"fetched from the memo", pickle(instance(wrapperClass) + memoize + wrapper{}.state() + build + zeros(16) + get(0) + emptyDict + build + tuple2), unverifiable, joblib.RuleStream},
		{"a second state by DUP", pickle(instance(wrapperClass) + dup + wrapper{}.state() + build + zeros(16) + pop + emptyDict + build), unverifiable, joblib.RuleStream},
		{"in an array of objects", pickle(wrapper{dtype: objects.String()}.String() + pickle(wrapper{}.String()+zeros(16))), unverifiable, joblib.RuleStream},
		{"an array that is cut", pickle(wrapper{}.String()) + zeros(7), unverifiable, joblib.RuleTruncated},
		{"an array of objects that is cut", pickle(wrapper{dtype: objects.String()}.String() + proto(4) + none)[:0] + proto(4) + wrapper{dtype: objects.String()}.String() + proto(4) + none, unverifiable, joblib.RuleTruncated},
	})
}

func TestPadding(t *testing.T) {
	t.Parallel()
	head := proto(4) + wrapper{align: i32(16)}.String()
	n := byte(16 - (len(head)+1)%16)
	fill := func(n byte, with string) string {
		return head + string([]byte{n}) + strings.Repeat(with, int(n)) + zeros(16) + stop
	}
	judge(t, []want{
		{"to a multiple of 16", padded(head) + zeros(16) + stop, pass, ""},
		{"by one more", fill(n+1, "\xff"), review, joblib.RuleArray},
		{"by none", fill(0, ""), review, joblib.RuleArray},
		{"by 255", fill(255, "\xff"), review, joblib.RuleArray},
		{"with other bytes", fill(n, "\x00"), review, joblib.RuleArray},
		{"that is cut", head + string([]byte{n}), unverifiable, joblib.RuleTruncated},
		{"that is missing", head, unverifiable, joblib.RuleTruncated},
	})
	for offset := range 40 { // of the placeholder, so that every length comes up
		s := proto(4) + strings.Repeat(emptyTuple, offset) + wrapper{align: i32(16)}.String()
		if r := inspect(t, padded(s)+zeros(16)+tuple+stop, joblib.Options{}); has(r, review, joblib.RuleArray) {
			t.Errorf("offset %d: %s", offset, spell(r.Findings))
		}
	}
}

// TestDTypes takes the descriptions of elements that numpy writes and refuses
// others: numpy believes also those that contradict themselves.
func TestDTypes(t *testing.T) {
	t.Parallel()
	state := func(parts ...string) []string { return parts }
	simple := func(code, order string, size, flags int) dtype {
		if !strings.Contains("SUV", code[:1]) {
			size = -1
		}
		return dtype{code: code, order: order, size: size, flags: flags}
	}
	var cases []want
	good := func(name string, d dtype, size int) {
		cases = append(cases, want{name, pickle(wrapper{dtype: d.String()}.String() + zeros(2*size)), pass, ""})
	}
	bad := func(name string, d dtype, v joblib.Verdict, rule joblib.Rule) {
		cases = append(cases, want{name, pickle(wrapper{dtype: d.String()}.String() + zeros(64)), v, rule})
	}
	for code, size := range map[string]int{
		"b1": 1, "i1": 1, "i2": 2, "i4": 4, "i8": 8, "u1": 1, "u2": 2, "u4": 4, "u8": 8, "f2": 2, "f4": 4, "f8": 8, "f12": 12, "f16": 16,
		"c8": 8, "c16": 16, "c24": 24, "c32": 32, "S5": 5, "V3": 3, "U2": 8,
	} {
		for _, order := range []string{"<", ">", "|", "="} {
			flags := map[byte]int{'U': 8}[code[0]]
			good(code+" in order "+order, simple(code, order, size, flags), size)
		}
	}
	for _, code := range []string{
		"f", "d", "i", "float64", "f3", "f8,i4", "i16", "b2", "O16", "U", "U-1", "U+1", "S99999999999", "M4", "x8", "", "8f", "f8 ", "f٨", "<f8", "O", "2V",
	} {
		bad("the code "+code, dtype{code: code, size: 8}, unverifiable, joblib.RuleArguments)
	}
	good("days", dtype{code: "M8", state: state(i32(4), str("<"), none, none, none, i32(-1), i32(-1), i32(0),
		tupleOf(emptyDict, tupleOf(raw("D"), i32(1), i32(1), i32(1))))}, 8)
	record := func(size int, names, fields string, flags int) dtype {
		return dtype{code: fmt.Sprint("V", size), state: state(i32(3), str("|"), none, names, fields, i32(size), i32(1), i32(flags))}
	}
	f8 := float64s.String()
	deep := f8
	for range 9 {
		deep = record(8, tupleOf(str("a")), dictOf(str("a"), deep+i32(0)+tuple2), 16).String()
	}
	one := tupleOf(str("a"))
	at := func(offset int, d string) string { return dictOf(str("a"), d+i32(offset)+tuple2) }
	good("a record", record(8, one, at(0, f8), 16), 8)
	good("a record of records", record(8, one, at(0, record(8, one, at(0, f8), 16).String()), 16), 8)
	good("a title", record(8, one, dictOf(str("a"), f8+i32(0)+str("title")+tuple3, str("title"), f8+i32(0)+str("title")+tuple3), 16), 8)
	good("a class for a code", dtype{args: []string{global("numpy record"), no, yes}, state: state(i32(3), str("|"), none, one, at(0, f8), i32(8), i32(1), i32(16))}, 8)
	sub := func(d string, shape string, size int) dtype {
		return dtype{code: fmt.Sprint("V", size), state: state(i32(3), str("|"), tupleOf(d, shape), none, none, i32(size), i32(8), i32(0))}
	}
	good("a subarray", sub(f8, tupleOf(i32(2), i32(2)), 32), 32)
	cases = append(cases, want{"a record of objects", pickle(wrapper{dtype: record(8, one, at(0, objects.String()), 27).String()}.String() + pickle(none)), pass, ""})

	array := joblib.RuleArray
	bad("a field beyond the end", record(8, one, at(1, f8), 16), unverifiable, array)
	bad("a field before the beginning", record(8, one, at(-1, f8), 16), unverifiable, array)
	bad("a field that is not described", record(8, tupleOf(str("b")), at(0, f8), 16), unverifiable, array)
	bad("a field without an offset", record(8, one, dictOf(str("a"), f8+tuple1), 16), unverifiable, array)
	bad("a field of text", record(8, one, at(0, str("f8")), 16), unverifiable, array)
	bad("fields in a list", record(8, listOf(str("a")), at(0, f8), 16), unverifiable, array)
	bad("names without fields", record(8, one, none, 16), unverifiable, array)
	bad("fields without names", record(8, none, at(0, f8), 16), unverifiable, array)
	bad("fields of a number", dtype{code: "f8", state: state(i32(3), str("<"), none, one, at(0, f8), i32(-1), i32(-1), i32(16))}, unverifiable, array)
	bad("records in ten levels", record(8, one, at(0, deep), 16), unverifiable, array)
	bad("a record with objects, and flags without", record(8, one, at(0, objects.String()), 16), unverifiable, array)
	bad("a record without objects, and flags with", record(8, one, at(0, f8), 27), unverifiable, array)
	bad("a subarray that is smaller", sub(f8, tupleOf(i32(2)), 32), unverifiable, array)
	bad("a subarray of objects, and flags without", sub(objects.String(), tupleOf(i32(2)), 16), unverifiable, array)
	bad("a subarray of a number", dtype{code: "f8", state: state(i32(3), str("<"), tupleOf(f8, tupleOf(i32(1))), none, none, i32(-1), i32(-1), i32(0))}, unverifiable, array)
	bad("a number, and flags of objects", simple("i8", "<", 8, 63), unverifiable, array)
	bad("objects, and flags of a number", simple("O8", "|", 8, 0), unverifiable, array)
	bad("an element larger than its code", simple("V8", "|", 16, 0), unverifiable, array)
	bad("an element smaller than its code", simple("S8", "|", 4, 0), unverifiable, array)
	bad("text of another size than 4 bytes a character", simple("U2", "<", 2, 8), unverifiable, array)
	bad("a negative size", simple("V8", "|", -8, 0), unverifiable, array)
	bad("another size of a number", dtype{code: "f8", size: 16}, unverifiable, array)
	bad("a byte order that is none", simple("f8", "!", 8, 0), unverifiable, array)
	bad("a byte order of two", simple("f8", "<>", 8, 0), unverifiable, array)
	bad("a byte order that is bytes", dtype{code: "f8", state: state(i32(3), raw("<"), none, none, none, i32(-1), i32(-1), i32(0))}, unverifiable, array)
	bad("version 2", dtype{code: "f8", state: state(i32(2), str("<"), none, none, none, i32(-1), i32(-1), i32(0))}, unverifiable, array)
	bad("version 4 without a unit", dtype{code: "M8", state: state(i32(4), str("<"), none, none, none, i32(-1), i32(-1), i32(0))}, unverifiable, array)
	bad("version 3 with a unit", dtype{code: "M8", state: state(i32(3), str("<"), none, none, none, i32(-1), i32(-1), i32(0), emptyTuple)}, unverifiable, array)
	bad("a unit that is a class", dtype{code: "M8", state: state(i32(4), str("<"), none, none, none, i32(-1), i32(-1), i32(0), global("numpy mean"))}, unverifiable, array)
	bad("seven parts", dtype{code: "f8", state: state(i32(3), str("<"), none, none, none, i32(-1), i32(-1))}, unverifiable, array)
	bad("flags that are none", dtype{code: "f8", state: state(i32(3), str("<"), none, none, none, i32(-1), i32(-1), none)}, unverifiable, array)
	bad("flags of two bytes", dtype{code: "f8", flags: 256}, unverifiable, array)

	arguments := joblib.RuleArguments
	bad("a class for a code that is not numpy's", dtype{args: []string{global("numpy mean"), no, yes}}, dangerous, arguments)
	bad("fields for a code", dtype{args: []string{dictOf(str("a"), str("f8")), no, yes}}, unverifiable, arguments)
	bad("a code alone", dtype{args: []string{str("f8")}}, unverifiable, arguments)
	bad("a dtype that is shared", dtype{args: []string{str("f8"), no, no}}, unverifiable, arguments)
	good("numbers for flags, as of numpy before 1.20", dtype{args: []string{str("f8"), i32(0), i32(1)}}, 8)

	cases = append(cases, want{"a second state", pickle(f8 + tupleOf(float64s.parts()...) + build), unverifiable, joblib.RuleStream})
	judge(t, cases)
}

// TestOwnArrays reads the arrays that numpy pickles itself.
func TestOwnArrays(t *testing.T) {
	t.Parallel()
	f8 := float64s.String()
	reconstruct := func(args, state []string) string {
		return pickle(call("numpy.core.multiarray _reconstruct", args...) + tupleOf(state...) + build)
	}
	usual := []string{global("numpy ndarray"), tupleOf(i32(0)), raw("b")}
	good := []string{i32(1), tupleOf(i32(2)), f8, no, raw(zeros(16))}
	with := func(i int, s string) []string {
		changed := slices.Clone(good)
		changed[i] = s
		return changed
	}
	scalar := func(args ...string) string { return pickle(call("numpy.core.multiarray scalar", args...)) }
	buffer := func(args ...string) string { return pickle(call("numpy.core.numeric _frombuffer", args...)) }
	judge(t, []want{
		{"an array", reconstruct(usual, good), pass, ""},
		{"an array by numpy 2", strings.Replace(reconstruct(usual, good), "numpy.core", "numpy._core", 1), pass, ""},
		{"an array of objects", reconstruct(usual, []string{i32(1), tupleOf(i32(2)), objects.String(), no, listOf(none, none)}), pass, ""},
		{"bytes as text", reconstruct(usual, with(4, call("_codecs encode", str("\u0080"+zeros(15)), str("latin1")))), pass, ""},
		{"too few bytes", reconstruct(usual, with(4, raw(zeros(15)))), unverifiable, joblib.RuleArray},
		{"too many bytes", reconstruct(usual, with(4, raw(zeros(17)))), unverifiable, joblib.RuleArray},
		{"text for bytes", reconstruct(usual, with(4, str(zeros(16)))), unverifiable, joblib.RuleArray},
		{"objects for bytes", reconstruct(usual, with(4, listOf(none, none))), unverifiable, joblib.RuleArray},
		{"bytes for objects", reconstruct(usual, []string{i32(1), tupleOf(i32(2)), objects.String(), no, raw(zeros(16))}), unverifiable, joblib.RuleArray},
		{"too few objects", reconstruct(usual, []string{i32(1), tupleOf(i32(2)), objects.String(), no, listOf(none)}), unverifiable, joblib.RuleArray},
		{"version 2", reconstruct(usual, with(0, i32(2))), unverifiable, joblib.RuleArray},
		{"no shape", reconstruct(usual, with(1, none)), unverifiable, joblib.RuleArray},
		{"no dtype", reconstruct(usual, with(2, str("f8"))), unverifiable, joblib.RuleArray},
		{"no order", reconstruct(usual, with(3, none)), unverifiable, joblib.RuleArray},
		{"four parts", reconstruct(usual, good[1:]), unverifiable, joblib.RuleArray},
		{"another class", reconstruct([]string{global("builtins list"), usual[1], usual[2]}, good), dangerous, joblib.RuleArguments},
		{"another code", reconstruct([]string{usual[0], usual[1], raw("f8")}, good), dangerous, joblib.RuleArguments},
		{"a second state", strings.TrimSuffix(reconstruct(usual, good), stop) + tupleOf(good...) + build + stop, unverifiable, joblib.RuleStream},

		{"a number", scalar(f8, raw(zeros(8))), pass, ""},
		{"a number of too few bytes", scalar(f8, raw(zeros(7))), unverifiable, joblib.RuleArguments},
		{"a number of text", scalar(f8, str(zeros(8))), unverifiable, joblib.RuleArguments},
		{"an object for a number", scalar(objects.String(), raw(zeros(8))), unverifiable, joblib.RuleArguments},
		{"a dtype without its state", scalar(call("numpy dtype", str("f8"), no, yes), raw(zeros(8))), unverifiable, joblib.RuleArray},

		{"a buffer", buffer(raw(zeros(16)), f8, tupleOf(i32(2)), str("C")), pass, ""},
		{"a buffer that can be written", buffer("\x96"+le(16, 8)+zeros(16), f8, tupleOf(i32(2)), str("F")), pass, ""},
		{"a buffer of too few bytes", buffer(raw(zeros(15)), f8, tupleOf(i32(2)), str("C")), unverifiable, joblib.RuleArguments},
		{"a buffer of objects", buffer(raw(zeros(16)), objects.String(), tupleOf(i32(2)), str("C")), unverifiable, joblib.RuleArguments},
		{"a buffer in no order", buffer(raw(zeros(16)), f8, tupleOf(i32(2)), str("K")), unverifiable, joblib.RuleArguments},
		{"a buffer of a class", buffer(global("numpy ndarray"), f8, tupleOf(i32(2)), str("C")), dangerous, joblib.RuleArguments},
	})
}

// TestSecondView reads the first array as pickle.load does, which knows of no
// arrays.
func TestSecondView(t *testing.T) {
	t.Parallel()
	evil := global("posix system") + tupleOf(str("id")) + reduce + stop
	of := func(align, data string) string {
		return pickle(wrapper{shape: tupleOf(i32(len(data))), dtype: bytesOf.String(), align: align}.String() + data)
	}
	judge(t, []want{
		{"data that makes no sense", of("", "\xff\xff"), pass, ""},
		{"data that imports what is harmless", of("", global("numpy ndarray")+stop), pass, ""},
		{"data that imports what is unknown", of("", global("mypkg Model")+stop), pass, ""},
		{"data that runs code", of("", evil), dangerous, joblib.RulePlainView},
		{"data that runs code, and no alignment", of(none, evil), dangerous, joblib.RulePlainView},
		{"data that runs code by the memo", pickle(str("posix"), memoize, str("system"), memoize,
			wrapper{shape: tupleOf(i32(6)), dtype: bytesOf.String()}.String(), "h\x00h\x01\x93.", tuple3), dangerous, joblib.RulePlainView},
		{"data that goes on for longer than is followed", of("", strings.Repeat(none, 100_000)), unverifiable, joblib.RulePlainView},
	})
}
