//! Answers that once cost events, requests or secrets, each as a small odd API of its own.
//! It exists so that what was mended stays mended, told apart from the simulator, whose oddities are all known.

use crate::support::oddity::{Oddity, Query, events, once};
use crate::support::program::Program;
use crate::support::world::population;
use sparkspool::core::BoxFuture;
use sparkspool::core::time::{SECOND, UtcMillis};
use sparkspool::daemon::forward::{Forwarder, Room};
use sparkspool::simulator::Options;
use sparkspool::sink::{Batch, Receipt, Refusal, Sink};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn pages_smaller_than_asked_for_are_followed_to_their_end() {
    let all = events(300);
    let world = Oddity::new(all.clone(), "", |q| Query::reply(q.page(5), &q.rows.len().to_string(), &q.link(5))).await;
    assert_eq!(world.capture(1).await.unwrap(), once(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capped_count_ends_no_walk() {
    let all = events(300);
    let answer = |q: &Query| Query::reply(q.page(q.per_page), &q.rows.len().min(10).to_string(), &q.link(q.per_page));
    let world = Oddity::new(all.clone(), "page_size = 10", answer).await;
    assert_eq!(world.capture(1).await.unwrap(), once(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_nowhere_costs_no_event() {
    let all = events(120);
    let dead = r#"{"next":"/api/v1/events/message?from=x"}"#;
    let world = Oddity::new(all.clone(), "page_size = 50", move |q| {
        Query::reply(q.page(q.per_page), &q.rows.len().to_string(), dead)
    })
    .await;
    assert_eq!(world.capture(1).await.unwrap(), once(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_shows_its_first_page_for_ever_is_split_in_time() {
    for links in ["fixed", "growing"] {
        let all = events(120);
        let grown = AtomicU32::new(1_000);
        let world = Oddity::new(all.clone(), "page_size = 50", move |q| {
            let cursor = if links == "fixed" { 50 } else { grown.fetch_add(1, Ordering::Relaxed) };
            let rows = &q.rows[..q.per_page.min(q.rows.len())];
            Query::reply(rows, &q.rows.len().to_string(), &format!(r#"{{"next":"?cursor={cursor}"}}"#))
        })
        .await;
        assert_eq!(world.capture(1).await.unwrap(), once(&all), "{links}");
        assert!(world.requests() < 80, "{links}: {}", world.requests());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_count_a_page_that_comes_again_ends_the_walk() {
    let all = events(20);
    let grown = AtomicU32::new(1);
    let world = Oddity::new(all.clone(), "", move |q| {
        let cursor = grown.fetch_add(1, Ordering::Relaxed);
        Query::reply(&q.rows, "null", &format!(r#"{{"next":"?cursor={cursor}"}}"#))
    })
    .await;
    assert_eq!(world.capture(2).await.unwrap(), once(&all));
    assert!(world.requests() < 20, "{}", world.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_ignores_the_range_costs_few_requests() {
    let at = UtcMillis::parse("2017-04-26T21:37:32Z").unwrap();
    let row = |i: u32| {
        let at = at.plus(-i64::from(i) * SECOND);
        (at, format!(r#"{{"type":"delivery","timestamp":"{at}","event_id":"{i}"}}"#))
    };
    let all: Vec<_> = (0..200).map(row).collect();
    let rows: Vec<String> = all.iter().map(|(_, row)| row.clone()).collect();
    let world = Oddity::new(Vec::new(), "page_size = 20", move |q| {
        let whole = Query { per_page: q.per_page, offset: q.offset, rows: rows.clone() };
        whole.honest()
    })
    .await;
    assert_eq!(world.capture(3).await.unwrap(), once(&all));
    assert!(world.requests() < 100, "{}", world.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_its_own_page_belies_hides_no_event() {
    let total = "0";
    let all = events(30);
    let visible = std::sync::Arc::new(AtomicU32::new(0));
    let shown = visible.clone();
    let world = Oddity::new(all.clone(), "", move |q| {
        let mut rows = q.rows.clone();
        rows.truncate(shown.load(Ordering::Relaxed) as usize);
        let shown = Query { per_page: q.per_page, offset: q.offset, rows };
        Query::reply(shown.page(shown.per_page), total, &shown.link(shown.per_page))
    })
    .await;
    world.capture(1).await.unwrap();
    visible.store(u32::MAX, Ordering::Relaxed);
    assert_eq!(world.capture(1).await.unwrap(), once(&all), "total_count: {total}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_an_id_stay_single_when_pages_have_to_shrink() {
    let mut all = events(60);
    for (i, (at, row)) in all.iter_mut().enumerate() {
        *row = format!(r#"{{"type":"sms_status","timestamp":"{at}","n":{i}}}"#);
    }
    let world = Oddity::new(all.clone(), "page_size = 20\nbody_max = '64KiB'", |q| {
        let (status, body) = q.honest();
        let heavy = q.offset == 20 && q.per_page == 20;
        (status, if heavy { format!("{body}{}", " ".repeat(1 << 17)) } else { body })
    })
    .await;
    assert_eq!(world.capture(1).await.unwrap(), once(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_quotes_the_key_is_told_without_it() {
    for status in [200, 401, 403, 418] {
        let body = r#"{"errors":[{"message":"unknown key marked-key of some%40example.com"}]}"#;
        let world = Oddity::new(Vec::new(), "", move |_| (status, body.into())).await;
        let told = world.capture(1).await.unwrap_err().to_string();
        assert!(told.contains("unknown key ‹key›"), "{told}");
        assert!(!told.contains("marked-key") && !told.contains("example.com"), "{told}");
    }
}

/// A sink on a disk that stays full.
struct Full;

impl Sink for Full {
    fn write<'a>(&'a mut self, _: &'a Batch<'a>) -> BoxFuture<'a, Result<Receipt, Refusal>> {
        Box::pin(async { Err(Refusal::Later { why: "no space".into(), after: None }) })
    }

    fn check(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_into_a_sink_that_stays_full_ends() {
    let world = Oddity::new(events(10), "", Query::honest).await;
    let engine = world.engine();
    let stream = &engine.config.streams[0];
    engine.ingest(stream).await.unwrap().tick().await.unwrap();
    let (drain, health) = (CancellationToken::new(), Arc::default());
    let (_told, captured) = tokio::sync::watch::channel(0);
    let forwarder = Forwarder {
        name: "full".into(),
        open: Arc::new(|_| Box::pin(async { Ok((Box::new(Full) as Box<dyn Sink>, Receipt::default())) })),
        store: engine.store.clone(),
        terms: sparkspool::daemon::forward::Terms::default(),
        follows: vec![stream.name.clone()],
        streams: std::collections::BTreeMap::new(),
        captured,
        room: Room::default(),
        tally: Arc::default(),
        now: Arc::new(|| UtcMillis::from_secs(1_793_600_000)),
        health: Arc::clone(&health),
        patience: Some(3_000),
        drain: drain.clone(),
        abort: CancellationToken::new(),
    };
    drain.cancel();
    tokio::time::timeout(Duration::from_secs(40), forwarder.run()).await.expect("a drain ends").unwrap();
    let trouble: Option<(String, String)> = health.lock().unwrap().trouble.clone();
    assert!(trouble.unwrap().0.contains("no space"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_all_no_events_are_told_of_and_not_called_known() {
    let wrapped = |(at, row)| (at, format!(r#"{{"msys":{{"message_event":{row}}}}}"#));
    let api = Oddity::new(events(20).into_iter().map(wrapped).collect(), "", Query::honest).await;
    let program = Program::new(Options::new(population(1, 0)), "", "").await;
    program.reconfigure("url = 'http://127.0.0.1:", &format!("dialect = 'events'\nurl = '{}' #", api.url()));
    let output = program.run(&["backfill", "--since", "1h"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("20 set aside as no event") && said.contains("`sparkspool dead-letters` shows them"),
        "{said}"
    );
    assert!(!said.contains("captured and forwarded before"), "{said}");
}
