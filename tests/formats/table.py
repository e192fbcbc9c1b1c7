"""Python's reader of CSV reads our `csv`, and every cell is what the normalized event says.
It stands for all the readers that are not ours."""

import csv
import io
import json

from folder import FOLDER, body

GROUPS = {
    "bounce_": ["bounce"],
    "engagement_geo_": ["engagement", "geo"],
    "engagement_": ["engagement"],
    "complaint_": ["complaint"],
    "delivery_attempt_": ["delivery_attempt"],
}


def value(event, column):
    for prefix, path in GROUPS.items():
        if column.startswith(prefix):
            for name in path:
                event = event.get(name, {})
            return event.get(column[len(prefix) :])
    return event.get(column)


def plain(cell):
    guarded = cell.startswith("'") and cell.lstrip("'")[:1] in ("=", "+", "-", "@", "\t", "\r") and cell.lstrip("'")
    return cell[1:] if guarded else cell


def main():
    whole = FOLDER / "csv.body"
    text = (whole if whole.exists() else FOLDER / "events.csv").read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    normalized = json.loads(body("normalized"))
    assert len(rows) == len(normalized), (len(rows), len(normalized))
    for row, event in zip(rows, normalized):
        for column, cell in row.items():
            expected = value(event, column)
            if expected is None:
                assert cell == "", (column, cell)
            elif isinstance(expected, str):
                assert plain(cell) == expected, (column, cell, expected)
                assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r"), (column, cell)
            else:
                assert json.loads(cell) == expected, (column, cell, expected)
    print(f"CSV: {len(rows)} records of {len(rows[0])} columns")


main()
