//! The gaps as a person reads them, in at most 100 columns: a table, and beneath it what was lost in each.
//! It exists apart so that counting knows nothing of layout.

use super::super::status::print::{dash, table, to_the_minute, wrapped};
use super::super::text::{counted, grouped};
use super::{Report, Row};
use crate::core::time::{UtcMillis, humane};
use crate::core::window::Window;
use crate::daemon::losses::is_kept;

/// The whole report.
pub(super) fn text(report: &Report, now: UtcMillis) -> String {
    if report.gaps.is_empty() {
        return "no gaps: nothing has expired unread\n".to_owned();
    }
    let mut gaps = table(&["id", "stream", "from (UTC)", "to (UTC)", "how long", "acknowledged"], &[0, 4]);
    for row in &report.gaps {
        gaps.add_row([
            row.id.to_string(),
            row.stream.clone(),
            to_the_minute(&row.from),
            to_the_minute(&row.to),
            humane(row.span_s * 1_000),
            row.acknowledged_at.as_deref().map_or_else(dash, to_the_minute),
        ]);
    }
    let mut out = String::new();
    // Tables pad their last column.
    gaps.to_string().lines().for_each(|line| out.push_str(&format!("{}\n", line.trim_end())));
    let mut said = vec![String::new()];
    for row in &report.gaps {
        let found = to_the_minute(&row.found_at);
        said.push(format!("{:>4}  {}, found {found}; {}", row.id, row.reason, lost(row, now)));
    }
    if report.gaps.iter().any(|row| row.lost.is_some() && !row.lost_is_filtered) {
        said.push(String::new());
        said.push("whole account: Metrics does not know the stream's filter, which may let less through".to_owned());
    }
    for (account, why) in &report.not_counted {
        said.push(String::new());
        said.push(format!("account {account}: what was lost could not be counted: {why}"));
    }
    said.push(String::new());
    let open = report.gaps.iter().filter(|row| row.acknowledged_at.is_none()).count();
    said.push(if open == 0 {
        "all are acknowledged".to_owned()
    } else {
        let open = counted(open as u64, "gap is", "gaps are");
        format!("{open} open; `sparkspool gaps acknowledge` says that they were seen")
    });
    said.iter().flat_map(|line| wrapped(line)).for_each(|line| out.push_str(&format!("{line}\n")));
    out
}

fn lost(row: &Row, now: UtcMillis) -> String {
    let Some(lost) = &row.lost else {
        let range = UtcMillis::parse(&row.from).zip(UtcMillis::parse(&row.to));
        let kept = range.and_then(|(from, to)| Window::new(from, to)).is_none_or(|range| is_kept(range, now));
        return if kept { "lost: not counted" } else { "lost: not known, Metrics reach back six months" }.to_owned();
    };
    let mut kinds: Vec<(&String, u64)> = lost.iter().map(|(kind, n)| (kind, *n)).filter(|(_, n)| *n > 0).collect();
    kinds.sort_by_key(|(kind, n)| (std::cmp::Reverse(*n), *kind));
    let whose = if row.lost_is_filtered { "" } else { " (whole account)" };
    if kinds.is_empty() {
        return format!("lost{whose}: no events");
    }
    let total = counted(kinds.iter().map(|(_, n)| n).sum(), "event", "events");
    let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{} {kind}", grouped(*n))).collect();
    format!("lost{whose}: {total}: {}", kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Lost;
    use insta::assert_snapshot;
    use std::collections::BTreeMap;

    fn row(id: i64, from: &str, lost: Option<&[(&str, u64)]>, exact: bool, acknowledged: bool) -> Row {
        Row {
            id,
            stream: "bounces".into(),
            from: from.into(),
            to: "2026-11-02T04:30:00Z".into(),
            span_s: 187_200,
            reason: "expired before it could be read".into(),
            found_at: "2026-11-12T04:31:10Z".into(),
            acknowledged_at: acknowledged.then(|| "2026-11-12T09:00:00Z".into()),
            lost: lost.map(|lost| lost.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect::<Lost>()),
            lost_is_filtered: exact,
        }
    }

    #[test]
    fn gaps_are_a_table_and_what_was_lost() {
        let now = UtcMillis::parse("2026-11-21T18:00Z").unwrap();
        let many: Vec<(&str, u64)> = vec![
            ("injection", 120_345),
            ("delivery", 118_002),
            ("open", 40_100),
            ("initial_open", 41_001),
            ("click", 3_012),
            ("bounce", 1_903),
            ("delay", 800),
            ("spam_complaint", 4),
            ("out_of_band", 0),
        ];
        let gaps = vec![
            row(3, "2026-10-31T00:30:00Z", Some(&many), false, false),
            row(17, "2026-11-01T00:30:00Z", Some(&[("bounce", 12)]), true, true),
            row(18, "2026-11-01T00:30:00Z", Some(&[("bounce", 0)]), true, false),
            row(19, "2019-11-01T00:30:00Z", None, true, false),
            row(20, "2026-11-01T00:30:00Z", None, true, false),
        ];
        let why = "the key lacks the grant \"Metrics: Read-only\" (HTTP 403)".to_owned();
        let report = Report { gaps, not_counted: BTreeMap::from([("default".to_owned(), why)]) };
        let said = text(&report, now);
        assert!(said.lines().all(|line| line.chars().count() <= 100), "{said}");
        assert_snapshot!("gaps", said);
        let none = Report { gaps: vec![], not_counted: BTreeMap::new() };
        assert_eq!(text(&none, now), "no gaps: nothing has expired unread\n");
    }
}
