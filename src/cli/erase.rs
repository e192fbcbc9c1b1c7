//! `erase`: takes a person out of spool, dead letters and the sinks that keep rows, and tells the other sinks. A daemon that
//! runs does it; otherwise this command does. What it cannot reach it names, for a person to see to.

use super::exit::{Code, Failure};
use super::progress::Progress;
use super::text::counted;
use super::{Global, PATIENCE, output, signals, surroundings};
use crate::config::{Config, SinkKind};
use crate::core::person::Person;
use crate::core::time::UtcMillis;
use crate::daemon::clock::TimeSource;
use crate::daemon::engine::Engine;
use crate::daemon::erase::{keeps_rows, settle, sweep};
use crate::sink::traces;
use crate::store::{Erasure, ErasureId, Mailbox, Reader, is_held, set_aside_before};
use clap::Args;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::time::Duration;

/// Options of `erase`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// The person's mail address; `-` reads it from the first line of stdin, so that no history of a shell holds it
    #[arg(long, value_name = "ADDRESS")]
    recipient: String,
    /// Change nothing: count what would be erased
    #[arg(long)]
    dry_run: bool,
    /// The summary as one JSON object
    #[arg(long)]
    json: bool,
}

/// How often the daemon's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A daemon whose sink has not obeyed within so many looks after the spool was done is left to it.
const SINK_LOOKS: u32 = 200;

/// What `erase --json` says; every key is always there.
#[derive(Serialize, Debug, Default)]
struct Summary {
    /// Whether nothing was changed.
    dry_run: bool,
    /// Whether all of it was done.
    finished: bool,
    /// Events erased in the spool, by stream.
    streams: Vec<Of>,
    dead_letters: u64,
    /// Rows taken out, by sink.
    rows: Vec<Of>,
    /// Sinks that are told by tombstones, each in its turn.
    told: Vec<String>,
    /// Sinks that have rows and have not obeyed yet.
    waiting: Vec<String>,
    /// Sinks with rows that no stream names: they were not asked.
    not_asked: Vec<String>,
    /// Segments of the spool that cannot be read.
    unreadable_segments: u64,
    /// Files that hold bytes that look like the address.
    remains: Vec<String>,
    /// Damaged stores that were set aside: they were not searched.
    set_aside: Vec<String>,
}

#[derive(Serialize, Debug)]
struct Of {
    name: String,
    count: u64,
}

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let now = (TimeSource::system().wall)();
    let person = person(&options.recipient)?;
    if options.dry_run {
        let summary = count(&config, &person)?;
        return print(&summary, options.json);
    }
    let id = if is_held(&config.data_dir) {
        hand_in(&config, &person, now).await?
    } else {
        do_it(config.clone(), &person, now).await?
    };
    let erasure = Reader::open(&config.data_dir)?.erasure(id)?;
    let Some(erasure) = erasure else {
        return Err(Failure::new(Code::Store, "the erasure has vanished from the store", "run the command again"));
    };
    let summary = Summary::of(&config, &person, &erasure)?;
    print(&summary, options.json)?;
    if summary.finished {
        return Ok(());
    }
    let what = match summary.waiting.as_slice() {
        [] => "the erasure is not at its end".to_owned(),
        names => format!("the erasure is not at its end: it waits for {}", names.join(", ")),
    };
    Err(Failure::new(
        Code::Unavailable,
        what,
        "a daemon goes on with it by itself, and so does the same command; `sparkspool status` shows what ails a sink",
    ))
}

fn person(argument: &str) -> Result<Person, Failure> {
    let mut line = String::new();
    if argument == "-" {
        let read = io::stdin().lock().read_line(&mut line);
        read.map_err(|error| {
            Failure::new(Code::Usage, format!("stdin cannot be read: {error}"), "write the address there")
        })?;
    } else {
        argument.clone_into(&mut line);
    }
    // What was given may be an address all the same: it is not repeated.
    Person::new(&line).ok_or_else(|| {
        Failure::new(Code::Usage, "--recipient: that is no mail address", "write it as in the events: ann@example.org")
    })
}

/// What would be erased.
fn count(config: &Config, person: &Person) -> Result<Summary, Failure> {
    let progress = Progress::start("looking");
    let counted_so_far = |at: u64, of: u64| progress.at(at, of, "segments of the spool");
    let found = Reader::open(&config.data_dir)?.count_person(person, &mut |at, of| counted_so_far(at, of));
    progress.end();
    let (streams, dead_letters) = found?;
    let mut summary = Summary { dry_run: true, dead_letters, ..Summary::default() };
    summary.streams = streams.into_iter().map(|(name, count)| Of { name, count }).collect();
    summary.look_around(config, person)?;
    Ok(summary)
}

/// Leaves the erasure to the daemon, and watches it.
async fn hand_in(config: &Config, person: &Person, now: UtcMillis) -> Result<ErasureId, Failure> {
    let stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let id = Mailbox::open(&config.data_dir)?.add_erasure(person, now)?;
    let reader = Reader::open(&config.data_dir)?;
    let progress = Progress::start("erasing");
    let mut looks = 0;
    while let Some(erasure) = reader.erasure(id)? {
        let (at, of) = erasure.passed;
        progress.at(at, of, "segments of the spool");
        looks += u32::from(erasure.swept_at.is_some());
        if erasure.finished_at.is_some() || looks > SINK_LOOKS || !is_held(&config.data_dir) {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => {
                note!("the daemon goes on; the same command shows how far it is");
                break;
            }
        }
    }
    progress.end();
    Ok(id)
}

/// Does the erasure here, and forwards what waits: the tombstones, too.
async fn do_it(config: Config, person: &Person, now: UtcMillis) -> Result<ErasureId, Failure> {
    let data_dir = config.data_dir.clone();
    let store = super::open::store(&config)?;
    let id = Mailbox::open(&data_dir)?.add_erasure(person, now)?;
    let mut engine = Engine::new(config, store, surroundings(Some(PATIENCE)))?;
    engine.stop =
        signals::stop_token().map_err(|e| Failure::new(Code::Bug, e.to_string(), "signals cannot be watched"))?;
    let progress = Progress::start("erasing");
    let swept = {
        let watch = async {
            loop {
                if let Ok(Some(erasure)) = engine.store.read(move |reader| reader.erasure(id)).await {
                    progress.at(erasure.passed.0, erasure.passed.1, "segments of the spool");
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            swept = sweep(&engine, id) => swept,
            () = watch => Ok(false),
        }
    };
    progress.end();
    if swept? {
        // A sink that cannot be reached is told by the next run; one that has rows is waited for.
        let drained = output::drain(engine.forwarders()).await;
        let settled = settle(&engine, id, true).await?;
        if let Err(failure) = drained {
            if !settled {
                return Err(failure);
            }
            note!("warning: {}", failure.what);
        }
    }
    Ok(id)
}

impl Summary {
    fn of(config: &Config, person: &Person, erasure: &Erasure) -> Result<Self, Failure> {
        let of = |(name, count): &(String, u64)| Of { name: name.clone(), count: *count };
        let mut summary = Self {
            finished: erasure.finished_at.is_some(),
            streams: erasure.streams.iter().map(of).collect(),
            dead_letters: erasure.dead_letters,
            unreadable_segments: erasure.unreadable,
            ..Self::default()
        };
        if erasure.remains {
            summary.remains.push("sparkspool.db".to_owned());
        }
        for done in &erasure.sinks {
            summary.rows.extend(done.taken.map(|count| Of { name: done.sink.clone(), count }));
            if done.remains {
                summary.remains.push(format!("the database of sink {}", done.sink));
            }
        }
        let has_obeyed = |name: &str| erasure.sinks.iter().any(|done| done.sink == name);
        for sink in &config.sinks {
            let is_followed = config.streams.iter().any(|stream| stream.sinks.contains(&sink.name));
            match (keeps_rows(&sink.kind), is_followed) {
                (true, true) if !has_obeyed(&sink.name) => summary.waiting.push(sink.name.clone()),
                (true, false) => summary.not_asked.push(sink.name.clone()),
                (false, true) => summary.told.push(sink.name.clone()),
                _ => {}
            }
        }
        summary.look_around(config, person)?;
        Ok(summary)
    }

    /// Looks at what is not the store's own to change: other files in its directory, and stores that were set aside.
    fn look_around(&mut self, config: &Config, person: &Person) -> Result<(), Failure> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for aside in set_aside_before(&config.data_dir)? {
            self.set_aside.push(name(&aside));
        }
        let unreadable = |error: io::Error| {
            Failure::new(
                Code::Store,
                format!("{}: {error}", config.data_dir.display()),
                "check data_dir and its rights",
            )
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&config.data_dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            // The store's and the sinks' own databases are searched by whoever has them open.
            let is_theirs = name(&path).starts_with("sparkspool.db") || is_of_sink(config, &path);
            if path.is_file() && !is_theirs && holds(&path, person).unwrap_or(false) {
                files.push(name(&path));
            }
        }
        files.sort();
        self.remains.extend(files);
        Ok(())
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| out.push_str(&(text + "\n"));
        let verb = if self.dry_run { "would be erased" } else { "erased" };
        if self.streams.is_empty() {
            line("spool: nothing of the person".to_owned());
        }
        for Of { name, count } in &self.streams {
            line(format!("stream {name}: {} {verb}", counted(*count, "event", "events")));
        }
        if self.dead_letters > 0 {
            line(format!("{} {verb}", counted(self.dead_letters, "dead letter", "dead letters")));
        }
        for Of { name, count } in &self.rows {
            line(format!("sink {name}: {} taken out", counted(*count, "row", "rows")));
        }
        for name in &self.waiting {
            line(format!("sink {name}: NOT DONE YET"));
        }
        for name in &self.not_asked {
            line(format!("sink {name}: NOT ASKED, for no stream names it; what it holds stays"));
        }
        if !self.told.is_empty() && !self.streams.is_empty() {
            line(format!("told by tombstones, each in its turn: {}", self.told.join(", ")));
        }
        if self.unreadable_segments > 0 {
            let n = counted(self.unreadable_segments, "segment", "segments");
            line(format!("NOT SEARCHED: {n} of the spool that cannot be read"));
        }
        for file in &self.remains {
            line(format!("STILL THERE: {file} holds bytes that look like the address"));
        }
        for dir in &self.set_aside {
            line(format!("NOT SEARCHED: {dir}, a damaged store that was set aside; remove it where nobody needs it"));
        }
        out
    }
}

/// Whether a file belongs to a sink's database.
fn is_of_sink(config: &Config, path: &Path) -> bool {
    let text = path.to_string_lossy();
    config.sinks.iter().any(|sink| match &sink.kind {
        SinkKind::Sqlite(options) => text.starts_with(&*options.path.to_string_lossy()),
        _ => false,
    })
}

fn holds(path: &Path, person: &Person) -> io::Result<bool> {
    traces::hold(&mut File::open(path)?, person)
}

fn print(summary: &Summary, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(summary);
    }
    output::written(io::stdout().lock().write_all(summary.text().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, count: u64) -> Of {
        Of { name: name.to_owned(), count }
    }

    #[test]
    fn a_summary_says_what_was_done_and_what_was_not() {
        let done = Summary {
            finished: true,
            streams: vec![of("all", 12_431), of("bounces", 1)],
            dead_letters: 2,
            rows: vec![of("table", 12_400)],
            told: vec!["archive".to_owned(), "hook".to_owned()],
            ..Summary::default()
        };
        insta::assert_snapshot!("done", done.text());
        let partly = Summary {
            waiting: vec!["table".to_owned()],
            not_asked: vec!["old-table".to_owned()],
            unreadable_segments: 1,
            remains: vec!["sparkspool.db".to_owned(), "events-2026-11-12.ndjson".to_owned()],
            set_aside: vec!["damaged-20261112T101500Z".to_owned()],
            ..done
        };
        insta::assert_snapshot!("partly", partly.text());
        let dry = Summary { dry_run: true, streams: vec![of("all", 3)], dead_letters: 1, ..Summary::default() };
        insta::assert_snapshot!("dry_run", dry.text());
        insta::assert_snapshot!("nothing", Summary { finished: true, ..Summary::default() }.text());
        insta::assert_snapshot!("json", serde_json::to_string_pretty(&dry).unwrap());
    }

    #[test]
    fn what_is_refused_is_not_repeated() {
        let failure = person("joe@@").unwrap_err();
        assert!(failure.code == Code::Usage && !failure.what.contains("joe"), "{}", failure.what);
        assert_eq!(person(" Ann@Example.org").unwrap().address(), "ann@example.org");
    }
}
