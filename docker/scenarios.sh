# shellcheck shell=bash disable=SC2034,SC2154 # run.sh and what it takes in are one script
# The scenarios, in the order in which they are played. Each has a shell and containers of its own; its trees are in
# $rig/$scenario, and $rig/export/NAME where the server is that of compose.yaml.

scenarios=(many-clients compose docker-exec client-killed server-killed network rolling-restart memory
    default-profile own-profile read-only ordinary-user)

# By the network, or by the socket.
on_network() {
    client=(--network sy-rig-net "${own_profile[@]}")
}
at_socket() {
    client=(--network none "${own_profile[@]}" --volume sy-rig-socket:/run/sy)
}
# By the socket of a server of one's own.
at_own_socket() {
    client=(--network none --volume "$rig/$scenario/socket:/run/sy" "$@")
}

# Eight at once, half of them by the network.
scenario_many_clients() {
    stand_up
    local number
    for number in 1 2 3 4 5 6 7 8; do
        plant "$rig/$scenario/$number" 500 5
    done
    for number in 1 2 3 4 5 6 7 8; do
        src=$rig/$scenario/$number
        if [ $((number % 2)) -eq 0 ]; then
            on_network
            start_push "client-$number" "sy://$door/backup/many-$number"
        else
            at_socket
            start_push "client-$number" "sy:///backup/many-$number"
        fi
    done
    for number in 1 2 3 4 5 6 7 8; do
        ends "client-$number" 0
        assert_same "$rig/$scenario/$number" "$rig/export/many-$number"
    done
    say "8 trees arrived at once"
}

# The lines that compose.yaml gives, names of the network included.
scenario_compose() {
    src=$rig/$scenario
    plant "$src" 200 2
    stand_up
    local dest
    for dest in sy:///backup/by-socket sy://door/backup/by-name; do
        rig_compose run --rm -T client push --no-progress /src/ "$dest" >"$rig/compose.log" 2>&1 </dev/null ||
            fail "docker compose run client push /src/ $dest failed:" "$(cat "$rig/compose.log")"
        assert_same "$src" "$rig/export/${dest##*/}"
    done
    say "by the socket, and to the door by its name"
}

# From the host into a container: docker exec is the remote shell.
scenario_docker_exec() {
    stand_up
    local src=$rig/$scenario said
    plant "$src" 500 5
    said=$("$rig/bin/sy" push --no-progress -e 'docker exec -i' "$src/" sy-rig-server:/srv/backup/by-exec 2>&1) ||
        fail "sy push -e 'docker exec -i' should exit 0; it said:" "$said"
    assert_same "$src" "$rig/export/by-exec"
    say "from the host, with docker exec as the remote shell"
}

scenario_client_killed() {
    stand_up
    on_network
    src=$rig/$scenario
    local dst=$rig/export/client-killed arrived
    plant "$src" 4000 32
    # With the container goes its network, often before the last words of its connection: then the server waits for
    # them until its patience ends, which is the client's. A push that doesn't wait for that arrives as well, but the
    # first session, when it ends, takes its temp files away, and so gives their directories a new time.
    start_push victim "sy://$door:7874/backup/client-killed" --timeout 5
    await_middle victim "$dst" 500
    docker kill sy-rig-victim >/dev/null
    ends victim 137
    await "the server notices that the client is gone" a_push_was_lost
    arrived=$(count_files "$dst")
    push again "sy://$door/backup/client-killed"
    assert_same "$src" "$dst"
    say "killed at $arrived of $(count_files "$src") files, the next push brought the rest"
}

a_push_was_lost() {
    [[ $(log_of server) =~ sy-server:\ session\ .*\ exit=(10|30)\  ]]
}

scenario_server_killed() {
    stand_up
    on_network
    src=$rig/$scenario
    local dst=$rig/export/server-killed arrived
    plant "$src" 4000 32
    start_push orphan "sy://$door:7874/backup/server-killed"
    await_middle orphan "$dst" 500
    docker kill sy-rig-server >/dev/null
    ends orphan 10
    assert_logged orphan "connection lost"
    arrived=$(count_files "$dst")
    docker start sy-rig-server >/dev/null
    await_server
    push again "sy://$door/backup/server-killed"
    assert_same "$src" "$dst"
    say "killed at $arrived of $(count_files "$src") files, the client exited 10, the next push brought the rest"
}

# A cable that is out for less than --timeout is not noticed; for longer, it is said, and the next push goes on.
scenario_network() {
    stand_up
    on_network
    src=$rig/$scenario
    local dst=$rig/export/network code
    plant "$src" 4000 32
    start_push patient "sy://$door:7874/backup/network"
    await_middle patient "$dst" 500
    cable down
    sleep 4
    is_under_way patient || fail "4 s without a network should not end a push; it said:" "$(log_of patient)"
    cable up
    ends patient 0
    assert_same "$src" "$dst"

    rm -rf "$dst"
    start_push impatient "sy://$door:7874/backup/network" --timeout 4
    await_middle impatient "$dst" 500
    cable down
    ends impatient 30 10
    code=$(state_of impatient ExitCode)
    assert_logged impatient "sy: sy://"
    cable up
    # As with a client that was killed: its session has its temp files until it ends.
    await "the server notices that the client is gone" a_push_was_lost
    push again "sy://$door/backup/network"
    assert_same "$src" "$dst"
    say "4 s without it: the push went on; longer than --timeout 4: exit $code, the next one brought the rest"
}

# One server goes and the next one comes, with a push under way that ends in the 10 seconds it is given, one that does
# not, and one that comes in between.
scenario_rolling_restart() {
    stand_up
    on_network
    local short=$rig/$scenario/short long=$rig/$scenario/long stopping code
    plant "$short" 1000 24
    plant "$long" 1000 200
    src=$long
    start_push long "sy://$door:7874/backup/long"
    src=$short
    start_push short "sy://$door:7874/backup/short"
    await_middle long "$rig/export/long" 100
    await_middle short "$rig/export/short" 100
    docker stop -t 30 sy-rig-server >/dev/null &
    stopping=$!
    await "the old server says that it ends" old_server_ends
    start_push late "sy://$door/backup/late"
    ends late 10
    ends short 0
    assert_same "$short" "$rig/export/short"
    ends long 5 10
    code=$(state_of long ExitCode)
    wait $stopping
    [ "$(state_of server ExitCode)" = 0 ] ||
        fail "sy-server should exit 0 at SIGTERM, and exited $(state_of server ExitCode)"
    docker start sy-rig-server >/dev/null
    await_server
    push late "sy://$door/backup/late"
    src=$long
    push long "sy://$door/backup/long"
    assert_same "$short" "$rig/export/late"
    assert_same "$long" "$rig/export/long"
    say "exit 0; a short push ended meanwhile, a long one was told (exit $code), a late one too (10); all again: equal"
}

old_server_ends() {
    [[ $(log_of server) == *"shutting down"* ]]
}

# Page cache counts too, so the kernel has to give it back all the time.
scenario_memory() {
    local small=(--memory 64m --memory-swap 64m --cpus 2) peaks name
    src=$rig/$scenario/src
    plant "$src" 20000 512
    start_server "${own_profile[@]}" "${small[@]}" --
    at_own_socket "${own_profile[@]}" "${small[@]}"
    push small sy:///backup/dst --json
    assert_same "$src" "$rig/$scenario/export/dst"
    peaks=$(log_of small | sed -n 's/.*"event":"summary".*/&/p' | grep -oE '"(target_)?peak_rss_bytes":[0-9]+' |
        sed 's/.*://' | sort -n | tail -n 1)
    push again sy:///backup/dst --stats
    assert_logged again "files transferred: 0"
    for name in server small again; do
        [ "$(state_of "$name" OOMKilled)" = false ] || fail "sy-rig-$name was killed for its memory"
    done
    stop_server
    say "20,000 files and 512 MiB with 64 MiB each; the larger of both took $((peaks / 1048576)) MiB itself"
}

# Docker's own profile refuses io_uring since version 25. Before that, ours without the ring stands in for it.
scenario_default_profile() {
    local version profile=() said which="Docker's profile"
    version=$(docker version --format '{{.Server.Version}}')
    said=$(docker run --rm --name sy-rig-doctor --network none sy-rig-server doctor)
    if [ "${version%%.*}" -lt 25 ]; then
        which="Docker $version allows io_uring; our profile without it"
        profile_without_ring >"$rig/without-ring.json"
        profile=(--security-opt "seccomp=$rig/without-ring.json")
        said=$(docker run --rm --name sy-rig-doctor --network none "${profile[@]}" sy-rig-server doctor)
    fi
    grep -q '^engine: portable.*(EPERM)' <<<"$said" ||
        fail "Docker $version should refuse io_uring here; the doctor says:" "$said"
    src=$rig/$scenario/src
    plant "$src" 2000 20
    start_server "${profile[@]}" --
    at_own_socket "${profile[@]}"
    push portable sy:///backup/dst --stats
    assert_same "$src" "$rig/$scenario/export/dst"
    assert_logged portable "Engine: portable"
    for name in server portable; do
        said=$(log_of "$name" | grep -c 'engine: portable (epoll and threads): io_uring is refused (EPERM)' || true)
        [ "$said" = 1 ] || fail "the log of sy-rig-$name should say once which engine it has, and says it $said times"
    done
    stop_server
    say "$which: both ends went on with epoll, and said so once"
}

profile_without_ring() {
    sed '/"names": \["io_uring_enter"/ { n; s/SCMP_ACT_ALLOW/SCMP_ACT_ERRNO/ }' "$here/seccomp.json"
}

scenario_own_profile() {
    src=$rig/$scenario/src
    plant "$src" 2000 20
    start_server "${own_profile[@]}" -- --engine uring
    at_own_socket "${own_profile[@]}"
    push uring sy:///backup/dst --engine uring --stats
    assert_same "$src" "$rig/$scenario/export/dst"
    assert_logged uring "Engine: uring"
    stop_server
    say "both ends insisted on io_uring, and had it"
}

scenario_read_only() {
    local bare=("${own_profile[@]}" --read-only --cap-drop ALL --security-opt no-new-privileges)
    src=$rig/$scenario/src
    plant "$src" 2000 20
    start_server "${bare[@]}" --
    at_own_socket "${bare[@]}"
    push bare sy:///backup/dst
    assert_same "$src" "$rig/$scenario/export/dst"
    stop_server
    say "nothing writable but the module and the socket's directory, and no capabilities"
}

scenario_ordinary_user() {
    local user=("${own_profile[@]}" --user 1000:1000) strangers
    src=$rig/$scenario/src
    plant "$src" 2000 20
    mkdir -p "$rig/$scenario/socket" "$rig/$scenario/export"
    chown -hR 1000:1000 "$src" "$rig/$scenario/socket" "$rig/$scenario/export"
    start_server "${user[@]}" --
    at_own_socket "${user[@]}"
    push user sy:///backup/dst
    assert_same "$src" "$rig/$scenario/export/dst"
    strangers=$(find "$rig/$scenario/export/dst" ! -user 1000)
    [ -z "$strangers" ] || fail "all that arrived should belong to user 1000; this does not:" "$strangers"
    stop_server
    say "user 1000 at both ends"
}
