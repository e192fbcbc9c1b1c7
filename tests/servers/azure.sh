#!/bin/bash
# A blob service of Azure's own emulator for tests: `start DIR` starts one on a free port, keeps its process, data and log in
# DIR, and prints its URL; `stop DIR` kills it. It holds a container `spool`, of which it would know nothing more if it were
# started again: it writes its list later. The program is $SPARKSPOOL_TEST_AZURITE, else `azurite-blob` of the search path.
set -euo pipefail

readonly command=${1:?start or stop} dir=$(realpath -m -- "${2:?a directory}")
source "$(dirname -- "$(realpath -- "$0")")/common.sh"
readonly program=${SPARKSPOOL_TEST_AZURITE:-azurite-blob}
# What everybody's emulator knows; no secret.
readonly account=devstoreaccount1
readonly key=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==

# Makes the container, with a request that is signed as Azure asks; says the first line of the answer.
make_container() {
  local date signature hexkey resource=/$account/spool
  date=$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S GMT')
  hexkey=$(base64 -d <<<"$key" | od -An -tx1 | tr -d ' \n')
  signature=$(printf 'PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:%s\nx-ms-version:2021-08-06\n/%s%s\nrestype:container' "$date" "$account" "$resource" |
    openssl dgst -sha256 -mac HMAC -macopt "hexkey:$hexkey" -binary | base64)
  exec 3<>"/dev/tcp/127.0.0.1/$(cat "$dir/port")"
  printf 'PUT %s?restype=container HTTP/1.1\r\nHost: 127.0.0.1\r\nx-ms-date: %s\r\nx-ms-version: 2021-08-06\r\nAuthorization: SharedKey %s:%s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' \
    "$resource" "$date" "$account" "$signature" >&3
  timeout 10 head -n 1 <&3
  exec 3>&-
}

run() {
  "$program" --blobHost 127.0.0.1 --blobPort "$(cat "$dir/port")" --location "$dir/data" --silent --disableTelemetry \
    --skipApiVersionCheck >"$dir/log" 2>&1 </dev/null &
  echo $! >"$dir/pid"
  await_port "$!" 60
}

start() {
  local said
  mkdir -p "$dir/data"
  command -v "$program" >/dev/null || { echo "$program is not installed" >&2; exit 1; }
  free_port >"$dir/port"
  run
  said=$(make_container)
  [[ $said == *" 201 "* ]] || { echo "the container was not made: $said" >&2; exit 1; }
  echo "http://127.0.0.1:$(cat "$dir/port")/$account"
}

[[ $command != restart ]] || { echo "start or stop" >&2; exit 64; }
obey
