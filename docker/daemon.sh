# shellcheck shell=bash disable=SC2034,SC2154 # run.sh and what it takes in are one script
# The Docker daemon: the one that runs, or one of our own for the time being.

# Debian's two spellings.
compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose "$@"
    else
        docker-compose "$@"
    fi
}

have_a_daemon() {
    if docker info >/dev/null 2>&1; then
        return
    fi
    start_daemon
}

# In namespaces of its own, and out of reach of a terminal's Ctrl-C: what it mounts, bridges and filters is nobody else's, and ends with it. A containerd of
# this host is out of its sight, so that it starts its own. No firewall rules at all: its networks lead nowhere.
start_daemon() {
    mkdir -p /run/containerd
    echo '{}' >"$rig/daemon.json"
    # shellcheck disable=SC2016 # $0 is for the inner shell
    setsid unshare --mount --net sh -c '
        mount -t tmpfs sy-rig /run/containerd
        ip link set lo up
        exec dockerd --config-file "$0/daemon.json" --data-root "$0/data" --exec-root "$0/run" \
            --pidfile "$0/daemon.pid" --host "unix://$0/docker.sock" \
            --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /sy-rig \
            --bridge none --iptables=false --ip6tables=false' "$rig" >"$rig/daemon.log" 2>&1 9>&- &
    daemon_pid=$!
    export DOCKER_HOST=unix://$rig/docker.sock
    local tries=0
    until docker info >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -gt 60 ] || ! kill -0 $daemon_pid 2>/dev/null; then
            tail -n 20 "$rig/daemon.log" >&2
            die "dockerd does not start; its last words are above"
        fi
        sleep 0.5
    done
}

stop_daemon() {
    [ -n "${daemon_pid-}" ] || return 0
    kill "$daemon_pid" 2>/dev/null || true
    wait "$daemon_pid" || true
    remove_cgroups
}

# Of a run that was killed itself. Nobody else has the lock, so nothing of it is in use.
clear_leftovers() {
    local old pid
    for old in /var/tmp/sy-rig.*; do
        [ -d "$old" ] || continue
        pid=$(cat "$old/disk/daemon.pid" 2>/dev/null || true)
        if [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$old"; then
            kill "$pid"
            # It ends the containers first.
            timeout 60 tail --pid="$pid" -f /dev/null || die "a dockerd of an earlier run, pid $pid, does not end"
            remove_cgroups
        fi
        remove_room "$old"
    done
    if docker info >/dev/null 2>&1; then
        remove_all
    fi
}

# What the daemon leaves of its parent of all containers, in either hierarchy.
remove_cgroups() {
    find /sys/fs/cgroup -depth -type d -path '*/sy-rig*' -exec rmdir {} + 2>/dev/null || true
}
