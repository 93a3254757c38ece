package training

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"galley/manifest/internal/strictjson"
)

// naive is the layout of a time whose zone nobody recorded.
const naive = "2006-01-02T15:04:05"

// ParseTrained reads an ISO 8601 date or time and returns it in the form of
// [Summary.Trained].
func ParseTrained(text string) (string, error) {
	if t, ok := isoTime(strings.TrimSpace(text)); ok {
		return t, nil
	}
	return "", fmt.Errorf("time %.40q: want ISO 8601 such as 2006-01-02T15:04:05Z", text)
}

// trained returns the first time in v that says when a model was trained: by
// the order of the keys, first at the top level, then one below.
func trained(v strictjson.Value) string {
	top := slices.Values([]strictjson.Value{v})
	for _, level := range []iter.Seq[strictjson.Value]{top, children(v)} {
		for _, key := range []string{"trained_at", "training_timestamp", "timestamp", "created_at", "generated_at"} {
			for object := range level {
				if t, ok := isoTime(strings.TrimSpace(text(object.Member(key)))); ok {
					return t
				}
			}
		}
	}
	return ""
}

// children yields the values in an object or array.
func children(v strictjson.Value) iter.Seq[strictjson.Value] {
	if v.Kind() == strictjson.Array {
		return v.Items()
	}
	return func(yield func(strictjson.Value) bool) {
		for _, member := range v.Members() {
			if !yield(member) {
				return
			}
		}
	}
}

// isoTime normalises a date or a time of ISO 8601, in the extended or the basic
// format, with T or a blank between. A time with an offset becomes RFC 3339 in
// UTC; one without, which Python writes by default, stays without, for guessing
// the zone would be a lie. Fractions of a second are dropped.
func isoTime(s string) (string, bool) {
	date, clock, ok := splitDate(s)
	if !ok {
		return "", false
	}
	if clock == "" {
		_, err := time.Parse(time.DateOnly, date)
		return date, err == nil
	}
	clock, offset, ok := splitZone(clock)
	if !ok {
		return "", false
	}
	for _, layout := range []string{"15:04:05", "15:04", "150405", "1504"} {
		if len(clock) != len(layout) {
			continue
		}
		t, err := time.Parse(time.DateOnly+layout+"-0700", date+clock+offset)
		if offset == "" {
			t, err = time.Parse(time.DateOnly+layout, date+clock)
		}
		switch {
		case err != nil:
			return "", false
		case offset == "":
			return t.Format(naive), true
		}
		t = t.UTC()
		return t.Format(time.RFC3339), 0 <= t.Year() && t.Year() <= 9999
	}
	return "", false
}

// splitDate splits s after its date, which it returns with hyphens. The clock
// is empty for a date alone.
func splitDate(s string) (date, clock string, ok bool) {
	switch {
	case len(s) == 10:
		return s, "", true
	case len(s) > 11 && (s[10] == 'T' || s[10] == 't' || s[10] == ' '):
		return s[:10], s[11:], true
	case len(s) > 9 && s[8] == 'T':
		return s[:4] + "-" + s[4:6] + "-" + s[6:8], s[9:], true
	}
	return "", "", false
}

// splitZone splits a clock into hours to seconds, without their fraction, and
// the offset as ±hhmm, empty when there is none.
func splitZone(s string) (clock, offset string, ok bool) {
	clock = s
	if i := strings.LastIndexAny(s, "+-"); i >= 0 {
		clock, offset = s[:i], strings.Replace(s[i:], ":", "", 1)
		if len(offset) == 3 {
			offset += "00"
		}
		if len(offset) != 5 {
			return "", "", false
		}
	} else if strings.HasSuffix(s, "Z") || strings.HasSuffix(s, "z") {
		clock, offset = s[:len(s)-1], "+0000"
	}
	if i := strings.IndexAny(clock, ".,"); i >= 0 {
		fraction := clock[i+1:]
		if fraction == "" || strings.Trim(fraction, "0123456789") != "" {
			return "", "", false
		}
		clock = clock[:i]
	}
	return clock, offset, true
}
