#!/bin/sh
# Has libFuzzer make inputs out of the kept ones, for SECONDS (10) a target, all of them or those that are named:
#     fuzz/run.sh [SECONDS] [frames|source|target|words]...
# Needs stable Rust and a C++ compiler. In the end it says one line. Of a target that failed it shows before that what
# libFuzzer said and how to repeat it, and exits with 1. What was found on the way is where the next run on this
# host goes on (fuzz/target/grown).
#     fuzz/run.sh --again TARGET FILE     repeats a failure
#     fuzz/run.sh --keep [TARGET]...      chooses anew, of all that was found, what is kept for everybody (fuzz/corpus)
set -eu
fuzz=$(cd "$(dirname "$0")" && pwd)

KEPT_FILES_MAX=48
KEPT_BYTES_MAX=2048

seconds=10
what=run
case ${1-} in
--again | --keep)
    what=${1#--}
    shift
    ;;
'' | *[!0-9]*) ;;
*)
    seconds=$1
    shift
    ;;
esac
if [ "$what" = again ]; then
    [ $# -eq 2 ] || { sed -n 's/^#     //p' "$0" >&2; exit 2; }
    file=$(realpath "$2")
    set -- "$1"
fi
[ $# -gt 0 ] || set -- frames source target words

# What `cargo fuzz run --sanitizer none` asks for, of which a stable compiler has all. Because the target is named, build
# scripts and macros are not instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
cd "$fuzz"
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 --cfg fuzzing" \
    cargo build --quiet --release --target "$host" --bins
bin=$(realpath "${CARGO_TARGET_DIR:-target}")/$host/release

if [ "$what" = again ]; then
    exec "$bin/$1" -timeout=10 -rss_limit_mb=2048 "$file"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/sy-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"

if [ "$what" = keep ]; then
    for target in "$@"; do
        mkdir -p "$work/$target" "target/grown/$target"
        "$bin/$target" -set_cover_merge=1 -max_len=$KEPT_BYTES_MAX -rss_limit_mb=2048 "$work/$target" \
            "corpus/$target" "target/grown/$target" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
        rm -rf "corpus/$target"
        mkdir -p "corpus/$target"
        # They were written in the order of what each adds to those before it.
        find "$work/$target" -type f -printf '%T@ %p\n' | sort -n | head -n $KEPT_FILES_MAX |
            while read -r _ path; do cp "$path" "corpus/$target/"; done
    done
    exit 0
fi

inputs=0
crashes=0
for target in "$@"; do
    mkdir -p "target/grown/$target" "artifacts/$target"
    if ! "$bin/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=8192 -len_control=10 \
        -print_final_stats=1 -artifact_prefix="artifacts/$target/" \
        "target/grown/$target" "corpus/$target" >"$work/log" 2>&1; then
        crashes=$((crashes + 1))
        cat "$work/log" >&2
        artifact=$(sed -n 's/.*Test unit written to //p' "$work/log" | tail -n 1)
        echo "fuzz: $target failed at fuzz/$artifact; again: fuzz/run.sh --again $target fuzz/$artifact" >&2
    fi
    count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log" | tail -n 1)
    inputs=$((inputs + ${count:-0}))
done
echo "fuzz $# targets, $inputs inputs, $crashes crashes"
[ "$crashes" -eq 0 ]
