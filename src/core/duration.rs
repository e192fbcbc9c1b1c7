//! Spans of time and sizes in bytes as people type them: `90s`, `1h30m`, `10d`, `64MiB`. It exists so that every place
//! that reads such a text takes the same forms, exactly, and refuses everything else with a sentence that helps.

use super::time::{DAY, HOUR, MINUTE, Millis, SECOND};

/// A unit and what one of it is worth, in milliseconds or bytes. Tables run from the largest to the smallest.
type Unit = (&'static str, u64);

const TIME_UNITS: &[Unit] = &[
    ("w", (7 * DAY).unsigned_abs()),
    ("d", DAY.unsigned_abs()),
    ("h", HOUR.unsigned_abs()),
    ("m", MINUTE.unsigned_abs()),
    ("s", SECOND.unsigned_abs()),
    ("ms", 1),
];

const SIZE_UNITS: &[Unit] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// What people write instead of a unit, by the unit they mean.
const MEANT: &[(&str, &[&str])] = &[
    ("ms", &["msec", "msecs", "milli", "millis", "millisecond", "milliseconds"]),
    ("s", &["sec", "secs", "second", "seconds"]),
    ("m", &["min", "mins", "minute", "minutes"]),
    ("h", &["hr", "hrs", "hour", "hours"]),
    ("d", &["day", "days"]),
    ("w", &["wk", "week", "weeks"]),
    ("KiB", &["k", "ki"]),
    ("MiB", &["m", "mi"]),
    ("GiB", &["g", "gi"]),
    ("TiB", &["t", "ti"]),
];

/// Why a text is no span of time and no size. `Display` says what is wrong, [`hint`](Self::hint) what to type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// Digits without a unit.
    #[error("`{number}` has no unit")]
    NoUnit {
        /// The digits.
        number: String,
        /// A unit that would fit.
        example: &'static str,
    },
    /// A unit, or anything else, where a number must stand.
    #[error("a number is missing before `{rest}`")]
    NoNumber {
        /// What stands there.
        rest: String,
    },
    /// A sign.
    #[error("it has a sign")]
    Signed,
    /// A decimal point.
    #[error("fractions are not read")]
    Fraction {
        /// The smaller unit to use.
        example: &'static str,
    },
    /// A unit that does not exist.
    #[error("`{unit}` is no unit")]
    UnknownUnit {
        /// As typed.
        unit: String,
        /// The unit that was probably meant.
        meant: Option<&'static str>,
        /// All units.
        known: String,
    },
    /// Units that do not run from the largest to the smallest, each once.
    #[error("`{unit}` stands after a smaller or equal unit")]
    Order {
        /// The unit that is out of order.
        unit: &'static str,
    },
    /// More than the program can count.
    #[error("it is too large")]
    TooLarge,
}

impl QuantityError {
    /// What to type instead.
    pub fn hint(&self) -> String {
        match self {
            Self::Empty => "write a number and a unit, such as `90s` or `64MiB`".to_owned(),
            Self::NoUnit { number, example } => format!("write the unit: `{number}{example}`"),
            Self::NoNumber { .. } => "write the number first, then its unit, such as `90s` or `64MiB`".to_owned(),
            Self::Signed => "leave the sign out".to_owned(),
            Self::Fraction { example } => format!("use a smaller unit, such as `{example}`"),
            Self::UnknownUnit { meant: Some(meant), .. } => format!("did you mean `{meant}`?"),
            Self::UnknownUnit { known, .. } => format!("the units are {known}"),
            Self::Order { .. } => "write the largest unit first and each unit once, such as `1h30m`".to_owned(),
            Self::TooLarge => "write a smaller number".to_owned(),
        }
    }
}

/// Reads a span of time: whole numbers with the units `w d h m s ms`, the largest first, as in `1h30m`; white space
/// may stand between them. Exact, never negative.
pub fn parse_duration(text: &str) -> Result<Millis, QuantityError> {
    let millis = parse(text, TIME_UNITS, "s", "1h30m")?;
    Millis::try_from(millis).map_err(|_| QuantityError::TooLarge)
}

/// Reads a size in bytes: whole numbers with the units `B kB KiB MB MiB GB GiB TB TiB`, as in `64MiB`. Exact.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    parse(text, SIZE_UNITS, "MiB", "1536KiB")
}

/// The shortest text that [`parse_duration`] reads back as exactly `span`. Negative spans are written as zero.
pub fn duration_text(span: Millis) -> String {
    let mut rest = u64::try_from(span).unwrap_or(0);
    if rest == 0 {
        return "0s".to_owned();
    }
    // Weeks are read but not written: people think of `10d`, not of `1w3d`.
    let parts = TIME_UNITS[1..].iter().map(|(name, worth)| {
        let count = rest / worth;
        rest %= worth;
        if count == 0 { String::new() } else { format!("{count}{name}") }
    });
    parts.collect()
}

/// The shortest single-unit text that [`parse_size`] reads back as exactly `bytes`.
pub fn size_text(bytes: u64) -> String {
    let whole = |(_, worth): &&Unit| bytes >= *worth && bytes.is_multiple_of(*worth);
    let candidates = SIZE_UNITS.iter().filter(whole).map(|(name, worth)| format!("{}{name}", bytes / worth));
    candidates.min_by_key(String::len).unwrap_or_else(|| "0B".to_owned())
}

fn parse(text: &str, units: &[Unit], example: &'static str, split: &'static str) -> Result<u64, QuantityError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(QuantityError::Empty);
    }
    if rest.starts_with(['-', '+']) {
        return Err(QuantityError::Signed);
    }
    let mut total = 0_u64;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
        if number.is_empty() {
            return Err(QuantityError::NoNumber { rest: shorten(rest) });
        }
        if after.starts_with(['.', ',']) {
            return Err(QuantityError::Fraction { example: split });
        }
        let (typed, after) = split_where(after.trim_start(), |c| c.is_ascii_digit() || c.is_whitespace());
        if typed.is_empty() {
            return Err(QuantityError::NoUnit { number: shorten(number), example });
        }
        let &(name, worth) = units.iter().find(|(name, _)| *name == typed).ok_or_else(|| unknown_unit(typed, units))?;
        if worth >= smallest {
            return Err(QuantityError::Order { unit: name });
        }
        smallest = worth;
        let count: u64 = number.parse().map_err(|_| QuantityError::TooLarge)?;
        total = count.checked_mul(worth).and_then(|part| total.checked_add(part)).ok_or(QuantityError::TooLarge)?;
        rest = after.trim_start();
    }
    Ok(total)
}

fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn unknown_unit(typed: &str, units: &[Unit]) -> QuantityError {
    let lower = typed.to_lowercase();
    let known = |wanted: &str| units.iter().map(|(name, _)| *name).find(|name| *name == wanted);
    let by_case = units.iter().map(|(name, _)| *name).find(|name| name.to_lowercase() == lower);
    let by_word =
        || MEANT.iter().filter(|(_, words)| words.contains(&lower.as_str())).find_map(|(unit, _)| known(unit));
    let names: Vec<String> = units.iter().rev().map(|(name, _)| format!("`{name}`")).collect();
    QuantityError::UnknownUnit { unit: shorten(typed), meant: by_case.or_else(by_word), known: names.join(", ") }
}

/// Keeps a message on one line, whatever was typed.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 24;
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(CHARS_MAX).collect();
    if chars.next().is_some() { format!("{head}…") } else { head }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_people_type_them() {
        let cases = [
            ("90s", 90 * SECOND),
            ("1h", HOUR),
            ("10d", 10 * DAY),
            ("1h30m", 90 * MINUTE),
            (" 1h 30m ", 90 * MINUTE),
            ("250ms", 250),
            ("2 w", 14 * DAY),
            ("0s", 0),
            ("1d2h3m4s5ms", DAY + 2 * HOUR + 3 * MINUTE + 4 * SECOND + 5),
            ("9223372036854775807ms", Millis::MAX),
        ];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text), Ok(millis), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_both_families() {
        let cases = [
            ("64MiB", 64 << 20),
            ("1GB", 1_000_000_000),
            ("1 GiB", 1 << 30),
            ("0B", 0),
            ("1kB", 1_000),
            ("18446744073709551615B", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refusals_say_what_is_wrong_and_what_to_type() {
        let said = |text: &str| {
            let error = parse_duration(text).unwrap_err();
            format!("{error}; {}", error.hint())
        };
        assert_eq!(said(""), "it is empty; write a number and a unit, such as `90s` or `64MiB`");
        assert_eq!(said("90"), "`90` has no unit; write the unit: `90s`");
        assert_eq!(said("5 minutes"), "`minutes` is no unit; did you mean `m`?");
        assert_eq!(said("5S"), "`S` is no unit; did you mean `s`?");
        assert_eq!(said("5y"), "`y` is no unit; the units are `ms`, `s`, `m`, `h`, `d`, `w`");
        assert_eq!(said("1.5h"), "fractions are not read; use a smaller unit, such as `1h30m`");
        assert_eq!(said("-1h"), "it has a sign; leave the sign out");
        assert_eq!(
            said("30m1h"),
            "`h` stands after a smaller or equal unit; write the largest unit first and each unit once, such as `1h30m`"
        );
        assert_eq!(
            said("soon"),
            "a number is missing before `soon`; write the number first, then its unit, such as `90s` or `64MiB`"
        );
        assert_eq!(said("99999999999999999999d"), "it is too large; write a smaller number");
        assert_eq!(said("9223372036854775808ms"), "it is too large; write a smaller number");
        let error = parse_size("64M").unwrap_err();
        assert_eq!((error.to_string(), error.hint()), ("`M` is no unit".to_owned(), "did you mean `MiB`?".to_owned()));
    }

    proptest! {
        #[test]
        fn writing_and_reading_are_inverse(span in 0..Millis::MAX, bytes: u64) {
            prop_assert_eq!(parse_duration(&duration_text(span)), Ok(span));
            prop_assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in "\\PC*", near in "[0-9 .a-zA-Z-]{0,30}") {
            for text in [text, near] {
                if let Err(error) = parse_duration(&text) {
                    prop_assert!(!error.to_string().is_empty() && !error.hint().is_empty());
                }
                let _ = parse_size(&text);
            }
        }
    }
}
