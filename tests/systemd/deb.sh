#!/bin/bash
# Tries the Debian package in a systemd that is really booted: installed, configured as docs/operations.md says, its key revoked and
# replaced, upgraded, removed, purged. Builds no program.
#
#   deb.sh PROGRAM      what the packages are made of
#
# Needs root, cargo-deb, dpkg and python3. Fails as soon as something is not as a package should be.
set -euo pipefail
umask 022

here=$(dirname -- "$(realpath -- "$0")")
program=$(realpath -- "${1:?the program to package}")
boot=$here/boot.sh
dir=$(mktemp -d)

finish() {
  local code=$?
  ((code)) && [[ -s $dir/pid ]] && { inside journalctl --no-pager -u sparkspool.service | tail -n 20 >&2 || true; }
  bash "$boot" stop "$dir" || true
  rm -rf --one-file-system -- "$dir"
  exit "$code"
}
trap finish EXIT

inside() { bash "$boot" exec "$dir" "$@"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
is() { [[ $2 == "$3" ]] || fail "$1: expected '$2', found '$3'"; echo "  $1: $3"; }
property() { inside systemctl show --value -p "$1" sparkspool.service; }

# Nobody keeps these packages: packing them tightly would take longer than all the rest.
export CARGO_DEB_OPTIONS="--fast --compress-type gz --compress-system"
echo "building two versions"
install -d "$dir/root/packages"
"$here/../../packaging/deb/build.sh" "$program" "$dir/root/packages/first.deb" 0.1.0
"$here/../../packaging/deb/build.sh" "$program" "$dir/root/packages/second.deb" 0.1.1

echo "booting systemd"
bash "$boot" start "$dir"
# Whatever a machine has of it already is none of the package's.
inside sh -c 'rm -rf /etc/sparkspool /var/lib/sparkspool /var/lib/private/sparkspool; ! command -v sparkspool' || fail "there is one already"

echo "installing"
inside dpkg --install /packages/first.deb >"$dir/said" 2>&1 || fail "$(<"$dir/said")"
grep -q "not started: it needs a key" "$dir/said" || fail "the installation does not say what is missing: $(<"$dir/said")"
is "state without a key" inactive "$(property ActiveState)"
# api KEY: the simulated API, which takes this key and no other.
api() {
  inside systemctl stop api.service 2>/dev/null || true
  inside systemd-run --quiet --unit=api /usr/bin/sparkspool simulate --port 18080 --events 500 --days 1 --to 0s --key "$1"
}
# secret NAME: stdin, for nobody but root to read.
secret() { inside install -m 0600 /dev/stdin "/etc/sparkspool/$1"; }
api first-key
secret sparkpost-api-key <<<first-key
secret hmac-key <<<0123456789abcdef0123456789abcdef
# The second place is that of the units whose names begin so.
for folder in sparkspool.service.d sparkspool-.service.d; do
  inside install -D -m 0644 /dev/stdin "/etc/systemd/system/$folder/secrets.conf" <<'UNIT'
[Service]
LoadCredential=hmac-key:/etc/sparkspool/hmac-key
UNIT
done
inside systemctl daemon-reload
inside tee /etc/sparkspool/sparkspool.toml >/dev/null <<'TOML'
[api]
url = "http://127.0.0.1:18080"
dialect = "events"

[http]
listen = "127.0.0.1:9464"

[streams.all]
every = "2s"
start = "1d"
sinks = ["archive", "table"]

[sinks.archive.file]
path = "/var/lib/sparkspool/events.ndjson"

[sinks.table]
hmac_key_file = "$CREDENTIALS_DIRECTORY/hmac-key"
[sinks.table.fields]
recipient = "hmac"
[sinks.table.sqlite]
path = "/var/lib/sparkspool/events.db"
TOML
# shell COMMAND…: as root, with what the unit has from systemd.
shell() { inside env STATE_DIRECTORY=/var/lib/sparkspool CREDENTIALS_DIRECTORY=/etc/sparkspool "$@"; }
shell sparkspool check --online >"$dir/said" 2>&1 || fail "$(<"$dir/said")"
inside systemctl enable --now sparkspool >/dev/null 2>&1 || fail "it did not start"
lines() { inside sh -c 'cat /var/lib/sparkspool/events.ndjson 2>/dev/null | wc -l'; }
for ((i = 0; i < 60 && $(lines) < 400; i++)); do sleep 0.5; done
(($(lines) >= 400)) || fail "$(lines) events after half a minute"
echo "  events: $(lines)"
ask() { inside python3 -c 'import sqlite3, sys; print(*sqlite3.connect("/var/lib/sparkspool/events.db").execute(sys.argv[1]).fetchone())' "$1"; }
for ((i = 0; i < 60 && $(ask "SELECT count(*) FROM events WHERE type = 'bounced'" 2>/dev/null || echo 0) == 0; i++)); do sleep 0.5; done
echo "  bounces in the table: $(ask "SELECT count(*) FROM events WHERE type = 'bounced'")"
is "addresses in the table" 0 "$(ask "SELECT count(*) FROM events WHERE recipient LIKE '%@%'")"
shell sparkspool status >"$dir/said" && grep -q archive "$dir/said" || fail "a shell does not see the store: $(<"$dir/said")"
inside man -w sparkspool.toml >/dev/null 2>&1 || inside test -s /usr/share/man/man5/sparkspool.toml.5.gz || fail "no manual"

echo "revoking the key"
# get ROUTE: what the HTTP endpoint answers, whatever its status says.
get() {
  inside python3 -c '
import sys, urllib.error, urllib.request
try: answer = urllib.request.urlopen("http://127.0.0.1:9464" + sys.argv[1])
except urllib.error.HTTPError as error: answer = error
print(answer.status, answer.read().decode())' "$1"
}
# The expression of the alert, and of what `/healthz` says.
refused() { get /metrics | sed -n 's/^sparkspool_key_refused{stream="all"} //p'; }
health() { get /healthz | sed -n '1s/ .*//p'; }
grep -q 'expr: "sparkspool_key_refused == 1"' "$here/../../packaging/prometheus/alerts.yml" || fail "the alert looks at something else"
is "health, key refused" "200 0" "$(health) $(refused)"
api second-key
for ((i = 0; i < 60 && $(refused) != 1; i++)); do sleep 0.5; done
is "health, key refused" "503 1" "$(health) $(refused)"
said=$(get /healthz)
[[ $said == *'"kind": "key"'* ]] || fail "the health check does not name the key: $said"
shell sparkspool check --online >"$dir/said" 2>&1 && fail "check takes a key that is revoked"
grep -q "refused the API key" "$dir/said" || fail "check does not say that the key is refused: $(<"$dir/said")"
secret sparkpost-api-key <<<second-key
inside systemctl restart sparkspool
for ((i = 0; i < 60; i++)); do [[ $(health 2>/dev/null || true) == 200 ]] && break; sleep 0.5; done
is "health, key refused" "200 0" "$(health) $(refused)"

echo "a shell, while the daemon is stopped"
inside systemctl stop sparkspool
shell sparkspool once >"$dir/said" 2>&1 && fail "root writes into the directory of another user's daemon"
grep -q "belongs to another user" "$dir/said" || fail "it does not say why: $(<"$dir/said")"
shell sparkspool check --online >"$dir/said" 2>&1 || fail "$(<"$dir/said")"
inside systemctl start sparkspool-backfill@1d.service || fail "the backfill failed"
is "files of root's" "" "$(inside find -L /var/lib/sparkspool -user root)"
inside systemctl start sparkspool

echo "upgrading"
pid=$(property MainPID)
store=$(inside find -L /var/lib/sparkspool -name sparkspool.db -printf '%i\n')
inside dpkg --install /packages/second.deb >"$dir/said" 2>&1 || fail "$(<"$dir/said")"
is "state" active "$(property ActiveState)"
[[ $(property MainPID) != "$pid" ]] || fail "the old program still runs"
is "store" "$store" "$(inside find -L /var/lib/sparkspool -name sparkspool.db -printf '%i\n')"
inside grep -q 18080 /etc/sparkspool/sparkspool.toml || fail "the configuration was replaced"

echo "removing"
inside dpkg --remove sparkspool >"$dir/said" 2>&1 || fail "$(<"$dir/said")"
is "state" inactive "$(property ActiveState)"
inside test -s /etc/sparkspool/sparkpost-api-key || fail "the key is gone before the purge"

echo "purging"
inside dpkg --purge sparkspool >"$dir/said" 2>&1 || fail "$(<"$dir/said")"
grep -q "still in /var/lib/private/sparkspool" "$dir/said" || fail "the purge does not say where the data are: $(<"$dir/said")"
# Only what was written in here counts: elsewhere on the machine, a build of this very program may be going on. The administrator's
# own drop-ins stay.
left() { inside find /run/written /etc/systemd/system -iname '*sparkspool*' ! -type c ! -name '*.service.d' | sed 's|^/run/written||'; }
is "what is left" "/var/lib/private/sparkspool" "$(left | grep -v '^/var/lib/private/sparkspool/' | grep -v '^/var/lib/sparkspool$' | sort | paste -sd' ')"
inside dpkg --install /packages/second.deb >/dev/null 2>&1
inside env SPARKSPOOL_PURGE_DATA=yes dpkg --purge sparkspool >"$dir/said" 2>&1 || fail "$(<"$dir/said")"
is "what is left when that was asked for" "" "$(left | paste -sd' ')"
echo "ok"
