package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
)

// input is a model to carry, with its features file and its summary.
type input struct {
	name string
	size int64 // bytes of the model, about
	// python is a script, below testdata, that writes the project into the
	// directory that is its last argument, with scikit-learn; nil if the model is
	// made here in any case.
	python []string
	bytes  func(root string) (io.Reader, error) // the model, without Python
	made   string                               // what those bytes are
}

var (
	forest10 = input{
		name: "10 MB forest", size: 10_000_000,
		python: []string{"fraud/train.py", "--size", "full", "--out"},
		bytes:  standIn, made: forestAgain,
	}
	forest180 = input{
		name: "180 MB forest", size: 180_000_000,
		python: []string{"bench/forest.py"},
		bytes:  standIn, made: forestAgain,
	}
	random1G = input{
		name: "1 GiB of random bytes", size: 1 << 30,
		bytes: random, made: "random bytes behind the pickle of an estimator",
	}
)

const forestAgain = "a stand-in: the small forest of testdata/fraud over and over, which compresses alike"

// standIn is the forest of the example, which is far larger than the window of
// the compressor, without end.
func standIn(root string) (io.Reader, error) {
	data, err := os.ReadFile(filepath.Join(root, "testdata/fraud/models/random_forest_final_model.joblib"))
	return &again{data: data}, err
}

type again struct {
	data []byte
	at   int
}

func (a *again) Read(p []byte) (int, error) {
	n := copy(p, a.data[a.at:])
	a.at = (a.at + n) % len(a.data)
	return n, nil
}

func random(string) (io.Reader, error) {
	header := "\x80\x04\x8c\x18sklearn.ensemble._forest\x8c\x16RandomForestClassifier\x93)\x81."
	return io.MultiReader(bytes.NewReader([]byte(header)), rand.NewChaCha8([32]byte{1})), nil
}

// project is an input on disk.
type project struct {
	dir   string
	files []string          // below dir
	sums  map[string]string // of the files
	tar   string            // an archive of them, for tools that want one
	about string
}

const tarFile = "project.tar"

// project makes the project, or finds it in the cache.
func (b *bench) project(ctx context.Context, in *input, python string) (*project, error) {
	if len(in.python) == 0 {
		python = ""
	}
	p := &project{about: in.made}
	if python != "" {
		p.about = "trained with scikit-learn"
	}
	p.dir = filepath.Join(b.cache, "bench", fmt.Sprintf("%x", sha256.Sum256([]byte(in.name+p.about)))[:12])
	p.tar = filepath.Join(p.dir, tarFile)
	if _, err := os.Stat(p.tar); err != nil { // it is written last
		b.say("making the %s", in.name)
		if err := os.RemoveAll(p.dir); err != nil {
			return nil, err
		}
		if err := b.makeProject(ctx, in, python, p.dir); err != nil {
			return nil, err
		}
		if err := writeTar(p.dir, p.tar); err != nil {
			return nil, err
		}
	}
	return p, p.find()
}

// python is an interpreter with scikit-learn: $PYTHON, the one of make e2e, or
// the system's; "" if none has it.
func (b *bench) python(ctx context.Context) string {
	candidates, _ := filepath.Glob(filepath.Join(b.cache, "e2e", "venv-*", "bin", "python"))
	for _, program := range append([]string{os.Getenv("PYTHON")}, append(candidates, "python3")...) {
		if program != "" && exec.CommandContext(ctx, program, "-c", "import sklearn, joblib, pandas").Run() == nil {
			return program
		}
	}
	b.say("no Python with scikit-learn: the forests are stand-ins (set PYTHON, or run make e2e once)")
	return ""
}

func (b *bench) makeProject(ctx context.Context, in *input, python, dir string) error {
	data := filepath.Join(b.root, "testdata")
	if python != "" {
		args := append([]string{filepath.Join(data, in.python[0])}, in.python[1:]...)
		cmd := exec.CommandContext(ctx, python, append(args, dir)...)
		cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH="+filepath.Join(data, "e2e"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", python, err, out)
		}
		return nil
	}
	models := filepath.Join(dir, "models")
	return errors.Join(
		os.MkdirAll(models, 0o777),
		b.writeModel(in, filepath.Join(models, "model.joblib")),
		os.CopyFS(filepath.Join(dir, "data"), os.DirFS(filepath.Join(data, "fraud", "data"))),
	)
}

func (b *bench) writeModel(in *input, name string) error {
	src, err := in.bytes(b.root)
	if err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, bufio.NewReaderSize(src, 1<<20), in.size)
	return errors.Join(err, f.Close())
}

// projectFiles are the files below dir that are carried.
func projectFiles(dir string) ([]string, error) {
	var files []string
	for _, pattern := range []string{"models/*.joblib", "data/*.json"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, name := range found {
			name, err := filepath.Rel(dir, name)
			if err != nil {
				return nil, err
			}
			files = append(files, name)
		}
	}
	if len(files) != 3 {
		return nil, fmt.Errorf("%s has %q; want a model and two JSON files", dir, files)
	}
	return files, nil
}

func (p *project) find() (err error) {
	if p.files, err = projectFiles(p.dir); err != nil {
		return err
	}
	p.sums = make(map[string]string)
	for _, name := range p.files {
		f, err := os.Open(filepath.Join(p.dir, name))
		if err != nil {
			return err
		}
		p.sums[name], err = sum(f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func sum(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// writeTar puts the project's files into an archive.
func writeTar(dir, name string) error {
	files, err := projectFiles(dir)
	if err != nil {
		return err
	}
	f, err := os.Create(name + ".tmp")
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	for _, name := range files {
		err = errors.Join(err, addFile(w, dir, name))
	}
	if err := errors.Join(err, w.Close(), f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

func addFile(w *tar.Writer, dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

// check compares what a tool pulled with the project.
func (p *project) check(out string, archive bool) error {
	got := make(map[string]string)
	if archive {
		f, err := os.Open(filepath.Join(out, tarFile))
		if err != nil {
			return err
		}
		defer f.Close()
		r := tar.NewReader(f)
		for {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if got[h.Name], err = sum(r); err != nil {
				return err
			}
		}
	} else {
		q := project{dir: out}
		if err := q.find(); err != nil {
			return err
		}
		got = q.sums
	}
	for name, want := range p.sums {
		if got[name] != want {
			return fmt.Errorf("pulled %s is not what was pushed", name)
		}
	}
	return nil
}
