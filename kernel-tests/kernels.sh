#!/bin/sh
# Fetches Debian's kernels of the versions below, as packages that are not installed, and unpacks them into
# target/kernels. One that Debian does not have here is named, and is an error only if none is left.
set -eu
cd "$(dirname "$0")/.."
into=$(pwd)/${CARGO_TARGET_DIR:-target}/kernels
mkdir -p "$into"

# The newest package of this version that has an image, without debugging and without its signature's twin.
package_of() {
    apt-cache search --names-only "^linux-image-$1\..*-amd64\$" |
        cut -d ' ' -f 1 | grep -Ev 'dbg|unsigned|cloud|rt-' | sort -V | tail -n 1
}

found=0
for version in 6.1 6.12; do
    package=$(package_of "$version")
    if [ -z "$package" ]; then
        echo "kernels.sh: Debian has no kernel $version here" >&2
        continue
    fi
    if [ ! -d "$into/$package" ]; then
        (cd "$into" && apt-get -qq -o APT::Sandbox::User=root download "$package" >/dev/null)
        dpkg-deb -x "$into/$package"_*.deb "$into/$package.new"
        rm -f "$into/$package"_*.deb
        release=${package#linux-image-}
        if [ -d "$into/$package.new/usr/lib/modules" ] && [ ! -e "$into/$package.new/lib" ]; then
            ln -s usr/lib "$into/$package.new/lib"
        fi
        /sbin/depmod -b "$into/$package.new" "$release"
        mv "$into/$package.new" "$into/$package"
    fi
    found=$((found + 1))
done
[ "$found" -gt 0 ]
