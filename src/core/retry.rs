//! How long to wait before trying again: exponential with full jitter, and `Retry-After` taken with a grain of salt.
//! Pure, because waiting is where retry logic usually hides its mistakes: randomness and the clock are handed in.

use super::time::{HOUR, MINUTE, Millis, SECOND, UtcMillis};

/// The longest wait that a server's `Retry-After` can impose. The vendor documents none and suggests 1–5 seconds; a
/// hostile or broken value must not park a stream for days: asking once in five minutes harms nobody.
pub const RETRY_AFTER_CAP: Millis = 5 * MINUTE;

/// Exponential waits with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The upper bound of the first wait.
    pub base: Millis,
    /// The upper bound of every wait.
    pub cap: Millis,
}

impl Backoff {
    /// After a failed request: the vendor asks to "wait 1 to 5 seconds" and to grow from there.
    pub const REQUEST: Self = Self { base: 2 * SECOND, cap: 5 * MINUTE };
    /// After a refusal that only an operator can mend: slow, but it notices by itself when it was mended.
    pub const REFUSED: Self = Self { base: MINUTE, cap: HOUR / 4 };

    /// The wait after failure number `failures` (from 1). `jitter` in `[0, 1)` picks a point in the upper half of the
    /// range, so that waits spread but never collapse to nothing. `asked` is what the server wants at least.
    pub fn wait(self, failures: u32, jitter: f64, asked: Option<Millis>) -> Millis {
        let doublings = failures.saturating_sub(1).min(32);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.cap).max(1);
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 };
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "at most 15 minutes in ms")]
        let wait = (ceiling as f64 * (0.5 + 0.5 * jitter)) as Millis;
        wait.max(asked.unwrap_or(0).clamp(0, RETRY_AFTER_CAP))
    }
}

/// Reads a `Retry-After` header: seconds (a fraction is rounded up) or an HTTP date relative to `now`. Never negative,
/// never above [`RETRY_AFTER_CAP`]; `None` where it is neither.
pub fn retry_after(value: &str, now: UtcMillis) -> Option<Millis> {
    let value = value.trim();
    if let Ok(date) = httpdate::parse_http_date(value) {
        let at = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        let at = UtcMillis::from_millis(i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
        return Some(at.since(now).clamp(0, RETRY_AFTER_CAP));
    }
    let plain = value.bytes().all(|b| b.is_ascii_digit() || b == b'.') && value.bytes().any(|b| b.is_ascii_digit());
    if !plain {
        return None;
    }
    let whole = value.split('.').next().unwrap_or_default();
    let fraction = i64::from(value.contains('.'));
    // More digits than fit are a number above the cap.
    let secs = if whole.is_empty() { 0 } else { whole.parse::<i64>().unwrap_or(i64::MAX) };
    Some(secs.saturating_add(fraction).saturating_mul(SECOND).clamp(0, RETRY_AFTER_CAP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UtcMillis = UtcMillis::from_secs(1_493_242_652);

    #[test]
    fn seconds_and_dates_are_both_read() {
        assert_eq!(retry_after("3", NOW), Some(3 * SECOND));
        assert_eq!(retry_after(" 2.5 ", NOW), Some(3 * SECOND));
        assert_eq!(retry_after("Wed, 26 Apr 2017 21:37:42 GMT", NOW), Some(10 * SECOND));
        assert_eq!(retry_after("Wed, 26 Apr 2017 21:37:02 GMT", NOW), Some(0));
    }

    #[test]
    fn hostile_values_are_capped_or_ignored() {
        for text in ["99999999999999999999999999", "86400", "Thu, 31 Dec 2099 23:59:59 GMT"] {
            assert_eq!(retry_after(text, NOW), Some(RETRY_AFTER_CAP), "{text}");
        }
        for text in ["", "-1", "NaN", "1e300", "inf", "soon", ".", "0x10", "Wed, 99 Apr 2017"] {
            assert_eq!(retry_after(text, NOW), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn waits_stay_in_their_bounds(failures in 0_u32..10_000, jitter in -1.0_f64..2.0, asked in proptest::option::of(any::<i64>())) {
            let wait = Backoff::REQUEST.wait(failures, jitter, asked);
            prop_assert!((SECOND..=RETRY_AFTER_CAP).contains(&wait));
            prop_assert!(wait >= asked.unwrap_or(0).min(RETRY_AFTER_CAP));
        }

        #[test]
        fn no_header_panics(text in "\\PC*") {
            if let Some(wait) = retry_after(&text, NOW) {
                prop_assert!((0..=RETRY_AFTER_CAP).contains(&wait));
            }
        }
    }
}
