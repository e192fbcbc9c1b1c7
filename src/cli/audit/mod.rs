//! `audit`: compares everything the API still has with what is stored, shows every hour, and with `--heal` reads again
//! what differs. Without it, nothing is written: it works beside a running daemon, and on a disk that is full.

mod certificates;
mod heal;
mod print;
pub(super) mod timeline;

use super::exit::{Code, Failure};
use super::output;
use super::progress::Progress;
use super::range::{chosen, instant};
use super::{Global, PATIENCE, surroundings};
use crate::config::{Config, Stream};
use crate::core::hours::{Hour, Known, Standing, hours};
use crate::core::plan::horizon;
use crate::core::time::{MINUTE, UtcMillis};
use crate::core::window::{Coverage, Window};
use crate::daemon::audit::{Comparison, Doubt, MARGIN, comparable, compare};
use crate::daemon::clock::TimeSource;
use crate::daemon::engine::fingerprint;
use crate::daemon::ingest::dialect_key;
use crate::daemon::report::due;
use crate::daemon::tally::Tally;
use crate::daemon::upstream::Upstream;
use crate::store::{Reader, StreamSummary};
use clap::Args;
use serde::{Serialize, Serializer};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Options of `audit`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Only this stream; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    stream: Vec<String>,
    /// From this time on: `3d`, `2026-11-12` or `2026-11-12T00:00Z` [default: all that the API still has]
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Read again what differs, and what was not read yet; while the daemon runs, it does the reading
    #[arg(long)]
    heal: bool,
    /// Ask nobody: list the windows that were read, each with its counts and the filter it was read with
    #[arg(long, conflicts_with = "heal")]
    certificates: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let streams = chosen(&config, &options.stream)?;
    let now = (TimeSource::system().wall)();
    let since = options.since.as_deref().map(|text| instant("--since", text, now, false)).transpose()?;
    let reader = Reader::open(&config.data_dir)?;
    if options.certificates {
        return certificates::list(&reader, &streams, since, options.json);
    }
    let upstream = Upstream::new(&config, surroundings(Some(PATIENCE)))?;
    let auditor = Auditor { config: &config, reader: &reader, upstream: &upstream, since, tally: Arc::default() };
    let mut report = auditor.all(&streams).await?;
    if options.heal && !report.is_complete() {
        let wanted = report.to_heal(&streams);
        if !wanted.is_empty() {
            heal::read_again(&config, &wanted, PATIENCE, now).await?;
            report = auditor.all(&streams).await?;
        }
    }
    report.write(options.json)?;
    report.verdict(options.heal)
}

/// What an audit needs.
struct Auditor<'a> {
    config: &'a Config,
    reader: &'a Reader,
    upstream: &'a Upstream,
    since: Option<UtcMillis>,
    tally: Arc<Tally>,
}

/// Everything an audit says; its JSON form is this, with every key always there.
#[derive(Serialize, Debug)]
struct Report {
    complete: bool,
    requests: u64,
    streams: Vec<Audited>,
}

/// The audit of one stream.
#[derive(Serialize, Debug, Default)]
struct Audited {
    name: String,
    /// What was audited; both `null` where nothing could be.
    from: Option<String>,
    to: Option<String>,
    hours: Counts,
    /// Events stored in what was compared, and how many of these the API is known to have erased since.
    stored: u64,
    erased: u64,
    /// The API's count of what was compared; `null` where it cannot be compared.
    api_count: Option<u64>,
    /// Events that the API counts and that are not stored.
    missing: u64,
    /// Why nothing, or not everything, could be compared.
    notes: Vec<String>,
    differences: Vec<Difference>,
    #[serde(serialize_with = "as_objects")]
    timeline: Vec<Hour>,
    /// What `--heal` reads again.
    #[serde(skip)]
    heal: Coverage,
}

/// Hours by how they stand.
#[derive(Serialize, Debug, Default, Clone, Copy)]
struct Counts {
    complete: usize,
    unverified: usize,
    short: usize,
    gap: usize,
    unread: usize,
}

#[derive(Serialize, Debug)]
struct Difference {
    from: String,
    to: String,
    /// Less what is known to be erased.
    stored: u64,
    api_count: u64,
}

fn as_objects<S: Serializer>(hours: &[Hour], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Object {
        from: String,
        standing: &'static str,
    }
    let standing = |standing| match standing {
        Standing::Outside => "outside",
        Standing::Complete => "complete",
        Standing::Unverified => "unverified",
        Standing::Unread => "unread",
        Standing::Short => "short",
        Standing::Gap => "gap",
    };
    serializer
        .collect_seq(hours.iter().map(|hour| Object { from: hour.from.to_string(), standing: standing(hour.standing) }))
}

impl Auditor<'_> {
    async fn all(&self, streams: &[Stream]) -> Result<Report, Failure> {
        let mut audited = Vec::new();
        for stream in streams {
            let summary = self.reader.streams()?.into_iter().find(|one| one.name == stream.name.as_str());
            let of_stream =
                |failure: Failure| Failure { what: format!("stream `{}`: {}", stream.name, failure.what), ..failure };
            audited.push(match summary {
                None => Audited::unaudited(stream, "it has not begun: nothing of it was ever read"),
                Some(summary) if summary.fingerprint != fingerprint(self.config, stream) => Audited::unaudited(
                    stream,
                    "its filter or account was changed since it was last read: the next run reads everything again",
                ),
                Some(summary) => self.one(stream, &summary).await.map_err(of_stream)?,
            });
        }
        let complete = audited.iter().all(Audited::is_complete);
        Ok(Report { complete, requests: self.tally.requests.get(), streams: audited })
    }

    async fn one(&self, stream: &Stream, summary: &StreamSummary) -> Result<Audited, Failure> {
        let remembered = self.reader.meta(&dialect_key(stream.name.as_str()))?;
        let asker = self.upstream.asker(stream, self.tally.clone(), CancellationToken::new(), remembered.as_deref());
        let asker = asker.ok_or_else(|| Failure::new(Code::Bug, "no such account", "report this"))?;
        asker.account.recall_from(self.reader, &stream.account)?;
        asker.greet(stream.settle).await?;
        let now = asker.account.clock.now();
        let oldest = horizon(now).plus(MARGIN);
        let from = self.since.unwrap_or(oldest).max(summary.floor).floor(MINUTE);
        let Some(whole) = Window::new(from, due(stream, summary, now)) else {
            return Ok(Audited { name: stream.name.to_string(), api_count: Some(0), ..Audited::default() });
        };
        let ranges = comparable(&summary.coverage, whole, oldest);
        let expected = |window| self.reader.expected(summary.id, window);
        let progress = Progress::start(stream.name.as_str());
        let comparison = compare(&asker, &ranges, expected).await;
        progress.end();
        let comparison = comparison?;
        let mut stored = 0;
        for range in &ranges {
            stored += self.reader.count(summary.id, *range)?;
        }
        Ok(Audited::of(stream, summary, whole, oldest, stored, &comparison))
    }
}

impl Audited {
    fn unaudited(stream: &Stream, why: &str) -> Self {
        Self { name: stream.name.to_string(), notes: vec![why.to_owned()], ..Self::default() }
    }

    fn of(
        stream: &Stream,
        summary: &StreamSummary,
        whole: Window,
        oldest: UtcMillis,
        stored: u64,
        comparison: &Comparison,
    ) -> Self {
        let StreamSummary { coverage, gaps, unverified, .. } = summary;
        let timeline = hours(whole, Known { whole, coverage, gaps, unverified }, &comparison.shown);
        let number = |standing| timeline.iter().filter(|hour| hour.standing == standing).count();
        let served = Window::new(whole.from().max(oldest), whole.to());
        let mut heal: Coverage = served.iter().flat_map(|served| coverage.missing(*served)).collect();
        gaps.windows().iter().for_each(|gap| heal.remove(*gap));
        heal.extend(comparison.differences.iter().map(|difference| difference.window));
        let missing = comparison.differences.iter().map(|one| one.counted.saturating_sub(one.expected)).sum();
        Self {
            name: stream.name.to_string(),
            from: Some(whole.from().to_string()),
            to: Some(whole.to().to_string()),
            hours: Counts {
                complete: number(Standing::Complete),
                unverified: number(Standing::Unverified),
                short: number(Standing::Short),
                gap: number(Standing::Gap),
                unread: number(Standing::Unread),
            },
            stored,
            erased: stored.saturating_sub(comparison.expected),
            api_count: comparison.counted,
            missing,
            notes: comparison.doubts.iter().map(|(window, doubt)| note(*window, *doubt)).collect(),
            differences: comparison
                .differences
                .iter()
                .map(|one| Difference {
                    from: one.window.from().to_string(),
                    to: one.window.to().to_string(),
                    stored: one.expected,
                    api_count: one.counted,
                })
                .collect(),
            timeline,
            heal,
        }
    }

    fn is_complete(&self) -> bool {
        let Counts { unverified, short, gap, unread, .. } = self.hours;
        self.notes.is_empty() && unverified + short + gap + unread == 0
    }
}

fn note(window: Window, doubt: Doubt) -> String {
    match doubt {
        Doubt::NoCount => format!("{window} cannot be compared: the API gives no count of it that can be believed"),
        Doubt::Elsewhere => {
            format!("{window} cannot be compared: the API answers with events of other times, it ignores the range")
        }
        Doubt::Capped(cap) => format!(
            "{window} cannot be compared as a whole: the API's counts of its parts are more than its count of all \
             ({cap}), it seems to count up to a limit; what holds fewer was compared"
        ),
    }
}

impl Report {
    fn is_complete(&self) -> bool {
        self.complete
    }

    fn to_heal(&self, streams: &[Stream]) -> Vec<(Stream, Window)> {
        let windows = |(stream, audited): (&Stream, &Audited)| {
            audited
                .heal
                .windows()
                .iter()
                .map(|window| (stream.clone(), window.align_outward(MINUTE)))
                .collect::<Vec<_>>()
        };
        streams.iter().zip(&self.streams).flat_map(windows).collect()
    }

    fn write(&self, json: bool) -> Result<(), Failure> {
        if json {
            return output::json(self);
        }
        output::written(print::print(self, &mut std::io::stdout().lock()))
    }

    /// 65 where something is short, lost, unread or unproven.
    fn verdict(&self, healed: bool) -> Result<(), Failure> {
        if self.complete {
            return Ok(());
        }
        let total = |of: fn(&Counts) -> usize| self.streams.iter().map(|one| of(&one.hours)).sum::<usize>();
        let counts = Counts {
            complete: total(|c| c.complete),
            unverified: total(|c| c.unverified),
            short: total(|c| c.short),
            gap: total(|c| c.gap),
            unread: total(|c| c.unread),
        };
        let missing = self.streams.iter().map(|one| one.missing).sum();
        let can_heal = self.streams.iter().any(|one| !one.heal.is_empty());
        let hint = match (can_heal, healed, counts.gap > 0) {
            (true, false, _) => "`sparkspool audit --heal` reads what differs, and what is unread, again",
            (true, true, _) => "run it again later: the API does not show everything that it counts",
            (false, _, true) => "what expired cannot be read any more: `sparkspool gaps` says what it was",
            (false, _, false) => "what the API cannot count is known only by reading it: `sparkspool backfill`",
        };
        Err(Failure::new(Code::Incomplete, print::summary(counts, missing), hint))
    }
}
