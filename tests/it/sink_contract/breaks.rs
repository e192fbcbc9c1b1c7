//! The part of the contract for sinks that reach their far side over a network: lines that break anywhere, servers that go away.
//! It exists because what was under way when a connection ended may be there or not, and nobody is told which.

use super::{Events, Rig};
use crate::support::line::{Break, Line};
use sparkspool::sink::{Receipt, Refusal, Sink};
use std::collections::BTreeSet;
use std::time::Duration;

/// A sink with such a line before its far side.
pub(super) struct Over<R> {
    rig: R,
    line: Line,
}

impl<R: Rig> Over<R> {
    /// Of the server at `url`; `rig` is told where the line begins.
    pub(super) fn new(url: &str, rig: impl FnOnce(String) -> R) -> Self {
        let (line, url) = Line::to(url);
        Self { rig: rig(url), line }
    }
}

/// Everything arrived in order, and once where that is the promise.
pub(super) fn assert_arrived<R: Rig>(rig: &R, expected: &[String]) {
    let seen = rig.seen();
    let mut known = BTreeSet::new();
    let first: Vec<&String> = seen.iter().filter(|line| known.insert(*line)).collect();
    assert!(first.iter().copied().eq(expected), "{} of {} events arrived in order", first.len(), expected.len());
    assert!(!R::EXACTLY_ONCE || seen.len() == expected.len(), "{} instead of {}", seen.len(), expected.len());
}

/// Hands a batch over until it is taken. Whatever a line does, it is no operator's business.
pub(super) async fn until_taken(sink: &mut dyn Sink, events: &Events) -> Receipt {
    for _ in 0..400 {
        match sink.write(&events.batch()).await {
            Ok(receipt) => return receipt,
            Err(Refusal::Later { .. }) => tokio::time::sleep(Duration::from_millis(25)).await,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("refused for ever");
}

fn places((sent, answered): (u64, u64)) -> impl Iterator<Item = Break> {
    let parts = |whole: u64| [0, 1, whole / 4, whole / 2, whole - whole / 4, whole.saturating_sub(1)];
    parts(sent).map(Break::Sending).into_iter().chain(parts(answered).map(Break::Answering))
}

/// Whether the same sink hands the batch over again, or one that was opened after the process had died.
pub(super) async fn loses_nothing_wherever_the_line_breaks<R: Rig>(mut over: Over<R>) {
    let (mut sink, _) = over.rig.open(None).await;
    let mut expected = Vec::new();
    let mut batches = (0..).map(|number| Events::numbered(number * 100..(number + 1) * 100));
    let mut next = || {
        let events = batches.next().expect("the numbers do not end");
        expected.extend_from_slice(&events.raws);
        events
    };
    until_taken(&mut *sink, &next()).await;
    over.line.break_at(None);
    let mut receipt = until_taken(&mut *sink, &next()).await;
    for place in places(over.line.carried()) {
        for dies in [false, true] {
            let events = next();
            over.line.break_at(place);
            // Taken, where the sink has seen to it itself, or where nothing went over the line.
            let _ = sink.write(&events.batch()).await;
            over.line.break_at(None);
            if dies {
                drop(sink);
                (sink, _) = over.rig.open(Some(&receipt)).await;
            }
            receipt = until_taken(&mut *sink, &events).await;
        }
    }
    assert!(over.line.breaks() > 12, "the line broke {} times only", over.line.breaks());
    assert_arrived(&over.rig, &expected);
}

pub(super) async fn waits_for_a_server_that_is_away<R: Rig>(mut over: Over<R>) {
    let (mut sink, _) = over.rig.open(None).await;
    let mut expected = Vec::new();
    for number in 0..3 {
        let events = Events::numbered(number * 100..(number + 1) * 100);
        over.line.goes_down_for(Duration::from_millis(300));
        until_taken(&mut *sink, &events).await;
        assert!(!over.line.is_down(), "taken by nobody");
        expected.extend(events.raws);
    }
    assert_arrived(&over.rig, &expected);
}
