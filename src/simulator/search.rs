//! One search, understood: which range, which filter, which page, and the links that repeat it.
//! It exists to hold the edges of both dialects — minute or second, inclusive or exclusive, frozen defaults — in one place.

use super::api::{Behaviour, ToReading};
use super::base64;
use super::filter::{Filter, is_filter};
use super::kind::{Dialect, EventId};
use super::query::{self, Param, Problem};
use crate::core::time::{DAY, MINUTE, SECOND, UtcMillis};
use jiff::tz::TimeZone;

/// Where a page begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// The legacy API's page number, from 1.
    Page(usize),
    /// The Events API's cursor: behind this row, or at the beginning.
    Behind(Option<(UtcMillis, EventId)>),
}

/// A search whose parameters were accepted.
pub(super) struct Search<'q> {
    pub(super) dialect: Dialect,
    /// The effective range, half-open: edges read as the API reads them, clipped to what is retained.
    pub(super) from: UtcMillis,
    pub(super) to: UtcMillis,
    pub(super) per_page: usize,
    pub(super) start: Start,
    pub(super) filter: Filter,
    pub(super) zone: Option<TimeZone>,
    /// The range as asked for, defaults materialised: links freeze it `[L]`.
    asked: (UtcMillis, UtcMillis),
    params: Vec<Param<'q>>,
}

impl<'q> Search<'q> {
    pub(super) fn read(
        dialect: Dialect,
        query: &'q str,
        behaviour: &Behaviour,
        now: UtcMillis,
    ) -> Result<Self, Problem> {
        let params = query::parse(query);
        let legacy = dialect == Dialect::MessageEvents;
        // The Events API dropped `timezone`; it is ignored like any unknown name [D].
        let zone = if legacy { query::zone(&params)? } else { None };
        let grain = if legacy { MINUTE } else { SECOND };
        // Defaults: 24 hours ago, 1 minute ago [D]. What is finer than the grain is cut off [A].
        let from = query::instant(&params, "from", zone.as_ref())?.unwrap_or(now.plus(-DAY)).floor(grain);
        let to = query::instant(&params, "to", zone.as_ref())?.unwrap_or(now.plus(-MINUTE)).floor(grain);
        if from > to {
            return Err(Problem("from must be before to".to_owned()));
        }
        let start = if legacy {
            Start::Page(query::page(&params)?)
        } else {
            Start::Behind(read_cursor(query::value(&params, "cursor").unwrap_or("initial"))?)
        };
        let exclusive_from = if behaviour.from_exclusive { from.plus(1) } else { from };
        let past_to = match behaviour.reading(dialect) {
            ToReading::WholeMinute => to.plus(grain),
            ToReading::Instant => to.plus(1),
            ToReading::Exclusive => to,
        };
        Ok(Self {
            dialect,
            // Silently clipped: nobody has seen an error for a `from` older than ten days [C].
            from: exclusive_from.max(now.plus(-behaviour.retention)),
            to: past_to,
            per_page: query::per_page(&params)?,
            start,
            filter: Filter::of(dialect, &params)?,
            zone,
            asked: (from, to),
            params,
        })
    }

    /// The link to page `page`: host-relative, colons not encoded, defaults frozen, filters behind `[L]`.
    pub(super) fn page_link(&self, page: usize) -> String {
        let zone = query::value(&self.params, "timezone").unwrap_or("UTC");
        let (from, to) =
            (local_minute(self.asked.0, self.zone.as_ref()), local_minute(self.asked.1, self.zone.as_ref()));
        let mut link = format!(
            "{}?page={page}&per_page={}&from={from}&to={to}&timezone={zone}",
            self.dialect.path(),
            self.per_page
        );
        for param in self.params.iter().filter(|param| is_filter(self.dialect, &param.name)) {
            link.push('&');
            link.push_str(param.raw);
        }
        link
    }

    /// The link to what lies behind a row: keys in alphabetical order, times without `Z`, base64's `=` as it is `[D]`.
    /// The cursor is `(timestamp ms, event_id)` of the last row, as decoding the documents' samples shows.
    pub(super) fn cursor_link(&self, behind: Option<(UtcMillis, EventId)>) -> String {
        let cursor = behind
            .map_or("initial".to_owned(), |(at, id)| base64::encode(format!("{},{id}", at.as_millis()).as_bytes()));
        let seconds = |at: UtcMillis| at.to_second_text().trim_end_matches('Z').to_owned();
        let mut pairs = vec![
            format!("cursor={cursor}"),
            format!("from={}", seconds(self.asked.0)),
            format!("per_page={}", self.per_page),
            format!("to={}", seconds(self.asked.1)),
        ];
        let filters = self.params.iter().filter(|param| is_filter(self.dialect, &param.name));
        pairs.extend(filters.map(|param| param.raw.to_owned()));
        pairs.sort();
        format!("{}?{}", self.dialect.path(), pairs.join("&"))
    }
}

/// Refusing a bad cursor with 400 is assumed `[A]`; that a cursor never expires is what its form implies.
fn read_cursor(text: &str) -> Result<Option<(UtcMillis, EventId)>, Problem> {
    if text == "initial" {
        return Ok(None);
    }
    let read = || {
        let plain = String::from_utf8(base64::decode(text)?).ok()?;
        let (at, id) = plain.split_once(',')?;
        Some((UtcMillis::from_millis(at.parse().ok()?), EventId::parse(id)?))
    };
    read().map(Some).ok_or_else(|| Problem("cursor is not valid".to_owned()))
}

/// `YYYY-MM-DDTHH:MM` on the clocks of `zone`.
fn local_minute(at: UtcMillis, zone: Option<&TimeZone>) -> String {
    let seconds = zone
        .zip(jiff::Timestamp::from_millisecond(at.as_millis()).ok())
        .map_or(0, |(zone, instant)| zone.to_offset(instant).seconds());
    at.plus(i64::from(seconds) * SECOND).to_minute_text()
}
