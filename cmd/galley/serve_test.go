package main

import (
	"bufio"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// server is what serveCmd started last in a script.
type server struct {
	cmd    *exec.Cmd
	stderr <-chan string // what it printed after it listened, once it has ended
}

// serving is its key among the script's values.
type serving struct{}

// serveCmd runs `galley serve` on a free port as $SERVE, with further flags, or
// tells the last one to stop and checks that it does so in peace: serve -stop.
func serveCmd(ts *testscript.TestScript, _ bool, args []string) {
	s := ts.Value(serving{}).(*server)
	if len(args) > 0 && args[0] == "-stop" {
		ts.Check(s.cmd.Process.Signal(os.Interrupt))
		said := <-s.stderr
		if err := s.cmd.Wait(); err != nil {
			ts.Fatalf("galley serve: %v\n%s", err, said)
		}
		return
	}
	cmd := exec.Command("galley", append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = os.Environ()
	for _, name := range []string{"HOME", "XDG_DATA_HOME", "GALLEY_LOCAL"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() { cmd.Process.Kill() })
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	ts.Check(err)
	m := regexp.MustCompile(`^listening on http://(127\.0\.0\.1:\d+), serving /`).FindStringSubmatch(line)
	if m == nil {
		ts.Fatalf("galley serve said %q", line)
	}
	ts.Setenv("SERVE", m[1])
	rest := make(chan string, 1)
	go func() {
		var b strings.Builder
		lines.WriteTo(&b)
		rest <- b.String()
	}()
	s.cmd, s.stderr = cmd, rest
}
