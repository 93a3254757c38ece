package promote

import "time"

// IntentTag is the tag of an intent.
func IntentTag(s *Stage, number int, at time.Time, rest string) string {
	return tagOf(s.Name, intentKind, number, at, rest)
}
