//! The crash model of the file sink, exhaustively: the process dies before every single change to the disk, and between
//! each write and the commit of its receipt. It exists because exactly-once is a claim about all of these at once.

use super::disk::fuse;
use super::writer::{Piece, Rules, Target, Writer};
use super::{Compress, Rotate, Template, finish};
use crate::core::time::{DAY, HOUR, UtcMillis};
use crate::sink::{Receipt, Refusal};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Lines by live path: what was sent, or what is on the disk.
type Lines = BTreeMap<String, Vec<String>>;

/// A configuration, and the batches that go through it.
struct Plan {
    template: &'static str,
    rotate_size: Option<u64>,
    rotate: Rotate,
    compress: Compress,
    /// The first line of every file.
    header: Option<&'static str>,
    /// For each batch: hours since the start of the plan, and its parts.
    batches: Vec<(i64, Vec<Part>)>,
}

/// Day, stream, number of lines.
type Part = (i64, &'static str, usize);

const START: UtcMillis = UtcMillis::from_secs(1_794_441_600);

impl Plan {
    fn rules(&self, folder: &Path) -> Arc<Rules> {
        Arc::new(Rules {
            template: Template::parse(&format!("{}/{}", folder.display(), self.template)).unwrap(),
            header: self.header,
            rotate_size: self.rotate_size,
            rotate: self.rotate,
            compress: self.compress,
            on_note: Arc::new(|note| panic!("nobody touched a file, and yet: {note}")),
        })
    }

    /// The targets and lines of one batch; lines are unique.
    fn batch(&self, index: usize, rules: &Rules) -> (UtcMillis, Vec<Target>, Vec<Vec<String>>) {
        let (hours, parts) = &self.batches[index];
        let now = START.plus(hours * HOUR);
        let target = |(day, stream, _): &Part| {
            let day = if rules.template.has_date() { START.plus(day * DAY) } else { now.floor(DAY) };
            Target { path: rules.template.render(&day.to_date_text(), stream), day }
        };
        let lines = |(at, part): (usize, &Part)| {
            (0..part.2).map(|line| format!("{{\"id\":\"{index}-{at}-{line}\"}}")).collect()
        };
        (now, parts.iter().map(target).collect(), parts.iter().enumerate().map(lines).collect())
    }
}

fn write(writer: &mut Writer, plan: &Plan, index: usize, rules: &Rules) -> Result<Receipt, Refusal> {
    let (now, targets, lines) = plan.batch(index, rules);
    let (sender, pieces) = mpsc::channel(100);
    for (target, lines) in lines.iter().enumerate() {
        for line in lines {
            assert!(sender.try_send(Piece::Lines(target, format!("{line}\n").into_bytes())).is_ok());
        }
    }
    assert!(sender.try_send(Piece::End).is_ok());
    let receipt = writer.write(&targets, pieces, now)?;
    writer.seen();
    Ok(receipt)
}

/// What the store holds: the receipt, and how many batches are acknowledged.
#[derive(Clone, Default)]
struct Stored {
    receipt: Option<Receipt>,
    acknowledged: usize,
}

/// A process's life: from opening to the last batch, or to its death.
fn live(plan: &Plan, folder: &Path, stored: &mut Stored) -> Result<(), Refusal> {
    let rules = plan.rules(folder);
    let now = START.plus(plan.batches[stored.acknowledged.min(plan.batches.len() - 1)].0 * HOUR);
    let mut writer = Writer::open(Arc::clone(&rules), stored.receipt.as_ref(), now)?;
    stored.receipt = Some(writer.receipt());
    while stored.acknowledged < plan.batches.len() {
        stored.receipt = Some(write(&mut writer, plan, stored.acknowledged, &rules)?);
        stored.acknowledged += 1;
    }
    Ok(())
}

/// In memory where that is possible: thousands of runs, and it is the order of steps that counts here.
fn empty_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn sent(plan: &Plan, folder: &Path) -> Lines {
    let rules = plan.rules(folder);
    let mut lines = Lines::new();
    for index in 0..plan.batches.len() {
        let (_, targets, parts) = plan.batch(index, &rules);
        for (target, part) in targets.into_iter().zip(parts) {
            lines.entry(target.path).or_default().extend(part);
        }
    }
    lines
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

fn text_of(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let mut text = String::new();
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap(),
        Some("zst") => zstd::stream::read::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut text).unwrap(),
        _ => (&bytes[..]).read_to_string(&mut text).unwrap(),
    };
    text
}

/// Everything on the disk, finished files first and by their numbers; panics on leftovers.
fn found(plan: &Plan, folder: &Path) -> Lines {
    let mut files = Vec::new();
    files_below(folder, &mut files);
    let mut lines = Lines::new();
    for live in sent(plan, folder).into_keys() {
        let of_live = |number: u64| {
            let uncompressed = finish::final_path(Path::new(&live), number).display().to_string();
            move |file: &&PathBuf| {
                let name = file.display().to_string();
                [".gz", ".zst", ""].iter().any(|suffix| name == format!("{uncompressed}{suffix}"))
            }
        };
        let mut whole = String::new();
        let add = |whole: &mut String, text: String| match plan.header {
            Some(header) if !text.is_empty() => {
                let lines = text.strip_prefix(header).and_then(|rest| rest.strip_prefix('\n'));
                whole.push_str(lines.unwrap_or_else(|| panic!("no header: {text}")));
            }
            _ => whole.push_str(&text),
        };
        for number in 1..=finish::highest_number(Path::new(&live)).unwrap() {
            let same: Vec<_> = files.iter().filter(of_live(number)).collect();
            assert!(same.len() < 2, "one file under two names: {same:?}");
            same.iter().for_each(|file| add(&mut whole, text_of(file)));
        }
        if Path::new(&live).exists() {
            add(&mut whole, text_of(Path::new(&live)));
        }
        assert!(whole.is_empty() || whole.ends_with('\n'));
        lines.insert(live, whole.lines().map(str::to_owned).collect());
    }
    assert!(files.iter().all(|file| !file.display().to_string().ends_with(".partial")), "{files:?}");
    lines
}

fn plans() -> Vec<Plan> {
    let batches = || {
        vec![
            (0, vec![(0, "a", 3)]),
            (1, vec![(0, "a", 2), (0, "b", 2)]),
            (2, vec![(-1, "a", 1), (0, "b", 4)]),
            (30, vec![(1, "a", 2)]),
            (31, vec![(1, "a", 1), (0, "b", 1)]),
            (56, vec![(2, "b", 2), (1, "a", 1)]),
        ]
    };
    let plan = |template, rotate_size, rotate, compress| {
        let header = None;
        Plan { template, rotate_size, rotate, compress, header, batches: batches() }
    };
    let headed = |plan| Plan { header: Some("a header"), ..plan };
    vec![
        headed(plan("e.csv", Some(60), Rotate::None, Compress::None)),
        headed(plan("{stream}/e-{date}.csv", None, Rotate::Daily, Compress::Gzip)),
        plan("e.ndjson", None, Rotate::None, Compress::None),
        plan("{stream}/e-{date}.ndjson", None, Rotate::None, Compress::None),
        plan("e.ndjson", Some(40), Rotate::None, Compress::Gzip),
        plan("{stream}.ndjson", None, Rotate::Daily, Compress::None),
        plan("{date}/{stream}.ndjson", Some(30), Rotate::Daily, Compress::Zstd),
    ]
}

/// Single targets only where the path has no stream: one file cannot be two targets of one batch.
fn fitting(mut plan: Plan) -> Plan {
    if !plan.template.contains("{stream}") {
        plan.batches.iter_mut().for_each(|(_, parts)| parts.truncate(1));
    }
    plan
}

#[test]
fn every_death_leaves_every_event_once() {
    for plan in plans().into_iter().map(fitting) {
        let mut deaths = 0;
        for steps in 0.. {
            let folder = empty_folder();
            let mut stored = Stored::default();
            fuse::set(steps);
            let died = live(&plan, folder.path(), &mut stored).is_err();
            assert_eq!(died, fuse::blown() && died);
            fuse::set(u64::MAX);
            if !died {
                break;
            }
            deaths += 1;
            live(&plan, folder.path(), &mut stored).unwrap();
            assert_eq!(
                found(&plan, folder.path()),
                sent(&plan, folder.path()),
                "{} after {steps} steps",
                plan.template
            );
        }
        assert!(deaths > 20, "only {deaths} deaths of {}", plan.template);
    }
}

#[test]
fn a_death_while_recovering_from_a_death_changes_nothing() {
    for plan in plans().into_iter().map(fitting) {
        for first in (0..120).step_by(3) {
            for second in [0, 1, 2, 3, 5, 8, 13] {
                let folder = empty_folder();
                let mut stored = Stored::default();
                fuse::set(first);
                let _ = live(&plan, folder.path(), &mut stored);
                fuse::set(second);
                let _ = live(&plan, folder.path(), &mut stored);
                fuse::set(u64::MAX);
                live(&plan, folder.path(), &mut stored).unwrap();
                assert_eq!(found(&plan, folder.path()), sent(&plan, folder.path()), "{first} then {second} steps");
            }
        }
    }
}

#[test]
fn a_write_whose_receipt_was_not_stored_never_happened() {
    for plan in plans().into_iter().map(fitting) {
        for lost in 0..plan.batches.len() {
            let folder = empty_folder();
            let mut stored = Stored::default();
            let rules = plan.rules(folder.path());
            let mut writer = Writer::open(Arc::clone(&rules), None, START).unwrap();
            stored.receipt = Some(writer.receipt());
            while stored.acknowledged < lost {
                stored.receipt = Some(write(&mut writer, &plan, stored.acknowledged, &rules).unwrap());
                stored.acknowledged += 1;
            }
            write(&mut writer, &plan, lost, &rules).unwrap();
            drop(writer);
            live(&plan, folder.path(), &mut stored).unwrap();
            assert_eq!(found(&plan, folder.path()), sent(&plan, folder.path()), "{} lost {lost}", plan.template);
        }
    }
}

/// Between the last byte of a batch and its receipt lies a sync: a death just before it leaves the batch unacknowledged,
/// although all of it is in the file.
#[test]
fn a_batch_that_is_written_but_not_synced_is_not_acknowledged() {
    let parts = || vec![(0, "a", 3)];
    let batches = vec![(0, parts()), (1, parts())];
    let (template, compress) = ("e.ndjson", Compress::None);
    let plan = Plan { template, rotate_size: None, rotate: Rotate::None, compress, header: None, batches };
    let mut refused_whole = 0;
    for steps in 0.. {
        let folder = empty_folder();
        let rules = plan.rules(folder.path());
        let mut writer = Writer::open(Arc::clone(&rules), None, START).unwrap();
        write(&mut writer, &plan, 0, &rules).unwrap();
        fuse::set(steps);
        let written = write(&mut writer, &plan, 1, &rules);
        fuse::set(u64::MAX);
        if written.is_ok() {
            break;
        }
        let text = text_of(&folder.path().join("e.ndjson"));
        refused_whole += u32::from(text.ends_with('\n') && text.lines().count() == 6);
    }
    assert_eq!(refused_whole, 1);
}
