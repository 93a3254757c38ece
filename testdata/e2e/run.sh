#!/bin/sh
# The end-to-end proof, on Debian 12 as root: sh testdata/e2e/run.sh [PATTERN]
#
# It installs what is missing, trains real models, starts registries and a Docker
# Engine of its own, and runs the tests. What it builds stays in .cache/e2e, or
# in $GALLEY_E2E_CACHE. A PATTERN for go test -run, as in TestE2E/kill,
# TestE2EServe, TestE2EPromote or TestE2EJoblib, runs a part of it.
set -eu

cd "$(dirname "$0")/../.."
here=testdata/e2e
cache=${GALLEY_E2E_CACHE:-$PWD/.cache/e2e}
oras_version=v1.3.6
crane_version=v0.20.6
pattern=${1:-^TestE2E}
old_python=/usr/bin/python3 # Debian's, for which it has packages of scikit-learn
PATH=$PATH:/usr/sbin:/sbin # dockerd lies there

started=$(date +%s)
work=$(mktemp -d)
running= # process ids
export TMPDIR="$work"

say() { echo "[$(($(date +%s) - started)) s] $*"; }
die() {
	echo "run.sh: error: $*" >&2
	exit 1
}

# stop ends what was started here, and waits, so that nothing writes any more
# when the directory goes.
stop() {
	status=$?
	trap - EXIT
	for id in $running; do
		kill "$id" 2>/dev/null || true
	done
	for id in $running; do
		wait "$id" 2>/dev/null || true
	done
	awk -v dir="$work/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount || true
	rm -rf "$work" || true
	exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# missing prints the Debian packages of programs that are not there.
missing() {
	while read -r package program; do
		command -v "$program" >/dev/null || echo "$package"
	done <<-END
		docker.io dockerd
		skopeo skopeo
		buildah buildah
		docker-registry docker-registry
		apache2-utils htpasswd
		iptables iptables
		nodejs node
		tar tar
		zstd zstd
		mount mount
		git git
	END
	perl -MArchive::Tar -e 1 2>/dev/null || echo perl
	[ -n "$(python311)" ] || echo python3 python3-venv
	"$old_python" -c 'import joblib, pandas, sklearn' 2>/dev/null || echo python3-sklearn python3-joblib python3-pandas
}

# python311 prints a Python 3.11 that can make virtual environments: the models'
# packages are pinned for that version.
python311() {
	for program in python3.11 python3 /usr/bin/python3; do
		if "$program" -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
			command -v "$program"
			return
		fi
	done
}

apt_install() {
	say "apt-get install $*"
	export DEBIAN_FRONTEND=noninteractive
	{
		timeout 300 apt-get update -q && timeout 900 apt-get install -q -y --no-install-recommends "$@"
	} >"$work/apt.log" 2>&1 || {
		cat "$work/apt.log" >&2
		die "apt-get cannot install $*"
	}
}

# go_install PACKAGE VERSION keeps the program in the cache and sets $program.
go_install() {
	program=$cache/${1##*/}-$2/${1##*/}
	[ -x "$program" ] && return
	say "go install $1@$2"
	GOBIN=${program%/*} CGO_ENABLED=0 timeout 600 go install "$1@$2"
}

install_tools() {
	[ "$(id -u)" = 0 ] || die "mounting, apt-get and dockerd need root"
	command -v go >/dev/null || die "go is not installed"
	packages=$(missing)
	# shellcheck disable=SC2086 # a list
	[ -z "$packages" ] || apt_install $packages
	packages=$(missing)
	[ -z "$packages" ] || die "still missing after apt-get install:" "$packages"

	go_install oras.land/oras/cmd/oras $oras_version
	export GALLEY_E2E_ORAS="$program"
	go_install github.com/google/go-containerregistry/cmd/crane $crane_version
	export GALLEY_E2E_CRANE="$program"
	GALLEY_E2E_SKOPEO=$(command -v skopeo)
	GALLEY_E2E_BUILDAH=$(command -v buildah)
	export GALLEY_E2E_SKOPEO GALLEY_E2E_BUILDAH

	venv $here/requirements.txt testdata/fraud/requirements.txt
	export GALLEY_E2E_PYTHON="$python"
	venv testdata/joblib/requirements.txt
	export GALLEY_E2E_CURRENT_PYTHON="$python" GALLEY_E2E_OLD_PYTHON="$old_python"
	"$old_python" -c 'import numpy, sklearn, sys; sys.exit((sklearn.__version__[:4], numpy.__version__[:5]) != ("1.2.", "1.24."))' ||
		die "$old_python has not Debian 12's scikit-learn and numpy"
}

# venv REQUIREMENTS INCLUDED... keeps a virtual environment in the cache, another
# one for other requirements, and sets $python.
venv() {
	venv=$cache/venv-$(cat "$@" | cksum | cut -d ' ' -f 1)
	python=$venv/bin/python
	[ -e "$venv/complete" ] && "$python" -c '' && return
	say "pip install -r $1"
	rm -rf "$venv"
	"$(python311)" -m venv "$venv"
	timeout 900 "$python" -m pip install --quiet --disable-pip-version-check -r "$1"
	: >"$venv/complete"
}

# train writes the full-size project, another training of it, and the small
# projects.
train() {
	say "training"
	export GALLEY_E2E_FULL="$work/full" GALLEY_E2E_NEXT="$work/next" GALLEY_E2E_PROJECTS="$work/projects"
	timeout 600 "$GALLEY_E2E_PYTHON" testdata/fraud/train.py --size full --out "$GALLEY_E2E_FULL" &
	one=$!
	timeout 600 "$GALLEY_E2E_PYTHON" testdata/fraud/train.py --size full --out "$GALLEY_E2E_NEXT" \
		--seed 43 --created 2026-01-12T12:00:21+00:00 &
	two=$!
	running="$running $one $two"
	for id in "$one" "$two"; do
		wait "$id" || die "training failed"
	done
	timeout 600 "$GALLEY_E2E_PYTHON" $here/projects.py "$GALLEY_E2E_PROJECTS" || die "training the projects failed"
}

# generate writes model files with the current set of packages and with the old.
generate() {
	say "generating model files"
	export GALLEY_E2E_CURRENT_MODELS="$work/models-current" GALLEY_E2E_OLD_MODELS="$work/models-old"
	gen="timeout 600 env PYTHONDONTWRITEBYTECODE=1"
	$gen "$GALLEY_E2E_CURRENT_PYTHON" testdata/joblib/gen.py "$GALLEY_E2E_CURRENT_MODELS" >"$work/current.log" 2>&1 &
	one=$!
	$gen "$GALLEY_E2E_OLD_PYTHON" testdata/joblib/gen.py "$GALLEY_E2E_OLD_MODELS" >"$work/old.log" 2>&1 &
	two=$!
	running="$running $one $two"
	for id in "$one" "$two"; do
		wait "$id" || {
			cat "$work/current.log" "$work/old.log" >&2
			die "generating model files failed"
		}
	done
	for set in current old; do
		files=$(find "$work/models-$set" -name '*.joblib' -o -name '*.pkl' | wc -l)
		say "$set: $files files"
		[ "$files" -gt 1000 ] || die "the $set set of packages wrote $files files; want more than 1000"
	done
}

# registry NAME [HTPASSWD] starts a registry and sets $address.
registry() {
	port=$("$GALLEY_E2E_PYTHON" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
	address=127.0.0.1:$port
	cat >"$work/$1.yml" <<-END
		version: 0.1
		log: {level: error, accesslog: {disabled: true}}
		storage: {filesystem: {rootdirectory: $work/$1}}
		http: {addr: "$address"}
	END
	[ $# = 1 ] || echo "auth: {htpasswd: {realm: galley, path: $2}}" >>"$work/$1.yml"
	docker-registry serve "$work/$1.yml" >"$work/$1.log" 2>&1 &
	running="$running $!"
	within 20 $! answers "$port" || {
		cat "$work/$1.log" >&2
		die "docker-registry does not answer on $address"
	}
	say "$1 registry on $address"
}

answers() {
	"$GALLEY_E2E_PYTHON" -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)' "$1" 2>/dev/null
}

# within SECONDS ID COMMAND... tries the command until it succeeds, as long as
# the process ID lives.
within() {
	end=$(($(date +%s) + $1))
	id=$2
	shift 2
	until "$@"; do
		kill -0 "$id" 2>/dev/null && [ "$(date +%s)" -lt "$end" ] || return 1
		sleep 0.2
	done
}

start_registries() {
	registry open
	export GALLEY_E2E_REGISTRY="$address"
	export GALLEY_E2E_USER=ada GALLEY_E2E_PASSWORD="pass: word"
	htpasswd -Bbn "$GALLEY_E2E_USER" "$GALLEY_E2E_PASSWORD" >"$work/htpasswd"
	registry private "$work/htpasswd"
	export GALLEY_E2E_PRIVATE="$address"
}

# start_engine starts a Docker Engine that needs no network of its own: nothing
# runs in it. Where that is impossible, buildah has to do.
start_engine() {
	export GALLEY_E2E_ENGINE=docker GALLEY_E2E_DOCKER_HOST="unix://$work/docker.sock"
	dockerd --host "$GALLEY_E2E_DOCKER_HOST" --data-root "$work/docker" --exec-root "$work/docker-run" \
		--pidfile "$work/docker.pid" --storage-driver vfs --bridge none --iptables=false --ip6tables=false \
		>"$work/dockerd.log" 2>&1 &
	running="$running $!"
	if within 30 $! docker --host "$GALLEY_E2E_DOCKER_HOST" version >/dev/null 2>&1; then
		say "dockerd on $GALLEY_E2E_DOCKER_HOST"
		return
	fi
	tail -n 20 "$work/dockerd.log" >&2
	say "WARNING: dockerd DOES NOT START HERE: buildah takes its place, no Docker Engine is tested"
	export GALLEY_E2E_ENGINE=buildah
}

# run LOG COMMAND... shows and keeps what the command prints, and fails as it
# does, or when a test was skipped.
run() {
	log=$1
	shift
	rm -f "$work/passed"
	{ "$@" 2>&1 && : >"$work/passed"; } | tee "$log"
	[ -e "$work/passed" ] || die "failed: $*"
	! grep -q -e '--- SKIP' -e 'no tests to run' "$log" || die "tests were skipped: $*"
}

run_tests() {
	say "go test"
	run "$work/e2e.log" timeout --foreground 1260 \
		go test -tags e2e -count=1 -timeout 20m -run "$pattern" -v ./cmd/galley
	export GALLEY_TEST_REGISTRY="$GALLEY_E2E_REGISTRY"
	run "$work/suite.log" timeout --foreground 360 \
		go test -count=1 -timeout 5m -run '^TestTargets$' -v ./oci
	grep -q -F -e "--- PASS: TestTargets/$GALLEY_TEST_REGISTRY/" "$work/suite.log" ||
		die "the suite did not run over $GALLEY_TEST_REGISTRY"
	run "$work/promote.log" timeout --foreground 360 \
		go test -count=1 -timeout 5m -run '^(TestStory|TestRace)$' -v ./oci/promote
	for test in TestStory TestRace; do
		grep -q -F -e "--- PASS: $test/$GALLEY_TEST_REGISTRY " "$work/promote.log" ||
			die "$test did not run over $GALLEY_TEST_REGISTRY"
	done
}

# read_models compares what the reader finds in the generated files with what
# Python does.
read_models() {
	say "reading the generated files"
	GALLEY_JOBLIB_FIXTURES="$GALLEY_E2E_CURRENT_MODELS:$GALLEY_E2E_OLD_MODELS" timeout 360 \
		go test -count=1 -timeout 5m -run '^TestModels$' -v ./manifest/joblib >"$work/models.log" 2>&1 || {
		grep -v -e '^=== ' -e '--- PASS' "$work/models.log" | head -n 200 >&2
		die "the reader and Python do not agree"
	}
	! grep -q -e '--- SKIP' -e 'no tests to run' "$work/models.log" || die "tests were skipped: TestModels"
	for set in current old; do
		files=$(grep -c -e "--- PASS: TestModels/models-$set/" "$work/models.log" || true)
		say "$set: $files files read as Python does"
		[ "$files" -gt 1000 ] || die "TestModels read $files files of the $set set; want more than 1000"
	done
}

passed() { grep -c -e '--- PASS' "$1"; }

summary() {
	say "passed: $(passed "$work/e2e.log") end-to-end tests, $(passed "$work/suite.log") of the suite for targets, $(passed "$work/models.log") of models"
	echo "  oras $oras_version, crane $crane_version, $("$GALLEY_E2E_SKOPEO" --version), $("$GALLEY_E2E_BUILDAH" --version)"
	echo "  $(docker-registry --version), $("$GALLEY_E2E_PYTHON" --version)"
	echo "  image layer read by $GALLEY_E2E_ENGINE"
	for program in "$GALLEY_E2E_CURRENT_PYTHON" "$GALLEY_E2E_OLD_PYTHON"; do
		"$program" -c 'import joblib, numpy, sklearn; print("  models of scikit-learn", sklearn.__version__, "joblib", joblib.__version__, "numpy", numpy.__version__)'
	done
	[ "$GALLEY_E2E_ENGINE" = docker ] || echo "  WARNING: NOT TESTED WITH A DOCKER ENGINE, which does not start here"
}

install_tools
CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$work/galley" ./cmd/galley
export GALLEY_E2E_GALLEY="$work/galley"
train
generate
read_models
start_registries
start_engine
case $pattern in *Bake* | *E2E) . $here/bake.sh ;; esac
run_tests
summary
