//! One walk of one window: what it reads, and what it may call read afterwards.
//! They exist because a window that is closed wrongly is never looked at again by itself.

use super::*;
use crate::daemon::walk::Walked;
use crate::source::RefusalKind;

/// The hour that is walked, hours ago.
fn hour() -> Window {
    window(START.plus(-3 * HOUR), START.plus(-2 * HOUR))
}

/// Walks the hour in pages of two, and tells what its certificate says.
async fn walked(answer: impl Fn(&Asked) -> Answered + Send + Sync + 'static) -> (Ground, Certificate) {
    let ground = Ground::new(START.plus(-9 * 24 * HOUR), 2, answer).await;
    ground.walker.walk(hour(), None).await.unwrap();
    let certificates = ground.certificates().await;
    assert_eq!(certificates.len(), 1);
    (ground, certificates[0])
}

#[tokio::test(start_paused = true)]
async fn a_walk_calls_its_window_read_and_nothing_before_it() {
    let events = every_minute(5, hour().from());
    let (ground, certificate) = walked(move |asked| Ok(asked.of(&events))).await;
    assert_eq!((certificate.window, certificate.verified), (hour(), true));
    assert_eq!(ground.coverage().await.windows(), [hour()]);
    assert_eq!(ground.captured().await, [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_breaks_off_calls_nothing_read() {
    let events = every_minute(5, hour().from());
    let refused = || SourceError::Refused { kind: RefusalKind::Query, what: "no".into(), hint: String::new() };
    let answer = move |asked: &Asked| if asked.page == 1 { Err(refused()) } else { Ok(asked.of(&events)) };
    let ground = Ground::new(START.plus(-24 * HOUR), 2, answer).await;
    ground.walker.walk(hour(), None).await.unwrap_err();
    assert_eq!(ground.captured().await, [0, 1], "what was brought is kept");
    assert!(ground.coverage().await.is_empty() && ground.certificates().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_reads_other_rows_than_were_counted_is_not_verified() {
    for (count, distinct) in [(Some(5), 4), (Some(3), 4), (None, 4), (Some(4), 3)] {
        let mut events = every_minute(4, hour().from());
        if distinct == 3 {
            events[3] = events[0];
        }
        let (ground, certificate) = walked(move |asked| Ok(Shown { total: count, ..asked.of(&events) })).await;
        let Certificate { api_count, distinct: read, verified, .. } = certificate;
        assert_eq!((api_count, read, verified), (count, distinct, false));
        let stream = ground.stream;
        let open = ground.store.read(move |reader| reader.unverified(stream)).await.unwrap();
        assert_eq!(open.windows(), [hour()], "it stays due");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_page_before_the_last_does_not_end_a_walk() {
    let events = every_minute(6, hour().from());
    let (ground, certificate) = walked(move |asked| {
        let empty = Shown { rows: Vec::new(), total: Some(6), more: true };
        // The second page is empty, and those behind it come one later.
        let page = Asked { page: asked.page.saturating_sub(1), ..*asked };
        Ok(if asked.page == 1 { empty } else { page.of(&events) })
    })
    .await;
    assert_eq!((certificate.verified, certificate.distinct, certificate.pages), (true, 6, 4));
    assert_eq!(ground.captured().await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn empty_pages_without_end_are_not_followed_for_ever() {
    let ground =
        Ground::new(START.plus(-24 * HOUR), 2, |_: &Asked| Ok(Shown { rows: Vec::new(), total: Some(6), more: true }))
            .await;
    let walked = ground.walker.walk(hour(), None).await.unwrap();
    assert!(matches!(walked, Walked::Closed { verified: false, .. }), "{walked:?}");
    assert!(ground.walker.asker.tally.requests.get() < 20);
}
