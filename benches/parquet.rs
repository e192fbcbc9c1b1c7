//! How fast the `object_store` sink packs events, and how small: batches of about 1 KB an event, to files that are synced, as
//! Parquet with and without `raw`, and as compressed lines. It exists because 100,000 events a second, and an eighth of the
//! NDJSON, are the targets. Run: `cargo bench --features object-store --bench parquet` (`-- 10 DIR` for so many batches there).

#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::expect_used, reason = "a panic is a broken benchmark")]

mod support {
    pub(crate) mod cpu;
}

use serde_json::value::RawValue;
use sparkspool::core::event::{StoredEvent, StreamName};
use sparkspool::core::time::{HOUR, UtcMillis};
use sparkspool::core::window::Window;
use sparkspool::simulator::{Options as SimulatorOptions, PopulationOptions, Request, Simulation, Size};
use sparkspool::sink::encode::Format;
use sparkspool::sink::object_store::{Layout, ObjectStoreSink, Options, Place};
use sparkspool::sink::{Batch, Sink};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use support::cpu::cpu_time;

/// About as many as the usual batch holds.
const BATCH: u32 = 15_000;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let batches: u32 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10);
    let place = arguments.next().unwrap_or_else(|| ".".to_owned());
    let events = population(batches * BATCH);
    let sent: usize = events.iter().map(String::len).sum();
    println!("{} events, {} bytes each as sent, batches of {BATCH}", events.len(), sent / events.len().max(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for layout in [Layout::Parquet, Layout::Lines] {
        for include_raw in [true, false] {
            let folder = tempfile::tempdir_in(&place).expect("a folder");
            let options = Options { place: Place::Folder(folder.path().to_owned()), layout, include_raw };
            runtime.block_on(measure(options, &events, folder.path()));
        }
    }
}

async fn measure(options: Options, events: &[String], folder: &Path) {
    let (layout, include_raw) = (options.layout, options.include_raw);
    let stream = StreamName::new("all").expect("a valid name");
    let observed_at = UtcMillis::from_secs(1_794_500_000);
    let stored = |raw| StoredEvent { raw, stream: &stream, observed_at, late: false, revision: false };
    let mut ndjson = 0;
    let mut line = Vec::new();
    for event in events {
        line.clear();
        Format::Normalized { raw: include_raw }.write_line(&stored(event), &mut line).expect("an event");
        ndjson += line.len();
    }
    let on_note = Arc::new(|note| panic!("{note}"));
    let opened = ObjectStoreSink::open(options, None, Arc::new(move || observed_at), on_note).await;
    let (mut sink, _) = opened.expect("an empty folder");
    let (began, cpu_before) = (Instant::now(), cpu_time());
    for batch in events.chunks(BATCH as usize) {
        let batch = Batch { events: batch.iter().map(String::as_str).map(stored).collect(), again: false };
        sink.write(&batch).await.expect("the batch is accepted");
    }
    let (wall, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu_before));
    #[expect(clippy::cast_precision_loss, reason = "counts and sizes are far below 2^52")]
    let [count, written, ndjson] = [events.len() as f64, size(folder) as f64, ndjson as f64];
    println!(
        "{layout:?}, include_raw = {include_raw}: {:7.0} events/s, {:5.1} µs of a processor each; {:5.1} B an event, NDJSON is \
         {:4.1} times as large; {} of memory at most",
        count / wall.as_secs_f64(),
        1e6 * cpu.as_secs_f64() / count,
        written / count,
        ndjson / written,
        memory(),
    );
}

/// Events of a simulated account as its API shows them, oldest first: an hour's for each 60,000.
fn population(events: u32) -> Vec<String> {
    let to = UtcMillis::from_secs(1_794_528_000);
    let window = Window::new(to.plus(-HOUR * i64::from(events.div_ceil(60_000))), to).expect("an hour or more");
    let options = PopulationOptions { visible_within: 0, ..PopulationOptions::new(1, window, Size::Events(events)) };
    let simulation = Simulation::new(SimulatorOptions::new(options));
    let range = format!("from={}&to={}", window.from().to_second_text(), window.to().to_second_text());
    let mut next = Some(format!("/api/v1/events/message?{range}&per_page=10000&cursor=initial"));
    let mut found = Vec::new();
    while let Some(target) = next {
        let (host, authorization) = ("localhost", Some("simulated-key"));
        let request = Request { method: "GET", target: &target, host, authorization };
        let page = simulation.answer(&request, to.plus(HOUR)).response.body.concat();
        let page: Page<'_> = serde_json::from_slice(&page).expect("a page");
        found.extend(page.results.iter().map(|event| event.get().to_owned()));
        next = page.links.next;
    }
    found.reverse();
    found
}

#[derive(serde::Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
    #[serde(default)]
    links: Links,
}

#[derive(serde::Deserialize, Default)]
struct Links {
    next: Option<String>,
}

fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let size_of = |entry: std::fs::DirEntry| {
        let found = entry.metadata().expect("an entry");
        if found.is_dir() { size(&entry.path()) } else { found.len() }
    };
    entries.flatten().map(size_of).sum()
}

/// What the system says of this process's memory.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.trim_start_matches("VmHWM:").trim().to_owned()
}
