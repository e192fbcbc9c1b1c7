"""The CloudEvents project's own SDK reads our `cloudevents`, one by one and as a batch.
It checks what the specification demands of attributes, which nothing of ours does."""

import json
from urllib.parse import urlsplit

from cloudevents.core.bindings.http import HTTPMessage, from_http_event, from_structured_event
from folder import about, body, events, singles


def main():
    media = about("cloudevents") or {
        "batch": "application/cloudevents-batch+json",
        "single": "application/cloudevents+json",
    }
    assert media["batch"] == "application/cloudevents-batch+json"
    batch = json.loads(body("cloudevents"))
    normalized = json.loads(body("normalized"))
    each = singles("cloudevents")
    assert len(batch) == len(each) == len(events()) == len(normalized)
    seen = set()
    for item, text, data, raw in zip(batch, each, normalized, events()):
        message = HTTPMessage({"content-type": media["single"]}, text.encode())
        for event in (from_http_event(message), from_structured_event(message)):
            assert event.get_specversion() == "1.0"
            assert event.get_type() == "com.sparkpost." + raw.get("type", "unknown"), event.get_type()
            assert event.get_datacontenttype() == "application/json"
            assert event.get_data() == data == item["data"]
            assert urlsplit(event.get_source()).scheme == "urn"
            assert event.get_subject() == raw.get("message_id")
            assert (event.get_time() is None) == ("time" not in data)
        assert item["id"].startswith(data["id"].split(":")[0]), item["id"]
        # The SDK has no batches: each item must be what stands alone.
        assert json.loads(text) == item
        seen.add((item["source"], item["id"]))
    assert len(seen) == len(batch), "two events of one source and id"
    print(f"CloudEvents: {len(batch)} events read, each one of its kind")


main()
