//! Random lives of a file sink: batches, deaths before the commit, torn tails, interrupted finishes, passing time.
//! They exist because the orders in which these can follow upon each other are more than anybody lists.

use super::{NOON, World, at};
use proptest::prelude::*;
use sparkspool::core::time::{DAY, MINUTE};
use sparkspool::sink::file::{Compress, Note, Rotate};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// One thing that happens in a random life of a sink.
#[derive(Debug, Clone)]
enum Step {
    /// A batch, as (stream, day, filler bytes) for each event, acknowledged.
    Write(Vec<(bool, i64, usize)>),
    /// The same, but the process dies before its receipt is stored; the batch comes again.
    WriteAndDie(Vec<(bool, i64, usize)>),
    /// The process dies with this half-written behind a committed file.
    TornTail(usize, String),
    /// The process dies within finishing a file, after so many of the steps.
    DieFinishing(usize, u8),
    /// The process is stopped and started.
    Restart,
    /// Time passes, in minutes.
    Pass(i64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let batch = || proptest::collection::vec((any::<bool>(), 0..3_i64, 0..40_usize), 1..6);
    prop_oneof![
        6 => batch().prop_map(Step::Write),
        3 => batch().prop_map(Step::WriteAndDie),
        2 => (0..8_usize, "[{}\"a-zé\n]{0,30}").prop_map(|(at, tail)| Step::TornTail(at, tail)),
        3 => (0..8_usize, 0..4_u8).prop_map(|(at, steps)| Step::DieFinishing(at, steps)),
        1 => Just(Step::Restart),
        3 => (0..2_000_i64).prop_map(Step::Pass),
    ]
}

fn any_options() -> impl Strategy<Value = (&'static str, Option<u64>, Rotate, Compress)> {
    let name = prop_oneof![
        Just("events.ndjson"),
        Just("{stream}.ndjson"),
        Just("e-{date}.ndjson"),
        Just("{date}/{stream}.ndjson"),
        Just("{stream}-{date}")
    ];
    let size = prop_oneof![Just(None), (1..300_u64).prop_map(Some)];
    let rotate = prop_oneof![Just(Rotate::None), Just(Rotate::Daily)];
    let compress = prop_oneof![Just(Compress::None), Just(Compress::Gzip), Just(Compress::Zstd)];
    (name, size, rotate, compress).prop_map(|(name, size, rotate, compress)| {
        let rotates = size.is_some() || rotate == Rotate::Daily;
        (name, size, rotate, if rotates { compress } else { Compress::None })
    })
}

impl World {
    /// The unfinished files of the stored receipt: path, committed length, number.
    fn unfinished(&self) -> Vec<(PathBuf, u64, u64)> {
        let Some(stored) = &self.stored else { return Vec::new() };
        let receipt: serde_json::Value = serde_json::from_str(&stored.0).unwrap();
        let files = receipt["files"].as_object().unwrap().iter();
        files.map(|(path, f)| (path.into(), f["len"].as_u64().unwrap(), f["number"].as_u64().unwrap())).collect()
    }

    /// Leaves the disk as a death within the finishing of an unfinished file leaves it.
    fn die_finishing(&mut self, which: usize, steps: u8) {
        self.sink = None;
        let unfinished = self.unfinished();
        let rotates = self.options.rotate_size.is_some() || self.options.rotate == Rotate::Daily;
        let Some((live, len, number)) = unfinished.get(which).filter(|_| rotates) else { return };
        assert_eq!(std::fs::metadata(live).unwrap().len(), *len);
        let stem = live.file_stem().unwrap().display().to_string();
        let extension = live.extension().map(|e| format!(".{}", e.display())).unwrap_or_default();
        let plain = live.with_file_name(format!("{stem}-{number:06}{extension}"));
        std::fs::rename(live, &plain).unwrap();
        let bytes = std::fs::read(&plain).unwrap();
        let (suffix, compressed) = match self.options.compress {
            Compress::None => return,
            Compress::Zstd => (".zst", zstd::encode_all(&bytes[..], 1).unwrap()),
            Compress::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&bytes).unwrap();
                (".gz", encoder.finish().unwrap())
            }
        };
        let whole = format!("{}{suffix}", plain.display());
        let partial = format!("{whole}.partial");
        if steps >= 1 {
            std::fs::write(&partial, &compressed[..compressed.len() / 2]).unwrap();
        }
        if steps >= 2 {
            std::fs::write(&partial, &compressed).unwrap();
            std::fs::rename(&partial, &whole).unwrap();
        }
        if steps >= 3 {
            std::fs::remove_file(&plain).unwrap();
        }
    }

    /// Every line on the disk in order, by the name of its live file.
    fn all_lines(&self) -> BTreeMap<String, Vec<String>> {
        let mut parts: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
        for file in self.files() {
            assert!(!file.ends_with(".partial"), "{file}");
            let plain = file.trim_end_matches(".gz").trim_end_matches(".zst");
            let (stem, extension) = plain.strip_suffix(".ndjson").map_or((plain, ""), |stem| (stem, ".ndjson"));
            let numbered = stem.rsplit_once('-').filter(|(_, n)| n.len() == 6);
            let (live, number) = numbered.map_or((stem, u64::MAX), |(live, n)| (live, n.parse().unwrap()));
            let before = parts.entry(format!("{live}{extension}")).or_default().insert(number, self.text(&file));
            assert_eq!(before, None, "{file} is there twice");
        }
        let lines = |texts: BTreeMap<u64, String>| -> Vec<String> {
            let whole: String = texts.into_values().collect();
            assert!(whole.is_empty() || whole.ends_with('\n'));
            whole.lines().map(str::to_owned).collect()
        };
        parts.into_iter().map(|(live, texts)| (live, lines(texts))).filter(|(_, lines)| !lines.is_empty()).collect()
    }
}

/// Lives through `steps` and keeps, beside, what ought to be on the disk.
async fn live_through(world: &mut World, name: &str, steps: Vec<Step>) -> BTreeMap<String, Vec<String>> {
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut id = 0;
    world.try_open().await.unwrap();
    for step in steps {
        match step {
            Step::Write(parts) | Step::WriteAndDie(parts) if parts.is_empty() => {}
            Step::Write(ref parts) | Step::WriteAndDie(ref parts) => {
                let mut batch = Vec::new();
                for (stream, day, filler) in parts {
                    id += 1;
                    let stream = if *stream { "bounces" } else { "opens" };
                    let time = at(NOON).plus(-day * DAY).to_string();
                    let raw = format!("{{\"id\":{id},\"at\":\"{time}\",\"filler\":\"{}\"}}", "x".repeat(*filler));
                    let live = name.replace("{stream}", stream).replace("{date}", &time[..10]);
                    expected.entry(live).or_default().push(raw.clone());
                    batch.push((stream, raw));
                }
                if matches!(step, Step::WriteAndDie(_)) {
                    world.write_only(&batch).await.unwrap();
                    world.try_open().await.unwrap();
                }
                world.write(&batch).await.unwrap();
            }
            Step::TornTail(which, tail) => {
                world.sink = None;
                if let Some((live, ..)) = world.unfinished().get(which) {
                    let mut file = std::fs::OpenOptions::new().append(true).open(live).unwrap();
                    file.write_all(tail.as_bytes()).unwrap();
                }
                world.try_open().await.unwrap();
            }
            Step::DieFinishing(which, steps) => {
                world.die_finishing(which, steps);
                world.try_open().await.unwrap();
            }
            Step::Restart => world.try_open().await.unwrap(),
            Step::Pass(minutes) => world.pass(minutes * MINUTE),
        }
    }
    expected
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_acknowledged_event_is_there_once_and_in_order(
        (name, rotate_size, rotate, compress) in any_options(),
        steps in proptest::collection::vec(any_step(), 1..24),
    ) {
        let mut world = World::new(name).with(|o| {
            o.rotate_size = rotate_size;
            o.rotate = rotate;
            o.compress = compress;
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let expected = runtime.block_on(live_through(&mut world, name, steps));
        prop_assert_eq!(world.all_lines(), expected);
        prop_assert_eq!(world.notes(), Vec::<Note>::new());
    }
}
