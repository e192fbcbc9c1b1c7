//! Learns from the Metrics endpoint how many events of which type were lost in gaps, with as few questions as it can.
//! It exists because "nothing can be done any more" is no reason not to know how much it was.

use super::account::{Account, sleep};
use super::upstream::Upstream;
use crate::core::retry::Backoff;
use crate::core::time::{Millis, UtcMillis};
use crate::core::window::Window;
use crate::source::SourceError;
use crate::source::sparkpost::metrics::{self, Bucket, KEPT, Metrics, MetricsError, Question};
use crate::store::{Gap, GapId, Lost};

/// Attempts at one question. Nothing depends on the answer: whoever asks next will ask again.
const ATTEMPTS: u32 = 3;

/// The longest wait between them.
const WAIT_MAX: Millis = 30_000;

/// Whether Metrics still has counts of all of `window`.
pub fn is_kept(window: Window, now: UtcMillis) -> bool {
    window.from() >= now.plus(-KEPT)
}

/// Counts what was lost in `gaps`, all of streams of the account `name`, over the whole account: Metrics does not know
/// the streams' filters. The account must be one of `upstream`'s.
pub async fn learn(upstream: &Upstream, name: &str, gaps: &[Gap]) -> Result<Vec<(GapId, Lost)>, MetricsError> {
    let Some((metrics, account)) = upstream.metrics(name) else { return Ok(Vec::new()) };
    let ranges: Vec<Window> = gaps.iter().map(|gap| gap.window).collect();
    let mut lost: Vec<Lost> = gaps.iter().map(|_| metrics::none()).collect();
    for question in metrics::questions(&ranges) {
        for bucket in answer(&metrics, &account, question).await? {
            add(&bucket, gaps, &mut lost);
        }
    }
    Ok(gaps.iter().map(|gap| gap.id).zip(lost).collect())
}

/// Adds a step to the gap of each stream that it belongs to. A minute that two neighbours share counts for the first.
fn add(bucket: &Bucket, gaps: &[Gap], lost: &mut [Lost]) {
    let mut counted_for: Vec<&str> = Vec::new();
    for (gap, lost) in gaps.iter().zip(lost) {
        if bucket.counts_for(gap.window) && !counted_for.contains(&gap.stream.as_str()) {
            counted_for.push(&gap.stream);
            bucket.counts.iter().for_each(|(kind, n)| *lost.entry((*kind).to_owned()).or_default() += n);
        }
    }
}

async fn answer(metrics: &Metrics, account: &Account, question: Question) -> Result<Vec<Bucket>, MetricsError> {
    let mut attempt = 1;
    loop {
        // An account is never closed; without a permit the question is asked all the same.
        let permit = account.enter(|| ()).await;
        let answer = metrics.ask(question).await;
        let told = match &answer {
            Err(MetricsError::Other(error)) => Err(error.clone()),
            _ => Ok(()),
        };
        permit.map(|permit| permit.tell(&told));
        let asked = match &answer {
            Err(MetricsError::Other(
                SourceError::Throttled { retry_after, .. } | SourceError::Transient { retry_after, .. },
            )) if attempt < ATTEMPTS => *retry_after,
            _ => return answer,
        };
        let asked = asked.map(|wait| Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX));
        let wait = Backoff::REQUEST.wait(attempt, fastrand::f64(), asked);
        if wait > WAIT_MAX {
            return answer;
        }
        sleep(wait).await;
        attempt += 1;
    }
}
