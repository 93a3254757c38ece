package joblib

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"galley/manifest/joblib/internal/container"
)

// sniff names what the first bytes of a file give away by themselves, or
// nothing.
func sniff(head []byte) Kind {
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n")
	lower := strings.ToLower(string(text[:min(len(text), 16)]))
	switch {
	case len(head) == 0:
		return Empty
	case bytes.HasPrefix(head, []byte("version https://git-lfs.github.com/spec/v1")):
		return Pointer
	case strings.HasPrefix(lower, "<!doctype html"), strings.HasPrefix(lower, "<html"):
		return HTML
	case bytes.HasPrefix(head, []byte("tree\nversion=v")):
		return LightGBM
	case bytes.HasPrefix(head, []byte("CBM1")):
		return CatBoost
	case bytes.HasPrefix(head, []byte("binf")), bytes.HasPrefix(head, []byte("{L\x00\x00\x00\x00\x00\x00\x00\x07learner")):
		return XGBoost
	case isONNX(head):
		return ONNX
	case len(text) > 0 && (text[0] == '{' || text[0] == '[') && isText(head):
		return sniffJSON(text)
	}
	return ""
}

// sniffJSON tells an xgboost model, whose first key is "learner", from other
// JSON.
func sniffJSON(text []byte) Kind {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err == nil && t == json.Delim('{') {
		if t, err = d.Token(); err == nil && t == "learner" {
			return XGBoost
		}
	}
	return JSON
}

// packaged reports whether head begins like something that has to be opened to
// be known.
func packaged(head []byte) bool {
	return container.Detect(head) != container.Plain || isZip(head) || isHDF5(head)
}

// archive names the zip archives and HDF5 files that hold models, by the
// names inside, which neither format compresses.
func archive(data []byte) Kind {
	holds := func(s string) bool { return bytes.Contains(data, []byte(s)) }
	switch {
	case isHDF5(data):
		if holds("keras_version") || holds("layer_names") {
			return Keras
		}
		return Unknown
	case !isZip(data):
		return ""
	case holds("model.weights.h5"):
		return Keras
	case holds("schema.json"), skopsEntry(data):
		return Skops
	}
	return Zip
}

func isZip(data []byte) bool  { return bytes.HasPrefix(data, []byte("PK\x03\x04")) }
func isHDF5(data []byte) bool { return bytes.HasPrefix(data, []byte("\x89HDF\r\n\x1a\n")) }

// skopsEntry reports whether the first entry of a zip archive is an array as
// skops names them: by a number. Its schema.json comes last and may lie
// beyond the window.
func skopsEntry(data []byte) bool {
	const fixed = 30 // bytes before the name in a local file header
	if len(data) < fixed {
		return false
	}
	n := int(binary.LittleEndian.Uint16(data[26:]))
	name, ok := strings.CutSuffix(string(data[fixed:min(fixed+n, len(data))]), ".npy")
	return ok && name != "" && strings.Trim(name, "0123456789") == ""
}

// isONNX reports whether head is the beginning of an ONNX ModelProto: its IR
// version, fields of the message's own numbers and types, then the graph.
func isONNX(head []byte) bool {
	const graph = 7
	const varints, messages = 1<<1 | 1<<5, 1<<2 | 1<<3 | 1<<4 | 1<<6 | 1<<graph | 1<<8 | 1<<14
	if len(head) == 0 || head[0] != 1<<3 {
		return false
	}
	for len(head) > 0 {
		field, wire := uint(head[0]>>3), head[0]&7
		value, n := binary.Uvarint(head[1:])
		if n <= 0 {
			return false
		}
		head = head[1+n:]
		switch {
		case wire == 0 && varints>>field&1 == 1:
		case wire == 2 && messages>>field&1 == 1:
			if field == graph {
				return value > 0
			}
			if value > uint64(len(head)) {
				return false
			}
			head = head[value:]
		default:
			return false
		}
	}
	return false
}

// plain names what is neither a model nor a pickle.
func plain(data []byte) Kind {
	if isText(data[:min(len(data), headSize)]) {
		return Text
	}
	return Unknown
}

// isText reports whether head is UTF-8 without control characters; its last
// character may be cut.
func isText(head []byte) bool {
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && n == 1 && utf8.FullRune(head) {
			return false
		}
		if r < ' ' && !strings.ContainsRune("\t\n\r\f", r) {
			return false
		}
		head = head[n:]
	}
	return true
}
