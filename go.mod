module galley

go 1.26.0

require (
	cuelabs.dev/go/oci/ociregistry v0.0.0-20251212221603-3adeb8663819 // the registry protocol of galley serve, and a registry in memory for tests
	github.com/expr-lang/expr v1.17.8 // filters and gates: expressions with types, without side effects or loops
	github.com/goccy/go-yaml v1.19.2 // galley.yaml with line and column in every error
	github.com/klauspost/compress v1.20.3 // gzip and zstd, several times the standard library's speed
	github.com/opencontainers/go-digest v1.0.0 // the digest type of every OCI library
	github.com/opencontainers/image-spec v1.1.1 // the OCI types
	github.com/pierrec/lz4/v4 v4.1.33 // lz4 joblib files
	github.com/rogpeppe/go-internal v1.16.0 // lockedfile: locks between processes on every system; testscript: tests of the real binary
	github.com/spf13/cobra v1.10.2 // commands, help and completion
	github.com/spf13/pflag v1.0.9 // cobra's flags, named where commands share them
	github.com/ulikunitz/xz v0.5.17 // xz and lzma joblib files
	github.com/vbauerster/mpb/v8 v8.9.3 // progress bars
	golang.org/x/crypto v0.58.0 // bcrypt: the passwords of galley serve
	golang.org/x/sync v0.24.0 // errgroup: bounded concurrency that stops on the first error
	golang.org/x/term v0.47.0 // a password prompt without echo
	oras.land/oras-go/v2 v2.7.0 // registries, credentials, copies of graphs
)

require (
	github.com/VividCortex/ewma v1.2.0 // indirect
	github.com/acarl005/stripansi v0.0.0-20180116102854-5a71ef0e047d // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/mattn/go-runewidth v0.0.16 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/tools v0.40.0 // indirect
)
