//! The documentation and samples endpoints of both dialects, answered without a key as SparkPost does `[D]`.
//! It exists because clients build their catalogues from them; the samples are real rows of a small population.

use super::filter;
use super::kind::{Dialect, Kind};
use super::population::{Population, PopulationOptions, Size};
use super::query;
use super::rows::Rows;
use crate::core::time::{DAY, UtcMillis};
use crate::core::window::Window;
use serde_json::{Map, Value, json};

/// One sample a type, in the order of [`Kind::DOCUMENTED`], with as many fields as there are.
fn sample_rows(dialect: Dialect, kinds: &[Kind]) -> Vec<Value> {
    let from = UtcMillis::from_secs(1_461_000_000);
    let Some(window) = Window::new(from, from.plus(DAY)) else { return Vec::new() };
    let mut options = PopulationOptions::new(1, window, Size::Events(2_000));
    options.dropout_share = 0.0;
    let population = Population::generate(options);
    let rows = Rows::new(dialect, &population);
    let sample = |kind: &Kind| {
        let of_kind = |place: &usize| population.events()[*place].kind == *kind;
        let candidates = (0..population.events().len()).filter(of_kind).take(8);
        let parsed = candidates.filter_map(|place| serde_json::from_slice::<Value>(&rows.row(&population, place)).ok());
        parsed.max_by_key(|row| row.as_object().map_or(0, Map::len))
    };
    kinds.iter().filter_map(sample).collect()
}

/// `{"results":[sample, …]}`, of the types that `events` names or of all.
pub(super) fn samples(dialect: Dialect, query: &str) -> String {
    let kinds = filter::kinds(&query::parse(query));
    json!({ "results": sample_rows(dialect, &kinds) }).to_string()
}

/// `{"results":[{field: {"description", "sampleValue"}}, …]}`, one object a type. `display_name` and
/// `event_description` occur only here: they are no fields of events `[C]`.
pub(super) fn documentation(dialect: Dialect) -> String {
    let described = sample_rows(dialect, &Kind::DOCUMENTED).into_iter().zip(Kind::DOCUMENTED).map(|(row, kind)| {
        let mut fields = Map::new();
        if let Value::Object(row) = row {
            for (name, value) in row {
                let description = describe(&name);
                fields.insert(name, json!({ "description": description, "sampleValue": value }));
            }
        }
        let (label, meaning) = explain(kind);
        fields.insert("display_name".to_owned(), json!({ "description": "Label of the type", "sampleValue": label }));
        let meaning = json!({ "description": "Meaning of the type", "sampleValue": meaning });
        fields.insert("event_description".to_owned(), meaning);
        Value::Object(fields)
    });
    json!({ "results": described.collect::<Vec<_>>() }).to_string()
}

fn explain(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Injection => ("Injection", "The mail was accepted for sending"),
        Kind::Delivery => ("Delivery", "The receiving server took the mail"),
        Kind::Delay => ("Delay", "The receiving server put the mail off"),
        Kind::Bounce => ("Bounce", "The receiving server refused the mail for good"),
        Kind::OutOfBand => ("Out of Band", "The mail was first taken and came back later"),
        Kind::PolicyRejection => ("Policy Rejection", "A policy of ours refused the mail"),
        Kind::SpamComplaint => ("Spam Complaint", "The recipient called the mail spam"),
        Kind::Open => ("Open", "The mail was displayed, by the pixel at its end"),
        Kind::InitialOpen => ("Initial Open", "The mail was displayed, by the pixel at its beginning"),
        Kind::Click => ("Click", "A tracked link was followed"),
        Kind::AmpOpen => ("AMP Open", "The AMP part was displayed, by the pixel at its end"),
        Kind::AmpInitialOpen => ("AMP Initial Open", "The AMP part was displayed, by the pixel at its beginning"),
        Kind::AmpClick => ("AMP Click", "A tracked link of the AMP part was followed"),
        Kind::GenerationFailure => ("Generation Failure", "The mail could not be made from its template"),
        Kind::GenerationRejection => ("Generation Rejection", "The mail was made and then refused by policy"),
        Kind::ListUnsubscribe => ("List Unsubscribe", "The list-unsubscribe header was used"),
        Kind::LinkUnsubscribe => ("Link Unsubscribe", "The unsubscribe link was followed"),
        Kind::SmsStatus => ("SMS Status", "The SMS gateway reported on a text"),
        Kind::Undocumented => ("", ""),
    }
}

/// What each field means; every field that a sample can have is here.
#[rustfmt::skip]
const FIELDS: [(&str, &str); 71] = [
    ("ab_test_id", "A/B test the mail was part of"),
    ("ab_test_version", "Version of that test"),
    ("accept_language", "Languages the browser asked for"),
    ("amp_enabled", "Whether the mail had an AMP part"),
    ("bounce_class", "Code of the bounce classification"),
    ("campaign_id", "Campaign the mail was part of"),
    ("click_tracking", "Whether clicks were tracked"),
    ("customer_id", "Account that sent the mail"),
    ("delv_method", "Protocol of the attempt"),
    ("dr_latency", "Delay of the SMS report"),
    ("error_code", "Code by which the attempt was refused"),
    ("event_id", "Identity of the event"),
    ("fbtype", "Type of the complaint"),
    ("friendly_from", "Address of the From header"),
    ("geo_ip", "Where the address is believed to be"),
    ("initial_pixel", "Whether a pixel stood at the beginning"),
    ("injection_time", "When the mail was accepted"),
    ("ip_address", "Remote host, or host of the reader"),
    ("ip_pool", "Pool the mail left through"),
    ("mailbox_provider", "Who runs the mailbox"),
    ("mailbox_provider_region", "Where the mailbox is run"),
    ("mailfrom", "Envelope sender of the unsubscribe mail"),
    ("message_id", "Identity of the mail"),
    ("msg_from", "Envelope sender"),
    ("msg_size", "Size of the mail in bytes"),
    ("num_retries", "Failed attempts before this one"),
    ("open_tracking", "Whether opens were tracked"),
    ("outbound_tls", "Whether the attempt used TLS"),
    ("queue_time", "Milliseconds in the queue"),
    ("raw_rcpt_to", "Envelope recipient as given"),
    ("raw_reason", "Words of the receiver, unchanged"),
    ("rcpt_hash", "Hash of the recipient"),
    ("rcpt_meta", "Metadata of the recipient"),
    ("rcpt_subs", "Substitution values of the recipient"),
    ("rcpt_tags", "Tags of the recipient"),
    ("rcpt_to", "Envelope recipient in lower case"),
    ("rcpt_type", "Where the recipient stood, if not in To"),
    ("reason", "Words of the receiver, addresses masked"),
    ("recipient_domain", "Domain of the recipient"),
    ("recv_method", "Protocol by which the mail was accepted"),
    ("remote_addr", "Host the mail was accepted from"),
    ("report_by", "Who reported"),
    ("report_to", "Whom it was reported to"),
    ("routing_domain", "Domain the mail was routed to"),
    ("scheduled_time", "When the mail was to be sent"),
    ("sending_domain", "Domain of the sender"),
    ("sending_ip", "Address the mail left from"),
    ("sms_dst", "Destination number"),
    ("sms_dst_npi", "Numbering plan of the destination"),
    ("sms_dst_ton", "Type of the destination's number"),
    ("sms_remoteids", "Identities the SMS gateway gave"),
    ("sms_src", "Source number"),
    ("sms_src_npi", "Numbering plan of the source"),
    ("sms_src_ton", "Type of the source's number"),
    ("sms_text", "Text of the SMS"),
    ("stat_state", "Outcome of the SMS"),
    ("stat_type", "Type of the SMS report"),
    ("subaccount_id", "Subaccount that sent the mail"),
    ("subject", "Subject header"),
    ("target_link_name", "Name of the link"),
    ("target_link_url", "Target of the link"),
    ("tdate", "Date and time of the event, in UTC"),
    ("template_id", "Template of the mail"),
    ("template_version", "Version of the template"),
    ("timestamp", "Date and time of the event"),
    ("type", "Type of the event"),
    ("transactional", "Whether the mail was marked as transactional"),
    ("transmission_id", "Transmission the mail was part of"),
    ("user_agent", "Program of the reader"),
    ("user_agent_parsed", "The reader's program, taken apart"),
    ("user_str", "Further words of the complaint"),
];

fn describe(field: &str) -> &'static str {
    FIELDS.iter().find(|(name, _)| *name == field).map_or("", |(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_describes_every_field_of_all_types() {
        for dialect in [Dialect::MessageEvents, Dialect::Events] {
            let parsed: Value = serde_json::from_str(&documentation(dialect)).unwrap();
            let types = parsed["results"].as_array().unwrap();
            assert_eq!(types.len(), 18);
            for (described, kind) in types.iter().zip(Kind::DOCUMENTED) {
                assert_eq!(described["type"]["sampleValue"], kind.name());
                assert!(described["display_name"]["sampleValue"].is_string());
                for (name, field) in described.as_object().unwrap() {
                    assert_ne!(field["description"], "", "{name}");
                }
            }
        }
    }

    #[test]
    fn samples_are_chosen_by_events() {
        let parsed: Value = serde_json::from_str(&samples(Dialect::Events, "events=bounce,click")).unwrap();
        let types: Vec<_> = parsed["results"].as_array().unwrap().iter().map(|row| row["type"].clone()).collect();
        assert_eq!(types, ["bounce", "click"]);
        assert!(parsed["results"][0].get("display_name").is_none());
    }
}
