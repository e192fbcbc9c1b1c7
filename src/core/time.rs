//! One instant type for the whole program, and the reading and writing of the time formats SparkPost uses.
//! It exists so that no second clock type, local time or float can slip into the arithmetic of windows.

use std::fmt;

/// An instant: milliseconds since the Unix epoch, UTC. Negative before 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UtcMillis(i64);

/// A span of time in milliseconds; never negative where a type of this module hands it out.
pub type Millis = i64;

/// One second, in milliseconds.
pub const SECOND: Millis = 1_000;
/// One minute, in milliseconds.
pub const MINUTE: Millis = 60 * SECOND;
/// One hour, in milliseconds.
pub const HOUR: Millis = 60 * MINUTE;
/// One day, in milliseconds.
pub const DAY: Millis = 24 * HOUR;

impl UtcMillis {
    /// The instant `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// The instant `secs` seconds after the Unix epoch, saturating at the ends of the range.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(SECOND))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(SECOND)
    }

    /// The latest multiple of `step` milliseconds at or before this instant. `step` must be positive.
    pub const fn floor(self, step: Millis) -> Self {
        Self(self.0.div_euclid(step) * step)
    }

    /// The earliest multiple of `step` milliseconds at or after this instant. `step` must be positive.
    pub const fn ceil(self, step: Millis) -> Self {
        Self(self.0.saturating_add(step - 1)).floor(step)
    }

    /// This instant moved by `delta` milliseconds (negative: back), saturating.
    #[must_use]
    pub const fn plus(self, delta: Millis) -> Self {
        Self(self.0.saturating_add(delta))
    }

    /// Milliseconds from `earlier` to this instant; negative when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Millis {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads an event's time in every form the vendor has used: ISO 8601 with `Z` or an offset, with or without a
    /// fraction of a second, or epoch seconds as digits (webhooks). `None` when it is none of these.
    ///
    /// The forms are those listed in the vendor's documentation and live captures: the legacy API sends `+00:00`,
    /// the Events API `Z`, webhooks epoch seconds.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if !bytes.is_empty() && bytes.len() <= 12 && bytes.iter().all(u8::is_ascii_digit) {
            return text.parse().ok().map(Self::from_secs);
        }
        parse_iso(bytes)
    }

    /// `YYYY-MM-DDTHH:MM`, UTC: the legacy API's form of `from` and `to`, which knows no seconds.
    pub fn to_minute_text(self) -> String {
        let c = Civil::of(self);
        format!("{:04}-{:02}-{:02}T{:02}:{:02}", c.year, c.month, c.day, c.hour, c.minute)
    }

    /// `YYYY-MM-DDTHH:MM:SSZ`: the Events API's form of `from` and `to`.
    pub fn to_second_text(self) -> String {
        let c = Civil::of(self);
        format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", c.year, c.month, c.day, c.hour, c.minute, c.second)
    }

    /// `YYYY-MM-DD`, UTC: the `{date}` of file names and the `date=` of partitions.
    pub fn to_date_text(self) -> String {
        let c = Civil::of(self);
        format!("{:04}-{:02}-{:02}", c.year, c.month, c.day)
    }

    /// Appends RFC 3339 with milliseconds and `Z`, without quotes; always 24 bytes for years 0000–9999.
    pub fn write_rfc3339(self, out: &mut Vec<u8>) {
        let c = Civil::of(self);
        push_padded(out, c.year.unsigned_abs(), 4);
        out.push(b'-');
        push_padded(out, c.month, 2);
        out.push(b'-');
        push_padded(out, c.day, 2);
        out.push(b'T');
        push_padded(out, c.hour, 2);
        out.push(b':');
        push_padded(out, c.minute, 2);
        out.push(b':');
        push_padded(out, c.second, 2);
        out.push(b'.');
        push_padded(out, c.milli, 3);
        out.push(b'Z');
    }
}

impl fmt::Display for UtcMillis {
    /// RFC 3339 in UTC; the fraction is left out where it is zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = Civil::of(*self);
        write!(f, "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", c.year, c.month, c.day, c.hour, c.minute, c.second)?;
        if c.milli != 0 {
            write!(f, ".{:03}", c.milli)?;
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for UtcMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A span for people: the two largest units, `10d`, `1h 30m`, `90s` as `1m 30s`, `250ms`.
pub fn humane(span: Millis) -> String {
    let units = [(DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")];
    let magnitude = span.abs();
    let sign = if span < 0 { "-" } else { "" };
    if magnitude < SECOND {
        return format!("{sign}{magnitude}ms");
    }
    let mut rest = magnitude;
    let mut parts = Vec::new();
    for (unit, name) in units {
        if rest >= unit {
            parts.push(format!("{}{name}", rest / unit));
            rest %= unit;
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    format!("{sign}{}", parts.join(" "))
}

/// A date and time of day in UTC, in the proleptic Gregorian calendar.
struct Civil {
    year: i64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    milli: u64,
}

impl Civil {
    fn of(at: UtcMillis) -> Self {
        let days = at.0.div_euclid(DAY);
        let in_day = at.0.rem_euclid(DAY).unsigned_abs();
        let (year, month, day) = civil_from_days(days);
        Self {
            year,
            month,
            day,
            hour: in_day / 3_600_000,
            minute: in_day / 60_000 % 60,
            second: in_day / 1_000 % 60,
            milli: in_day % 1_000,
        }
    }
}

/// Days since 1970-01-01 to a date, by the era method: 400-year eras that begin on 1 March, so that the leap day
/// is the last day of its year.
fn civil_from_days(days: i64) -> (i64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month.unsigned_abs(), day.unsigned_abs())
}

/// The inverse of [`civil_from_days`]; the date must be valid.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn push_padded(out: &mut Vec<u8>, value: u64, width: u32) {
    let mut unit = 10_u64.pow(width - 1);
    while unit > 0 {
        // A single decimal digit always fits u8.
        out.push(b'0' + u8::try_from(value / unit % 10).unwrap_or(0));
        unit /= 10;
    }
}

/// `YYYY-MM-DDTHH:MM[:SS[.fff…]](Z|±HH[:]MM|)`; a missing zone means UTC, as in the legacy API's own links.
fn parse_iso(text: &[u8]) -> Option<UtcMillis> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.iter().try_fold(0_i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| text.get(at).is_some_and(|b| wanted.contains(b));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute) = (number(11..13)?, number(14..16)?);
    let (mut second, mut milli, mut at) = (0, 0, 16);
    if is(16, b":") {
        second = number(17..19)?;
        at = 19;
        if is(19, b".,") {
            let fraction = text[20..].iter().take_while(|b| b.is_ascii_digit()).count();
            if fraction == 0 {
                return None;
            }
            for place in 0..3 {
                milli = milli * 10 + if place < fraction { number(20 + place..21 + place)? } else { 0 };
            }
            at = 20 + fraction;
        }
    }
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let offset_minutes = parse_offset(&text[at..])?;
    valid.then(|| {
        let minutes = days_from_civil(year, month, day) * 1_440 + hour * 60 + minute - offset_minutes;
        // A leap second is read as the last second of its minute, so that it stays in that minute's window.
        UtcMillis(minutes * MINUTE + second.min(59) * SECOND + milli)
    })
}

/// Minutes east of UTC.
fn parse_offset(text: &[u8]) -> Option<i64> {
    let digit = |at: usize| text.get(at).filter(|b| b.is_ascii_digit()).map(|b| i64::from(b - b'0'));
    match text {
        b"" | b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), ..] => {
            let colon = usize::from(text.get(3) == Some(&b':'));
            if text.len() != 5 + colon {
                return None;
            }
            let minutes = (digit(1)? * 10 + digit(2)?) * 60 + digit(3 + colon)? * 10 + digit(4 + colon)?;
            Some(if *sign == b'-' { -minutes } else { minutes })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_the_vendor_has_used_names_the_same_instant() {
        for text in [
            "2017-04-26T21:37:32.000+00:00",
            "2017-04-26T21:37:32.000Z",
            "2017-04-26T21:37:32Z",
            "2017-04-26T17:37:32.000-04:00",
            "2017-04-26T17:37:32-0400",
            "2017-04-26T21:37:32",
            "1493242652",
        ] {
            assert_eq!(UtcMillis::parse(text), Some(UtcMillis::from_secs(1_493_242_652)), "{text}");
        }
        assert_eq!(UtcMillis::parse("2017-04-26T21:37").map(UtcMillis::as_secs), Some(1_493_242_620));
        assert_eq!(UtcMillis::parse("2017-04-26T21:37:32.25Z").map(UtcMillis::as_millis), Some(1_493_242_652_250));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "2017-13-01T00:00",
            "2017-02-29T00:00Z",
            "2017-04-26",
            "2017-04-26T25:00Z",
            "2017-04-26T21:37:32.Z",
            "2017-04-26T21:37:32+0",
            "2017-04-26T21:37:32 UTC",
            "-1493242652",
            "14932426520000000",
        ] {
            assert_eq!(UtcMillis::parse(text), None, "{text}");
        }
    }

    #[test]
    fn spans_read_as_people_say_them() {
        let cases = [
            (0, "0ms"),
            (90 * SECOND, "1m 30s"),
            (10 * DAY, "10d"),
            (DAY + 2 * HOUR + MINUTE, "1d 2h"),
            (DAY + MINUTE, "1d"),
            (-HOUR, "-1h"),
        ];
        for (span, text) in cases {
            assert_eq!(humane(span), text);
        }
    }

    proptest! {
        #[test]
        fn printing_and_reading_are_inverse(ms in -62_135_596_800_000_i64..253_402_300_799_999) {
            let at = UtcMillis::from_millis(ms);
            prop_assert_eq!(UtcMillis::parse(&at.to_string()), Some(at));
            let mut out = Vec::new();
            at.write_rfc3339(&mut out);
            prop_assert_eq!(out.len(), 24);
            prop_assert_eq!(UtcMillis::parse(std::str::from_utf8(&out).unwrap()), Some(at));
        }

        #[test]
        fn agrees_with_a_calendar_library(secs in -62_135_596_800_i64..253_402_300_799) {
            let theirs = jiff::Timestamp::from_second(secs).unwrap().to_string();
            prop_assert_eq!(UtcMillis::from_secs(secs).to_string(), theirs);
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = UtcMillis::parse(&text);
        }

        #[test]
        fn floor_and_ceil_bracket(ms in -1_000_000_000_000_i64..4_000_000_000_000, step in 1_i64..100_000_000) {
            let at = UtcMillis::from_millis(ms);
            prop_assert!(at.floor(step) <= at && at.since(at.floor(step)) < step);
            prop_assert!(at.ceil(step) >= at && at.ceil(step).since(at) < step);
        }
    }
}
