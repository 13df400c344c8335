#!/bin/sh
# Install, on Debian and as root, the browser that tests/browser drives, and a font for it. Does nothing where it is there.
set -eu
[ -x /usr/bin/chromium ] && exit 0
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium fonts-roboto-unhinted >/dev/null
