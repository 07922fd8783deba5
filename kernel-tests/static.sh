#!/bin/sh
# Builds the binaries that run where there is nothing else: in a machine's initramfs, in an image from scratch.
# Prints where they are.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}/static
triple=x86_64-unknown-linux-gnu
RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile static --target "$triple" --target-dir "$target" \
    -p sy -p kernel-tests --bin sy --bin sy-server --bin sy-guest --bin relay >&2
echo "$(cd "$target" && pwd)/$triple/static"
