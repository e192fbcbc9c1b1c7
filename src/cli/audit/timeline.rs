//! The timeline of an audit: one character an hour, three days a line, each day under its date. It exists as a pure
//! function of hours, so that what an operator looks at first is tested letter by letter.

use crate::core::hours::{Hour, Standing};
use crate::core::time::{DAY, HOUR, UtcMillis};

/// Days a line: with them it is 78 columns wide.
const DAYS_A_LINE: usize = 3;

/// What an hour looks like, in words and in colour. Each is a letter of its own, for those who print or see no colours.
const LOOKS: [(Standing, char, &str, &str); 5] = [
    (Standing::Complete, '█', "complete", "\x1b[32m"),
    (Standing::Unverified, '?', "unverified", "\x1b[33m"),
    (Standing::Short, '!', "short", "\x1b[1;31m"),
    (Standing::Gap, 'X', "gap", "\x1b[1;31m"),
    (Standing::Unread, '·', "not read yet", "\x1b[36m"),
];
const PLAIN: &str = "\x1b[0m";

/// The lines of `hours`, which follow each other without a hole; with `colours`, for a terminal.
pub(in crate::cli) fn lines(hours: &[Hour], colours: bool) -> Vec<String> {
    let Some(first) = hours.first().map(|hour| hour.from.floor(DAY)) else { return Vec::new() };
    let days = hours.last().map_or(0, |last| last.from.since(first) / DAY + 1);
    let days: Vec<UtcMillis> = (0..days).map(|day| first.plus(day * DAY)).collect();
    let mut lines = Vec::new();
    for some in days.chunks(DAYS_A_LINE) {
        let dates: Vec<String> = some.iter().map(|day| format!("{:24}", date(*day))).collect();
        let strips: Vec<String> = some.iter().map(|day| strip(hours, *day, colours)).collect();
        lines.extend([dates.join("  "), strips.join("  ")].map(|line| format!("  {}", line.trim_end())));
    }
    lines
}

/// What the letters mean.
pub(in crate::cli) fn legend(colours: bool) -> String {
    let words = LOOKS.map(|(standing, _, word, _)| format!("{} {word}", looks(standing, colours)));
    format!("  {}   one letter an hour, UTC", words.join("  "))
}

fn strip(hours: &[Hour], day: UtcMillis, colours: bool) -> String {
    let first = hours.first().map_or(day, |hour| hour.from);
    let standing = |hour: i64| {
        let place = usize::try_from(day.plus(hour * HOUR).since(first) / HOUR).ok();
        let known = place.filter(|_| day.plus(hour * HOUR) >= first).and_then(|place| hours.get(place));
        known.map_or(Standing::Outside, |hour| hour.standing)
    };
    (0..24).map(|hour| looks(standing(hour), colours)).collect()
}

fn looks(standing: Standing, colours: bool) -> String {
    match LOOKS.iter().find(|(known, ..)| *known == standing) {
        Some((_, letter, _, colour)) if colours => format!("{colour}{letter}{PLAIN}"),
        Some((_, letter, ..)) => letter.to_string(),
        None => " ".to_owned(),
    }
}

fn date(day: UtcMillis) -> String {
    // 1970-01-01 was a Thursday.
    const NAMES: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let number = usize::try_from((day.as_millis() / DAY).rem_euclid(7)).unwrap_or(0);
    format!("{} {}", day.to_date_text(), NAMES[number])
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    fn hours(from: &str, letters: &str) -> Vec<Hour> {
        let from = UtcMillis::parse(from).unwrap();
        let standing = |letter| LOOKS.iter().find(|look| look.1 == letter).map_or(Standing::Outside, |look| look.0);
        (0..).zip(letters.chars()).map(|(i, c)| Hour { from: from.plus(i * HOUR), standing: standing(c) }).collect()
    }

    #[test]
    fn a_day_begins_under_its_date() {
        let ten_days = format!(" XX{}!!{}??{}···", "█".repeat(90), "█".repeat(40), "█".repeat(96));
        let text = lines(&hours("2026-11-11T17:00Z", &ten_days), false).join("\n");
        assert!(text.lines().all(|line| line.chars().count() <= 78), "{text}");
        assert_snapshot!("ten_days", format!("{text}\n\n{}", legend(false)));
    }

    #[test]
    fn one_hour_is_one_letter_at_its_place() {
        assert_eq!(
            lines(&hours("2026-11-21T23:00Z", "!"), false),
            ["  2026-11-21 Sat", &format!("{}!", " ".repeat(25))]
        );
        assert!(lines(&[], true).is_empty());
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let hours = hours("2026-11-11T17:00Z", "X!?·█ █");
        let coloured = lines(&hours, true).join("\n") + &legend(true);
        let mut plain = coloured.clone();
        for colour in LOOKS.iter().map(|look| look.3).chain([PLAIN]) {
            assert!(coloured.contains(colour), "{colour:?}");
            plain = plain.replace(colour, "");
        }
        assert_eq!(plain, lines(&hours, false).join("\n") + &legend(false));
    }
}
