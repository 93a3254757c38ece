package promote

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest/gate"
)

// The types of what is written; see FORMAT.md.
const (
	// ArtifactType is that of an event's manifest.
	ArtifactType = "application/vnd.galley.promotion.v1+json"
	// MediaTypeStatement is that of its only layer, an in-toto statement:
	// https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
	MediaTypeStatement = "application/vnd.in-toto+json"
	// PredicateType is that of the statement's predicate, an [Event] in JSON.
	PredicateType = "https://galley.ml/promotion/v1"

	statementType = "https://in-toto.io/Statement/v1"
	prefix        = "ml.galley.event."
)

// Action is what an event did to a stage.
type Action string

// The actions.
const (
	Promoted   Action = "promote"
	RolledBack Action = "rollback"
	Held       Action = "hold"
	Unheld     Action = "unhold"
)

// Event is one change of a stage. Who and where it says it comes from is the
// claim of whoever could write to the registry.
type Event struct {
	Stage  string    `json:"stage"`
	Number int       `json:"number"` // from 1, without gaps
	Action Action    `json:"action"`
	Time   time.Time `json:"time"` // by the registry's clock, to the second
	// Repository is that of the stage, without its registry, if the event is in
	// another one.
	Repository string `json:"repository,omitempty"`
	// Recorded is when an imported event was written; Time is when it happened
	// elsewhere.
	Recorded time.Time `json:"recorded,omitzero"`

	From    digest.Digest `json:"from,omitempty"`  // what the tag named; empty: nothing
	To      digest.Digest `json:"to"`              // what it names after it
	Model   digest.Digest `json:"model"`           // the artifact that To is, or carries
	Image   string        `json:"image,omitempty"` // what runs it, as NAME@DIGEST
	Version string        `json:"version,omitempty"`
	Was     string        `json:"was,omitempty"` // the version of From
	// Revision is the commit that the model was trained at.
	Revision string `json:"revision,omitempty"`

	Previous digest.Digest `json:"previous,omitempty"` // the manifest of the event before; empty for the first
	Actor    string        `json:"actor,omitempty"`    // claimed
	Run      string        `json:"run,omitempty"`      // the CI run, claimed
	Reason   string        `json:"reason,omitempty"`
	Policy   digest.Digest `json:"policy,omitempty"` // what the gates were; empty: none
	Gates    []gate.Result `json:"gates,omitempty"`
	Checked  int           `json:"checked,omitempty"` // how many gates there were, also where they are too many for an annotation
	Scan     string        `json:"scan,omitempty"`    // the verdict on the model
	Forced   bool          `json:"forced,omitempty"`  // in spite of gates, a hold or a move outside galley
	Hold     bool          `json:"hold,omitempty"`    // whether a hold stands after it
	Tool     string        `json:"tool,omitempty"`

	Tag    string        `json:"-"` // that names it
	Digest digest.Digest `json:"-"` // of its manifest

	about v1.Descriptor // its subject
}

// statement is an in-toto statement, so that an event can be signed.
type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     *Event    `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name,omitempty"`
	Digest map[string]string `json:"digest"`
}

// Bounds of what an event may hold, in bytes. A listing reads one manifest an
// event, and tags and annotations are what people type and registries keep.
const (
	maxText  = 1000
	maxGates = 16 << 10
)

// pack makes the manifest and the layer of e. about is what e.To describes.
func (e *Event) pack(name string, about v1.Descriptor) (v1.Manifest, []byte, error) {
	layer, err := json.Marshal(statement{
		Type:          statementType,
		Subject:       []subject{{name, map[string]string{string(about.Digest.Algorithm()): about.Digest.Encoded()}}},
		PredicateType: PredicateType,
		Predicate:     e,
	})
	if err != nil {
		return v1.Manifest{}, nil, err
	}
	annotations, err := e.annotations()
	return v1.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    v1.MediaTypeImageManifest,
		ArtifactType: ArtifactType,
		Config:       v1.Descriptor{MediaType: v1.DescriptorEmptyJSON.MediaType, Digest: v1.DescriptorEmptyJSON.Digest, Size: v1.DescriptorEmptyJSON.Size},
		Layers:       []v1.Descriptor{{MediaType: MediaTypeStatement, Digest: digest.FromBytes(layer), Size: int64(len(layer))}},
		Subject:      &v1.Descriptor{MediaType: about.MediaType, ArtifactType: about.ArtifactType, Digest: about.Digest, Size: about.Size},
		Annotations:  annotations,
	}, layer, err
}

// annotations repeat the event, so that a listing need not read its layer.
func (e *Event) annotations() (map[string]string, error) {
	a := map[string]string{}
	for key, field := range e.fields() {
		if text := field.text(); text != "" {
			a[prefix+key] = text
		}
	}
	if len(e.Gates) == 0 {
		return a, nil
	}
	gates, err := json.Marshal(e.Gates)
	if err == nil && len(gates) > maxGates { // then what they are and what they said
		short := make([]gate.Result, len(e.Gates))
		for i, g := range e.Gates {
			short[i] = gate.Result{Gate: g.Gate, Verdict: g.Verdict}
		}
		gates, err = json.Marshal(short)
	}
	if err == nil && len(gates) <= maxGates {
		a[prefix+"gates"] = string(gates)
	}
	return a, err
}

// field is a value of an event as an annotation has it.
type field struct {
	text func() string
	read func(string) error
}

// fields are the event's, by the key of their annotation.
func (e *Event) fields() map[string]field {
	str := func(to *string) field {
		return field{func() string { return *to }, func(s string) error { *to = s; return nil }}
	}
	dgst := func(to *digest.Digest) field {
		return field{func() string { return to.String() }, func(s string) error { *to = digest.Digest(s); return to.Validate() }}
	}
	flag := func(to *bool) field {
		return field{
			func() string {
				if !*to {
					return ""
				}
				return "true"
			},
			func(s string) error { *to = s == "true"; return nil },
		}
	}
	at := func(to *time.Time) field {
		return field{
			func() string {
				if to.IsZero() {
					return ""
				}
				return to.UTC().Format(time.RFC3339)
			},
			func(s string) (err error) { *to, err = time.Parse(time.RFC3339, s); *to = to.UTC(); return err },
		}
	}
	number := func(to *int) field {
		return field{
			func() string {
				if *to == 0 {
					return ""
				}
				return strconv.Itoa(*to)
			},
			func(s string) (err error) { *to, err = strconv.Atoi(s); return err },
		}
	}
	return map[string]field{
		"repository": str(&e.Repository), "stage": str(&e.Stage), "action": str((*string)(&e.Action)),
		"number": number(&e.Number), "checked": number(&e.Checked),
		"time": at(&e.Time), "recorded": at(&e.Recorded),
		"from": dgst(&e.From), "to": dgst(&e.To), "model": dgst(&e.Model), "image": str(&e.Image),
		"version": str(&e.Version), "was": str(&e.Was), "revision": str(&e.Revision),
		"previous": dgst(&e.Previous), "actor": str(&e.Actor), "run": str(&e.Run), "reason": str(&e.Reason),
		"policy": dgst(&e.Policy), "scan": str(&e.Scan), "forced": flag(&e.Forced), "hold": flag(&e.Hold), "tool": str(&e.Tool),
	}
}

// errNotEvent is what is in a manifest that is no event.
var errNotEvent = errors.New("not the record of a promotion")

// parseEvent reads an event from its manifest, d, as the tag names it.
func parseEvent(stage, tag string, d v1.Descriptor, doc []byte) (*Event, error) {
	var m v1.Manifest
	if err := json.Unmarshal(doc, &m); err != nil || m.ArtifactType != ArtifactType {
		return nil, errNotEvent
	}
	e := &Event{Tag: tag, Digest: d.Digest}
	for key, f := range e.fields() {
		text, ok := m.Annotations[prefix+key]
		if !ok {
			continue
		}
		if err := f.read(text); err != nil {
			return nil, fmt.Errorf("%w: %s is %.100q", errNotEvent, prefix+key, text)
		}
	}
	if text, ok := m.Annotations[prefix+"gates"]; ok {
		if err := json.Unmarshal([]byte(text), &e.Gates); err != nil {
			return nil, fmt.Errorf("%w: %sgates is not JSON", errNotEvent, prefix)
		}
	}
	n, _, short, ok := parseTag(stage, eventKind, tag)
	switch {
	case e.To == "" || e.Model == "" || e.Time.IsZero():
		return nil, fmt.Errorf("%w: without %sto, %smodel or %stime", errNotEvent, prefix, prefix, prefix)
	case !slices.Contains([]Action{Promoted, RolledBack, Held, Unheld}, e.Action):
		return nil, fmt.Errorf("%w: unknown action %.100q", errNotEvent, e.Action)
	case !ok || e.Stage != stage || e.Number != n:
		return nil, fmt.Errorf("%w: tag %s names event %d of %.100q", errNotEvent, tag, e.Number, e.Stage)
	case short != d.Digest.Encoded()[:shortDigest]:
		return nil, fmt.Errorf("%w: tag %s names %s", errNotEvent, tag, d.Digest)
	case m.Subject == nil || m.Subject.Digest != e.To:
		return nil, fmt.Errorf("%w: its subject is another artifact than %s", errNotEvent, e.To)
	}
	e.about = *m.Subject
	return e, nil
}

// The kinds of tags of a record. A tag is STAGE.KIND-NUMBER-TIME-REST.
const (
	eventKind  = 'h'     // history: REST begins the digest of the event's manifest
	intentKind = 'i'     // intent: REST is random
	doneSuffix = ".done" // marks an intent that counts no more and could not be deleted
	leftSuffix = ".left" // marks one whose event is recorded and whose tag is not moved

	tagTime     = "20060102T150405Z"
	shortDigest = 8
	maxNumber   = 12 // digits
)

// tagOf names a record.
func tagOf(stage string, kind byte, number int, at time.Time, rest string) string {
	return fmt.Sprintf("%s.%c-%06d-%s-%s", stage, kind, number, at.UTC().Format(tagTime), rest)
}

// parseTag is the inverse of tagOf.
func parseTag(stage string, kind byte, tag string) (number int, at time.Time, rest string, ok bool) {
	text, ok := strings.CutPrefix(tag, stage+"."+string(kind)+"-")
	if !ok {
		return 0, at, "", false
	}
	parts := strings.SplitN(text, "-", 3)
	if len(parts) != 3 || len(parts[0]) < 6 || len(parts[0]) > maxNumber {
		return 0, at, "", false
	}
	n, err := strconv.ParseUint(parts[0], 10, 63)
	if err != nil || n < 1 {
		return 0, at, "", false
	}
	at, err = time.Parse(tagTime, parts[1])
	return int(n), at, parts[2], err == nil && parts[2] != ""
}

// isEvent reports whether the tag can name an event of the stage.
func isEvent(stage, tag string) bool {
	_, _, rest, ok := parseTag(stage, eventKind, tag)
	return ok && len(rest) == shortDigest && strings.Trim(rest, "0123456789abcdef") == ""
}

// stageOf is the stage that an event's tag belongs to.
func stageOf(tag string) (string, bool) {
	name, _, ok := strings.Cut(tag, "."+string(eventKind)+"-")
	return name, ok && CheckName(name) == nil && isEvent(name, tag)
}

// numberOf is the number in an event's tag.
func numberOf(tag string) int {
	_, text, _ := strings.Cut(tag, "."+string(eventKind)+"-")
	text, _, _ = strings.Cut(text, "-")
	n, _ := strconv.Atoi(text) // 0: it is none
	return n
}

// counts returns which of the events of one number counts, in the order of their
// tags: the one that the next event names, or else the first.
func counts(tags []string, named digest.Digest) int {
	if named != "" {
		of := func(tag string) bool { return strings.HasSuffix(tag, "-"+named.Encoded()[:shortDigest]) }
		return max(0, slices.IndexFunc(tags, of))
	}
	return 0
}

// sameNumber returns how many of the last events have one number.
func sameNumber(events []string) int {
	n := 1
	for n < len(events) && numberOf(events[len(events)-1-n]) == numberOf(events[len(events)-1]) {
		n++
	}
	return n
}

// clip bounds a text that people or CI systems give, and puts it on one line.
func clip(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "�")), " ")
	if len(s) <= maxText {
		return s
	}
	const cut = "…"
	return strings.ToValidUTF8(s[:maxText-len(cut)], "") + cut
}
