package joblib_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"galley/manifest/joblib"
)

// fixtures lists the files of testdata, without their generator.
func fixtures(t testing.TB) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*.joblib", "*.pkl", "xgb.*", "*.npz"} {
		found, err := filepath.Glob(filepath.Join("testdata", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if base := filepath.Base(f); pattern != "xgb.*" || base != "xgb.joblib" {
				names = append(names, base)
			}
		}
	}
	return names
}

func TestLookFixtures(t *testing.T) {
	const (
		logistic = "sklearn.linear_model._logistic.LogisticRegression"
		forest   = "sklearn.ensemble._forest.RandomForestClassifier"
		tree     = "sklearn.tree._classes.DecisionTreeClassifier"
		pipeline = "sklearn.pipeline.Pipeline"
		scaler   = "sklearn.preprocessing._data.StandardScaler"
	)
	object := func(k joblib.Kind, class string, inside ...string) joblib.Peek {
		return joblib.Peek{Format: k, Top: "object", Class: class, Inside: inside, Whole: true}
	}
	packed := func(name string) joblib.Peek {
		p := object(joblib.Joblib, logistic)
		p.Compression = name
		return p
	}
	want := map[string]joblib.Peek{
		"forest.joblib":   object(joblib.Joblib, forest, tree),
		"forest.2.joblib": object(joblib.Joblib, forest, tree),
		"logistic.joblib": object(joblib.Joblib, logistic),
		"pipeline.joblib": object(joblib.Joblib, pipeline, "sklearn.feature_selection._univariate_selection.SelectKBest", scaler, logistic),
		"prepare.joblib":  object(joblib.Joblib, pipeline, "sklearn.impute._base.SimpleImputer", scaler),
		"words.joblib":    object(joblib.Joblib, pipeline, "sklearn.feature_extraction.text.TfidfVectorizer", logistic),
		"search.joblib":   object(joblib.Joblib, "sklearn.model_selection._search.GridSearchCV", logistic, "sklearn.metrics._scorer._PassthroughScorer"),
		"calibrated.joblib": object(joblib.Joblib, "sklearn.calibration.CalibratedClassifierCV", logistic,
			"sklearn.calibration._CalibratedClassifier"),
		"scaler.joblib":        object(joblib.Joblib, scaler),
		"encoder.joblib":       object(joblib.Joblib, "sklearn.preprocessing._label.LabelEncoder"),
		"dict.joblib":          {Format: joblib.Joblib, Top: "dict", Inside: []string{scaler, logistic}, Whole: true},
		"list.joblib":          {Format: joblib.Joblib, Top: "list", Inside: []string{forest, logistic}, Whole: true},
		"tuple.joblib":         {Format: joblib.Joblib, Top: "tuple", Inside: []string{scaler, logistic}, Whole: true},
		"plain.joblib":         {Format: joblib.Pickle, Top: "dict", Whole: true},
		"array.joblib":         {Format: joblib.Joblib, Top: "array", Class: "numpy.ndarray", Whole: true},
		"objects.joblib":       {Format: joblib.Joblib, Top: "array", Class: "numpy.ndarray", Whole: true},
		"array.pkl":            {Format: joblib.Pickle, Top: "array", Class: "numpy.ndarray", Whole: true},
		"frame.joblib":         object(joblib.Joblib, "pandas.core.frame.DataFrame"),
		"frame.pkl":            object(joblib.Pickle, "pandas.core.frame.DataFrame"),
		"series.joblib":        object(joblib.Joblib, "pandas.core.series.Series"),
		"sparse.joblib":        object(joblib.Joblib, "scipy.sparse._csr.csr_matrix"),
		"sparse.npz":           {Format: joblib.Zip},
		"function.joblib":      {Format: joblib.Pickle, Top: "global", Class: "numpy.mean", Whole: true},
		"xgb.joblib":           object(joblib.Pickle, "xgboost.sklearn.XGBClassifier", "xgboost.core.Booster"),
		"xgb.json":             {Format: joblib.XGBoost},
		"xgb.ubj":              {Format: joblib.XGBoost},
		"logistic.zlib.joblib": packed("zlib"),
		"logistic.gzip.joblib": packed("gzip"),
		"logistic.bz2.joblib":  packed("bzip2"),
		"logistic.xz.joblib":   packed("xz"),
		"logistic.lzma.joblib": packed("lzma"),
		"logistic.0.pkl":       object(joblib.Pickle, logistic),
		"logistic.1.pkl":       object(joblib.Pickle, logistic),
		"logistic.2.pkl":       object(joblib.Pickle, logistic),
		"logistic.3.pkl":       object(joblib.Pickle, logistic),
		"logistic.4.pkl":       object(joblib.Pickle, logistic),
		"logistic.5.pkl":       object(joblib.Pickle, logistic),
	}
	names := fixtures(t)
	if len(names) != len(want) || len(names) == 0 {
		t.Fatalf("%d fixtures, want %d", len(names), len(want))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := os.Open(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := joblib.Look(f)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want[name]) {
				t.Errorf("got  %+v\nwant %+v", got, want[name])
			}
		})
	}
}

func archive(t testing.TB, names ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, n := range names {
		if _, err := w.Create(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLookFormats(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, data string
		want       joblib.Kind
	}{
		{"empty", "", joblib.Empty},
		{"pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n", joblib.Pointer},
		{"page", "\n <!DOCTYPE html><title>Sign in</title>", joblib.HTML},
		{"page without doctype", "<HTML lang=en>", joblib.HTML},
		{"json", "\ufeff {\"a\": 1}", joblib.JSON},
		{"json list", "[1]", joblib.JSON},
		{"xgboost json, indented", "{\n  \"learner\": {}}", joblib.XGBoost},
		{"other json about learners", `{"name": "learner"}`, joblib.JSON},
		{"lightgbm", "tree\nversion=v4\n", joblib.LightGBM},
		{"catboost", "CBM1\x10\x00", joblib.CatBoost},
		{"skl2onnx", "\x08\x0a\x12\x08skl2onnx\x1a\x061.17.0\x22\x07ai.onnx\x28\x00\x32\x00\x3a\xff\x01\x0a", joblib.ONNX},
		{"eight bytes of protobuf", "\x08\x0a\x12\x08skl2", joblib.Unknown},
		{"skops", archive(t, "139871.npy", "schema.json"), joblib.Skops},
		{"keras", archive(t, "metadata.json", "config.json", "model.weights.h5"), joblib.Keras},
		{"npz", archive(t, "arr_0.npy"), joblib.Zip},
		{"keras hdf5", "\x89HDF\r\n\x1a\n\x00keras_version", joblib.Keras},
		{"hdf5", "\x89HDF\r\n\x1a\n\x00table", joblib.Unknown},
		{"csv", "customer_id,amount\n1,2.5\n", joblib.Text},
		{"csv of one column", "cat\ndog\nbird\n", joblib.Text},
		{"text that joblib takes for zlib", "xgboost==3.2.0\n", joblib.Text},
		{"text that joblib takes for bzip2", "BZip me\n", joblib.Text},
		{"text with a cut character", "caf\xc3", joblib.Text},
		{"latin-1", "caf\xe9 cr\xe8me", joblib.Unknown},
		{"parquet", "PAR1\x15\x04\x15\x00", joblib.Unknown},
		{"npy", "\x93NUMPY\x01\x00v\x00", joblib.Unknown},
		{"cut pickle", "\x80\x04\x95\x10\x00", joblib.Pickle},
		{"no more than a protocol", "\x80\x04\xff", joblib.Unknown},
		{"lz4", "\x04\x22\x4d\x18\x40\x40\xc0", joblib.Joblib},
		{"joblib before 0.10", "ZF0x10", joblib.Joblib},
		{"pickle of protocol 0", "(lp0\nVa\np1\na.", joblib.Pickle},
		{"pickle of protocol 0 without an end", "(lp0\nVa\np1\na", joblib.Text},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := joblib.Look(iotest.OneByteReader(strings.NewReader(c.data)))
			if err != nil {
				t.Fatal(err)
			}
			if got.Format != c.want {
				t.Errorf("got %q, want %q", got.Format, c.want)
			}
		})
	}
}

// TestLookPickles has pickles put together by hand: of writers and of
// endings that no fixture shows.
func TestLookPickles(t *testing.T) {
	t.Parallel()
	const forest = "\x80\x04\x8c\x18sklearn.ensemble._forest\x8c\x16RandomForestClassifier\x93)\x81"
	for _, c := range []struct {
		name, data, top, class string
		inside                 []string
		whole                  bool
	}{
		{"cut inside a model in a dict", "\x80\x04}(\x8c\x05model" + forest[2:] + "}(", "dict", "", []string{"sklearn.ensemble._forest.RandomForestClassifier"}, false},
		{"cut inside a model's own state", "\x80\x04}(\x8c\x05model" + forest[2:] + "}(\x8c\x01tcsklearn.tree\nTree\n)\x81", "dict", "", []string{"sklearn.ensemble._forest.RandomForestClassifier"}, false},
		{"cut inside the steps of a pipeline", "\x80\x04csklearn.pipeline\nPipeline\n)\x81}(\x8c\x05steps](\x8c\x01a" + forest[2:] + "}", "object", "sklearn.pipeline.Pipeline", []string{"sklearn.ensemble._forest.RandomForestClassifier"}, false},
		{"made by INST", "(iacme\nModel\n.", "object", "acme.Model", nil, true},
		{"made by OBJ", "(cacme\nModel\nVx\no.", "object", "acme.Model", nil, true},
		{"made by NEWOBJ_EX", "\x80\x04cacme\nModel\n)}\x92.", "object", "acme.Model", nil, true},
		{"an ordered dict", "\x80\x04ccollections\nOrderedDict\n)R(\x8c\x01m" + forest[2:] + "}bu.", "dict", "", []string{"sklearn.ensemble._forest.RandomForestClassifier"}, true},
		{"a class of no name", "\x80\x04\x8c\x03a\x1b[\x8c\x01b\x93)\x81.", "object", "", nil, true},
		{"a computed class", "\x80\x04cacme\nmake\n)R)\x81.", "object", "", nil, true},
		{"a set", "\x80\x04\x8f(K\x01\x90.", "set", "", nil, true},
		{"a frozen set", "\x80\x04(K\x01\x91.", "set", "", nil, true},
		{"a number", "\x80\x04K\x01.", "value", "", nil, true},
		{"a text", "\x80\x04\x8c\x01a.", "value", "", nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := joblib.Look(strings.NewReader(c.data))
			if err != nil {
				t.Fatal(err)
			}
			want := joblib.Peek{Format: joblib.Pickle, Top: c.top, Class: c.class, Inside: c.inside, Whole: c.whole}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// TestLookReadsLittle has lengths that lie and a reader without end.
func TestLookReadsLittle(t *testing.T) {
	t.Parallel()
	for _, data := range []string{
		"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", // BINBYTES8 of 2^63 bytes
		"\x80\x04\x96\x00\x00\x00\x00\x02\x00\x00\x00", // BYTEARRAY8 of 8 GiB
		"\x80\x04B\xff\xff\xff\xff",
		"\x80\x04j\xff\xff\xff\xff",
	} {
		if _, err := joblib.Look(strings.NewReader(data)); err != nil {
			t.Errorf("%q: %v", data, err)
		}
	}
	endless := &counter{r: io.MultiReader(strings.NewReader("\x80\x04"), ones{})}
	if _, err := joblib.Look(endless); err != nil {
		t.Error(err)
	}
	if endless.n > 1<<20 {
		t.Errorf("read %d bytes of an endless pickle", endless.n)
	}
}

// ones is endless MARK opcodes.
type ones struct{}

func (ones) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '('
	}
	return len(p), nil
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestLookReportsReadErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken disk")
	for _, r := range []io.Reader{
		iotest.ErrReader(broken),
		io.MultiReader(strings.NewReader("\x80\x04"+strings.Repeat("N0", 4<<10)), iotest.ErrReader(broken)),
	} {
		if _, err := joblib.Look(r); !errors.Is(err, broken) {
			t.Errorf("got %v, want %v", err, broken)
		}
	}
}

// seeds are the fixtures, the smaller half of them cut as well.
func seeds(t testing.TB) [][]byte {
	t.Helper()
	var all [][]byte
	for _, name := range fixtures(t) {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data, data[:len(data)/2])
	}
	return all
}

func TestFuzzLookSeeds(t *testing.T) {
	t.Parallel()
	if n := len(seeds(t)); n < 70 {
		t.Errorf("%d seeds, want at least 70", n)
	}
}

func FuzzLook(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := joblib.Look(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if p.Format == "" {
			t.Error("no format")
		}
		if !p.Format.IsPickle() && (p.Top != "" || p.Class != "" || p.Inside != nil || p.Whole) {
			t.Errorf("no pickle, but %+v", p)
		}
	})
}

func BenchmarkLook(b *testing.B) {
	data, err := os.ReadFile("testdata/forest.joblib")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if p, _ := joblib.Look(bytes.NewReader(data)); !p.Whole {
			b.Fatal("cut")
		}
	}
}
