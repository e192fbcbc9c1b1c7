#!/bin/bash
# Builds the Debian package out of a program that was built before. Needs dpkg-deb, gzip, python3 and cargo, no root.
#
#   build.sh PROGRAM OUT.deb [VERSION]     VERSION: the program's own, unless given
#
# $FEATURES are those that the program was built with, for its bill of materials.
set -euo pipefail
umask 022

here=$(dirname -- "$(realpath -- "$0")")
root=$(realpath -- "$here/../..")
program=$(realpath -- "${1:?the program}")
out=$(realpath -m -- "${2:?where the package is to go}")
version=${3:-$("$program" --version | cut -d' ' -f2)}
tree=$(mktemp -d)
trap 'rm -rf -- "$tree"' EXIT
chmod 0755 "$tree"

# put MODE FILE PLACE
put() { install -D -m "$1" "$2" "$tree$3"; }

put 0755 "$program" /usr/bin/sparkspool
for unit in "$root"/systemd/*; do put 0644 "$unit" "/lib/systemd/system/$(basename -- "$unit")"; done
put 0644 "$root/config/minimal.toml" /etc/sparkspool/sparkspool.toml
put 0644 "$root/config/example.toml" /usr/share/doc/sparkspool/examples/sparkspool.toml
put 0644 "$root/packaging/prometheus/alerts.yml" /usr/share/doc/sparkspool/examples/alerts.yml
put 0644 "$root/packaging/grafana/sparkspool.json" /usr/share/doc/sparkspool/examples/grafana.json
put 0644 "$root/README.md" /usr/share/doc/sparkspool/README.md
put 0644 "$root/LICENSE" /usr/share/doc/sparkspool/copyright
"$root/packaging/sbom.py" "${FEATURES-}" >"$tree/sbom"
put 0644 "$tree/sbom" /usr/share/doc/sparkspool/sbom.cdx.json
rm "$tree/sbom"
for page in "$root"/docs/*; do put 0644 "$page" "/usr/share/doc/sparkspool/docs/$(basename -- "$page")"; done
# Where README.md and the documents link it.
install -d "$tree/usr/share/doc/sparkspool/config"
ln -s ../examples/sparkspool.toml "$tree/usr/share/doc/sparkspool/config/example.toml"

"$program" man --out "$tree/man"
for page in "$tree"/man/*; do
  gzip -9n "$page"
  put 0644 "$page.gz" "/usr/share/man/man${page##*.}/$(basename -- "$page").gz"
done
rm -r "$tree/man"
# complete SHELL PLACE
complete() { "$program" completions "$1" >"$tree/completion" && put 0644 "$tree/completion" "$2" && rm "$tree/completion"; }
complete bash /usr/share/bash-completion/completions/sparkspool
complete zsh /usr/share/zsh/vendor-completions/_sparkspool
complete fish /usr/share/fish/vendor_completions.d/sparkspool.fish

mkdir "$tree/DEBIAN"
for script in postinst prerm postrm; do put 0755 "$here/$script" "/DEBIAN/$script"; done
echo /etc/sparkspool/sparkspool.toml >"$tree/DEBIAN/conffiles"
# What the program was linked with: the C library, in at least the version whose symbols it uses; with the feature kafka, more.
libc=$(grep -ao 'GLIBC_2\.[0-9]*' "$program" | sort -uV | tail -n 1 | cut -d_ -f2)
depends="libc6 (>= $libc), libgcc-s1"
while read -r library; do
  case ${library##*/} in libc.so.* | libm.so.* | libgcc_s.so.*) continue ;; esac
  # Debian may know it below /lib or below /usr/lib.
  package=$(dpkg-query --search "*${library#/usr}" | cut -d: -f1 | sort -u) || { echo "no package has $library" >&2; exit 1; }
  [[ ", $depends, " == *", $package, "* ]] || depends+=", $package"
done < <(ldd "$program" | sed -n 's|.* => \(/[^ ]*\) .*|\1|p')
cat >"$tree/DEBIAN/control" <<CONTROL
Package: sparkspool
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: sparkspool's maintainers <sparkspool@invalid>
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)
Depends: $depends
Recommends: ca-certificates
Section: mail
Priority: optional
Description: captures SparkPost's message events before they expire
 SparkPost keeps what happened to every email for ten days and then deletes it.
 sparkspool polls its event search API, captures every event exactly once in
 SQLite, and forwards it, normalized, to files, databases and receivers.
CONTROL
dpkg-deb --root-owner-group --build "$tree" "$out" >/dev/null
