//go:build e2e

package main

import (
	"math/rand/v2"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"galley/oci/ocitest"
)

// testProjects carries projects as teams lay them out, and the full-size one.
func (e *e2e) testProjects(t *testing.T) {
	projects := map[string]int{ // and how many files each has to give
		"companions": 5, "compressed": 3, "dict": 3, "nested": 3, "pipeline": 3,
		"two-models": 3, "xgboost": 3, "xgboost-json": 3, "xgboost-ubj": 3,
	}
	there, err := os.ReadDir(e.projects)
	check(t, err)
	for _, d := range there {
		files, ok := projects[d.Name()]
		if !ok {
			t.Errorf("%s: not among the projects of this test", d.Name())
			continue
		}
		delete(projects, d.Name())
		t.Run(d.Name(), func(t *testing.T) { e.testProject(t, filepath.Join(e.projects, d.Name()), files) })
	}
	for name := range projects {
		t.Errorf("%s: no such project", name)
	}
	t.Run("full", func(t *testing.T) { e.testProject(t, e.full, 3) })
}

func (e *e2e) testProject(t *testing.T, dir string, files int) {
	ref := e.repository(t) + ":v1"
	p := e.in(t, dir).push(ref)
	if len(p.Files) != files {
		t.Fatalf("%d files pushed; want %d: %s", len(p.Files), files, p.paths())
	}
	pulled := t.TempDir()
	e.step(t, "oras pull", func(t *testing.T) {
		out := t.TempDir()
		e.in(t, out).run(e.oras, "pull", "--plain-http", ref)
		sameFiles(t, dir, out, p.paths())
	})
	e.step(t, "galley pull", func(t *testing.T) {
		equal(t, "the answer", e.in(t, t.TempDir()).run(e.galley, "pull", ref, "-o", pulled), p.Reference+"\n")
		sameFiles(t, dir, pulled, p.paths())
	})
	e.step(t, "predictions", func(t *testing.T) {
		t.Log(strings.TrimSpace(e.in(t, pulled).run(e.python, helper(t, "fidelity.py"), dir, pulled)))
	})
}

func helper(t *testing.T, name string) string {
	t.Helper()
	name, err := filepath.Abs(filepath.Join(e2eHelpers, name))
	check(t, err)
	return name
}

// testRootDirectory packs a model that lies in the project's own directory.
func (e *e2e) testRootDirectory(t *testing.T) {
	dir, paths := t.TempDir(), []string{}
	for _, p := range everyday() {
		data, err := os.ReadFile(filepath.Join(e.projects, "nested", p))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(dir, path.Base(p)), data, 0o666))
		paths = append(paths, path.Base(p))
	}
	slices.Sort(paths)
	replaceIn(t, filepath.Join(dir, path.Base(e2eSummary)), e2eModel, path.Base(e2eModel))
	ref := e.repository(t) + ":v1"
	p := e.in(t, dir).push(ref)
	e.step(t, "oras pull", func(t *testing.T) {
		_, layer, _ := e.modelLayer(t, ref)
		equal(t, "the layer's title", layer.Annotations["org.opencontainers.image.title"], ".")
		out := t.TempDir()
		e.in(t, out).run(e.oras, "pull", "--plain-http", ref)
		sameFiles(t, dir, out, paths)
	})
	e.step(t, "galley pull", func(t *testing.T) {
		out := t.TempDir()
		equal(t, "the answer", e.in(t, out).run(e.galley, "pull", ref), p.Reference+"\n")
		sameFiles(t, dir, out, paths)
	})
}

// testLayerFormats has oras pull each format. Other than tar+gzip it leaves
// archives as they are.
func (e *e2e) testLayerFormats(t *testing.T) {
	for _, f := range []struct {
		format, archive string
		unpack          []string
	}{
		{format: "tar+gzip"},
		{format: "raw"},
		{"tar", "models.tar", []string{"tar", "-xf"}},
		{"tar+zstd", "models.tar.zst", []string{"tar", "--zstd", "-xf"}},
	} {
		e.step(t, f.format, func(t *testing.T) {
			ref := e.repository(t) + ":v1"
			p := e.in(t, e.full).push(ref, "--layer-format", f.format)
			out, pulled := t.TempDir(), t.TempDir()
			sh := e.in(t, out)
			sh.run(e.oras, "pull", "--plain-http", ref)
			if f.archive != "" {
				want := []string{e2eFeatures, e2eSummary, f.archive}
				if have := filesIn(t, out); !slices.Equal(have, want) {
					t.Fatalf("oras wrote %s; want %s", have, want)
				}
				sh.run(append(f.unpack, f.archive)...)
				check(t, os.Remove(filepath.Join(out, f.archive)))
			}
			sameFiles(t, e.full, out, p.paths())
			sh.run(e.galley, "pull", ref, "-o", pulled)
			sameFiles(t, e.full, pulled, p.paths())
		})
	}
}

// testOrasPush pulls what stock oras wrote.
func (e *e2e) testOrasPush(t *testing.T) {
	for _, what := range []struct {
		name string
		args []string
	}{
		{"files", everyday()},
		{"directories", []string{"models/", "data/"}},
	} {
		e.step(t, what.name+" to a registry", func(t *testing.T) {
			ref := e.repository(t) + ":v1"
			e.in(t, e.full).run(append([]string{e.oras, "push", "--plain-http", ref}, what.args...)...)
			e.pullsOrasArtifact(t, ref)
		})
		e.step(t, what.name+" to a layout", func(t *testing.T) {
			layout := t.TempDir() + "/layout"
			e.in(t, e.full).run(append([]string{e.oras, "push", "--oci-layout", layout + ":v1"}, what.args...)...)
			e.pullsOrasArtifact(t, "oci:"+layout+":v1")
		})
	}
}

// pullsOrasArtifact pulls and inspects the full-size project that oras pushed.
func (e *e2e) pullsOrasArtifact(t *testing.T, ref string) {
	t.Helper()
	out := t.TempDir()
	sh := e.in(t, out)
	sh.run(e.galley, "pull", ref)
	sameFiles(t, e.full, out, everyday())
	sh.outcome("", e.galley, "pull", ref).want(t, 0, "unchanged: 3 files")
	if text := sh.run(e.galley, "inspect", ref); !strings.Contains(text, "models") {
		t.Errorf("inspect does not name the model:\n%s", text)
	}
}

// testLayouts moves artifacts between galley and oras in OCI layouts.
func (e *e2e) testLayouts(t *testing.T) {
	layout := t.TempDir() + "/layout"
	var p pushedJSON
	e.step(t, "oras pulls from galley's layout", func(t *testing.T) {
		p = e.in(t, e.full).push("oci:" + layout + ":v1,candidate")
		out := t.TempDir()
		e.in(t, out).run(e.oras, "pull", "--oci-layout", layout+":v1")
		sameFiles(t, e.full, out, everyday())
	})
	e.step(t, "oras cp from galley's layout", func(t *testing.T) {
		ref := e.repository(t) + ":v1"
		sh := e.in(t, t.TempDir())
		sh.run(e.oras, "cp", "--from-oci-layout", "--to-plain-http", layout+":candidate", ref)
		equal(t, "the digest", sh.resolve(ref), p.Digest)
		sh.run(e.galley, "pull", ref)
		sameFiles(t, e.full, sh.dir, everyday())
	})
	e.step(t, "galley pulls from the layout that oras cp wrote", func(t *testing.T) {
		ref, other := e.repository(t)+":v1", t.TempDir()+"/other"
		sh := e.in(t, t.TempDir())
		sh.run(e.galley, "cp", "oci:"+layout+":v1", ref)
		sh.run(e.oras, "cp", "--from-plain-http", "--to-oci-layout", ref, other+":v1")
		equal(t, "the digest", sh.run(e.galley, "resolve", "oci:"+other+":v1"), p.Digest+"\n")
		sh.run(e.galley, "pull", "oci:"+other+":v1")
		sameFiles(t, e.full, sh.dir, everyday())
	})
	e.step(t, "galley writes into the layout that oras made", func(t *testing.T) {
		other := t.TempDir() + "/other"
		sh := e.in(t, e.full)
		sh.run(e.oras, "cp", "--from-oci-layout", "--to-oci-layout", layout+":v1", other+":first")
		next := e.in(t, e.next).push("oci:" + other + ":second")
		for tag, want := range map[string]string{"first": p.Digest, "second": next.Digest} {
			equal(t, tag, strings.TrimSpace(sh.run(e.oras, "resolve", "--oci-layout", other+":"+tag)), want)
		}
	})
}

// requests is a registry seen through a proxy that counts.
type requests struct {
	host string
	mu   sync.Mutex
	log  []string
}

func countRequests(t *testing.T, registry string) *requests {
	r := &requests{}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		r.mu.Lock()
		r.log = append(r.log, p.In.Method+" "+p.In.URL.Path)
		r.mu.Unlock()
		p.SetURL(&url.URL{Scheme: "http", Host: registry})
		p.Out.Host = p.In.Host // so that uploads come back through here
	}}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// want fails unless that many requests came since the last call. Unless
// writes, all of them have to be reading ones.
func (r *requests) want(t *testing.T, n int, writes bool) {
	t.Helper()
	r.mu.Lock()
	log := r.log
	r.log = nil
	r.mu.Unlock()
	reads := func(s string) bool { return strings.HasPrefix(s, "GET ") || strings.HasPrefix(s, "HEAD ") }
	wrote := slices.ContainsFunc(log, func(s string) bool { return !reads(s) })
	if len(log) != n && n >= 0 || wrote != writes {
		t.Errorf("%d requests; want %d, writes: %v\n%s", len(log), n, writes, strings.Join(log, "\n"))
	}
	t.Logf("%d requests", len(log))
}

const anyNumber = -1

// testRegistry uses each command on a registry that has no referrers API.
func (e *e2e) testRegistry(t *testing.T) {
	r := countRequests(t, e.registry)
	repo := r.host + "/" + repositoryName(t)
	app := t.TempDir()
	var ref string // by digest
	galley := func(t *testing.T, want string, args ...string) {
		t.Helper()
		equal(t, "galley "+args[0], e.in(t, e.full).run(append([]string{e.galley}, args...)...), want)
	}
	e.step(t, "push", func(t *testing.T) {
		ref = strings.TrimSpace(e.in(t, e.full).run(e.galley, "push", repo+":v1,candidate"))
		r.want(t, 12, true) // HEAD of two tags, POST and PUT of four blobs, PUT of two tags
		for _, tag := range []string{"v1", "candidate"} {
			equal(t, tag, repo+"@"+e.in(t, e.full).resolve(repo+":"+tag), ref)
		}
		r.want(t, anyNumber, false)
	})
	e.step(t, "push again", func(t *testing.T) {
		galley(t, ref+"\n", "push", repo+":v1")
		r.want(t, 1, false)
		galley(t, ref+"\n", "push", repo+":v1,candidate")
		r.want(t, 2, false)
	})
	e.step(t, "pull", func(t *testing.T) {
		galley(t, ref+"\n", "pull", repo+":v1", "-o", app)
		r.want(t, 4, false)
		sameFiles(t, e.full, app, everyday())
	})
	e.step(t, "pull again", func(t *testing.T) {
		galley(t, ref+"\n", "pull", repo+":v1", "-o", app)
		r.want(t, 1, false)
		galley(t, ref+"\n", "pull", ref, "-o", app)
		r.want(t, 0, false)
	})
	e.step(t, "resolve", func(t *testing.T) {
		galley(t, ref+"\n", "resolve", "-l", repo+":candidate")
		r.want(t, 1, false)
	})
	e.step(t, "tag", func(t *testing.T) {
		galley(t, ref+"\n", "tag", repo+":v1", "stable")
		r.want(t, anyNumber, true)
		equal(t, "stable", repo+"@"+e.in(t, e.full).resolve(repo+":stable"), ref)
	})
	e.step(t, "cp", func(t *testing.T) { e.testCopy(t, repo, ref) })
	e.step(t, "inspect", func(t *testing.T) {
		text := e.in(t, e.full).run(e.galley, "inspect", repo+":v1")
		for _, want := range []string{"RandomForestClassifier", "test_metrics.test_roc_auc", e2eModel, "galley pull " + ref} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	})
	e.step(t, "uploads that are cut", func(t *testing.T) {
		registry, err := ocitest.Forward("http://" + e.registry)
		check(t, err)
		proxy := ocitest.NewProxy(registry)
		server := httptest.NewServer(proxy)
		t.Cleanup(func() { proxy.Close(); server.Close() })
		proxy.Inject(ocitest.Rule{Method: "PUT", Kind: ocitest.Uploads, Times: 3, Mishap: ocitest.Cut(ocitest.Up, ocitest.Half)},
			ocitest.Rule{Method: "PUT", Kind: ocitest.Uploads, Skip: 3, Times: 1, Mishap: ocitest.Cut(ocitest.Down, 0)})
		sh := e.in(t, copyOf(t, e.full))
		noise := make([]byte, 70_000_000) // as large as what would go on elsewhere
		rand.NewChaCha8([32]byte{}).Read(noise)
		check(t, os.WriteFile(filepath.Join(sh.dir, "rows.bin"), noise, 0o666))
		ref := strings.TrimPrefix(server.URL, "http://") + "/" + repositoryName(t) + ":v1"
		files := append(everyday(), "rows.bin")
		o := sh.outcome("", append([]string{e.galley, "push", ref}, append(everyday(), "rows.bin:dataset")...)...)
		o.want(t, 0, "; again in ")
		for _, request := range proxy.Requests() {
			if strings.HasPrefix(request, "PATCH ") {
				t.Errorf("%s: this registry does not go on with what was cut", request)
			}
		}
		out := t.TempDir()
		sh.run(e.galley, "pull", ref, "-o", out)
		sameFiles(t, sh.dir, out, files)
	})
	e.step(t, "version tags stay, others move", func(t *testing.T) {
		next := e.in(t, e.next)
		next.refused(5, []string{"galley: hint: "}, "push", repo+":v1")
		p := next.push(repo + ":candidate")
		equal(t, "candidate", next.resolve(repo+":candidate"), p.Digest)
		equal(t, "v1", repo+"@"+next.resolve(repo+":v1"), ref)
	})
}

// testCopy copies to another repository, to a layout, and from there.
func (e *e2e) testCopy(t *testing.T, repo, ref string) {
	sh := e.in(t, t.TempDir())
	_, digest, _ := strings.Cut(ref, "@")
	layout, other := "oci:"+t.TempDir()+"/layout", repo+"/other"
	equal(t, "to a repository", sh.run(e.galley, "cp", repo+":v1", other+":v1"), other+"@"+digest+"\n")
	sh.run(e.galley, "cp", ref, layout+":outbox")
	sh.run(e.galley, "cp", layout+":outbox", other+":v2")
	equal(t, "from a layout", sh.resolve(other+":v2"), digest)
	sh.run(e.oras, "pull", "--plain-http", other+":v2")
	sameFiles(t, e.full, sh.dir, everyday())
}

// testGit pushes the same model from a later commit.
func (e *e2e) testGit(t *testing.T) {
	e.step(t, "the same model from a later commit", func(t *testing.T) {
		r := countRequests(t, e.registry)
		ref := r.host + "/" + repositoryName(t) + ":candidate"
		sh := e.in(t, copyOf(t, e.full))
		commit := func(text string) {
			t.Helper()
			check(t, os.WriteFile(filepath.Join(sh.dir, "README.md"), []byte(text), 0o666))
			sh.run("git", "add", ".")
			sh.run("git", "commit", "-q", "-m", text)
		}
		sh.run("git", "init", "-q")
		commit("first")
		want := sh.run(e.galley, "push", ref)
		r.want(t, anyNumber, true)
		commit("second")
		o := sh.outcome("", e.galley, "push", ref)
		o.want(t, 0, "unchanged since")
		equal(t, "the answer", o.stdout, want)
		r.want(t, 2, false)
	})
}
