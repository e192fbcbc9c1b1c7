#!/bin/bash
# An S3 of its own for tests: `start DIR` starts one on a free port, keeps its process, data and log in DIR, and prints its URL;
# `stop DIR` ends it. It holds a bucket `spool`. The program is $SPARKSPOOL_TEST_S3RVER, which knows no conditional writes; else
# $SPARKSPOOL_TEST_MOTO, else `moto_server` of the search path, which does.
set -euo pipefail

readonly command=${1:?start or stop} dir=$(realpath -m -- "${2:?a directory}")
source "$(dirname -- "$(realpath -- "$0")")/common.sh"
readonly program=${SPARKSPOOL_TEST_S3RVER:-${SPARKSPOOL_TEST_MOTO:-moto_server}}

serve() {
  case $program in
    *s3rver) exec "$program" --address 127.0.0.1 --port "$1" --directory "$dir/data" --configure-bucket spool ;;
    *) exec "$program" -H 127.0.0.1 -p "$1" ;;
  esac
}

case $command in
  start)
    mkdir -p "$dir/data"
    port=$(free_port)
    command -v "$program" >/dev/null || { echo "$program is not installed" >&2; exit 1; }
    serve "$port" >"$dir/log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    for _ in {1..120}; do
      if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        exec 3<>"/dev/tcp/127.0.0.1/$port"
        # moto asks nobody who he is; the other one has the bucket.
        printf 'PUT /spool HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' >&3
        timeout 10 cat <&3 >/dev/null || true
        echo "http://127.0.0.1:$port"
        exit
      fi
      kill -0 "$(cat "$dir/pid")" 2>/dev/null || break
      sleep 0.5
    done
    cat "$dir/log" >&2
    echo "the server did not start" >&2
    exit 1
    ;;
  stop)
    pid=$(cat "$dir/pid")
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    ;;
  *)
    echo "start or stop" >&2
    exit 64
    ;;
esac
