package image

import (
	"bytes"
	"encoding/json"
	"testing"

	"galley/manifest"
)

// FuzzPatch wants that a patch changes what it says and nothing else.
func FuzzPatch(f *testing.F) {
	seeds := []string{
		`{}`, `{"a":1}`, ` { "b\u0061" : 1.0 , "c" : [ 1 , 2 ] } `, `{"config":{"Env":["A=b"]},"rootfs":{"diff_ids":[]},"history":[{}]}`,
		`{"config":null,"rootfs":null}`, `{"annotations":{"a":"b","A":"c"}}`, `[]`, `{"a":{"b":{"c":1e400}}}`, `{"config":[]}`, `{"rootfs":{"diff_ids":"x"}}`,
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	if len(seeds) < 10 {
		f.Fatalf("%d seeds", len(seeds))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := parseDocument(data)
		if err != nil {
			return
		}
		var want bytes.Buffer
		if err := json.Compact(&want, data); err != nil {
			t.Fatal(err)
		}
		if got := doc.raw(); !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("unpatched %s, want %s", got, want.Bytes())
		}
		out, err := patchConfig(doc, Changes{Layers: []Layer{{Format: manifest.FormatTar, CreatedBy: "x"}}, Env: []string{"A=1"}, Labels: map[string]string{"k": "v"}, Entrypoint: []string{"e"}})
		if err != nil {
			return
		}
		again, err := parseDocument(out.raw())
		if err != nil {
			t.Fatalf("%s: %v", out.raw(), err)
		}
		for _, m := range doc {
			if m.key != "config" && m.key != "rootfs" && m.key != "history" && !bytes.Equal(compact(m.value), again.get(m.key)) {
				t.Errorf("%s became %s", m.value, again.get(m.key))
			}
		}
	})
}

func compact(raw json.RawMessage) []byte {
	var b bytes.Buffer
	json.Compact(&b, raw)
	return b.Bytes()
}

// FuzzScan wants that a look at any tar ends, and that what it found can be
// kept and merged.
func FuzzScan(f *testing.F) {
	seeds := [][]byte{
		nil, tarOf(f), tarOf(f, "d /app 750 1000 1000", "l /app/models /srv", "w /app/old", "f /app/.wh..wh..opq "),
		tarOf(f, "f /usr/lib/python3/dist-packages/b.egg-info/PKG-INFO Name: b"), tarOf(f, "f /opt/venv/pyvenv.cfg home = /usr/bin"),
		tarOf(f, "f /../../x y", "f x y", "d /"), bytes.Repeat([]byte{0xff}, 1024), tarOf(f, "l /app /app", "l /bin bin"),
	}
	seeds = append(seeds, pythonBase(f)...)
	for _, s := range seeds {
		f.Add(s)
	}
	if len(seeds) < 11 {
		f.Fatalf("%d seeds", len(seeds))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := scan(bytes.NewReader(data), []string{"/app", "/app/models"})
		if err != nil {
			return
		}
		back := decodeRecord(r.encode())
		if back == nil {
			t.Fatalf("record %s cannot be read back", r.encode())
		}
		m := newMerged()
		m.add(back)
		m.add(r)
		l := &Look{Dirs: map[string]Dir{}}
		var i Image
		m.environment(l, i.Config)
		l.fill([]string{"/app/models"}, m)
		read, err := DecodeLook(l.Encode())
		if err != nil {
			t.Fatalf("look %s: %v", l.Encode(), err)
		}
		if read.Encode() != l.Encode() {
			t.Errorf("look %s reads back as %s", l.Encode(), read.Encode())
		}
	})
}

// FuzzDecodeLook wants no panic, and that what is read can be written.
func FuzzDecodeLook(f *testing.F) {
	for _, s := range []string{`{"v":1}`, `{"v":1,"dirs":{"/app":"d 750 1 1","/x":"l y","/z":"-","/f":"f"},"packages":{"a":"1"}}`, `{`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := DecodeLook(text)
		if err != nil {
			return
		}
		l.Covers([]string{"/app/models", "/a/../b"}, []string{"a"})
		if _, err := DecodeLook(l.Encode()); err != nil && len(l.Encode()) <= maxLook {
			t.Errorf("%s: %v", l.Encode(), err)
		}
	})
}
