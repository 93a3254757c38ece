package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"galley/manifest"
)

// maxDocument bounds manifests and configs in bytes, maxDepth their nesting.
const (
	maxDocument = 4 << 20
	maxDepth    = 100
)

// object is a JSON object whose members keep their order and whose values, and
// keys, are the bytes that were read.
type object []member

type member struct {
	key   string
	name  []byte // the key as it stands, with its quotes
	value json.RawMessage
}

// parseDocument reads a foreign document after refusing what two readers could
// understand differently.
func parseDocument(data []byte) (object, error) {
	if err := checkJSON(data); err != nil {
		return nil, fmt.Errorf("%w: %w", manifest.ErrMalformed, err)
	}
	return parseObject(data)
}

// parseObject splits one object.
func parseObject(data []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%w: not an object where one belongs", manifest.ErrMalformed)
	}
	o := object{}
	for d.More() {
		from := d.InputOffset()
		t, err := d.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return nil, fmt.Errorf("%w: an object without a key", manifest.ErrMalformed)
		}
		name := bytes.TrimLeft(data[from:d.InputOffset()], " \t\r\n,")
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("%w: %w", manifest.ErrMalformed, err)
		}
		o = append(o, member{key, name, value})
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("%w: %w", manifest.ErrMalformed, err)
	}
	return o, nil
}

// get returns the value under key, or nil.
func (o object) get(key string) json.RawMessage {
	for _, m := range o {
		if m.key == key {
			return m.value
		}
	}
	return nil
}

// into decodes the value under key into v, if there is one.
func (o object) into(key string, v any) error {
	raw := o.get(key)
	if raw == nil {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%w: %q: %w", manifest.ErrMalformed, key, err)
	}
	return nil
}

// child returns the object under key, an empty one for null or nothing.
func (o object) child(key string) (object, error) {
	raw := o.get(key)
	if raw == nil || string(raw) == "null" {
		return object{}, nil
	}
	c, err := parseObject(raw)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", key, err)
	}
	return c, nil
}

// items returns the elements of the array under key, untouched.
func (o object) items(key string) ([]json.RawMessage, error) {
	var all []json.RawMessage
	err := o.into(key, &all)
	return all, err
}

// with returns the object with key set to v: in its place, or at the end.
func (o object) with(key string, v any) object {
	raw, ok := v.(json.RawMessage)
	if !ok {
		raw = marshal(v)
	}
	o = slices.Clone(o)
	for i := range o {
		if o[i].key == key {
			o[i].value = raw
			return o
		}
	}
	return append(o, member{key, marshal(key), raw})
}

// without returns the object without the keys.
func (o object) without(keys ...string) object {
	return slices.DeleteFunc(slices.Clone(o), func(m member) bool { return slices.Contains(keys, m.key) })
}

// forget returns the object without the keys that begin so.
func (o object) forget(prefix string) object {
	if prefix == "" {
		return o
	}
	return slices.DeleteFunc(slices.Clone(o), func(m member) bool { return strings.HasPrefix(m.key, prefix) })
}

// withStrings returns the object with every key of add set, new ones in
// lexical order.
func (o object) withStrings(add map[string]string) object {
	for _, key := range slices.Sorted(maps.Keys(add)) {
		o = o.with(key, add[key])
	}
	return o
}

// raw writes the object without white space between its values.
func (o object) raw() json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(m.name)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	var compact bytes.Buffer
	if json.Compact(&compact, b.Bytes()) != nil { // every part was read as JSON
		return b.Bytes()
	}
	return compact.Bytes()
}

// marshal writes what always can be: strings, numbers, and lists and maps of
// them, without HTML escapes.
func marshal(v any) json.RawMessage {
	switch v := v.(type) {
	case object:
		return v.raw()
	case []json.RawMessage:
		return append(append([]byte{'['}, bytes.Join(rawSlices(v), []byte{','})...), ']')
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return json.RawMessage("null")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func rawSlices(v []json.RawMessage) [][]byte {
	all := make([][]byte, len(v))
	for i := range v {
		all[i] = v[i]
	}
	return all
}

// freeKeys are the objects that are read into maps, whose keys may differ in
// nothing but case.
var freeKeys = []string{"annotations", "labels", "volumes", "exposedports"}

// level is an object or array that is open.
type level struct {
	seen map[string]bool // nil: an array
	free bool            // the case of keys matters
	key  string          // whose value comes next; "" when a key comes next
	want bool            // a key comes next
}

// checkJSON refuses what is no JSON text in UTF-8, nests too deep, or has a key
// twice, be it in another case: encoding/json takes such keys for the same
// field, so that two readers would see different values.
func checkJSON(data []byte) error {
	if !utf8.Valid(data) || !json.Valid(data) {
		return errors.New("not JSON in UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var open []*level
	for {
		t, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if open, err = step(open, t); err != nil {
			return err
		}
	}
}

// step takes one token.
func step(open []*level, t json.Token) ([]*level, error) {
	var top *level
	if len(open) > 0 {
		top = open[len(open)-1]
	}
	if key, ok := t.(string); ok && top != nil && top.want {
		folded := key
		if !top.free {
			folded = strings.ToLower(key)
		}
		if top.seen[folded] {
			return nil, fmt.Errorf("the key %.100q is there twice", key)
		}
		top.seen[folded], top.key, top.want = true, key, false
		return open, nil
	}
	switch t {
	case json.Delim('{'), json.Delim('['):
		if len(open) == maxDepth {
			return nil, fmt.Errorf("nested more than %d deep", maxDepth)
		}
		l := &level{}
		if t == json.Delim('{') {
			l.seen, l.want = map[string]bool{}, true
			l.free = top != nil && slices.Contains(freeKeys, strings.ToLower(top.key))
		}
		return append(open, l), nil
	case json.Delim('}'), json.Delim(']'):
		open = open[:len(open)-1]
		if len(open) == 0 {
			return open, nil
		}
		top = open[len(open)-1]
	}
	if top != nil && top.seen != nil {
		top.want = true
	}
	return open, nil
}
