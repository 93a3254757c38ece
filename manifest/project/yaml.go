package project

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"galley/manifest/nearest"
)

// The limits on galley.yaml. The parser recurses over nesting and compares
// every key with every other, so size alone does not bound what it takes.
const (
	maxConfig  = 1 << 20 // bytes
	maxTokens  = 20_000
	maxNesting = 20     // of flow collections
	maxVisits  = 20_000 // nodes read, those behind aliases each time
	maxErrors  = 10
)

// decoder reads a galley.yaml of fixed depth from the parser's tree, which
// knows where everything stands.
type decoder struct {
	file    string
	lines   []string
	anchors map[string]ast.Node
	visits  int
	errs    []error
}

// field is a key and what reads its value.
type field struct {
	key  string
	read func(ast.Node)
}

type fields []field

func (d *decoder) err() error { return errors.Join(d.errs[:min(len(d.errs), maxErrors)]...) }

// fail notes an error at n, or of the whole file.
func (d *decoder) fail(n ast.Node, nearest, format string, args ...any) {
	e := &ConfigError{File: d.file, Msg: fmt.Sprintf(format, args...), Nearest: nearest}
	if n != nil {
		e.at(n.GetToken())
	}
	d.errs = append(d.errs, e)
}

func (e *ConfigError) at(t *token.Token) {
	if t != nil && t.Position != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
	}
}

// parse returns the root of the only document, or nil when there is none.
func (d *decoder) parse(data []byte) ast.Node {
	// The parser counts some line ends of Windows twice.
	data = []byte(strings.ReplaceAll(strings.TrimPrefix(string(data), "\ufeff"), "\r\n", "\n"))
	switch {
	case len(data) > maxConfig:
		d.fail(nil, "", "%d bytes are more than the %d allowed", len(data), maxConfig)
		return nil
	case !utf8.Valid(data):
		d.fail(nil, "", "not UTF-8")
		return nil
	}
	d.lines = strings.Split(string(data), "\n")
	tokens := lexer.Tokenize(string(data))
	if len(tokens) > maxTokens {
		d.fail(nil, "", "%d tokens are more than the %d allowed", len(tokens), maxTokens)
		return nil
	}
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		}
		if depth > maxNesting {
			e := &ConfigError{File: d.file, Msg: fmt.Sprintf("nested deeper than %d levels", maxNesting)}
			e.at(t)
			d.errs = append(d.errs, e)
			return nil
		}
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		e := &ConfigError{File: d.file, Msg: "not YAML"}
		if known, ok := errors.AsType[yaml.Error](err); ok {
			e.Msg = known.GetMessage()
			e.at(known.GetToken())
		}
		d.errs = append(d.errs, e)
		return nil
	}
	var root ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		if root != nil {
			d.fail(doc.Body, "", "a second document; one is wanted")
			return nil
		}
		root = doc.Body
	}
	return root
}

// resolve strips anchors, which it remembers, and tags, and follows aliases.
func (d *decoder) resolve(n ast.Node) ast.Node {
	for {
		if d.visits++; d.visits > maxVisits {
			if d.visits == maxVisits+1 {
				d.fail(n, "", "aliases make it more than %d values", maxVisits)
			}
			return nil
		}
		switch at := n.(type) {
		case *ast.AnchorNode:
			d.anchors[at.Name.GetToken().Value] = at.Value
			n = at.Value
		case *ast.AliasNode:
			name := at.Value.GetToken().Value
			to, ok := d.anchors[name]
			if !ok {
				d.fail(at, "", "alias %q has no anchor above it", name)
				return nil
			}
			n = to
		case *ast.TagNode:
			n = at.Value
		default:
			return n
		}
	}
}

func isMap(n ast.Node) bool {
	_, ok := n.(ast.MapNode)
	return ok
}

// isNull reports whether n is absent: a key without a value, or an error that
// was noted.
func isNull(n ast.Node) bool { return n == nil || n.Type() == ast.NullType }

// entries calls f for each entry of a mapping, and returns the keys.
func (d *decoder) entries(n ast.Node, f func(key string, at, value ast.Node)) []string {
	n = d.resolve(n)
	if isNull(n) {
		return nil
	}
	m, ok := n.(ast.MapNode)
	if !ok {
		d.fail(n, "", "want keys with values, got %s", kindOf(n))
		return nil
	}
	var keys []string
	for it := m.MapRange(); it.Next(); {
		key, at := "", d.resolve(it.Key())
		if at == nil {
			continue
		}
		d.text(&key)(at)
		keys = append(keys, key)
		f(key, at, it.Value())
	}
	return keys
}

// fields reads a mapping of known keys.
func (d *decoder) fields(n ast.Node, known fields) {
	var words []string
	for _, f := range known {
		words = append(words, f.key)
	}
	d.entries(n, func(key string, at, value ast.Node) {
		for _, f := range known {
			if f.key == key {
				f.read(value)
				return
			}
		}
		d.fail(at, resembling(key, words), "unknown key %q", key)
	})
}

// text reads a scalar as it is written: version: 1.10 is "1.10".
func (d *decoder) text(to *string) func(ast.Node) {
	return func(n ast.Node) {
		n = d.resolve(n)
		if isNull(n) {
			return
		}
		switch at := n.(type) {
		case *ast.StringNode:
			*to = at.Value
		case *ast.LiteralNode:
			*to = at.Value.Value
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
			*to = at.GetToken().Value
		default:
			d.fail(n, "", "want a text, got %s", kindOf(n))
		}
	}
}

// list returns the elements of a list, or the single value that stands in place
// of one; nil if there is nothing, which an empty list is not.
func (d *decoder) list(n ast.Node) []ast.Node {
	n = d.resolve(n)
	if isNull(n) {
		return nil
	}
	if list, ok := n.(*ast.SequenceNode); ok {
		return append([]ast.Node{}, list.Values...)
	}
	return []ast.Node{n}
}

// texts reads a text or a list of texts.
func (d *decoder) texts(to *[]string) func(ast.Node) {
	return func(n ast.Node) {
		list := d.list(n)
		if list == nil {
			return
		}
		*to = []string{}
		for _, v := range list {
			s := ""
			d.text(&s)(v)
			*to = append(*to, s)
		}
	}
}

// oneOf reads one of a few words.
func (d *decoder) oneOf(to *string, words ...string) func(ast.Node) {
	return func(n ast.Node) {
		d.text(to)(n)
		for _, w := range words {
			if *to == w || *to == "" {
				return
			}
		}
		d.fail(n, resembling(*to, words), "unknown value %q", *to)
	}
}

// kindOf names what stands where something else is wanted.
func kindOf(n ast.Node) string {
	switch {
	case isMap(n):
		return "keys with values"
	case n.Type() == ast.SequenceType:
		return "a list"
	}
	return fmt.Sprintf("%.40q", n.GetToken().Value)
}

// resembling returns the known word that a mistyped one may mean, or nothing.
func resembling(s string, words []string) string {
	for _, w := range nearest.Words(s, words, 1) {
		return w
	}
	return ""
}
