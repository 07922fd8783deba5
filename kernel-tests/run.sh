#!/bin/sh
# All tests of the workspace, the ones that need a real kernel included; other kernels, power cuts, containers. Run as root it
# installs the tools that are missing and skips nothing. Arguments go to `cargo test`, and with some only that is run.
set -eu
cd "$(dirname "$0")/.."

something_is_missing() {
    for tool in g++ rsync mkfs.ext4 mkfs.xfs mkfs.btrfs chattr setpriv prlimit mount ip iptables bash ssh sshd ssh-keygen \
        qemu-system-x86_64 busybox cpio depmod xz; do
        command -v "$tool" >/dev/null 2>&1 || return 0
    done
    return 1
}

PATH=$PATH:/usr/sbin:/sbin
export PATH
if something_is_missing; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "kernel-tests/run.sh: needs rsync, e2fsprogs, util-linux, mount, iproute2, iptables, bash and OpenSSH, and for other" >&2
        echo "kernels qemu, xfsprogs, btrfs-progs, busybox-static, cpio, kmod and xz-utils, and g++" >&2
        exit 1
    fi
    if [ -d /run/systemd/system ] && ! command -v sshd >/dev/null 2>&1; then
        echo "kernel-tests/run.sh: needs openssh-server; installing it starts it, so that is up to you" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    apt-get install -y -qq --no-install-recommends \
        rsync e2fsprogs util-linux mount iproute2 iptables bash openssh-client openssh-server \
        g++ qemu-system-x86 xfsprogs btrfs-progs busybox-static cpio kmod xz-utils </dev/null >/dev/null
fi

kernel-tests/seeded.sh --check
cargo build --release --bins

# Where every user may run them: the checkout may be in somebody's home.
bin=$(mktemp -d "${TMPDIR:-/tmp}/sy-bin.XXXXXX")
trap 'rm -rf "$bin"' EXIT
chmod 755 "$bin"
target=${CARGO_TARGET_DIR:-target}
cp "$target/release/sy" "$target/release/sy-server" "$bin/"

export SY_BIN_DIR="$bin" SY_TESTS_REQUIRE=1
# A test waits more than it computes.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((2 * $(nproc)))}"
cargo test --release --workspace --no-fail-fast "$@"
[ $# -eq 0 ] || exit 0

echo "the same without the ring"
# By ssh only where that is the topic: what differs is behind a pipe, and each connection takes 0.3 s.
SY_ENGINE=portable cargo test --release -p kernel-tests --test push --no-fail-fast -- --skip ::ssh
fuzz/run.sh 5

if [ "$(id -u)" -ne 0 ]; then
    echo "kernel-tests/run.sh: other kernels, power cuts and containers need root: left out"
    exit 0
fi
kernel-tests/proof.sh kernels
kernel-tests/proof.sh power-cuts
docker/run.sh
