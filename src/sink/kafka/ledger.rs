//! Counts the reports of one attempt: which records the cluster has, which it refused and why, and what the connection
//! complains of meanwhile. It exists so that an ack is given for reports and for nothing else, and no wait is for ever.

use super::refusal::Class;
use rdkafka::error::RDKafkaErrorCode;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One producer's ledger. An attempt begins only when all reports of the one before are in; otherwise the producer is made
/// anew, and its ledger with it.
#[derive(Default)]
pub(super) struct Ledger {
    page: Mutex<Page>,
    news: Condvar,
}

#[derive(Default)]
struct Page {
    /// Records handed to librdkafka.
    sent: usize,
    /// Reports of them, good and bad.
    reported: usize,
    accepted: usize,
    /// The first record that is not at the far side, by its place in the batch.
    first_lost: Option<usize>,
    /// What was wrong with the first record of each class.
    blamed: [Option<RDKafkaErrorCode>; Class::COUNT],
    /// Whoever waits is woken at this many reports.
    wake_at: usize,
    complaint: Option<Complaint>,
}

/// What librdkafka said of a connection, not yet contradicted by a success.
#[derive(Clone, Debug)]
pub(super) struct Complaint {
    pub(super) code: RDKafkaErrorCode,
    pub(super) reason: String,
}

/// Where an attempt stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    /// Records without a report.
    pub(super) open: usize,
    pub(super) accepted: usize,
}

/// How an attempt ended that lost records.
#[derive(Debug)]
pub(super) struct Loss {
    /// The first record that is not there.
    pub(super) first: usize,
    /// The error that decides.
    pub(super) code: RDKafkaErrorCode,
    pub(super) complaint: Option<Complaint>,
}

impl Ledger {
    fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt. What a connection complains of is kept: it is said once, and no more while it stays so.
    pub(super) fn begin(&self) {
        let mut page = self.page();
        let complaint = page.complaint.take();
        *page = Page { complaint, ..Page::default() };
    }

    /// A record is about to be handed to librdkafka.
    pub(super) fn sending(&self) {
        self.page().sent += 1;
    }

    /// The record that was about to be handed over was not taken. Says how many are without a report.
    pub(super) fn take_back(&self) -> usize {
        let mut page = self.page();
        page.sent -= 1;
        page.sent.saturating_sub(page.reported)
    }

    /// librdkafka did not take the record at this place.
    pub(super) fn refuse(&self, at: usize, code: RDKafkaErrorCode) {
        self.sending();
        self.report(at, Err(code));
    }

    /// A report has come for the record at this place.
    pub(super) fn report(&self, at: usize, outcome: Result<(), RDKafkaErrorCode>) {
        let mut page = self.page();
        page.reported += 1;
        match outcome {
            Ok(()) => {
                page.accepted += 1;
                page.complaint = None;
            }
            Err(code) => {
                page.first_lost = Some(page.first_lost.map_or(at, |first| first.min(at)));
                page.blamed[Class::of(code) as usize].get_or_insert(code);
            }
        }
        if page.reported >= page.wake_at {
            self.news.notify_all();
        }
    }

    /// A connection has a complaint.
    pub(super) fn complain(&self, code: RDKafkaErrorCode, reason: &str) {
        let mut page = self.page();
        // That all brokers are gone says less than why one of them is.
        if code != RDKafkaErrorCode::AllBrokersDown || page.complaint.is_none() {
            page.complaint = Some(Complaint { code, reason: reason.to_owned() });
        }
    }

    /// The brokers have answered.
    pub(super) fn content(&self) {
        self.page().complaint = None;
    }

    /// What a connection complained of last.
    pub(super) fn complaint(&self) -> Option<Complaint> {
        self.page().complaint.clone()
    }

    /// Waits at most `wait` until no more than `open` records are without a report.
    pub(super) fn wait(&self, open: usize, wait: Duration) -> Standing {
        let mut page = self.page();
        page.wake_at = page.sent.saturating_sub(open);
        let is_open = |page: &mut Page| page.reported < page.wake_at;
        page = self.news.wait_timeout_while(page, wait, is_open).unwrap_or_else(PoisonError::into_inner).0;
        page.wake_at = 0;
        Standing { open: page.sent.saturating_sub(page.reported), accepted: page.accepted }
    }

    /// What was lost, once all reports are in. Where records were lost for several reasons, the one that decides is what an
    /// operator must mend, then what passes by itself: a record is given up only when it alone is refused.
    pub(super) fn loss(&self) -> Option<Loss> {
        let page = self.page();
        let first = page.first_lost?;
        let by_weight = [Class::Unusable, Class::Anew, Class::Later, Class::Never];
        let code = by_weight.into_iter().find_map(|class| page.blamed[class as usize])?;
        Some(Loss { first, code, complaint: page.complaint.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RDKafkaErrorCode::{AllBrokersDown, Authentication, MessageSizeTooLarge, MessageTimedOut, Resolve};

    const SOON: Duration = Duration::from_millis(1);

    fn of(outcomes: &[Result<(), RDKafkaErrorCode>]) -> Ledger {
        let ledger = Ledger::default();
        ledger.begin();
        for (at, outcome) in outcomes.iter().enumerate() {
            ledger.sending();
            ledger.report(at, *outcome);
        }
        ledger
    }

    #[test]
    fn nothing_is_whole_before_every_report_is_in() {
        let ledger = Ledger::default();
        ledger.begin();
        (0..3).for_each(|_| ledger.sending());
        ledger.report(2, Ok(()));
        assert_eq!(ledger.wait(0, SOON), Standing { open: 2, accepted: 1 });
        ledger.report(0, Ok(()));
        ledger.report(1, Ok(()));
        assert_eq!(ledger.wait(0, Duration::from_mins(1)), Standing { open: 0, accepted: 3 });
        assert!(ledger.loss().is_none());
    }

    #[test]
    fn a_report_on_another_thread_ends_the_wait() {
        let ledger = std::sync::Arc::new(of(&[]));
        (0..1_000).for_each(|_| ledger.sending());
        let reporting = std::sync::Arc::clone(&ledger);
        let reports = std::thread::spawn(move || (0..1_000).for_each(|at| reporting.report(at, Ok(()))));
        assert_eq!(ledger.wait(0, Duration::from_mins(1)).open, 0);
        reports.join().unwrap();
    }

    #[test]
    fn the_first_lost_record_bounds_what_is_there_whatever_came_after_it() {
        let loss = of(&[Ok(()), Ok(()), Err(MessageTimedOut), Ok(()), Err(MessageTimedOut)]).loss().unwrap();
        assert_eq!((loss.first, loss.code), (2, MessageTimedOut));
    }

    #[test]
    fn no_record_is_given_up_while_another_may_pass() {
        let loss = of(&[Err(MessageSizeTooLarge), Err(MessageTimedOut)]).loss().unwrap();
        assert_eq!((loss.first, loss.code), (0, MessageTimedOut));
        let loss = of(&[Err(MessageTimedOut), Err(RDKafkaErrorCode::TopicAuthorizationFailed)]).loss().unwrap();
        assert_eq!(loss.code, RDKafkaErrorCode::TopicAuthorizationFailed);
        assert_eq!(of(&[Ok(()), Err(MessageSizeTooLarge)]).loss().unwrap().code, MessageSizeTooLarge);
    }

    #[test]
    fn a_complaint_stays_until_a_record_is_accepted() {
        let ledger = of(&[]);
        ledger.complain(Authentication, "no");
        ledger.complain(AllBrokersDown, "1/1 brokers are down");
        ledger.begin();
        assert_eq!(ledger.complaint().unwrap().code, Authentication);
        ledger.complain(Resolve, "unknown host");
        assert_eq!(ledger.complaint().unwrap().reason, "unknown host");
        ledger.sending();
        ledger.report(0, Ok(()));
        assert!(ledger.complaint().is_none());
    }
}
