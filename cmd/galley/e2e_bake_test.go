//go:build e2e

package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// e2eBakeSteps is how many steps TestE2EBake has.
const e2eBakeSteps = 35

// TestE2EBake bakes a real model into images of a real Python, and has a Docker
// Engine run them. What counts is what the service in them says: the
// probabilities that Python computed at training, to the last digit.
func TestE2EBake(t *testing.T) {
	b := preparedBake(t)
	t.Run("service", b.testService)
	t.Run("formats", b.testFormats)
	t.Run("traffic", b.testTraffic)
	t.Run("owners", b.testOwners)
	t.Run("Dockerfiles", b.testDockerfiles)
	t.Run("platforms", b.testPlatforms)
	t.Run("runtime", b.testRuntime)
	t.Run("files", b.testFiles)
	t.Run("speed", b.testSpeed)
	b.counted(t, e2eBakeSteps)
}

// bakery is what run.sh prepared for baking, and what all tests bake.
type bakery struct {
	*e2e
	registry           string // HOST:PORT of the registry that has the Python image
	pythonImage        string
	host, config       string // of docker: its Engine and its configuration
	buildKit           string // the address of one that reads layouts
	service            string // a project
	expected           string // what its model predicted at training, as JSON
	small, large       string // projects of 10 MB and 1 GiB
	storage            string // Buildah's storage driver
	home               string // of everybody: what was seen of the bases is kept there
	store              string // of Buildah
	base, model, baked string // references
}

// trained is what service.py keeps.
type trained struct {
	Versions     map[string]string
	Transactions []struct {
		Features    json.RawMessage
		Probability json.Number
	}
}

func preparedBake(t *testing.T) *bakery {
	b := &bakery{e2e: prepared(t)}
	var service string
	for name, p := range map[string]*string{
		"BAKE_REGISTRY": &b.registry, "PYTHON_IMAGE": &b.pythonImage, "BUILDKIT": &b.buildKit,
		"BAKE_DOCKER_HOST": &b.host, "DOCKER_CONFIG": &b.config,
		"STORAGE": &b.storage, "SERVICE": &service, "SMALL": &b.small, "LARGE": &b.large,
	} {
		if *p = os.Getenv("GALLEY_E2E_" + name); *p == "" {
			t.Errorf("GALLEY_E2E_%s is not set; run sh testdata/e2e/run.sh", name)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	b.home, b.store = t.TempDir(), t.TempDir()
	t.Cleanup(func() { _ = exec.Command("umount", b.store+"/root/overlay").Run() }) // where that is mounted
	b.service = filepath.Join(service, "project")
	expected, err := os.ReadFile(filepath.Join(service, "expected.json"))
	check(t, err)
	b.expected = string(expected)

	b.base, b.model, b.baked = b.registry+"/fraud-base:1", b.registry+"/fraud:v1", b.registry+"/fraud-api:v1"
	sh := b.in(t, fraudDir(t))
	sh.build(b.base, "--build-arg", "PYTHON="+b.pythonImage, ".")
	sh.run("docker", "push", "--quiet", b.base)
	b.in(t, b.service).push(b.model)
	return b
}

// in is a shell whose docker is the Engine that run.sh started for this, and
// whose home is kept, with what galley has seen of bases.
func (b *bakery) in(t *testing.T, dir string, env ...string) *shell {
	return b.e2e.in(t, dir, append([]string{"HOME=" + b.home, "DOCKER_HOST=" + b.host, "DOCKER_CONFIG=" + b.config}, env...)...)
}

// fraudDir is the example project.
func fraudDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../testdata/fraud")
	check(t, err)
	return dir
}

// build makes an image for the Engine, by its own BuildKit unless told otherwise.
func (s *shell) build(tag string, args ...string) {
	s.Helper()
	s.run(append([]string{"docker", "buildx", "build", "--quiet", "--tag", tag}, args...)...)
}

// derive makes an image by a Dockerfile that needs no files, and pushes it.
func (b *bakery) derive(t *testing.T, tag string, lines ...string) {
	t.Helper()
	sh := b.in(t, t.TempDir())
	check(t, os.WriteFile(filepath.Join(sh.dir, "Dockerfile"), []byte("FROM "+b.base+"\n"+strings.Join(lines, "\n")+"\n"), 0o666))
	sh.build(tag, "--network", "none", ".")
	sh.run("docker", "push", "--quiet", tag)
}

// bakedAs is the answer of galley bake --format json, as far as anybody here asks.
type bakedAs struct {
	Reference, Digest string
	Models            []struct{ Digest, Path string }
	BuildContext      string
	Runtime           []struct{ Platform string }
	Blobs             []struct {
		Digest, What, State string
		Size                int64
	}
}

func (s *shell) bake(args ...string) bakedAs {
	s.Helper()
	return answerOf[bakedAs](s, "bake", args...)
}

// answers is what ask.py prints.
type answers struct {
	User   int
	Health struct {
		Model    struct{ Path, Digest, Class string }
		Features int
		Versions map[string]string
	}
	Probabilities []string
	Refused       map[string]string
}

// serves runs the image and fails unless its service, as that user, says what
// Python said at training. The container has no network: whoever asks is inside.
func (b *bakery) serves(t *testing.T, image, model string, user int) {
	t.Helper()
	sh := b.in(t, t.TempDir())
	id := strings.TrimSpace(sh.run("docker", "run", "--detach", "--network", "none", image))
	defer func() {
		if t.Failed() {
			logs := sh.outcome("", "docker", "logs", id)
			t.Logf("%s%s", logs.stdout, logs.stderr)
		}
		sh.run("docker", "rm", "--force", id)
	}()
	script, err := os.ReadFile(helper(t, "ask.py"))
	check(t, err)
	var got answers
	text := sh.feed(b.expected, "docker", "exec", "--interactive", id, "python3", "-c", string(script))
	check(t, json.Unmarshal([]byte(text), &got))

	var want trained
	check(t, json.Unmarshal([]byte(b.expected), &want))
	if len(got.Probabilities) < 50 || len(got.Probabilities) != len(want.Transactions) {
		t.Fatalf("%d probabilities of %d transactions", len(got.Probabilities), len(want.Transactions))
	}
	for n, w := range want.Transactions {
		equal(t, fmt.Sprintf("probability %d", n), got.Probabilities[n], w.Probability.String())
	}
	if !maps.Equal(got.Health.Versions, want.Versions) {
		t.Errorf("the service has %v; the model was trained with %v", got.Health.Versions, want.Versions)
	}
	if got.User != user {
		t.Errorf("the service is user %d; want %d", got.User, user)
	}
	equal(t, "path", got.Health.Model.Path, model)
	equal(t, "class", got.Health.Model.Class, "RandomForestClassifier")
	equal(t, "digest", got.Health.Model.Digest, "sha256:"+sum(t, filepath.Join(b.service, e2eModel)))
	for what, says := range map[string]string{"missing": "422 missing: amount", "unknown": "422 unknown: colour", "order": "422 order: feature 0 is "} {
		if !strings.HasPrefix(got.Refused[what], says) {
			t.Errorf("features with one %s: %q; want %q", what, got.Refused[what], says)
		}
	}
}

// imageDocument is a manifest or an index.
type imageDocument struct {
	MediaType         string
	Config            descriptor
	Layers, Manifests []struct {
		descriptor
		Platform struct{ Architecture string }
	}
}

func (b *bakery) document(t *testing.T, ref string) imageDocument {
	t.Helper()
	var d imageDocument
	check(t, json.Unmarshal([]byte(b.in(t, t.TempDir()).run(b.crane, "manifest", ref)), &d))
	return d
}

func (d imageDocument) layers() []string {
	var all []string
	for _, l := range d.Layers {
		all = append(all, l.Digest)
	}
	return all
}

// hasLayers fails unless the image has the base's layers first, and the model's.
func (b *bakery) hasLayers(t *testing.T, image, base, model string) {
	t.Helper()
	got, want := b.document(t, image).layers(), b.document(t, base).layers()
	shared := b.document(t, model).layers()[0]
	if len(want) == 0 || len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Errorf("layers\n%s\nwant to begin with\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.Contains(got, shared) {
		t.Errorf("layers\n%s\nwithout the artifact's %s", strings.Join(got, "\n"), shared)
	}
}

const (
	appModel = "/app/" + e2eModel
	root     = 0 // the user
)

// testService bakes, runs, and has other tools look at the image.
func (b *bakery) testService(t *testing.T) {
	b.step(t, "bake", func(t *testing.T) {
		a := b.in(t, t.TempDir()).bake(b.model, "--base", b.base, "--tag", b.baked)
		equal(t, "the model's path", a.Models[0].Path, appModel)
		equal(t, "the model's artifact", a.Models[0].Digest, b.in(t, t.TempDir()).resolve(b.model))
		b.hasLayers(t, b.baked, b.base, b.model)
	})
	b.step(t, "docker run", func(t *testing.T) { b.serves(t, b.baked, appModel, root) })
	b.step(t, "galley verify", func(t *testing.T) { b.in(t, t.TempDir()).run(b.galley, "verify", b.baked) })
	b.step(t, "docker pull", func(t *testing.T) {
		sh := b.in(t, t.TempDir())
		sh.run("docker", "rmi", b.baked)
		sh.run("docker", "pull", "--quiet", b.baked)
		digests := sh.run("docker", "image", "inspect", "--format", "{{.RepoDigests}}", b.baked)
		if digest := sh.resolve(b.baked); !strings.Contains(digests, digest) {
			t.Errorf("docker has %s; want %s", digests, digest)
		}
	})
	b.step(t, "skopeo inspect", func(t *testing.T) {
		var got struct {
			Digest string
			Layers []string
			Env    []string
		}
		sh := b.in(t, t.TempDir())
		check(t, json.Unmarshal([]byte(sh.run(b.skopeo, "inspect", "--tls-verify=false", "docker://"+b.baked)), &got))
		equal(t, "digest", got.Digest, sh.resolve(b.baked))
		if want := b.document(t, b.baked).layers(); !slices.Equal(got.Layers, want) {
			t.Errorf("layers %s; want %s", got.Layers, want)
		}
		for _, variable := range []string{"GALLEY_MODEL=" + appModel, "GALLEY_MODEL_DIR=" + path.Dir(appModel)} {
			if !slices.Contains(got.Env, variable) {
				t.Errorf("environment %s without %s", got.Env, variable)
			}
		}
	})
	b.step(t, "crane validate", func(t *testing.T) { b.in(t, t.TempDir()).run(b.crane, "validate", "--remote", b.baked) })
	b.step(t, "buildah commit", func(t *testing.T) {
		committed := b.registry + "/fraud-api:committed"
		container := b.buildah(t, "from", "--isolation", "chroot", "--tls-verify=false", b.baked)
		b.buildah(t, "config", "--label", "team=fraud", container)
		b.buildah(t, "commit", "--tls-verify=false", "--quiet", container, "docker://"+committed)
		b.buildah(t, "rm", container)
		b.in(t, t.TempDir()).run(b.galley, "verify", committed)
		b.serves(t, committed, appModel, root)
	})
}

// buildah runs Buildah, whose images are kept as long as the test.
func (b *bakery) buildah(t *testing.T, args ...string) string {
	t.Helper()
	flags := []string{b.e2e.buildah, "--root", b.store + "/root", "--runroot", b.store + "/run", "--storage-driver", b.storage}
	return strings.TrimSpace(b.in(t, t.TempDir()).run(append(flags, args...)...))
}

// testFormats bakes into images of both families, and models packed otherwise.
func (b *bakery) testFormats(t *testing.T) {
	repo := b.registry + "/formats"
	b.in(t, t.TempDir()).run(b.skopeo, "copy", "--quiet", "--format", "oci", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+b.base, "docker://"+repo+":oci")
	for name, f := range map[string]struct{ base, tag, prefix string }{
		"Docker's types": {b.base, "docker-v1", "application/vnd.docker."},
		"OCI types":      {repo + ":oci", "oci-v1", "application/vnd.oci."},
	} {
		b.step(t, name, func(t *testing.T) {
			image := repo + ":" + f.tag
			b.in(t, t.TempDir()).bake(b.model, "--base", f.base, "--tag", image)
			b.hasLayers(t, image, f.base, b.model)
			d := b.document(t, image)
			types := []string{d.MediaType, d.Config.MediaType}
			for _, l := range d.Layers {
				types = append(types, l.MediaType)
			}
			for _, got := range types {
				if !strings.HasPrefix(got, f.prefix) {
					t.Errorf("media types %s; want all of them %s*", types, f.prefix)
				}
			}
			b.serves(t, image, appModel, root)
		})
	}
	for _, format := range []string{"tar", "raw"} {
		b.step(t, format, func(t *testing.T) {
			model, image := repo+"/"+format+":model", repo+"/"+format+":v1"
			b.in(t, b.service).push("--layer-format", format, model)
			b.in(t, t.TempDir()).bake(model, "--base", b.base, "--tag", image)
			b.in(t, t.TempDir()).run(b.galley, "verify", image)
			b.serves(t, image, appModel, root)
		})
	}
	b.step(t, "copied", func(t *testing.T) {
		image := repo + ":copied"
		b.in(t, t.TempDir()).bake(b.model, "--base", b.base, "--tag", image, "--copy", "--chown", "1000:1000", "--chmod", "0440", "--user", "1000:1000")
		b.in(t, t.TempDir()).run(b.galley, "verify", image)
		equal(t, "the model", b.dockerTree(t, image)[strings.TrimPrefix(appModel, "/")], "f 1000:1000 440 ")
		b.serves(t, image, appModel, 1000)
	})
}

// traffic is a registry seen through a proxy that weighs.
type traffic struct {
	host string
	mu   sync.Mutex
	log  []exchange
}

// exchange is a request, with the bytes of its body and of the answer's.
type exchange struct {
	method, path string // with the query
	up, down     int64
}

func weigh(t *testing.T, registry string) *traffic {
	r := &traffic{}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(&url.URL{Scheme: "http", Host: registry})
		p.Out.Host = p.In.Host // so that uploads come back through here
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		x := exchange{method: q.Method, path: q.URL.RequestURI()}
		q.Body = &weighedBody{q.Body, &x.up}
		proxy.ServeHTTP(&weighedWriter{w, &x.down}, q)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.log = append(r.log, x)
	}))
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

type weighedBody struct {
	io.ReadCloser
	n *int64
}

func (b *weighedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	*b.n += int64(n)
	return n, err
}

type weighedWriter struct {
	http.ResponseWriter
	n *int64
}

func (w *weighedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	*w.n += int64(n)
	return n, err
}

func (w *weighedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// through names a reference of the registry by the proxy.
func (b *bakery) through(r *traffic, ref string) string {
	return r.host + strings.TrimPrefix(ref, b.registry)
}

// take returns what was exchanged since the last call.
func (r *traffic) take(t *testing.T) (log []exchange, up, down int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	log, r.log = r.log, nil
	for _, x := range log {
		up, down = up+x.up, down+x.down
	}
	return log, up, down
}

// moved fails unless none of the layers was uploaded, nor, unless downloads,
// downloaded.
func moved(t *testing.T, log []exchange, layers []string, downloads bool) {
	t.Helper()
	if len(log) == 0 || len(layers) == 0 {
		t.Fatalf("%d requests, %d layers", len(log), len(layers))
	}
	for _, x := range log {
		for _, l := range layers {
			uploaded := x.method != http.MethodPost && strings.Contains(x.path, "/uploads/") && strings.Contains(x.path, url.QueryEscape(l))
			downloaded := x.method == http.MethodGet && strings.HasSuffix(x.path, "/blobs/"+l)
			if uploaded || downloaded && !downloads {
				t.Errorf("%s %s moves a layer: %d bytes up, %d down", x.method, x.path, x.up, x.down)
			}
		}
	}
}

// few is more than the documents of an image and bake's own layer have.
const few = 64 << 10

// testTraffic bakes through a proxy: nothing of the base or the model may move
// but what the look at the base reads.
func (b *bakery) testTraffic(t *testing.T) {
	r := weigh(t, b.registry)
	base, model, tag := b.through(r, b.base), b.through(r, b.model), r.host+"/traffic"
	layers := append(b.document(t, b.base).layers(), b.document(t, b.model).layers()[0])
	home := "HOME=" + t.TempDir() // in which nothing is known of the base
	var digest string
	b.step(t, "base not yet seen", func(t *testing.T) {
		digest = b.in(t, t.TempDir(), home).bake(model, "--base", base, "--tag", tag+"/api:candidate").Digest
		log, up, down := r.take(t)
		moved(t, log, layers, true)
		moved(t, log, b.document(t, b.model).layers()[:1], false)
		t.Logf("%d requests, %d bytes up, %d down", len(log), up, down)
		if up > few {
			t.Errorf("%d bytes up", up)
		}
		b.hasLayers(t, b.registry+"/traffic/api:candidate", b.base, b.model)
	})
	for _, f := range []struct {
		name, tag string
		args      []string
	}{
		{"base seen, nothing new", "api:candidate", []string{home}},
		{"base seen, another repository", "other:v1", []string{home}},
		{"base seen, dry run", "dry:v1", []string{home, "--dry-run"}},
		{"base seen by another machine", "api:v2", []string{"HOME=" + t.TempDir()}},
	} {
		b.step(t, f.name, func(t *testing.T) {
			args := append([]string{model, "--base", base, "--tag", tag + "/" + f.tag}, f.args[1:]...)
			equal(t, "digest", b.in(t, t.TempDir(), f.args[0]).bake(args...).Digest, digest)
			log, up, down := r.take(t)
			moved(t, log, layers, false)
			t.Logf("%d requests, %d bytes up, %d down", len(log), up, down)
			if up > few || down > few {
				t.Errorf("%d bytes up, %d down; want fewer than %d", up, down, few)
			}
		})
	}
}

// testOwners bakes into bases whose directories are not as root makes them.
func (b *bakery) testOwners(t *testing.T) {
	for name, base := range map[string]struct {
		lines []string
		model string
	}{
		"directory of a user": {[]string{
			"RUN mkdir -m 0700 data && chown -R 1000:1000 . && chmod 0750 .",
		}, appModel},
		"models of the app a link": {[]string{
			"RUN mkdir -m 0750 /srv/models && chown 1000:1000 . /srv/models && chmod 0750 . && ln -s ../srv/models models",
		}, appModel},
		"models a link": {[]string{
			"RUN mkdir -m 0750 /srv/weights && chown 1000:1000 . /srv/weights && chmod 0750 . && ln -s srv/weights /models",
		}, appModel},
	} {
		repo := b.registry + "/owners/" + strings.ReplaceAll(name, " ", "-")
		from, baked := repo+":base", repo+":v1"
		b.derive(t, from, append(base.lines, "USER 1000:1000")...)
		b.step(t, name+", docker", func(t *testing.T) {
			a := b.in(t, t.TempDir()).bake(b.model, "--base", from, "--tag", baked)
			b.in(t, t.TempDir()).run(b.galley, "verify", baked)
			tree := b.dockerTree(t, from)
			equal(t, "/app of the base", tree["app"], "d 1000:1000 750 ")
			sameTree(t, tree, b.dockerTree(t, baked))
			b.serves(t, baked, a.Models[0].Path, 1000)
		})
		b.step(t, name+", buildah", func(t *testing.T) {
			sameTree(t, b.buildahTree(t, from), b.buildahTree(t, baked))
		})
	}
}

// find prints everything below a directory: what it is, whose, and where it leads.
func find(dir string) []string {
	return []string{"find", dir, "-xdev", "-printf", `%P\t%y %U:%G %m %l\n`}
}

// found reads what find printed, but for what belongs to the engine.
func found(text string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(text) {
		name, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		top, _, _ := strings.Cut(name, "/")
		switch {
		case top == "dev", top == "proc", top == "sys", name == ".dockerenv",
			slices.Contains([]string{"etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"}, name):
		default:
			m[name] = what
		}
	}
	return m
}

func (b *bakery) dockerTree(t *testing.T, image string) map[string]string {
	t.Helper()
	args := append([]string{"docker", "run", "--rm", "--network", "none", "--user", "0", image}, find("/")...)
	return found(b.in(t, t.TempDir()).run(args...))
}

func (b *bakery) buildahTree(t *testing.T, image string) map[string]string {
	t.Helper()
	container := b.buildah(t, "from", "--isolation", "chroot", "--tls-verify=false", image)
	defer b.buildah(t, "rm", container)
	dir := b.buildah(t, "mount", container)
	defer b.buildah(t, "umount", container)
	return found(b.in(t, t.TempDir()).run(find(dir)...))
}

// sameTree fails unless everything in the base is in the image as it was, and
// nothing is new there but the model's files.
func sameTree(t *testing.T, base, image map[string]string) {
	t.Helper()
	if len(base) < 1000 {
		t.Fatalf("%d files in the base", len(base))
	}
	for name, what := range base {
		if image[name] != what {
			t.Errorf("/%s is %q; in the base it is %q", name, image[name], what)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(image)) {
		if _, old := base[name]; !old {
			t.Logf("new: /%s %s", name, image[name])
			if !strings.Contains("/"+name+"/", "/models/") && !strings.Contains("/"+name+"/", "/data/") && !strings.HasPrefix(name, "srv/") {
				t.Errorf("/%s is new", name)
			}
		}
	}
}

// testDockerfiles goes the three ways into a docker build.
func (b *bakery) testDockerfiles(t *testing.T) {
	const model = "models/random_forest_final_model.joblib" // below the working directory
	sh := b.in(t, fraudDir(t))
	args := func(name string, more ...string) []string {
		return append([]string{"--file", name, "--build-arg", "PYTHON=" + b.pythonImage}, append(more, ".")...)
	}
	b.step(t, "COPY --from", func(t *testing.T) {
		sh.T = t
		data := sh.bake(b.model, "--base", "scratch", "--tag", b.registry+"/fraud-model:v1")
		b.hasModel(t, data.Reference)
		image := b.registry + "/dockerfile:copy"
		sh.build(image, args("Dockerfile.copy", "--build-arg", "MODEL="+data.Reference)...)
		b.serves(t, image, model, root)
	})
	b.step(t, "stage", func(t *testing.T) { b.testStage(t, args) })
	b.step(t, "layout", func(t *testing.T) {
		sh.T = t
		layout := filepath.Join(t.TempDir(), "model")
		context := sh.bake(b.model, "--base", "scratch", "--tag", "oci:"+layout+":v1").BuildContext
		if !strings.HasPrefix(context, "oci-layout://"+layout+":v1@sha256:") {
			t.Fatalf("build context %q", context)
		}
		image := b.registry + "/dockerfile:layout"
		sh.build(image, args("Dockerfile.layout", "--builder", b.layouts(t), "--load", "--build-context", "model="+context)...)
		b.serves(t, image, model, root)
	})
}

// layouts is a builder that knows named contexts and layouts.
func (b *bakery) layouts(t *testing.T) string {
	const name = "layouts"
	sh := b.in(t, t.TempDir())
	if sh.outcome("", "docker", "buildx", "inspect", name).code != 0 {
		sh.run("docker", "buildx", "create", "--name", name, "--driver", "remote", b.buildKit)
	}
	return name
}

// testStage pulls the model from a registry that wants credentials, in a stage
// from galley's own image.
func (b *bakery) testStage(t *testing.T, args func(string, ...string) []string) {
	files := t.TempDir() // in the place of the stage that compiles
	for name, from := range map[string]string{
		"out/usr/local/bin/galley":              b.galley,
		"out/etc/ssl/certs/ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt",
	} {
		data, err := os.ReadFile(from)
		check(t, err)
		check(t, os.MkdirAll(filepath.Join(files, path.Dir(name)), 0o777))
		check(t, os.WriteFile(filepath.Join(files, name), data, 0o777))
	}
	for _, dir := range []string{"out/artifact", "out/tmp"} {
		check(t, os.Mkdir(filepath.Join(files, dir), 0o777))
	}
	own := b.registry + "/galley:test"
	sh := b.in(t, t.TempDir())
	sh.build(own, "--builder", b.layouts(t), "--load", "--build-context", "build="+files, "--file", helper(t, "../../Dockerfile"), ".")

	model := b.private + "/fraud"
	config := filepath.Join(sh.dir, "registry.json")
	check(t, os.WriteFile(config, fmt.Appendf(nil, `{"auths": {%q: {"auth": %q}}}`, b.private, base64.StdEncoding.EncodeToString([]byte(b.user+":"+b.password))), 0o600))
	pinned := b.in(t, b.service).push("--registry-config", config, model+":v1,candidate").Reference

	fraud := b.in(t, fraudDir(t))
	secret := []string{"--network", "host", "--secret", "id=registry,src=" + config}
	image := b.registry + "/dockerfile:stage"
	with := func(model string, more ...string) []string {
		return args("Dockerfile.stage", append(more, "--build-arg", "GALLEY="+own, "--build-arg", "MODEL="+model)...)
	}
	fraud.build(image, with(pinned, secret...)...)
	b.serves(t, image, "models/"+path.Base(e2eModel), root)
	if history := fraud.run("docker", "history", "--no-trunc", image) + fraud.run("docker", "inspect", image); strings.Contains(history, b.password) {
		t.Errorf("the password is in\n%s", history)
	}

	build := []string{"docker", "buildx", "build", "--progress", "plain"}
	moving := model + ":candidate"
	fraud.outcome("", append(build, with(moving, secret...)...)...).want(t, 0,
		"warning: "+moving+" moves", "hint: ARG MODEL="+moving+"@"+pinned[strings.IndexByte(pinned, '@')+1:])
	if o := fraud.outcome("", append(build, with(pinned, "--no-cache")...)...); o.code == 0 {
		t.Error("a build without the secret succeeds")
	}
}

// hasModel fails unless every image of the index has the model's layer.
func (b *bakery) hasModel(t *testing.T, ref string) {
	t.Helper()
	repo, _, _ := strings.Cut(ref, "@")
	shared := b.document(t, b.model).layers()[0]
	var architectures []string
	for _, m := range b.document(t, ref).Manifests {
		architectures = append(architectures, m.Platform.Architecture)
		if layers := b.document(t, repo+"@"+m.Digest).layers(); !slices.Contains(layers, shared) {
			t.Errorf("%s has layers %s without %s", m.Platform.Architecture, layers, shared)
		}
	}
	slices.Sort(architectures)
	if !slices.Equal(architectures, []string{"amd64", "arm64"}) {
		t.Errorf("images for %s; want amd64 and arm64", architectures)
	}
}

// testPlatforms bakes into a base for two architectures.
func (b *bakery) testPlatforms(t *testing.T) {
	sh := b.in(t, t.TempDir())
	repo := b.registry + "/platforms"
	arm := repo + ":arm64"
	check(t, os.WriteFile(filepath.Join(sh.dir, "architecture"), []byte("arm64\n"), 0o666))
	sh.run("tar", "-cf", "arm64.tar", "architecture")
	sh.run(b.crane, "append", "--base", b.base, "--new_layer", "arm64.tar", "--new_tag", arm)
	sh.run(b.crane, "mutate", "--set-platform", "linux/arm64", "--tag", arm, arm)
	sh.run(b.crane, "index", "append", "--manifest", b.base, "--manifest", arm, "--tag", repo+":base")
	b.step(t, "both", func(t *testing.T) {
		a := b.in(t, t.TempDir()).bake(b.model, "--base", repo+":base", "--tag", repo+":v1")
		b.hasModel(t, a.Reference)
		b.in(t, t.TempDir()).run(b.galley, "verify", repo+":v1")
		b.in(t, t.TempDir()).run(b.crane, "validate", "--fast", "--remote", repo+":v1")
		b.serves(t, repo+":v1", appModel, root)
	})
	b.step(t, "the other", func(t *testing.T) {
		sh.T = t
		sh.run("docker", "pull", "--quiet", "--platform", "linux/arm64", repo+":v1")
		id := strings.TrimSpace(sh.run("docker", "create", "--platform", "linux/arm64", repo+":v1"))
		sh.run("docker", "cp", id+":/architecture", "copied")
		sh.run("docker", "cp", "--follow-link", id+":"+appModel, "model")
		sh.run("docker", "rm", id)
		equal(t, "architecture", sh.run("docker", "image", "inspect", "--format", "{{.Architecture}}", repo+":v1"), "arm64\n")
		equal(t, "its own layer", sum(t, filepath.Join(sh.dir, "copied")), sum(t, filepath.Join(sh.dir, "architecture")))
		equal(t, "the model", sum(t, filepath.Join(sh.dir, "model")), sum(t, filepath.Join(b.service, e2eModel)))
	})
	b.step(t, "one of them", func(t *testing.T) {
		b.in(t, t.TempDir()).bake(b.model, "--base", repo+":base", "--platform", "linux/amd64", "--tag", repo+":v2")
		b.hasLayers(t, repo+":v2", b.base, b.model)
	})
}

// testRuntime bakes into a base that has another scikit-learn.
func (b *bakery) testRuntime(t *testing.T) {
	other := b.registry + "/runtime:base"
	b.derive(t, other, `RUN cd /usr/lib/python3/dist-packages && mv scikit_learn-1.2.1.egg-info scikit_learn-1.3.2.egg-info && `+
		`find scikit_learn-1.3.2.egg-info -name PKG-INFO -exec sed -i 's/^Version: .*/Version: 1.3.2/' {} +`)
	r := weigh(t, b.registry)
	b.step(t, "another minor version", func(t *testing.T) {
		sh := b.in(t, t.TempDir())
		sh.refused(3, []string{"1.3.2", "1.2.1"}, "bake", b.through(r, b.model), "--base", b.through(r, other), "--tag", r.host+"/runtime:v1")
		log, up, _ := r.take(t)
		for _, x := range log {
			if x.method != http.MethodGet && x.method != http.MethodHead {
				t.Errorf("%s %s", x.method, x.path)
			}
		}
		if len(log) == 0 || up > 0 {
			t.Errorf("%d requests, %d bytes up", len(log), up)
		}
	})
	b.step(t, "allowed", func(t *testing.T) {
		b.in(t, t.TempDir()).bake(b.model, "--base", other, "--tag", b.registry+"/runtime:v1", "--allow-mismatch=runtime")
	})
}

// testFiles bakes from and into files of docker save.
func (b *bakery) testFiles(t *testing.T) {
	sh := b.in(t, t.TempDir())
	b.step(t, "docker load", func(t *testing.T) {
		sh.T = t
		sh.bake(b.model, "--base", b.base, "--output", "app.tar", "--tag", "fraud-api:file")
		sh.run("docker", "load", "--quiet", "--input", "app.tar")
		b.serves(t, "fraud-api:file", appModel, root)
	})
	b.step(t, "docker save", func(t *testing.T) {
		sh.T = t
		sh.run("docker", "save", "--output", "base.tar", b.base)
		sh.run("sh", "-c", `"$0" bake "$1" --base - --output - --tag fraud-api:piped <base.tar | docker load --quiet`, b.galley, b.model)
		b.serves(t, "fraud-api:piped", appModel, root)
	})
}

// oneSize is what testSpeed bakes, appends and builds.
type oneSize struct {
	*shell
	name, project, model, to string
	took                     map[string][]time.Duration // by program
}

// testSpeed compares galley bake with what people do instead.
func (b *bakery) testSpeed(t *testing.T) {
	small, large := b.sized(t, "10 MB", b.small), b.sized(t, "1 GiB", b.large)
	for range 9 { // in turns: what else the machine does meets both
		b.measure(small, "galley")
		b.measure(large, "galley")
	}
	for _, program := range []string{"crane", "docker"} {
		for range 3 {
			b.measure(small, program)
		}
		b.measure(large, program)
	}
	for _, s := range []*oneSize{small, large} {
		for _, program := range []string{"galley", "crane", "docker"} {
			t.Logf("%s: %-6s %8.3f s, %6.1f times galley", s.name, program, s.median(program).Seconds(), s.ratio(program))
		}
		r := weigh(t, b.registry)
		to := b.through(r, s.to) + ":weighed"
		s.run(b.galley, "bake", b.through(r, s.model), "--base", b.through(r, b.base), "--tag", to)
		log, up, down := r.take(t)
		t.Logf("%s: galley %d requests, %d bytes up, %d down", s.name, len(log), up, down)
	}
	b.step(t, "against others", func(t *testing.T) {
		for _, program := range []string{"crane", "docker"} {
			if ratio := large.ratio(program); ratio < 50 {
				t.Errorf("with %s %s take %.1f times as long as with galley; want 50", program, large.name, ratio)
			}
		}
	})
	b.step(t, "whatever the model weighs", func(t *testing.T) {
		const noise = 10 * time.Millisecond
		if l, s := large.median("galley"), small.median("galley"); l > s*3/2+noise {
			t.Errorf("%v for %s, %v for %s", l, large.name, s, small.name)
		}
	})
}

// sized pushes a model and prepares what the others need.
func (b *bakery) sized(t *testing.T, name, project string) *oneSize {
	to := b.registry + "/speed/" + strings.ToLower(strings.ReplaceAll(name, " ", ""))
	s := &oneSize{b.in(t, t.TempDir()), name, project, to + ":model", to, make(map[string][]time.Duration)}
	b.in(t, project).push(s.model)
	s.run("tar", "-C", project, "-cf", "layer.tar", "models")
	check(t, os.WriteFile(filepath.Join(s.dir, "Dockerfile"), []byte("FROM "+b.base+"\nCOPY models/ ./models/\n"), 0o666))
	return s
}

// measure puts the model into an image, in a repository that is new.
func (b *bakery) measure(s *oneSize, program string) {
	s.Helper()
	to := fmt.Sprintf("%s/%s-%d:v1", s.to, program, len(s.took[program]))
	start := time.Now()
	switch program {
	case "galley":
		s.run(b.galley, "bake", s.model, "--base", b.base, "--tag", to)
	case "crane":
		s.run(b.crane, "append", "--base", b.base, "--new_layer", "layer.tar", "--new_tag", to)
	case "docker":
		s.build(to, "--no-cache", "--file", "Dockerfile", s.project)
		s.run("docker", "push", "--quiet", to)
	}
	s.took[program] = append(s.took[program], time.Since(start))
}

func (s *oneSize) median(program string) time.Duration {
	all := slices.Sorted(slices.Values(s.took[program]))
	return all[len(all)/2]
}

func (s *oneSize) ratio(program string) float64 {
	return s.median(program).Seconds() / s.median("galley").Seconds()
}
