"""What sparkspool wrote in each format: bodies of requests from the tests, or files of the program's own sinks.
It exists so that every proof reads both in the same way."""

import json
import pathlib
import sys

FOLDER = pathlib.Path(sys.argv[1])
REFERENCE = json.loads((pathlib.Path(__file__).parent.parent / "fixtures" / "event-fields.json").read_text())


def lines(name):
    """The lines of a file. Not `splitlines`, which takes more than a line feed for the end of a line."""
    return (FOLDER / f"{name}.ndjson").read_bytes().decode().split("\n")[:-1]


def body(name):
    """The body of one request that holds every event: as written, or made of a file's lines."""
    whole = FOLDER / f"{name}.body"
    if whole.exists():
        return whole.read_text()
    return "[" + ",".join(lines(name)) + "]"


def singles(name):
    """The bodies of requests that hold one event each."""
    several = FOLDER / f"{name}.singles"
    if several.exists():
        return json.loads(several.read_text())
    return lines(name)


def about(name):
    """Media types and counts, where they are known."""
    about = FOLDER / f"{name}.about"
    return json.loads(about.read_text()) if about.exists() else None


def events():
    """The events, as the API sent them."""
    return json.loads(body("raw"))
