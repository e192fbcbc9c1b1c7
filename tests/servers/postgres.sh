#!/bin/bash
# A PostgreSQL of its own for tests: `start DIR` makes and starts one below DIR on a free port and prints its URL, `stop DIR`
# ends it, `restart DIR` kills it as a crash would and starts it again on its port. Root runs it as the user postgres.
set -euo pipefail

readonly command=${1:?start, restart or stop} dir=$(realpath -m -- "${2:?a directory}")

as_postgres() {
  if ((EUID == 0)); then runuser -u postgres -- "$@"; else "$@"; fi
}

bin() {
  local found
  found=$(find /usr/lib/postgresql -maxdepth 3 -path '*/bin/pg_ctl' 2>/dev/null | sort -V | tail -n 1)
  [[ -n $found ]] || found=$(command -v pg_ctl) || { echo "PostgreSQL is not installed" >&2; exit 1; }
  dirname -- "$found"
}

free_port() {
  local port
  for _ in {1..50}; do
    port=$((20000 + RANDOM % 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  echo "there is no free port" >&2
  return 1
}

# A certificate for localhost from an authority of its own: authority.pem.
certificates() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=a test's authority" \
    -keyout "$dir/authority.key" -out "$dir/authority.pem" 2>/dev/null
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost \
    -keyout "$dir/data/server.key" -out "$dir/server.csr" 2>/dev/null
  openssl x509 -req -in "$dir/server.csr" -CA "$dir/authority.pem" -CAkey "$dir/authority.key" -CAcreateserial -days 30 \
    -extfile <(echo "subjectAltName=DNS:localhost") -out "$dir/data/server.crt" 2>/dev/null
  ((EUID != 0)) || chown postgres "$dir/data/server.key" "$dir/data/server.crt"
  chmod 600 "$dir/data/server.key"
  chmod 644 "$dir/authority.pem"
}

run() {
  local options="-p $(cat "$dir/port") -c listen_addresses=localhost -c unix_socket_directories=$dir -c ssl=on"
  as_postgres "$(bin)/pg_ctl" -D "$dir/data" -l "$dir/log" -o "$options" -w start >/dev/null || { cat "$dir/log" >&2; exit 1; }
}

case $command in
  start)
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
    ;;
  restart)
    as_postgres "$(bin)/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null
    run
    ;;
  stop)
    as_postgres "$(bin)/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null
    ;;
  *)
    echo "start, restart or stop" >&2
    exit 64
    ;;
esac
