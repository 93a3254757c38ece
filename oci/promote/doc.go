// Package promote moves a model from stage to stage. A stage is a tag;
// promotion checks the candidate, records an event and moves the tag, and
// never changes a digest.
//
// The record lies in the registry: one manifest an event, each under a tag of
// its own that nobody moves, numbered, with the artifact as its subject and
// the event before by its digest. That is the only layout that loses nothing
// when several write at once, and that garbage collectors leave alone.
//
// # Concurrency
//
// No registry compares and swaps. Whoever wants to change a stage announces
// the next number under a tag of its own and lists the tags, twice, for lists
// are not read at once; it goes on only if it finds itself there, and nobody
// else has announced the number or taken it. It records the event, lists once
// more, moves the tag and reads it back. Of those who act through galley at
// most one succeeds at a time, as long as the registry lists what it has just
// written, which is checked, and a change takes no more than a minute, or it
// ends without. A writer that is killed leaves the stage as it was or its event
// recorded: then the event is the truth, and the next change moves the tag
// first. Whoever moves the tag past galley is not stopped, and shows. Only a
// lock in Git or in CI is more than that.
package promote
