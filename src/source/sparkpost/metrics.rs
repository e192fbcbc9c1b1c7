//! The Metrics endpoint of the same API: how many events of which type happened, minute by minute, for six months.
//! It exists for ranges whose events have expired: what cannot be read any more can still be counted.

use super::dialect::under;
use super::wire;
use super::{http_date, wait_asked};
use crate::core::time::{DAY, HOUR, MINUTE, Millis, UtcMillis};
use crate::core::window::{Coverage, Window};
use crate::net::{Client, NetError};
use crate::source::SourceError;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::collections::BTreeMap;
use url::Url;

/// "Metrics API data is retained for 6 months" (vendor's documentation); a few days less than any six months have.
pub const KEPT: Millis = 180 * DAY;

/// The metric that counts each event type, and the type as the event APIs name it. `count_unsubscribe` counts both kinds
/// of unsubscribing together. AMP opens and clicks and SMS have no metric in the vendor's documentation.
const COUNTED: [(&str, &str); 13] = [
    ("count_injected", "injection"),
    ("count_delivered", "delivery"),
    ("count_delayed", "delay"),
    ("count_inband_bounce", "bounce"),
    ("count_outofband_bounce", "out_of_band"),
    ("count_policy_rejection", "policy_rejection"),
    ("count_generation_failed", "generation_failure"),
    ("count_generation_rejection", "generation_rejection"),
    ("count_spam_complaint", "spam_complaint"),
    ("count_rendered", "open"),
    ("count_initial_rendered", "initial_open"),
    ("count_clicked", "click"),
    ("count_unsubscribe", UNSUBSCRIBE),
];

/// The name under which `list_unsubscribe` and `link_unsubscribe` are counted together.
const UNSUBSCRIBE: &str = "unsubscribe";

/// The name under which events of the type `kind` are counted; `None` where Metrics has no count of them.
pub fn counted_as(kind: &str) -> Option<&'static str> {
    let kind = if matches!(kind, "list_unsubscribe" | "link_unsubscribe") { UNSUBSCRIBE } else { kind };
    COUNTED.iter().map(|(_, name)| *name).find(|name| *name == kind)
}

/// Every name under which events are counted, with none of them.
pub fn none() -> BTreeMap<String, u64> {
    COUNTED.iter().map(|(_, name)| ((*name).to_owned(), 0)).collect()
}

/// How finely a question is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// By the minute, for at most 24 hours (vendor's documentation).
    Minute,
    /// By the hour, for at most 31 days.
    Hour,
}

impl Precision {
    const fn name(self) -> &'static str {
        match self {
            Self::Minute => "1min",
            Self::Hour => "hour",
        }
    }

    /// The span of one answer in a series.
    pub const fn step(self) -> Millis {
        match self {
            Self::Minute => MINUTE,
            Self::Hour => HOUR,
        }
    }

    const fn longest(self) -> Millis {
        match self {
            Self::Minute => DAY,
            Self::Hour => 31 * DAY,
        }
    }
}

/// One question: a range on whole steps of its precision, no longer than that allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// The range.
    pub window: Window,
    /// How finely it is answered.
    pub precision: Precision,
}

/// How a range is counted: its whole hours by the hour, where that is worth it, and what lies beside them by the minute.
fn split(range: Window) -> (Option<Window>, Vec<Window>) {
    let range = range.align_outward(MINUTE);
    let hours = Window::new(range.from().ceil(HOUR), range.to().floor(HOUR)).filter(|_| range.span() > DAY);
    let Some(hours) = hours else { return (None, vec![range]) };
    let edges = [Window::new(range.from(), hours.from()), Window::new(hours.to(), range.to())];
    (Some(hours), edges.into_iter().flatten().collect())
}

/// The fewest questions whose answers can be told apart by range: up to a day by the minute; of longer ranges whole hours
/// by the hour, and what lies beside them by the minute.
pub fn questions(ranges: &[Window]) -> Vec<Question> {
    let (mut hours, mut minutes) = (Coverage::new(), Coverage::new());
    for range in ranges {
        let (whole, beside) = split(*range);
        hours.extend(whole);
        minutes.extend(beside);
    }
    let mut asked = packed(&hours, Precision::Hour);
    asked.extend(packed(&minutes, Precision::Minute));
    asked
}

/// What lies close together is asked for together: a question may be longer than what it is asked for.
fn packed(windows: &Coverage, precision: Precision) -> Vec<Question> {
    let mut packed: Vec<Window> = Vec::new();
    for window in windows.windows() {
        let mut rest = Some(*window);
        while let Some(part) = rest {
            let room = packed.last().map(|last| last.from().plus(precision.longest())).filter(|end| *end > part.from());
            let end = room.unwrap_or(part.from().plus(precision.longest())).min(part.to());
            let from = room.and_then(|_| packed.pop()).map_or(part.from(), Window::from);
            packed.extend(Window::new(from, end));
            rest = Window::new(end, part.to());
        }
    }
    packed.into_iter().map(|window| Question { window, precision }).collect()
}

/// The counts of one step of a series, by event type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// The minute or hour.
    pub window: Window,
    /// By the vendor's name of the type, as [`counted_as`] has it.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Bucket {
    /// Whether this step counts for `range`, one of those that [`questions`] were made from: no instant of a range is
    /// counted twice, by the hour and by the minute. A minute that the range only begins or ends in counts whole.
    pub fn counts_for(&self, range: Window) -> bool {
        let holds = |part: &Window| part.intersection(self.window) == Some(self.window);
        let (hours, minutes) = split(range);
        if self.window.span() == HOUR { hours.iter().any(holds) } else { minutes.iter().any(holds) }
    }
}

/// An account's Metrics endpoint.
#[derive(Clone)]
pub struct Metrics {
    client: Client,
    base: Url,
    key: SecretString,
}

/// Why Metrics did not count.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MetricsError {
    /// 403: the key lacks the grant.
    #[error("the key lacks the grant \"Metrics: Read-only\" (HTTP 403)")]
    NotGranted,
    /// 401.
    #[error("the API refused the key (HTTP 401)")]
    Key,
    /// 404: compatible servers and mocks often have event search alone.
    #[error("the API has no Metrics endpoint (HTTP 404)")]
    Absent,
    /// Anything else; [`SourceError::Throttled`] and [`SourceError::Transient`] may pass.
    #[error(transparent)]
    Other(#[from] SourceError),
}

impl Metrics {
    /// The endpoint under `base` (as for the event APIs).
    pub fn new(client: Client, base: Url, key: SecretString) -> Self {
        Self { client, base, key }
    }

    /// Asks once, for the whole account. Steps in which nothing happened may be left out of the answer.
    pub async fn ask(&self, question: Question) -> Result<Vec<Bucket>, MetricsError> {
        let received = self
            .client
            .get(self.url(question), Some(self.key.expose_secret()))
            .await
            .map_err(|error| failed(&error))?;
        let now = received.header("date").and_then(http_date);
        let transient = |what: String| SourceError::Transient { what, retry_after: wait_asked(&received, now) };
        match received.status {
            200 => Ok(series(&received.body, question.precision)
                .ok_or_else(|| transient("HTTP 200 without a series of counts".into()))?),
            401 => Err(MetricsError::Key),
            403 => Err(MetricsError::NotGranted),
            404 => Err(MetricsError::Absent),
            429 => Err(SourceError::Throttled { status: 429, retry_after: wait_asked(&received, now) }.into()),
            status => {
                let said = wire::error_text(&received.body, self.key.expose_secret());
                let quoted = said.map(|text| format!(": {text}")).unwrap_or_default();
                Err(transient(format!("Metrics answered HTTP {status}{quoted}")).into())
            }
        }
    }

    /// Times are `YYYY-MM-DDTHH:MM`, UTC where nothing else is said; lists are delimited by commas.
    fn url(&self, question: Question) -> Url {
        let Question { window, precision } = question;
        let mut url = under(&self.base, "api/v1/metrics/deliverability/time-series");
        url.query_pairs_mut()
            .append_pair("from", &window.from().to_minute_text())
            .append_pair("to", &window.to().to_minute_text())
            .append_pair("precision", precision.name())
            .append_pair("timezone", "UTC")
            .append_pair("metrics", &COUNTED.map(|(metric, _)| metric).join(","));
        url
    }
}

fn failed(error: &NetError) -> SourceError {
    SourceError::Transient { what: error.to_string(), retry_after: None }
}

/// `{"results":[{"count_…": n, …, "ts": "2020-10-04T00:00:00-04:00"}, …]}`; numbers may come as text, as elsewhere.
fn series(body: &[u8], precision: Precision) -> Option<Vec<Bucket>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let bucket = |row: &Value| {
        let from = UtcMillis::parse(row.get("ts")?.as_str()?)?.floor(precision.step());
        let count = |(metric, name): &(&str, &'static str)| Some((*name, number(row.get(*metric)?)?));
        Some(Bucket {
            window: Window::new(from, from.plus(precision.step()))?,
            counts: COUNTED.iter().filter_map(count).collect(),
        })
    };
    body.get("results")?.as_array()?.iter().map(bucket).collect()
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: i64 = 1_794_009_600_000;

    fn window(from: i64, to: i64) -> Window {
        Window::new(UtcMillis::from_millis(T + from), UtcMillis::from_millis(T + to)).unwrap()
    }

    fn asked(ranges: &[Window]) -> Vec<(Precision, Window)> {
        questions(ranges).into_iter().map(|question| (question.precision, question.window)).collect()
    }

    #[test]
    fn a_short_range_is_one_question_and_a_long_one_three() {
        assert_eq!(asked(&[window(7 * MINUTE, DAY)]), [(Precision::Minute, window(7 * MINUTE, DAY))]);
        assert_eq!(
            asked(&[window(7 * MINUTE, 9 * DAY + MINUTE)]),
            [
                (Precision::Hour, window(HOUR, 9 * DAY)),
                (Precision::Minute, window(7 * MINUTE, HOUR)),
                (Precision::Minute, window(9 * DAY, 9 * DAY + MINUTE)),
            ]
        );
        let minutes: Vec<_> = (0..600).map(|i| window(2 * i * MINUTE, (2 * i + 1) * MINUTE)).collect();
        assert_eq!(
            asked(&minutes),
            [(Precision::Minute, window(0, 1_199 * MINUTE))],
            "holes are no reason to ask twice"
        );
        assert_eq!(asked(&[window(0, 100 * DAY)]).len(), 4);
    }

    #[test]
    fn a_series_is_read_in_the_documented_form_and_leniently() {
        let body = br#"{"results":[
            {"count_injected": 12, "count_clicked": "3", "count_bounce": 9, "ts": "2020-10-04T00:00:00-04:00"},
            {"count_injected": null, "ts": "2020-10-04T01:00:00-04:00"}], "links": []}"#;
        let read = series(body, Precision::Hour).unwrap();
        assert_eq!(read[0].window.from().to_string(), "2020-10-04T04:00:00Z");
        assert_eq!(read[0].counts, BTreeMap::from([("injection", 12), ("click", 3)]));
        assert!(read[1].counts.is_empty());
        for text in ["", "[]", "{}", r#"{"results":{}}"#, r#"{"results":[{"ts":7}]}"#, r#"{"results":[1]}"#] {
            assert_eq!(series(text.as_bytes(), Precision::Hour), None, "{text}");
        }
    }

    #[test]
    fn types_are_counted_under_one_name() {
        assert_eq!(counted_as("link_unsubscribe"), Some("unsubscribe"));
        assert_eq!(counted_as("bounce"), Some("bounce"));
        assert_eq!(counted_as("sms_status"), None);
    }

    proptest! {
        #[test]
        fn questions_cover_every_range_and_keep_the_limits(
            ranges in proptest::collection::vec((0_i64..100_000, 1_i64..60_000), 0..20),
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(from, span)| window(from * MINUTE, (from + span) * MINUTE)).collect();
            let asked = questions(&ranges);
            let covered: Coverage = asked.iter().map(|question| question.window).collect();
            prop_assert!(ranges.iter().all(|range| covered.contains_window(*range)));
            for question in asked {
                prop_assert!(question.window.span() <= question.precision.longest());
                prop_assert_eq!(question.window, question.window.align_outward(question.precision.step()));
            }
        }

        #[test]
        fn every_minute_of_a_range_is_counted_once(
            ranges in proptest::collection::vec((0_i64..9_000, 1_i64..4_000), 1..5),
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(from, span)| window(from * MINUTE, (from + span) * MINUTE)).collect();
            for range in &ranges {
                let mut times = Coverage::new();
                let mut span = 0;
                for question in questions(&ranges) {
                    let steps = question.window.span() / question.precision.step();
                    for step in question.window.split(steps.unsigned_abs(), question.precision.step()) {
                        if (Bucket { window: step, counts: BTreeMap::new() }).counts_for(*range) {
                            times.insert(step);
                            span += step.span();
                        }
                    }
                }
                // Ranges may overlap, and an overlap is asked for by both precisions; each range takes only its own.
                prop_assert!(times.contains_window(*range));
                prop_assert_eq!(times.span(), range.span());
                prop_assert!(span >= range.span());
            }
        }
    }
}
