//! `gaps`: every range that expired unread, with what was lost in it where the API's Metrics endpoint can say, and
//! `gaps acknowledge`. Both work beside a running daemon.

mod print;

use super::exit::{Code, Failure};
use super::output::{self, Told};
use super::range::chosen;
use super::text::counted;
use super::{Global, surroundings};
use crate::config::Config;
use crate::core::time::{MINUTE, Millis, SECOND, UtcMillis, humane};
use crate::daemon::ask::Patience;
use crate::daemon::clock::TimeSource;
use crate::daemon::losses::{is_kept, learn};
use crate::daemon::upstream::Upstream;
use crate::source::sparkpost::metrics::counted_as;
use crate::store::{Gap, GapId, Lost, Mailbox, Reader};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

/// Options of `gaps`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    /// Ask nobody: show what is known of the losses
    #[arg(long)]
    offline: bool,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Say that gaps were seen: they stay recorded, and are no trouble any more
    Acknowledge(Acknowledge),
}

#[derive(Args, Debug)]
struct Acknowledge {
    /// Numbers of gaps, as `sparkspool gaps` shows them [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// Only of this stream; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    stream: Vec<String>,
    #[command(flatten)]
    told: Told,
}

/// Questions to Metrics wait only for what passes quickly: nothing depends on them.
const PATIENCE: Patience = Patience { failing: 10 * SECOND, throttled: MINUTE };

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let now = (TimeSource::system().wall)();
    match &options.action {
        Some(Action::Acknowledge(wanted)) => acknowledge(&config, wanted, now),
        None => list(&config, options, now).await,
    }
}

/// Ranges that lie side by side and are alike: a long outage is recorded minute by minute, and is one loss for all that.
#[derive(Debug)]
struct Loss {
    gaps: Vec<Gap>,
}

impl Loss {
    /// The losses that `gaps` (by stream and time) make up.
    fn all(gaps: Vec<Gap>) -> Vec<Self> {
        let mut losses: Vec<Self> = Vec::new();
        for gap in gaps {
            match losses.last_mut().filter(|loss| loss.goes_on_with(&gap)) {
                Some(loss) => loss.gaps.push(gap),
                None => losses.push(Self { gaps: vec![gap] }),
            }
        }
        losses
    }

    fn goes_on_with(&self, next: &Gap) -> bool {
        let alike = |last: &Gap| {
            last.window.to() == next.window.from()
                && (&last.stream, &last.reason) == (&next.stream, &next.reason)
                && last.acknowledged_at.is_some() == next.acknowledged_at.is_some()
        };
        self.gaps.last().is_some_and(alike)
    }

    /// Its number is that of its lowest gap, and stays when it grows.
    fn id(&self) -> i64 {
        self.gaps.iter().map(|gap| gap.id.number()).min().unwrap_or(0)
    }

    fn has(&self, id: i64) -> bool {
        self.gaps.iter().any(|gap| gap.id.number() == id)
    }

    fn span(&self) -> Millis {
        self.gaps.iter().map(|gap| gap.window.span()).sum()
    }

    fn is_acknowledged(&self) -> bool {
        self.gaps.iter().all(|gap| gap.acknowledged_at.is_some())
    }

    /// What is known to be lost of the types that `wanted` lets through; `None` while part of it is not known.
    fn lost(&self, wanted: impl Fn(&str) -> bool) -> Option<Lost> {
        let mut sum = Lost::new();
        for gap in &self.gaps {
            for (kind, n) in gap.lost.as_ref()?.iter().filter(|(kind, _)| wanted(kind)) {
                *sum.entry(kind.clone()).or_default() += n;
            }
        }
        Some(sum)
    }
}

/// Everything `gaps` says; its JSON form is this, with every key always there.
#[derive(Serialize, Debug)]
struct Report {
    gaps: Vec<Row>,
    /// Why the Metrics endpoint did not count, by account.
    not_counted: BTreeMap<String, String>,
}

#[derive(Serialize, Debug)]
struct Row {
    id: i64,
    stream: String,
    from: String,
    to: String,
    span_s: i64,
    reason: String,
    found_at: String,
    acknowledged_at: Option<String>,
    /// By type; `null` where it is not known.
    lost: Option<Lost>,
    /// Whether the counts are of what the stream's filter takes. Where not, they are of the whole account.
    lost_is_filtered: bool,
}

async fn list(config: &Config, options: &Options, now: UtcMillis) -> Result<(), Failure> {
    let reader = Reader::open(&config.data_dir)?;
    let mut gaps = reader.gaps()?;
    let not_counted = if options.offline { BTreeMap::new() } else { count(config, &mut gaps, now).await? };
    let rows = Loss::all(gaps).iter().map(|loss| Row::of(loss, config)).collect();
    let report = Report { gaps: rows, not_counted };
    if options.json {
        return output::json(&report);
    }
    output::written(std::io::stdout().lock().write_all(print::text(&report, now).as_bytes()))
}

/// Asks what is not known yet, once for each account, and keeps the answer. What keeps it from being asked is returned.
async fn count(config: &Config, gaps: &mut [Gap], now: UtcMillis) -> Result<BTreeMap<String, String>, Failure> {
    let mut unknown: BTreeMap<&str, Vec<Gap>> = BTreeMap::new();
    for gap in gaps.iter().filter(|gap| gap.lost.is_none() && is_kept(gap.window, now)) {
        if let Some(stream) = config.streams.iter().find(|stream| stream.name.as_str() == gap.stream) {
            unknown.entry(stream.account.as_str()).or_default().push(gap.clone());
        }
    }
    let mut not_counted = BTreeMap::new();
    if unknown.is_empty() {
        return Ok(not_counted);
    }
    let upstream = match Upstream::new(config, surroundings(Some(PATIENCE))) {
        Ok(upstream) => upstream,
        Err(error) => {
            not_counted.extend(unknown.keys().map(|account| ((*account).to_owned(), error.to_string())));
            return Ok(not_counted);
        }
    };
    for (account, asked) in unknown {
        match learn(&upstream, account, &asked).await {
            Ok(learnt) => {
                let kept = Mailbox::open(&config.data_dir).and_then(|mut mailbox| mailbox.note_lost(&learnt));
                if let Err(error) = kept {
                    tracing::warn!(%error, "what was lost is shown, and could not be kept: it will be asked again");
                }
                for (id, lost) in learnt {
                    gaps.iter_mut().filter(|gap| gap.id == id).for_each(|gap| gap.lost = Some(lost.clone()));
                }
            }
            Err(error) => {
                not_counted.insert(account.to_owned(), error.to_string());
            }
        }
    }
    Ok(not_counted)
}

impl Row {
    fn of(loss: &Loss, config: &Config) -> Self {
        let (first, last) = (loss.gaps.first(), loss.gaps.last());
        let name = first.map(|gap| gap.stream.clone()).unwrap_or_default();
        let stream = config.streams.iter().find(|stream| stream.name.as_str() == name);
        let kinds = stream.and_then(|stream| Some(Kinds::of(stream.filter.get("events")?)));
        let lets_through = |kind: &str| kinds.as_ref().is_none_or(|kinds| kinds.counted.contains(kind));
        let at = |of: fn(&Gap) -> UtcMillis, gap: Option<&Gap>| gap.map(|gap| of(gap).to_string()).unwrap_or_default();
        Self {
            id: loss.id(),
            stream: name,
            from: at(|gap| gap.window.from(), first),
            to: at(|gap| gap.window.to(), last),
            span_s: loss.span() / 1_000,
            reason: first.map(|gap| gap.reason.clone()).unwrap_or_default(),
            found_at: at(|gap| gap.recorded_at, first),
            acknowledged_at: loss.gaps.iter().filter_map(|gap| gap.acknowledged_at).max().map(|at| at.to_string()),
            lost: loss.lost(lets_through).filter(|_| kinds.as_ref().is_none_or(|kinds| !kinds.counted.is_empty())),
            lost_is_filtered: stream.is_some_and(|stream| stream.filter.keys().all(|name| name == "events"))
                && kinds.is_none_or(|kinds| kinds.are_all),
        }
    }
}

/// The types that a filter names, as Metrics counts them.
struct Kinds {
    counted: BTreeSet<&'static str>,
    /// Whether each of them is counted, and none of them together with another that the filter keeps out.
    are_all: bool,
}

impl Kinds {
    fn of(named: &[String]) -> Self {
        let counted: BTreeSet<_> = named.iter().filter_map(|kind| counted_as(kind)).collect();
        let has = |kind: &str| named.iter().any(|name| name == kind);
        let are_all =
            named.iter().all(|kind| counted_as(kind).is_some()) && has("list_unsubscribe") == has("link_unsubscribe");
        Self { counted, are_all }
    }
}

fn acknowledge(config: &Config, wanted: &Acknowledge, now: UtcMillis) -> Result<(), Failure> {
    let streams = chosen(config, &wanted.stream)?;
    let of_stream = |loss: &Loss| {
        wanted.stream.is_empty()
            || loss.gaps.iter().all(|gap| streams.iter().any(|stream| stream.name.as_str() == gap.stream))
    };
    let losses: Vec<Loss> = Loss::all(Reader::open(&config.data_dir)?.gaps()?).into_iter().filter(of_stream).collect();
    if let Some(unknown) = wanted.ids.iter().find(|id| !losses.iter().any(|loss| loss.has(**id))) {
        return Err(Failure::new(
            Code::Usage,
            format!("there is no gap {unknown}"),
            "`sparkspool gaps` shows their numbers",
        ));
    }
    let is_wanted = |loss: &&Loss| wanted.ids.is_empty() || wanted.ids.iter().any(|id| loss.has(*id));
    let open: Vec<&Loss> = losses.iter().filter(is_wanted).filter(|loss| !loss.is_acknowledged()).collect();
    if open.is_empty() {
        let nothing = format_args!("no gap is open: nothing to acknowledge");
        return wanted.told.say(&json!({ "acknowledged": [] }), nothing);
    }
    for loss in &open {
        let (first, last) = (&loss.gaps[0].window, &loss.gaps[loss.gaps.len() - 1].window);
        let stream = &loss.gaps[0].stream;
        let (id, from, to, span) = (loss.id(), first.from(), last.to(), humane(loss.span()));
        wanted.told.detail(format_args!("{id} {stream}: {from} to {to}, {span}"))?;
    }
    // Those that were just named, and none that is found meanwhile.
    let ids: Vec<GapId> = open.iter().flat_map(|loss| loss.gaps.iter().map(|gap| gap.id)).collect();
    Mailbox::open(&config.data_dir)?.acknowledge_gaps(&ids, now)?;
    let seen: Vec<i64> = open.iter().map(|loss| loss.id()).collect();
    let gaps = counted(open.len() as u64, "gap", "gaps");
    let result = json!({ "acknowledged": seen });
    wanted.told.say(&result, format_args!("{gaps} acknowledged; they stay in the record"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::window::Window;

    fn gap(id: i64, stream: &str, from: i64, to: i64, acknowledged: bool, injected: Option<u64>) -> Gap {
        let at = |minute: i64| UtcMillis::from_millis(1_794_009_600_000 + minute * MINUTE);
        Gap {
            id: GapId::from_number(id),
            stream: stream.into(),
            window: Window::new(at(from), at(to)).unwrap(),
            reason: "expired before it could be read".into(),
            recorded_at: at(to),
            acknowledged_at: acknowledged.then_some(at(to)),
            lost: injected.map(|n| Lost::from([("injection".to_owned(), n), ("bounce".to_owned(), 1)])),
        }
    }

    #[test]
    fn only_what_metrics_counts_is_said_to_be_counted() {
        let of = |kinds: &[&str]| {
            let kinds = Kinds::of(&kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>());
            (kinds.counted.len(), kinds.are_all)
        };
        assert_eq!(of(&["bounce", "out_of_band"]), (2, true));
        assert_eq!(of(&["bounce", "sms_status"]), (1, false));
        assert_eq!(of(&["sms_status"]), (0, false));
        assert_eq!(of(&["list_unsubscribe"]), (1, false));
        assert_eq!(of(&["list_unsubscribe", "link_unsubscribe"]), (1, true));
    }

    #[test]
    fn neighbours_are_one_loss_with_a_number_that_stays() {
        let gaps = vec![
            gap(7, "all", 0, 1, true, Some(2)),
            gap(9, "all", 1, 2, false, Some(3)),
            gap(3, "all", 2, 3, false, Some(4)),
            gap(4, "all", 5, 6, false, None),
            gap(12, "all", 6, 7, false, Some(1)),
            gap(5, "other", 7, 8, false, None),
        ];
        let losses = Loss::all(gaps);
        let seen: Vec<_> =
            losses.iter().map(|loss| (loss.id(), loss.span() / MINUTE, loss.is_acknowledged())).collect();
        assert_eq!(seen, [(7, 1, true), (3, 2, false), (4, 2, false), (5, 1, false)]);
        assert_eq!(losses[1].lost(|_| true), Some(Lost::from([("injection".into(), 7), ("bounce".into(), 2)])));
        assert_eq!(losses[1].lost(|kind| kind == "bounce"), Some(Lost::from([("bounce".into(), 2)])));
        assert_eq!(losses[2].lost(|_| true), None, "a part that is not known makes no sum");
    }
}
