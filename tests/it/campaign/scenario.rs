//! The scenarios: what the events, the API, the clocks and the process are like in one run, all of it drawn from a seed.
//! They stand apart from the driver so that each adversary is a line, and the exam is all the lines at once.

use sparkspool::core::time::{DAY, HOUR, MINUTE, Millis, SECOND, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::simulator::{
    Dialect, Fault, FaultPlan, Legacy, LinkShape, Options, PopulationOptions, RetryAfter, Size, ToReading, When,
};

/// When every run begins: 2026-12-01, after this program was written.
pub(crate) const START: UtcMillis = UtcMillis::from_secs(1_796_083_200);
/// How long a run is.
pub(crate) const SPAN: Millis = 14 * DAY;
/// Between two re-reads of an hour.
const REREAD: Millis = DAY;
/// For what has to be asked again, and for replicas.
const AGAIN: Millis = HOUR;

/// How much there is in a run. Most are slim, so that many orders of events are tried, and two seeds of each fifty full,
/// so that windows with many pages and short ticks are.
struct Extent {
    /// Events of a run, bursts included.
    events: u32,
    /// Rows a page: little, so that windows need many pages.
    page: u32,
    /// Between two ticks, in milliseconds: real streams tick more often, which only helps them.
    ticks: &'static [Millis],
}

const FULL: Extent = Extent { events: 3_000, page: 50, ticks: &[5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 30 * MINUTE] };
const SLIM: Extent = Extent { events: 300, page: 12, ticks: &[HOUR, 2 * HOUR] };

impl Extent {
    fn of(seed: u64) -> &'static Self {
        if seed % 50 < 2 { &FULL } else { &SLIM }
    }
}

/// Share of answers that come compressed; all would only make runs slower.
const COMPRESSED: f64 = 0.02;
/// A process dies at so many of its requests.
const CRASHES: f64 = 1.0 / 400.0;

/// How the wall clock is wrong from an instant on.
#[derive(Clone, Copy)]
pub(crate) struct Jump {
    pub(crate) at: UtcMillis,
    pub(crate) offset: Millis,
    pub(crate) name: &'static str,
}

/// What a run must end with.
#[derive(Clone, Copy)]
pub(crate) struct Promise {
    /// Events that were shown so long, in one piece, while process and API ran, are captured.
    pub(crate) shown: Millis,
    /// Where no answer is short or old: events at most this late (first) need to be shown only so long (second), and a
    /// closed window holds everything that was shown when it was closed.
    pub(crate) prompt: Option<(Millis, Millis)>,
    /// What happened this long before the end may not be read yet.
    pub(crate) under_way: Millis,
}

/// One run before it begins.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The dialects whose rows may be captured.
    pub(crate) dialects: Vec<Dialect>,
    /// `dialect` of the configuration.
    pub(crate) configured: &'static str,
    /// `page_size` and `body_max` of the configuration.
    pub(crate) page: (u32, &'static str),
    /// `reread` of the stream. Without daily ones no promise holds against answers that are short and say so nowhere.
    pub(crate) reread: &'static str,
    /// Share of answers that come compressed.
    pub(crate) compressed: f64,
    pub(crate) options: Options,
    /// Between two ticks of the stream.
    pub(crate) tick: Millis,
    /// Share of requests at which the process dies.
    pub(crate) crashes: f64,
    pub(crate) jumps: Vec<Jump>,
    /// When the process does not run.
    pub(crate) down: Option<Window>,
    /// When the API answers nobody.
    pub(crate) silent: Option<Window>,
    pub(crate) promise: Promise,
    pub(crate) rng: fastrand::Rng,
}

/// A scenario's name and what it changes in a plan where all is well.
pub(crate) type Scenario = (&'static str, fn(&mut Plan));

pub(crate) const SCENARIOS: [Scenario; 19] = [
    ("quiet", |_| {}),
    ("late_minutes", late_minutes),
    ("late_days", late_days),
    ("lag_and_ties", lag_and_ties),
    ("sticky", sticky),
    ("partial", partial),
    ("lying_totals", lying_totals),
    ("empty_pages_and_links", empty_pages_and_links),
    ("wire", wire),
    ("edges_and_ids", edges_and_ids),
    ("clocks", clocks),
    ("outage_3_days", |plan| outage(plan, 4 * DAY, 3 * DAY)),
    ("outage_9_days_and_a_half", |plan| outage(plan, 3 * DAY, 9 * DAY + 12 * HOUR)),
    ("outage_11_days", |plan| outage(plan, 2 * DAY, 11 * DAY)),
    ("silence_3_days", silence),
    ("storm_of_a_day", storm),
    ("dialect_change", dialect_change),
    ("all", all),
    ("all_and_sticky", all_and_sticky),
];

impl Plan {
    /// The plan of a scenario under a seed: even seeds speak the Events API, odd ones the legacy dialect.
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let name = scenario.0.bytes().fold(0_u64, |sum, b| sum.wrapping_mul(131).wrapping_add(u64::from(b)));
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ name);
        let window = Window::new(START.plus(-DAY), START.plus(SPAN)).unwrap();
        let Extent { events, page, ticks } = Extent::of(seed);
        let mut options = Options::new(PopulationOptions::new(rng.u64(..), window, Size::Events(*events)));
        options.faults.seed = rng.u64(..);
        options.log_max = 0;
        options.population.bursts = 3;
        options.population.burst_events = (page * 6 / 5, page * 26 / 5);
        let (dialect, configured) = if seed.is_multiple_of(2) {
            (Dialect::Events, "events")
        } else {
            (Dialect::MessageEvents, "message-events")
        };
        let tick = ticks[rng.usize(..ticks.len())];
        // What is shown just behind a tick has to wait for the next, and an hour where ticks are shorter and fail.
        let turn = tick.max(HOUR) + AGAIN;
        let mut plan = Self {
            seed,
            dialects: vec![dialect],
            configured,
            page: (*page, "512KiB"),
            reread: "daily",
            compressed: COMPRESSED,
            options,
            tick,
            crashes: 0.0,
            jumps: Vec::new(),
            down: None,
            silent: None,
            promise: Promise { shown: REREAD + turn, prompt: Some((MINUTE, turn)), under_way: turn },
            rng,
        };
        scenario.1(&mut plan);
        plan
    }

    /// Each of `faults` in `share` of the searches.
    fn share(&mut self, share: f64, faults: impl IntoIterator<Item = Fault>) {
        self.options.faults.rules.extend(faults.into_iter().map(|fault| (When::Share(share), fault)));
    }

    /// An instant in the run, `before` its end at the latest.
    fn sometime(&mut self, before: Millis) -> UtcMillis {
        START.plus(self.rng.i64(HOUR..SPAN - before))
    }
}

fn late_minutes(plan: &mut Plan) {
    (plan.options.population.late_share, plan.options.population.late_max) = (0.1, 20 * MINUTE);
    plan.promise.prompt = plan.promise.prompt.map(|(_, shown)| (20 * MINUTE, shown + HOUR));
    plan.crashes = CRASHES;
}

fn late_days(plan: &mut Plan) {
    (plan.options.population.late_share, plan.options.population.late_max) = (0.02, 9 * DAY);
    plan.crashes = CRASHES;
}

fn lag_and_ties(plan: &mut Plan) {
    plan.share(0.2, [15, 30, 45].map(|seconds| Fault::ReplicaLag(seconds * SECOND)));
    plan.share(0.5, [Fault::TiesReordered]);
    plan.promise.prompt = None;
}

fn sticky(plan: &mut Plan) {
    plan.options.faults.rules.push((When::Always, Fault::StickyReplica(45 * SECOND)));
    plan.promise.prompt = None;
}

fn partial(plan: &mut Plan) {
    plan.share(0.0025, [Fault::Partial(0.9), Fault::Partial(0.5)]);
    plan.promise.prompt = None;
    plan.crashes = CRASHES;
}

fn lying_totals(plan: &mut Plan) {
    let by = [1, -1, 7, -7, -100].map(Fault::TotalOff);
    plan.share(0.01, by);
    plan.share(0.01, [Fault::TotalCapped(0), Fault::TotalCapped(10_000), Fault::TotalAbsent]);
    plan.promise.prompt = None;
}

fn empty_pages_and_links(plan: &mut Plan) {
    let rows = [Fault::EmptyPage, Fault::LastRowTwice];
    let links = [Fault::NextMissing, Fault::NextRepeats, Fault::NextForeign, Fault::NextAbsolute];
    let shapes = [LinkShape::Null, LinkShape::EmptyArray, LinkShape::Absent, LinkShape::Array, LinkShape::Object]
        .map(Fault::Links);
    plan.share(0.02, rows.into_iter().chain(links).chain(shapes));
}

/// What networks, gateways and rate limits do, storms of minutes included.
fn wire(plan: &mut Plan) {
    let faults = [
        Fault::Throttled(RetryAfter::Absent),
        Fault::Throttled(RetryAfter::Seconds(2)),
        Fault::Throttled(RetryAfter::Date(3 * SECOND)),
        Fault::Throttled(RetryAfter::Hostile),
        Fault::Failing(500),
        Fault::Failing(502),
        Fault::Failing(503),
        Fault::Html(200),
        Fault::Html(400),
        Fault::Html(502),
        Fault::Reset,
        Fault::Slow(5 * SECOND),
        Fault::Slow(400 * SECOND),
        Fault::Stalled(5 * SECOND),
        Fault::Stalled(400 * SECOND),
        Fault::Truncated,
        Fault::TruncatedGzip,
        Fault::WrongContentType,
    ];
    plan.share(0.005, faults);
    plan.share(0.001, [Fault::Huge(600 << 10)]);
    storms(plan);
    plan.crashes = CRASHES;
}

fn storms(plan: &mut Plan) {
    for _ in 0..6 {
        let (start, minutes) = (plan.sometime(DAY), plan.rng.u32(2..=40));
        plan.options.faults.rules.extend(FaultPlan::storm(start, minutes).rules);
    }
}

/// Edges read otherwise, ids of every kind, events that vanish, change, or carry a time ahead of their own.
fn edges_and_ids(plan: &mut Plan) {
    let window = plan.options.population.window;
    let PopulationOptions { seed, size, bursts, burst_events, .. } = plan.options.population;
    let adverse = PopulationOptions::adverse(seed, window, size);
    plan.options.population =
        PopulationOptions { late_share: 0.0, changed_share: 0.01, bursts, burst_events, ..adverse };
    plan.options.behaviour.from_exclusive = plan.rng.bool();
    plan.options.behaviour.legacy_to =
        [ToReading::WholeMinute, ToReading::Instant, ToReading::Exclusive][plan.rng.usize(..3)];
    plan.options.behaviour.events_to = [ToReading::Exclusive, ToReading::Instant][plan.rng.usize(..2)];
    plan.promise.prompt = None;
    plan.crashes = CRASHES;
}

fn clocks(plan: &mut Plan) {
    let mut at = START.plus(plan.rng.i64(0..DAY));
    let mut jumps = [
        ("clock_45s_ahead", 45 * SECOND),
        ("clock_45s_behind", -45 * SECOND),
        ("clock_1h_ahead", HOUR),
        ("clock_1h_behind", -HOUR),
        ("clock_2h_behind", -2 * HOUR),
        ("clock_1d_ahead", DAY),
    ];
    plan.rng.shuffle(&mut jumps);
    for (name, offset) in jumps {
        plan.jumps.push(Jump { at, offset, name });
        at = at.plus(plan.rng.i64(HOUR..36 * HOUR));
        plan.jumps.push(Jump { at, offset: 0, name: "clock_set_right" });
        at = at.plus(plan.rng.i64(HOUR..12 * HOUR));
    }
    let skews = [-2 * HOUR, -45 * SECOND, 45 * SECOND, DAY].map(Fault::DateSkewed);
    plan.share(0.01, skews);
    plan.share(0.03, [Fault::DateAbsent]);
    plan.crashes = CRASHES;
}

fn outage(plan: &mut Plan, after: Millis, span: Millis) {
    let from = START.plus(after + plan.rng.i64(0..6 * HOUR));
    plan.down = Window::new(from, from.plus(span));
}

/// The process runs, the API does not.
fn silence(plan: &mut Plan) {
    let from = plan.sometime(7 * DAY);
    let window = Window::new(from, from.plus(3 * DAY)).unwrap();
    plan.options.faults.rules.extend(FaultPlan::outage(window).rules);
    plan.silent = Some(window);
}

fn storm(plan: &mut Plan) {
    let from = plan.sometime(4 * DAY);
    plan.options.faults.rules.extend(FaultPlan::storm(from, 24 * 60).rules);
    plan.silent = Window::new(from, from.plus(DAY));
}

/// The legacy endpoint is retired, or turns hollow, in mid-run.
fn dialect_change(plan: &mut Plan) {
    let at = plan.sometime(5 * DAY);
    if plan.rng.bool() {
        plan.options.behaviour.legacy = Legacy::RetiredFrom(at);
    } else {
        plan.options.behaviour.legacy = Legacy::HollowFrom(at);
        // An endpoint that stays empty is compared with its successor once an hour.
        plan.promise.prompt = None;
    }
    plan.dialects = vec![Dialect::MessageEvents, Dialect::Events];
    plan.configured = "auto";
    plan.crashes = CRASHES;
}

fn all(plan: &mut Plan) {
    edges_and_ids(plan);
    (plan.options.population.late_share, plan.options.population.late_max) = (0.02, 9 * DAY);
    clocks(plan);
    let dates = std::mem::take(&mut plan.options.faults.rules);
    let share = 0.003;
    let sticky = |rule: &(When, Fault)| matches!(rule.1, Fault::StickyReplica(_));
    let adverse = FaultPlan::adverse(0, share).rules;
    plan.options.faults.rules.extend(adverse.into_iter().filter(|rule| !sticky(rule)));
    plan.options.faults.rules.extend(dates.into_iter().map(|(_, fault)| (When::Share(share), fault)));
    plan.share(share, [Fault::ReplicaLag(15 * SECOND), Fault::Stalled(400 * SECOND), Fault::Slow(20 * SECOND)]);
    storms(plan);
    plan.promise.prompt = None;
    plan.crashes = CRASHES;
    outage(plan, 5 * DAY, 3 * DAY);
}

fn all_and_sticky(plan: &mut Plan) {
    all(plan);
    plan.options.faults.rules.push((When::Always, Fault::StickyReplica(45 * SECOND)));
}
