"""The object_store sink before a reader that is not ours: the program is killed again and again while it writes to a bucket and
to a folder; then DuckDB reads every object and finds each event exactly once, in the right columns, types and partitions.
Usage: check.py PROGRAM S3_URL [SEED], with a Python that has boto3 (moto brings it), duckdb and pytz, and a bucket `spool` at S3_URL."""

import collections
import datetime
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

import boto3
import duckdb

PROGRAM, S3_URL = sys.argv[1:3]
SEED = sys.argv[3] if len(sys.argv) > 3 else str(random.randrange(10**6))
DOCS = pathlib.Path(__file__).resolve().parent.parent.parent / "docs/sinks-object-store.md"
EVENTS = 12000
KILLS = 10
# A run that takes longer than this, in seconds, hangs.
PATIENCE = 240
PREFIX = f"check-{os.getpid()}-{SEED}"
ENV = {"SPARKPOST_API_KEY": "simulated-key", "AWS_ACCESS_KEY_ID": "S3RVER", "AWS_SECRET_ACCESS_KEY": "S3RVER"}
BUCKET = boto3.client("s3", endpoint_url=S3_URL, region_name="us-east-1", aws_access_key_id="S3RVER", aws_secret_access_key="S3RVER")
# How DuckDB names the types of the columns that are no text.
TYPES = {
    "TIMESTAMP WITH TIME ZONE": {"time", "observed_at", "replayed_at", "injected_at"},
    "BIGINT": {"late_by_ms", "type_id", "bounce_class", "bounce_code", "delivery_retries", "delivery_queue_ms"},
    "BOOLEAN": {"late", "revision", "transactional", "bounce_out_of_band", "engagement_initial", "engagement_amp",
                "engagement_mobile", "engagement_proxy", "engagement_prefetched"},
    "DOUBLE": {"geo_latitude", "geo_longitude"},
    "DATE": {"date"},
}
# Columns whose name is not the normalized event's.
PATHS = {
    "event_group": "group", "late": "late", "revision": "revision", "geo_country": "engagement.geo.country",
    "geo_region": "engagement.geo.region", "geo_city": "engagement.geo.city", "geo_latitude": "engagement.geo.latitude",
    "geo_longitude": "engagement.geo.longitude",
}
PARTS = {"bounce_": "bounce.", "engagement_": "engagement.", "complaint_": "complaint.", "delivery_": "delivery_attempt."}
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)

folder = pathlib.Path(tempfile.mkdtemp())
os.chdir(folder)


def configuration(api):
    lake = f'url = "s3://spool/{PREFIX}/%s"\nendpoint = "{S3_URL}"\nallow_http = true\nregion = "us-east-1"'
    pace = "batch_events = %d\nbatch_age = \"0s\"\nrate_limit = 8000\n"
    return f"""
data_dir = "{folder}/data"
[api]
url = "{api}"
requests_per_minute = 6000
page_size = 700
[streams.all]
sinks = ["truth", "lake", "lines", "local"]
[sinks.truth.file]
path = "{folder}/truth.ndjson"
[sinks.lake]
{pace % 900}[sinks.lake.object_store]
{lake % "lake"}
[sinks.lines]
{pace % 1100}[sinks.lines.object_store]
{lake % "lines"}
format = "ndjson.zst"
[sinks.local]
{pace % 1300}[sinks.local.object_store]
url = "file://{folder}/local"
include_raw = false
"""


def run(*words, wait=None):
    """Runs the program; kills it after `wait` seconds. Returns whether it ended by itself."""
    child = subprocess.Popen([PROGRAM, *words], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        said = child.communicate(timeout=wait or PATIENCE)[1]
    except subprocess.TimeoutExpired:
        child.kill()
        said = child.communicate()[1]
        assert wait, f"the program hangs:\n{said}"
        assert "ERROR" not in said, said
        return False
    assert child.returncode == 0, f"{words}: {child.returncode}\n{said}"
    return True


def fetch(prefix, to):
    """Downloads what the bucket holds below a prefix."""
    found = 0
    for page in BUCKET.get_paginator("list_objects_v2").paginate(Bucket="spool", Prefix=f"{prefix}/"):
        for item in page.get("Contents", []):
            target = folder / to / item["Key"].removeprefix(f"{prefix}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(BUCKET.get_object(Bucket="spool", Key=item["Key"])["Body"].read())
            found += 1
    return found


def whole(text):
    """Text as it can be stored: halves of surrogate pairs are replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(text, str) else text


def of_event(event, column, kind):
    """What a column must hold of a normalized event."""
    path = PATHS.get(column) or next((part + column.removeprefix(name) for name, part in PARTS.items() if column.startswith(name)), column)
    value = event
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if column in ("late", "revision"):
        return bool(value)
    if column in ("metadata", "tags"):
        return None if value is None else json.dumps(value, sort_keys=True)
    if kind == "TIMESTAMP WITH TIME ZONE":
        return None if value is None else round((datetime.datetime.fromisoformat(value.replace("Z", "+00:00")) - EPOCH).total_seconds() * 1000)
    return whole(value)


def of_row(column, value):
    if column in ("metadata", "tags"):
        return None if value is None else json.dumps(json.loads(value), sort_keys=True)
    return value


def compare(source, truth, columns, what):
    """Every event once: the rows, as they are without regard to their order, are those of the truth."""
    names = [name for name in columns if name not in ("raw", "replayed_at", "stream", "date")]
    cells = [f'epoch_ms("{name}")' if columns[name] == "TIMESTAMP WITH TIME ZONE" else f'"{name}"' for name in names]
    rows = duckdb.sql(f"SELECT {', '.join(cells)} FROM {source}").fetchall()
    found = collections.Counter(tuple(of_row(name, value) for name, value in zip(names, row)) for row in rows)
    expected = collections.Counter(tuple(of_event(event, name, columns[name]) for name in names) for event in truth)
    rest = expected - found
    for row, _ in zip((found - expected).keys(), range(3)):
        nearest = min(rest, key=lambda other: sum(a != b for a, b in zip(row, other)), default=row)
        print([(name, a, b) for name, a, b in zip(names, row, nearest) if a != b])
    assert found == expected, f"{what}: {len(rows)} rows for {len(truth)} events"


def captured():
    return [json.loads(line) for line in (folder / "truth.ndjson").read_text().splitlines()]


def number(sql):
    return duckdb.sql(sql).fetchall()[0][0]


def types(source):
    columns = {name: kind for name, kind, *_ in duckdb.sql(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    for name, kind in columns.items():
        expected = next((kind for kind, names in TYPES.items() if name in names), "VARCHAR")
        assert kind == expected, f"{name} is {kind}, not {expected}"
    missing = set().union(*TYPES.values()) - set(columns)
    assert not missing and {"id", "stream", "metadata", "tags", "raw"} <= set(columns), (missing, columns)
    return columns


def partitions(source):
    wrong = f"""SELECT count(*) FROM {source} WHERE stream <> 'all'
        OR date IS DISTINCT FROM ("time" AT TIME ZONE 'UTC')::date"""
    assert number(wrong) == 0, f"rows of {source} lie in partitions of others"
    disorder = f"""SELECT count(*) FROM (SELECT "time", lag("time") OVER (PARTITION BY filename ORDER BY file_row_number)
        AS before FROM {source}) WHERE before > "time" """
    assert number(disorder.replace("hive_partitioning", "filename = true, file_row_number = true, hive_partitioning")) == 0


def documented(truth):
    """The queries of the document, as they stand there. The first of those that give a number gives each event once."""
    queries = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.S)
    assert queries, "the document has no queries"
    for query in queries:
        for statement in filter(str.strip, query.split(";")):
            result = duckdb.sql(statement)
            if re.search(r"^SELECT", statement, re.M) and "CREATE" not in statement:
                assert result.fetchall(), f"no row: {statement}"
    latest = collections.Counter((event["id"], event.get("source_type"), event.get("time")) for event in truth)
    assert number("SELECT count(*) FROM events") == len(latest), "the view does not give each event once"


def main():
    api = subprocess.Popen([PROGRAM, "simulate", "--events", str(EVENTS), "--days", "3", "--to", "0h", "--seed", SEED, "--adverse-mail"],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = next(word for line in api.stdout for word in re.findall(r"http://127\.0\.0\.1:\d+", line))
        (folder / "sparkspool.toml").write_text(configuration(url))
        kills, backfill = 0, ("backfill", "--since", "4d")
        for number_of_run in range(1, KILLS + 1):
            # At first too early for anybody to come to an end, then later and later.
            if run(*backfill, wait=number_of_run * random.uniform(0.05, 0.15)):
                break
            kills += 1
        run(*backfill)
        assert kills >= 3, f"only {kills} runs were killed before their end"
        truth = captured()
        objects = fetch(f"{PREFIX}/lake", "lake")
        fetch(f"{PREFIX}/lines", "lines")
        lake = "read_parquet('lake/stream=*/date=*/*.parquet', hive_partitioning = true)"
        local = lake.replace("lake/", "local/")
        columns = types(lake)
        partitions(lake)
        partitions(local)
        compare(lake, truth, columns, "the bucket")
        compare(local, truth, types(local), "the folder")
        raws = collections.Counter(whole(raw) for raw, in duckdb.sql(f"SELECT raw FROM {lake}").fetchall())
        assert sum(raws.values()) == len(truth) and number(f"SELECT count(raw) FROM {local}") == 0
        lines = "read_csv('lines/stream=*/date=*/*.ndjson.zst', columns = {'line': 'VARCHAR'}, delim = '', quote = '', escape = '', header = false, auto_detect = false, compression = 'zstd', max_line_size = 10000000)"
        lines = collections.Counter(line for line, in duckdb.sql(f"SELECT line FROM {lines}").fetchall())
        assert lines == collections.Counter((folder / "truth.ndjson").read_text().splitlines()), "the lines differ"
        left = [path for path in (folder / "local/.sparkspool").iterdir()]
        assert not left, left

        # What is handed over again is there twice, and says so.
        # `--since` ends a little before now, and an event may carry a time that has not come yet.
        until = lambda ago: time.strftime("%Y-%m-%dT%H:%M:%S.999Z", time.gmtime(time.time() - ago))
        begin = until(180)
        run("replay", "--sink", "lake", "--since", "5d")
        end = until(0)
        run(*backfill)
        fetch(f"{PREFIX}/lake", "lake")
        replayed = number(f"SELECT count(*) FROM {lake} WHERE replayed_at IS NOT NULL")
        least, most = (sum(event.get("time", "Z") <= instant for event in truth) for instant in (begin, end))
        assert least <= replayed <= most, (least, replayed, most)
        # A minute may have become old enough to be read meanwhile.
        truth = captured()
        compare(lake.replace("*.parquet", "[0-9]*.parquet"), truth, columns, "what was there before a replay")
        documented(truth)
        size = sum(path.stat().st_size for path in (folder / "lake").rglob("[0-9]*.parquet"))
        print(f"{len(truth)} events once in {objects} objects after {kills} kills; NDJSON is "
              f"{(folder / 'truth.ndjson').stat().st_size / size:.1f} times as large (seed {SEED})")
    finally:
        api.kill()
        api.wait()


started = time.monotonic()
try:
    main()
except BaseException:
    print(f"seed {SEED}, left in {folder}", file=sys.stderr)
    raise
shutil.rmtree(folder)
print(f"{time.monotonic() - started:.0f} s")
