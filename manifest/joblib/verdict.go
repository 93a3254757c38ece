package joblib

import (
	"cmp"
	"fmt"
	"slices"
)

// Verdict is what can be said about loading a file. Verdicts are ordered: a
// file's is the worst of its findings'. The zero value is none, and refused.
type Verdict int

// The verdicts, from good to bad.
const (
	// NotPickle: nothing runs by unpickling, for the file is none.
	NotPickle Verdict = iota + 1
	// Pass: no code path at load time was found. Every global is known and
	// used as its own library's pickles use it. It does not say that the
	// model is safe: see the package documentation.
	Pass
	// Review: nothing is known against it, and somebody should look: a class
	// of a library that the policy does not list, or of the training script.
	Review
	// Unverifiable: it cannot be told what loading does. The file is cut or
	// damaged, ambiguous, beyond a limit, or calls what nobody knows.
	Unverifiable
	// Dangerous: loading runs something that no model needs.
	Dangerous
)

var verdictNames = []string{"", "not-a-pickle", "pass", "review", "unverifiable", "dangerous"}

func (v Verdict) String() string {
	if v <= 0 || int(v) >= len(verdictNames) {
		return "unknown"
	}
	return verdictNames[v]
}

// MarshalText spells the verdict as in annotations and JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (v *Verdict) UnmarshalText(text []byte) error {
	i := slices.Index(verdictNames[1:], string(text))
	if i < 0 {
		return fmt.Errorf("unknown verdict %.40q", text)
	}
	*v = Verdict(i + 1)
	return nil
}

// Refused reports whether a file of this verdict is not to be carried: one that
// is dangerous or unverifiable, and with strict one that needs review.
func (v Verdict) Refused(strict bool) bool {
	switch v {
	case NotPickle, Pass:
		return false
	case Review:
		return strict
	}
	return true
}

// Rule names the kind of a [Finding]. The names are stable: they are the rule
// identifiers of SARIF output.
type Rule string

// The rules; [Rule.Describe] says what they are about.
const (
	RuleDenied      Rule = "denied-global"
	RuleStdlib      Rule = "stdlib-global"
	RuleUnknown     Rule = "unknown-global"
	RuleMain        Rule = "main-global"
	RuleDotted      Rule = "dotted-global"
	RuleName        Rule = "illegal-name"
	RuleUse         Rule = "unusual-use"
	RuleArguments   Rule = "unusual-arguments"
	RuleUnknownCall Rule = "unknown-call"
	RuleComputed    Rule = "computed-call"
	RuleState       Rule = "unusual-state"
	RulePlainView   Rule = "plain-view"
	RuleArray       Rule = "malformed-array"
	RuleStream      Rule = "malformed-stream"
	RuleExternal    Rule = "external-reference"
	RuleOpcode      Rule = "unusual-opcode"
	RuleTruncated   Rule = "truncated"
	RuleContainer   Rule = "container"
	RuleTrailing    Rule = "trailing-bytes"
	RuleLimit       Rule = "too-complex"
	RuleFormat      Rule = "format"
	RuleIntegrity   Rule = "integrity"
)

var ruleTexts = map[Rule]string{
	RuleDenied:      "a global known for running code or touching files",
	RuleStdlib:      "any other of the standard library",
	RuleUnknown:     "a global that the policy does not list",
	RuleMain:        "a global of __main__: it exists only in the training script",
	RuleDotted:      "a name that walks attributes",
	RuleName:        "a name that no import statement could spell",
	RuleUse:         "a known global used as no library's pickle uses it",
	RuleArguments:   "a known callable with arguments that no library gives it",
	RuleUnknownCall: "a call of a callable that the policy does not list",
	RuleComputed:    "a call of something computed, or a computed name",
	RuleState:       "attributes set that change what an object is, or on a class",
	RulePlainView:   "harmless to joblib.load, not to pickle.load",
	RuleArray:       "an array whose description does not hold together",
	RuleStream:      "opcodes that do not make sense, or whose meaning differs among readers",
	RuleExternal:    "opcodes whose meaning is kept outside the file",
	RuleOpcode:      "legal, and written by no pickler of models",
	RuleTruncated:   "the file ends too early",
	RuleContainer:   "compression that is damaged, doubled or followed by more",
	RuleTrailing:    "bytes behind the end",
	RuleLimit:       "beyond a limit of galley's",
	RuleFormat:      "no pickle, and nothing that galley knows",
	RuleIntegrity:   "a tree that would crash or hang predict",
}

// Describe says in a few words what the rule is about.
func (r Rule) Describe() string { return ruleTexts[r] }

// Finding is one reason for a verdict.
type Finding struct {
	Verdict Verdict `json:"verdict"`
	Rule    Rule    `json:"rule"`
	// Offset is where in the uncompressed bytes, or -1.
	Offset int64 `json:"offset"`
	// Global is module:name of what it is about, or empty. Like the message
	// it may hold anything: quote it before it reaches a terminal.
	Global  string `json:"global,omitempty"`
	Message string `json:"message"`
}

func (f Finding) compare(g Finding) int {
	return cmp.Or(-cmp.Compare(f.Verdict, g.Verdict), cmp.Compare(f.Offset, g.Offset), cmp.Compare(f.Rule, g.Rule), cmp.Compare(f.Global, g.Global))
}

// Use is how a global is used, a set of bits.
type Use uint8

// The uses of globals.
const (
	UseValue        Use = 1 << iota // stands as a value
	UseInstantiated                 // its __new__ is called without arguments
	UseCalled                       // it is called, or made with arguments
	UseSetItem                      // items are set in what it made
	UseAppend                       // items are appended to what it made
	UseImported                     // nothing but its import is seen
)

// Strings names the uses.
func (u Use) Strings() []string {
	var names []string
	for i, name := range []string{"value", "instantiated", "called", "setitem", "append", "imported"} {
		if u>>i&1 == 1 {
			names = append(names, name)
		}
	}
	return names
}

// Global is a class or function that loading the file imports.
type Global struct {
	Module  string   `json:"module"` // Python 2's under today's name
	Name    string   `json:"name"`
	Uses    []string `json:"uses"`
	Shapes  []string `json:"arguments,omitempty"` // of its calls, at most 4
	Count   int      `json:"count"`               // how often it is looked up or fetched
	Offset  int64    `json:"offset"`              // of the first look-up
	Verdict Verdict  `json:"verdict"`
	Allowed bool     `json:"allowed,omitempty"` // by the caller, not by the policy
}

// Array is a numpy array in the file.
type Array struct {
	Path   string  `json:"path,omitempty"` // where in the object, as far as that is known
	DType  string  `json:"dtype"`
	Shape  []int64 `json:"shape"`
	Order  string  `json:"order"` // C or F
	Offset int64   `json:"offset"`
	Size   int64   `json:"size"` // bytes of the array; those in the file may be more
}
