//! Asks how much a range is, and says what reading it would cost: events, bytes, requests, minutes.
//! It exists once for `backfill --dry-run` and `plan`, so that they cannot disagree.

use super::account::Account;
use super::ask::{Asker, Halt};
use crate::core::forecast::{requests, waiting};
use crate::core::time::Millis;
use crate::core::window::Window;
use crate::source::Ask;

/// Rows that are read to learn how large an event is.
const SAMPLE: u32 = 100;

/// What reading would cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Events by the API's count.
    pub events: u64,
    /// Their bytes, as JSON; from a sample.
    pub bytes: u64,
    /// Requests, about.
    pub requests: u64,
    /// Milliseconds that the rate makes them take, at least.
    pub takes: Millis,
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_add(other.events),
            bytes: self.bytes.saturating_add(other.bytes),
            requests: self.requests.saturating_add(other.requests),
            takes: self.takes.saturating_add(other.takes),
        }
    }
}

/// Whole requests a minute that the key of this account was found to bear; at least 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate lies between zero and the configured one"
)]
pub fn learned(account: &Account) -> u64 {
    (account.rate() as u64).max(1)
}

/// What reading `window` would cost at `per_minute` requests; `None` where the API gives no count. One request for each
/// part of the filter, for a small page.
pub async fn cost(asker: &Asker, window: Window, per_minute: u64) -> Result<Option<Cost>, Halt> {
    let (mut total, mut rows, mut size) = (Some(0_u64), 0_u64, 0_u64);
    for part in 0..asker.source.parts() {
        let ask = Ask { window, part, per_page: SAMPLE, with_margin: false };
        let answer = asker.page(&ask, None).await?;
        total = total.zip(answer.page.total).map(|(sum, n)| sum.saturating_add(n));
        rows += answer.page.rows.len() as u64;
        size += answer.page.rows.iter().map(|row| u64::from(row.len)).sum::<u64>();
    }
    Ok(total.map(|events| of(events, size.checked_div(rows).unwrap_or(0), asker.account.page_size(), per_minute)))
}

/// The cost of so many events of so many bytes each.
pub fn of(events: u64, bytes_each: u64, page_size: u32, per_minute: u64) -> Cost {
    let requests = requests(events, page_size);
    Cost { events, bytes: events.saturating_mul(bytes_each), requests, takes: waiting(requests, per_minute) }
}
