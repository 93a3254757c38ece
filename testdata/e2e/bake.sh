# What the end-to-end proof of galley bake needs; run.sh reads it. It makes an image
# of Debian's Python with scikit-learn, FastAPI and uvicorn, trains a model with the
# same versions, and starts a registry that has the image, a Docker Engine that runs
# containers, and a BuildKit that reads layouts: the Engine's own is too old for it.
# shellcheck shell=sh disable=SC2016,SC2154 # run.sh sets the variables

buildx_version=v0.14.1
buildkit_version=v0.13.2
suite=$(. /etc/os-release && echo "$VERSION_CODENAME") # as $old_python is of
base_packages=python3-sklearn,python3-joblib,python3-fastapi,python3-uvicorn
# What serves nobody in a container.
base_without='./var/cache/apt ./var/cache/debconf ./var/lib/apt/lists ./usr/include ./usr/lib/gcc
	./usr/share/doc ./usr/share/info ./usr/share/locale ./usr/share/man'

bake_tools() {
	command -v debootstrap >/dev/null || apt_install debootstrap
	go_install github.com/docker/buildx/cmd/buildx $buildx_version
	buildx=$program
	go_install github.com/moby/buildkit/cmd/buildkitd $buildkit_version
	buildkitd=$program
	export GALLEY_E2E_DOCKER_CONFIG="$work/docker-config"
	mkdir -p "$GALLEY_E2E_DOCKER_CONFIG/cli-plugins"
	ln -s "$buildx" "$GALLEY_E2E_DOCKER_CONFIG/cli-plugins/docker-buildx"
	echo '{}' >"$GALLEY_E2E_DOCKER_CONFIG/config.json"
}

# bake_train trains, with Debian's packages, while other things are done.
bake_train() {
	export GALLEY_E2E_SERVICE="$work/service" GALLEY_E2E_LARGE="$work/large" GALLEY_E2E_SMALL="$work/small"
	{
		timeout 300 "$old_python" $here/service.py "$GALLEY_E2E_SERVICE" &&
			timeout 300 "$old_python" $here/large.py "$GALLEY_E2E_SMALL" 10000000 &&
			timeout 300 "$old_python" $here/large.py "$GALLEY_E2E_LARGE" 1073741824
	} >"$work/service.log" 2>&1 &
	training=$!
	running="$running $training"
}

# start_bake_engine starts a Docker Engine in whose containers there is no network
# but that of the machine.
start_bake_engine() {
	export GALLEY_E2E_BAKE_DOCKER_HOST="unix://$work/bake-docker.sock"
	for driver in overlay2 vfs; do
		export GALLEY_E2E_STORAGE=${driver%2} # Buildah's name for it
		dockerd --host "$GALLEY_E2E_BAKE_DOCKER_HOST" --data-root "$work/bake-docker-$driver" --exec-root "$work/bake-docker-run" \
			--pidfile "$work/bake-docker.pid" --storage-driver $driver --bridge none --iptables=false --ip6tables=false \
			>"$work/bake-dockerd.log" 2>&1 &
		engine=$!
		running="$running $engine"
		if within 30 $engine docker --host "$GALLEY_E2E_BAKE_DOCKER_HOST" version >/dev/null 2>&1; then
			say "dockerd on $GALLEY_E2E_BAKE_DOCKER_HOST, $driver"
			return
		fi
		kill $engine 2>/dev/null && wait $engine || true
	done
	tail -n 20 "$work/bake-dockerd.log" >&2
	die "dockerd does not start here: without it nobody sees a baked image run"
}

start_buildkit() {
	export GALLEY_E2E_BUILDKIT="unix://$work/buildkit.sock"
	: >"$work/buildkit.toml"
	"$buildkitd" --config "$work/buildkit.toml" --addr "$GALLEY_E2E_BUILDKIT" --root "$work/buildkit" \
		--containerd-worker=false --oci-worker=true >"$work/buildkit.log" 2>&1 &
	running="$running $!"
	within 30 $! test -S "$work/buildkit.sock" || {
		cat "$work/buildkit.log" >&2
		die "buildkitd does not start"
	}
}

# bake_base starts a registry that has the image python:3.11, from the cache if
# possible.
bake_base() {
	kept=$cache/bake-base-$({
		cat $here/bake.sh
		dpkg-query -W python3 python3-sklearn python3-joblib python3-numpy
	} | cksum | cut -d ' ' -f 1)
	mkdir -p "$work/bake"
	[ ! -e "$kept/complete" ] || cp -R "$kept/docker" "$work/bake"
	registry bake
	export GALLEY_E2E_BAKE_REGISTRY="$address" GALLEY_E2E_PYTHON_IMAGE="$address/python:3.11"
	[ ! -e "$kept/complete" ] || return 0

	mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
		awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1; exit }')
	[ -n "$mirror" ] || die "apt-get has no mirror of Debian $suite"
	say "debootstrap $suite from $mirror"
	timeout 900 debootstrap --variant=minbase --include=$base_packages "$suite" "$work/python" "$mirror" >"$work/debootstrap.log" 2>&1 || {
		tail -n 20 "$work/debootstrap.log" >&2
		die "debootstrap failed"
	}
	# shellcheck disable=SC2086 # a list
	printf '%s\n' $base_without >"$work/without"
	tar -C "$work/python" -X "$work/without" -c -f "$work/python.tar" .
	rm -rf "$work/python"
	docker --host "$GALLEY_E2E_BAKE_DOCKER_HOST" import --change 'WORKDIR /app' "$work/python.tar" "$GALLEY_E2E_PYTHON_IMAGE" >/dev/null
	rm "$work/python.tar"
	docker --host "$GALLEY_E2E_BAKE_DOCKER_HOST" push --quiet "$GALLEY_E2E_PYTHON_IMAGE" >/dev/null
	rm -rf "$kept"
	mkdir -p "$kept"
	cp -R "$work/bake/docker" "$kept"
	: >"$kept/complete"
}

bake_tools
bake_train
start_bake_engine
start_buildkit
bake_base
wait "$training" || {
	cat "$work/service.log" >&2
	die "training the service's model failed"
}
say "ready to bake: buildx $buildx_version, BuildKit $buildkit_version beside the Engine's own"
