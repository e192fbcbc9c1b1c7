"""django-anymail's receiver of SendGrid's webhooks takes our `sendgrid`, and makes of every event what it is.
What it makes of each is spelt out here, so that a change of the mapping is noticed by somebody else's reading of it."""

import json

from anymail.webhooks.sendgrid import SendGridTrackingWebhookView
from folder import about, body, events, singles
from receiver import received

EXPECTED = {
    "injection": "queued",
    "delivery": "delivered",
    "delay": "deferred",
    "bounce": "bounced",
    "out_of_band": "bounced",
    "policy_rejection": "rejected",
    "generation_failure": "rejected",
    "generation_rejection": "rejected",
    "open": "opened",
    "amp_open": "opened",
    "click": "clicked",
    "amp_click": "clicked",
    "spam_complaint": "complained",
    "list_unsubscribe": "unsubscribed",
    "link_unsubscribe": "unsubscribed",
}
BY_CLASS = {
    ("bounce", "25"): "rejected",
    ("bounce", "26"): "rejected",
    ("out_of_band", "90"): "unsubscribed",
    ("out_of_band", "60"): None,
    ("out_of_band", "80"): None,
    ("out_of_band", "100"): None,
}
HARD = {"10", "30", "90"}


def main():
    sent = json.loads(body("sendgrid"))
    assert [json.loads(single) for single in singles("sendgrid")] == sent
    expected = []
    for event in events():
        kind, bounce_class = event.get("type"), event.get("bounce_class")
        made = BY_CLASS.get((kind, str(bounce_class)), EXPECTED.get(kind))
        recipient = event.get("rcpt_to") or event.get("raw_rcpt_to")
        if made and recipient and event.get("timestamp"):
            expected.append((event, made, recipient))
    counts = about("sendgrid")
    assert counts is None or (counts["written"], counts["skipped"]) == (len(sent), len(events()) - len(sent)), counts
    found = received(SendGridTrackingWebhookView, body("sendgrid"))
    assert len(found) == len(expected) == len(sent), (len(found), len(expected), len(sent))
    for (event, made, recipient), one, ours in zip(expected, found, sent):
        assert (one.event_type, one.recipient) == (made, recipient), (event, one.event_type)
        assert one.timestamp is not None and one.event_id, event
        assert one.click_url == (event.get("target_link_url") if made == "clicked" else None), event
        assert (one.tags or []) == [tag for tag in event.get("rcpt_tags") or []], event
        hard = str(event.get("bounce_class")) in HARD
        assert ours.get("type") == (("bounce" if hard else "blocked") if made == "bounced" else None), ours
        if made == "bounced" and event.get("raw_reason"):
            assert one.mta_response == event["raw_reason"], event
        # What is left of the metadata after the names that it takes for SendGrid's own.
        for name in event.get("rcpt_meta") or {}:
            assert name in one.metadata or name in SendGridTrackingWebhookView.sendgrid_event_keys, (name, one.metadata)
    ids = {one["sg_event_id"] for one in sent}
    distinct = {(event["event_id"], event["type"], event["timestamp"][:16]) for event, _, _ in expected if event.get("event_id")}
    assert len(ids) >= len(distinct), (len(ids), len(distinct))
    assert all(len(one) <= 100 for one in ids)
    print(f"SendGrid: {len(found)} of {len(events())} events have an equivalent and are taken for what they are")


main()
