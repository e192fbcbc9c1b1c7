//! The events of a simulated account: generated once from a seed, sorted as the API shows them, with all that will befall them.
//! It exists as the ground truth that tests and audits compare a capture with.

use super::cast::{CAMPAIGNS, Rhythm};
use super::chance::{Chance, hashed, scaled};
use super::kind::{EventId, Kind};
use super::life::{Fate, Step, unfold};
use crate::core::time::{DAY, HOUR, MINUTE, Millis, SECOND, UtcMillis};
use crate::core::window::Window;

/// How many events to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// This many messages, with as many events as they have inside the range.
    Messages(u32),
    /// Exactly this many events.
    Events(u32),
}

/// What a population is like. Shares are fractions, 0–1.
#[derive(Clone, Debug)]
pub struct PopulationOptions {
    /// The same seed and options give the same events, byte for byte.
    pub seed: u64,
    /// When events happen. At least one whole second must lie inside, else there are none.
    pub window: Window,
    /// Mail follows the hours and days; with a time here, as if the window began at it: the same mail at any hour.
    pub as_if_from: Option<UtcMillis>,
    /// How many.
    pub size: Size,
    /// Pad events to about this many bytes of JSON, through their `rcpt_meta`; for benchmarks. Longer ones stay as
    /// they are: without padding the mean is about 1,200 bytes.
    pub bytes_each: Option<u32>,
    /// Every event becomes visible at most this long after it happened: "generally available within 1 minute" `[D]`.
    pub visible_within: Millis,
    /// Share of events that come later than that.
    pub late_share: f64,
    /// The longest delay of a late event; delays reach up to it with a long tail.
    pub late_max: Millis,
    /// Share of events of a type that no document names.
    pub unknown_share: f64,
    /// Share of events without `event_id`, besides `sms_status`, which never has one `[D]`.
    pub nameless_share: f64,
    /// Share of events without an id that exist twice, byte for byte alike.
    pub twin_share: f64,
    /// Share of ids that are UUIDs `[D]`.
    pub uuid_share: f64,
    /// Share of events that carry the id of an earlier event of their message, of another type.
    pub reused_id_share: f64,
    /// Share of events that disappear again: the Data Privacy API erases recipients on request `[D]`.
    pub erased_share: f64,
    /// Share of the events with an id whose body changes once after it became visible: one field has another value from
    /// then on. Whether the vendor ever does that is not documented `[A]`.
    pub changed_share: f64,
    /// Share of events that are visible before the time they carry: the vendor's clocks disagree `[A]`.
    pub future_share: f64,
    /// Share of optional fields that are missing.
    pub dropout_share: f64,
    /// Single seconds in which very much is injected at once.
    pub bursts: u32,
    /// Events in each of these seconds, from the least to the most.
    pub burst_events: (u32, u32),
}

impl PopulationOptions {
    /// A well-behaved account: what the documents describe.
    pub fn new(seed: u64, window: Window, size: Size) -> Self {
        Self {
            seed,
            window,
            as_if_from: None,
            size,
            bytes_each: None,
            visible_within: MINUTE,
            late_share: 0.0,
            late_max: 20 * MINUTE,
            unknown_share: 0.0,
            nameless_share: 0.0,
            twin_share: 0.0,
            uuid_share: 0.05,
            reused_id_share: 0.0,
            erased_share: 0.0,
            changed_share: 0.0,
            future_share: 0.0,
            dropout_share: 0.02,
            bursts: 0,
            burst_events: (0, 0),
        }
    }

    /// The same account with every trait that makes capturing hard, all at once.
    pub fn adverse(seed: u64, window: Window, size: Size) -> Self {
        Self {
            late_share: 0.02,
            late_max: 9 * DAY,
            unknown_share: 0.01,
            nameless_share: 0.01,
            twin_share: 0.2,
            uuid_share: 0.2,
            reused_id_share: 0.005,
            erased_share: 0.002,
            changed_share: 0.01,
            future_share: 0.002,
            dropout_share: 0.1,
            ..Self::new(seed, window, size)
        }
    }
}

/// A message: what its events have in common. Everything else about it is derived from `seed`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) seed: u64,
    pub(super) injected: UtcMillis,
    pub(super) transmission: u64,
    pub(super) campaign: u8,
    /// `false`: engagement on mail older than 60 days comes without what its sending told `[D]`.
    pub(super) enriched: bool,
}

/// One event, before it is written in a dialect.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// When it happened: a whole second `[L]`.
    pub at: UtcMillis,
    /// From when on the API shows it.
    pub visible_at: UtcMillis,
    /// When it was erased; `None` for most.
    pub erased_at: Option<UtcMillis>,
    /// From when on it has its second body; `None` for most, and for events without an id: those become other events.
    pub changed_at: Option<UtcMillis>,
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub kind: Kind,
    pub(super) message: u32,
    pub(super) seed: u64,
    pub(super) answer: u8,
    pub(super) retries: u8,
}

impl Event {
    /// Whether the API shows it at `now`, retention apart.
    pub fn is_visible(&self, now: UtcMillis) -> bool {
        self.visible_at <= now && self.erased_at.is_none_or(|gone| now < gone)
    }

    /// Whether the API shows its second body at `now`.
    pub fn is_changed(&self, now: UtcMillis) -> bool {
        self.changed_at.is_some_and(|changed| changed <= now)
    }

    /// The order in which the API shows events, from the last to the first.
    pub(super) fn rank(&self) -> (UtcMillis, EventId) {
        (self.at, self.id)
    }
}

/// All events of an account.
#[derive(Debug)]
pub struct Population {
    pub(super) options: PopulationOptions,
    pub(super) messages: Vec<Message>,
    events: Vec<Event>,
}

impl Population {
    /// Generates the population of `options`.
    pub fn generate(options: PopulationOptions) -> Self {
        let mut chance = Chance::new(options.seed);
        let as_if_from = options.as_if_from.unwrap_or(options.window.from());
        let (messages, mut events) = match Rhythm::new(&mut chance, options.window, as_if_from) {
            Some(rhythm) => Birth::new(&options, &mut chance).all(&rhythm),
            None => (Vec::new(), Vec::new()),
        };
        events.sort_unstable_by_key(|event| std::cmp::Reverse(event.rank()));
        Self { options, messages, events }
    }

    /// Every event, visible or not: descending by time, then by id.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The places of the events with `from ≤ at < to`.
    pub(super) fn places(&self, from: UtcMillis, to: UtcMillis) -> std::ops::Range<usize> {
        let first = self.events.partition_point(|event| event.at >= to);
        let last = self.events.partition_point(|event| event.at >= from);
        first..last.max(first)
    }

    /// The place of the first event behind `(at, id)` in the order of the API.
    pub(super) fn place_after(&self, at: UtcMillis, id: EventId) -> usize {
        self.events.partition_point(|event| event.rank() >= (at, id))
    }
}

/// Separates what decides about an event's change from everything else that is derived from its seed.
const CHANGE: u64 = 0xC4A6;

/// Generation under way.
struct Birth<'a> {
    options: &'a PopulationOptions,
    chance: &'a mut Chance,
    messages: Vec<Message>,
    events: Vec<Event>,
    last_id: u64,
}

impl<'a> Birth<'a> {
    fn new(options: &'a PopulationOptions, chance: &'a mut Chance) -> Self {
        Self { options, chance, messages: Vec::new(), events: Vec::new(), last_id: 10_u64.pow(16) }
    }

    fn all(mut self, rhythm: &Rhythm) -> (Vec<Message>, Vec<Event>) {
        self.burst(rhythm);
        let mut parade = Fate::PARADE.iter();
        let mut steps = Vec::new();
        // Every life begins inside the window, so each turn adds an event and this ends.
        while !self.is_full() {
            let fate = parade.next().copied().unwrap_or_else(|| Fate::draw(self.chance));
            let (campaign, start, burst) = rhythm.next(self.chance);
            self.send(fate, campaign, start, burst);
            steps.clear();
            unfold(self.chance, fate, start, &mut steps);
            let first = self.events.len();
            for step in &steps {
                if self.options.window.contains(step.at) {
                    self.happen(*step, first);
                }
            }
        }
        if let Size::Events(count) = self.options.size {
            self.events.truncate(count as usize);
        }
        (self.messages, self.events)
    }

    /// Injections of one second, more of them than pages hold.
    fn burst(&mut self, rhythm: &Rhythm) {
        let (least, most) = self.options.burst_events;
        for _ in 0..self.options.bursts {
            let (_, at, burst) = rhythm.next(self.chance);
            let events = u64::from(least) + self.chance.below(u64::from(most.saturating_sub(least)) + 1);
            for _ in 0..events {
                self.send(Fate::Delivered, 0, at, burst);
                let first = self.events.len();
                self.happen(Step { at, kind: Kind::Injection, answer: 0, retries: 0 }, first);
            }
        }
    }

    fn is_full(&self) -> bool {
        match self.options.size {
            Size::Messages(count) => self.messages.len() >= count as usize,
            Size::Events(count) => self.events.len() >= count as usize,
        }
    }

    fn send(&mut self, fate: Fate, campaign: usize, start: UtcMillis, burst: u64) {
        let seed = self.chance.number();
        let old = fate == Fate::Revisited;
        let injected = if old { start.plus(-self.chance.millis(61 * DAY, 300 * DAY)).floor(SECOND) } else { start };
        // One transmission carries a whole burst of a campaign; single mails have their own.
        let sent_as =
            if CAMPAIGNS[campaign].bulk { hashed(self.options.seed, (campaign as u64) << 32 | burst) } else { seed };
        let transmission = 10_u64.pow(16) + scaled(sent_as, 9 * 10_u64.pow(16));
        // There are 12 campaigns.
        let campaign = u8::try_from(campaign).unwrap_or(0);
        self.messages.push(Message { seed, injected, transmission, campaign, enriched: !old });
    }

    /// Records a step of the last message, whose events begin at place `first`.
    fn happen(&mut self, step: Step, first: usize) {
        let kind = if self.chance.hit(self.options.unknown_share) { Kind::Undocumented } else { step.kind };
        let row = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        let id = self.name(kind, step, row, first);
        let mut event = Event {
            at: step.at,
            visible_at: self.visible_at(step.at),
            erased_at: self.chance.hit(self.options.erased_share).then(|| {
                let after = self.chance.tail(MINUTE, 5 * DAY);
                step.at.plus(after)
            }),
            changed_at: None,
            id,
            kind,
            message: u32::try_from(self.messages.len() - 1).unwrap_or(u32::MAX),
            seed: self.chance.number(),
            answer: step.answer,
            retries: step.retries,
        };
        event.changed_at = self.changed_at(&event);
        self.events.push(event);
        if matches!(id, EventId::Nameless(_)) && self.chance.hit(self.options.twin_share) {
            let visible_at = self.visible_at(step.at);
            self.events.push(Event { id: EventId::Nameless(row + 1), visible_at, ..event });
        }
    }

    fn name(&mut self, kind: Kind, step: Step, row: u32, first: usize) -> EventId {
        if kind == Kind::SmsStatus || self.chance.hit(self.options.nameless_share) {
            return EventId::Nameless(row);
        }
        if self.chance.hit(self.options.reused_id_share) {
            // Never within one second: there a keyset cursor could not tell the two apart.
            let named = |earlier: &&Event| !matches!(earlier.id, EventId::Nameless(_));
            let fits = |earlier: &&Event| earlier.at != step.at && earlier.kind != kind;
            if let Some(earlier) = self.events[first..].last().filter(named).filter(fits) {
                return earlier.id;
            }
        }
        if self.chance.hit(self.options.uuid_share) {
            let (high, low) = (self.chance.number(), self.chance.number());
            // Version and variant bits of a random UUID.
            let bits = (u128::from(high) << 64 | u128::from(low)) & !(0xF << 76 | 0x3 << 62);
            return EventId::Uuid(bits | 0x4 << 76 | 0x2 << 62);
        }
        // 17 digits, beyond 2^53; neighbours that a float would merge are common.
        let step = if self.chance.hit(0.1) { 1 } else { self.chance.below(1 << 33) + 1 };
        self.last_id += step;
        EventId::Decimal(self.last_id)
    }

    /// Hashed from the event instead of drawn, so that the share changes nothing else about a population.
    fn changed_at(&self, event: &Event) -> Option<UtcMillis> {
        let mut chance = Chance::new(hashed(event.seed, CHANGE));
        let changes = chance.hit(self.options.changed_share) && !matches!(event.id, EventId::Nameless(_));
        changes.then(|| event.visible_at.plus(chance.tail(MINUTE, 2 * DAY)))
    }

    fn visible_at(&mut self, at: UtcMillis) -> UtcMillis {
        if self.chance.hit(self.options.future_share) {
            return at.plus(-self.chance.millis(SECOND, HOUR));
        }
        if self.chance.hit(self.options.late_share) {
            return at.plus(self.chance.tail(self.options.visible_within.max(SECOND), self.options.late_max));
        }
        at.plus(self.chance.millis(0, self.options.visible_within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn window() -> Window {
        Window::new(UtcMillis::from_secs(1_780_000_000), UtcMillis::from_secs(1_780_000_000 + 10 * 86_400)).unwrap()
    }

    #[test]
    fn one_seed_is_one_population() {
        let make = |seed| {
            let events = Population::generate(PopulationOptions::adverse(seed, window(), Size::Events(3_000)));
            format!("{:?}", events.events())
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }

    #[test]
    fn even_a_small_population_has_all_documented_types_and_the_exact_size() {
        let population = Population::generate(PopulationOptions::new(4, window(), Size::Events(300)));
        assert_eq!(population.events().len(), 300);
        let kinds: BTreeSet<_> = population.events().iter().map(|event| event.kind).collect();
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), Kind::DOCUMENTED.to_vec());
    }

    #[test]
    fn ids_are_unique_and_beyond_a_float() {
        let population = Population::generate(PopulationOptions::new(4, window(), Size::Messages(20_000)));
        let ids: BTreeSet<_> = population.events().iter().map(|event| event.id).collect();
        assert_eq!(ids.len(), population.events().len());
        let decimals: Vec<u64> =
            ids.iter().filter_map(|id| if let EventId::Decimal(id) = id { Some(*id) } else { None }).collect();
        assert!(decimals.iter().all(|id| *id > 1 << 53 && (17..=18).contains(&id.to_string().len())));
        let floats: BTreeSet<_> = decimals.iter().map(|id| (id >> 4) << 4).collect();
        assert!(floats.len() < decimals.len(), "some ids differ by less than a float can tell");
    }

    #[test]
    fn adverse_traits_occur() {
        let population = Population::generate(PopulationOptions::adverse(9, window(), Size::Events(50_000)));
        let events = population.events();
        let count = |test: &dyn Fn(&Event) -> bool| events.iter().filter(|event| test(event)).count();
        assert!(count(&|e| e.visible_at.since(e.at) > HOUR) > 100, "late");
        assert!(count(&|e| e.visible_at < e.at) > 20, "ahead of their time");
        assert!(count(&|e| e.erased_at.is_some()) > 20, "erased");
        assert!(count(&|e| e.changed_at.is_some_and(|changed| changed > e.visible_at)) > 200, "changed");
        assert!(!events.iter().any(|e| e.changed_at.is_some() && matches!(e.id, EventId::Nameless(_))));
        assert!(count(&|e| e.kind == Kind::Undocumented) > 200, "undocumented");
        assert!(count(&|e| matches!(e.id, EventId::Nameless(_)) && e.kind != Kind::SmsStatus) > 200, "nameless");
        let mut by_id = BTreeMap::<_, BTreeSet<_>>::new();
        for event in events {
            by_id.entry(event.id).or_default().insert(event.kind);
        }
        assert!(by_id.values().filter(|kinds| kinds.len() == 2).count() > 20, "one id, two types");
        let ties = events.windows(2).filter(|pair| pair[0].at == pair[1].at).count();
        assert!(ties > 1_000, "{ties} ties");
    }

    #[test]
    fn bursts_fill_single_seconds_and_changes_leave_everything_else_as_it_was() {
        let plain = PopulationOptions::adverse(9, window(), Size::Events(5_000));
        let changing = PopulationOptions { changed_share: 0.1, ..plain.clone() };
        let (plain, changing) = (Population::generate(plain), Population::generate(changing));
        let place = |event: &Event| (event.at, event.visible_at, event.id, event.seed);
        assert!(plain.events().iter().map(place).eq(changing.events().iter().map(place)));
        let changed = changing.events().iter().filter(|event| event.changed_at.is_some()).count();
        assert!((300..600).contains(&changed), "{changed}");
        let bursting = PopulationOptions { bursts: 3, burst_events: (60, 260), ..plain.options };
        let bursting = Population::generate(bursting);
        assert_eq!(bursting.events().len(), 5_000);
        let dense = bursting.events().chunk_by(|a, b| a.at == b.at).filter(|second| second.len() >= 60).count();
        assert_eq!(dense, 3);
    }

    #[test]
    fn the_same_mail_at_any_hour_where_that_is_asked_for() {
        let mail = |hours: i64| {
            let window = Window::new(window().from().plus(hours * HOUR), window().to().plus(hours * HOUR)).unwrap();
            let as_if_from = Some(UtcMillis::from_secs(6 * 3_600));
            let options = PopulationOptions { as_if_from, ..PopulationOptions::adverse(3, window, Size::Events(500)) };
            let population = Population::generate(options);
            let place = |event: &Event| (event.at.since(window.from()), event.visible_at.since(event.at), event.seed);
            population.events().iter().map(place).collect::<Vec<_>>()
        };
        let first = mail(0);
        assert!(first.len() == 500 && (1..24).all(|hours| mail(hours) == first));
    }

    #[test]
    fn order_and_places_agree() {
        let population = Population::generate(PopulationOptions::new(2, window(), Size::Events(5_000)));
        let events = population.events();
        assert!(events.windows(2).all(|pair| pair[0].rank() > pair[1].rank()));
        let (from, to) = (events[4_000].at, events[1_000].at);
        let inside = population.places(from, to);
        assert!(events[inside.clone()].iter().all(|event| from <= event.at && event.at < to));
        assert_eq!(inside.len(), events.iter().filter(|event| from <= event.at && event.at < to).count());
        let middle = &events[2_500];
        assert_eq!(population.place_after(middle.at, middle.id), 2_501);
        assert_eq!(population.place_after(middle.at, EventId::Nameless(0)), {
            events.partition_point(|event| event.at >= middle.at)
        });
    }

    #[test]
    fn no_whole_second_means_no_event() {
        let tiny = Window::new(UtcMillis::from_millis(1_001), UtcMillis::from_millis(1_900)).unwrap();
        assert!(Population::generate(PopulationOptions::new(1, tiny, Size::Events(10))).events().is_empty());
    }
}
