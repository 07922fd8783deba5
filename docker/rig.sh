# shellcheck shell=bash disable=SC2034,SC2154 # run.sh and what it takes in are one script
# What scenarios are made of: trees, servers, pushes, and what must hold of them. A scenario runs in a shell of its own.

# How long anything may take that is to come true.
patience_seconds=60
own_profile=(--security-opt "seccomp=$here/seccomp.json")

# ---- trees

# Plants a tree in DIR: COUNT files of 2 KiB, one of so many MiB, and what else a push has to bring. What arrives by
# TCP has the server's owner, so all is root's.
plant() { # DIR COUNT MIB
    local dir=$1 part odd=$'an odd\nname \303\244\377'
    mkdir -p "$dir/empty" "$dir/deep/er/still"
    for part in 0 1 2 3 4 5 6 7 8 9; do
        mkdir "$dir/$part"
        head -c $(($2 * 2048 / 10)) /dev/urandom | split -a 4 -b 2048 - "$dir/$part/f"
    done
    head -c "$3M" /dev/urandom >"$dir/large"
    echo 'somewhere below' >"$dir/deep/er/still/file"
    : >"$dir/$odd"
    truncate -s 3M "$dir/hole"
    ln -s ../0/faaaa "$dir/deep/link"
    ln -s nowhere "$dir/dangling"
    chmod 0400 "$dir/1/faaaa"
    chmod 0777 "$dir/deep/er/still/file"
    touch -d '1999-12-31 23:59:59.123456789' "$dir/2/faaab" "$dir/large"
    chmod 0750 "$dir/deep"
    chmod 0500 "$dir/empty"
    touch -d '2001-02-03 04:05:06.000000001' "$dir/empty" "$dir/deep/er"
}

# Both have the same entries, with the same content, modes and times to the nanosecond, and nothing of sy's is left but
# perhaps the marker, which a server takes away a moment after the push.
assert_same() { # SRC DST
    local found
    found=$(rsync -rlptc --dry-run --itemize-changes --delete --modify-window=-1 --exclude='/.sy.*.unclean' \
        "$1/" "$2/" 2>&1) || fail "rsync could not compare $1 and $2: $found"
    [ -z "$found" ] || fail "$2 should be as $1; what would make it so:" "$found"
}

count_files() { # DIR
    find "$1" -type f 2>/dev/null | wc -l
}

# ---- what is and what should be

fail() { # WHAT [MORE]
    printf 'docker %s: %s\n' "$scenario" "$1" >&2
    [ $# -lt 2 ] || printf '%s\n' "$2" | head -n 20 >&2
    exit 1
}

# What the line of the scenario says beside its name.
say() {
    echo "$*" >"$rig/said"
}

await() { # WHAT COMMAND...
    local what=$1 until=$((SECONDS + patience_seconds))
    shift
    until "$@"; do
        [ $SECONDS -lt $until ] || fail "waited $patience_seconds s, and this did not come true: $what"
        sleep 0.05
    done
}

assert_logged() { # CONTAINER TEXT
    local log
    log=$(log_of "$1")
    [[ $log == *"$2"* ]] || fail "the log of sy-rig-$1 should say '$2'; it says:" "$log"
}

log_of() { # CONTAINER
    docker logs "sy-rig-$1" 2>&1
}

state_of() { # CONTAINER FIELD
    docker inspect --format "{{.State.$2}}" "sy-rig-$1"
}

# ---- servers

# The server of compose.yaml with both doors; it exports $rig/export.
stand_up() {
    mkdir -p "$rig/export"
    rig_compose up --detach server door slow-door >"$rig/compose.log" 2>&1 ||
        fail "docker compose up failed:" "$(cat "$rig/compose.log")"
    await_server
    door=$(docker inspect --format '{{(index .NetworkSettings.Networks "sy-rig-net").IPAddress}}' sy-rig-door)
}

rig_compose() {
    # The old one looks for files of ours where it was started.
    (cd "$here" && SY_RIG_EXPORT="$rig/export" SY_RIG_SRC="${src-}" compose --project-name sy-rig --file compose.yaml "$@")
}

await_server() {
    await "sy-rig-server listens, or ends" server_listens_or_ended
    is_under_way server ||
        fail "sy-server should listen, and exited $(state_of server ExitCode); it said:" "$(log_of server)"
}

server_listens_or_ended() {
    server_listens || ! is_under_way server
}

# A socket that listens has this flag in the kernel's table.
server_listens() {
    grep -q ' 00010000 .* /run/sy/sy.sock$' "/proc/$(state_of server Pid)/net/unix" 2>/dev/null
}

# A server of its own in a container with these options of `docker run`: no network, and the socket and the module in
# $rig/$scenario.
start_server() { # DOCKER-OPTION... -- SERVER-OPTION...
    local options=()
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    mkdir -p "$rig/$scenario/socket" "$rig/$scenario/export"
    docker run --detach --name sy-rig-server --network none "${options[@]}" \
        --volume "$rig/$scenario/socket:/run/sy" --volume "$rig/$scenario/export:/srv/backup" \
        sy-rig-server --module backup=/srv/backup,rw "$@" >"$rig/docker.log" 2>&1 ||
        fail "the server's container does not start:" "$(cat "$rig/docker.log")"
    await_server
}

# On SIGTERM it ends in good order.
stop_server() {
    docker stop -t 30 sy-rig-server >/dev/null
    local code
    code=$(state_of server ExitCode)
    [ "$code" = 0 ] || fail "sy-server should exit 0 at SIGTERM, and exited $code"
}

# ---- pushes

# Pushes $src/ from a container of its own, called sy-rig-NAME. `client` has its options of `docker run`.
start_push() { # NAME DEST PUSH-OPTION...
    local name=$1 dest=$2
    shift 2
    docker rm --force "sy-rig-$name" >/dev/null 2>&1 || true
    docker run --detach --name "sy-rig-$name" "${client[@]}" --volume "$src:/src:ro" \
        sy-rig-client push --no-progress "$@" /src/ "$dest" >"$rig/docker.log" 2>&1 ||
        fail "the container of push $name does not start:" "$(cat "$rig/docker.log")"
}

# The push ends, with one of these codes.
ends() { # NAME CODE...
    local name=$1 codes code expected
    shift
    codes=$*
    code=$(timeout "$((patience_seconds * 2))" docker wait "sy-rig-$name") ||
        fail "push $name should end, and did not within $((patience_seconds * 2)) s; it said:" "$(log_of "$name")"
    for expected in "$@"; do
        [ "$code" != "$expected" ] || return 0
    done
    fail "push $name should exit with ${codes// / or }, and exited $code; it said:" "$(log_of "$name")"
}

push() { # NAME DEST PUSH-OPTION...
    start_push "$@"
    ends "$1" 0
}

# So many files of the push are in place, and it goes on.
await_middle() { # NAME DST COUNT
    await "$3 files of push $1 have arrived" has_files "$2" "$3"
    is_under_way "$1" || fail "push $1 should be in its middle, and has ended; it said:" "$(log_of "$1")"
}

has_files() { # DIR COUNT
    [ "$(count_files "$1")" -ge "$2" ]
}

is_under_way() { # NAME
    [ "$(state_of "$1" Running)" = true ]
}

# ---- the network

# Pulls the cable of the doors, or plugs it in again.
cable() { # up|down
    nsenter --target "$(state_of door Pid)" --net ip link set eth0 "$1"
}

# ---- the end

our_containers() { # OPTION...
    docker ps --all --filter 'name=^/?sy-rig[-_]' "$@"
}

show_containers() {
    local name
    for name in $(our_containers --format '{{.Names}}'); do
        echo "---- $name: $(docker inspect --format \
            '{{.State.Status}}, exit code {{.State.ExitCode}}, OOM-killed {{.State.OOMKilled}}' "$name")"
        docker logs --tail 30 "$name" 2>&1
    done
    echo "----"
}

remove_containers() {
    our_containers --quiet | xargs --no-run-if-empty docker rm --force >/dev/null
}

remove_all() {
    local kind
    remove_containers || true
    for kind in network volume; do
        docker $kind ls --quiet --filter 'name=^sy-rig-' | xargs --no-run-if-empty docker $kind rm >/dev/null || true
    done
    docker images --quiet 'sy-rig-*' | sort -u | xargs --no-run-if-empty docker rmi --force >/dev/null || true
}
