//! A query string, read as the simulated API reads it: names are case-sensitive, unknown names are ignored `[D]`.
//! It exists apart from paging so that every refusal of a parameter is in one place; all their texts are assumed `[A]`.

use crate::core::time::UtcMillis;
use jiff::tz::TimeZone;

/// A parameter that the API does not accept: 400 with code `1200` and this description, both assumed `[A]`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}; correct the parameter")]
pub struct Problem(pub(super) String);

/// One `name=value` of a query.
pub(super) struct Param<'a> {
    pub(super) name: String,
    pub(super) value: String,
    /// As it was sent, for links that repeat it.
    pub(super) raw: &'a str,
}

/// The parameters of a query string, in their order.
pub(super) fn parse(query: &str) -> Vec<Param<'_>> {
    query
        .split('&')
        .filter(|raw| !raw.is_empty())
        .map(|raw| {
            let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
            Param { name: decode(name), value: decode(value), raw }
        })
        .collect()
}

/// The value of `name`; of several, the last; an empty one counts as none `[A]`.
pub(super) fn value<'p>(params: &'p [Param<'_>], name: &str) -> Option<&'p str> {
    params.iter().rev().find(|param| param.name == name).map(|param| param.value.as_str()).filter(|v| !v.is_empty())
}

/// Percent-decoding with `+` as a space; what is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        if let Some(byte) = escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `per_page`: 1 to 10,000, 1,000 where none is given `[D]`. The refusal is assumed `[A]`.
pub(super) fn per_page(params: &[Param<'_>]) -> Result<usize, Problem> {
    number(params, "per_page", 1_000).and_then(|count| {
        if (1..=10_000).contains(&count) {
            Ok(count)
        } else {
            Err(Problem("per_page must be between 1 and 10000".to_owned()))
        }
    })
}

/// `page`: from 1 on `[D]`.
pub(super) fn page(params: &[Param<'_>]) -> Result<usize, Problem> {
    number(params, "page", 1)
        .and_then(|page| if page >= 1 { Ok(page) } else { Err(Problem("page must be 1 or more".to_owned())) })
}

fn number(params: &[Param<'_>], name: &str, default: usize) -> Result<usize, Problem> {
    value(params, name).map_or(Ok(default), |text| {
        let plain = text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| plain).ok_or_else(|| Problem(format!("{name} must be a number")))
    })
}

/// `from` or `to`: minutes, seconds with `Z` or without, or a bare date `[C]`; in `zone` where it names none itself.
pub(super) fn instant(params: &[Param<'_>], name: &str, zone: Option<&TimeZone>) -> Result<Option<UtcMillis>, Problem> {
    let Some(text) = value(params, name) else { return Ok(None) };
    let refuse = || Problem(format!("{name} must be a date and time"));
    // Epoch seconds, which webhooks use, are no form of this parameter.
    if text.as_bytes().get(4) != Some(&b'-') {
        return Err(refuse());
    }
    let dated = if text.len() == 10 { format!("{text}T00:00") } else { text.to_owned() };
    let parsed = UtcMillis::parse(&dated).ok_or_else(refuse)?;
    let has_zone = dated.ends_with(['Z', 'z']) || dated.len() > 19;
    let Some(zone) = zone.filter(|_| !has_zone) else { return Ok(Some(parsed)) };
    let wall = jiff::Timestamp::from_millisecond(parsed.as_millis()).map_err(|_| refuse())?;
    let civil = TimeZone::UTC.to_datetime(wall);
    let instant = zone.to_ambiguous_timestamp(civil).compatible().map_err(|_| refuse())?;
    Ok(Some(UtcMillis::from_millis(instant.as_millisecond())))
}

/// `timezone`: an Olson name in any case `[C]`, UTC where none is given `[D]`.
pub(super) fn zone(params: &[Param<'_>]) -> Result<Option<TimeZone>, Problem> {
    match value(params, "timezone") {
        None | Some("UTC") => Ok(None),
        Some(name) => TimeZone::get(name).map(Some).map_err(|_| Problem("timezone is not known".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(query: &str, zone: Option<&TimeZone>) -> Option<i64> {
        instant(&parse(query), "from", zone).unwrap().map(UtcMillis::as_secs)
    }

    #[test]
    fn every_accepted_form_of_a_time() {
        for query in
            ["from=2023-10-10", "from=2023-10-10T00:00", "from=2023-10-10T00%3A00:00Z", "from=2023-10-10T00:00:00"]
        {
            assert_eq!(read(query, None), Some(1_696_896_000), "{query}");
        }
        assert_eq!(read("to=2023-10-10", None), None);
        for query in ["from=1696896000", "from=yesterday", "from=2023-13-01T00:00"] {
            assert!(instant(&parse(query), "from", None).is_err(), "{query}");
        }
    }

    #[test]
    fn a_zone_moves_what_names_none() {
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(read("from=2023-10-10T02:00", Some(&east)), Some(1_696_896_000));
        assert_eq!(read("from=2023-10-10T00:00:00Z", Some(&east)), Some(1_696_896_000));
    }

    #[test]
    fn bounds_of_numbers() {
        assert_eq!(per_page(&parse("")), Ok(1_000));
        assert_eq!(per_page(&parse("per_page=10000")), Ok(10_000));
        for query in ["per_page=0", "per_page=10001", "per_page=-1", "per_page=many", "per_page=+5"] {
            assert!(per_page(&parse(query)).is_err(), "{query}");
        }
        assert!(page(&parse("page=0")).is_err());
        assert_eq!(page(&parse("page=2&page=3&Page=9")), Ok(3));
    }

    #[test]
    fn escapes() {
        let params = parse("a%20b=c%2Cd+e&x&=%zz&y=%e4");
        assert_eq!(params[0].name, "a b");
        assert_eq!(params[0].value, "c,d e");
        assert_eq!(value(&params, "x"), None);
        assert_eq!(params[2].value, "%zz");
        assert_eq!(params[3].value, "\u{FFFD}");
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "\\PC*") {
            let params = parse(&query);
            let _ = (per_page(&params), page(&params), instant(&params, "from", None));
        }
    }
}
