//! An audit as a person reads it, in at most 100 columns: a table of all streams, then the timeline of each, then what
//! differs. It exists apart so that comparing knows nothing of layout.

use super::super::status::print::{dash, table, to_the_minute, wrapped};
use super::super::text::{counted, grouped};
use super::{Audited, Counts, Report, timeline};
use comfy_table::ColumnConstraint;
use std::io::Write;

/// More differences than this are counted, not listed.
const LISTED_MAX: usize = 10;

/// Writes the whole report.
pub(super) fn print(report: &Report, out: &mut (impl Write + std::io::IsTerminal)) -> std::io::Result<()> {
    let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    out.write_all(text(report, colours).as_bytes())
}

fn text(report: &Report, colours: bool) -> String {
    let headings = ["stream", "complete", "unverified", "short", "gap", "unread", "stored", "API counts", "differ"];
    let mut streams = table(&headings, &[1, 2, 3, 4, 5, 6, 7, 8]);
    for one in &report.streams {
        streams.add_row(row(one));
    }
    // Where it is too wide, long names are broken, and never a number.
    streams.column_iter_mut().skip(1).for_each(|column| {
        column.set_constraint(ColumnConstraint::ContentWidth);
    });
    let mut out = String::new();
    // Tables pad their last column.
    streams.to_string().lines().for_each(|line| out.push_str(&format!("{}\n", line.trim_end())));
    for one in &report.streams {
        out.push_str(&account(one, colours));
    }
    if report.streams.iter().any(|one| !one.timeline.is_empty()) {
        out.push_str(&format!("\n{}\n", timeline::legend(colours)));
    }
    let requests = counted(report.requests, "request", "requests");
    if report.complete {
        out.push_str(&format!("\ncomplete: the API counts nothing that is not stored ({requests})\n"));
    } else {
        out.push_str(&format!("\ncompared in {requests}\n"));
    }
    out
}

fn row(one: &Audited) -> [String; 9] {
    let Counts { complete, unverified, short, gap, unread } = one.hours;
    let number = |n: usize| if n == 0 { dash() } else { format!("{n} h") };
    let expected = one.stored - one.erased;
    let difference = one.api_count.map(|count| match (count.checked_sub(expected), expected.checked_sub(count)) {
        (Some(0), _) => dash(),
        (Some(more), _) => format!("+{}", grouped(more)),
        (None, fewer) => format!("-{}", grouped(fewer.unwrap_or(0))),
    });
    [
        one.name.clone(),
        number(complete),
        number(unverified),
        number(short),
        number(gap),
        number(unread),
        grouped(expected),
        one.api_count.map_or_else(|| "?".to_owned(), grouped),
        difference.unwrap_or_else(|| "?".to_owned()),
    ]
}

fn account(one: &Audited, colours: bool) -> String {
    let mut out = match (&one.from, &one.to) {
        (Some(from), Some(to)) => {
            format!("\n{}: {} to {} (UTC)\n", one.name, to_the_minute(from), to_the_minute(to))
        }
        _ if one.notes.is_empty() => format!("\n{}: nothing is due yet\n", one.name),
        _ => format!("\n{}: not audited\n", one.name),
    };
    for line in timeline::lines(&one.timeline, colours) {
        out.push_str(&format!("{line}\n"));
    }
    let mut said: Vec<String> = one.notes.iter().map(|note| format!("NOTE    {note}")).collect();
    if one.erased > 0 {
        let erased = counted(one.erased, "more is stored and was", "more are stored and were");
        said.push(format!("{erased} erased at the API since: not counted here, and not missed"));
    }
    for difference in one.differences.iter().take(LISTED_MAX) {
        let (from, to) = (to_the_minute(&difference.from), to_the_minute(&difference.to));
        let (stored, api) = (difference.stored, difference.api_count);
        said.push(if api > stored {
            format!("SHORT   {from} to {to}: {} of {} missing", grouped(api - stored), counted(api, "event", "events"))
        } else {
            format!("FEWER   {from} to {to}: the API counts {}, {} are stored", grouped(api), grouped(stored))
        });
    }
    if one.differences.len() > LISTED_MAX {
        said.push(format!("        and {} more: see --json", one.differences.len() - LISTED_MAX));
    }
    said.iter().flat_map(|line| wrapped(&format!("  {line}"))).for_each(|line| out.push_str(&format!("{line}\n")));
    out
}

/// What is not complete, in one sentence.
pub(super) fn summary(counts: Counts, missing: u64) -> String {
    let Counts { unverified, short, gap, unread, .. } = counts;
    let hours = |n: usize| counted(n as u64, "hour", "hours");
    let mut said = Vec::new();
    if short > 0 {
        said.push(format!("{} short of {}", hours(short), counted(missing, "event", "events")));
    }
    if gap > 0 {
        said.push(format!("{} expired unread", hours(gap)));
    }
    if unread > 0 {
        said.push(format!("{} not read yet", hours(unread)));
    }
    if unverified > 0 {
        said.push(format!("{} not verified", hours(unverified)));
    }
    if said.is_empty() {
        said.push("a stream could not be audited".to_owned());
    }
    format!("not complete: {}", said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::Difference;
    use super::*;
    use crate::core::hours::{Hour, Standing};
    use crate::core::time::{HOUR, UtcMillis};
    use insta::assert_snapshot;

    fn audited(name: &str) -> Audited {
        let from = UtcMillis::parse("2026-11-11T18:00Z").unwrap();
        let standing = |i: i64| match i {
            0 => Standing::Gap,
            20..=21 => Standing::Short,
            100 => Standing::Unverified,
            237.. => Standing::Unread,
            _ => Standing::Complete,
        };
        let difference = |day: u32, hour: u32, stored, api_count| Difference {
            from: format!("2026-11-{day}T{hour:02}:00:00Z"),
            to: format!("2026-11-{day}T{:02}:00:00Z", hour + 1),
            stored,
            api_count,
        };
        Audited {
            name: name.into(),
            from: Some("2026-11-11T18:15:00Z".into()),
            to: Some("2026-11-21T18:00:00Z".into()),
            hours: Counts { complete: 233, unverified: 1, short: 2, gap: 1, unread: 3 },
            stored: 12_345_678,
            erased: 3,
            api_count: Some(12_345_690),
            missing: 17,
            notes: vec![],
            differences: vec![
                difference(12, 14, 1_204, 1_220),
                difference(12, 15, 980, 981),
                difference(15, 22, 400, 398),
            ],
            timeline: (0..240).map(|i| Hour { from: from.plus(i * HOUR), standing: standing(i) }).collect(),
            ..Audited::default()
        }
    }

    #[test]
    fn a_report_is_read_from_its_top() {
        let mut fine = audited("transactional");
        fine.timeline.iter_mut().for_each(|hour| hour.standing = Standing::Complete);
        fine.differences.clear();
        (fine.hours, fine.erased, fine.api_count) =
            (Counts { complete: 240, ..Counts::default() }, 0, Some(fine.stored));
        let changed = Audited {
            name: "bounces".into(),
            notes: vec!["its filter or account was changed since it was last read".into()],
            ..Audited::default()
        };
        let idle = Audited { name: "idle".into(), api_count: Some(0), ..Audited::default() };
        let report = Report { complete: false, requests: 14, streams: vec![audited("all"), changed, fine, idle] };
        let said = text(&report, false);
        assert!(said.lines().all(|line| line.chars().count() <= 100), "{said}");
        assert_snapshot!("report", said);
        assert_snapshot!("report_summary", summary(report.streams[0].hours, report.streams[0].missing));
        assert_eq!(summary(Counts::default(), 0), "not complete: a stream could not be audited");
    }

    #[test]
    fn many_differences_are_counted() {
        let mut one = audited("all");
        while one.differences.len() < 25 {
            one.differences.extend(audited("all").differences);
        }
        let said = account(&one, false);
        assert!(said.contains("and 17 more: see --json"), "{said}");
    }
}
