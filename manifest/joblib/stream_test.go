package joblib_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"galley/manifest/joblib"
)

// stream writes data in pieces of at most n bytes.
func stream(t testing.TB, data []byte, n int, cause error) (*joblib.Report, error) {
	t.Helper()
	s := joblib.NewStream(joblib.Options{})
	for len(data) > 0 {
		m := min(n, len(data))
		if w, err := s.Write(data[:m]); w != m || err != nil {
			t.Fatalf("wrote %d of %d: %v", w, m, err)
		}
		data = data[m:]
	}
	return s.Close(cause)
}

// TestStream reports what Inspect does, whatever the pieces, whole and cut.
func TestStream(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.FromSlash(corpus + "models/*.*"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	large := []byte(pickle(listOf(
		wrapper{shape: tupleOf(i32(100_000))}.String()+strings.Repeat("\x00", 800_000),
		wrapper{shape: tupleOf(i32(3))}.String()+strings.Repeat("\x00", 24),
	)))
	inputs := map[string][]byte{"a large array": large}
	for _, name := range files {
		if inputs[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range inputs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, data := range [][]byte{data, data[:len(data)-1], data[:len(data)/2], data[:min(len(data), 300)], append(data[:len(data):len(data)], "more"...)} {
				want := inspect(t, string(data), joblib.Options{})
				for _, n := range []int{7, 4096, 100_000, 1 << 20} {
					got, err := stream(t, data, n, nil)
					if err != nil {
						t.Fatal(err)
					}
					if !reflect.DeepEqual(got, want) {
						t.Errorf("in pieces of %d of %d bytes: got %+v\nwant %+v", n, len(data), got, want)
					}
				}
			}
		})
	}
}

// TestStreamFails ends with the cause, wherever the walk is by then.
func TestStreamFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken disk")
	array := wrapper{shape: tupleOf(i32(100_000))}.String()
	for _, data := range []string{"", "\x80", "no pickle at all", pickle(none), proto(4) + array, proto(4) + array + strings.Repeat("\x00", 70_000)} {
		if _, err := stream(t, []byte(data), 1000, broken); !errors.Is(err, broken) {
			t.Errorf("%.20q: got %v", data, err)
		}
	}
}
