//! Seeded chance: a stream of numbers (splitmix64) and a hash of seed and salt, both stable for ever.
//! It exists so that one seed gives one world, on every machine and with every version of every library.

use crate::core::time::Millis;

/// The finalizer of splitmix64: a bijection of 64-bit numbers that scatters its input.
pub(super) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// The number that belongs to `seed` and `salt`: what is derived at any time and in any order.
pub(super) const fn hashed(seed: u64, salt: u64) -> u64 {
    mix(seed ^ mix(salt))
}

/// Whether the number `hash` falls into the first `share` (0–1) of all numbers.
pub(super) fn falls(hash: u64, share: f64) -> bool {
    unit(hash) < share
}

/// `hash` as a fraction, `0 ≤ unit < 1`.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a float exactly")]
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// `hash` scaled to `0..bound`; 0 where `bound` is 0.
pub(super) fn scaled(hash: u64, bound: u64) -> u64 {
    // The high half of a 64×64-bit product is below `bound`, so it fits.
    u64::try_from((u128::from(hash) * u128::from(bound)) >> 64).unwrap_or(0)
}

/// One of `choices` by `hash`; `choices` must not be empty.
pub(super) fn pick<T>(hash: u64, choices: &[T]) -> &T {
    let place = usize::try_from(scaled(hash, choices.len() as u64)).unwrap_or(0);
    &choices[place]
}

/// One of weighted `choices` by `hash`; at least one weight must be positive.
pub(super) fn weighted<T: Copy>(hash: u64, choices: &[(u32, T)]) -> T {
    let sum = choices.iter().map(|(weight, _)| u64::from(*weight)).sum();
    let mut left = scaled(hash, sum);
    for (weight, choice) in choices {
        if left < u64::from(*weight) {
            return *choice;
        }
        left -= u64::from(*weight);
    }
    choices[0].1
}

/// A seeded stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) const fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub(super) fn number(&mut self) -> u64 {
        let value = mix(self.0);
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        value
    }

    /// A number in `0..bound`; 0 where `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        scaled(self.number(), bound)
    }

    /// `true` in a `share` (0–1) of all calls.
    pub(super) fn hit(&mut self, share: f64) -> bool {
        falls(self.number(), share)
    }

    /// Milliseconds in `low..=high`, every one as likely as any other.
    pub(super) fn millis(&mut self, low: Millis, high: Millis) -> Millis {
        let width = high.saturating_sub(low).max(0).unsigned_abs().saturating_add(1);
        low.saturating_add(i64::try_from(self.below(width)).unwrap_or(0))
    }

    /// Milliseconds in `low..=high`, every order of magnitude as likely as any other: a long tail. `low` at least 1.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "spans of days fit a float")]
    pub(super) fn tail(&mut self, low: Millis, high: Millis) -> Millis {
        let (low, high) = (low.max(1), high.max(low.max(1)));
        let exponent = (high as f64 / low as f64).ln() * unit(self.number());
        ((low as f64 * exponent.exp()) as Millis).clamp(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_is_the_published_one() {
        // First output of splitmix64 for the seed 0, as in the reference implementation.
        assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn draws_stay_in_their_bounds_and_reach_both_ends() {
        let mut chance = Chance::new(7);
        let draws: Vec<_> = (0..2_000).map(|_| chance.millis(-2, 2)).collect();
        assert_eq!((draws.iter().min(), draws.iter().max()), (Some(&-2), Some(&2)));
        let tails: Vec<_> = (0..2_000).map(|_| chance.tail(1_000, 1_000_000)).collect();
        assert!(tails.iter().all(|t| (1_000..=1_000_000).contains(t)));
        let short = tails.iter().filter(|t| **t < 10_000).count();
        assert!((500..900).contains(&short), "a third lies in the first of three decades: {short}");
        assert_eq!(chance.below(0), 0);
    }

    #[test]
    fn weights_are_kept() {
        let mut chance = Chance::new(3);
        let rare = (0..10_000).filter(|_| weighted(chance.number(), &[(9, false), (1, true)])).count();
        assert!((900..1_100).contains(&rare), "{rare}");
    }
}
