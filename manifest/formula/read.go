package formula

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
)

// reader turns the tree that the library made of a text into one with our
// names, or finds what is not allowed in it.
type reader struct {
	options Options
	tree    *parser.Tree
	names   []Name
	done    map[ast.Node]done
	err     *file.Error
}

// done is what became of a node.
type done struct {
	node ast.Node
	size int // of it and all below, those that stand twice counted twice
}

// read parses the text and returns a tree that nobody else has, for checking its
// types changes it.
func (e *Expression) read() (*reader, error) {
	if len(e.text) > MaxLength {
		return nil, &Error{Expression: e.text, Msg: fmt.Sprintf("longer than %d bytes", MaxLength)}
	}
	tree, err := parser.Parse(e.text)
	if err != nil {
		return nil, e.wrap(err)
	}
	if n, ok := tree.Node.(*ast.BinaryNode); ok && e.part != whole {
		tree.Node = n.Left
		if e.part == right {
			tree.Node = n.Right
		}
	}
	r := &reader{options: e.options, tree: tree, done: make(map[ast.Node]done)}
	r.visit(&tree.Node, nil)
	if r.err != nil {
		return nil, e.wrap(r.err.Bind(tree.Source))
	}
	return r, nil
}

func (r *reader) fail(n ast.Node, format string, args ...any) {
	if r.err == nil {
		r.err = &file.Error{Location: n.Location(), Message: fmt.Sprintf(format, args...)}
	}
}

// maxSize bounds the nodes of an expression. The library lets a node stand in
// two places, as b does in a < b < c, and evaluates it in both, so that nesting
// would double the work again and again.
const maxSize = 10_000

// visit rewrites what is at node and below it, and returns how many nodes that
// is; bound are the variables that are known there.
func (r *reader) visit(node *ast.Node, bound []string) int {
	if *node == nil || r.err != nil {
		return 0
	}
	if known, ok := r.done[*node]; ok {
		*node = known.node
		return known.size
	}
	original := *node
	size := 1 + r.rewrite(node, bound)
	if size > maxSize {
		r.fail(original, "too complex")
	}
	r.done[original] = done{*node, size}
	r.done[*node] = done{*node, size}
	return size
}

func (r *reader) visitAll(nodes []ast.Node, bound []string) (size int) {
	for i := range nodes {
		size += r.visit(&nodes[i], bound)
	}
	return size
}

// rewrite puts another node in the place of one, where that is called for, and
// returns the size of what is below it.
func (r *reader) rewrite(node *ast.Node, bound []string) int {
	if name, ok := r.name(*node, bound); ok {
		if !slices.Contains(r.names, name) {
			r.names = append(r.names, name)
		}
		ast.Patch(node, &ast.IdentifierNode{Value: name.identifier()})
		return 0
	}
	if r.refuse(*node); r.err != nil {
		return 0
	}
	switch n := (*node).(type) {
	case *ast.UnaryNode:
		return r.visit(&n.Node, bound)
	case *ast.BinaryNode:
		size := r.visit(&n.Left, bound) + r.visit(&n.Right, bound)
		if r.options.Numeric && isArithmetic(n.Operator) {
			callee := &ast.IdentifierNode{Value: finite}
			callee.SetLocation(n.Location())
			ast.Patch(node, &ast.CallNode{Callee: callee, Arguments: []ast.Node{n}})
		}
		return size
	case *ast.IntegerNode:
		if r.options.Numeric {
			ast.Patch(node, &ast.FloatNode{Value: float64(n.Value)})
		}
	case *ast.ChainNode:
		return r.visit(&n.Node, bound)
	case *ast.MemberNode:
		return r.visit(&n.Node, bound) + r.visit(&n.Property, bound)
	case *ast.SliceNode:
		return r.visit(&n.Node, bound) + r.visit(&n.From, bound) + r.visit(&n.To, bound)
	case *ast.BuiltinNode:
		return r.visitAll(n.Arguments, bound)
	case *ast.VariableDeclaratorNode:
		return r.visit(&n.Value, bound) + r.visit(&n.Expr, append(slices.Clip(bound), n.Name))
	case *ast.SequenceNode:
		return r.visitAll(n.Nodes, bound)
	case *ast.ConditionalNode:
		return r.visit(&n.Cond, bound) + r.visit(&n.Exp1, bound) + r.visit(&n.Exp2, bound)
	case *ast.ArrayNode:
		return r.visitAll(n.Nodes, bound)
	case *ast.MapNode:
		return r.visitAll(n.Pairs, bound)
	case *ast.PairNode:
		return r.visit(&n.Key, bound) + r.visit(&n.Value, bound)
	}
	return 0
}

// name returns the name that a node is as a whole.
func (r *reader) name(node ast.Node, bound []string) (Name, bool) {
	if call, ok := node.(*ast.CallNode); ok {
		return r.called(call, bound)
	}
	keys := keysOf(node)
	if len(keys) == 0 || slices.Contains(bound, keys[0]) {
		return Name{}, false
	}
	if !slices.Contains(r.options.Scopes, keys[0]) {
		return Name{Path: strings.Join(keys, ".")}, true
	}
	if len(keys) == 1 {
		r.fail(node, "%s is a model, and no value: name one of its metrics, as in %[1]s.f1", keys[0])
		return Name{}, false
	}
	return Name{Scope: keys[0], Path: strings.Join(keys[1:], ".")}, true
}

// keysOf returns the keys of test_metrics.test_f1 and test_metrics["test_f1"];
// nil for anything else.
func keysOf(node ast.Node) []string {
	switch n := node.(type) {
	case *ast.IdentifierNode:
		return []string{n.Value}
	case *ast.MemberNode:
		key, ok := n.Property.(*ast.StringNode)
		if head := keysOf(n.Node); ok && head != nil && !n.Optional {
			return append(head, key.Value)
		}
	}
	return nil
}

// called returns the name in metric("f1-score") or current.m("f1-score").
func (r *reader) called(call *ast.CallNode, bound []string) (Name, bool) {
	keys := keysOf(call.Callee)
	scope := ""
	if len(keys) == 2 && slices.Contains(r.options.Scopes, keys[0]) && !slices.Contains(bound, keys[0]) {
		scope, keys = keys[0], keys[1:]
	}
	if len(keys) != 1 || keys[0] != "metric" && keys[0] != "m" {
		r.fail(call, "unknown function; there are metric, m, %s", strings.Join(r.functions(), ", "))
		return Name{}, false
	}
	if len(call.Arguments) == 1 {
		if path, ok := call.Arguments[0].(*ast.StringNode); ok {
			return Name{scope, path.Value}, true
		}
	}
	r.fail(call, `%s takes one name in quotes, as in %[1]s("f1-score")`, keys[0])
	return Name{}, false
}

// functions are what an expression may call: nothing that loops, for it would
// not heed a signal.
func (r *reader) functions() []string {
	if r.options.Numeric {
		return []string{"abs", "ceil", "floor", "round", "max", "min"}
	}
	return []string{"abs", "ceil", "floor", "round", "len", "lower", "upper", "trim", "hasPrefix", "hasSuffix", "max", "min"}
}

// refuse fails at what is not allowed, whatever is below it.
func (r *reader) refuse(node ast.Node) {
	switch n := node.(type) {
	case *ast.BuiltinNode:
		if slices.ContainsFunc(n.Arguments, func(a ast.Node) bool { _, loops := a.(*ast.PredicateNode); return loops }) {
			r.fail(n, "an expression does not loop over lists")
		}
		if !slices.Contains(r.functions(), n.Name) {
			r.fail(n, "unknown function; there are metric, m, %s", strings.Join(r.functions(), ", "))
		}
		return
	case *ast.PredicateNode, *ast.PointerNode:
		r.fail(n, "an expression does not loop over lists")
		return
	}
	if !r.options.Numeric {
		return
	}
	switch n := node.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.VariableDeclaratorNode, *ast.ConditionalNode:
	case *ast.IdentifierNode: // a variable
	case *ast.UnaryNode:
	case *ast.BinaryNode:
		switch op := n.Operator; {
		case isArithmetic(op), isComparison(op), op == "&&", op == "||", op == "and", op == "or", op == "??":
		default:
			r.fail(n, "operator %s is not for numbers", op)
		}
	case *ast.SequenceNode:
		r.fail(n, "one condition is wanted: join several with &&")
	case *ast.StringNode, *ast.BytesNode:
		r.fail(n, `a text is no number; a metric is metric("NAME")`)
	case *ast.MemberNode, *ast.ChainNode:
		r.fail(n, "keys stand below names only, with a dot between")
	default:
		r.fail(n, "only numbers and conditions are wanted")
	}
}

func isComparison(operator string) bool {
	switch operator {
	case "==", "!=", "<", "<=", ">", ">=":
		return true
	}
	return false
}

func isArithmetic(operator string) bool {
	switch operator {
	case "+", "-", "*", "/", "**", "^":
		return true
	}
	return false
}
