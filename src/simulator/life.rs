//! What happens to a message: a fate is drawn, and it unfolds into events at whole seconds.
//! It exists so that the simulated rows relate to each other as a sender's rows do: a click follows an open follows a
//! delivery, with the same message, recipient and campaign.

use super::cast::{DELAYS, OUT_OF_BAND, POLICY, REFUSALS, RENDERING, SUPPRESSED};
use super::chance::{Chance, weighted};
use super::kind::Kind;
use crate::core::time::{DAY, HOUR, MINUTE, Millis, SECOND, UtcMillis};

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Delivered,
    Engaged,
    Amp,
    Delayed,
    TimedOut,
    Bounced,
    Suppressed,
    BouncedLater,
    Complained,
    ListUnsubscribed,
    LinkUnsubscribed,
    NotGenerated,
    GenerationRejected,
    PolicyRejected,
    Texted,
    /// Mail of long ago, looked at again.
    Revisited,
}

impl Fate {
    /// One of each, in an order that shows every documented type in the first few dozen events.
    pub(super) const PARADE: [Self; 16] = [
        Self::Engaged,
        Self::Delayed,
        Self::Bounced,
        Self::BouncedLater,
        Self::Complained,
        Self::ListUnsubscribed,
        Self::LinkUnsubscribed,
        Self::Amp,
        Self::PolicyRejected,
        Self::NotGenerated,
        Self::GenerationRejected,
        Self::Texted,
        Self::Suppressed,
        Self::TimedOut,
        Self::Revisited,
        Self::Delivered,
    ];

    /// A fate by plausible weights, in ten-thousandths; about 2.5 events a message, as SparkPost itself reckons `[D]`.
    pub(super) fn draw(chance: &mut Chance) -> Self {
        weighted(
            chance.number(),
            &[
                (7_010, Self::Delivered),
                (1_800, Self::Engaged),
                (90, Self::Amp),
                (480, Self::Delayed),
                (40, Self::TimedOut),
                (220, Self::Bounced),
                (80, Self::Suppressed),
                (40, Self::BouncedLater),
                (15, Self::Complained),
                (20, Self::ListUnsubscribed),
                (35, Self::LinkUnsubscribed),
                (20, Self::NotGenerated),
                (15, Self::GenerationRejected),
                (25, Self::PolicyRejected),
                (40, Self::Texted),
                (70, Self::Revisited),
            ],
        )
    }
}

/// One event of a life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) at: UtcMillis,
    pub(super) kind: Kind,
    /// A place in `cast::ANSWERS`; meaningless for kinds without a reason.
    pub(super) answer: u8,
    /// Failed attempts before this event.
    pub(super) retries: u8,
}

/// The steps of one life; the first one is at `start`.
pub(super) struct Life<'a> {
    chance: &'a mut Chance,
    steps: &'a mut Vec<Step>,
    at: UtcMillis,
    retries: u8,
}

/// Appends the steps of a message whose first event is at `start`, earliest first.
pub(super) fn unfold(chance: &mut Chance, fate: Fate, start: UtcMillis, steps: &mut Vec<Step>) {
    Life { chance, steps, at: start, retries: 0 }.unfold(fate);
}

impl Life<'_> {
    fn unfold(&mut self, fate: Fate) {
        match fate {
            Fate::NotGenerated => self.now(Kind::GenerationFailure, RENDERING),
            Fate::GenerationRejected => self.now(Kind::GenerationRejection, SUPPRESSED),
            Fate::PolicyRejected => self.now(Kind::PolicyRejection, POLICY),
            Fate::Texted => self.now(Kind::SmsStatus, POLICY),
            Fate::Revisited => self.now(Kind::Open, 0),
            Fate::Suppressed => {
                self.now(Kind::Injection, 0);
                self.later(0, SECOND, Kind::Bounce, SUPPRESSED);
            }
            Fate::Bounced => {
                self.now(Kind::Injection, 0);
                let answer = weighted(self.chance.number(), &REFUSALS);
                self.later(SECOND, 20 * SECOND, Kind::Bounce, answer);
            }
            Fate::Delayed => {
                self.put_off();
                self.later(MINUTE, HOUR, Kind::Delivery, 0);
                if self.chance.hit(0.2) {
                    self.engage(Kind::InitialOpen, Kind::Open, Kind::Click);
                }
            }
            Fate::TimedOut => {
                let last = self.put_off();
                // The class of a timeout is that of the last 4xx [L].
                self.later(6 * HOUR, DAY, Kind::Bounce, last);
            }
            _ => self.arrive(fate),
        }
    }

    /// The fates that begin with a delivery at the first attempt.
    fn arrive(&mut self, fate: Fate) {
        self.now(Kind::Injection, 0);
        self.later(0, 8 * SECOND, Kind::Delivery, 0);
        match fate {
            Fate::Engaged => self.engage(Kind::InitialOpen, Kind::Open, Kind::Click),
            Fate::Amp => self.engage(Kind::AmpInitialOpen, Kind::AmpOpen, Kind::AmpClick),
            Fate::BouncedLater => {
                let answer = weighted(self.chance.number(), &OUT_OF_BAND);
                self.later(MINUTE, 6 * HOUR, Kind::OutOfBand, answer);
            }
            Fate::Complained => {
                self.later(MINUTE, 12 * HOUR, Kind::InitialOpen, 0);
                self.later(MINUTE, 12 * HOUR, Kind::SpamComplaint, 0);
            }
            Fate::ListUnsubscribed => self.later(MINUTE, 12 * HOUR, Kind::ListUnsubscribe, 0),
            Fate::LinkUnsubscribed => {
                self.later(MINUTE, 12 * HOUR, Kind::InitialOpen, 0);
                // Whether the same hit also counts as a click is not known; here it does [A].
                self.later(SECOND, HOUR, Kind::Click, 0);
                self.later(0, SECOND, Kind::LinkUnsubscribe, 0);
            }
            _ => {}
        }
    }

    /// Injection and one to four delays at growing distances; returns the last answer.
    fn put_off(&mut self) -> u8 {
        self.now(Kind::Injection, 0);
        let mut answer = 0;
        let mut pause = 10 * MINUTE;
        for _ in 0..=self.chance.below(4) {
            answer = weighted(self.chance.number(), &DELAYS);
            self.later(pause, 2 * pause, Kind::Delay, answer);
            self.retries += 1;
            pause *= 2;
        }
        answer
    }

    fn engage(&mut self, initial: Kind, open: Kind, click: Kind) {
        let fetched_at_once = self.chance.hit(0.15);
        let (low, high) = if fetched_at_once { (SECOND, 3 * SECOND) } else { (30 * SECOND, 2 * DAY) };
        self.later(low, high, initial, 0);
        let amp = matches!(click, Kind::AmpClick);
        let again = self.chance.below(3).max(u64::from(amp));
        for _ in 0..again {
            self.later(5 * SECOND, DAY, open, 0);
        }
        if self.chance.hit(0.35) || amp {
            self.later(2 * SECOND, 10 * MINUTE, click, 0);
            // Opens and clicks of one hit often share their second.
            if self.chance.hit(0.3) {
                self.later(0, 0, open, 0);
            }
        }
    }

    fn now(&mut self, kind: Kind, answer: u8) {
        self.steps.push(Step { at: self.at, kind, answer, retries: self.retries });
    }

    /// Time passes: `low..=high` with a long tail, in whole seconds.
    fn later(&mut self, low: Millis, high: Millis, kind: Kind, answer: u8) {
        let pause = if low <= 0 { self.chance.millis(0, high) } else { self.chance.tail(low, high) };
        self.at = self.at.plus(pause).floor(SECOND);
        self.now(kind, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_parade_shows_every_documented_type() {
        let mut chance = Chance::new(11);
        let mut steps = Vec::new();
        for fate in Fate::PARADE {
            unfold(&mut chance, fate, UtcMillis::from_secs(1_000), &mut steps);
        }
        let seen: BTreeSet<_> = steps.iter().map(|step| step.kind).collect();
        let missing: Vec<_> = Kind::DOCUMENTED.iter().filter(|kind| !seen.contains(kind)).collect();
        assert!(missing.is_empty() || missing == [&Kind::Open], "{missing:?}");
    }

    #[test]
    fn a_life_runs_forwards_and_begins_where_it_should() {
        let mut chance = Chance::new(5);
        let start = UtcMillis::from_secs(500);
        let mut events = 0;
        for _ in 0..5_000 {
            let mut steps = Vec::new();
            let fate = Fate::draw(&mut chance);
            unfold(&mut chance, fate, start, &mut steps);
            assert_eq!(steps[0].at, start);
            assert!(steps.windows(2).all(|pair| pair[0].at <= pair[1].at));
            assert!(steps.iter().all(|step| step.at == step.at.floor(SECOND)));
            let sent = steps.iter().any(|step| step.kind == Kind::Injection);
            assert_eq!(sent, steps.len() > 1, "{fate:?}");
            events += steps.len();
        }
        assert!((11_000..14_000).contains(&events), "about 2.5 events a message: {events}");
    }
}
