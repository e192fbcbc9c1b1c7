#!/bin/bash
# A NATS server with JetStream of its own for tests: `start DIR` makes and starts one below DIR on a free port and prints its URL,
# `stop DIR` ends it, `restart DIR` kills it as a crash would and starts it again on its port. It takes connections with TLS
# (DIR/authority.pem) and without.
set -euo pipefail

readonly command=${1:?start, restart or stop} dir=$(realpath -m -- "${2:?a directory}")
source "$(dirname -- "$(realpath -- "$0")")/common.sh"

server=${NATS_SERVER:-$(command -v nats-server)} || { echo "nats-server is not installed" >&2; exit 1; }

# The nkey is the one of the server's documentation; its seed is in tests/it/nats.rs.
configuration() {
  cat <<END
host: 127.0.0.1
port: $(cat "$dir/port")
pid_file: "$dir/pid"
log_file: "$dir/log"
max_payload: 16MB
max_pending: 64MB
jetstream { store_dir: "$dir/jetstream" }
tls { cert_file: "$dir/server.crt", key_file: "$dir/server.key" }
allow_non_tls: true
authorization {
  users = [
    { user: spool, password: spool }
    { user: reader, password: hunter2, permissions: { publish: { deny: "sparkpost.>" } } }
    { user: nobody, password: hunter2, permissions: { publish: { deny: ">" } } }
    { nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 }
  ]
}
END
}

run() {
  "$server" -c "$dir/nats.conf" </dev/null >/dev/null 2>&1 &
  await_port "$!" 10
  disown "$!"
}

start() {
  mkdir -p "$dir"
  certificate "$dir"
  free_port >"$dir/port"
  configuration >"$dir/nats.conf"
  run
  echo "nats://spool:spool@localhost:$(cat "$dir/port")"
}

obey
