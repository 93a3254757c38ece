package joblib

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"galley/manifest/joblib/internal/container"
)

// Options say how [Inspect] reads. The zero value is good.
type Options struct {
	// Allow lists globals, as module:name, that somebody has looked at. They
	// pass where they would need review; what is known to be dangerous is not
	// allowed by it.
	Allow []string
	// Deep looks into the nodes of scikit-learn's trees: edited ones crash
	// predict, or never end, even where nothing runs at load time. Bytes
	// inside of pickles are then kept, within the same limit of memory.
	Deep bool
	// MaxSize bounds the uncompressed bytes; 0: 16 GiB. What is larger is
	// [Unverifiable].
	MaxSize int64
}

// Inspect reads r to its end, in one pass, and says what is in it and what
// loading it would run. Memory is at most 256 MiB for what the file holds, and
// what its decompression needs; time is bounded by the size. The error is one
// of r's: whatever is wrong with the bytes is in the report.
func Inspect(r io.Reader, o Options) (*Report, error) {
	src := bufio.NewReaderSize(r, inputSize)
	head, err := src.Peek(inputSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read model: %w", err)
	}
	i := &inspector{head: bytes.Clone(head), sink: &sink{allow: o.Allow}, options: o, method: container.Detect(head)}
	switch i.method {
	case container.Plain:
		// The buffer of src is no longer than the head.
		err = i.walk(newInputAfter(i.head, r), r)
	default:
		if err = i.unpack(src); err == nil {
			// Also what nobody had to read counts for those who hash along.
			_, err = drain(src)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	return i.report(), nil
}

// inspector makes one report.
type inspector struct {
	head    []byte // of the file
	inner   []byte // of the uncompressed bytes, where there is compression
	options Options
	sink    *sink
	method  container.Method
	m       *machine
	top     value
	end     error // of the walk
	size    int64
	bare    bool // it is said to be compressed, and is not: the walk is over the head alone
}

// unpack walks the pickle in the compressed bytes of src. The error is src's
// own.
func (i *inspector) unpack(src *bufio.Reader) error {
	if i.method == container.ZF {
		i.fault(Unverifiable, RuleContainer, 0, "written by joblib before 0.10, in a form that can name other files to load")
		return nil
	}
	z, err := container.Open(src, i.method, container.Limits{MaxOutput: i.maxSize()})
	if err != nil {
		return i.unopened(err)
	}
	body := bufio.NewReaderSize(z, inputSize)
	i.inner, err = body.Peek(headSize)
	i.inner = bytes.Clone(i.inner)
	switch {
	case len(i.inner) > 0:
	case errors.Is(err, io.EOF):
		return i.unopened(&container.FormatError{Method: i.method, Err: io.ErrUnexpectedEOF})
	default:
		return i.unopened(err)
	}
	if err := i.walk(newInput(body), body); err != nil {
		return err
	}
	return i.finish(z)
}

// walk walks the pickle that in reads, and reads the rest of its source. The
// error is the source's own.
func (i *inspector) walk(in *input, rest io.Reader) error {
	i.m = newMachine(in, i.sink)
	i.m.deep, i.m.limit = i.options.Deep, i.maxSize()
	i.top, i.end = i.m.run()
	if i.end == nil {
		i.m.checkClasses()
	}
	if err := i.judgeEnd(); err != nil {
		return err
	}
	left, err := drain(rest)
	i.size = in.end(left)
	if i.end == nil && i.size > in.pos() {
		i.fault(Review, RuleTrailing, in.pos(), fmt.Sprintf("%d bytes follow the end of the pickle", i.size-in.pos()))
	}
	if err != nil {
		return i.decodeFault(err)
	}
	return nil
}

func (i *inspector) maxSize() int64 { return cmp.Or(i.options.MaxSize, container.DefaultMaxOutput) }

func (i *inspector) fault(v Verdict, rule Rule, offset int64, msg string) {
	i.sink.add(Finding{Verdict: v, Rule: rule, Offset: offset, Message: msg})
}

// unopened deals with a file whose beginning says that it is compressed, and
// that is not. joblib fails on it; pickle.load may not.
func (i *inspector) unopened(err error) error {
	if err := i.decodeFault(err); err != nil {
		return err
	}
	i.bare = true
	i.m = newMachine(newInput(bytes.NewReader(i.head)), i.sink)
	i.m.plain = true
	i.top, i.end = i.m.run()
	return nil
}

// decodeFault turns an error of decompression into a finding, and returns any
// other.
func (i *inspector) decodeFault(err error) error {
	if f, ok := errors.AsType[*container.FormatError](err); ok {
		rule := RuleContainer
		if errors.Is(err, io.ErrUnexpectedEOF) {
			rule = RuleTruncated
		}
		i.fault(Unverifiable, rule, -1, fmt.Sprintf("the %s data cannot be read at byte %d: %v", f.Method, f.Offset, f.Err))
		return nil
	}
	if l, ok := errors.AsType[*container.LimitError](err); ok {
		i.fault(Unverifiable, RuleLimit, -1, l.Error())
		return nil
	}
	return err
}

// judgeEnd says why the walk did not come to the end. The error is the
// source's.
func (i *inspector) judgeEnd() error {
	stream, ok := errors.AsType[*streamError](i.end)
	switch {
	case i.end == nil:
	case errors.Is(i.end, io.ErrUnexpectedEOF) && errors.Is(i.m.in.err, io.EOF):
		i.fault(Unverifiable, RuleTruncated, i.m.in.end(0), "the file ends within the pickle")
	case ok:
		i.fault(Unverifiable, stream.rule, i.m.at, stream.msg)
	default:
		return i.decodeFault(i.end)
	}
	return nil
}

// finish looks at the end of the compressed data.
func (i *inspector) finish(z *container.Reader) error {
	end, err := z.Finish()
	if err != nil {
		return i.decodeFault(err)
	}
	for _, o := range end.Oddities {
		v, rule := Review, RuleContainer
		switch o.Kind {
		case container.ExtraMember:
			v = Unverifiable
		case container.TrailingBytes:
			v, rule = Unverifiable, RuleTrailing // on zlib and gzip joblib fills the memory with it
		case container.Damaged:
			if i.end != nil {
				v = Unverifiable
			}
		}
		i.fault(v, rule, -1, fmt.Sprintf("%s: %s at byte %d: %s", i.method, o.Kind, o.Offset, o.Detail))
	}
	return nil
}

// report puts together what was found.
func (i *inspector) report() *Report {
	r := &Report{Compression: string(i.method), Size: i.size, Unloadable: i.unloadable()}
	if r.Format = i.format(r.Unloadable); !r.Format.IsPickle() {
		return i.foreign(r)
	}
	if i.m != nil && !i.bare {
		i.m.describe(r, i.top, i.end == nil)
		if i.options.Deep && i.end == nil {
			i.m.checkTrees(histogramFeatures(r.Models))
		}
	}
	r.Peek.Format, r.Peek.Compression = r.Format, r.Compression
	r.Findings, r.More = i.sink.sorted(), i.sink.more
	r.Verdict = max(Pass, i.sink.worst)
	return r
}

// histogramFeatures is how many features the histogram gradient boosting in the
// file takes; -1 if that is not one number.
func histogramFeatures(models []*Model) int64 {
	n := int64(-1)
	for _, m := range models {
		if h := m.Find(func(m *Model) bool { return strings.Contains(m.Class, ".HistGradientBoosting") }); h != nil && h.Features >= 0 {
			n = max(n, int64(h.Features))
		}
	}
	return n
}

// unloadable reports whether every reader of pickles surely fails before it has
// imported anything. Limits of galley's own, and whatever else it only does not
// follow, do not count.
func (i *inspector) unloadable() bool {
	if i.m == nil || i.end == nil || i.m.imports() {
		return false
	}
	e, ok := errors.AsType[*streamError](i.end)
	whole := !i.bare || len(i.head) < inputSize
	return ok && (e.sure || e.past > i.size && whole) || whole && errors.Is(i.end, io.ErrUnexpectedEOF) && errors.Is(i.m.in.err, io.EOF)
}

// format says what the file is: a pickle, unless it cannot be loaded as one and
// is something else.
func (i *inspector) format(unloadable bool) Kind {
	data := i.inner
	if i.method == container.Plain || i.bare {
		data = i.head
	}
	k := Kind("")
	if unloadable && !hasProto(data) {
		if k = sniff(data[:min(len(data), headSize)]); k == "" {
			k = archive(data)
		}
		if k == "" {
			k = plain(data)
		}
	}
	switch e, ok := errors.AsType[*streamError](i.end); {
	case k == Unknown && i.bare, k == Unknown && !(ok && (e.illegal || i.m.at == 0)):
		// At least a part of a pickle, or of a compressed file.
	case k != "":
		return k
	}
	if i.method != container.Plain || i.m != nil && i.m.arrayView {
		return Joblib
	}
	return Pickle
}

// imports reports whether the walk came upon a name that can be imported.
func (m *machine) imports() bool {
	return m.partial || slices.ContainsFunc(m.globals, func(g global) bool { return isName(g.module) && isName(g.name) })
}

// foreign is the report of what is no pickle.
func (i *inspector) foreign(r *Report) *Report {
	r.Peek = Peek{Format: r.Format}
	// Text that begins like no pickle can be a model of some library's.
	foreign := r.Format == Text && !i.bare && i.m.at == 0 && !operands[i.head[0]].legal
	if r.Format.IsModel() || r.Format == JSON || foreign {
		r.Verdict = NotPickle
		return r
	}
	// Nothing runs by unpickling that either; but it is no model, and there
	// is nothing to be said for it.
	msg := map[Kind]string{
		Zip:     "a zip archive that is no model galley knows; what is in it was not read",
		HTML:    "an HTML page, not a model",
		Pointer: "a Git LFS pointer, not a model",
		Empty:   "an empty file",
	}[r.Format]
	if msg == "" {
		msg = "no pickle, and no format that galley knows"
	}
	r.Verdict = Unverifiable
	r.Findings = []Finding{{Verdict: Unverifiable, Rule: RuleFormat, Message: msg}}
	if i.m != nil {
		r.Findings[0].Offset = i.m.at
	}
	return r
}

// sortGlobals lists the globals by module and name.
func (m *machine) sortGlobals(allow []string) (list []Global, allowed []string) {
	for i := range m.globals {
		g := &m.globals[i]
		if g.uses == 0 {
			g.uses = UseImported
		}
		list = append(list, Global{
			Module: g.module, Name: g.name, Uses: g.uses.Strings(), Shapes: g.shapes, Count: g.count, Offset: g.first,
			Verdict: g.verdict, Allowed: g.allowed,
		})
		if g.allowed && g.entry == nil && slices.Contains(allow, g.String()) {
			allowed = append(allowed, g.String())
		}
	}
	slices.SortFunc(list, func(a, b Global) int {
		return cmp.Or(strings.Compare(a.Module, b.Module), strings.Compare(a.Name, b.Name))
	})
	slices.Sort(allowed)
	return list, allowed
}
