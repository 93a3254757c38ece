// Package formula reads the expressions that choose among models: filters of
// lists, and the gates of promotion. The language is that of
// https://expr-lang.org, without what loops, without the time, and with names
// that are looked up before anything is evaluated.
//
//	e, err := formula.Parse(`recall >= current.recall * 0.97`, formula.Options{Numeric: true, Scopes: []string{"current"}})
//	for _, name := range e.Names() {
//		values[name] = …
//	}
//	program, err := e.Compile(values)
//	answer, err := program.Run(values)
//
// A name is an identifier, keys joined by dots as in test_metrics.test_f1, or
// metric("f1-score"), m for short, where it is no identifier. Variables of let
// are no names. What an expression costs is bounded by its length: it evaluates
// each of its parts at most once.
//
// An [Expression] and a [Program] may be used concurrently.
package formula

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// MaxLength is how many bytes an expression may have.
const MaxLength = 4096

// Options say what an expression may be made of.
type Options struct {
	// Numeric leaves numbers and booleans only, with arithmetic, comparisons and
	// conditions. All numbers are float64, and a result of arithmetic that is
	// not finite is an error.
	Numeric bool
	// Scopes are the identifiers that names can stand below: of current.f1 the
	// scope is current.
	Scopes []string
}

// Name is what an expression wants to know.
type Name struct {
	Scope string // one of the scopes, or empty
	Path  string
}

// String returns the name as it is written.
func (n Name) String() string {
	if n.Scope == "" {
		return n.Path
	}
	return n.Scope + "." + n.Path
}

// identifier is what stands for the name in the tree: no variable is called so.
func (n Name) identifier() string { return "\x00" + n.Scope + "\x00" + n.Path }

// Error says what is wrong with an expression, and where.
type Error struct {
	Expression   string
	Line, Column int // in the expression, from 1, in characters; 0 for the whole
	Msg          string
}

func (e *Error) Error() string {
	at := ""
	if e.Line > 0 {
		at = fmt.Sprintf(" at column %d", e.Column)
		if strings.Contains(strings.TrimSpace(e.Expression), "\n") {
			at = fmt.Sprintf(" at line %d, column %d", e.Line, e.Column)
		}
	}
	return fmt.Sprintf("expression %.200q%s: %s", e.Expression, at, e.Msg)
}

// Expression is an expression that was understood.
type Expression struct {
	text    string
	options Options
	names   []Name
	part    part
}

// part is what of the text is meant.
type part int

const (
	whole part = iota
	left       // of the comparison that the text is
	right
)

// Parse reads an expression. Its types are checked as far as they are known
// without those of the names. The error is an [*Error].
func Parse(text string, o Options) (*Expression, error) {
	e := &Expression{text: text, options: o}
	r, err := e.read()
	if err != nil {
		return nil, err
	}
	e.names = r.names
	config := conf.CreateNew()
	if _, err := e.check(r.tree, config); err != nil {
		return nil, err
	}
	return e, nil
}

// String returns the text.
func (e *Expression) String() string { return e.text }

// Names returns all names in the order in which they stand, each once.
func (e *Expression) Names() []Name { return slices.Clone(e.names) }

// Canonical returns the expression in a form that does not depend on blanks,
// comments and parentheses that do nothing.
func (e *Expression) Canonical() string {
	// Not the tree that was read, in which names are marked.
	tree, err := parser.Parse(e.text)
	if err != nil {
		return e.text
	}
	return tree.Node.String()
}

// Comparison is an expression that is a single comparison. Its sides are values,
// not conditions.
type Comparison struct {
	Left     *Expression
	Operator string // one of == != < <= > >=
	Right    *Expression
}

// Comparison returns the comparison that an expression is.
func (e *Expression) Comparison() (c Comparison, ok bool) {
	r, err := e.read()
	if err != nil || e.part != whole {
		return c, false
	}
	n, ok := r.tree.Node.(*ast.BinaryNode)
	if !ok || !isComparison(n.Operator) {
		return c, false
	}
	return Comparison{e.side(left), n.Operator, e.side(right)}, true
}

// side returns one side of the comparison that e is.
func (e *Expression) side(p part) *Expression {
	s := &Expression{text: e.text, options: e.options, part: p}
	if r, err := s.read(); err == nil {
		s.names = r.names
	}
	return s
}

// Program is an expression with the types of its names.
type Program struct {
	expression *Expression
	program    *vm.Program
}

// Compile checks the expression for names of the types that values have, which
// are bool and float64, and int and string for one that is not numeric. The
// error is an [*Error]: a name without a value is one.
func (e *Expression) Compile(values map[Name]any) (*Program, error) {
	r, err := e.read()
	if err != nil {
		return nil, err
	}
	for _, name := range e.names {
		if values[name] == nil {
			return nil, &Error{Expression: e.text, Msg: fmt.Sprintf("%s has no value", name)}
		}
	}
	config := conf.New(environment(values))
	program, err := e.check(r.tree, config)
	if err != nil {
		return nil, err
	}
	return &Program{e, program}, nil
}

// check checks the types in a tree, and makes a program of it. It changes the
// tree.
func (e *Expression) check(tree *parser.Tree, config *conf.Config) (*vm.Program, error) {
	config.Optimize = false // it folds constants, and there are few
	config.Functions[finite] = finiteFunction()
	if e.part == whole {
		config.Expect, config.ExpectAny = reflect.Bool, true
	}
	t, err := checker.Check(tree, config)
	if err != nil {
		if _, placed := errors.AsType[*file.Error](err); !placed {
			err = fmt.Errorf("a condition is wanted, this is %s", typeName(t, tree.Node))
		}
		return nil, e.wrap(err)
	}
	program, err := compiler.Compile(tree, config)
	if err != nil {
		return nil, e.wrap(err)
	}
	return program, nil
}

// typeName says of what type an expression is that is no condition.
func typeName(t reflect.Type, node ast.Node) string {
	if t == nil {
		t = node.Type()
	}
	switch t.Kind() {
	case reflect.Int, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	}
	return "something else"
}

// Run evaluates the program: a bool, or what a side of a comparison is. The
// error is an [*Error].
func (p *Program) Run(values map[Name]any) (any, error) {
	answer, err := vm.Run(p.program, environment(values))
	if err != nil {
		return nil, p.expression.wrap(err)
	}
	return answer, nil
}

func environment(values map[Name]any) map[string]any {
	env := make(map[string]any, len(values))
	for name, v := range values {
		env[name.identifier()] = v
	}
	return env
}

// wrap returns an error of the library as ours.
func (e *Expression) wrap(err error) *Error {
	mine := &Error{Expression: e.text, Msg: err.Error()}
	if at, ok := errors.AsType[*file.Error](err); ok {
		mine.Msg = at.Message
		mine.place(at.From)
	}
	mine.Msg, _, _ = strings.Cut(mine.Msg, "\n")
	mine.Msg = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return -1
		}
		return r
	}, mine.Msg)
	return mine
}

// place sets line and column to those of the character at offset.
func (e *Error) place(offset int) {
	e.Line, e.Column = 1, 1
	n := 0
	for _, r := range e.Expression {
		if n == offset {
			return
		}
		n++
		e.Column++
		if r == '\n' {
			e.Line, e.Column = e.Line+1, 1
		}
	}
}

// finite is a function that no expression can call: it wraps arithmetic.
const finite = "\x00finite"

func finiteFunction() *builtin.Function {
	return &builtin.Function{
		Name: finite,
		Func: func(arguments ...any) (any, error) {
			f, ok := arguments[0].(float64)
			if !ok {
				return nil, errors.New("a number is wanted")
			}
			if math.IsNaN(f) || math.IsInf(f, 0) {
				return nil, fmt.Errorf("the result is %s", spell(f))
			}
			return f, nil
		},
		Types: []reflect.Type{reflect.TypeFor[func(float64) float64]()},
	}
}

func spell(f float64) string {
	if math.IsNaN(f) {
		return "not a number, as of 0 / 0"
	}
	return "infinite, as of 1 / 0"
}
