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
		{"an array of opcodes without end", pickle(wrapper{shape: tupleOf(i32(1 << 20)), dtype: bytesOf.String()}.String() + strings.Repeat("N0", 1<<19)), unverifiable, joblib.RulePlainView},
		{"an array of objects whose references lead elsewhere", pickle(
			str("posix"), put(0), str("mkdir"), put(1), inner(str("numpy"), put(0), str("mean"), put(1), get(0), get(1), stackName, tuple3), tuple3), pass, ""},
		{"by MEMOIZE, so that they lead to names outside", pickle(
			str("posix"), memoize, str("mkdir"), memoize, inner(str("numpy"), memoize, str("mean"), memoize, get(0), get(1), stackName), tuple3), dangerous, joblib.RulePlainView},
		{"a name of numpy's under another module", pickle(
			str("time"), memoize, inner(str("numpy"), memoize, get(0), str("dtype"), stackName, tupleOf(str("f8"), no, yes), reduce, tuple2), tuple2), pass, ""},
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
