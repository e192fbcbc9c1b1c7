//! The JSON Schema of a normalized event, for consumers that want a contract to generate from or to check against.
//! It exists by hand, not by derivation, because the event is written from tokens and no Rust type mirrors it.

use super::{PROVIDER, SCHEMA_VERSION};
use crate::core::bounce::Category;
use crate::core::catalogue::EVENT_TYPES;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The JSON Schema (draft 2020-12) of the normalized event. A newer version of sparkspool may add fields, so a
/// consumer should ignore what it does not know; this one writes no others than these.
pub fn event_schema() -> Value {
    let mut properties = Map::new();
    for part in [identity(), message(), parts()] {
        if let Value::Object(part) = part {
            properties.extend(part);
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A normalized event of sparkspool",
        "description": "What is absent was absent, null or empty in the event; there are no nulls.",
        "type": "object",
        "required": ["schema", "id", "provider", "stream", "type", "observed_at"],
        "additionalProperties": false,
        "properties": properties,
        "$defs": {
            "instant": {
                "type": "string",
                "format": "date-time",
                "pattern": "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z$",
            },
            "count": { "type": "integer", "minimum": 0 },
        },
    })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn flag(description: &str) -> Value {
    json!({ "type": "boolean", "description": description })
}

fn count(description: &str) -> Value {
    json!({ "$ref": "#/$defs/count", "description": description })
}

fn instant(description: &str) -> Value {
    json!({ "$ref": "#/$defs/instant", "description": description })
}

fn identity() -> Value {
    let names: BTreeSet<_> = EVENT_TYPES.iter().map(|known| known.name).collect();
    let groups: BTreeSet<_> = EVENT_TYPES.iter().filter_map(|known| known.group).collect();
    let type_ids: BTreeSet<_> = EVENT_TYPES.iter().filter_map(|known| known.type_id).collect();
    json!({
        "schema": { "const": SCHEMA_VERSION, "description": "Version of this schema." },
        "id": text("The provider's event id, unique together with source_type; sha256: and the digest of the canonical object where it has none."),
        "provider": { "const": PROVIDER },
        "stream": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$", "description": "The configured stream that captured it." },
        "type": { "type": "string", "examples": names, "description": "What happened. A type that is not known is passed on under the provider's name; unknown where there is none; erased where the event of this id, source_type and time is to be forgotten, because its recipient was erased." },
        "type_id": { "type": "integer", "enum": type_ids, "description": "SendPost's event type id, for the types its table lists." },
        "source_type": text("The provider's name of the type."),
        "group": { "type": "string", "enum": groups, "description": "The provider's event group." },
        "time": instant("When it happened."),
        "observed_at": instant("When sparkspool first stored it, a revision when it stored the revision."),
        "late": { "const": true, "description": "Present where the event appeared after its minute had been read." },
        "late_by_ms": count("observed_at minus time, on late events, in milliseconds."),
        "revision": { "const": true, "description": "Present where an event of this id and source_type was handed over before, with another body; this one replaces it." },
    })
}

fn message() -> Value {
    json!({
        "recipient": text("The envelope recipient."),
        "recipient_domain": text("The recipient's domain, else the domain the message was routed to."),
        "recipient_type": text("cc, bcc or archive, for a copy; absent for the recipient in To."),
        "sender": text("The From address."),
        "sending_domain": text("The domain of the From address."),
        "subject": text("The subject; may be empty."),
        "message_id": text("The provider's id of the message; the same on all its events."),
        "transmission_id": text("The API call or injection the message came from."),
        "campaign_id": text("The campaign."),
        "template_id": text("The template."),
        "template_version": text("The version of the template."),
        "subaccount_id": text("The subaccount; absent for the primary account."),
        "ip_pool": text("The IP pool it was sent through."),
        "sending_ip": text("The address it was sent from; sometimes a name."),
        "mailbox_provider": text("Who runs the recipient's mailbox."),
        "mailbox_provider_region": text("Where that provider is."),
        "injected_at": instant("When the provider accepted the message."),
        "transactional": flag("Whether it was sent as transactional."),
    })
}

fn parts() -> Value {
    let object = |properties: Value| json!({ "type": "object", "additionalProperties": false, "minProperties": 1, "properties": properties });
    let categories = Category::ALL.map(Category::as_str);
    let mut bounce = object(json!({
        "class": count("The provider's classification code."),
        "name": text("The class's name; absent where the code is not in the provider's table."),
        "category": { "type": "string", "enum": categories, "description": "The class's category; undetermined where the code is not in the table." },
        "code": count("The SMTP or HTTP status of the response."),
        "reason": text("The response, with addresses masked by the provider."),
        "raw_reason": text("The response, verbatim."),
        "out_of_band": flag("Whether the receiver had accepted the message before."),
    }));
    bounce["required"] = json!(["out_of_band"]);
    bounce["description"] = json!("Why something failed, was refused or is delayed. Its presence alone is no bounce.");
    let number = |bound: u32| json!({ "type": "number", "description": format!("Degrees, within ±{bound}.") });
    json!({
        "bounce": bounce,
        "engagement": object(json!({
            "ip": text("Where the request came from."),
            "user_agent": text("Its User-Agent."),
            "url": text("The link's target."),
            "link_name": text("The name the sender gave the link."),
            "initial": flag("On opens: the pixel at the top of the message, not the one at its end."),
            "amp": flag("On opens and clicks: in the AMP part."),
            "mobile": flag("From a mobile device."),
            "proxy": flag("By a proxy, on behalf of whoever reads."),
            "prefetched": flag("By a machine ahead of any reader, as mail privacy protection does: no proof of reading."),
            "geo": object(json!({
                "country": text("Country code."),
                "region": text("Region code."),
                "city": text("City."),
                "latitude": number(90),
                "longitude": number(180),
            })),
        })),
        "complaint": object(json!({
            "type": text("The feedback type of RFC 5965."),
            "by": text("Who reported it."),
            "to": text("To whom it was reported."),
        })),
        "delivery_attempt": object(json!({
            "retries": count("Failed attempts before this one."),
            "queue_ms": count("Time in the provider's queue, in milliseconds."),
            "ip": text("The recipient's server."),
            "method": text("The protocol, esmtp for email."),
        })),
        "metadata": { "type": "object", "description": "The sender's metadata of the recipient." },
        "tags": { "type": "array", "items": { "type": "string" }, "description": "The sender's tags." },
        "raw": { "type": "object", "description": "The event as the provider sent it, on one line." },
    })
}
