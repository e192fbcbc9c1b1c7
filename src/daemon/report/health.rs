//! What is wrong enough that somebody must be told: every reason for which the health check fails. It exists as a pure
//! function of the report, because "the process is up" is what a check says while events are being lost.

use super::{Report, Sink, Stream};
use crate::config::{Config, SinkConfig};
use crate::core::time::{HOUR, MINUTE, Millis, UtcMillis, humane};
use crate::daemon::board::READING;
use serde::Serialize;

/// A tick that is later than this has missed its deadline.
const OVERDUE: Millis = 5 * MINUTE;

/// A sink that reports errors and has acknowledged nothing for so long is stuck.
const FAILING: Millis = 10 * MINUTE;

/// A sink with work and without an error is stuck after so long, or after twice the longest time that it may gather.
const SILENT: Millis = 30 * MINUTE;

/// Less time than this until the first event is lost is an emergency.
pub const SLACK_MIN: Millis = 24 * HOUR;

/// A board that is older than this is nobody's present.
const BOARD_AGE_MAX: Millis = 2 * MINUTE;

/// What kind of trouble it is.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// Events expired unread, and nobody has acknowledged that.
    Gap,
    /// Events are about to.
    Slack,
    /// A key that cannot be used.
    Key,
    /// A stream that only an operator can set going.
    Stream,
    /// A stream that missed its deadline.
    Late,
    /// A sink that waits for an operator, or gets nowhere.
    Sink,
    /// The store.
    Store,
    /// The process itself.
    Daemon,
}

/// One reason for which the health check fails.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// What kind.
    pub kind: ReasonKind,
    /// The stream or sink; absent where it is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// What is known beside the report.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The configuration that runs.
    pub config: &'a Config,
    /// Streams that show no life.
    pub stuck: &'a [String],
    /// When the board was written, by the wall clock.
    pub board_at: Option<UtcMillis>,
    /// The time by the API's clock.
    pub now: UtcMillis,
    /// The time by the wall clock, which dates positions and the board.
    pub wall: UtcMillis,
}

/// Every reason, the worst first; none where all is well.
pub fn reasons(report: &Report, around: Circumstances<'_>) -> Vec<Reason> {
    let mut found = Vec::new();
    found.extend(gaps(report));
    for stream in report.streams.iter().filter(|stream| stream.configured) {
        found.extend(slack(stream));
        found.extend(stopped(stream));
        found.extend(late(report, stream, around));
    }
    for sink in &report.sinks {
        let config = around.config.sinks.iter().find(|config| config.name == sink.name);
        found.extend(config.and_then(|config| stuck(report, sink, config, around.wall)));
    }
    found.extend(report.rescued.as_ref().map(|sentence| {
        Reason {
            kind: ReasonKind::Store,
            subject: None,
            what: format!("the store was damaged: {sentence}"),
            hint:
                "see `sparkspool status`; it is told for ten days, or until the files that were set aside are removed"
                    .into(),
        }
    }));
    let age = around.board_at.map(|at| around.wall.since(at));
    if age.is_some_and(|age| age > BOARD_AGE_MAX) {
        found.push(Reason {
            kind: ReasonKind::Daemon,
            subject: None,
            what: format!("the daemon has not looked after itself for {}", humane(age.unwrap_or(0))),
            hint: "look at its log; if it stays, restart it: nothing acknowledged is lost".into(),
        });
    }
    found.sort_by_key(|reason| reason.kind);
    found
}

/// One reason for each stream that has open gaps.
fn gaps(report: &Report) -> Vec<Reason> {
    let mut lost = std::collections::BTreeMap::<&str, (i64, u32)>::new();
    for gap in report.gaps.iter().filter(|gap| !gap.acknowledged) {
        let entry = lost.entry(&gap.stream).or_default();
        *entry = (entry.0 + gap.span_s, entry.1 + 1);
    }
    let reason = |(stream, (span_s, ranges)): (&str, (i64, u32))| Reason {
        kind: ReasonKind::Gap,
        subject: Some(stream.to_owned()),
        what: format!(
            "{} expired unread, in {ranges} {}",
            humane(span_s * 1_000),
            if ranges == 1 { "gap" } else { "gaps" }
        ),
        hint: "see `sparkspool gaps`; once it was seen, `sparkspool gaps acknowledge`".into(),
    };
    lost.into_iter().map(reason).collect()
}

fn slack(stream: &Stream) -> Option<Reason> {
    let left = stream.reach.as_ref()?.retention_slack_s * 1_000;
    (left < SLACK_MIN).then(|| Reason {
        kind: ReasonKind::Slack,
        subject: Some(stream.name.clone()),
        what: format!("the first events that are not captured, or not proven, expire in {}", humane(left.max(0))),
        hint: "`sparkspool plan` says whether catching up is fast enough".into(),
    })
}

fn stopped(stream: &Stream) -> Option<Reason> {
    let error = stream.error.as_ref()?;
    let refusal = stream.refusal.as_deref()?;
    let kind = match refusal {
        "key" | "grant" => ReasonKind::Key,
        "store" => ReasonKind::Store,
        _ => ReasonKind::Stream,
    };
    let hint = stream.hint.clone().unwrap_or_else(|| "see the log".into());
    Some(Reason { kind, subject: Some(stream.name.clone()), what: error.clone(), hint })
}

fn late(report: &Report, stream: &Stream, around: Circumstances<'_>) -> Option<Reason> {
    let is_stuck = around.stuck.contains(&stream.name);
    let overdue = overdue(report, stream, around);
    if stream.refusal.is_some() || (overdue < OVERDUE && !is_stuck) {
        return None;
    }
    let why = stream.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    let what = if is_stuck && overdue < OVERDUE {
        format!("the stream shows no progress{why}")
    } else {
        format!("its tick is {} late{why}", humane(overdue))
    };
    let hint = stream.hint.clone().unwrap_or_else(|| "look at the log; the watchdog restarts a stuck daemon".into());
    Some(Reason { kind: ReasonKind::Late, subject: Some(stream.name.clone()), what, hint })
}

/// How long ago the stream's next tick was due and did not come, in milliseconds. A stream that is reading, and gets on with
/// it, is not late: how far behind it is, the watermark says.
pub fn overdue(report: &Report, stream: &Stream, around: Circumstances<'_>) -> Millis {
    let parsed = |text: Option<&String>| text.and_then(|text| UtcMillis::parse(text));
    let is_reading = stream.activity.as_deref() == Some(READING) && !around.stuck.contains(&stream.name);
    let config = around.config.streams.iter().find(|config| config.name.as_str() == stream.name);
    let begun = parsed(report.daemon.as_ref().map(|daemon| &daemon.started_at));
    let Some((config, last)) = config.zip(parsed(stream.last_tick_at.as_ref()).or(begun)) else { return 0 };
    match config.schedule.next_after(last) {
        Some(due) if !is_reading => around.now.since(due).max(0),
        _ => 0,
    }
}

fn stuck(report: &Report, sink: &Sink, config: &SinkConfig, wall: UtcMillis) -> Option<Reason> {
    if sink.paused_since.is_some() {
        return None;
    }
    let hint = |otherwise: &str| sink.hint.clone().unwrap_or_else(|| otherwise.to_owned());
    let reason = |what: String, hint: String| {
        Some(Reason { kind: ReasonKind::Sink, subject: Some(sink.name.clone()), what, hint })
    };
    if sink.suspended {
        let error = sink.error.as_deref().unwrap_or("no reason was given");
        return reason(format!("the sink is suspended: {error}"), hint("see the log"));
    }
    let begun = report.daemon.as_ref().and_then(|daemon| UtcMillis::parse(&daemon.started_at));
    let moved = sink.moved_at.as_deref().and_then(UtcMillis::parse);
    // A daemon that was off for a day has not been stuck for a day; nor has a sink that had nothing to do.
    let waiting_since = sink.lag_s.map(|lag| wall.plus(-lag * 1_000));
    let since = [moved, begun, waiting_since].into_iter().flatten().max()?;
    let quiet = wall.since(since);
    let longest = if sink.error.is_some() { FAILING } else { SILENT.max(2 * config.limits.age) };
    if sink.waiting == 0 || quiet < longest {
        return None;
    }
    let why = sink.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    reason(
        format!("the sink has acknowledged nothing for {}{why}", humane(quiet)),
        hint("look at the far side, and the log"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Daemon, Gap, Reach};
    use super::*;

    const NONE: [ReasonKind; 0] = [];

    fn at(minute: i64) -> UtcMillis {
        UtcMillis::parse("2026-11-12T00:00:00Z").unwrap().plus(minute * MINUTE)
    }

    fn config() -> Config {
        let text = "[streams.all]\nsinks = ['file']\nevery = '60s'\n[sinks.file.file]\npath = 'x'\n";
        crate::config::parse(text, "test.toml", &|_| None).unwrap()
    }

    /// A stream that ticked a minute ago and a sink with nothing to do, in a daemon that has run for ten days.
    fn well(now: UtcMillis) -> Report {
        let text = |at: UtcMillis| Some(at.to_string());
        let stream = Stream {
            name: "all".into(),
            configured: true,
            captured: 1,
            late: 0,
            set_aside: 0,
            unverified_windows_s: 0,
            open_gaps: 0,
            reach: Some(Reach {
                start: String::new(),
                watermark: String::new(),
                watermark_age_s: 60,
                retention_slack_s: 864_000,
            }),
            dialect: None,
            activity: Some("waiting".into()),
            last_tick_at: text(now.plus(-MINUTE)),
            next_tick_at: None,
            error: None,
            hint: None,
            refusal: None,
        };
        let sink = Sink {
            name: "file".into(),
            kind: "file",
            seq: 1,
            index: 0,
            waiting: 0,
            suspended: false,
            paused_since: None,
            moved_at: text(now.plus(-24 * HOUR)),
            lag_s: None,
            retry_at: None,
            error: None,
            hint: None,
        };
        let daemon = Daemon {
            pid: 1,
            version: String::new(),
            started_at: now.plus(-240 * HOUR).to_string(),
            clock_skew_ms: None,
            requests: 0,
            retries: 0,
            throttled: 0,
        };
        Report {
            data_dir: String::new(),
            daemon: Some(daemon),
            spool_bytes: 0,
            accounts: Vec::new(),
            streams: vec![stream],
            sinks: vec![sink],
            backfills: Vec::new(),
            gaps: Vec::new(),
            dead_letters: 0,
            rescued: None,
        }
    }

    /// What a change of a report that is well makes of the kinds of reasons.
    fn kinds(change: impl FnOnce(&mut Report), stuck: &[&str], board_age: Millis) -> Vec<ReasonKind> {
        let (config, now) = (config(), at(0));
        let mut report = well(now);
        change(&mut report);
        let stuck: Vec<String> = stuck.iter().map(|name| (*name).to_owned()).collect();
        let board_at = Some(now.plus(-board_age));
        let around = Circumstances { config: &config, stuck: &stuck, board_at, now, wall: now };
        reasons(&report, around).iter().map(|reason| reason.kind).collect()
    }

    fn of(change: impl FnOnce(&mut Report)) -> Vec<ReasonKind> {
        kinds(change, &[], 0)
    }

    #[test]
    fn what_is_well_or_meant_is_no_reason() {
        assert_eq!(of(|_| ()), NONE);
        assert_eq!(
            of(|r| r.streams[0].error = Some("the API does not answer".into())),
            [],
            "tried again within minutes"
        );
        assert_eq!(of(|r| r.sinks[0].error = Some("later".into())), NONE, "nothing waits for it");
        let paused = |r: &mut Report| {
            let sink = &mut r.sinks[0];
            (sink.paused_since, sink.waiting, sink.lag_s) = (Some(at(-600).to_string()), 7, Some(36_000));
        };
        assert_eq!(of(paused), NONE);
        let reading = |r: &mut Report| {
            (r.streams[0].activity, r.streams[0].last_tick_at) = (Some(READING.into()), Some(at(-600).to_string()));
        };
        assert_eq!(of(reading), NONE, "a first run takes its time");
        let gone = |r: &mut Report| {
            (r.streams[0].configured, r.streams[0].last_tick_at) = (false, None);
        };
        assert_eq!(of(gone), NONE);
    }

    #[test]
    fn losses_come_first_and_end_with_an_acknowledgement() {
        let gap = |acknowledged| Gap {
            id: 1,
            stream: "all".into(),
            from: String::new(),
            to: String::new(),
            span_s: 60,
            reason: String::new(),
            acknowledged,
        };
        let with = |acknowledged: bool| {
            move |r: &mut Report| {
                r.gaps = vec![gap(acknowledged), gap(acknowledged)];
                r.streams[0].refusal = Some("key".into());
                r.streams[0].error = Some("no".into());
            }
        };
        assert_eq!(of(with(false)), [ReasonKind::Gap, ReasonKind::Key]);
        assert_eq!(of(with(true)), [ReasonKind::Key]);
        let slack = |s: i64| move |r: &mut Report| r.streams[0].reach.as_mut().unwrap().retention_slack_s = s;
        assert_eq!((of(slack(86_399)), of(slack(86_400))), (vec![ReasonKind::Slack], vec![]));
    }

    #[test]
    fn a_tick_that_does_not_come_is_late() {
        let ticked = |minute: i64| move |r: &mut Report| r.streams[0].last_tick_at = Some(at(minute).to_string());
        assert_eq!((of(ticked(-5)), of(ticked(-7))), (vec![], vec![ReasonKind::Late]));
        assert_eq!(kinds(|_| (), &["all"], 0), [ReasonKind::Late], "no sign of life");
        assert_eq!(kinds(|r| r.streams[0].activity = Some(READING.into()), &["all"], 0), [ReasonKind::Late]);
        assert_eq!(kinds(|_| (), &[], BOARD_AGE_MAX + 1), [ReasonKind::Daemon]);
    }

    #[test]
    fn a_sink_is_stuck_when_it_gets_nowhere_with_work_to_do() {
        let sink = |lag: i64, error: bool| {
            move |r: &mut Report| {
                let sink = &mut r.sinks[0];
                (sink.waiting, sink.lag_s) = (5, Some(lag * 60));
                sink.error = error.then(|| "refused".into());
            }
        };
        assert_eq!((of(sink(9, true)), of(sink(11, true))), (vec![], vec![ReasonKind::Sink]));
        assert_eq!((of(sink(29, false)), of(sink(31, false))), (vec![], vec![ReasonKind::Sink]));
        let moving = |r: &mut Report| {
            sink(600, true)(r);
            r.sinks[0].moved_at = Some(at(-1).to_string());
        };
        assert_eq!(of(moving), NONE, "behind, but getting on");
        assert_eq!(of(|r| r.sinks[0].suspended = true), [ReasonKind::Sink]);
    }
}
