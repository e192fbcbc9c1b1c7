//! The part of the contract for sinks whose far side speaks HTTP: what is refused for now or for good, in the middle of a batch, and
//! what was taken without a word. It exists because a receiver's refusal, unlike a broken line, is taken for an answer.

use super::breaks::{assert_arrived, until_taken};
use super::{Events, Rig};
use crate::support::front::{Front, How};
use sparkspool::sink::Refusal;

/// A sink with such a far side.
pub(super) struct Behind<R> {
    rig: R,
    front: Front,
}

impl<R: Rig> Behind<R> {
    /// Of the server at `url`; `rig` is told where the front is.
    pub(super) fn new(url: &str, rig: impl FnOnce(String) -> R) -> Self {
        let (front, url) = Front::of(url);
        Self { rig: rig(url), front }
    }
}

/// Events of three days, a third each.
fn of_three_days(number: u32) -> Events {
    Events::new((number * 30..(number + 1) * 30).map(|id| {
        let day = 10 + id % 30 / 10;
        format!("{{\"event_id\":\"{id}\",\"timestamp\":\"2026-11-{day}T10:00:00Z\"}}")
    }))
}

pub(super) async fn waits_while_it_is_refused_for_now<R: Rig>(mut behind: Behind<R>) {
    let (mut sink, _) = behind.rig.open(None).await;
    let mut expected = Vec::new();
    for (number, status) in (0..).zip([429, 408, 500, 503]) {
        let events = Events::numbered(number * 10..(number + 1) * 10);
        behind.front.lets(0, How::Refused(status));
        let refused = sink.write(&events.batch()).await;
        assert!(matches!(refused, Err(Refusal::Later { .. })), "{status}: {refused:?}");
        behind.front.lets(0, How::Passes);
        assert_arrived(&behind.rig, &expected);
        sink.write(&events.batch()).await.unwrap();
        expected.extend(events.raws);
    }
    assert_arrived(&behind.rig, &expected);
}

/// Said with what to do next; and once that is done, it goes on where it was.
pub(super) async fn calls_an_operator_where_it_is_unwelcome<R: Rig>(mut behind: Behind<R>) {
    let (mut sink, _) = behind.rig.open(None).await;
    let mut expected = Vec::new();
    for (number, status) in (0..).zip([401, 403, 404, 410, 301]) {
        let events = Events::numbered(number * 10..(number + 1) * 10);
        behind.front.lets(0, How::Refused(status));
        let refused = sink.write(&events.batch()).await;
        assert!(
            matches!(&refused, Err(Refusal::Unusable { why, hint }) if !why.is_empty() && !hint.is_empty()),
            "{status}: {refused:?}"
        );
        behind.front.lets(0, How::Passes);
        sink.write(&events.batch()).await.unwrap();
        expected.extend(events.raws);
    }
    assert_arrived(&behind.rig, &expected);
}

/// Whether the same sink hands the rest over, or one that was opened after the process had died.
pub(super) async fn loses_nothing_where_part_of_a_batch_is_refused<R: Rig>(mut behind: Behind<R>) {
    let (mut sink, mut receipt) = behind.rig.open(None).await;
    let (mut expected, mut number) = (Vec::new(), 0);
    for taken in [0, 1, 2, 3, 10] {
        for dies in [false, true] {
            let events = of_three_days(number);
            number += 1;
            behind.front.lets(taken, How::Refused(503));
            let written = sink.write(&events.batch()).await;
            assert!(!matches!(written, Err(Refusal::Never { .. } | Refusal::Unusable { .. })), "{written:?}");
            behind.front.lets(0, How::Passes);
            if dies {
                drop(sink);
                (sink, _) = behind.rig.open(Some(&receipt)).await;
            }
            receipt = until_taken(&mut *sink, &events).await;
            expected.extend(events.raws);
        }
    }
    assert!(behind.front.met() >= 2, "nothing was refused");
    assert_arrived(&behind.rig, &expected);
}

pub(super) async fn hands_over_again_what_nobody_answered<R: Rig>(mut behind: Behind<R>) {
    let (mut sink, _) = behind.rig.open(None).await;
    let mut expected = Vec::new();
    for number in 0..2 {
        let events = of_three_days(number);
        behind.front.lets(number, How::Unanswered);
        let written = sink.write(&events.batch()).await;
        assert!(matches!(written, Ok(_) | Err(Refusal::Later { .. })), "{written:?}");
        behind.front.lets(0, How::Passes);
        until_taken(&mut *sink, &events).await;
        expected.extend(events.raws);
    }
    assert!(behind.front.met() >= 1, "everything was answered");
    assert_arrived(&behind.rig, &expected);
}
