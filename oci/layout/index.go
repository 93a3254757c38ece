package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
)

// Limits of index.json: bytes, and entries when it is rewritten.
const (
	maxIndex   = 64 << 20
	maxEntries = 1 << 20
)

// space is the white space of JSON.
const space = " \t\r\n"

const emptyIndex = `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","manifests":[]}`

// index is an index.json in three pieces: the array of its entries and what
// stands around it, which is carried as it is. Entries are cut out of the array
// as they are asked for and most are never decoded, because decoding ten
// thousand of them takes longer than everything else that Resolve does.
type index struct {
	head, list, tail []byte
}

// readIndex reads index.json. A layout that has none yet has an empty one.
func readIndex(root *os.Root) (index, error) {
	data, err := readIndexFile(root)
	if err != nil {
		return index{}, err
	}
	return parseIndexFile(root, data)
}

func readIndexFile(root *os.Root) ([]byte, error) {
	data, err := readFile(root, indexFile, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return []byte(emptyIndex), nil
	}
	return data, err
}

func parseIndexFile(root *os.Root, data []byte) (index, error) {
	x, err := parseIndex(data)
	if err != nil {
		return index{}, fmt.Errorf("read %s: %w: %w", filepath.Join(root.Name(), indexFile), ErrCorrupt, err)
	}
	return x, nil
}

// knownIndex is an index.json as a store last read it. Nothing of it changes.
type knownIndex struct {
	index
	data  []byte                   // of the whole file
	names func() map[string][]byte // its entries by name, made by the first call
	asked atomic.Bool              // for a tag
}

// readIndex is the function of that name, which parses again only when the file
// is not what it was: because every byte is compared, and not times, it is
// never an older one.
func (s *Store) readIndex(root *os.Root) (*knownIndex, error) {
	if known := s.known.Load(); known != nil && holds(root, indexFile, known.data) {
		return known, nil
	}
	data, err := readIndexFile(root)
	if err != nil {
		return nil, err
	}
	x, err := parseIndexFile(root, data)
	if err != nil {
		return nil, err
	}
	known := &knownIndex{index: x, data: data, names: sync.OnceValue(x.names)}
	s.known.Store(known)
	return known, nil
}

// holds reports whether a regular file holds these very bytes. It reads them in
// pieces, because a buffer for all of them costs more than the comparison.
func holds(root *os.Root, name string, data []byte) bool {
	f, size, err := openFile(root, name)
	if err != nil {
		return false
	}
	defer f.Close()
	if size != int64(len(data)) {
		return false
	}
	piece := make([]byte, min(len(data)+1, 32<<10)) // a longer file has one byte more
	for {
		n, err := f.Read(piece)
		rest, same := bytes.CutPrefix(data, piece[:n])
		if !same {
			return false
		}
		if data = rest; err != nil {
			return errors.Is(err, io.EOF) && len(data) == 0
		}
	}
}

// tag returns the descriptor of a tag, as find does.
func (k *knownIndex) tag(name string) (v1.Descriptor, error) {
	// To decode all entries pays only when there is more than one question.
	if !k.asked.Swap(true) {
		return k.find(name, func(e entry) bool { return e.name == name })
	}
	return descriptor(k.names()[name])
}

// names returns the last entry of each name.
func (x index) names() map[string][]byte {
	names := make(map[string][]byte)
	for _, raw := range elements(x.list) {
		if name := decodeEntry(raw).name; name != "" {
			names[name] = raw
		}
	}
	return names
}

func parseIndex(data []byte) (index, error) {
	if !json.Valid(data) { // once more for the reason, but only when there is one
		return index{}, json.Unmarshal(data, new(json.RawMessage))
	}
	doc := bytes.TrimLeft(data, space)
	if doc[0] != '{' {
		return index{}, errors.New("not an object")
	}
	members := 0
	var x index
	for end, member := range elements(doc) {
		members++
		key, value := splitMember(member)
		if key != "manifests" {
			continue
		}
		if x.head != nil {
			return index{}, errors.New("manifests twice")
		}
		if value[0] != '[' && string(value) != "null" {
			return index{}, errors.New("manifests is not an array")
		}
		x = index{head: doc[:end-len(value)], list: value, tail: doc[end:]}
	}
	if x.head == nil {
		x = index{head: []byte(`{"manifests":`), tail: doc[1:]}
		if members > 0 {
			x.tail = slices.Concat([]byte(","), doc[1:])
		}
	}
	return x, nil
}

// elements cuts a valid JSON array or object into its elements or members,
// without the space around them, and yields each after the offset of its end.
func elements(doc []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		depth, start := 0, 0
		for i := 0; i < len(doc); i++ {
			last := false
			switch doc[i] {
			case '"':
				i += stringLen(doc[i:]) - 1
				continue
			case '{', '[':
				if depth++; depth == 1 {
					start = i + 1
				}
				continue
			case '}', ']':
				depth--
				last = depth == 0
			case ',':
				last = depth == 1
			}
			if !last {
				continue
			}
			part := bytes.TrimRight(doc[start:i], space)
			end := start + len(part)
			part = bytes.TrimLeft(part, space)
			// Only an empty array or object has an empty part.
			if len(part) > 0 && !yield(end, part) {
				return
			}
			start = i + 1
		}
	}
}

// splitMember splits a member of a valid JSON object into its name and value.
func splitMember(member []byte) (string, []byte) {
	n := stringLen(member)
	var key string
	_ = json.Unmarshal(member[:n], &key) // no valid string is refused
	value := bytes.TrimLeft(member[n:], space)
	return key, bytes.TrimLeft(value[1:], space)
}

// stringLen returns the length of the valid JSON string that s begins with,
// quotes included.
func stringLen(s []byte) int {
	i := 1
	for s[i] != '"' {
		if s[i] == '\\' {
			i++
		}
		i++
	}
	return i + 1
}

// find returns the descriptor of the last entry that match accepts, as a
// registry would return it: without its name. Entries that cannot contain the
// string text are passed over unread.
func (x index) find(text string, match func(entry) bool) (v1.Descriptor, error) {
	var found []byte
	for _, raw := range elements(x.list) {
		if mayContain(raw, text) && match(decodeEntry(raw)) {
			found = raw
		}
	}
	return descriptor(found)
}

// descriptor decodes an entry; nil: there is none.
func descriptor(raw []byte) (v1.Descriptor, error) {
	if raw == nil {
		return v1.Descriptor{}, errdef.ErrNotFound
	}
	var desc v1.Descriptor
	err := json.Unmarshal(raw, &desc)
	if err == nil {
		err = checkDigest(desc.Digest)
	}
	if err == nil && desc.Size < 0 {
		err = fmt.Errorf("size %d", desc.Size)
	}
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	delete(desc.Annotations, v1.AnnotationRefName)
	if len(desc.Annotations) == 0 {
		desc.Annotations = nil
	}
	return desc, nil
}

// mayContain reports whether a string in the JSON text raw may be or contain
// text: strings without escapes and encoding errors are what they decode to.
func mayContain(raw []byte, text string) bool {
	return bytes.Contains(raw, []byte(text)) || bytes.IndexByte(raw, '\\') >= 0 || !utf8.Valid(raw)
}

// entry is one element of index.json's array, decoded as far as it has to be.
type entry struct {
	raw     json.RawMessage
	name    string        // empty: none
	digest  digest.Digest // not checked
	dropped bool          // it had a name, and lost it to another entry or to Untag
}

// decodeEntry takes what it can get: an entry that is something else has
// neither name nor digest, and is left alone.
func decodeEntry(raw []byte) entry {
	var d struct {
		Digest      digest.Digest     `json:"digest"`
		Annotations map[string]string `json:"annotations"`
	}
	_ = json.Unmarshal(raw, &d) // a member of a wrong type is passed over
	return entry{raw: raw, name: d.Annotations[v1.AnnotationRefName], digest: d.Digest}
}

// newEntry makes an entry of desc, named unless name is empty.
func newEntry(desc v1.Descriptor, name string) (entry, error) {
	annotations := maps.Clone(desc.Annotations)
	delete(annotations, v1.AnnotationRefName)
	if name != "" {
		if annotations == nil {
			annotations = make(map[string]string, 1)
		}
		annotations[v1.AnnotationRefName] = name
	}
	raw, err := json.Marshal(v1.Descriptor{
		MediaType:    desc.MediaType,
		Digest:       desc.Digest,
		Size:         desc.Size,
		Annotations:  annotations,
		Platform:     desc.Platform,
		ArtifactType: desc.ArtifactType,
	})
	return entry{raw: raw, name: name, digest: desc.Digest}, err
}

// drop takes the name from an entry and leaves its other members as they are.
func (e *entry) drop() error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(e.raw, &members); err != nil {
		return err
	}
	for key, value := range members {
		// By any case, because that is how decodeEntry finds them.
		if !strings.EqualFold(key, "annotations") {
			continue
		}
		var annotations map[string]json.RawMessage
		if json.Unmarshal(value, &annotations) != nil {
			continue
		}
		delete(annotations, v1.AnnotationRefName)
		if len(annotations) == 0 {
			delete(members, key)
			continue
		}
		value, err := json.Marshal(annotations)
		if err != nil {
			return err
		}
		members[key] = value
	}
	raw, err := json.Marshal(members)
	e.raw, e.name, e.dropped = raw, "", true
	return err
}

// entries decodes all entries.
func (x index) entries() ([]entry, error) {
	var all []entry
	for _, raw := range elements(x.list) {
		if len(all) == maxEntries {
			return nil, fmt.Errorf("more than %d entries: %w", maxEntries, errdef.ErrSizeExceedsLimit)
		}
		all = append(all, decodeEntry(raw))
	}
	return all, nil
}

// withEntries returns the index as a document with other entries: tidied and
// sorted by name, the nameless ones after them in their own order, because the
// first of several that suit a platform counts.
func (x index) withEntries(entries []entry) ([]byte, error) {
	entries, err := tidy(entries)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		if (a.name == "") != (b.name == "") {
			return strings.Compare(b.name, a.name)
		}
		return strings.Compare(a.name, b.name)
	})
	var doc bytes.Buffer
	doc.Write(x.head)
	doc.WriteByte('[')
	for i, e := range entries {
		if i > 0 {
			doc.WriteByte(',')
		}
		doc.Write(e.raw)
	}
	doc.WriteByte(']')
	doc.Write(x.tail)
	if doc.Len() > maxIndex || len(entries) > maxEntries {
		return nil, fmt.Errorf("%s of %d bytes and %d entries, at most %d and %d: %w",
			indexFile, doc.Len(), len(entries), maxIndex, maxEntries, errdef.ErrSizeExceedsLimit)
	}
	return doc.Bytes(), nil
}

// tidy leaves one entry to a name, the last. An entry without the name it had
// stays, so that its manifest is no garbage to other tools, unless another
// entry lists the manifest or there is no digest to find it by.
func tidy(entries []entry) ([]entry, error) {
	names := make(map[string]bool, len(entries))
	for i := range slices.Backward(entries) {
		e := &entries[i]
		if e.name != "" && names[e.name] {
			if err := e.drop(); err != nil {
				return nil, err
			}
		}
		names[e.name] = true
	}
	listed := make(map[digest.Digest]bool, len(entries))
	for _, e := range entries {
		listed[e.digest] = listed[e.digest] || !e.dropped
	}
	return slices.DeleteFunc(entries, func(e entry) bool {
		if !e.dropped {
			return false
		}
		if listed[e.digest] || checkDigest(e.digest) != nil {
			return true
		}
		listed[e.digest] = true
		return false
	}), nil
}

// tags returns the names after last, sorted.
func (x index) tags(last string) []string {
	var tags []string
	for _, raw := range elements(x.list) {
		// A name that is a digest resolves as the digest, so it is no tag.
		if name := decodeEntry(raw).name; name > last && checkDigest(digest.Digest(name)) != nil {
			tags = append(tags, name)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}
