//! What to do with a batch after an attempt to hand it over: the one place where retry, bisection and dead letters
//! are decided. It exists so that no sink and no loop can give an event up for a trouble that would have passed.

use super::time::{MINUTE, Millis, SECOND};
use std::time::Duration;

/// The backoff before the second attempt is drawn from `[0, BASE)`; also the shortest wait a far side can ask for.
pub const BASE: Millis = SECOND;
/// The backoff grows no further than this.
pub const CAP: Millis = 5 * MINUTE;
/// The longest wait a far side can ask for; whoever asks for more is asked again after this.
pub const AFTER_CAP: Millis = 15 * MINUTE;
/// The shortest wait of all, so that no draw of the jitter makes a busy loop.
pub const FLOOR: Millis = 100;

/// How an attempt ended, in the words of this module: the caller translates its sink's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The whole batch is durable at the far side.
    Accepted,
    /// It may be accepted later, not before `after` where the far side named a wait.
    Later {
        /// The wait asked for, not yet bounded.
        after: Option<Duration>,
    },
    /// It can never be accepted as it is.
    Never,
    /// The sink cannot be used until an operator acts.
    Unusable,
}

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Move the position behind the batch.
    Ack,
    /// Hand over the same batch again, not before a wait.
    RetryAfter {
        /// In milliseconds: at least [`FLOOR`], at most [`AFTER_CAP`].
        wait: Millis,
        /// Whether the far side asked for it: only a wait of our own may be cut short.
        asked: bool,
    },
    /// Hand over the first half, then the second.
    Bisect,
    /// Record the batch's only event as a dead letter and move the position behind it.
    DeadLetter,
    /// Stop handing over, say so, and wait for an operator. The position stays.
    Suspend,
}

/// Decides. `attempt` counts the attempts at this batch so far, from 1; `batch_len` is its number of events; `jitter`
/// is drawn evenly from `[0, 1)`.
///
/// Transient trouble is retried for ever and never becomes a dead letter; only a batch of one event that the far side
/// refuses for good does. The backoff is exponential with full jitter: `[0, min(CAP, BASE · 2^(attempt − 1)))`.
pub fn judge(outcome: Outcome, attempt: u32, batch_len: usize, jitter: f64) -> Verdict {
    match outcome {
        Outcome::Accepted => Verdict::Ack,
        Outcome::Later { after: Some(wanted) } => Verdict::RetryAfter { wait: bounded(wanted), asked: true },
        Outcome::Later { after: None } => Verdict::RetryAfter { wait: backoff(attempt, jitter), asked: false },
        Outcome::Never if batch_len > 1 => Verdict::Bisect,
        Outcome::Never => Verdict::DeadLetter,
        Outcome::Unusable => Verdict::Suspend,
    }
}

/// How long a far side is left alone that asked for that, in milliseconds.
pub fn bounded(wanted: Duration) -> Millis {
    Millis::try_from(wanted.as_millis()).unwrap_or(Millis::MAX).clamp(BASE, AFTER_CAP)
}

fn backoff(attempt: u32, jitter: f64) -> Millis {
    let doublings = attempt.saturating_sub(1).min(CAP.ilog2());
    let ceiling = BASE.saturating_mul(1 << doublings).min(CAP);
    // Not-a-number becomes 0 and everything else is brought into the range, so that the cast below is exact enough.
    let share = if jitter.is_nan() { 0.0 } else { jitter.clamp(0.0, 1.0) };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "0 ≤ product ≤ CAP, far below 2^52"
    )]
    let drawn = (ceiling as f64 * share) as Millis;
    drawn.max(FLOOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LATER: Outcome = Outcome::Later { after: None };

    fn wait(outcome: Outcome, attempt: u32, jitter: f64) -> Millis {
        match judge(outcome, attempt, 10, jitter) {
            Verdict::RetryAfter { wait, .. } => wait,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_answer_has_its_verdict() {
        assert_eq!(judge(Outcome::Accepted, 1, 10, 0.5), Verdict::Ack);
        assert_eq!(judge(Outcome::Never, 1, 2, 0.5), Verdict::Bisect);
        assert_eq!(judge(Outcome::Never, 1, 1, 0.5), Verdict::DeadLetter);
        assert_eq!(judge(Outcome::Unusable, 1, 1, 0.5), Verdict::Suspend);
    }

    #[test]
    fn the_backoff_doubles_up_to_its_cap() {
        let waits: Vec<_> = (1..=11).map(|attempt| wait(LATER, attempt, 0.5)).collect();
        let expected = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 150_000, 150_000];
        assert_eq!(waits, expected);
    }

    #[test]
    fn a_wait_asked_for_is_kept_within_its_bounds() {
        let asked = |after| wait(Outcome::Later { after: Some(after) }, 7, 0.3);
        assert_eq!(asked(Duration::ZERO), BASE);
        assert_eq!(asked(Duration::from_secs(42)), 42 * SECOND);
        assert_eq!(asked(Duration::MAX), AFTER_CAP);
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Accepted),
            Just(LATER),
            any::<Duration>().prop_map(|after| Outcome::Later { after: Some(after) }),
            Just(Outcome::Never),
            Just(Outcome::Unusable),
        ]
    }

    proptest! {
        #[test]
        fn transient_trouble_is_retried_for_ever(after in any::<Option<Duration>>(), attempt: u32, len: usize, jitter: f64) {
            let verdict = judge(Outcome::Later { after }, attempt, len, jitter);
            let Verdict::RetryAfter { wait, asked } = verdict else { panic!("{verdict:?}") };
            prop_assert!((FLOOR..=AFTER_CAP).contains(&wait), "{wait}");
            prop_assert_eq!(asked, after.is_some());
        }

        #[test]
        fn only_a_single_refused_event_is_given_up(outcome in any_outcome(), attempt: u32, len in 1_usize.., jitter: f64) {
            let given_up = judge(outcome, attempt, len, jitter) == Verdict::DeadLetter;
            prop_assert_eq!(given_up, outcome == Outcome::Never && len == 1);
        }

        #[test]
        fn only_what_was_accepted_is_acknowledged(outcome in any_outcome(), attempt: u32, len: usize, jitter: f64) {
            prop_assert_eq!(judge(outcome, attempt, len, jitter) == Verdict::Ack, outcome == Outcome::Accepted);
        }

        #[test]
        fn bisection_ends(len in 1_usize..1_000_000) {
            // Halving the larger half until nothing can be halved reaches one event in ⌈log2⌉ steps.
            let (mut left, mut steps) = (len, 0);
            while judge(Outcome::Never, 1, left, 0.0) == Verdict::Bisect {
                left = left.div_ceil(2);
                steps += 1;
            }
            prop_assert_eq!(left, 1);
            prop_assert!(steps <= 20);
        }

        #[test]
        fn later_attempts_wait_no_less(attempt in 1_u32..u32::MAX, jitter in 0.0..1.0_f64) {
            prop_assert!(wait(LATER, attempt, jitter) <= wait(LATER, attempt + 1, jitter));
            prop_assert!(wait(LATER, attempt, jitter) <= CAP);
        }
    }
}
