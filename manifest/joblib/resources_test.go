package joblib_test

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"galley/manifest/joblib"
)

// The limits that a file is held to: what a walk keeps, and what is added by
// slices that double and by garbage that is not collected yet.
const (
	budget = 256 << 20
	slack  = 40 << 20
)

// times is a file that is never in memory as a whole: a head, a part many times
// over, and a tail.
func times(head, part string, n int, tail string) io.Reader {
	size := int64(len(part)) * int64(n)
	many := 1 + (64<<10)/len(part)
	return io.MultiReader(strings.NewReader(head), &repeated{[]byte(strings.Repeat(part, many)), len(part), size, 0}, strings.NewReader(tail))
}

type repeated struct {
	parts []byte // of a part, many times
	part  int
	left  int64
	at    int // within a part
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), r.left)], r.parts[r.at:])
	r.at = (r.at + n) % r.part
	r.left -= int64(n)
	return n, nil
}

// heapPeak is how much the heap grows while f runs, at most.
func heapPeak(f func()) int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	used := func() int64 {
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64())
	}
	runtime.GC()
	before, most := used(), int64(0)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := time.NewTicker(time.Millisecond); ; {
			most = max(most, used())
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	})
	f()
	close(done)
	wg.Wait()
	return most - before
}

// load is a file that is made to use up what it is read on, or that is merely
// large.
type load struct {
	name    string
	file    func() io.Reader
	size    int64 // of what file gives, about
	verdict joblib.Verdict
	rule    joblib.Rule
	memory  int64 // 0: five times the file, up to the budget
	long    bool  // not with -short
}

// whole is a file that fits into memory.
func whole(s string) func() io.Reader { return func() io.Reader { return strings.NewReader(s) } }

func (l load) run(t *testing.T) {
	if l.long && testing.Short() {
		t.Skip("large")
	}
	limit := l.memory
	if limit == 0 {
		limit = min(5*l.size, 2*budget) + slack
	}
	var r *joblib.Report
	start := time.Now()
	file := l.file()
	peak := heapPeak(func() {
		var err error
		if r, err = joblib.Inspect(file, joblib.Options{}); err != nil {
			t.Error(err)
		}
	})
	took := time.Since(start)
	if r == nil {
		return
	}
	if r.Verdict != l.verdict || l.rule != "" && !has(r, l.verdict, l.rule) {
		t.Errorf("got %s, want %s for %q\n%.2000s", r.Verdict, l.verdict, l.rule, spell(r.Findings))
	}
	if peak > limit {
		t.Errorf("%d MiB of memory, want at most %d", peak>>20, limit>>20)
	}
	t.Logf("%d MiB of memory, %v", peak>>20, took.Round(time.Millisecond))
}

// TestResources is not parallel: it measures memory.
func TestResources(t *testing.T) {
	limit := joblib.RuleLimit
	many := func(part string, n int, tail string) func() io.Reader {
		return func() io.Reader { return times(proto(4), part, n, tail) }
	}
	for _, l := range []load{
		{"100 MB of lists", many(emptyList, 100_000_000, stop), 100 << 20, unverifiable, limit, 0, false},
		{"100 MB of empty tuples", many(emptyTuple, 100_000_000, stop), 100 << 20, unverifiable, limit, 0, true},
		{"100 MB of None and POP", many(none+pop, 50_000_000, none+stop), 100 << 20, review, joblib.RuleOpcode, slack, true},
		{"20 million lists in a list", many(emptyList+mark+none+appends, 20_000_000, stop), 80 << 20, unverifiable, limit, 0, true},
		{"5 million marks", many(mark, 5_000_000, stop), 5 << 20, unverifiable, joblib.RuleStream, 4 * 5 * 8 << 20, false},
		{"2 million tuples in each other", func() io.Reader { return times(proto(4)+none, tuple1, 2_000_000, stop) }, 2 << 20, pass, "", 2_000_000*60 + slack, false},
		{"a dict of a million strings", func() io.Reader { return words(1_000_000) }, 20 << 20, pass, "", 0, true},
		{"a list of 3 million floats", func() io.Reader { return times(proto(4)+emptyList+mark, f64(0.1), 3_000_000, appends+stop) }, 27 << 20, pass, "", 0, false},
		{"a million lists of two", func() io.Reader {
			return times(proto(4)+emptyList+mark, emptyList+memoize+mark+"K\x01K\x02"+appends, 1_000_000, appends+stop)
		}, 8 << 20, pass, "", 140 << 20, false},
		{"an array of 500,000 strings", func() io.Reader {
			return times(proto(4)+wrapper{shape: tupleOf(i32(500_000)), dtype: objects.String()}.String()+proto(2)+emptyList+mark, str("some words"), 500_000, appends+stop+stop)
		}, 8 << 20, pass, "", 0, false},
		{"an array of 1 GiB", func() io.Reader {
			return times(proto(4)+wrapper{shape: tupleOf(i32(1 << 27))}.String(), zeros(1<<10), 1<<20, stop)
		}, 1 << 30, pass, "", slack, false},
		{"300 MiB of zeros by zlib", func() io.Reader { return bomb(300 << 20) }, 300 << 10, pass, "", slack, true},
		{"a million findings", func() io.Reader { return findings(200_000) }, 4 << 20, review, joblib.RuleUnknown, 200_000*1200 + slack, false},
	} {
		t.Run(l.name, l.run)
	}
}

// words is a vocabulary: a dict of so many strings.
func words(n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, proto(4)+emptyDict+memoize+mark)
		for i := range n {
			_, _ = io.WriteString(w, fmt.Sprintf("\x8c\x08%08d\x94", i)+i32(i))
		}
		_, _ = io.WriteString(w, setItems+stop)
		w.Close()
	}()
	return r
}

// findings is a pickle of so many classes that nobody knows.
func findings(n int) io.Reader {
	var b strings.Builder
	b.WriteString(proto(4) + emptyList + mark)
	for i := range n {
		fmt.Fprintf(&b, "cmypkg\nC%d\n", i)
	}
	b.WriteString(appends + stop)
	return strings.NewReader(b.String())
}

// bomb is an array of so many zeros, which zlib makes a thousandth of.
func bomb(size int) io.Reader {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = io.Copy(w, times(proto(4)+wrapper{shape: tupleOf(i32(size)), dtype: bytesOf.String()}.String(), zeros(1<<10), size>>10, stop))
	w.Close()
	return &b
}

// TestDeclaredLengths declares more than there is, in every opcode that has a
// length: nothing is allocated for it.
func TestDeclaredLengths(t *testing.T) {
	for op, width := range map[string]int{"T": 4, "X": 4, "B": 4, "\x8b": 4, "\x8d": 8, "\x8e": 8, "\x96": 8, "\x95": 8} {
		for _, n := range []uint64{1 << 31, 1<<32 - 1, 1 << 33, 1 << 62, 1 << 63, 1<<64 - 1} {
			if n>>(8*width-1)>>1 > 0 {
				continue
			}
			load{"", whole(pickle(emptyList, op+le(n, width), "abc", appendOne)), 30, unverifiable, "", 4 << 20, false}.run(t)
		}
	}
}

// TestCosts reads small files in which every part refers to others many times
// over: nothing is done or told as often as that.
func TestCosts(t *testing.T) {
	class := instance(aClass)
	// doubled is a value that is a container of twice the one before, and so on.
	doubled := func(levels, width int) string {
		var s strings.Builder
		s.WriteString("K\x01" + memoize)
		for i := range levels {
			s.WriteString(mark + strings.Repeat(get(uint64(i)), width) + tuple + memoize)
		}
		return s.String()
	}
	var b strings.Builder
	for i := range 20_000 {
		b.WriteString(str(fmt.Sprint("k", i)) + "K\x01")
	}
	bigDict := emptyDict + memoize + mark + b.String() + setItems // in slot 0
	b.Reset()
	for i := range 20_000 {
		b.WriteString(str(fmt.Sprint("k", i)) + get(0))
	}
	dictOfDicts := emptyDict + mark + b.String() + setItems
	names := emptyList + memoize + mark + strings.Repeat(str("some name"), 20_000) + appends
	b.Reset()
	b.WriteString(names + pop + emptyDict + memoize + mark + str("feature_names_in_") + get(0) + setItems + pop + global("mypkg Model") + memoize + pop)
	part := get(2) + emptyTuple + newObj + get(1) + build
	group := get(2) + emptyTuple + newObj + dictOf(str("steps"), listOf(strings.Repeat(str("a")+part+tuple2, 60))) + build
	b.WriteString(listOf(strings.Repeat(group, 16)))
	sharedNames := b.String()
	b.Reset()
	long := strings.Repeat("n", 30_000)
	b.WriteString(mark + tupleOf(strings.Repeat("c"+long+"\n"+long+"\n", 16)) + memoize)
	for i := range 500 {
		fmt.Fprintf(&b, "cmypkg\nf%d\n%s%s", i, get(0), reduce)
	}
	b.WriteString(tuple)
	longShapes := b.String()
	record := func(width, levels int) string {
		var d strings.Builder
		d.WriteString(float64s.String() + memoize)
		for i := range levels {
			names, fields := "", ""
			for f := range width {
				names += str(fmt.Sprint("f", f))
				fields += str(fmt.Sprint("f", f)) + get(uint64(i)) + "K\x00" + tuple2
			}
			d.WriteString(dtype{code: "V8", state: []string{i32(3), str("|"), none, tupleOf(names), dictOf(fields), i32(8), i32(1), i32(16)}}.String() + memoize)
		}
		return d.String()
	}
	for _, l := range []load{
		{"a tuple of 2 to the 200", whole(pickle(mark, doubled(200, 2), tuple)), 0, pass, "", slack, false},
		{"arguments of 1000 to the 4", whole(pickle(mark, doubled(4, 999), global("_codecs encode"), get(4), tuple1, reduce, tuple)), 0, dangerous, joblib.RuleArguments, slack, false},
		{"one state for many objects", whole(pickle(bigDict, strings.Repeat(class+get(0)+build+pop, 20_000))), 0, unverifiable, "", budget, false},
		{"one state many times for an object", whole(pickle(bigDict, pop, class, strings.Repeat(get(0)+build, 100_000))), 0, unverifiable, "", 2 * slack, false},
		{"a dict of one dict, 20,000 times", whole(pickle(bigDict, dictOfDicts, tuple2)), 0, pass, "", budget, false},
		{"the names of a thousand parts", whole(pickle(sharedNames)), 0, review, joblib.RuleUnknown, 100 << 20, false},
		{"the arguments of 500 calls", whole(pickle(longShapes)), 0, unverifiable, joblib.RuleUnknownCall, 100 << 20, false},
		{"records of 100 fields in 6 levels", whole(pickle(mark, record(100, 6), tuple)), 0, pass, "", slack, false},
		{"an array of records of 32 fields in 7 levels", whole(pickle(mark, record(32, 5), pop, wrapper{shape: tupleOf(i32(0)), dtype: get(5)}.String(), tuple)), 0, review, "", slack, false},
		{"the text at the end of a chunk", whole(pickle(mark, strings.Repeat(str(strings.Repeat("a", 4<<10)), 64), str(""), str(""), stackName, tuple)), 0, unverifiable, joblib.RuleName, slack, false},
		{"300,000 classes of the script", func() io.Reader { return scriptClasses(300_000) }, 0, review, joblib.RuleMain, 2 * budget, false},
		{"a list in itself", whole(pickle(emptyList, memoize, get(0), appendOne)), 0, pass, "", slack, false},
		{"a dict in itself", whole(pickle(emptyDict, memoize, str("model"), get(0), setItem)), 0, pass, "", slack, false},
		{"an object in itself", whole(pickle(class, memoize, dictOf(str("estimator_"), get(0)), build)), 0, pass, "", slack, false},
		{"steps in steps", whole(pickle(nested(10_000))), 0, pass, "", slack, false},
		{"dicts in dicts", whole(pickle(strings.Repeat(emptyDict+str("a"), 10_000), class, emptyDict, build, strings.Repeat(setItem, 10_000))), 0, pass, "", slack, false},
		{"a million classes_", func() io.Reader {
			w := wrapper{shape: tupleOf(i32(1 << 20))}.String()
			return times(proto(4)+class+emptyDict+str("classes_")+w, zeros(1<<10), 1<<13, setItem+build+stop)
		}, 0, pass, "", slack, false},
		{"a name of 10 MB", whole(pickle(class, dictOf(str("_sklearn_version"), str(strings.Repeat("1", 10<<20))), build)), 10 << 20, pass, "", slack, false},
	} {
		t.Run(l.name, l.run)
	}
}

// nested is pipelines in each other.
func nested(n int) string {
	head := instance("sklearn.pipeline Pipeline") + emptyDict + str("steps") + emptyList + str("a")
	return strings.Repeat(head, n) + none + strings.Repeat(tuple2+appendOne+setItem+build, n)
}

func scriptClasses(n int) io.Reader {
	var b strings.Builder
	b.WriteString(proto(4) + emptyList + mark)
	for i := range n {
		fmt.Fprintf(&b, "c__main__\nC%d\n", i)
	}
	b.WriteString(appends + stop)
	return strings.NewReader(b.String())
}

// TestMemoryWithinArrays counts what is kept outside of an array of objects too.
func TestMemoryWithinArrays(t *testing.T) {
	if testing.Short() {
		t.Skip("large")
	}
	w := wrapper{dtype: objects.String()}.String()
	load{"", func() io.Reader {
		return io.MultiReader(times(proto(4)+mark, none, 12_000_000, w), times(proto(2)+mark, none, 12_000_000, tuple+stop+tuple+stop))
	}, 24 << 20, unverifiable, joblib.RuleLimit, 2 * budget, false}.run(t)
	load{"", func() io.Reader {
		return times(proto(4)+mark, none+memoize, 9_000_000, wrapper{}.String()+zeros(16)+tuple+stop)
	}, 18 << 20, pass, "", 2 * budget, false}.run(t)
}
