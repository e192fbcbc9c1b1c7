//! What the demo says at its end: the account, the day at a glance, what went wrong on the way, and what to type next.
//! It exists apart from the work so that its text can be held by a snapshot, without a clock or a socket.

use super::proof::{COLUMN, Census, Verdict};
use crate::cli::text::{bar, bytes, counted, grouped};
use crate::core::time::{HOUR, Millis, UtcMillis, humane};
use crate::core::window::Window;
use crate::daemon::reconcile::Reconciled;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bars are at most this wide.
const BAR: u64 = 44;

/// A configuration for a real account, as short as it can be.
const CONFIG: &str = "\
[streams.all]
sinks = [\"archive\"]

[sinks.archive.file]
path = \"events-{date}.ndjson\"
";

/// Everything the summary is made of.
pub(super) struct Summary {
    /// The range that was read.
    pub(super) range: Window,
    /// What the file says.
    pub(super) census: Census,
    /// The file beside the simulator's list.
    pub(super) verdict: Verdict,
    /// Events on the simulator's list.
    pub(super) truth: u64,
    /// What the API counted at the end; `None` where it was not asked any more.
    pub(super) settled: Option<Reconciled>,
    /// How long the first reading took.
    pub(super) backfill: Millis,
    /// How long it was followed, and how many events appeared meanwhile; `None` where it was not.
    pub(super) followed: Option<(Millis, u64)>,
    /// The whole demo.
    pub(super) elapsed: Millis,
    /// What the API answered.
    pub(super) work: Work,
    /// Where the files are.
    pub(super) files: Files,
}

/// What the API answered, by its own account, and what the client made of it.
#[derive(Default)]
pub(super) struct Work {
    /// Requests.
    pub(super) requests: u64,
    /// Requests that were repeated.
    pub(super) retries: u64,
    /// Answers by status.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Faults that struck, by the simulator's names.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// Bytes received, compressed.
    pub(super) bytes: u64,
    /// Rows set aside because they were no events.
    pub(super) rejects: u64,
}

/// The demo's files and their sizes.
pub(super) struct Files {
    /// The NDJSON.
    pub(super) events: PathBuf,
    /// Its bytes.
    pub(super) events_bytes: u64,
    /// The store's database.
    pub(super) database: PathBuf,
    /// Its bytes.
    pub(super) database_bytes: u64,
    /// The configuration.
    pub(super) config: PathBuf,
}

impl Summary {
    /// Whether every event is accounted for.
    pub(super) fn is_proven(&self) -> bool {
        self.verdict.is_exact() && self.settled.is_some_and(|settled| settled.complete)
    }

    /// The whole text, without colour; 80 columns wide, but for longer paths.
    pub(super) fn text(&self) -> String {
        let parts = [
            self.account(),
            self.day(),
            self.types(),
            self.bounces(),
            self.troubles(),
            self.effort(),
            self.files(),
            Self::next(),
        ];
        parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("\n")
    }

    fn account(&self) -> String {
        let (from, to) = (clock(self.range.from()), clock(self.range.to()));
        let mut text = format!("A day of simulated SparkPost mail, {from} to {to} UTC\n\n");
        let (held, truth) = (grouped(self.census.events), grouped(self.truth));
        let Some(settled) = self.settled else {
            text.push_str(&format!("  {held} of {truth} events captured before it was interrupted\n"));
            text.push_str(&self.differences("  so far: "));
            return text;
        };
        let total = settled.total.map_or_else(|| "none".to_owned(), grouped);
        if self.is_proven() {
            text.push_str(&format!("  {held} of {truth} events accounted for, each of them once, byte for byte\n\n"));
        } else {
            text.push_str(&format!("  NOT ACCOUNTED FOR: {held} lines, {truth} events\n"));
            text.push_str(&self.differences("  "));
            text.push_str(&format!("  the store holds {}\n\n", counted(settled.stored, "event", "events")));
        }
        text.push_str(&format!("  {total:>9}  by the API's total_count\n"));
        text.push_str(&format!("  {truth:>9}  on the simulator's own list\n"));
        text.push_str(&format!("  {held:>9}  lines in {}\n", name(&self.files.events)));
        text
    }

    fn differences(&self, lead: &str) -> String {
        let Verdict { missing, surplus, foreign } = self.verdict;
        let parts = [
            (missing, "missing"),
            (surplus, "there more often than they should"),
            (foreign, "that the API never showed"),
        ];
        let found: Vec<_> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", grouped(*n))).collect();
        if found.is_empty() {
            format!("{lead}none twice, and none that the API did not show\n")
        } else {
            format!("{lead}{}\n", found.join(", "))
        }
    }

    /// The events of the day by half hours, two characters high.
    fn day(&self) -> String {
        let strip = &self.census.strip;
        let max = strip.iter().copied().max().unwrap_or(0);
        if max == 0 {
            return String::new();
        }
        let first = self.range.from().floor(COLUMN);
        let mut text = format!("Events by half hour, {} at most\n", grouped(max));
        for row in [1_u64, 0] {
            let cell = |count: &u64| {
                const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
                let height = (count * 16).div_ceil(max).saturating_sub(row * 8).min(8);
                EIGHTHS[usize::try_from(height).unwrap_or(0)]
            };
            let cells: String = strip.iter().map(cell).collect();
            text.push_str(format!("  {cells}").trim_end());
            text.push('\n');
        }
        let mut labels = String::from("  ");
        for column in 0..strip.len() {
            let at = first.plus(i64::try_from(column).unwrap_or(0) * COLUMN);
            let free = labels.chars().count() <= column + 2;
            if free && at.as_millis().rem_euclid(6 * HOUR) == 0 {
                labels.push_str(&" ".repeat(column + 2 - labels.chars().count()));
                labels.push_str(&format!("╵{}", &at.to_minute_text()[11..]));
            }
        }
        text.push_str(labels.trim_end());
        text.push('\n');
        text
    }

    fn types(&self) -> String {
        let mut types: Vec<_> = self.census.types.iter().collect();
        types.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
        let max = types.first().map_or(0, |(_, count)| **count);
        let mut text = String::from("Events by type\n");
        for (name, count) in types {
            text.push_str(&format!("  {name:<22} {:>7}  {}\n", grouped(*count), bar(*count, max, BAR)));
        }
        text
    }

    fn bounces(&self) -> String {
        let mut classes: Vec<_> = self.census.bounces.iter().collect();
        let Some(max) = classes.iter().map(|(_, count)| **count).max() else { return String::new() };
        let mut categories: BTreeMap<&str, u64> = BTreeMap::new();
        for ((category, _, _), count) in &classes {
            *categories.entry(category).or_default() += **count;
        }
        classes.sort_by_key(|((category, class, _), count)| {
            (std::cmp::Reverse((categories[category.as_str()], category.clone(), **count)), *class)
        });
        let mut text = String::from("Bounces by category and class\n");
        let mut last = "";
        for ((category, class, name), count) in classes {
            let shown = if category == last { "" } else { category };
            last = category;
            text.push_str(&format!(
                "  {shown:<13} {class:>3} {name:<24} {:>6}  {}\n",
                grouped(*count),
                bar(*count, max, BAR / 2)
            ));
        }
        text
    }

    /// What the simulated API did wrong, and what came of it.
    fn troubles(&self) -> String {
        let faults = &self.work.faults;
        let seen = |name: &str| faults.get(name).copied().unwrap_or(0);
        let status = |code: u16| self.work.statuses.get(&code).copied().unwrap_or(0);
        let lines = [
            (status(404), "404", "message-events is retired: the events API was found and used"),
            (status(429), "429", "too many requests: waited as long as the API asked"),
            (status(503), "503", "the API was out of order: asked again a little later"),
            (seen("truncated"), "cut off", "a body ended too soon: asked again"),
            (seen("last_row_twice"), "wrong", "a page repeated a row and lacked another: counts told"),
            (self.census.late, "late", "events appeared after their time was read: counts told"),
            (self.census.nameless, "no id", "events without an id: told apart by what is in them"),
        ];
        let mut text = String::from("What went wrong on the way, and cost no event\n");
        for (count, what, then) in lines.iter().filter(|(count, _, _)| *count > 0) {
            text.push_str(&format!("  {:>5}× {what:<8} {then}\n", grouped(*count)));
        }
        if self.work.rejects > 0 {
            let rows = counted(self.work.rejects, "row was", "rows were");
            text.push_str(&format!("  {rows} no event and set aside\n"));
        } else {
            text.push_str("      0× set aside: every row was an event\n");
        }
        text
    }

    fn effort(&self) -> String {
        let followed = self.followed.map_or_else(String::new, |(span, events)| {
            let more = counted(events, "more event", "more events");
            format!(", then followed live for {}: {more}", seconds(span))
        });
        let read = if self.settled.is_some() { "The day was read in" } else { "The reading was stopped after" };
        format!(
            "{read} {}{followed}\n{}, {} repeated, {} received; {} in all\n",
            seconds(self.backfill),
            counted(self.work.requests, "request", "requests"),
            grouped(self.work.retries),
            bytes(self.work.bytes),
            seconds(self.elapsed)
        )
    }

    fn files(&self) -> String {
        let Files { events, events_bytes, database, database_bytes, config } = &self.files;
        let (events, database, config) = (quoted(events), quoted(database), quoted(config));
        let width = [&events, &database, &config].iter().map(|text| text.chars().count()).max().unwrap_or(0);
        let mut text = String::from("The files\n");
        for (path, what) in [
            (&events, format!("normalized events, a line each, {}", bytes(*events_bytes))),
            (&database, format!("the store, SQLite, {}", bytes(*database_bytes))),
            (&config, "the configuration of this demo".to_owned()),
        ] {
            text.push_str(&format!("  {path:<width$}  {what}\n"));
        }
        text.push_str(&format!(
            "\nLook into them\n  \
             head -1 {events} | jq\n  \
             jq -r .type {events} | sort | uniq -c\n  \
             sqlite3 -box {database} 'SELECT * FROM certificate'\n  \
             sparkspool status --config {config}\n"
        ));
        text
    }

    fn next() -> String {
        let mut text = String::from(
            "The same with your account\n  SPARKPOST_API_KEY=… sparkspool backfill --since 24h > events.ndjson\n\n\
             And for good: put this into sparkspool.toml\n",
        );
        for line in CONFIG.lines() {
            text.push_str(format!("  {line}").trim_end());
            text.push('\n');
        }
        text.push_str("then\n  SPARKPOST_API_KEY=… sparkspool run --config sparkspool.toml\n");
        text
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// `2026-11-20 19:22`.
fn clock(at: UtcMillis) -> String {
    at.to_minute_text().replace('T', " ")
}

/// Seconds with one decimal below a minute.
fn seconds(span: Millis) -> String {
    if span < 60_000 { format!("{}.{} s", span / 1_000, span % 1_000 / 100) } else { humane(span) }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if text.chars().all(plain) && !text.is_empty() { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::SECOND;

    fn census() -> Census {
        let types = [
            ("sent", 4_812),
            ("delivered", 4_601),
            ("opened", 1_702),
            ("clicked", 611),
            ("deferred", 402),
            ("bounced", 214),
            ("sms_status", 19),
            ("spam_report", 9),
            ("undocumented_type", 1),
        ];
        let bounces = [
            ("hard", 10, "Invalid Recipient", 92),
            ("hard", 30, "Generic Bounce: No RCPT", 4),
            ("soft", 22, "Mailbox Full", 9),
            ("admin", 25, "Admin Failure", 52),
            ("block", 51, "Spam Block", 11),
            ("undetermined", 1, "Undetermined", 5),
        ];
        Census {
            events: 12_371,
            late: 14,
            nameless: 61,
            types: types.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            bounces: bounces
                .iter()
                .map(|(c, n, name, count)| (((*c).to_owned(), *n, (*name).to_owned()), *count))
                .collect(),
            strip: (0..50).map(|n| (n * 37) % 240 + n).collect(),
        }
    }

    fn summary() -> Summary {
        let from = UtcMillis::parse("2026-11-20T19:22:00Z").unwrap();
        let work = Work {
            requests: 84,
            retries: 5,
            statuses: [(200, 78), (404, 1), (429, 3), (503, 1)].into(),
            faults: [("throttled_seconds", 3), ("failing", 1), ("truncated", 1), ("last_row_twice", 1)].into(),
            bytes: 3_400_000,
            rejects: 0,
        };
        let files = Files {
            events: "sparkspool-demo/events.ndjson".into(),
            events_bytes: 33_000_000,
            database: "sparkspool-demo/store/sparkspool.db".into(),
            database_bytes: 2_500_000,
            config: "sparkspool-demo/sparkspool.toml".into(),
        };
        Summary {
            range: Window::new(from, from.plus(24 * HOUR + 75 * SECOND)).unwrap(),
            census: census(),
            verdict: Verdict::default(),
            truth: 12_371,
            settled: Some(Reconciled { total: Some(12_371), stored: 12_371, complete: true, fruitful: false }),
            backfill: 6_730,
            followed: Some((10_020, 243)),
            elapsed: 18_200,
            work,
            files,
        }
    }

    #[test]
    fn a_demo_that_went_well() {
        let text = summary().text();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(summary().is_proven());
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_demo_that_found_a_fault_says_which() {
        let mut bad = summary();
        bad.verdict = Verdict { missing: 3, surplus: 1, foreign: 2 };
        bad.settled = Some(Reconciled { total: Some(12_374), stored: 12_371, complete: false, fruitful: false });
        assert!(!bad.is_proven());
        insta::assert_snapshot!(bad.account());
    }

    #[test]
    fn an_interrupted_demo_says_what_there_is() {
        let mut early = summary();
        (early.settled, early.followed, early.truth) = (None, None, 13_002);
        assert!(!early.is_proven());
        insta::assert_snapshot!(early.account());
    }

    #[test]
    fn the_configuration_it_recommends_is_one() {
        let config = crate::config::parse(CONFIG, "sparkspool.toml", &|_| None).unwrap();
        assert_eq!((config.streams.len(), config.sinks.len()), (1, 1));
    }

    #[test]
    fn paths_are_quoted_only_where_a_shell_needs_it() {
        assert_eq!(quoted(Path::new("sparkspool-demo/store")), "sparkspool-demo/store");
        assert_eq!(quoted(Path::new("it's here")), r"'it'\''s here'");
    }
}
