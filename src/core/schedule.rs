//! When a stream is due: a fixed interval, or a cron expression in a time zone. It exists so that due times are
//! computed here, purely, and the daemon's timer has nothing to do but wait for them.
//!
//! # Across a change of the clocks
//! As in classic cron, an expression with one fixed time of day runs once: at the first instant after the gap when its
//! time is skipped in spring, and at the first of the two when its time comes twice in autumn. An expression that
//! repeats within the day follows real time: what is skipped is not made up for, what comes twice runs twice.

use super::duration::duration_text;
use super::time::{Millis, SECOND, UtcMillis};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;

/// When a stream's ticks are due.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// Every so many milliseconds (positive), at multiples of the interval since the Unix epoch: a restart changes nothing.
    Every(Millis),
    /// As a cron expression says, on the wall clock of a time zone.
    Cron {
        /// The expression as typed, white space trimmed.
        text: String,
        /// The expression, parsed.
        cron: Box<Cron>,
        /// Where the wall clock hangs.
        zone: TimeZone,
    },
}

/// Why a text is no schedule. `Display` says what is wrong, [`hint`](Self::hint) what to type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Neither five nor six fields.
    #[error("a cron expression has five or six fields, this one has {found}")]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// One field cannot be read.
    #[error("`{text}` cannot be read as {field}")]
    Field {
        /// The field as typed.
        text: String,
        /// Which field it is.
        field: &'static str,
        /// What the field may hold.
        range: &'static str,
    },
    /// An `@word` that is none.
    #[error("`{word}` is no cron nickname")]
    Nickname {
        /// As typed.
        word: String,
    },
    /// The fields are right, but no date fits them.
    #[error("this never comes: no date fits the day and the month")]
    Never,
}

impl ScheduleError {
    /// What to type instead.
    pub fn hint(&self) -> String {
        match self {
            Self::Fields { .. } => {
                "[second] minute hour day-of-month month day-of-week: `*/5 * * * *` is every five minutes".to_owned()
            }
            Self::Field { range, .. } => format!("{range}; also lists `1,2`, ranges `1-5` and steps `*/5`"),
            Self::Nickname { .. } => format!("there are {}", NICKNAMES.map(|name| format!("`{name}`")).join(", ")),
            Self::Never => "for the last day of every month, write `L` as the day".to_owned(),
        }
    }
}

const NICKNAMES: [&str; 6] = ["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually"];

const FIELDS: [(&str, &str); 6] = [
    ("the second", "0 to 59"),
    ("the minute", "0 to 59"),
    ("the hour", "0 to 23"),
    ("the day of the month", "1 to 31, or `L` for the last"),
    ("the month", "1 to 12, or `JAN` to `DEC`"),
    ("the day of the week", "0 to 7, where 0 and 7 are Sunday, or `SUN` to `SAT`"),
];

impl Schedule {
    /// A cron expression of five fields, or six with seconds first, on the wall clock of `zone`. Where both the day of
    /// the month and the day of the week are given, either suffices, as in classic cron.
    pub fn cron(text: &str, zone: TimeZone) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let cron = Box::new(parse_cron(text)?);
        let schedule = Self::Cron { text: text.to_owned(), cron, zone };
        // Any instant serves to find out whether a date fits at all; this one precedes a leap year.
        let ever = schedule.next_after(UtcMillis::from_secs(1_767_225_600));
        ever.map(|_| schedule).ok_or(ScheduleError::Never)
    }

    /// The first due instant later than `after`, or `None` where none is left that the calendar can express.
    pub fn next_after(&self, after: UtcMillis) -> Option<UtcMillis> {
        match self {
            Self::Every(interval) => {
                let interval = (*interval).max(1);
                after.as_millis().div_euclid(interval).checked_add(1)?.checked_mul(interval).map(UtcMillis::from_millis)
            }
            Self::Cron { cron, zone, .. } => {
                // Cron knows whole seconds: what is due later than this second's start is later than `after`, too.
                let start = jiff::Timestamp::from_second(after.as_secs()).ok()?.to_zoned(zone.clone());
                let next = cron.find_next_occurrence(&start, false).ok()?.timestamp().as_second();
                Some(UtcMillis::from_millis(next.checked_mul(SECOND)?)).filter(|next| *next > after)
            }
        }
    }

    /// The schedule in words, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Every(interval) => format!("every {}", duration_text(*interval)),
            Self::Cron { text, cron, zone } => {
                format!("`{text}` {}: {}", zone_name(zone), cron.describe().trim_end_matches('.'))
            }
        }
    }
}

fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

fn parse_cron(text: &str) -> Result<Cron, ScheduleError> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    if text.starts_with('@') {
        let known = NICKNAMES.iter().any(|name| name.eq_ignore_ascii_case(text));
        let nickname = || ScheduleError::Nickname { word: text.to_owned() };
        return if known { parser.parse(text).map_err(|_| nickname()) } else { Err(nickname()) };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if !matches!(fields.len(), 5 | 6) {
        return Err(ScheduleError::Fields { found: fields.len() });
    }
    let names = &FIELDS[FIELDS.len() - fields.len()..];
    // One field at a time, so that the field at fault can be named.
    for (place, (typed, (field, range))) in fields.iter().zip(names).enumerate() {
        let mut alone = vec!["*"; fields.len()];
        alone[place] = typed;
        if typed.contains('@') || parser.parse(&alone.join(" ")).is_err() {
            return Err(ScheduleError::Field { text: (*typed).to_owned(), field, range });
        }
    }
    parser.parse(&fields.join(" ")).map_err(|_| ScheduleError::Fields { found: fields.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::{DAY, HOUR, MINUTE};
    use proptest::prelude::*;

    fn at(text: &str) -> UtcMillis {
        UtcMillis::parse(text).unwrap()
    }

    fn cron(text: &str, zone_name: &str) -> Schedule {
        Schedule::cron(text, TimeZone::get(zone_name).unwrap()).unwrap()
    }

    /// The first `count` due instants after `from`.
    fn due(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
        let mut now = at(from);
        let step = || {
            now = schedule.next_after(now).unwrap();
            now.to_string()
        };
        std::iter::repeat_with(step).take(count).collect()
    }

    #[test]
    fn an_interval_hangs_on_the_epoch_not_on_the_start() {
        let every = Schedule::Every(15 * MINUTE);
        assert_eq!(due(&every, "2026-11-01T10:07:31Z", 2), ["2026-11-01T10:15:00Z", "2026-11-01T10:30:00Z"]);
        assert_eq!(due(&every, "2026-11-01T10:15:00Z", 1), ["2026-11-01T10:30:00Z"]);
        assert_eq!(every.next_after(UtcMillis::from_millis(-1)), Some(UtcMillis::default()));
        assert_eq!(every.next_after(UtcMillis::from_millis(i64::MAX)), None);
    }

    #[test]
    fn seconds_are_optional() {
        assert_eq!(due(&cron("*/5 * * * *", "UTC"), "2026-11-01T10:07:31Z", 1), ["2026-11-01T10:10:00Z"]);
        assert_eq!(due(&cron("30 * * * * *", "UTC"), "2026-11-01T10:07:30Z", 1), ["2026-11-01T10:08:30Z"]);
        assert_eq!(due(&cron("@hourly", "UTC"), "2026-11-01T10:07:31Z", 1), ["2026-11-01T11:00:00Z"]);
    }

    #[test]
    fn a_fraction_of_a_second_changes_nothing() {
        let schedule = cron("* * * * * *", "UTC");
        let from = UtcMillis::from_millis(1_777_777_777_999);
        assert_eq!(schedule.next_after(from), Some(UtcMillis::from_millis(1_777_777_778_000)));
    }

    #[test]
    fn either_day_suffices_where_both_are_given() {
        // 2026-11-01 is a Sunday: the 13th, and every Friday (6, 13, 20, 27).
        let both = cron("0 0 13 * FRI", "UTC");
        let days: Vec<String> = due(&both, "2026-12-01T00:00Z", 5).iter().map(|t| t[..10].to_owned()).collect();
        assert_eq!(days, ["2026-12-04", "2026-12-11", "2026-12-13", "2026-12-18", "2026-12-25"]);
    }

    #[test]
    fn new_york_in_spring_runs_a_skipped_time_once_after_the_gap() {
        // 2026-03-08: 02:00 EST becomes 03:00 EDT, at 07:00 UTC.
        assert_eq!(
            due(&cron("30 2 * * *", "America/New_York"), "2026-03-07T00:00Z", 3),
            ["2026-03-07T07:30:00Z", "2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]
        );
        assert_eq!(
            due(&cron("0 3 * * *", "America/New_York"), "2026-03-07T00:00Z", 3),
            ["2026-03-07T08:00:00Z", "2026-03-08T07:00:00Z", "2026-03-09T07:00:00Z"]
        );
    }

    #[test]
    fn new_york_in_autumn_runs_a_repeated_time_once() {
        // 2026-11-01: 02:00 EDT becomes 01:00 EST, at 06:00 UTC; 01:30 comes at 05:30 and at 06:30.
        let daily = cron("30 1 * * *", "America/New_York");
        assert_eq!(
            due(&daily, "2026-10-31T00:00Z", 3),
            ["2026-10-31T05:30:00Z", "2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
        );
        // Asked between the two, and within the second: the day is done.
        for within in ["2026-11-01T05:45:00Z", "2026-11-01T06:15:00Z", "2026-11-01T06:45:00Z"] {
            assert_eq!(due(&daily, within, 1), ["2026-11-02T06:30:00Z"], "{within}");
        }
    }

    #[test]
    fn berlin_in_both_directions() {
        // 2026-03-29: 02:00 becomes 03:00 at 01:00 UTC. 2026-10-25: 03:00 becomes 02:00 at 01:00 UTC.
        let daily = cron("15 2 * * *", "Europe/Berlin");
        assert_eq!(
            due(&daily, "2026-03-28T00:00Z", 3),
            ["2026-03-28T01:15:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:15:00Z"]
        );
        assert_eq!(
            due(&daily, "2026-10-24T00:00Z", 3),
            ["2026-10-24T00:15:00Z", "2026-10-25T00:15:00Z", "2026-10-26T01:15:00Z"]
        );
    }

    #[test]
    fn what_repeats_within_the_day_follows_real_time() {
        for (zone, from) in [("America/New_York", "2026-03-08T05:00Z"), ("America/New_York", "2026-11-01T04:00Z")] {
            let schedule = cron("*/20 * * * *", zone);
            let mut now = at(from);
            for _ in 0..18 {
                let next = schedule.next_after(now).unwrap();
                assert_eq!(next.since(now), 20 * MINUTE, "{zone} after {now}");
                now = next;
            }
        }
    }

    #[test]
    fn a_leap_day_comes_and_the_thirtieth_of_february_does_not() {
        assert_eq!(due(&cron("0 0 29 2 *", "UTC"), "2026-01-01T00:00Z", 1), ["2028-02-29T00:00:00Z"]);
        assert_eq!(Schedule::cron("0 0 30 2 *", TimeZone::UTC), Err(ScheduleError::Never));
    }

    #[test]
    fn refusals_name_the_field() {
        let said = |text: &str| Schedule::cron(text, TimeZone::UTC).unwrap_err().to_string();
        assert_eq!(said("61 * * * *"), "`61` cannot be read as the minute");
        assert_eq!(said("* * * * * MOO"), "`MOO` cannot be read as the day of the week");
        assert_eq!(said("* * *"), "a cron expression has five or six fields, this one has 3");
        assert_eq!(said("0 0 0 1 1 * 2030"), "a cron expression has five or six fields, this one has 7");
        assert_eq!(said(""), "a cron expression has five or six fields, this one has 0");
        assert_eq!(said("@reboot"), "`@reboot` is no cron nickname");
        assert_eq!(said("@daily * * * *"), "`@daily * * * *` is no cron nickname");
    }

    #[test]
    fn people_can_read_it() {
        assert_eq!(Schedule::Every(90 * MINUTE).describe(), "every 1h30m");
        let described = cron("30 2 * * MON", "Europe/Berlin").describe();
        assert_eq!(described, "`30 2 * * MON` Europe/Berlin: At 02:30, on Monday");
    }

    proptest! {
        #[test]
        fn time_always_moves_on(
            ms in 0_i64..4_000_000_000_000,
            text in "(\\*|\\*/7|0|30) (\\*|\\*/15|0|45) (\\*|0|2|3|22) \\* \\* (\\*|MON)",
            zone in prop::sample::select(vec!["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe"]),
        ) {
            let from = UtcMillis::from_millis(ms);
            let next = cron(&text, zone).next_after(from).unwrap();
            prop_assert!(next > from && next.since(from) <= 8 * DAY + 2 * HOUR);
        }

        #[test]
        fn intervals_are_multiples(ms in -4_000_000_000_000_i64..4_000_000_000_000, interval in 1_i64..100 * DAY) {
            let from = UtcMillis::from_millis(ms);
            let next = Schedule::Every(interval).next_after(from).unwrap();
            prop_assert!(next > from && next.since(from) <= interval && next.as_millis() % interval == 0);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}", near in "[0-9*/,#LW?@+A-Z -]{0,20}") {
            for text in [text, near] {
                let _ = Schedule::cron(&text, TimeZone::UTC);
            }
        }
    }
}
