#!/bin/bash
# A PostgreSQL of its own for tests: `start DIR` makes and starts one below DIR on a free port and prints its URL, `stop DIR`
# ends it, `restart DIR` kills it as a crash would and starts it again on its port. Root runs it as the user postgres.
set -euo pipefail

readonly command=${1:?start, restart or stop} dir=$(realpath -m -- "${2:?a directory}")
source "$(dirname -- "$(realpath -- "$0")")/common.sh"

as_postgres() {
  if ((EUID == 0)); then runuser -u postgres -- "$@"; else "$@"; fi
}

bin() {
  local found
  found=$(find /usr/lib/postgresql -maxdepth 3 -path '*/bin/pg_ctl' 2>/dev/null | sort -V | tail -n 1)
  [[ -n $found ]] || found=$(command -v pg_ctl) || { echo "PostgreSQL is not installed" >&2; exit 1; }
  dirname -- "$found"
}

# One that the server accepts: nobody else may read its key.
certificates() {
  certificate "$dir/data"
  ((EUID != 0)) || chown postgres "$dir/data/server.key" "$dir/data/server.crt"
  chmod 600 "$dir/data/server.key"
  chmod 644 "$dir/authority.pem"
}

run() {
  local options="-p $(cat "$dir/port") -c listen_addresses=localhost -c unix_socket_directories=$dir -c ssl=on"
  as_postgres "$(bin)/pg_ctl" -D "$dir/data" -l "$dir/log" -o "$options" -w start >/dev/null || { cat "$dir/log" >&2; exit 1; }
}

start() {
  mkdir -p "$dir"
  ((EUID != 0)) || chown postgres "$dir"
  chmod 755 "$dir"
  echo spool >"$dir/password"
  chmod 644 "$dir/password"
  as_postgres "$(bin)/initdb" -D "$dir/data" -U postgres -A scram-sha-256 --pwfile="$dir/password" --encoding=UTF8 \
    --locale=C.UTF-8 >/dev/null
  certificates
  free_port >"$dir/port"
  run
  echo "postgres://postgres:spool@localhost:$(cat "$dir/port")/postgres"
}

# As a crash would end it.
end() {
  as_postgres "$(bin)/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null
}

obey
