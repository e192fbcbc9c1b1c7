# What the servers of tests have in common; read by the scripts beside it, which have set `dir` and `command`.

# A port that nobody listens on.
free_port() {
  local port
  for _ in {1..50}; do
    port=$((20000 + RANDOM % 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  echo "there is no free port" >&2
  return 1
}

# certificate FOLDER: one for localhost, FOLDER/server.crt and FOLDER/server.key, from an authority of its own: authority.pem.
certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=a test's authority" \
    -keyout "$dir/authority.key" -out "$dir/authority.pem" 2>/dev/null
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost \
    -keyout "$1/server.key" -out "$dir/server.csr" 2>/dev/null
  openssl x509 -req -in "$dir/server.csr" -CA "$dir/authority.pem" -CAkey "$dir/authority.key" -CAcreateserial -days 30 \
    -extfile <(echo "subjectAltName=DNS:localhost") -out "$1/server.crt" 2>/dev/null
}

# await_port PID SECONDS: until that process listens on `$dir/port`; where it does not in that time, its log is said.
await_port() {
  local i
  for ((i = 0; i < 20 * $2; i++)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$(cat "$dir/port")") 2>/dev/null; then return; fi
    kill -0 "$1" 2>/dev/null || break
    sleep 0.05
  done
  cat "$dir/log" >&2
  echo "the server did not start" >&2
  exit 1
}

# Kills the server of `$dir/pid` as a crash would, and waits for its end.
end() {
  local pid i
  pid=$(cat "$dir/pid")
  kill -KILL "$pid"
  for ((i = 0; i < 200; i++)); do
    # One that nobody has waited for yet is ended, too.
    if ! kill -0 "$pid" 2>/dev/null || grep -qs '^State:.Z' "/proc/$pid/status"; then return; fi
    sleep 0.05
  done
  echo "the server does not end" >&2
  exit 1
}

# Does what `command` asks, with the script's own `start`, which prints where the server is, and `run`.
obey() {
  case $command in
    start) start ;;
    restart)
      end
      run
      ;;
    stop) end ;;
    *)
      echo "start, restart or stop" >&2
      exit 64
      ;;
  esac
}
