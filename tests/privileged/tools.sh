#!/bin/sh
# Install, on Debian and as root, what the privileged rows of the fault matrix need. Does nothing where it is there.
set -eu
have() { for tool in "$@"; do command -v "$tool" >/dev/null || return 1; done; }
have mkfs.xfs mkfs.ext4 mount mountpoint prlimit cc && exit 0
apt-get update -qq
apt-get install -y -qq --no-install-recommends xfsprogs e2fsprogs mount util-linux gcc libc6-dev >/dev/null
