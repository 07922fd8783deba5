#!/bin/sh
# What takes machines of its own, with all that they need: Debian's kernels as packages that are not installed, and static
# binaries to run on them. As root.
#     kernel-tests/proof.sh kernels
#     kernel-tests/proof.sh power-cuts [--seed N] [COUNT]
set -eu
cd "$(dirname "$0")/.."
kernel-tests/kernels.sh
binaries=$(kernel-tests/static.sh)
exec cargo run --quiet --release -p kernel-tests --bin proof -- \
    --binaries "$binaries" --kernels "${CARGO_TARGET_DIR:-target}/kernels" "$@"
