package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"galley/oci/ocitest"
)

// network is what lies between a tool and the registry.
type network struct {
	name      string
	delay     time.Duration // of each request
	bandwidth int64         // bytes a second in each direction; 0: without limit
}

// operations are what a tool does, in this order.
var operations = []string{"push", "push again", "pull", "pull again"}

// counts is how often requests and bytes passed the proxy. On the loopback there
// is none, for it would take its part of the machine.
type counts struct {
	Requests int   `json:"requests"`
	Moved    int64 `json:"moved"` // bytes of bodies, both ways
}

// sample is one operation of one tool.
type sample struct {
	Wall    float64 `json:"wall"` // seconds
	CPU     float64 `json:"cpu"`  // seconds of a core
	Peak    int64   `json:"peak"` // bytes resident
	*counts `json:",omitempty"`
}

func times(runs []sample) string {
	var parts []string
	for i, s := range runs {
		parts = append(parts, fmt.Sprintf("%s %.2f s", operations[i], s.Wall))
	}
	return strings.Join(parts, ", ")
}

// measure runs the operations of a tool against a registry that is new.
func (b *bench) measure(ctx context.Context, t tool, p *project, n network, start startRegistry) (_ []sample, err error) {
	dir, err := os.MkdirTemp(b.work, t.name+"-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	home, out := filepath.Join(dir, "home"), filepath.Join(dir, "out")
	for _, d := range []string{home, out} {
		if err := os.Mkdir(d, 0o777); err != nil {
			return nil, err
		}
	}
	host, stop, err := start(ctx, filepath.Join(dir, "registry"))
	if err != nil {
		return nil, err
	}
	defer stop()
	var proxy *ocitest.Proxy
	if n.delay > 0 || n.bandwidth > 0 {
		next, err := ocitest.Forward("http://" + host)
		if err != nil {
			return nil, err
		}
		proxy = ocitest.NewProxy(next)
		proxy.Shape(n.delay, n.bandwidth)
		server := httptest.NewServer(proxy)
		defer server.Close()
		defer proxy.Close()
		host = strings.TrimPrefix(server.URL, "http://")
	}
	ref := host + "/ml/fraud:v1"
	push, pull := t.push(p, ref), t.pull(ref, out)
	var runs []sample
	for i, args := range [][]string{push, push, pull, pull} {
		if operations[i] == "push again" {
			// Some manifests tell the second they were made in. People do not
			// push twice in one.
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
		}
		s, err := b.sample(ctx, p.dir, home, append([]string{t.binary}, args...))
		if err != nil {
			return nil, err
		}
		if proxy != nil {
			received, sent := proxy.Moved()
			s.counts = &counts{len(proxy.Exchanges()), received + sent}
		}
		runs = append(runs, s)
	}
	return runs, p.check(out, t.tar)
}

// registryOf is the host in a reference.
func registryOf(ref string) string {
	host, _, _ := strings.Cut(ref, "/")
	return host
}

const measureArg = "measure"

// sample runs a command. Linux counts what a process had in memory before it
// became the command, so a small one starts it: this program once more.
func (b *bench) sample(ctx context.Context, dir, home string, command []string) (sample, error) {
	syscall.Sync() // what others wrote is not written at the expense of this one
	self, err := os.Executable()
	if err != nil {
		return sample{}, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{measureArg}, command...)...)
	cmd.Dir = dir
	cmd.Env = []string{
		"HOME=" + home, "TMPDIR=" + filepath.Dir(home), "PATH=" + os.Getenv("PATH"),
		"GIT_CEILING_DIRECTORIES=" + filepath.Dir(dir), // the project is in no work tree
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, stderr.String())
	}
	var s sample
	return s, json.Unmarshal(out, &s)
}

// measureChild runs a command and writes its sample to stdout.
func measureChild(command []string) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return err
	}
	s := sample{Wall: time.Since(start).Seconds()}
	s.CPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return errors.New("no resource usage on this system")
	}
	s.Peak = int64(usage.Maxrss)
	if runtime.GOOS == "linux" {
		s.Peak <<= 10
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// startRegistry starts a registry that keeps its blobs in dir, which does not
// exist yet, and returns where it listens.
type startRegistry func(ctx context.Context, dir string) (host string, stop func(), err error)

// registry chooses Debian's docker-registry, or galley serve where there is none.
func (b *bench) registry(galley string) (startRegistry, string) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		return func(ctx context.Context, dir string) (string, func(), error) {
			return serve(ctx, func(host string) (*exec.Cmd, error) {
				cmd := exec.CommandContext(ctx, galley, "serve", "--addr", host)
				cmd.Env = append(os.Environ(), "GALLEY_LOCAL="+dir)
				return cmd, nil
			})
		}, "galley serve, for docker-registry is not installed"
	}
	version, err := exec.Command(program, "--version").Output()
	if err != nil {
		version = []byte("docker-registry")
	}
	return func(ctx context.Context, dir string) (string, func(), error) {
		return serve(ctx, func(host string) (*exec.Cmd, error) {
			config := dir + ".yml"
			text := fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: %q}
`, dir, host)
			return exec.CommandContext(ctx, program, "serve", config), os.WriteFile(config, []byte(text), 0o666)
		})
	}, strings.TrimSpace(string(version))
}

// serve starts a server on a free port of the loopback and waits until it
// answers.
func serve(ctx context.Context, command func(host string) (*exec.Cmd, error)) (string, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	host := l.Addr().String()
	l.Close()
	cmd, err := command(host)
	if err != nil {
		return "", nil, err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := func() {
		cmd.Process.Kill()
		<-ended
	}
	for tick := time.Tick(10 * time.Millisecond); ; {
		if conn, err := net.Dial("tcp", host); err == nil {
			conn.Close()
			return host, stop, nil
		}
		select {
		case err := <-ended:
			return "", nil, fmt.Errorf("%s: %w\n%s", cmd.Path, err, stderr.String())
		case <-ctx.Done():
			stop()
			return "", nil, context.Cause(ctx)
		case <-tick:
		}
	}
}
