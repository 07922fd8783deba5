#!/usr/bin/env bash
# Puts the mistakes of kernel-tests/seeded into a copy of the tree, one at a time, all of them or those whose file
# names contain NAME-PART, and has the simulator look for each:
#     kernel-tests/seeded.sh [NAME-PART]
#     kernel-tests/seeded.sh --check      only whether each can be put in
# Before that it looks for mistakes where there are none. Prints a row for each and one line in the end. A
# mistake that is not found is no failure of the script; one that can not be put in or does not build any more is.
set -euo pipefail
cd "$(dirname "$0")/.."
into=$(realpath -m "${CARGO_TARGET_DIR:-target}")/seeded
tree=$into/tree
log=$into/log

SEEDS_WITHOUT=2000
SEEDS_MAX=20000
# Of processor time, and of all seeds of one mistake together.
SECONDS_MAX=300

die() {
    echo "seeded.sh: $1" >&2
    exit 1
}

# The seeds run as fast as with `release`, and this is built in half of the time.
build() {
    CARGO_INCREMENTAL=1 cargo build --quiet --profile static --manifest-path "$tree/Cargo.toml" --target-dir "$into" \
        --bin sy-sim >"$log" 2>&1 ||
        { cat "$log" >&2; die "$1 does not build"; }
}

# A row: seeds from the first on until one finds something that is not found without the mistake, too.
look() {
    local first=1 seconds=0 seed rc what
    while :; do
        rc=0
        (ulimit -t "$(awk -v s="$seconds" -v all="$SECONDS_MAX" 'BEGIN { printf "%d", all - s + 1 }')" &&
            exec "$into/with" --first "$first" $((SEEDS_MAX + 1 - first))) >"$log" 2>"$log.panics" || rc=$?
        if [ "$rc" -gt 1 ]; then
            # Killed, by the limit or by the mistake itself: which seed it was at is not known.
            printf '| %s | not found in %s s (ended with %s) | | |\n' "$1" "$SECONDS_MAX" "$rc"
            return
        fi
        seconds=$(awk -v s="$seconds" '/^seeds .* failed/ { print s + $5 }' "$log")
        seed=$(sed -n 's/^seed \([0-9]*\):.*/\1/p' "$log" | head -n 1)
        if [ -z "$seed" ]; then
            printf '| %s | not found in %s seeds | %s | |\n' "$1" "$SEEDS_MAX" "$seconds"
            return
        fi
        if "$into/without" "$seed" >/dev/null 2>&1; then
            found=$((found + 1))
            what=$(sed '1s/^seed [0-9]*: //; /^seeds [0-9]/d' "$log" | tr '|' '/' | tr -s '\n ' ' ')
            printf '| %s | %s | %s | %.120s |\n' "$1" "$seed" "$seconds" "$what"
            return
        fi
        echo "seeded.sh: seed $seed finds something without the mistake, too" >&2
        first=$((seed + 1))
    done
}

what=${1-}
[ "$what" != --check ] || what=
count=0
for patch in kernel-tests/seeded/*"$what"*.patch; do
    git apply --check "$patch" || die "$patch can not be put in any more"
    count=$((count + 1))
done
if [ "${1-}" = --check ]; then
    echo "seeded $count can be put in"
    exit
fi

# Anew, with times of now: cargo tells by them what to build.
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z | tar -c --null -T - | tar -x -m -C "$tree"
export GIT_CEILING_DIRECTORIES=$into # To git the copy is no part of this repository.

build 'the tree itself'
cp "$into/static/sy-sim" "$into/without"
"$into/without" 1 "$SEEDS_WITHOUT"

found=0
for patch in kernel-tests/seeded/*"$what"*.patch; do
    git -C "$tree" apply "$PWD/$patch"
    build "$patch"
    cp "$into/static/sy-sim" "$into/with"
    look "$(sed '/^$/,$d' "$patch" | paste -sd ' ')"
    git -C "$tree" apply -R "$PWD/$patch"
done
echo "seeded $count, found $found"
