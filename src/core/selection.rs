//! Which events a sink wants: values of normalized fields, by name. It exists so that a sink's filter reads like the events
//! that come out of it, and is decided without I/O.

use super::catalogue::Field;
use super::erased::is_tombstone;
use super::event::StreamName;
use super::normalize::{Normalized, Text};
use std::collections::BTreeMap;

/// A field of the normalized event that a sink can be filtered by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Term {
    Type,
    Group,
    Stream,
    Recipient,
    RecipientDomain,
    Sender,
    SendingDomain,
    CampaignId,
    TemplateId,
    SubaccountId,
    IpPool,
    SendingIp,
    MailboxProvider,
    BounceCategory,
    BounceClass,
}

const TERMS: [(&str, Term); 15] = [
    ("type", Term::Type),
    ("group", Term::Group),
    ("stream", Term::Stream),
    ("recipient", Term::Recipient),
    ("recipient_domain", Term::RecipientDomain),
    ("sender", Term::Sender),
    ("sending_domain", Term::SendingDomain),
    ("campaign_id", Term::CampaignId),
    ("template_id", Term::TemplateId),
    ("subaccount_id", Term::SubaccountId),
    ("ip_pool", Term::IpPool),
    ("sending_ip", Term::SendingIp),
    ("mailbox_provider", Term::MailboxProvider),
    ("bounce_category", Term::BounceCategory),
    ("bounce_class", Term::BounceClass),
];

/// What a sink wants: of every term that is named, one of its values. Empty for everything.
///
/// Values are compared without regard to ASCII case. `type` matches the normalized name or SparkPost's own.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Selection(Vec<(Term, Vec<String>)>);

impl Selection {
    /// The names that a filter may have.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TERMS.iter().map(|(name, _)| *name)
    }

    /// The selection of these fields and values; an error is a name that is none of [`Selection::names`].
    pub fn new(filter: &BTreeMap<String, Vec<String>>) -> Result<Self, String> {
        let term = |(name, values): (&String, &Vec<String>)| {
            let known = TERMS.iter().find(|(known, _)| known == name).ok_or_else(|| name.clone())?;
            Ok((known.1, values.clone()))
        };
        filter.iter().map(term).collect::<Result<_, _>>().map(Self)
    }

    /// Whether every event is wanted.
    pub const fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the event is wanted. What cannot be read as an event is, so that it comes to the dead letters and not to
    /// nothing. So is a tombstone, which says nothing of what its event was filtered by.
    pub fn wants(&self, raw: &str, stream: &StreamName) -> bool {
        if self.is_everything() || is_tombstone(raw) {
            return true;
        }
        let Ok(event) = Normalized::parse(raw) else { return true };
        self.0.iter().all(|(term, values)| {
            let is = |text: &str| values.iter().any(|value| value.eq_ignore_ascii_case(text));
            let has = |text: Option<Text<'_>>| text.is_some_and(|text| is(&text.decode()));
            match term {
                Term::Type => has(Some(event.type_name())) || has(event.text(Field::Type)),
                Term::Group => event.event_type().and_then(|known| known.group).is_some_and(is),
                Term::Stream => is(stream.as_str()),
                Term::Recipient => has(event.recipient()),
                Term::RecipientDomain => has(event.recipient_domain()),
                Term::BounceCategory => {
                    event.bounce().and_then(|b| b.category).is_some_and(|category| is(category.as_str()))
                }
                Term::BounceClass => event.bounce().and_then(|b| b.class).is_some_and(|class| is(&class.to_string())),
                other => has(event.text(field(*other))),
            }
        })
    }
}

/// The field behind a term that is one field as it is.
const fn field(term: Term) -> Field {
    match term {
        Term::Sender => Field::FriendlyFrom,
        Term::SendingDomain => Field::SendingDomain,
        Term::CampaignId => Field::CampaignId,
        Term::TemplateId => Field::TemplateId,
        Term::SubaccountId => Field::SubaccountId,
        Term::IpPool => Field::IpPool,
        Term::SendingIp => Field::SendingIp,
        Term::MailboxProvider => Field::MailboxProvider,
        // The others are no single field and are decided above.
        _ => Field::Type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(filter: &[(&str, &[&str])], raw: &str) -> bool {
        let filter = filter.iter().map(|(name, values)| {
            ((*name).to_owned(), values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
        });
        Selection::new(&filter.collect()).unwrap().wants(raw, &StreamName::new("all").unwrap())
    }

    const BOUNCE: &str = r#"{"type":"bounce","rcpt_to":"a@Example.org","bounce_class":"10","campaign_id":"spring"}"#;

    #[test]
    fn every_named_field_must_have_one_of_its_values() {
        assert!(wants(&[], BOUNCE));
        assert!(wants(&[("type", &["opened", "bounced"])], BOUNCE));
        assert!(wants(&[("type", &["bounce"])], BOUNCE), "SparkPost's own name");
        assert!(!wants(&[("type", &["opened"])], BOUNCE));
        assert!(wants(&[("type", &["bounced"]), ("campaign_id", &["Spring"])], BOUNCE));
        assert!(!wants(&[("type", &["bounced"]), ("campaign_id", &["autumn"])], BOUNCE));
        assert!(!wants(&[("template_id", &["x"])], BOUNCE), "a field that is absent has no value");
    }

    #[test]
    fn derived_fields_count_too() {
        assert!(wants(&[("recipient_domain", &["example.org"])], BOUNCE));
        assert!(wants(&[("bounce_category", &["hard"]), ("bounce_class", &["10"])], BOUNCE));
        assert!(wants(&[("stream", &["all"]), ("group", &["bounce"])], BOUNCE));
        assert!(!wants(&[("stream", &["other"])], BOUNCE));
    }

    #[test]
    fn what_is_no_event_is_not_lost_in_a_filter() {
        assert!(wants(&[("type", &["opened"])], "[]"));
    }

    #[test]
    fn a_name_that_is_none_is_said() {
        let filter = BTreeMap::from([("kind".to_owned(), vec!["x".to_owned()])]);
        assert_eq!(Selection::new(&filter), Err("kind".to_owned()));
        assert_eq!(Selection::names().count(), TERMS.len());
    }
}
