#!/bin/bash
# A ClickHouse server of its own for tests: `start DIR` makes and starts one below DIR on free ports and prints the URL of its HTTP
# interface, `stop DIR` ends it, `restart DIR` kills it as a crash would and starts it again on its ports. With TLS
# (DIR/authority.pem) it is at the URL in DIR/https_url. Its users are default (no password), spool (password spool) and reader
# (password hunter2, read only). $CLICKHOUSE_SERVER names the program.
set -euo pipefail

readonly command=${1:?start, restart or stop} dir=$(realpath -m -- "${2:?a directory}")
source "$(dirname -- "$(realpath -- "$0")")/common.sh"

server=${CLICKHOUSE_SERVER:-$(command -v clickhouse-server)} || { echo "clickhouse-server is not installed" >&2; exit 1; }

configuration() {
  cat >"$dir/config.xml" <<END
<yandex>
  <logger><level>information</level><log>$dir/log</log><errorlog>$dir/errors</errorlog></logger>
  <http_port>$(cat "$dir/port")</http_port>
  <https_port>$1</https_port>
  <tcp_port>$(free_port)</tcp_port>
  <openSSL>
    <server>
      <certificateFile>$dir/server.crt</certificateFile>
      <privateKeyFile>$dir/server.key</privateKeyFile>
      <verificationMode>none</verificationMode>
    </server>
  </openSSL>
  <listen_host>127.0.0.1</listen_host>
  <path>$dir/data/</path>
  <tmp_path>$dir/tmp/</tmp_path>
  <mark_cache_size>16777216</mark_cache_size>
  <users_config>$dir/users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <timezone>UTC</timezone>
</yandex>
END
  local anywhere="<networks><ip>127.0.0.1</ip><ip>::1</ip></networks>"
  cat >"$dir/users.xml" <<END
<yandex>
  <profiles><default/><readonly><readonly>1</readonly></readonly></profiles>
  <quotas><default/></quotas>
  <users>
    <default><password></password>$anywhere<profile>default</profile><quota>default</quota></default>
    <spool><password>spool</password>$anywhere<profile>default</profile><quota>default</quota></spool>
    <reader><password>hunter2</password>$anywhere<profile>readonly</profile><quota>default</quota></reader>
  </users>
</yandex>
END
}

run() {
  "$server" --config-file="$dir/config.xml" </dev/null >"$dir/output" 2>&1 &
  local pid=$! i answer
  echo "$pid" >"$dir/pid"
  for ((i = 0; i < 600; i++)); do
    if ! kill -0 "$pid" 2>/dev/null; then break; fi
    if exec 3<>"/dev/tcp/127.0.0.1/$(cat "$dir/port")"; then
      printf 'GET / HTTP/1.0\r\n\r\n' >&3
      if read -r -t 2 answer <&3 && [[ $answer == *200* ]]; then
        exec 3<&-
        disown "$pid"
        return
      fi
      exec 3<&-
    fi 2>/dev/null
    sleep 0.1
  done
  cat "$dir/output" "$dir/errors" >&2
  exit 1
}

start() {
  local secure
  mkdir -p "$dir/data" "$dir/tmp"
  certificate "$dir"
  free_port >"$dir/port"
  secure=$(free_port)
  configuration "$secure"
  echo "https://localhost:$secure" >"$dir/https_url"
  run
  echo "http://127.0.0.1:$(cat "$dir/port")"
}

obey
