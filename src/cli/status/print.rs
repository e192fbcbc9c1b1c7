//! The report of `status` as a person reads it, in at most 100 columns: what runs, every stream, every sink, then each
//! trouble with its way out. It exists apart so that gathering knows nothing of layout.

use super::super::text::{bytes, counted, grouped};
use crate::core::time::{UtcMillis, humane};
use crate::daemon::board::HELD;
use crate::daemon::clock::TOLERANCE;
use crate::daemon::report::{Account, Reach, Report, Sink, Stream};
use comfy_table::{CellAlignment, ContentArrangement, Table};
use std::io::Write;

/// Nothing is wider.
const COLUMNS: u16 = 100;

/// More losses than this are counted, not listed.
const GAPS_MAX: usize = 10;

/// A learned rate below this share of the configured one is worth a word.
const SLOWED: f64 = 0.9;

/// Words that are painted where they stand first in a cell or line.
const PAINTED: [(&str, &str); 11] = [
    ("LOST", RED),
    ("DAMAGED", RED),
    ("STOPPED", RED),
    ("SUSPENDED", RED),
    ("WAITING", YELLOW),
    ("RETRYING", YELLOW),
    ("PACE", YELLOW),
    ("CLOCK", YELLOW),
    ("not running", YELLOW),
    ("running", GREEN),
    ("ok", GREEN),
];
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

impl Report {
    /// Writes the whole report; with `colours`, for a terminal.
    pub(in crate::cli) fn print(&self, out: &mut impl Write, colours: bool) -> std::io::Result<()> {
        let mut text = self.head();
        text.push_str(&format!("\n{}\n", self.streams()));
        text.push_str(&format!("\n{}\n", self.sinks()));
        let troubles = self.troubles();
        if !troubles.is_empty() {
            text.push('\n');
        }
        troubles.iter().for_each(|trouble| text.push_str(trouble));
        // Tables pad their last column.
        for line in text.lines().map(str::trim_end).flat_map(wrapped) {
            writeln!(out, "{}", if colours { painted(&line) } else { line })?;
        }
        Ok(())
    }

    fn head(&self) -> String {
        let process = self.daemon.as_ref().map_or_else(
            || "not running".to_owned(),
            |daemon| {
                format!(
                    "running, process {}, version {}, since {}",
                    daemon.pid,
                    daemon.version,
                    short(&daemon.started_at)
                )
            },
        );
        format!("daemon  {process}\nstore   {}, {} spooled\n", self.data_dir, bytes(self.spool_bytes))
    }

    fn streams(&self) -> Table {
        let headings =
            ["stream", "captured", "late", "read up to (UTC)", "behind", "expires in", "unverified", "gaps", "API"];
        let mut table = table(&headings, &[1, 2, 4, 5, 6, 7]);
        for one in &self.streams {
            let reach = |of: fn(&Reach) -> String| one.reach.as_ref().map_or_else(dash, of);
            table.add_row([
                one.name.clone(),
                grouped(one.captured),
                if one.late == 0 { dash() } else { grouped(one.late) },
                reach(|reach| to_the_minute(&reach.watermark)),
                reach(|reach| humane(reach.watermark_age_s * 1_000)),
                reach(|reach| humane(reach.retention_slack_s * 1_000)),
                if one.unverified_windows_s == 0 { dash() } else { humane(one.unverified_windows_s * 1_000) },
                if one.open_gaps == 0 { dash() } else { grouped(one.open_gaps) },
                one.dialect.clone().unwrap_or_else(dash),
            ]);
        }
        table
    }

    fn sinks(&self) -> Table {
        let mut table = table(&["sink", "kind", "waiting", "state"], &[2]);
        for sink in &self.sinks {
            let waiting = if sink.waiting == 0 { dash() } else { counted(sink.waiting, "event", "events") };
            table.add_row([sink.name.clone(), sink.kind.to_owned(), waiting, self.sink_state(sink).to_owned()]);
        }
        table
    }

    fn sink_state(&self, sink: &Sink) -> &'static str {
        if sink.paused_since.is_some() {
            return "paused, see `sparkspool sinks`";
        }
        match (&sink.error, sink.suspended, &self.daemon) {
            (Some(_), true, _) => "SUSPENDED, see below",
            (Some(_), false, _) => "RETRYING, see below",
            (None, _, Some(_)) if sink.waiting > 0 => "forwarding",
            (None, _, None) if sink.waiting > 0 => "goes on when sparkspool runs",
            (None, ..) => "ok",
        }
    }

    /// Everything that somebody must know or mend, the worst first.
    fn troubles(&self) -> Vec<String> {
        let mut said = Vec::new();
        let open: Vec<_> = self.gaps.iter().filter(|gap| !gap.acknowledged).collect();
        for gap in open.iter().take(GAPS_MAX) {
            let span = humane(gap.span_s * 1_000);
            let (from, to) = (short(&gap.from), short(&gap.to));
            said.push(format!("LOST    stream {}: {span}, {from} to {to}: {}\n", gap.stream, gap.reason));
        }
        if open.len() > GAPS_MAX {
            said.push(format!("        and {} more: see --json\n", open.len() - GAPS_MAX));
        }
        said.extend(self.rescued.as_ref().map(|sentence| format!("DAMAGED {sentence}\n")));
        for one in &self.streams {
            let held = one.activity.as_ref().and_then(|activity| activity.strip_prefix(HELD));
            let (word, what) = held.map_or(("STOPPED", one.error.as_deref()), |held| ("WAITING", Some(held)));
            said.extend(what.map(|what| trouble(word, "stream", &one.name, what, one.hint.as_ref())));
        }
        for sink in &self.sinks {
            let word = if sink.suspended { "SUSPENDED" } else { "RETRYING" };
            said.extend(
                sink.error.as_deref().map(|error| trouble(word, "sink", &sink.name, error, sink.hint.as_ref())),
            );
        }
        said.extend(self.accounts.iter().filter_map(slowed));
        said.extend(self.streams.iter().filter_map(note));
        for one in &self.backfills {
            let percent = one.read_s.saturating_mul(100) / one.span_s.max(1);
            let (from, to, events) = (short(&one.from), short(&one.to), counted(one.events, "event", "events"));
            said.push(format!("backfill of {}, {from} to {to}: {percent}% read, {events}\n", one.stream));
        }
        if self.dead_letters > 0 {
            let rows = counted(self.dead_letters, "row", "rows");
            said.push(format!("{rows} in the dead letters: no events, or refused by a sink for good\n"));
        }
        let skew = self.daemon.as_ref().and_then(|daemon| daemon.clock_skew_ms).unwrap_or(0);
        if skew.abs() > TOLERANCE {
            let side = if skew > 0 { "ahead of" } else { "behind" };
            said.push(format!(
                "CLOCK   this machine's is {} {side} the API's; sparkspool goes by the API's\n",
                humane(skew.abs())
            ));
        }
        said
    }
}

fn trouble(word: &str, what: &str, name: &str, error: &str, hint: Option<&String>) -> String {
    let mut said = format!("{word:<7} {what} {name}: {error}\n");
    hint.iter().for_each(|hint| said.push_str(&format!("        {hint}\n")));
    said
}

/// What limits the rate below what is configured.
fn slowed(account: &Account) -> Option<String> {
    let Account { name, requests_per_minute: rate, limit_per_minute: limit, open_since, .. } = account;
    let since = open_since.as_ref().map(|at| format!("; no request answered since {}", short(at)));
    (*rate < SLOWED * limit || since.is_some()).then(|| {
        let since = since.unwrap_or_default();
        format!(
            "PACE    account {name}: {rate:.1} of {limit} requests a minute, learned from the API's refusals{since}\n"
        )
    })
}

/// What a row of the table cannot say.
fn note(stream: &Stream) -> Option<String> {
    if !stream.configured {
        return Some(format!("stream {} is not in the configuration: what was captured is kept\n", stream.name));
    }
    (stream.reach.is_none() && stream.error.is_none())
        .then(|| format!("stream {} has not begun: its API has not answered yet\n", stream.name))
}

pub(in crate::cli) fn table(header: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY).set_header(header.iter().copied());
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
    for place in numbers {
        if let Some(column) = table.column_mut(*place) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

pub(in crate::cli) fn dash() -> String {
    "–".to_owned()
}

/// An instant to the minute: with whole minutes a table of nine columns fits.
pub(in crate::cli) fn to_the_minute(at: &str) -> String {
    UtcMillis::parse(at).map_or_else(|| at.to_owned(), |at| at.to_minute_text().replace('T', " "))
}

/// An instant to the second, with a blank where RFC 3339 has its `T`.
pub(in crate::cli) fn short(at: &str) -> String {
    UtcMillis::parse(at).map_or_else(|| at.to_owned(), |at| at.to_second_text().replace('T', " "))
}

/// A line in pieces of at most [`COLUMNS`], broken at blanks where there are some, the later ones set in.
pub(in crate::cli) fn wrapped(line: &str) -> Vec<String> {
    if line.chars().count() <= usize::from(COLUMNS) {
        return vec![line.to_owned()];
    }
    let mut pieces = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let last = pieces.last_mut().filter(|piece| {
            piece.is_empty() || piece.chars().count() + word.trim_end().chars().count() <= usize::from(COLUMNS)
        });
        match last {
            Some(piece) => piece.push_str(word),
            None => pieces.push(format!("        {word}")),
        }
    }
    pieces.iter().map(|piece| piece.trim_end().to_owned()).collect()
}

fn painted(line: &str) -> String {
    if line.starts_with(['─', '═', '╞', '┌', '└', '╶']) {
        return format!("{DIM}{line}{PLAIN}");
    }
    for (word, colour) in PAINTED {
        let Some(at) = line.find(word) else { continue };
        let (before, rest) = (&line[..at], &line[at + word.len()..]);
        // A name or a message may hold the word, too: it stands alone, at the begin of a line or behind two blanks.
        if (before.is_empty() || before.ends_with("  ")) && !rest.starts_with(|c: char| c.is_alphanumeric()) {
            return format!("{before}{colour}{word}{PLAIN}{rest}");
        }
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_painted_where_they_mean_something() {
        assert_eq!(painted("LOST    stream all: 1d"), format!("{RED}LOST{PLAIN}    stream all: 1d"));
        assert_eq!(painted("daemon  not running"), format!("daemon  {YELLOW}not running{PLAIN}"));
        assert_eq!(painted("daemon  running, process 7"), format!("daemon  {GREEN}running{PLAIN}, process 7"));
        assert_eq!(painted(" file   file   –   ok"), format!(" file   file   –   {GREEN}ok{PLAIN}"));
        for plain in ["stream okra", " LOSTANDFOUND  7", "stream x: the sink is ok"] {
            assert_eq!(painted(plain), plain);
        }
        assert!(painted("─────").starts_with(DIM));
    }

    #[test]
    fn long_lines_are_broken_at_blanks_and_set_in() {
        assert_eq!(wrapped("LOST    short"), ["LOST    short"]);
        let text = format!("LOST    {}", "some words ".repeat(20));
        let lines = wrapped(text.trim_end());
        assert!(lines.len() > 2 && lines[1..].iter().all(|line| line.starts_with("        ")), "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 100), "{lines:?}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&lines.join(" ")), words(&text));
        assert_eq!(wrapped(&"x".repeat(150)).concat().len(), 150);
    }

    #[test]
    fn instants_are_shown_to_the_second() {
        assert_eq!(short("2026-11-12T00:01:02.345Z"), "2026-11-12 00:01:02Z");
        assert_eq!(short("soon"), "soon");
        assert_eq!(to_the_minute("2026-11-12T00:01:02.345Z"), "2026-11-12 00:01");
    }
}
