package joblib_test

import (
	"strings"
	"testing"

	"galley/manifest/joblib"
)

// TestViews has files that mean one thing to joblib and another to whatever
// else may load them.
func TestViews(t *testing.T) {
	t.Parallel()
	const import1 = "cposix\nmkdir\n"
	evil := instance("scipy.stats._continuous_distns norm_gen") + dictOf(str("_parse_arg_template"), str("code")) + build
	padded := func(data string, behind ...string) string {
		// The padding of whatever length comes from the reader's own formula.
		head := proto(4) + emptyList + mark
		w := wrapper{shape: tupleOf(i32(len(data))), dtype: bytesOf.String(), align: i32(16)}.String()
		n := 16 - (len(head)+len(w)+1)%16
		return head + w + string([]byte{byte(n)}) + strings.Repeat("\xff", n) + data + strings.Join(behind, "") + appends + stop
	}
	n := 17 - (len(proto(4)+emptyList+mark)+len(wrapper{shape: tupleOf(i32(64)), dtype: bytesOf.String(), align: i32(16)}.String())+1)%16
	atEnd := func(opcodes string) string {
		return strings.Repeat("\x00", 64-n) + opcodes + strings.Repeat("0", n-len(opcodes))
	}
	inner := func(items ...string) string { return wrapper{dtype: objects.String()}.String() + pickle(items...) }
	judge(t, []want{
		{"opcodes at the end of an array", padded(atEnd("N")), pass, ""},
		{"an import from what stands before, at the end of an array", proto(4) + str("posix") + put(0) + pop + str("mkdir") + put(1) + pop +
			padded(atEnd(string("h\x00h\x01\x93")))[2:], dangerous, joblib.RulePlainView},
		{"an array that begins as opcodes", pickle(wrapper{shape: tupleOf(i32(len(import1))), dtype: bytesOf.String()}.String() + import1), dangerous, joblib.RulePlainView},
		{"an array that sets the state of a listed class", pickle(wrapper{shape: tupleOf(i32(len(evil))), dtype: bytesOf.String()}.String() + evil), dangerous, joblib.RulePlainView},
		{"an array of opcodes without end", pickle(wrapper{shape: tupleOf(i32(1 << 20)), dtype: bytesOf.String()}.String() + strings.Repeat("N0", 1<<19)), unverifiable, joblib.RulePlainView},
		{"an array of objects whose references lead elsewhere", pickle(
			str("posix"), put(0), str("mkdir"), put(1), inner(str("numpy"), put(0), str("mean"), put(1), get(0), get(1), stackName, tuple3), tuple3), pass, ""},
		{"by MEMOIZE, so that they lead to names outside", pickle(
			str("posix"), memoize, str("mkdir"), memoize, inner(str("numpy"), memoize, str("mean"), memoize, get(0), get(1), stackName), tuple3), dangerous, joblib.RulePlainView},
		{"a name of numpy's under another module", pickle(
			str("time"), memoize, inner(str("numpy"), memoize, get(0), str("dtype"), stackName, tupleOf(str("f8"), no, yes), reduce, tupleOf(float64s.parts()...), build, tuple2), tuple2), pass, ""},
		{"a large array of objects", pickle(wrapper{dtype: objects.String()}.String() + pickle(listOf(strings.Repeat(str("some text"), 20_000)))), pass, ""},
		{"calls another callable", pickle(global("builtins set"), memoize, inner(global("collections OrderedDict"), memoize, get(0), emptyTuple, reduce), tuple2), unverifiable, joblib.RulePlainView},
	})
}

// TestRules has calls and states that are right for one global alone.
func TestRules(t *testing.T) {
	t.Parallel()
	const template = "\ndef _parse_args(self, a, b, loc=0, scale=1):\n    return (a, b,), loc, scale\n\n" +
		"def _parse_args_rvs(self, a, b, loc=0, scale=1, size=None):\n    return self._argcheck_rvs(a, b, loc, scale, size=size)\n\n" +
		"def _parse_args_stats(self, a, b, loc=0, scale=1, moments='mv'):\n    return (a, b,), loc, scale, moments\n"
	distribution := func(text string) string {
		return pickle(instance("scipy.stats._continuous_distns beta_gen"), dictOf(str("_parse_arg_template"), str(text)), build)
	}
	partial := func(function string, more ...string) string {
		return pickle(call("functools partial", global(function)), tupleOf(global(function), emptyTuple, dictOf(more...), none), build)
	}
	judge(t, []want{
		{"a distribution", distribution(template), pass, ""},
		{"a distribution with code of its own", distribution(template + "import os"), dangerous, joblib.RuleState},
		{"a distribution with a parameter that is code", distribution(strings.ReplaceAll(template, "a, b,", "a=f(),")), dangerous, joblib.RuleState},
		{"a distribution's own method", pickle(call("builtins getattr", instance("scipy.stats._discrete_distns randint_gen"), str("_entropy"))), pass, ""},
		{"another of its methods", pickle(call("builtins getattr", instance("scipy.stats._discrete_distns randint_gen"), str("rvs"))), dangerous, joblib.RuleArguments},
		{"getattr of anything else", pickle(call("builtins getattr", global("numpy mean"), str("_entropy"))), dangerous, joblib.RuleArguments},
		{"getattr as a value", pickle(listOf(global("builtins getattr"))), dangerous, joblib.RuleUse},
		{"a partial", partial("sklearn.utils.validation check_array", str("dtype"), listOf(global("numpy float64"))), pass, ""},
		{"a partial of what is not listed", partial("acme clean"), dangerous, joblib.RuleState},
		{"a partial that is called", pickle(call("functools partial", global("numpy mean")), emptyTuple, reduce), dangerous, joblib.RuleComputed},
		{"a ufunc of an old numpy", pickle(call("numpy.core _ufunc_reconstruct", str("numpy.core.umath"), str("log1p"))), pass, ""},
		{"a ufunc that is none", pickle(call("numpy.core _ufunc_reconstruct", str("posix"), str("system"))), unverifiable, joblib.RuleArguments},
	})
}

// TestOthers names what is no pickle, as Look does.
func TestOthers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, data string
		format     joblib.Kind
		verdict    joblib.Verdict
	}{
		{"an archive of numpy's", archive(t, "arr_0.npy"), joblib.Zip, unverifiable},
		{"skops", archive(t, "139871.npy", "schema.json"), joblib.Skops, joblib.NotPickle},
		{"keras", archive(t, "metadata.json", "config.json", "model.weights.h5"), joblib.Keras, joblib.NotPickle},
		{"text", "Project notes\n", joblib.Text, unverifiable},
		{"text that begins like no pickle", "<?xml version=\"1.0\"?><PMML/>", joblib.Text, joblib.NotPickle},
		{"text that joblib takes for zlib", "xgboost==3.2.0\n", joblib.Text, unverifiable},
		{"text that joblib takes for bzip2", "BZip me\n", joblib.Text, unverifiable},
		{"json", `{"a": 1}`, joblib.JSON, joblib.NotPickle},
		{"catboost", "CBM1\x10\x00", joblib.CatBoost, joblib.NotPickle},
		{"a pickle that begins like catboost", "CBM1" + strings.Repeat("x", 63) + "0cposix\nsystem\n.", joblib.Pickle, dangerous},
		{"nothing", "", joblib.Empty, unverifiable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := inspect(t, c.data, joblib.Options{})
			if r.Format != c.format || r.Verdict != c.verdict {
				t.Errorf("got %s, %s; want %s, %s\n%s", r.Format, r.Verdict, c.format, c.verdict, spell(r.Findings))
			}
		})
	}
}

// TestSpelling spells values as Python does.
func TestSpelling(t *testing.T) {
	t.Parallel()
	r := inspect(t, pickle(instance(aClass), dictOf(
		str("classes_"), listOf(f64(1e6), f64(0.5), f64(1e-5), f64(1e16), "Fnan\n", "F-inf\n", yes, none, i32(-3), str("fraud")),
		str("alpha"), f64(1), str("name"), str("it's"),
	), build), joblib.Options{})
	m := r.Models[0]
	if got, want := strings.Join(m.Classes, " "), "1000000.0 0.5 1e-05 1e+16 nan -inf True None -3 fraud"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got, want := m.Params[0].String()+" "+m.Params[1].String(), `1.0 'it\'s'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestAttributes has objects whose attributes decide what loading does. Each
// passed a reader that looked at names alone.
func TestAttributes(t *testing.T) {
	t.Parallel()
	const frame, dtypeClass, normal = "pandas.core.frame DataFrame", "pandas.core.arrays.boolean BooleanDtype", "scipy.stats._continuous_distns norm_gen"
	ordered := func(items ...string) string {
		return call("collections OrderedDict") + mark + strings.Join(items, "") + setItems
	}
	items := ordered(str("__class__"), global(wrapperClass))
	distribution := instance(normal)
	record := func(fields string) string {
		return dtype{args: []string{str("V8"), no, yes}, state: []string{
			i32(3), str("|"), none, tupleOf(str("a")), fields, i32(8), i32(1), i32(16),
		}}.String()
	}
	field := dictOf(str("a"), tupleOf(dtype{code: "i8"}.String(), i32(0)))
	judge(t, []want{
		{"a distribution's state as a pair", pickle(distribution, tupleOf(dictOf(str("a"), none), ordered(str("b"), none)), build), dangerous, joblib.RuleState},
		{"getattr of what an object was given", pickle(call("builtins getattr",
			instance("scipy.stats._distn_infrastructure rv_frozen")+dictOf(str("_entropy"), emptyDict)+build, str("_entropy"))), dangerous, joblib.RuleArguments},
		{"items set in what getattr gives", pickle(call("builtins getattr", instance("scipy.stats._discrete_distns randint_gen"), str("_entropy")), mark, str("a"), none, setItems), dangerous, joblib.RuleState},
		{"a placeholder in a dict", pickle(dictOf(str("a"), instance(wrapperClass))), unverifiable, joblib.RuleArray},
		{"a placeholder that is all", pickle(instance(wrapperClass)), unverifiable, joblib.RuleArray},
		{"a frame with the items of another object", pickle(instance(frame), items, build), unverifiable, joblib.RuleState},
		{"attributes from the items of another object", pickle(instance(dtypeClass), tupleOf(none, items), build), unverifiable, joblib.RuleState},
		{"a frame whose data is an estimator", pickle(instance(frame), dictOf(str("_mgr"), instance(aClass)), build), dangerous, joblib.RuleState},
		{"a partial of numpy's memmap", pickle(call("functools partial", global("numpy memmap"))), dangerous, joblib.RuleArguments},
		{"numpy's memmap as a value", pickle(instance(aClass), dictOf(str("f"), global("numpy memmap")), build), dangerous, joblib.RuleUse},
		{"numpy's memmap as the class of an array", pickle(wrapper{subclass: global("numpy memmap"), dtype: bytesOf.String()}.String() + "ab"), pass, ""},
		{"vectorize of anything", pickle(instance("numpy vectorize"), dictOf(str("pyfunc"), global("numpy mean")), build), dangerous, joblib.RuleState},
		{"__setstate__", pickle(instance(aClass), dictOf(str("__setstate__"), global("numpy mean")), build), dangerous, joblib.RuleState},
		{"addresses for numpy", pickle(instance(aClass), dictOf(str("__array_interface__"), emptyDict), build), dangerous, joblib.RuleState},
		{"append", pickle(instance(aClass), dictOf(str("append"), global("numpy mean")), build), dangerous, joblib.RuleState},
		{"items for what takes none", pickle(instance(aClass), mark, str("a"), appends), unverifiable, joblib.RuleUse},
		{"objects by one flag alone", pickle(dtype{code: "O8", order: "|", flags: 1}.String()), unverifiable, joblib.RuleArray},
		{"fields of a dtype that change", pickle(field, memoize, record(get(0)), get(0), str("a"), none, setItem, tuple2), unverifiable, joblib.RuleStream},
		{"a record", pickle(record(field)), pass, ""},
		{"a state that changes", pickle(instance(aClass), emptyDict, memoize, build, get(0), str("a"), none, setItem, tuple2), unverifiable, joblib.RuleStream},
		{"the copy of a dict", pickle(dictOf(str("a"), none), memoize, call("copyreg _reconstructor", global("sklearn.utils._bunch Bunch"), global("builtins dict"), get(0)), mark, str("b"), none, setItems, tuple2), pass, ""},
		{"a placeholder with what is only in the copy", pickle(dictOf(
			str("subclass"), global("numpy ndarray"), str("shape"), tupleOf(i32(2)), str("order"), str("C"), str("dtype"), bytesOf.String(), str("allow_mmap"), yes), memoize,
			call("copyreg _reconstructor", global("sklearn.utils._bunch Bunch"), global("builtins dict"), get(0)), mark, str("numpy_array_alignment_bytes"), i32(16), setItems,
			instance(wrapperClass), get(0), build+"ab", tuple3), pass, ""},
		{"a method that loading calls", pickle(instance("sklearn.isotonic IsotonicRegression"), dictOf(str("_build_f"), global("numpy mean")), build), dangerous, joblib.RuleState},
		{"numpy's array class as a value", pickle(listOf(global("numpy ndarray"))), dangerous, joblib.RuleUse},
		{"a set of what an object yields", pickle(call("builtins set", instance(aClass))), unverifiable, joblib.RuleArguments},
		{"a dtype that gets its fields after its use", pickle(call("numpy dtype", str("V8"), no, yes), tuple1), unverifiable, joblib.RuleArray},
		{"a distribution's template in another class", pickle(instance("acme Thing"), dictOf(str("_parse_arg_template"), str("code")), build), dangerous, joblib.RuleState},
		{"an unlisted class of a library that is there", pickle(instance("scipy.stats rv_continuous")), unverifiable, joblib.RuleUnknown},
		{"a class of a newer scikit-learn", pickle(instance("sklearn.ensemble._new NewForest")), review, joblib.RuleUnknown},
		{"a module's own machinery", pickle(listOf(global("numpy __builtins__"))), dangerous, joblib.RuleDenied},
		{"a time stamp with a path", pickle(call("pandas._libs.tslibs.timestamps _unpickle_timestamp", i32(0), none, str("dateutil//etc/hostname"), i32(10))), unverifiable, joblib.RuleArguments},
		{"a fraction without end", pickle(call("fractions Fraction", str("1e99999999"))), unverifiable, joblib.RuleArguments},
		{"bytes without end", pickle(call("builtins bytearray", i32(1<<30))), unverifiable, joblib.RuleArguments},
		{"a time zone", pickle(call("builtins getattr", global("zoneinfo ZoneInfo"), str("_unpickle")), tupleOf(str("Europe/Berlin"), yes), reduce), pass, ""},
		{"a time zone that is a path", pickle(call("builtins getattr", global("zoneinfo ZoneInfo"), str("_unpickle")), tupleOf(str("../x"), yes), reduce), dangerous, joblib.RuleComputed},
		{"a path", pickle(call("pathlib PosixPath", str("models"), str("m.joblib"))), pass, ""},
		{"what may be an enum", pickle(call("acme Kind", i32(1))), unverifiable, joblib.RuleUnknownCall},
	})
}

// TestPolyglots has pickles that begin like something else, and on which galley
// stops where Python goes on: that is never a reason to trust them.
func TestPolyglots(t *testing.T) {
	t.Parallel()
	catboost := "CBM1" + strings.Repeat("x", 64)
	const payload = "cposix\nmkdir\n(S'x'\ntR."
	for name, data := range map[string]string{
		"a long line":             catboost + "I0x" + strings.Repeat("0", 70_000) + "1\n" + payload,
		"a long number":           catboost + "\x8b" + le(70_000, 4) + strings.Repeat("\x01", 70_000) + payload,
		"BUILD with nothing":      catboost + "Nb" + payload,
		"SETITEMS with nothing":   catboost + "(u" + payload,
		"a number that C reads":   catboost + "I010\n" + payload,
		"a number with a NUL":     catboost + "I1\x00x\n" + payload,
		"a signed nan":            catboost + "F-nan\n" + payload,
		"READONLY_BUFFER":         catboost + "\x98" + payload,
		"a name that is cut":      catboost + "0cevil_module\nx",
		"a module that is cut":    catboost + "0cevil_module",
		"text with a long line":   "I0x" + strings.Repeat("0", 70_000) + "1\n" + payload,
		"text with a long string": "S'" + strings.Repeat("0", 70_000) + "'\n" + payload,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := inspect(t, data, joblib.Options{})
			if r.Verdict < unverifiable || r.Unloadable {
				t.Errorf("%s, %s, unloadable: %t", r.Format, r.Verdict, r.Unloadable)
			}
		})
	}
	for name, data := range map[string]string{
		"a table": "customer_id,amount\n1,2.5\n", "notes": "Fraud model\n\nI am a model.\n", "more notes": "Building it\n", "json": "{}",
		"an archive of numpy's": "\x93NUMPY\x01\x00v\x00", "parquet": "PAR1\x15\x04\x15\x00", "sqlite": "SQLite format 3\x00" + strings.Repeat("\x00", 100),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if r := inspect(t, data, joblib.Options{}); !r.Unloadable {
				t.Errorf("%s, %s, could be loaded\n%s", r.Format, r.Verdict, spell(r.Findings))
			}
		})
	}
}
