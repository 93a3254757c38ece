#!/bin/sh
# Unpack a tar+gzip blob with GNU tar: read_gnutar.sh BLOB < SUMS
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/tree"
cat >"$dir/sums"
tar -xzf "$1" -C "$dir/tree"
cd "$dir/tree"
sha256sum --check --strict --quiet ../sums
cut -c 67- ../sums | LC_ALL=C sort >../want
find . ! -type d | cut -c 3- | LC_ALL=C sort | diff ../want -
