package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"reflect"

	"github.com/opencontainers/go-digest"

	"galley/manifest/joblib"
)

// Cache remembers what was found in files by what their file system tells of
// them. What it returns is believed as long as nothing is written: see
// [Packed.Confirm]. Its methods are called from several goroutines.
type Cache interface {
	// Identify returns a text that is the same for two looks at a file only
	// if nobody can have written to it between them; empty if there is none.
	// It must also differ between versions of this package.
	Identify(fs.FileInfo) string
	// Get returns what was put for the key.
	Get(key string) ([]byte, bool)
	// Put keeps data for the key, or forgets what was kept if data is nil.
	Put(key string, data []byte)
}

// identify is c.Identify, where there is a cache.
func identify(c Cache, info fs.FileInfo) string {
	if c == nil {
		return ""
	}
	return c.Identify(info)
}

// layerRecord is what a cache keeps of a layer.
type layerRecord struct {
	Digest digest.Digest `json:"digest"`
	DiffID digest.Digest `json:"diffID"`
	Size   int64         `json:"size"`
	Files  []fileRecord  `json:"files"` // in the order of the layer's
}

type fileRecord struct {
	Size   int64          `json:"size"`
	Digest digest.Digest  `json:"digest"`
	Report *joblib.Report `json:"report"`
	Peek   joblib.Peek    `json:"peek"` // of the report, which leaves it out
}

// maxRecord bounds a record in bytes.
const maxRecord = 4 << 20

// recall fills in what the cache remembers of the layer, and reports whether it
// does.
func (l *packedLayer) recall(c Cache) bool {
	l.cache, l.key = c, l.cacheKey()
	if l.key == "" {
		return false
	}
	data, ok := c.Get(l.key)
	if !ok || len(data) > maxRecord {
		return false
	}
	r, ok := readRecord(data)
	if !ok || len(r.Files) != len(l.files) {
		return false
	}
	for i, f := range r.Files {
		if f.Size != l.files[i].size {
			return false
		}
	}
	if l.format == FormatRaw && (r.Digest != r.Files[0].Digest || r.DiffID != r.Digest || r.Size != r.Files[0].Size) {
		return false
	}
	for i, f := range r.Files {
		l.files[i].sum, l.files[i].report = f.Digest, f.Report
	}
	l.desc.Digest, l.desc.Size, l.diffID = r.Digest, r.Size, r.DiffID
	l.recalled = true
	return true
}

// cacheKey names everything that the record depends on; empty where a file
// cannot be told from what it may become, or is at hand anyway.
func (l *packedLayer) cacheKey() string {
	type file struct {
		ID, Path string
		Exec     bool
	}
	key := struct {
		Format Format
		Allow  []string
		Files  []file
	}{Format: l.format, Allow: l.files[0].scan.Allow}
	for _, s := range l.files {
		if s.id == "" || s.data != nil {
			return ""
		}
		key.Files = append(key.Files, file{s.id, s.Path, s.exec})
	}
	text, err := marshal(key)
	if err != nil {
		return ""
	}
	return digest.FromBytes(text).Encoded()
}

// readRecord reads what may be anything.
func readRecord(data []byte) (r layerRecord, ok bool) {
	if json.Unmarshal(data, &r) != nil || r.Digest.Validate() != nil || r.DiffID.Validate() != nil || r.Size < 0 {
		return r, false
	}
	for i, f := range r.Files {
		if f.Digest.Validate() != nil || f.Report == nil {
			return r, false
		}
		r.Files[i].Report.Peek = f.Peek
	}
	return r, true
}

// remember puts what was measured into the cache, if no file changed meanwhile
// and the record reads back as it was.
func (l *packedLayer) remember() {
	if l.key == "" {
		return
	}
	r := layerRecord{Digest: l.desc.Digest, DiffID: l.diffID, Size: l.desc.Size}
	for _, s := range l.files {
		if !s.steady {
			return
		}
		r.Files = append(r.Files, fileRecord{s.size, s.sum, s.report, s.report.Peek})
	}
	data, err := marshal(r)
	if err != nil || len(data) > maxRecord {
		return
	}
	if back, ok := readRecord(data); ok && reflect.DeepEqual(back, r) {
		l.cache.Put(l.key, data)
	}
}

// Confirm reads the files of which [PackOptions.Cache] told what is in them, and
// compares. Whoever writes the artifact, or anything that depends on it, calls it
// first; without a cache it does nothing. What is not true is forgotten, and is a
// [*ChangedError]: then the files have to be packed again. It must not be called
// together with [Packed.Fetch].
func (p *Packed) Confirm(ctx context.Context) error {
	room := int64(maxKept)
	var recalled, again []*packedLayer
	for _, l := range p.layers {
		if !l.recalled {
			room -= l.keptSize()
			continue
		}
		fresh := *l
		fresh.files, fresh.recalled = nil, false
		for _, s := range l.files {
			f := *s
			f.sum, f.report, f.past, f.id, f.read = "", nil, true, "", nil
			fresh.files = append(fresh.files, &f)
		}
		recalled, again = append(recalled, l), append(again, &fresh)
	}
	err := measure(ctx, again, PackOptions{}, room)
	for i, l := range recalled {
		if err == nil {
			err = l.compare(again[i])
		}
	}
	if changed, ok := errors.AsType[*ChangedError](err); ok {
		changed.Cached = true
		for _, l := range recalled {
			l.cache.Put(l.key, nil)
		}
	}
	if err != nil {
		return err
	}
	for i, l := range recalled {
		l.kept, l.recalled = again[i].kept, false
	}
	return nil
}

// compare compares what the cache told of the layer with what is there.
func (l *packedLayer) compare(real *packedLayer) error {
	for i, s := range l.files {
		if s.sum != real.files[i].sum || !reflect.DeepEqual(s.report, real.files[i].report) {
			return &ChangedError{Path: s.Path}
		}
	}
	if l.desc.Digest != real.desc.Digest || l.desc.Size != real.desc.Size || l.diffID != real.diffID {
		return &ChangedError{Path: l.files[0].Path}
	}
	return nil
}
