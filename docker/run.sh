#!/bin/bash
# sy and sy-server in containers: many clients at once, kills, a cut network, a rolling restart, little memory, seccomp
# profiles, a read-only root, an ordinary user. After each the trees must be equal. As root on Debian 12 or 13:
#
#   docker/run.sh                      all scenarios
#   docker/run.sh memory network       some; --list names them
#
# It installs what is missing, and starts a Docker daemon of its own where none runs: in namespaces of its own, so
# that no route and no firewall rule of this host changes. The programs are built static, each is an image of its
# own, and nothing is pulled. All it makes is called sy-rig-*, or is below /var/tmp/sy-rig.*, and gone at the end.
#
# compose.yaml says how clients reach a server, and which of it is for copying; scenarios.sh, what is played;
# seccomp.json is a profile for both programs that allows io_uring.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
# shellcheck source=docker/daemon.sh
. "$here/daemon.sh"
# shellcheck source=docker/rig.sh
. "$here/rig.sh"
# shellcheck source=docker/scenarios.sh
. "$here/scenarios.sh"

# All scenarios together take two minutes on two idle cores.
seconds_max=240

main() {
    case ${1-} in
    --list)
        printf '%s\n' "${scenarios[@]}"
        return
        ;;
    --inside)
        rig=$2 scenario=$3
        "scenario_${scenario//-/_}"
        return
        ;;
    esac
    local name chosen=("$@")
    [ $# -gt 0 ] || chosen=("${scenarios[@]}")
    for name in "${chosen[@]}"; do
        [[ " ${scenarios[*]} " == *" $name "* ]] || die "no scenario is called '$name': docker/run.sh --list"
    done
    [ "$(id -u)" -eq 0 ] || die "needs root, for Docker and for network namespaces"
    exec 9>/run/lock/sy-rig
    # What a run that was killed has left running holds it too, and comes to its end.
    flock --timeout 60 9 || die "another docker/run.sh is under way"
    install_what_is_missing
    clear_leftovers
    trap tear_down EXIT
    trap 'exit 130' INT TERM HUP
    make_room
    build_programs
    have_a_daemon
    build_images
    play "${chosen[@]}"
}

install_what_is_missing() {
    local missing=() packages=()
    missing_tools
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "needs ${missing[*]}"
    if [ -d /run/systemd/system ] && [[ " ${packages[*]} " == *" docker.io "* ]]; then
        die "needs docker.io; installing it starts it, so that is up to you"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null >/dev/null
}

# Fills `missing` and `packages`.
missing_tools() {
    local tool package
    while read -r tool package; do
        command -v "$tool" >/dev/null && continue
        missing+=("$tool")
        packages+=("$package")
    done <<-END
		dockerd docker.io
		ip iproute2
		iptables iptables
		rsync rsync
		mkfs.ext4 e2fsprogs
		mount mount
		flock util-linux
		unshare util-linux
		nsenter util-linux
	END
    # Debian 13 has it apart.
    if ! command -v docker >/dev/null; then
        missing+=(docker)
        apt-cache show docker-cli >/dev/null 2>&1 && packages+=(docker-cli)
    fi
    if ! compose version >/dev/null 2>&1; then
        missing+=("docker compose")
        packages+=(docker-compose)
    fi
}

# A file system in one file, which is removed in a moment. A disk that is told of every block that is free again
# (mounted with discard) takes 2 ms a file, minutes for all. Not in /tmp, which may be in memory, where what
# containers write counts as theirs.
make_room() {
    home=$(mktemp -d /var/tmp/sy-rig.XXXXXX)
    rig=$home/disk
    mkdir "$rig"
    # Just a directory for a daemon that runs already and may have mounts of its own, and where there are no loop devices.
    docker info >/dev/null 2>&1 && return
    truncate -s 16G "$home/image"
    mkfs.ext4 -q "$home/image"
    mount -o loop,nodiscard "$home/image" "$rig" || true
}

# Static, so that an image needs nothing else.
build_programs() {
    local built
    built=$("$here/../kernel-tests/static.sh")
    mkdir "$rig/bin"
    cp "$built/"{sy,sy-server,relay} "$rig/bin/"
}

build_images() {
    local name
    for name in server client relay; do
        # The old builder: what BuildKit comes with differs from host to host, and this takes nothing of it.
        DOCKER_BUILDKIT=0 docker build --quiet --target "$name" --tag "sy-rig-$name" --file "$here/Dockerfile" \
            "$rig/bin" >"$rig/build.log" 2>&1 || die "docker build --target $name: $(cat "$rig/build.log")"
    done
}

# Each in a shell of its own, which ends at the first thing that is not as it should be.
play() {
    local name began code failed=0 until=$((SECONDS + seconds_max))
    for name in "$@"; do
        began=$SECONDS code=0
        rm -f "$rig/said"
        # In the background, since a shell that waits for that hears signals.
        timeout --foreground $((until > began ? until - began : 1)) \
            "$here/run.sh" --inside "$rig" "$name" &
        player=$!
        wait $player || code=$?
        if [ $code -eq 0 ]; then
            echo "docker $name: $(cat "$rig/said"), $((SECONDS - began)) s"
        else
            failed=$((failed + 1))
            [ $code -ne 124 ] || echo "docker $name: all scenarios together should take $seconds_max s at most"
            echo "docker $name: FAILED"
            show_containers
        fi
        remove_containers
    done
    if [ $failed -gt 0 ]; then
        echo "docker $failed of $# scenarios FAILED"
        exit 1
    fi
    echo "docker $# scenarios ok"
}

die() {
    echo "docker/run.sh: $*" >&2
    exit 1
}

tear_down() {
    [ -n "${home-}" ] || return 0
    [ -z "${player-}" ] || kill "$player" 2>/dev/null || true
    remove_all
    stop_daemon
    remove_room "$home"
}

remove_room() { # HOME
    # Lazy: what a killed run left behind may still write there.
    ! mountpoint -q "$1/disk" || umount --lazy "$1/disk"
    rm -rf "$1"
}

main "$@"
