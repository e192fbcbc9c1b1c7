//! Streams: when they are due, how far they reach, what they ask for. It exists apart because a stream is where most
//! of a configuration's meaning is, and where a mistake would be silent: a wrong filter or schedule just captures less.

use super::Reader;
use super::account::DEFAULT;
use crate::config::document::Place;
use crate::config::raw::{RawConfig, RawFilterValue, RawReread, RawStream};
use crate::config::resolved::{Account, DialectChoice, Schedule, Start, Stream};
use crate::core::duration::parse_duration;
use crate::core::nearest::nearest;
use crate::core::recheck::Reread;
use crate::core::schedule::ScheduleError;
use crate::core::time::{DAY, MINUTE, SECOND, UtcMillis};
use crate::source::sparkpost::filter;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use toml::de::DeValue;

/// How long SparkPost keeps events (its documentation: "the last 10 days").
const RETENTION: i64 = 10 * DAY;

pub(super) fn streams(
    raw: &RawConfig,
    root: &Place<'_>,
    accounts: &BTreeMap<String, Account>,
    read: &mut Reader<'_, '_>,
) -> Vec<Stream> {
    let mut streams = Vec::new();
    for (name, typed) in &raw.streams {
        let place = root.key("streams").key(name);
        let name = read.name("a stream", name, &place);
        let dialect = account_of(typed, raw, &place, accounts, read);
        let stream = |name| Stream {
            name,
            account: typed.account.clone(),
            schedule: schedule(typed, &place, read),
            start: start(&typed.start, &place.key("start"), read),
            settle: read.duration(&typed.settle, &place.key("settle"), SECOND..=DAY),
            lookback: read.duration(&typed.lookback, &place.key("lookback"), 0..=RETENTION),
            reread: match typed.reread {
                RawReread::Twice => Reread::Twice,
                RawReread::Daily => Reread::Daily,
                RawReread::Never => Reread::Never,
            },
            sinks: sinks(typed, raw, &place.key("sinks"), read),
            filter: filters(typed, &place.key("filter"), dialect, read),
        };
        streams.extend(name.map(stream));
    }
    streams
}

/// The dialect of the stream's account, once it is sure that there is one and that it is the one that was meant.
fn account_of(
    raw: &RawStream,
    config: &RawConfig,
    place: &Place<'_>,
    accounts: &BTreeMap<String, Account>,
    read: &mut Reader<'_, '_>,
) -> DialectChoice {
    let typed = place.key("account");
    let other =
        config.accounts.keys().find(|name| *name != DEFAULT).filter(|_| !typed.is_typed() && config.api.is_none());
    if let Some(other) = other {
        let problem = read.problems.key(place, format!("`{}` does not say which account to ask", place.dotted));
        problem.label("there are `[accounts]`, but no `[api]`").help(format!("write `account = {other:?}`"));
    }
    if let Some(account) = accounts.get(&raw.account) {
        return account.dialect;
    }
    read.unknown_name("account", &raw.account, &typed, accounts.keys().map(String::as_str), "`[accounts.NAME]`");
    DialectChoice::Auto
}

fn schedule(raw: &RawStream, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Schedule {
    let (cron_place, every_place) = (place.key("schedule"), place.key("every"));
    let zone = zone(raw, &place.key("timezone"), read);
    if raw.schedule.is_some() && raw.every.is_some() {
        let problem = read.problems.key(&every_place, "`schedule` and `every` exclude each other");
        problem.label("second schedule").related(cron_place.key_span(), "first schedule").help("leave one of them out");
    }
    let interval = read.duration(raw.every.as_deref().unwrap_or("60s"), &every_place, SECOND..=DAY);
    let Some(typed) = &raw.schedule else { return Schedule::Every(interval) };
    match Schedule::cron(typed, zone) {
        Ok(schedule) => schedule,
        Err(error) => {
            let what = if error == ScheduleError::Never { "is never due" } else { "is not a cron expression" };
            let problem = read.value(&cron_place, format!("`{}` {what}", cron_place.dotted));
            problem.label(error.to_string()).help(error.hint());
            Schedule::Every(MINUTE)
        }
    }
}

fn zone(raw: &RawStream, place: &Place<'_>, read: &mut Reader<'_, '_>) -> TimeZone {
    let Some(name) = &raw.timezone else { return TimeZone::UTC };
    if raw.schedule.is_none() && raw.every.is_some() {
        let problem = read.problems.key(place, format!("`{}` has no effect", place.dotted));
        problem.label("an interval knows no time zone").help("leave it out, or write a `schedule` instead of `every`");
    }
    // UTC is known on every system, with or without a time zone database.
    if name.eq_ignore_ascii_case("UTC") {
        return TimeZone::UTC;
    }
    TimeZone::get(name).unwrap_or_else(|_| {
        let known: Vec<String> = jiff::tz::db().available().map(|zone| zone.to_string()).collect();
        let problem = read.value(place, format!("`{}` is not a time zone", place.dotted)).label("no such time zone");
        match nearest(name, known.iter().map(String::as_str)) {
            Some(meant) => problem.help(format!("did you mean {meant:?}?")),
            None if known.is_empty() => {
                problem.help("this system has no time zone database; install tzdata, or use UTC")
            }
            None => problem.help("write an IANA name such as \"Europe/Berlin\", or \"UTC\""),
        };
        TimeZone::UTC
    })
}

fn start(typed: &str, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Start {
    if typed == "now" {
        return Start::Now;
    }
    let looks_like_date = typed.len() > 8 && typed.as_bytes()[4] == b'-';
    let looks_like_span = !looks_like_date && typed.starts_with(|c: char| c.is_ascii_digit());
    if looks_like_span || parse_duration(typed).is_ok() {
        return Start::Ago(read.duration(typed, place, SECOND..=RETENTION));
    }
    let zoned = typed.ends_with(['Z', 'z']) || typed.get(11..).is_some_and(|time| time.contains(['+', '-']));
    if let Some(at) = UtcMillis::parse(typed).filter(|_| zoned) {
        return Start::At(at);
    }
    let completed = [format!("{typed}Z"), format!("{typed}T00:00:00Z")];
    let meant = completed.iter().find(|text| UtcMillis::parse(text).is_some()).filter(|_| !zoned);
    let problem = read.value(place, format!("`{}` names no point in time", place.dotted));
    match meant {
        Some(meant) => problem.label("no time zone").help(format!("for UTC, write {meant:?}")),
        None => problem
            .label(if looks_like_date { "no such instant" } else { "no duration, no instant, not \"now\"" })
            .help("write a duration such as \"10d\", \"now\", or an instant such as \"2026-11-12T00:00:00Z\""),
    };
    Start::Now
}

fn sinks(raw: &RawStream, config: &RawConfig, place: &Place<'_>, read: &mut Reader<'_, '_>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    // Items are found by what was typed, because a wrong item has been taken out of what was read.
    let typed = place.value.and_then(DeValue::as_array).map_or(0, |items| items.len());
    for index in 0..typed {
        let item = place.item(index);
        let Some(name) = item.value.and_then(DeValue::as_str) else { continue };
        if !config.sinks.contains_key(name) {
            let define =
                if name == "stdout" { "`[sinks.stdout.stdout]`".to_owned() } else { format!("`[sinks.{name}.file]`") };
            read.unknown_name("sink", name, &item, config.sinks.keys().map(String::as_str), &define);
        } else if !seen.insert(name) {
            read.value(&item, format!("the sink {name:?} is named twice")).label("once is enough");
        }
    }
    raw.sinks.clone()
}

fn filters(
    raw: &RawStream,
    place: &Place<'_>,
    dialect: DialectChoice,
    read: &mut Reader<'_, '_>,
) -> BTreeMap<String, Vec<String>> {
    let text = |value: &RawFilterValue| match value {
        RawFilterValue::Text(text) => text.clone(),
        RawFilterValue::Number(number) => number.to_string(),
    };
    let mut filters = BTreeMap::new();
    for (name, values) in &raw.filter {
        let values: Vec<String> = values.0.iter().map(text).collect();
        let place = place.key(name);
        filter_problems(name, &values, &place, dialect, read);
        let same = |other: &&String| *other != name && filter::is_same(name, other);
        if let Some(other) = filters.keys().find(same) {
            let problem = read.problems.key(&place, format!("`{name}` and `{other}` are one filter under two names"));
            problem.label("a request can hold it once").help(format!("write all its values under `{other}`"));
        }
        filters.insert(name.clone(), values);
    }
    filters
}

fn filter_problems(
    name: &str,
    values: &[String],
    place: &Place<'_>,
    dialect: DialectChoice,
    read: &mut Reader<'_, '_>,
) {
    if let Some(wrong) = filter::name_problem(name, dialect) {
        let problem = read.problems.key(place, wrong.message);
        wrong.hint.map(|hint| problem.help(hint));
        return;
    }
    if let Some(index) = values.iter().position(|value| value.trim().is_empty()) {
        let problem = read.value(&item(place, index), format!("`{}` holds an empty value", place.dotted));
        problem.label("it would match nothing, or everything").help("leave it out");
        return;
    }
    // A list that is empty here had only values of a wrong type, and each of them has been named.
    let Some(whole) = filter::problem(name, values, dialect).filter(|_| !values.is_empty()) else { return };
    // The caret belongs under the values at fault, where one alone would be at fault, too.
    let mut found = false;
    for (index, value) in values.iter().enumerate() {
        if let Some(about) = filter::problem(name, std::slice::from_ref(value), dialect) {
            found = true;
            let problem = read.value(&item(place, index), about.message);
            about.hint.map(|hint| problem.help(hint));
        }
    }
    if !found {
        let problem = read.problems.key(place, whole.message);
        whole.hint.map(|hint| problem.help(hint));
    }
}

/// The place of the value that was read as `index`: those of a wrong type were taken out before.
fn item<'d>(place: &Place<'d>, index: usize) -> Place<'d> {
    let typed = place.value.and_then(DeValue::as_array).map_or(0, |items| items.len());
    let readable = |item: &Place<'_>| matches!(item.value, Some(DeValue::String(_) | DeValue::Integer(_)));
    (0..typed).map(|at| place.item(at)).filter(readable).nth(index).unwrap_or_else(|| place.clone())
}
