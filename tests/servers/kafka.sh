#!/bin/bash
# A Kafka broker of its own for tests, noida-db of PyPI: `start DIR` starts one below DIR on a free port and prints its address,
# `stop DIR` ends it, `restart DIR` ends it and starts it again on its port. $PYTHON is one that has the package.
set -euo pipefail

readonly command=${1:?start, restart or stop} dir=$(realpath -m -- "${2:?a directory}")
source "$(dirname -- "$(realpath -- "$0")")/common.sh"

binary() {
  local found
  found=$("${PYTHON:-python3}" -c 'from importlib.resources import files; print(files("noida_db") / "noida-db")' 2>/dev/null) ||
    { echo "noida-db is not installed for ${PYTHON:-python3}" >&2; return 1; }
  chmod +x "$found"
  echo "$found"
}

run() {
  local program
  program=$(binary)
  setsid "$program" start --only kafka --kafka-port "$(cat "$dir/port")" --data-dir "$dir/data" </dev/null >>"$dir/log" 2>&1 &
  echo $! >"$dir/pid"
  await_port "$!" 30
}

end() {
  local pid i
  pid=$(cat "$dir/pid")
  kill -TERM "$pid" 2>/dev/null || return 0
  for ((i = 0; i < 100; i++)); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid"
}

start() {
  mkdir -p "$dir"
  free_port >"$dir/port"
  run
  echo "127.0.0.1:$(cat "$dir/port")"
}

obey
