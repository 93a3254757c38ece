//go:build e2e

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// descriptor is what a manifest says of a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// modelLayer returns the repository that ref, a tag in the open registry, lies
// in, the first layer of its artifact and the digest of the layer's tar.
func (e *e2e) modelLayer(t *testing.T, ref string) (repo string, layer descriptor, diffID string) {
	t.Helper()
	repo, tag := ref[:strings.LastIndexByte(ref, ':')], ref[strings.LastIndexByte(ref, ':')+1:]
	var m struct {
		Config descriptor
		Layers []descriptor
	}
	var config struct {
		ModelFS struct {
			DiffIDs []string `json:"diffIds"`
		} `json:"modelfs"`
	}
	e.fetchJSON(t, repo, "manifests/"+tag, &m)
	e.fetchJSON(t, repo, "blobs/"+m.Config.Digest, &config)
	if len(m.Layers) == 0 || len(config.ModelFS.DiffIDs) != len(m.Layers) {
		t.Fatalf("%s: %d layers, %d diffIDs", ref, len(m.Layers), len(config.ModelFS.DiffIDs))
	}
	return repo, m.Layers[0], config.ModelFS.DiffIDs[0]
}

func (e *e2e) fetchJSON(t *testing.T, repo, what string, v any) {
	t.Helper()
	resp := e.request(t, http.MethodGet, api(repo, what), "", nil)
	check(t, json.Unmarshal(resp, v))
}

// api is the URL of something in a repository.
func api(repo, what string) string {
	host, name, _ := strings.Cut(repo, "/")
	return "http://" + host + "/v2/" + name + "/" + what
}

func (e *e2e) request(t *testing.T, method, address, contentType string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(body))
	check(t, err)
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	check(t, err)
	if resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s\n%s", method, address, resp.Status, data)
	}
	if next, err := resp.Location(); method == http.MethodPost && err == nil {
		return []byte(next.String())
	}
	return data
}

// testFraming has every reader of gzip that is at hand read the model layer,
// and a container engine use it as the only layer of an image.
func (e *e2e) testFraming(t *testing.T) {
	ref := e.repository(t) + ":v1"
	e.in(t, e.full).push(ref)
	sums := sum(t, filepath.Join(e.full, e2eModel)) + "  " + e2eModel + "\n"
	repo, layer, diffID := e.modelLayer(t, ref)
	blob := filepath.Join(t.TempDir(), "layer")
	e.step(t, "one member", func(t *testing.T) {
		e.in(t, t.TempDir()).run(e.oras, "blob", "fetch", "--plain-http", "--output", blob, repo+"@"+layer.Digest)
		equal(t, "the blob", "sha256:"+sum(t, blob), layer.Digest)
		oneMember(t, blob, diffID)
	})
	for name, reader := range map[string][]string{
		"tarfile r:gz": {e.python, "read_tarfile.py", "r:gz"},
		"tarfile r|gz": {e.python, "read_tarfile.py", "r|gz"},
		"zlib":         {e.python, "read_zlib.py"},
		"Perl":         {"perl", "read.pl"},
		"Node":         {"node", "read.js"},
		"GNU tar":      {"sh", "read_gnutar.sh"},
	} {
		e.step(t, name, func(t *testing.T) {
			reader[1] = helper(t, "readers/"+reader[1])
			e.in(t, t.TempDir()).feed(sums, append(reader, blob)...)
		})
	}
	image := e.putImage(t, repo, layer, diffID)
	switch e.engine {
	case "docker":
		e.step(t, "Docker Engine", func(t *testing.T) { e.testDocker(t, image) })
	case "buildah":
		t.Log("NO DOCKER ENGINE: dockerd does not start here, so buildah reads the layer instead")
		e.step(t, "Buildah for want of Docker", func(t *testing.T) { e.testBuildah(t, image) })
	default:
		t.Errorf("GALLEY_E2E_ENGINE is %q; want docker or buildah", e.engine)
	}
}

// oneMember checks that the blob is one gzip member, that its tar is diffID's,
// and that the tar ends with two zero blocks and nothing else.
func oneMember(t *testing.T, blob, diffID string) {
	t.Helper()
	data, err := os.ReadFile(blob)
	check(t, err)
	source := bytes.NewReader(data)
	z, err := gzip.NewReader(source)
	check(t, err)
	z.Multistream(false)
	archive, err := io.ReadAll(z)
	check(t, err)
	if source.Len() > 0 {
		t.Errorf("%d bytes follow the gzip member", source.Len())
	}
	equal(t, "the tar", fmt.Sprintf("sha256:%x", sha256.Sum256(archive)), diffID)
	r := bytes.NewReader(archive)
	for tr := tar.NewReader(r); ; {
		if _, err := tr.Next(); errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
	}
	if r.Len() > 0 {
		t.Errorf("%d bytes follow the end of the tar", r.Len())
	}
}

// putImage makes an image whose only layer is the artifact's, and returns its
// reference.
func (e *e2e) putImage(t *testing.T, repo string, layer descriptor, diffID string) string {
	t.Helper()
	config := fmt.Appendf(nil, `{"architecture": %q, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [%q]}}`, runtime.GOARCH, diffID)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(config))
	upload, err := url.Parse(string(e.request(t, http.MethodPost, api(repo, "blobs/uploads/"), "", nil)))
	check(t, err)
	query := upload.Query()
	query.Set("digest", digest)
	upload.RawQuery = query.Encode()
	e.request(t, http.MethodPut, upload.String(), "application/octet-stream", config)

	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	m, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     manifestType,
		"config":        descriptor{"application/vnd.oci.image.config.v1+json", digest, int64(len(config)), nil},
		"layers":        []descriptor{{"application/vnd.oci.image.layer.v1.tar+gzip", layer.Digest, layer.Size, nil}},
	})
	check(t, err)
	e.request(t, http.MethodPut, api(repo, "manifests/image"), manifestType, m)
	return repo + ":image"
}

// testDocker looks into the image with a Docker Engine.
func (e *e2e) testDocker(t *testing.T, image string) {
	sh := e.in(t, t.TempDir(), "DOCKER_HOST="+e.dockerHost)
	t.Logf("Docker Engine %s", strings.TrimSpace(sh.run("docker", "version", "--format", "{{.Server.Version}}")))
	sh.run("docker", "pull", image)
	id := strings.TrimSpace(sh.run("docker", "create", image, "none"))
	sh.run("docker", "cp", id+":/models", "copied")
	sh.run("docker", "export", "--output", "image.tar", id)
	sh.run("docker", "rm", id)
	sh.run("docker", "rmi", image)
	sh.run("tar", "-xf", "image.tar", "models")
	want := sum(t, filepath.Join(e.full, e2eModel))
	equal(t, "docker cp", sum(t, filepath.Join(sh.dir, "copied", path.Base(e2eModel))), want)
	equal(t, "docker export", sum(t, filepath.Join(sh.dir, e2eModel)), want)
}

// testBuildah looks into the image with Buildah.
func (e *e2e) testBuildah(t *testing.T, image string) {
	sh := e.in(t, t.TempDir())
	container := sh.buildah("from", "--isolation", "chroot", "--tls-verify=false", image)
	root := sh.buildah("mount", container)
	equal(t, "buildah mount", sum(t, filepath.Join(root, e2eModel)), sum(t, filepath.Join(e.full, e2eModel)))
	sh.buildah("umount", container)
	sh.buildah("rm", container)
}

// buildah runs Buildah, whose images and containers stay in the shell's
// directory.
func (s *shell) buildah(args ...string) string {
	s.Helper()
	flags := []string{s.e2e.buildah, "--root", s.dir + "/root", "--runroot", s.dir + "/run", "--storage-driver", "vfs"}
	return strings.TrimSpace(s.run(append(flags, args...)...))
}
