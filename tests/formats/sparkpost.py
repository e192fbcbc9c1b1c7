"""django-anymail's receiver of SparkPost's webhooks makes of our `sparkpost-webhook` what it makes of true webhooks.

The true ones are built here, a second time and in another language, from the vendor's documents: their types are those of
tests/fixtures/event-fields.json, their classes those that the vendor lists by name."""

import json
from datetime import datetime

from anymail.webhooks.sparkpost import SparkPostTrackingWebhookView
from folder import REFERENCE, about, body, events, singles
from receiver import received

CLASSES = {
    "message_event": "injection delivery delay bounce out_of_band policy_rejection spam_complaint sms_status",
    "track_event": "open initial_open click amp_open amp_initial_open amp_click",
    "gen_event": "generation_failure generation_rejection",
    "unsubscribe_event": "list_unsubscribe link_unsubscribe",
    "relay_event": "relay_injection relay_delivery relay_rejection relay_tempfail relay_permfail",
    "ab_test_event": "ab_test_completed ab_test_cancelled",
    "ingest_event": "success error",
}
CLASS_OF = {kind: name for name, kinds in CLASSES.items() for kind in kinds.split()}
NOT_IN_WEBHOOKS = {"tdate", "display_name", "event_description"}
SAME = (
    "event_type timestamp message_id event_id recipient reject_reason mta_response tags metadata click_url user_agent"
).split()


def webhook_value(name, documented, value):
    if name == "timestamp":
        return str(int(datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()))
    kinds = documented.get(name, {}).get("type", "").split("|")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and "string" in kinds:
        return str(value)
    if name in ("customer_id", "subaccount_id"):
        return str(value)
    return value


def true_webhook(event):
    documented = REFERENCE.get(event.get("type"), {})
    members = {
        name: webhook_value(name, documented, value) for name, value in event.items() if name not in NOT_IN_WEBHOOKS
    }
    if "geo_ip" in members:
        numbers = {name: float(members["geo_ip"][name]) for name in ("latitude", "longitude") if name in members["geo_ip"]}
        members["geo_ip"] = {**members["geo_ip"], **numbers}
    return members


def as_arrays(value):
    """What the legacy API did to arrays in metadata, undone."""
    if isinstance(value, list):
        return [as_arrays(item) for item in value]
    if not isinstance(value, dict):
        return value
    items = {name: as_arrays(item) for name, item in value.items()}
    if items and set(items) == {str(n) for n in range(len(items))}:
        return [items[str(n)] for n in range(len(items))]
    return items


def main():
    sent = json.loads(body("sparkpost-webhook"))
    assert [json.loads(single) for single in singles("sparkpost-webhook")] == sent
    truth = []
    for event, ours in zip(events(), sent, strict=True):
        members = true_webhook(event)
        if isinstance(members.get("rcpt_meta"), dict):
            members["rcpt_meta"] = {name: as_arrays(value) for name, value in members["rcpt_meta"].items()}
        kind = event.get("type")
        (name,) = ours["msys"]
        assert name == CLASS_OF.get(kind, name), (kind, name)
        # What no document lists is wrapped as we decided, and must only be taken.
        truth.append({"msys": {name: members}})
        for member in ours["msys"][name].keys() | members.keys():
            if member != "injection_time":
                pair = (ours["msys"][name].get(member), members.get(member))
                assert pair[0] == pair[1], (kind, member, pair)
    media = about("sparkpost-webhook")
    assert media is None or media["batch"] == "application/json"
    ours = received(SparkPostTrackingWebhookView, body("sparkpost-webhook"))
    true = received(SparkPostTrackingWebhookView, json.dumps(truth))
    assert len(ours) == len(true) == len(sent)
    for one, other in zip(ours, true):
        for name in SAME:
            assert getattr(one, name) == getattr(other, name), (name, one.esp_event)
    timeless = [one for one, event in zip(ours, events()) if event.get("timestamp") and one.timestamp is None]
    assert not timeless, timeless
    kinds = {event.get("type") for event in events()}
    reasons = {one.reject_reason for one in ours}
    print(f"SparkPost: {len(ours)} events of {len(kinds)} types, {len(reasons)} reasons: as a true webhook's")


main()
