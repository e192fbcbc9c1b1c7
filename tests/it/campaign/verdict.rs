//! What a run must end with, held against the simulator's truth: nothing missing, nothing twice, no wrong certificate,
//! exact gaps. It looks at rows byte by byte, so that it needs no idea of what a key is.

use super::scenario::{Promise, SPAN, START};
use super::world::Ran;
use sparkspool::core::body::BodySum;
use sparkspool::core::plan::{RETENTION, horizon};
use sparkspool::core::time::{MINUTE, Millis, SECOND, UtcMillis};
use sparkspool::core::window::{Coverage, Window};
use sparkspool::simulator::{Dialect, Event, EventId};
use sparkspool::store::{Certificate, Gap, Position, Reader, StreamSummary};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How exactly a gap's end is known: the instant of the first plan after an outage is not.
const AFTER_AN_OUTAGE: Millis = 5 * MINUTE;
/// Complaints of a kind that are told.
const TOLD_MAX: usize = 4;

/// What was found in a run.
#[derive(Default)]
pub(crate) struct Verdict {
    complaints: BTreeMap<&'static str, Vec<String>>,
    /// Events that had to be captured, and that were.
    pub(crate) required: usize,
    pub(crate) captured: usize,
    pub(crate) missing: usize,
    /// Of the whole spool.
    pub(crate) digest: u64,
}

impl Verdict {
    fn complain(&mut self, kind: &'static str, what: String) {
        self.complaints.entry(kind).or_default().push(what);
    }

    /// Everything that is wrong, or nothing.
    pub(crate) fn text(&self) -> Option<String> {
        let mut text = String::new();
        for (kind, complaints) in &self.complaints {
            let _ = writeln!(text, "  {kind}: {}", complaints.len());
            complaints.iter().take(TOLD_MAX).for_each(|complaint| {
                let _ = writeln!(text, "    {complaint}");
            });
        }
        (!text.is_empty()).then_some(text)
    }
}

/// The events behind one row of the API: one, or twins without an id.
struct Row {
    events: Vec<usize>,
    /// When it was captured, once for each time.
    observed: Vec<UtcMillis>,
}

/// The account that the engine gives of itself.
struct Account {
    stream: StreamSummary,
    gaps: Vec<Gap>,
    certificates: Vec<Certificate>,
}

/// The part of a plan that the verdict needs, because the plan is used up by its run.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) promise: Promise,
    pub(crate) dialects: Vec<Dialect>,
    pub(crate) down: Option<Window>,
    pub(crate) silent: Option<Window>,
}

/// Judges `ran`.
pub(crate) fn judge(ran: &Ran, terms: &Terms) -> Verdict {
    let mut verdict = Verdict::default();
    let mut reader = Reader::open(&ran.dir.path().join("data")).unwrap();
    let stream = reader.streams().unwrap().remove(0);
    let whole = Window::new(START.plus(-RETENTION), START.plus(2 * SPAN)).unwrap();
    let certificates = reader.certificates(stream.id, whole).unwrap();
    let account = Account { gaps: reader.gaps().unwrap(), certificates, stream };
    let mut bodies = bodies(ran, terms);
    spool(&mut reader, ran, &mut bodies, &mut verdict);
    nothing_missing(ran, terms, &account, &bodies, &mut verdict);
    nothing_twice(ran, terms, &bodies, &mut verdict);
    no_wrong_certificate(ran, terms, &account, &bodies, &mut verdict);
    exact_gaps(ran, terms, &account, &mut verdict);
    verdict
}

/// Every body that the API can ever serve, in the dialects of the run, and the events behind it. Bodies before and after
/// a change are two.
struct Bodies {
    places: HashMap<bytes::Bytes, usize>,
    rows: Vec<Row>,
}

fn bodies(ran: &Ran, terms: &Terms) -> Bodies {
    let api = ran.simulation.api();
    let mut bodies = Bodies { places: HashMap::new(), rows: Vec::new() };
    for (number, event) in api.population().events().iter().enumerate() {
        for dialect in &terms.dialects {
            let mut served = vec![api.row(*dialect, event)];
            served.extend(event.changed_at.map(|at| api.row_at(*dialect, event, at)));
            for body in served {
                let next = bodies.rows.len();
                let place = *bodies.places.entry(body).or_insert(next);
                if place == next {
                    bodies.rows.push(Row { events: Vec::new(), observed: Vec::new() });
                }
                bodies.rows[place].events.push(number);
            }
        }
    }
    bodies
}

fn spool(reader: &mut Reader, ran: &Ran, bodies: &mut Bodies, verdict: &mut Verdict) {
    let mut digest = DefaultHasher::new();
    let mut position = Position::START;
    let id = reader.stream_id("all").unwrap().unwrap();
    while let Some(segment) = reader.next_segment(position, &[id]).unwrap() {
        for event in segment.events() {
            (segment.seq(), event.raw, event.late).hash(&mut digest);
            match bodies.places.get(event.raw.as_bytes()) {
                Some(place) => bodies.rows[*place].observed.push(segment.observed_at()),
                None => verdict
                    .complain("not a row of the API", format!("event {} of segment {}", event.index, segment.seq())),
            }
        }
        verdict.captured += segment.len() as usize;
        position = Position::behind(&segment);
    }
    verdict.digest = digest.finish() ^ ran.digest.rotate_left(1);
}

/// The instants at which process and API were both there.
fn up(terms: &Terms) -> Coverage {
    let mut up: Coverage = Window::new(START, START.plus(SPAN)).into_iter().collect();
    terms.down.into_iter().chain(terms.silent).for_each(|window| up.remove(window));
    up
}

/// While the API shows all of `events`, retention included.
fn shown(events: &[&Event]) -> Option<Window> {
    let from = events.iter().map(|event| event.visible_at).max()?;
    let gone = |event: &&Event| event.erased_at.map_or(UtcMillis::from_millis(i64::MAX), |at| at);
    let to = events.iter().map(|event| gone(event).min(event.at.plus(RETENTION))).min()?;
    Window::new(from, to)
}

/// Whether what is shown in `window`, of events at most `late` after they happened, had to be captured.
fn owed(window: Option<Window>, late: Millis, promise: Promise, up: &Coverage) -> bool {
    let pieces = window.map(|window| up.within(window)).unwrap_or_default();
    let longest = pieces.iter().map(|piece| piece.span()).max().unwrap_or(0);
    let promptly = promise.prompt.is_some_and(|(most, enough)| late <= most && longest >= enough);
    longest >= promise.shown || promptly
}

fn nothing_missing(ran: &Ran, terms: &Terms, account: &Account, bodies: &Bodies, verdict: &mut Verdict) {
    let events = ran.simulation.api().population().events();
    let up = up(terms);
    let gaps: Coverage = account.gaps.iter().map(|gap| gap.window).collect();
    let in_a_gap = |at: UtcMillis| gaps.windows().iter().any(|gap| gap.contains(at));
    let of_events = |places: &[usize]| places.iter().map(|place| &events[*place]).collect::<Vec<_>>();
    let late = |events: &[&Event]| events.iter().map(|event| event.visible_at.since(event.at)).max().unwrap_or(0);
    let mut captured_of: HashMap<usize, usize> = HashMap::new();
    for row in &bodies.rows {
        row.events.iter().for_each(|place| *captured_of.entry(*place).or_default() += row.observed.len());
    }
    // Twins are one row: as many of them must be there as were owed, together where they are told apart by that alone.
    let mut judged = vec![false; events.len()];
    for row in &bodies.rows {
        if judged[row.events[0]] {
            continue;
        }
        row.events.iter().for_each(|place| judged[*place] = true);
        let all = of_events(&row.events);
        let at = all[0].at;
        if at < account.stream.floor || in_a_gap(at) {
            continue;
        }
        let single: Vec<&Event> =
            all.iter().copied().filter(|event| owed(shown(&[event]), late(&[event]), terms.promise, &up)).collect();
        let together = owed(shown(&single), late(&single), terms.promise, &up);
        let wanted = if together { single.len() } else { single.len().min(1) };
        verdict.required += wanted;
        revised(all[0], bodies, row, &up, terms, verdict);
        let found = captured_of[&row.events[0]];
        if found < wanted {
            verdict.missing += wanted - found;
            verdict.complain("missing", describe(single[0]));
        }
    }
}

/// The second body of an event, where it was served long enough.
fn revised(event: &Event, bodies: &Bodies, row: &Row, up: &Coverage, terms: &Terms, verdict: &mut Verdict) {
    let Some(changed_at) = event.changed_at else { return };
    let second = shown(&[event]).and_then(|shown| Window::new(changed_at.max(shown.from()), shown.to()));
    let revised = |other: &&Row| !std::ptr::eq(*other, row) && other.events[0] == row.events[0];
    let is_captured = bodies.rows.iter().filter(revised).any(|other| !other.observed.is_empty());
    if owed(second, Millis::MAX, terms.promise, up) && !is_captured {
        verdict.complain("unrevised", format!("changed {changed_at}: {}", describe(event)));
    }
}

fn describe(event: &Event) -> String {
    let Event { at, visible_at, erased_at, .. } = event;
    let erased = erased_at.map(|at| format!(", erased {at}")).unwrap_or_default();
    let minutes = visible_at.since(*at) / MINUTE;
    format!("{:?} {} of {at}, shown from {visible_at} ({minutes} min late){erased}", event.id, event.kind.name())
}

fn nothing_twice(ran: &Ran, terms: &Terms, bodies: &Bodies, verdict: &mut Verdict) {
    let events = ran.simulation.api().population().events();
    // Of each event how many bodies came, and how often all of them together.
    let mut came: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for row in &bodies.rows {
        let (bodies, times) = came.entry(row.events[0]).or_default();
        *bodies += usize::from(!row.observed.is_empty());
        *times += row.observed.len();
    }
    for row in &bodies.rows {
        let event = &events[row.events[0]];
        let mut behind: Vec<usize> = row.events.clone();
        behind.dedup();
        // Replicas of which one lags show the old body and the new one in turns. Each turn is a revision, up to a bound.
        let (bodies, times) = came[&row.events[0]];
        let flaps = event.changed_at.is_some() && bodies > 1 && times <= 1 + BodySum::REVISIONS_MAX as usize;
        if row.observed.len() > behind.len() && !flaps {
            verdict
                .complain("twice", format!("{} times {}, at {:?}", row.observed.len(), describe(event), row.observed));
        }
    }
    for (place, (bodies, _)) in came {
        let event = &events[place];
        // Without an id an event is its body, and two dialects give it two.
        let nameless = matches!(event.id, EventId::Nameless(_)) && terms.dialects.len() > 1;
        let most = 1 + usize::from(event.changed_at.is_some()) + usize::from(nameless);
        if bodies > most {
            verdict.complain("twice", format!("with {bodies} bodies {}", describe(event)));
        }
    }
}

fn no_wrong_certificate(ran: &Ran, terms: &Terms, account: &Account, bodies: &Bodies, verdict: &mut Verdict) {
    let events = ran.simulation.api().population().events();
    let mut first_seen: Vec<Option<UtcMillis>> = vec![None; events.len()];
    for row in &bodies.rows {
        for place in &row.events {
            first_seen[*place] = first_seen[*place].into_iter().chain(row.observed.iter().min().copied()).min();
        }
    }
    for Certificate { window, api_count, distinct, verified, at, pages, .. } in &account.certificates {
        if *verified && *api_count != Some(*distinct) {
            verdict.complain("wrong certificate", format!("{window} is verified with {api_count:?} and {distinct}"));
        }
        // One that is not verified says itself that it may lack something.
        if terms.promise.prompt.is_none() || !verified {
            continue;
        }
        // What became visible while the window was read need not be in it. The day of a walk is the day it is closed.
        let begun = at.plus(-5 * MINUTE);
        let range = events.partition_point(|event| event.at >= window.to())
            ..events.partition_point(|event| event.at >= window.from());
        for place in range {
            let event = &events[place];
            let was_there = event.visible_at <= begun.min(window.to().plus(MINUTE)) && event.erased_at.is_none();
            if was_there && event.at.plus(RETENTION) > *at && first_seen[place].is_none_or(|seen| seen > *at) {
                let closed = format!("closed {at} with {distinct} of {api_count:?} on {pages} pages");
                verdict.complain("wrong certificate", format!("{window}, {closed}, is without {}", describe(event)));
            }
        }
    }
}

fn exact_gaps(ran: &Ran, terms: &Terms, account: &Account, verdict: &mut Verdict) {
    let StreamSummary { coverage, floor, .. } = &account.stream;
    let gaps: Coverage = account.gaps.iter().map(|gap| gap.window).collect();
    for gap in &account.gaps {
        for read in coverage.within(gap.window) {
            verdict.complain("wrong gap", format!("{} names {read}, which was read", gap.window));
        }
        if gap.window.to() > horizon(gap.recorded_at).plus(SECOND) {
            verdict.complain("wrong gap", format!("{} had not expired at {}", gap.window, gap.recorded_at));
        }
    }
    let expected = terms.down.zip(ran.read_before).and_then(|(down, read)| Window::new(read, horizon(down.to())));
    match expected {
        None if gaps.is_empty() => {}
        None => verdict.complain("wrong gap", format!("{:?} where nothing could expire", gaps.windows())),
        Some(lost) => {
            let [found] = gaps.windows() else {
                return verdict.complain("wrong gap", format!("{:?} instead of {lost}", gaps.windows()));
            };
            let behind = found.to().since(lost.to());
            if found.from() != lost.from() || !(0..=AFTER_AN_OUTAGE).contains(&behind) {
                verdict.complain("wrong gap", format!("{found} instead of {lost}"));
            }
        }
    }
    let mut settled = coverage.clone();
    gaps.windows().iter().for_each(|gap| settled.insert(*gap));
    let due = Window::new(*floor, START.plus(SPAN - terms.promise.under_way)).unwrap();
    for unread in settled.missing(due) {
        verdict.complain("unread", format!("{unread} is neither read nor named in a gap"));
    }
}
