// Package nearest finds the words that a mistyped one may have meant.
package nearest

import (
	"cmp"
	"slices"
	"strings"
)

// maxWord bounds the words that are compared, in bytes: names are short, and
// the work grows with the product of the lengths.
const maxWord = 128

// far is more than any two words that are compared differ by.
const far = 1 << 20

// Distance is how many bytes must be changed, added or removed to make a into
// b (Levenshtein). Words that are empty or longer than 128 bytes are far from
// every other.
func Distance(a, b string) int {
	if a == b {
		return 0
	}
	if a == "" || b == "" || len(a) > maxWord || len(b) > maxWord {
		return far
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// Words returns the at most n candidates that resemble word, the most alike
// first and the candidates' order within: case aside, they differ by about a third
// of its bytes at the most, or one contains the other.
func Words(word string, candidates []string, n int) []string {
	type guess struct {
		word     string
		distance int
	}
	var guesses []guess
	low := strings.ToLower(word)
	for _, c := range candidates {
		lc := strings.ToLower(c)
		d := Distance(low, lc)
		if min(len(low), len(lc)) > 1 && (strings.Contains(lc, low) || strings.Contains(low, lc)) {
			d = min(d, 1)
		}
		if d <= max(1, (len(word)+1)/3) {
			guesses = append(guesses, guess{c, d})
		}
	}
	slices.SortStableFunc(guesses, func(a, b guess) int { return cmp.Compare(a.distance, b.distance) })
	var words []string
	for _, g := range guesses[:min(n, len(guesses))] {
		words = append(words, g.word)
	}
	return words
}
