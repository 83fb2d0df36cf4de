#!/usr/bin/env bash
# Builds the etcd and Kubernetes binaries that the tests with build tag `kube`
# run, into a cache outside the checkout. What is there already is kept; a cold
# build takes about ten minutes on two cores and most of that is compiling.
#
#   test/kube/build.sh          build what is missing, then print the directory
#   test/kube/build.sh --dir    only print the directory
#
# TIDEMILL_CACHE     where the cache is (default: $XDG_CACHE_HOME or ~/.cache, then /tidemill)
# KUBEBUILDER_ASSETS a directory with some of the binaries: those are used as they are
set -euo pipefail
cd "$(dirname "$0")/build"

version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
dir="${TIDEMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemill}/kube-$version"
if [[ ${1:-} == --dir ]]; then
	echo "$dir"
	exit
fi
mkdir -p "$dir"
exec 9>"$dir/.lock"
flock 9 # a second run waits, and then finds everything there

# One at a time: two of these links at once want more than 5 GiB.
build() {
	local name=$1 package=$2 start=$SECONDS
	if [[ -x ${KUBEBUILDER_ASSETS:-/nonexistent}/$name || -x $dir/$name ]]; then
		return
	fi
	echo "building $name $version" >&2
	# Without a version, clients can't parse what the API server says it is.
	CGO_ENABLED=0 go build -trimpath -o "$dir/.$name.part" -ldflags \
		"-s -w -X k8s.io/component-base/version.gitVersion=$version" "$package"
	mv "$dir/.$name.part" "$dir/$name"
	echo "built $name in $((SECONDS - start)) s" >&2
}
build etcd go.etcd.io/etcd/server/v3
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
echo "$dir"
