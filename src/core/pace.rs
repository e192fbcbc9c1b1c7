//! How fast one API key may be asked: a rate learned from what the API refuses, and a breaker for when it refuses everything.
//! It exists as one pure decision for all streams of the key, so that no storm upstream is ever met with a storm from here.

use super::retry::Backoff;
use super::time::{MINUTE, Millis};

/// Requests a minute that are tried however often the API asked for patience; below every limit the vendor could mean.
pub const FLOOR: f64 = 0.5;

/// So many failures in a row, whoever asked, open the breaker.
const OPENS_AFTER: u32 = 5;

/// Success for so many minutes adds the whole configured limit to the rate.
const CLIMB_MINUTES: f64 = 10.0;

/// A remembered rate that differs by less than this share is no news.
const NEWS: f64 = 0.1;

/// The pace of one API key: when the next request may be sent, whoever it is for.
///
/// The rate is additive increase, multiplicative decrease: it climbs with the time during which requests succeed, and is
/// halved by a 429, once for all requests that were under way together. It never leaves `[FLOOR, limit]`. The breaker
/// opens after five failures in a row; then nothing is sent for a growing, jittered time of at most five minutes, and
/// then exactly one probe. All instants are milliseconds of a clock that does not step back.
#[derive(Clone, Debug)]
pub struct Pace {
    limit: f64,
    rate: f64,
    /// Requests that may be sent at once; grows with the rate, up to a minute's worth.
    tokens: f64,
    counted_at: Option<Millis>,
    /// When the rate was last changed or found right.
    changed_at: Option<Millis>,
    /// Counts the steps of storms: what was sent before the last one tells nothing new.
    era: u64,
    /// Failures in a row.
    failures: u32,
    /// Steps of the present storm; each rests longer than the one before.
    steps: u32,
    rest_until: Millis,
    opened_at: Option<Millis>,
    tickets: u64,
    probe: Option<u64>,
}

/// The right to send one request; [`Pace::tell`] or [`Pace::abandon`] gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    number: u64,
    era: u64,
}

/// Whether the next request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Now.
    Go(Ticket),
    /// Ask again after so many milliseconds (at least 1), or when something was told.
    Wait(Millis),
    /// Ask again when something was told: the one probe is under way.
    Probing,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// What was asked for.
    Page,
    /// Another answer of a working API: a refusal, a page that is too large.
    Answer,
    /// The API asks for patience, for at least so many milliseconds where it says how long.
    Limited(Option<Millis>),
    /// A 5xx, a timeout, no connection, a damaged body; with what the API asked for, as above.
    Failed(Option<Millis>),
}

/// What an outcome did to the breaker, for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It opened, or the probe failed and it opened again.
    Opened,
    /// It closed.
    Closed,
}

impl Pace {
    /// A pace at its full `limit` of requests a minute (zero counts as one), with a minute's worth to spend at once.
    pub fn new(limit: u32) -> Self {
        let limit = f64::from(limit.max(1));
        Self {
            limit,
            rate: limit,
            tokens: limit,
            counted_at: None,
            changed_at: None,
            era: 0,
            failures: 0,
            steps: 0,
            rest_until: Millis::MIN,
            opened_at: None,
            tickets: 0,
            probe: None,
        }
    }

    /// The learned rate, in requests a minute.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The configured rate, in requests a minute.
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// Since when the breaker is open; `None` while it is closed.
    pub fn opened_at(&self) -> Option<Millis> {
        self.opened_at
    }

    /// The earliest instant at which a request can be sent, as far as that is known.
    pub fn next_at(&self, now: Millis) -> Millis {
        let token = if self.is_open() { 0 } else { self.token_wait(self.tokens_at(now)) };
        self.rest_until.max(now.saturating_add(token))
    }

    /// Asks for the right to send a request.
    pub fn ask(&mut self, now: Millis) -> Gate {
        let rest = self.rest_until.saturating_sub(now);
        if rest > 0 {
            return Gate::Wait(rest);
        }
        self.tokens = self.tokens_at(now);
        self.counted_at = Some(now);
        if self.is_open() {
            if self.probe.is_some() {
                return Gate::Probing;
            }
            // The rests between probes are longer than any rate would ask for: a probe needs no token.
            self.tokens = (self.tokens - 1.0).max(0.0);
            let ticket = self.ticket();
            self.probe = Some(ticket.number);
            return Gate::Go(ticket);
        }
        match self.token_wait(self.tokens) {
            0 => {
                self.tokens -= 1.0;
                Gate::Go(self.ticket())
            }
            wait => Gate::Wait(wait),
        }
    }

    /// Takes note of what came of a request. `jitter` is drawn evenly from `[0, 1)`.
    pub fn tell(&mut self, ticket: Ticket, told: Told, now: Millis, jitter: f64) -> Option<Turn> {
        let is_probe = self.probe == Some(ticket.number);
        if is_probe {
            self.probe = None;
        }
        if self.is_open() && !is_probe {
            return None;
        }
        let is_fresh = ticket.era == self.era;
        match told {
            Told::Page | Told::Answer => {
                if told == Told::Page && is_fresh {
                    self.climb(now);
                }
                self.failures = 0;
                // Not at once: where every second answer is a refusal, rests must not begin anew with every first.
                self.steps /= 2;
                self.opened_at.take().map(|_| Turn::Closed)
            }
            Told::Limited(asked) => {
                self.fail();
                if is_fresh {
                    self.rate = (self.rate / 2.0).max(FLOOR.min(self.limit));
                    self.tokens = 0.0;
                    (self.counted_at, self.changed_at) = (Some(now), Some(now));
                    self.step(now, jitter, asked);
                } else if let Some(asked) = asked {
                    self.rest_until =
                        self.rest_until.max(now.saturating_add(Backoff::REQUEST.wait(1, 0.0, Some(asked))));
                }
                self.opens(now, is_probe)
            }
            Told::Failed(asked) => {
                self.fail();
                let turn = self.opens(now, is_probe);
                if turn.is_some() && is_fresh {
                    self.step(now, jitter, asked);
                }
                turn
            }
        }
    }

    /// Gives a ticket back whose request was never answered nor failed: it was called off.
    pub fn abandon(&mut self, ticket: Ticket) {
        if self.probe == Some(ticket.number) {
            self.probe = None;
        }
    }

    /// What is worth remembering across a restart: the learned rate, the limit it was learned under, whether the breaker
    /// is open. `12.5/60`, `0.5/60 open`.
    pub fn to_text(&self) -> String {
        let open = if self.is_open() { " open" } else { "" };
        format!("{:.3}/{}{open}", self.rate, self.limit)
    }

    /// Goes on from what [`Pace::to_text`] wrote; anything else is ignored. A rate that had reached its limit starts at
    /// the present one. With an open breaker the first request is a probe.
    pub fn recall(&mut self, text: &str) {
        let Some(known) = Known::read(text) else { return };
        let learned = if known.rate >= known.limit { self.limit } else { known.rate };
        self.rate = learned.clamp(FLOOR.min(self.limit), self.limit);
        self.tokens = self.tokens.min(self.rate.max(1.0));
        if known.is_open {
            self.failures = OPENS_AFTER;
        }
    }

    /// Whether what [`Pace::to_text`] wrote some time ago should be written anew: the rate has changed by more than a
    /// tenth, or the breaker has turned.
    pub fn is_news(&self, written: Option<&str>) -> bool {
        let untouched = Known { rate: self.limit, limit: self.limit, is_open: false };
        let known = written.and_then(Known::read).unwrap_or(untouched);
        (self.rate - known.rate).abs() > NEWS * known.rate || self.is_open() != known.is_open
    }

    fn is_open(&self) -> bool {
        self.failures >= OPENS_AFTER
    }

    fn fail(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// After a failure: whether the breaker has just opened, or opens again because the probe failed.
    fn opens(&mut self, now: Millis, is_probe: bool) -> Option<Turn> {
        if !self.is_open() {
            return None;
        }
        self.opened_at.get_or_insert(now);
        (is_probe || self.failures == OPENS_AFTER).then_some(Turn::Opened)
    }

    fn step(&mut self, now: Millis, jitter: f64, asked: Option<Millis>) {
        self.era += 1;
        self.steps = self.steps.saturating_add(1);
        self.rest_until = self.rest_until.max(now.saturating_add(Backoff::REQUEST.wait(self.steps, jitter, asked)));
    }

    /// Additive increase by the time since the last change: at most a minute counts, so that a rare request is no proof
    /// for the hours before it; and at most doubling, so that the first success after a storm does not begin the next.
    fn climb(&mut self, now: Millis) {
        let since = self.changed_at.map_or(0, |at| now.saturating_sub(at)).clamp(0, MINUTE);
        let gained = self.limit / CLIMB_MINUTES * minutes(since);
        self.rate = (self.rate + gained).min(2.0 * self.rate).min(self.limit);
        self.changed_at = Some(now);
    }

    fn tokens_at(&self, now: Millis) -> f64 {
        let since = self.counted_at.map_or(0, |at| now.saturating_sub(at)).max(0);
        (self.tokens + self.rate * minutes(since)).min(self.rate.max(1.0))
    }

    fn token_wait(&self, tokens: f64) -> Millis {
        let missing = 1.0 - tokens;
        if missing <= 0.0 {
            return 0;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "at most two minutes in ms")]
        let wait = (missing * MINUTE as f64 / self.rate).ceil() as Millis;
        wait.max(1)
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket { number: self.tickets, era: self.era }
    }
}

#[expect(clippy::cast_precision_loss, reason = "spans of a process's life in ms, far below 2^52")]
fn minutes(span: Millis) -> f64 {
    span as f64 / MINUTE as f64
}

/// What was remembered.
struct Known {
    rate: f64,
    limit: f64,
    is_open: bool,
}

impl Known {
    fn read(text: &str) -> Option<Self> {
        let (rate, rest) = text.split_once('/')?;
        let (limit, is_open) = rest.strip_suffix(" open").map_or((rest, false), |limit| (limit, true));
        let number = |text: &str| text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
        Some(Self { rate: number(rate)?, limit: number(limit)?, is_open })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::retry::RETRY_AFTER_CAP;
    use crate::core::time::{DAY, HOUR, SECOND};
    use proptest::prelude::*;

    fn go(pace: &mut Pace, now: Millis) -> Ticket {
        match pace.ask(now) {
            Gate::Go(ticket) => ticket,
            other => panic!("{other:?} at {now}"),
        }
    }

    /// Sends as soon as allowed, from `now` on.
    fn when_allowed(pace: &mut Pace, now: &mut Millis) -> Ticket {
        loop {
            match pace.ask(*now) {
                Gate::Go(ticket) => return ticket,
                Gate::Wait(wait) => *now += wait,
                Gate::Probing => panic!("nobody else asks"),
            }
        }
    }

    fn storm(pace: &mut Pace, now: &mut Millis, requests: u32) {
        for _ in 0..requests {
            let ticket = when_allowed(pace, now);
            pace.tell(ticket, Told::Limited(None), *now, 0.5);
        }
    }

    #[test]
    fn a_full_pace_gives_a_minutes_worth_and_then_its_rate() {
        let mut pace = Pace::new(60);
        for _ in 0..60 {
            go(&mut pace, 0);
        }
        assert_eq!(pace.ask(0), Gate::Wait(1_000));
        go(&mut pace, 1_000);
        assert_eq!(pace.ask(1_500), Gate::Wait(500));
    }

    #[test]
    fn refusals_of_what_was_under_way_together_halve_once() {
        let mut pace = Pace::new(60);
        let tickets: Vec<Ticket> = (0..4).map(|_| go(&mut pace, 0)).collect();
        for ticket in tickets {
            pace.tell(ticket, Told::Limited(None), 100, 0.0);
        }
        assert!((pace.rate() - 30.0).abs() < 1e-9, "{}", pace.rate());
        let mut now = 100;
        storm(&mut pace, &mut now, 1);
        assert!((pace.rate() - 15.0).abs() < 1e-9, "{}", pace.rate());
    }

    #[test]
    fn five_failures_in_a_row_open_and_one_probe_decides() {
        let mut pace = Pace::new(60);
        let mut turns = Vec::new();
        let early = go(&mut pace, 0);
        for _ in 0..5 {
            let ticket = go(&mut pace, 0);
            turns.push(pace.tell(ticket, Told::Failed(None), 0, 0.0));
        }
        assert_eq!(turns, [None, None, None, None, Some(Turn::Opened)]);
        let Gate::Wait(rest) = pace.ask(0) else { panic!("{:?}", pace.ask(0)) };
        // A straggler neither closes it nor lengthens the rest.
        assert_eq!(pace.tell(early, Told::Page, 10, 0.0), None);
        assert_eq!((pace.ask(0), pace.opened_at()), (Gate::Wait(rest), Some(0)));
        let probe = go(&mut pace, rest);
        assert_eq!(pace.ask(rest), Gate::Probing);
        assert_eq!(pace.tell(probe, Told::Failed(None), rest + 5, 0.0), Some(Turn::Opened));
        let Gate::Wait(longer) = pace.ask(rest + 5) else { panic!("{:?}", pace.ask(rest + 5)) };
        assert!(longer > rest, "{longer} after {rest}");
        let probe = go(&mut pace, rest + 5 + longer);
        assert_eq!(pace.tell(probe, Told::Page, rest + longer + 6, 0.0), Some(Turn::Closed));
        assert_eq!(pace.opened_at(), None);
        for _ in 0..3 {
            go(&mut pace, rest + longer + 6);
        }
    }

    #[test]
    fn a_refusal_is_the_answer_of_a_working_api() {
        let mut pace = Pace::new(60);
        for told in [Told::Failed(None), Told::Failed(None), Told::Answer].repeat(20) {
            let ticket = go(&mut pace, 0);
            assert_eq!(pace.tell(ticket, told, 0, 0.5), None);
        }
    }

    #[test]
    fn a_probe_that_was_called_off_is_followed_by_another() {
        let mut pace = Pace::new(60);
        pace.recall("3/60 open");
        let probe = go(&mut pace, 0);
        assert_eq!(pace.ask(0), Gate::Probing);
        pace.abandon(probe);
        let probe = go(&mut pace, 0);
        assert_eq!(pace.tell(probe, Told::Page, 0, 0.5), None, "it was not opened in this life");
        go(&mut pace, 0);
    }

    #[test]
    fn what_the_api_asks_for_is_granted_within_the_cap() {
        for (asked, granted) in [(20 * SECOND, 20 * SECOND), (DAY, RETRY_AFTER_CAP)] {
            let mut pace = Pace::new(60);
            let ticket = go(&mut pace, 0);
            pace.tell(ticket, Told::Limited(Some(asked)), 0, 0.5);
            assert_eq!(pace.ask(0), Gate::Wait(granted));
        }
    }

    #[test]
    fn an_idle_stream_does_not_jump_to_the_full_rate() {
        let mut pace = Pace::new(60);
        let mut now = 0;
        storm(&mut pace, &mut now, 3);
        assert!((pace.rate() - 7.5).abs() < 1e-9);
        now += 12 * HOUR;
        let ticket = go(&mut pace, now);
        pace.tell(ticket, Told::Page, now, 0.5);
        assert!((pace.rate() - 13.5).abs() < 1e-9, "{}", pace.rate());
    }

    #[test]
    fn after_a_storm_the_full_rate_is_back_in_minutes() {
        for limit in [1, 10, 60, 2_400] {
            let mut pace = Pace::new(limit);
            let mut now = 0;
            storm(&mut pace, &mut now, 400);
            assert!((pace.rate() - FLOOR).abs() < 1e-9);
            let over = now;
            while pace.rate() < f64::from(limit) {
                let ticket = when_allowed(&mut pace, &mut now);
                pace.tell(ticket, Told::Page, now, 0.5);
            }
            assert!(now - over < 25 * MINUTE, "limit {limit}: {} s", (now - over) / 1_000);
        }
    }

    #[test]
    fn what_is_remembered_is_recalled() {
        let after = |limit: u32, text: &str| {
            let mut pace = Pace::new(limit);
            pace.recall(text);
            pace.to_text()
        };
        assert_eq!(after(60, "12.5/60"), "12.500/60");
        assert_eq!(after(60, "0.5/60 open"), "0.500/60 open");
        assert_eq!(after(60, "120/240"), "60.000/60");
        assert_eq!(
            after(240, "60.000/60"),
            "240.000/240",
            "what reached its limit has learned nothing of a higher one"
        );
        for nonsense in ["", "x", "1/", "/1", "NaN/60", "-3/60", "inf/60", "0/60", "1e999/60", "12/60 ajar"] {
            assert_eq!(after(60, nonsense), "60.000/60", "{nonsense}");
        }
    }

    #[test]
    fn only_what_changed_much_is_news() {
        let mut pace = Pace::new(60);
        assert!(!pace.is_news(None) && !pace.is_news(Some("60.000/60")) && pace.is_news(Some("50/60")));
        pace.recall("30/60");
        assert!(pace.is_news(None) && !pace.is_news(Some("28/60")) && pace.is_news(Some("30/60 open")));
    }

    fn told() -> impl Strategy<Value = Told> {
        let asked = proptest::option::of(any::<Millis>());
        prop_oneof![
            3 => Just(Told::Page),
            1 => Just(Told::Answer),
            3 => asked.clone().prop_map(Told::Limited),
            3 => asked.prop_map(Told::Failed),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_rate_keeps_its_bounds_and_an_open_breaker_lets_one_out(
            limit in 1_u32..3_000,
            events in proptest::collection::vec((0_i64..90_000, any::<proptest::sample::Index>(), told(), 0_u8..4, 0.0..1.0_f64), 1..300),
        ) {
            let (mut pace, mut now) = (Pace::new(limit), 0);
            let mut under_way: Vec<Ticket> = Vec::new();
            for (gap, which, told, choice, jitter) in events {
                now += gap;
                let was_open = pace.is_open();
                match pace.ask(now) {
                    Gate::Go(ticket) => {
                        prop_assert!(!was_open || under_way.iter().all(|other| pace.probe != Some(other.number)));
                        under_way.push(ticket);
                        if was_open {
                            prop_assert_eq!(pace.ask(now), Gate::Probing);
                        }
                    }
                    Gate::Wait(wait) => prop_assert!((1..=RETRY_AFTER_CAP).contains(&wait), "{}", wait),
                    Gate::Probing => prop_assert!(was_open && under_way.iter().any(|t| pace.probe == Some(t.number))),
                }
                if !under_way.is_empty() && choice > 0 {
                    let ticket = under_way.swap_remove(which.index(under_way.len()));
                    if choice == 1 {
                        pace.abandon(ticket);
                    } else {
                        pace.tell(ticket, told, now, jitter);
                    }
                }
                let bounds = FLOOR.min(pace.limit)..=f64::from(limit);
                prop_assert!(bounds.contains(&pace.rate()), "{}", pace.rate());
                prop_assert!(pace.tokens >= 0.0 && pace.tokens <= f64::from(limit));
                prop_assert_eq!(pace.opened_at.is_some(), pace.is_open());
            }
        }

        #[test]
        fn over_any_minute_the_limit_holds(gaps in proptest::collection::vec(0_i64..5_000, 1..300), limit in 1_u32..200) {
            let (mut pace, mut now) = (Pace::new(limit), 0);
            let mut sent: Vec<Millis> = Vec::new();
            for gap in gaps {
                now += gap;
                let ticket = when_allowed(&mut pace, &mut now);
                pace.tell(ticket, Told::Page, now, 0.5);
                sent.push(now);
            }
            for (i, start) in sent.iter().enumerate() {
                let in_minute = sent[i..].iter().filter(|at| **at - start < MINUTE).count();
                prop_assert!(in_minute <= 2 * limit as usize + 1);
            }
        }

        /// Any mixture of refusals and failures, any number of askers, answers that take any time.
        #[test]
        fn a_day_of_storm_is_two_requests_a_minute_at_most(
            limit in 1_u32..3_000, under_way_max in 1_usize..32, seed: u64, limited_share in 0_u32..=100,
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut pace, mut now, mut sent) = (Pace::new(limit), 0, 0_u32);
            let mut under_way: Vec<(Millis, Ticket)> = Vec::new();
            while now < DAY {
                let next_answer = under_way.iter().map(|(at, _)| *at).min();
                let gate = if under_way.len() < under_way_max { pace.ask(now) } else { Gate::Probing };
                now = match (gate, next_answer) {
                    (Gate::Go(ticket), _) => {
                        sent += 1;
                        under_way.push((now + random.i64(5..60_000), ticket));
                        continue;
                    }
                    (Gate::Wait(wait), answer) => (now + wait).min(answer.unwrap_or(Millis::MAX)),
                    (Gate::Probing, answer) => answer.unwrap(),
                };
                while let Some(at) = under_way.iter().position(|(at, _)| *at <= now) {
                    let (_, ticket) = under_way.swap_remove(at);
                    let is_limited = random.u32(0..100) < limited_share;
                    let told = if is_limited { Told::Limited(None) } else { Told::Failed(None) };
                    pace.tell(ticket, told, now, random.f64());
                }
            }
            prop_assert!(sent <= 2 * 24 * 60, "{} requests", sent);
        }
    }
}
