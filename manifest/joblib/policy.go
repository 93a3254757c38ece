package joblib

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
)

// The policy is data: which globals model files hold, and how their libraries
// use them. testdata/joblib/policy.py writes the tables from what fitted models
// of many releases were seen to hold.
var (
	//go:embed policy/allow.txt
	allowText string
	//go:embed policy/deny.txt
	denyText string
	//go:embed policy/stdlib.txt
	stdlibText string
	//go:embed policy/python2.txt
	python2Text string
	//go:embed policy/packages.txt
	packagesText string
	//go:embed policy/methods.txt
	methodsText string
)

// entry is what the policy allows of a global.
type entry struct {
	uses  Use
	rule  argumentRule // of calls
	state stateRule    // of BUILD; nil: any
	own   bool         // what a call makes reads its state in its own way
}

// argumentRule reports whether a call of g is one that its library writes. It
// may note what the call makes.
type argumentRule func(m *machine, g *global, o *object) bool

// stateRule reports whether the state is one that the object's library writes.
type stateRule func(m *machine, o *object, state value) bool

// policy is the tables, parsed.
type policy struct {
	allow    map[[2]string]*entry
	deny     map[[2]string]string // name "*": the module and what is below it
	stdlib   map[string]bool
	modules  map[string]string // of Python 2, in Python 3
	names    map[[2]string][2]string
	packages map[string]knownPackage
	methods  map[string]bool // of the listed classes, and of what they look like
}

type knownPackage struct {
	pip, note string
	present   bool // it is installed where models are served
}

var thePolicy = sync.OnceValue(func() *policy {
	p := &policy{
		allow: make(map[[2]string]*entry), deny: make(map[[2]string]string), stdlib: make(map[string]bool),
		modules: make(map[string]string), names: make(map[[2]string][2]string), packages: make(map[string]knownPackage), methods: make(map[string]bool),
	}
	records(allowText, func(f []string) {
		p.allow[[2]string{f[0], f[1]}] = newEntry(f[2], f[3])
	})
	records(denyText, func(f []string) { p.deny[[2]string{f[0], f[1]}] = f[2] })
	records(stdlibText, func(f []string) { p.stdlib[f[0]] = true })
	records(python2Text, func(f []string) {
		if f[0] == "module" {
			p.modules[f[1]] = f[2]
		} else {
			p.names[[2]string{f[1], f[2]}] = [2]string{f[3], f[4]}
		}
	})
	records(packagesText, func(f []string) {
		p.packages[f[0]] = knownPackage{f[1], strings.ReplaceAll(strings.TrimPrefix(f[2], "-"), "_", " "), f[3] == "present"}
	})
	records(methodsText, func(f []string) { p.methods[f[0]] = true })
	return p
})

// records calls f with the fields of each line that is no comment.
func records(text string, f func([]string)) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0][0] != '#' {
			f(fields)
		}
	}
}

func newEntry(uses, rule string) *entry {
	e := &entry{rule: argumentRules[rule], state: stateRules[rule]}
	switch rule {
	case "cyclass", "sameclass", "tree", "randomstate", "bitgen":
		e.own = true
	}
	for _, u := range uses {
		e.uses |= map[rune]Use{'N': UseInstantiated, 'C': UseCalled, 'V': UseValue, 'D': UseSetItem, 'L': UseAppend}[u]
	}
	return e
}

// python3 returns the names that today's Python gives to those of Python 2.
func (p *policy) python3(module, name string) (string, string) {
	if to, ok := p.names[[2]string{module, name}]; ok {
		return to[0], to[1]
	}
	if to, ok := p.modules[module]; ok {
		return to, name
	}
	return module, name
}

// denied returns why a global is refused by name.
func (p *policy) denied(module, name string) (string, bool) {
	reason, ok := p.deny[[2]string{module, name}]
	for m := module; !ok; {
		reason, ok = p.deny[[2]string{m, "*"}]
		dot := strings.LastIndexByte(m, '.')
		if dot < 0 {
			break
		}
		m = m[:dot]
	}
	if words := denyWords[reason]; words != "" {
		reason = words
	}
	return reason, ok
}

// denyWords spells the reasons of the table.
var denyWords = map[string]string{
	"process":     "starts programs or touches the process",
	"code":        "runs code that is given as text or bytes",
	"indirection": "calls, or fetches, what it is given",
	"deserialise": "loads further data that can run code",
	"file":        "reads or writes files",
	"network":     "talks to the network",
	"tamper":      "changes what scanners and readers see",
}

// CheckAllow reports whether s can be an entry of [Options.Allow]: an exact
// module:name, that is not known to be dangerous.
func CheckAllow(s string) error {
	module, name, ok := strings.Cut(s, ":")
	if !ok || !isName(module) || !isName(name) {
		return fmt.Errorf("%q: want module:name, exactly", s)
	}
	if reason, denied := thePolicy().denied(module, name); denied || strings.Contains(name, ".") {
		if !denied {
			reason = "walks from one object to the next"
		}
		return fmt.Errorf("%q cannot be allowed: it %s", s, reason)
	}
	return nil
}
