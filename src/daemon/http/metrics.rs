//! The account as Prometheus reads it. It exists as one table of families, each with its meaning, so that what is written,
//! what `docs/metrics.md` lists and what alerts and dashboards ask for can be held against each other.

use super::view::View;
use crate::core::plan::RETENTION;
use crate::core::time::UtcMillis;
use crate::daemon::tally::Tally;
use std::fmt::Write as _;

/// A family of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, with the unit, as Prometheus wants it.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident $name:literal $kind:literal [$($label:literal)*] $help:literal;)*) => {
        $(const $constant: Family = Family { name: $name, kind: $kind, labels: &[$($label),*], help: $help };)*
        /// Every family there is.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    BUILD "sparkspool_build_info" "gauge" ["version"] "Always 1; the label says which version runs.";
    START "sparkspool_start_time_seconds" "gauge" [] "When the daemon began, or read its configuration last, since 1970.";
    HEALTHY "sparkspool_healthy" "gauge" [] "1 where the health check passes, else 0.";
    REASONS "sparkspool_health_reasons" "gauge" ["kind"] "Reasons for which the health check fails.";
    REQUESTS "sparkspool_api_requests_total" "counter" [] "Requests to the API, repetitions included.";
    RETRIES "sparkspool_api_retries_total" "counter" [] "Requests that repeat a failed one.";
    THROTTLED "sparkspool_api_throttled_total" "counter" [] "Answers that asked for patience.";
    RECEIVED "sparkspool_api_received_bytes_total" "counter" [] "Bytes of answers as they crossed the network.";
    RATE "sparkspool_api_rate_ratio" "gauge" ["account"] "The rate that the API puts up with, as a share of the configured one.";
    ANSWERING "sparkspool_api_answering" "gauge" ["account"] "1 where the API answers the account's requests, 0 while nothing is answered.";
    CAPTURED "sparkspool_events_captured_total" "counter" ["stream"] "Events captured since the store was made.";
    LATE "sparkspool_events_late_total" "counter" ["stream"] "Captured events that appeared after their instant had been read.";
    REVISED "sparkspool_events_revised_total" "counter" ["stream"] "Events that the API showed again with another body.";
    FORWARDED "sparkspool_events_forwarded_total" "counter" [] "Events that sinks have acknowledged, each sink counting for itself.";
    WATERMARK "sparkspool_watermark_timestamp_seconds" "gauge" ["stream"] "Everything before this instant is read, or named in a gap.";
    SLACK "sparkspool_retention_slack_seconds" "gauge" ["stream"] "Time until the first event expires that is not captured, or not proven; ten days where nothing is open.";
    UNVERIFIED "sparkspool_unverified_seconds" "gauge" ["stream"] "Event time that was read and never proven by equal counts.";
    GAPS "sparkspool_open_gaps" "gauge" ["stream"] "Ranges that expired unread and that nobody has acknowledged.";
    TICK "sparkspool_last_tick_timestamp_seconds" "gauge" ["stream"] "When the last tick ended that succeeded.";
    OVERDUE "sparkspool_tick_overdue_seconds" "gauge" ["stream"] "How long ago a tick was due that has not come; 0 where none is missing.";
    STOPPED "sparkspool_stream_stopped" "gauge" ["stream"] "1 where an error keeps the stream from reading, else 0.";
    KEY "sparkspool_key_refused" "gauge" ["stream"] "1 where the API refuses the key of the stream's account, else 0.";
    WAITING "sparkspool_sink_waiting_events" "gauge" ["sink"] "Captured events that the sink has not acknowledged.";
    LAG "sparkspool_sink_lag_seconds" "gauge" ["sink"] "How long the oldest event has been captured that waits for the sink; 0 where none waits.";
    STUCK "sparkspool_sink_stuck" "gauge" ["sink"] "1 where the sink is suspended or gets nowhere, else 0.";
    PAUSED "sparkspool_sink_paused" "gauge" ["sink"] "1 where an operator has paused the sink, else 0.";
    DEAD "sparkspool_dead_letters" "gauge" ["stream" "sink"] "Events that a sink refused for good; without a sink, rows that are no events.";
    SPOOL "sparkspool_spool_bytes" "gauge" [] "What the spool takes, compressed.";
    SKEW "sparkspool_clock_skew_seconds" "gauge" [] "By how much this machine's clock is ahead of the API's.";
}

/// The text of all samples.
pub(super) fn write(view: &View, tally: &Tally) -> String {
    let mut out = Text(String::with_capacity(16 << 10));
    process(&mut out, view, tally);
    streams(&mut out, view);
    sinks(&mut out, view);
    out.0
}

fn process(out: &mut Text, view: &View, tally: &Tally) {
    let report = &view.report;
    let daemon = report.daemon.as_ref();
    out.family(BUILD, [(&[env!("CARGO_PKG_VERSION")][..], 1.0)]);
    let started = daemon.and_then(|daemon| seconds_of(&daemon.started_at));
    out.family(START, started.map(|at| (NONE, at)));
    out.family(HEALTHY, [(NONE, flag(view.reasons.is_empty()))]);
    let mut kinds = std::collections::BTreeMap::new();
    for reason in &view.reasons {
        // A kind is a plain word in JSON.
        let kind = serde_json::to_value(reason.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
        *kinds.entry(kind.unwrap_or_default()).or_insert(0_u64) += 1;
    }
    out.family(REASONS, kinds.iter().map(|(kind, n)| ([kind.as_str()], number(*n))));
    for (family, counter) in [
        (REQUESTS, &tally.requests),
        (RETRIES, &tally.retries),
        (THROTTLED, &tally.throttled),
        (RECEIVED, &tally.wire_bytes),
        (FORWARDED, &tally.forwarded),
    ] {
        out.family(family, [(NONE, number(counter.get()))]);
    }
    let accounts = || report.accounts.iter();
    out.family(
        RATE,
        accounts().map(|one| ([one.name.as_str()], one.requests_per_minute / one.limit_per_minute.max(1.0))),
    );
    out.family(ANSWERING, accounts().map(|one| ([one.name.as_str()], flag(one.open_since.is_none()))));
    out.family(SPOOL, [(NONE, number(report.spool_bytes))]);
    out.family(SKEW, daemon.and_then(|daemon| daemon.clock_skew_ms).map(|skew| (NONE, millis(skew))));
}

fn streams(out: &mut Text, view: &View) {
    let (all, summaries) = (&view.report.streams, &view.summaries);
    let counted = |of: fn(&crate::store::StreamSummary) -> u64| {
        summaries.iter().map(move |one| ([one.name.as_str()], number(of(one))))
    };
    out.family(CAPTURED, counted(|one| one.captured));
    out.family(LATE, counted(|one| one.late));
    out.family(REVISED, counted(|one| one.revisions));
    out.family(GAPS, counted(|one| one.gaps_open));
    out.family(UNVERIFIED, summaries.iter().map(|one| ([one.name.as_str()], millis(one.unverified.span()))));
    let active = || all.iter().filter(|one| one.configured);
    let label = |one: &'_ crate::daemon::report::Stream| one.name.clone();
    let reach = |of: fn(&crate::daemon::report::Reach) -> Option<f64>| {
        active().filter_map(move |one| Some(([label(one)], one.reach.as_ref().and_then(of)?)))
    };
    out.family(WATERMARK, reach(|reach| seconds_of(&reach.watermark)));
    out.family(SLACK, reach(|reach| Some(millis(reach.retention_slack_s.min(RETENTION / 1_000) * 1_000))));
    let ticked = |one: &crate::daemon::report::Stream| one.last_tick_at.as_deref().and_then(seconds_of);
    out.family(TICK, active().filter_map(|one| Some(([one.name.as_str()], ticked(one)?))));
    let overdue = |name: &str| view.overdue.get(name).copied().unwrap_or(0);
    out.family(OVERDUE, active().map(|one| ([one.name.as_str()], millis(overdue(&one.name) * 1_000))));
    out.family(STOPPED, active().map(|one| ([one.name.as_str()], flag(one.error.is_some()))));
    let refused = |one: &crate::daemon::report::Stream| matches!(one.refusal.as_deref(), Some("key" | "grant"));
    out.family(KEY, active().map(|one| ([one.name.as_str()], flag(refused(one)))));
}

fn sinks(out: &mut Text, view: &View) {
    use crate::daemon::report::ReasonKind;
    let sinks = || view.report.sinks.iter();
    let is_stuck = |name: &str| {
        view.reasons.iter().any(|reason| reason.kind == ReasonKind::Sink && reason.subject.as_deref() == Some(name))
    };
    out.family(WAITING, sinks().map(|one| ([one.name.as_str()], number(one.waiting))));
    out.family(LAG, sinks().map(|one| ([one.name.as_str()], millis(one.lag_s.unwrap_or(0) * 1_000))));
    out.family(STUCK, sinks().map(|one| ([one.name.as_str()], flag(is_stuck(&one.name)))));
    out.family(PAUSED, sinks().map(|one| ([one.name.as_str()], flag(one.paused_since.is_some()))));
    let letters = view.dead_letters.iter();
    out.family(DEAD, letters.map(|row| ([row.stream.as_str(), row.sink.as_deref().unwrap_or("")], number(row.count))));
}

const NONE: &[&str] = &[];

struct Text(String);

impl Text {
    fn family<L: AsRef<[S]>, S: AsRef<str>>(&mut self, family: Family, samples: impl IntoIterator<Item = (L, f64)>) {
        let Family { name, kind, labels, help } = family;
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (values, value) in samples {
            let pairs = labels.iter().zip(values.as_ref()).filter(|(_, value)| !value.as_ref().is_empty());
            let pairs: Vec<String> =
                pairs.map(|(label, value)| format!("{label}=\"{}\"", escaped(value.as_ref()))).collect();
            let _ = if pairs.is_empty() {
                writeln!(self.0, "{name} {value}")
            } else {
                writeln!(self.0, "{name}{{{}}} {value}", pairs.join(","))
            };
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn number(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn millis(span: i64) -> f64 {
    span as f64 / 1_000.0
}

fn seconds_of(instant: &str) -> Option<f64> {
    UtcMillis::parse(instant).map(|at| millis(at.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTED: &str = include_str!("../../../docs/metrics.md");
    const ALERTS: &str = include_str!("../../../packaging/prometheus/alerts.yml");
    const ALERTS_TEST: &str = include_str!("../../../packaging/prometheus/alerts_test.yml");
    const DASHBOARD: &str = include_str!("../../../packaging/grafana/sparkspool.json");

    #[test]
    fn every_family_is_documented_word_for_word_and_no_other() {
        let rows: Vec<&str> = DOCUMENTED.lines().filter(|line| line.starts_with("| `sparkspool_")).collect();
        let row = |one: &Family| {
            let labels: Vec<String> = one.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} | {} |", one.name, one.kind, labels.join(", "), one.help).replace("|  |", "| |")
        };
        let expected: Vec<String> = FAMILIES.iter().map(row).collect();
        assert_eq!(rows, expected, "\n{}\n", expected.join("\n"));
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for Family { name, kind, help, .. } in FAMILIES {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
            assert!(help.ends_with('.') && !help.contains('\\'), "{name}");
        }
    }

    #[test]
    fn alerts_and_dashboard_ask_only_for_what_there_is() {
        for (what, text) in [("alerts", ALERTS), ("tests of alerts", ALERTS_TEST), ("dashboard", DASHBOARD)] {
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            let mut asked = 0;
            for (at, _) in text.match_indices("sparkspool_") {
                let name: String = text[at..].chars().take_while(|c| is_name(*c)).collect();
                assert!(FAMILIES.iter().any(|one| one.name == name), "{what}: {name}");
                asked += 1;
            }
            assert!(asked > 5, "{what}: {asked}");
        }
        let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
        assert!(dashboard["panels"].as_array().unwrap().len() > 5);
    }

    #[test]
    fn a_sample_is_a_line_and_a_label_cannot_break_out_of_it() {
        let mut out = Text(String::new());
        out.family(DEAD, [(["a\"b\\", "c\nd"], 2.5), (["x", ""], 1e15)]);
        let lines: Vec<&str> = out.0.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "sparkspool_dead_letters{stream=\"a\\\"b\\\\\",sink=\"c\\nd\"} 2.5",
                "sparkspool_dead_letters{stream=\"x\"} 1000000000000000"
            ]
        );
    }
}
