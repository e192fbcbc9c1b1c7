#!/bin/bash
# Tries the units of systemd/ with a program, in a systemd that is really booted. Builds nothing.
#
#   run.sh PROGRAM [BOOT]      PROGRAM is installed as /usr/bin/sparkspool; BOOT is boot.sh or takes the same words
#
# Needs root. Fails, with the journal, as soon as something is not as the unit promises.
set -euo pipefail
umask 022

here=$(dirname -- "$(realpath -- "$0")")
program=$(realpath -- "${1:?the program to try}")
boot=${2:-$here/boot.sh}
units=$here/../../systemd
dir=$(mktemp -d)

finish() {
  local code=$?
  if ((code)) && [[ -s $dir/pid ]]; then
    inside systemctl status --no-pager --full sparkspool.service >&2 || true
    inside journalctl --no-pager -u sparkspool.service | tail -n 40 >&2 || true
  fi
  bash "$boot" stop "$dir" || true
  rm -rf --one-file-system -- "$dir"
  exit "$code"
}
trap finish EXIT

inside() { bash "$boot" exec "$dir" "$@"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
property() { inside systemctl show --value -p "$1" sparkspool.service; }
# is WHAT EXPECTED FOUND
is() { [[ $2 == "$3" ]] || fail "$1: expected '$2', found '$3'"; echo "  $1: $3"; }

echo "what the units are exposed to"
for unit in "$units"/*.service; do
  exposure=$(systemd-analyze security --offline=true --no-pager --threshold=12 "$unit" | tail -n 1) || fail "$exposure"
  echo "  $exposure"
done

install -D -m 0755 "$program" "$dir/root/usr/bin/sparkspool"
install -D -m 0644 -t "$dir/root/etc/systemd/system" "$units"/*
install -d -m 0755 "$dir/root/etc/sparkspool"
install -m 0600 /dev/stdin "$dir/root/etc/sparkspool/sparkpost-api-key" <<<"not-a-key"
# Nobody listens there: a daemon has to be up, and stay up, while its API is away.
install -m 0644 /dev/stdin "$dir/root/etc/sparkspool/sparkspool.toml" <<'TOML'
[api]
url = "http://127.0.0.1:9"
dialect = "events"

[streams.all]
every = "60s"
start = "now"
sinks = ["archive"]

[sinks.archive.file]
path = "/var/lib/sparkspool/events-{date}.ndjson"
TOML

echo "booting systemd"
bash "$boot" start "$dir"
verified=(sparkspool.service sparkspool-backfill@24h.service sparkspool-once.service sparkspool-once.timer)
words=$(inside systemd-analyze verify "${verified[@]/#//etc/systemd/system/}" 2>&1) || fail "systemd-analyze verify: $words"
is "what systemd-analyze verify has to say" "" "$words"

echo "starting"
# A unit that has stopped is forgotten, with how it ended, unless another one knows of it.
inside systemd-run --quiet --unit=remember --property=After=sparkspool.service --property=RemainAfterExit=yes true
inside systemctl start sparkspool.service || fail "it did not become ready"
is "state" active "$(property ActiveState)"
pid=$(property MainPID)
uid=$(inside stat -c %u "/proc/$pid")
((uid >= 61184 && uid <= 65519)) || fail "uid $uid is no dynamic user's"
is "user" sparkspool "$(inside stat -c %U "/proc/$pid")"
is "state directory" "700 $uid" "$(inside stat -L -c '%a %u' /var/lib/sparkspool)"
is "watchdog" 1min "$(property WatchdogUSec)"
open=$(inside find -L /var/lib/sparkspool -type f ! -perm 0600)
is "files of others' reach" "" "$open"
inside grep -qzF not-a-key "/proc/$pid/environ" "/proc/$pid/cmdline" && fail "the key is in the environment or on the command line"

# What a probe does not do.
if [[ ${PROBE:-} != yes ]]; then
  echo "reloading"
  # stays WHAT: the process that was started is the one that runs, in a unit that is neither reloading nor stopping. A process that
  # announces its end and lives on is shown as `stop-sigterm` and killed when its time is over.
  stays() {
    local i
    for ((i = 0; i < 20; i++)); do
      sleep 0.5
      [[ $(property StatusText) == *captured* && $(property SubState) == running ]] && ((i >= 4)) && break
    done
    is "$1" "running $pid 0" "$(property SubState) $(property MainPID) $(property NRestarts)"
  }
  for i in 1 2 3; do inside systemctl reload sparkspool.service || fail "it did not reload"; done
  stays "after three reloads"
  printf '[api]\nurl = 7\n' | inside tee /etc/sparkspool/sparkspool.toml >/dev/null
  inside systemctl reload sparkspool.service || fail "it did not refuse to reload"
  stays "after a reload of a configuration that is wrong"
  # Read to their ends: `grep -q` leaves at the first match, and a writer that is cut off fails the pipe.
  said=$(inside journalctl --no-pager -u sparkspool.service)
  [[ $said == *"the old one stays"* ]] || fail "the refused configuration is not in the journal"
  said=$(inside journalctl --no-pager -p warning -u sparkspool.service SPARKSPOOL_STREAM=all)
  [[ $said == *"request failed"* ]] || fail "the journal has no warning of the stream"
  store=$(inside find -L /var/lib/sparkspool -name '*.db' -printf '%i\n')
  [[ -n $store ]] || fail "there is no store"

  echo "starting with a configuration that is wrong"
  inside systemctl restart sparkspool.service 2>/dev/null && fail "it became ready"
  # What would be started again is shown as `auto-restart`.
  is "what becomes of it" "failed 78 0" "$(property SubState) $(property ExecMainStatus) $(property NRestarts)"
  inside tee /etc/sparkspool/sparkspool.toml <"$dir/root/etc/sparkspool/sparkspool.toml" >/dev/null
  inside systemctl start sparkspool.service || fail "it did not become ready again"
  is "store after a stop and a start" "$store" "$(inside find -L /var/lib/sparkspool -name '*.db' -printf '%i\n')"
fi

echo "killing"
inside systemctl kill --signal=KILL sparkspool.service
for ((i = 0; i < 60; i++)); do
  [[ $(property NRestarts) == 1 && $(property ActiveState) == active ]] && break
  sleep 0.5
done
is "state after kill -9" active "$(property ActiveState)"
is "restarts" 1 "$(property NRestarts)"

echo "stopping"
begin=$SECONDS
inside systemctl stop sparkspool.service
((SECONDS - begin <= 31)) || fail "stopping took $((SECONDS - begin)) s"
is "result" success "$(property Result)"
if [[ ${PROBE:-} != yes ]]; then
  # CLD_EXITED, not killed: it drained and ended by itself.
  is "exit" "1 0" "$(property ExecMainCode) $(property ExecMainStatus)"
  is "store" "$store" "$(inside find -L /var/lib/sparkspool -name '*.db' -printf '%i\n')"

  # lines: how many events the file sink has written.
  lines() { inside find -L /var/lib/sparkspool -name 'events-*.ndjson' -exec cat {} + | wc -l; }
  inside systemd-run --quiet --unit=api /usr/bin/sparkspool simulate --port 18080 --events 3000 --days 3 --to 0s --key not-a-key
  sed -i 's|127.0.0.1:9|127.0.0.1:18080|' "$dir/root/etc/sparkspool/sparkspool.toml"
  inside tee /etc/sparkspool/sparkspool.toml <"$dir/root/etc/sparkspool/sparkspool.toml" >/dev/null

  echo "a backfill without the daemon, then one beside it"
  inside systemctl start sparkspool-backfill@1d.service || fail "the backfill failed"
  alone=$(lines)
  ((alone > 300)) || fail "a day's backfill brought $alone events"
  echo "  the last day: $alone events"
  inside systemctl start sparkspool.service || fail "the daemon did not become ready"
  inside systemctl start sparkspool-backfill@2d.service || fail "the backfill beside the daemon failed"
  beside=$(lines)
  ((beside > alone)) || fail "a backfill of two days brought nothing to the $alone events of the last"
  echo "  the last two days: $beside events"
  ids=$(inside find -L /var/lib/sparkspool -name 'events-*.ndjson' -exec grep -oh '^{"schema":1,"id":"[^"]*"' {} + | sort | uniq -d | wc -l)
  is "events that came twice" 0 "$ids"
  is "the daemon's state" "active 0" "$(property ActiveState) $(property NRestarts)"

  # A stopped process cannot end by itself: only the watchdog starts another.
  echo "a daemon that hangs"
  printf '[Service]\nWatchdogSec=4s\nRestartSec=1s\n' | inside sh -c 'mkdir -p /etc/systemd/system/sparkspool.service.d && cat >/etc/systemd/system/sparkspool.service.d/quick.conf'
  inside systemctl daemon-reload
  inside systemctl restart sparkspool.service
  inside systemctl kill --kill-whom=main --signal=STOP sparkspool.service
  for ((i = 0; i < 60; i++)); do
    [[ $(property NRestarts) == 1 && $(property ActiveState) == active ]] && break
    sleep 0.5
  done
  is "restarts by the watchdog" "1 active" "$(property NRestarts) $(property ActiveState)"

  echo "passes by systemd's clock, instead of the daemon's"
  inside systemctl start sparkspool-once.service || fail "a single pass failed"
  is "the daemon beside it" inactive "$(property ActiveState)"
  inside systemctl start sparkspool-once.timer
  is "the timer" active "$(inside systemctl show --value -p ActiveState sparkspool-once.timer)"
fi
echo "ok"
