//! A stream from tick to tick: what expired, what came late, and what an answer left out.
//! They exist because each kind of looking again finds something that no other one does.

use super::*;
use crate::core::plan::horizon;
use crate::core::time::DAY;
use crate::store::Closing;

/// Ticks every half hour until `end`.
async fn tick_until(ground: &Ground, ingest: &mut Ingest, end: UtcMillis) {
    while ground.now() < end {
        ingest.tick().await.unwrap();
        sleep_until(ground, ground.now().plus(1).ceil(HOUR / 2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_expired_before_it_was_read_is_named_in_a_gap() {
    let (floor, read_to) = (START.plus(-12 * DAY), START.plus(-11 * DAY));
    let ground = Ground::new(floor, 100, |asked| Ok(asked.of(&[]))).await;
    let (stream, read) = (ground.stream, window(floor, read_to));
    let closing = Closing { window: read, api_count: Some(0), distinct: 0, pages: 1, verified: true, at: read_to };
    ground.store.write(move |store| store.close_window(stream, &closing, &[])).await.unwrap();
    let pass = ground.ingest(Reread::Twice).tick().await.unwrap();
    let gaps = ground.store.read(|reader| reader.gaps()).await.unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].window, window(read_to, horizon(gaps[0].recorded_at)));
    assert_eq!((pass.gaps, pass.gap_span), (1, gaps[0].window.span()));
    let progress = ground.store.write(move |store| store.progress(stream)).await.unwrap();
    let settled: Coverage = progress.coverage.windows().iter().chain(progress.gaps.windows()).copied().collect();
    assert!(settled.contains_window(window(floor, START.plus(-MINUTE))), "every second is read or named: {settled:?}");
}

/// Counts find it; no hour is read again here.
#[tokio::test(start_paused = true)]
async fn an_event_that_comes_hours_late_is_found_by_its_count() {
    let mut events = every_minute(3, START.plus(-3 * HOUR));
    events.push(Event::new(3, START.plus(-3 * HOUR)).from(START.plus(10 * MINUTE)));
    let ground = Ground::new(START.plus(-6 * HOUR), 100, move |asked| Ok(asked.of(&events))).await;
    let mut ingest = ground.ingest(Reread::Never);
    ingest.tick().await.unwrap();
    assert_eq!(ground.captured().await, [0, 1, 2]);
    tick_until(&ground, &mut ingest, START.plus(HOUR)).await;
    assert_eq!(ground.captured().await, [0, 1, 2, 3]);
}

/// An event is erased and another one comes in its minute: no count shows that.
#[tokio::test(start_paused = true)]
async fn an_event_behind_an_erased_one_is_found_by_reading_again() {
    for (reread, finds) in [(Reread::Never, false), (Reread::Twice, true), (Reread::Daily, true)] {
        let (at, change) = (START.plus(-3 * HOUR), START.plus(HOUR));
        let events = [Event::new(0, at).until(change), Event::new(1, at).from(change), Event::new(2, at)];
        let ground = Ground::new(START.plus(-6 * HOUR), 100, move |asked| Ok(asked.of(&events))).await;
        let mut ingest = ground.ingest(reread);
        tick_until(&ground, &mut ingest, START.plus(20 * HOUR)).await;
        assert_eq!(ground.captured().await, [0, 2], "{reread:?}: counts are equal");
        tick_until(&ground, &mut ingest, START.plus(26 * HOUR)).await;
        assert_eq!(ground.captured().await.contains(&1), finds, "{reread:?}");
    }
}

/// The replica that counts is short for ever; the one that reads catches up after most of a day.
#[tokio::test(start_paused = true)]
async fn a_day_of_short_answers_with_short_counts_is_completed_by_reading_again() {
    let all: Vec<Event> = (0..48).map(|id| Event::new(id, START.plus(-DAY + id.cast_signed() * HOUR / 2))).collect();
    let half: Vec<Event> = all.iter().step_by(2).copied().collect();
    let ground = Ground::new(START.plus(-DAY), 100, move |asked| {
        let is_short = asked.is_count() || asked.now < START.plus(20 * HOUR);
        Ok(asked.of(if is_short { &half } else { &all }))
    })
    .await;
    let mut ingest = ground.ingest(Reread::Twice);
    tick_until(&ground, &mut ingest, START.plus(20 * HOUR)).await;
    let certificates = ground.certificates().await;
    assert!(certificates.iter().all(|one| one.verified), "short, and consistent");
    tick_until(&ground, &mut ingest, START.plus(26 * HOUR)).await;
    assert_eq!(ground.captured().await, (0..48).collect::<Vec<u64>>());
}
