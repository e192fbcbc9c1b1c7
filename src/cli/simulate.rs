//! `simulate`: the simulated API on a port of this machine, for tests of other people's clients and of sparkspool.
//! It exists because the real API cannot be made to fail on purpose, and has no account to try things on.

use super::exit::{Code, Failure};
use super::signals;
use super::text::{bytes, counted, grouped};
use crate::core::duration::parse_duration;
use crate::core::time::{DAY, MINUTE, Millis, SECOND, UtcMillis};
use crate::core::window::Window;
use crate::daemon::clock::TimeSource;
use crate::simulator::{
    Behaviour, Dialect, Fault, FaultPlan, Key, Legacy, Options as Simulated, PopulationOptions, RetryAfter, Running,
    Simulator, Size, Stats, ToReading, Visit, When,
};
use clap::{Args, ValueEnum};
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Options of `simulate`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Port on 127.0.0.1 [default: any that is free]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// The same seed and range give the same events
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Exactly so many events [default: 20000]
    #[arg(long, value_name = "N", conflicts_with = "messages")]
    events: Option<u32>,
    /// So many messages, with about 2.5 events each
    #[arg(long, value_name = "N")]
    messages: Option<u32>,
    /// Days of mail before now
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "from", value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
    /// Mail from this time on: `2026-11-12T00:00Z`, or how long ago, as `24h`
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Mail until this time, or so long from now, as `2h`; future events appear in their time [default: 1d]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Mail with everything that makes capturing hard: very late, erased, changed, without id, of unknown types
    #[arg(long)]
    adverse_mail: bool,
    /// Which of the two APIs answer
    #[arg(long, value_name = "WHICH", value_enum, default_value = "both")]
    dialect: Served,
    /// The legacy API's reading of `to`
    #[arg(long, value_name = "HOW", value_enum, default_value = "whole-minute")]
    legacy_to: LegacyTo,
    /// The key that is accepted
    #[arg(long, value_name = "KEY", default_value = "simulated-key")]
    key: String,
    /// Whether the key may ask for Metrics, too
    #[arg(long, value_name = "HOW", value_enum, default_value = "granted")]
    metrics: Metrics,
    /// What goes wrong, besides --fault
    #[arg(long, value_name = "HOW", value_enum, default_value = "none")]
    faults: Faults,
    /// A fault by name in a share of all searches, as `throttled=0.05`; may be repeated; `list` names them
    #[arg(long = "fault", value_name = "NAME=SHARE")]
    fault: Vec<String>,
    /// Compress for clients that accept it [default, but with --benchmark]
    #[arg(long, overrides_with = "no_gzip")]
    gzip: bool,
    /// Never compress
    #[arg(long, overrides_with = "gzip")]
    no_gzip: bool,
    /// For measurements: events of about so many bytes, all past and visible, written beforehand, uncompressed
    #[arg(long, value_name = "BYTES", conflicts_with = "adverse_mail")]
    benchmark: Option<u32>,
}

/// Which APIs answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Served {
    /// message-events and events
    Both,
    /// events; message-events is gone (404), as at SparkPost
    Events,
    /// events; message-events answers, and always without a row
    Hollow,
}

/// Whether the key has the grant for Metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Metrics {
    /// It may
    Granted,
    /// It may search events only; Metrics answer 403
    Refused,
}

/// How the legacy API reads `to`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum LegacyTo {
    /// The minute that `to` names is inside
    WholeMinute,
    /// The instant is inside
    Instant,
    /// It is outside
    Exclusive,
}

/// How much goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Faults {
    /// Nothing
    None,
    /// What happens to every client: 429, 503, cut and reset connections, in one search of ten
    Some,
    /// Every fault there is, each in one search of thirty
    Adverse,
}

/// With --faults some: of five, so that about one search in ten is struck.
const SOME_SHARE: f64 = 0.02;
/// With --faults adverse.
const ADVERSE_SHARE: f64 = 0.03;
/// How often new requests are logged.
const LOG_EVERY: Duration = Duration::from_millis(200);
/// Requests remembered in between.
const LOG_MAX: usize = 4_096;

/// Runs the command.
pub(super) async fn run(options: &Options) -> Result<(), Failure> {
    if options.fault.iter().any(|text| text == "list") {
        return say(&(fault_names().join("\n") + "\n"));
    }
    let stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let time = TimeSource::system();
    let now = (time.wall)();
    let simulated = simulated(options, now)?;
    let window = simulated.population.window;
    let api = Simulator::start(simulated, time.wall.clone()).await.map_err(|error| {
        let what = format!("port {} of 127.0.0.1: {error}", options.port);
        Failure::new(Code::Unavailable, what, "choose another --port, or none")
    })?;
    say(&format!("{} {}\n", api.url(), options.key))?;
    if std::io::stderr().is_terminal() {
        let events = api.simulation().api().population().events().len() as u64;
        eprintln!("{}, {window}; stop with ctrl-c", counted(events, "event", "events"));
    }
    let mut beat = tokio::time::interval(LOG_EVERY);
    let mut logged = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = beat.tick() => logged = log_requests(&api, logged),
        }
    }
    log_requests(&api, logged);
    eprint!("{}", account(&api.stats()));
    api.stop().await;
    Ok(())
}

/// Writes to stdout at once: a script may wait for it.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::new(Code::Unavailable, format!("stdout: {e}"), "is its reader gone?"))
}

fn simulated(options: &Options, now: UtcMillis) -> Result<Simulated, Failure> {
    let size = match (options.messages, options.events) {
        (Some(messages), _) => Size::Messages(messages),
        (None, events) => Size::Events(events.unwrap_or(20_000)),
    };
    let window = window(options, now)?;
    let make = if options.adverse_mail { PopulationOptions::adverse } else { PopulationOptions::new };
    let mut population = make(options.seed, window, size);
    if options.benchmark.is_some() {
        (population.bytes_each, population.visible_within) = (options.benchmark, 0);
    }
    let legacy = match options.dialect {
        Served::Both => Legacy::Served,
        Served::Events => Legacy::Retired,
        Served::Hollow => Legacy::Hollow,
    };
    let legacy_to = match options.legacy_to {
        LegacyTo::WholeMinute => ToReading::WholeMinute,
        LegacyTo::Instant => ToReading::Instant,
        LegacyTo::Exclusive => ToReading::Exclusive,
    };
    let keys = vec![Key { metrics: options.metrics == Metrics::Granted, ..Key::new(&options.key) }];
    let prerender = match (options.benchmark, legacy) {
        (None, _) => Vec::new(),
        (Some(_), Legacy::Served) => vec![Dialect::MessageEvents, Dialect::Events],
        (Some(_), _) => vec![Dialect::Events],
    };
    // A benchmark must not have its oldest events expire while it runs; everything else keeps the API's ten days.
    let default = Behaviour::default();
    let retention = match options.benchmark {
        Some(_) => default.retention.max(now.since(window.from())) + DAY,
        None => default.retention,
    };
    Ok(Simulated {
        behaviour: Behaviour { keys, legacy, legacy_to, retention, ..default },
        faults: faults(options)?,
        gzip: options.gzip || !(options.no_gzip || options.benchmark.is_some()),
        prerender,
        log_max: LOG_MAX,
        port: options.port,
        ..Simulated::new(population)
    })
}

fn window(options: &Options, now: UtcMillis) -> Result<Window, Failure> {
    let from = match &options.from {
        Some(text) => instant("--from", text, now, -1)?,
        None => now.plus(-i64::from(options.days) * DAY),
    };
    let to = match &options.to {
        Some(text) => instant("--to", text, now, 1)?,
        // What is measured must not grow meanwhile.
        None if options.benchmark.is_some() => now.plus(-MINUTE),
        None => now.plus(DAY),
    };
    Window::new(from.floor(SECOND), to.floor(SECOND)).ok_or_else(|| {
        Failure::new(Code::Usage, format!("the range from {from} to {to} is empty"), "--from must lie before --to")
    })
}

/// An instant, a day, or a span before (`direction` -1) or after (1) now.
fn instant(option: &str, text: &str, now: UtcMillis, direction: Millis) -> Result<UtcMillis, Failure> {
    if let Ok(span) = parse_duration(text) {
        return Ok(now.plus(direction * span));
    }
    let found = UtcMillis::parse(text).or_else(|| UtcMillis::parse(&format!("{text}T00:00Z")));
    found.ok_or_else(|| {
        Failure::new(
            Code::Usage,
            format!("{option}: `{text}` is no time"),
            "write 2026-11-12T00:00Z, 2026-11-12 or a span such as 24h",
        )
    })
}

fn faults(options: &Options) -> Result<FaultPlan, Failure> {
    let mut plan = FaultPlan { seed: options.seed, rules: Vec::new() };
    for text in &options.fault {
        plan.rules.push(rule(text)?);
    }
    match options.faults {
        Faults::None => {}
        Faults::Some => {
            let some = [
                Fault::Throttled(RetryAfter::Seconds(2)),
                Fault::Throttled(RetryAfter::Absent),
                Fault::Failing(503),
                Fault::Truncated,
                Fault::Reset,
            ];
            plan.rules.extend(some.map(|fault| (When::Share(SOME_SHARE), fault)));
        }
        Faults::Adverse => plan.rules.extend(FaultPlan::adverse(options.seed, ADVERSE_SHARE).rules),
    }
    Ok(plan)
}

/// `NAME=SHARE`.
fn rule(text: &str) -> Result<(When, Fault), Failure> {
    let (name, share) = text.split_once('=').unwrap_or((text, ""));
    let Some(fault) = known_faults().into_iter().find(|fault| fault.name() == name) else {
        let what = format!("--fault: there is no fault `{name}`");
        return Err(Failure::new(Code::Usage, what, format!("there are: {}", fault_names().join(", "))));
    };
    match share.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok((When::Share(share), fault)),
        _ => Err(Failure::new(
            Code::Usage,
            format!("--fault {name}: `{share}` is no share"),
            format!("write a share from 0 to 1, as `{name}=0.05`"),
        )),
    }
}

/// One fault of each name: first those that need another strength than in the adverse plan.
fn known_faults() -> Vec<Fault> {
    let own = [
        Fault::Failing(503),
        Fault::Html(502),
        Fault::Slow(2 * SECOND),
        Fault::Stalled(20 * SECOND),
        Fault::Huge(256 << 20),
    ];
    own.into_iter().chain(FaultPlan::adverse(0, 0.0).rules.into_iter().map(|(_, fault)| fault)).collect()
}

fn fault_names() -> Vec<&'static str> {
    let names: std::collections::BTreeSet<_> = known_faults().iter().map(Fault::name).collect();
    names.into_iter().collect()
}

/// Logs the requests behind the first `logged`, where that is wanted. Returns how many there are now.
fn log_requests(api: &Running, logged: u64) -> u64 {
    if !tracing::enabled!(tracing::Level::INFO) {
        return logged;
    }
    let (requests, fresh) = api.visits_after(logged);
    let forgotten = requests.saturating_sub(logged).saturating_sub(fresh.len() as u64);
    if forgotten > 0 {
        tracing::info!(requests = forgotten, "requests too fast to be logged");
    }
    fresh.iter().for_each(log);
    requests
}

/// The parameters that hold no addresses, whatever a client sends.
const LOGGED: [&str; 7] = ["from", "to", "page", "per_page", "cursor", "events", "timezone"];

fn log(visit: &Visit) {
    let value = |(name, value): &(String, String)| {
        let shown = if LOGGED.contains(&name.as_str()) { value.as_str() } else { "…" };
        format!("{name}={shown}")
    };
    let query: Vec<String> = visit.params.iter().map(value).collect();
    let faults = (!visit.faults.is_empty()).then(|| visit.faults.join(","));
    tracing::info!(status = visit.status, rows = visit.rows, faults, "{}?{}", visit.path, query.join("&"));
}

/// What was asked and answered, for the end.
fn account(stats: &Stats) -> String {
    let statuses: Vec<String> =
        stats.by_status.iter().map(|(status, n)| format!("{status}: {}", grouped(*n))).collect();
    let mut text = format!(
        "{}, {} served, {}\n",
        counted(stats.requests, "request", "requests"),
        counted(stats.rows, "event", "events"),
        bytes(stats.body_bytes)
    );
    if !statuses.is_empty() {
        text.push_str(&format!("answers: {}\n", statuses.join(", ")));
    }
    let faults: Vec<String> = stats.faults.iter().map(|(name, n)| format!("{name} {}", grouped(*n))).collect();
    if !faults.is_empty() {
        text.push_str(&format!("faults:  {}\n", faults.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn now() -> UtcMillis {
        UtcMillis::parse("2026-11-21T18:00:30.250Z").unwrap()
    }

    fn read(line: &str) -> Result<Simulated, String> {
        let args = std::iter::once("simulate").chain(line.split_whitespace());
        let line = Line::try_parse_from(args).map_err(|error| error.to_string())?;
        simulated(&line.options, now()).map_err(|failure| failure.what)
    }

    fn range(line: &str) -> Result<String, String> {
        read(line).map(|options| options.population.window.to_string())
    }

    #[test]
    fn ranges_lie_around_now() {
        assert_eq!(range(""), Ok("[2026-11-11T18:00:30Z, 2026-11-22T18:00:30Z)".into()));
        assert_eq!(range("--days 1 --to 2h"), Ok("[2026-11-20T18:00:30Z, 2026-11-21T20:00:30Z)".into()));
        let day = "[2026-11-12T00:00:00Z, 2026-11-13T00:00:00Z)";
        assert_eq!(range("--from 2026-11-12 --to 2026-11-13T00:00Z"), Ok(day.into()));
        assert_eq!(range("--from 24h --benchmark 1000"), Ok("[2026-11-20T18:00:30Z, 2026-11-21T17:59:30Z)".into()));
        assert!(range("--from 2026-11-13 --to 2026-11-12").unwrap_err().contains("is empty"));
        assert!(range("--from soon").unwrap_err().contains("no time"));
        assert!(range("--from 24h --days 2").is_err());
    }

    #[test]
    fn switches_reach_the_simulation() {
        let made = read(
            "--dialect hollow --legacy-to exclusive --key k --messages 7 --seed 9 --port 1 --no-gzip --metrics refused",
        )
        .unwrap();
        assert_eq!((made.behaviour.legacy, made.behaviour.legacy_to), (Legacy::Hollow, ToReading::Exclusive));
        assert_eq!((made.behaviour.keys[0].text.as_str(), made.port, made.gzip), ("k", 1, false));
        assert!(!made.behaviour.keys[0].metrics && made.behaviour.keys[0].granted);
        assert_eq!((made.population.size, made.population.seed), (Size::Messages(7), 9));
        assert!(read("").unwrap().gzip && read("--benchmark 900 --gzip").unwrap().gzip);
        let benchmark = read("--benchmark 900 --dialect events").unwrap();
        assert_eq!((benchmark.gzip, benchmark.prerender), (false, vec![Dialect::Events]));
        assert_eq!((benchmark.population.bytes_each, benchmark.population.visible_within), (Some(900), 0));
    }

    #[test]
    fn every_fault_can_be_had_by_its_name() {
        for name in fault_names() {
            let made = read(&format!("--fault {name}=0.25")).unwrap();
            let [(When::Share(share), fault)] = made.faults.rules.as_slice() else { panic!("{name}") };
            assert!(fault.name() == name && (*share - 0.25).abs() < f64::EPSILON);
        }
        assert!(read("--fault nonsense=0.1").err().unwrap().contains("no fault"));
        for share in ["slow", "slow=", "slow=2", "slow=-1", "slow=NaN"] {
            assert!(read(&format!("--fault {share}")).err().unwrap().contains("no share"), "{share}");
        }
        assert!(read("--faults adverse").unwrap().faults.rules.len() > 30);
    }
}
