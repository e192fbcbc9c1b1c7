#!/bin/bash
# What other people's programs make of our formats: first the bodies that the tests write, with every event type and bounce
# class in them; then the files that the program itself writes, of simulated mail. Usage: run.sh PROGRAM PYTHON BODIES
set -euo pipefail
readonly program=$1 python=$2 bodies=$3
cd -- "$(dirname -- "$(realpath -- "$0")")"
folder=$(mktemp -d)
api=
finish() {
  local code=$?
  [[ -z $api ]] || { kill "$api" 2>/dev/null || true; wait "$api" 2>/dev/null || true; }
  rm -rf -- "$folder"
  exit "$code"
}
trap finish EXIT

proofs() {
  local proof
  for proof in sparkpost sendgrid cloudevents_sdk table; do
    PYTHONDONTWRITEBYTECODE=yes "$python" "$proof.py" "$1"
  done
}

echo "-- bodies of requests"
proofs "$bodies"

echo "-- files of the program"
"$program" simulate --events 3000 --days 2 --seed 7 >"$folder/api.log" 2>"$folder/api.err" &
api=$!
url=
for _ in {1..100}; do
  url=$(grep -hoE 'http://127\.0\.0\.1:[0-9]+' "$folder/api.log" "$folder/api.err" | head -n 1 || true)
  [[ -z $url ]] || break
  sleep 0.1
done
[[ -n $url ]] || { cat "$folder"/api.*; echo "the simulated API did not start"; exit 1; }
{
  printf 'data_dir = "%s/data"\n[api]\nurl = "%s"\nkey_env = "SPARKSPOOL_SIMULATED_KEY"\n' "$folder" "$url"
  printf 'requests_per_minute = 6000\n[streams.all]\nsinks = ["raw", "normalized", "cloudevents", "sparkpost-webhook", "sendgrid", "csv"]\n'
  for format in raw normalized cloudevents sparkpost-webhook sendgrid; do
    printf '[sinks.%s.file]\npath = "%s/%s.ndjson"\nformat = "%s"\n' "$format" "$folder" "$format" "$format"
  done
  printf '[sinks.csv.file]\npath = "%s/events.csv"\nformat = "csv"\n' "$folder"
} >"$folder/sparkspool.toml"
# `normalized` without the raw event, as the data of `cloudevents`.
sed -i 's/^format = "normalized"$/&\ninclude_raw = false/' "$folder/sparkspool.toml"
SPARKSPOOL_SIMULATED_KEY=simulated-key "$program" --config "$folder/sparkspool.toml" backfill --since 2d
proofs "$folder"
