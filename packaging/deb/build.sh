#!/bin/bash
# Builds the Debian package with cargo-deb, out of a program that was built before: what `[package.metadata.deb]` in Cargo.toml lists,
# and what the program writes of itself. Needs cargo-deb, dpkg-dev, gzip and python3, no root.
#
#   build.sh PROGRAM OUT.deb [VERSION]     VERSION: the program's own, unless given
#
# $FEATURES are those that the program was built with, for its bill of materials. $CARGO_DEB_OPTIONS go to cargo-deb.
set -euo pipefail
umask 022

here=$(dirname -- "$(realpath -- "$0")")
root=$(realpath -- "$here/../..")
program=$(realpath -- "${1:?the program}")
out=$(realpath -m -- "${2:?where the package is to go}")
version=${3:-$("$program" --version | cut -d' ' -f2)}
command -v cargo-deb >/dev/null || { echo "there is no cargo-deb: cargo install --locked cargo-deb" >&2; exit 1; }

# The folder that Cargo.toml names.
tree=$root/target/package
rm -rf -- "$tree"
mkdir -p "$tree"/{man1,man5,completions}
install -m 0755 "$program" "$tree/sparkspool"
"$root/packaging/sbom.py" "${FEATURES-}" >"$tree/sbom.cdx.json"
"$program" man --out "$tree/man"
for page in "$tree"/man/*; do
  gzip -9n "$page"
  mv "$page.gz" "$tree/man${page##*.}/"
done
"$program" completions bash >"$tree/completions/sparkspool"
"$program" completions zsh >"$tree/completions/_sparkspool"
"$program" completions fish >"$tree/completions/sparkspool.fish"
# Where README.md and the documents link it.
ln -s ../examples/sparkspool.toml "$tree/example.toml"

# The times of all files: those of the last change, so that the same commit gives the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
# shellcheck disable=SC2086 — options are words.
cargo-deb --manifest-path "$root/Cargo.toml" --locked --no-build --no-strip --deb-version "$version" --output "$out" ${CARGO_DEB_OPTIONS-} >/dev/null
