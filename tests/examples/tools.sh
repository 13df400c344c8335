#!/bin/sh
# Install what `make examples` runs: Go with its gRPC on Debian as root, the packages of Node into build/. Does nothing
# where it is there.
set -eu
cd "$(dirname "$0")/../.."

installed() { for package in "$@"; do dpkg -s "$package" >/dev/null 2>&1 || return 1; done; }

# With the other version of golang-protobuf, which Debian would choose, the generated code cannot be serialised.
go='golang-go golang-google-grpc-dev golang-google-protobuf-dev golang-github-golang-protobuf-1-5-dev
  protoc-gen-go protoc-gen-go-grpc'
# shellcheck disable=SC2086
installed $go || {
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends $go >/dev/null
}
[ -d build/examples/node_modules/@grpc/proto-loader ] || {
  mkdir -p build/examples
  cp examples/node/package.json build/examples/
  npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/examples
}
