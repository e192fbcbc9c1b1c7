//! The normalized event as one record of comma-separated values: a fixed list of columns, for spreadsheets and loaders.
//! It exists because a table is what most people open first, and a cell must never become a formula there.
//!
//! # Rules
//! - Columns are those of [`HEADER`], in this order, for ever: new ones are added behind the last. `bounce_class` is
//!   `bounce.class` of the normalized event, and so on. Where the event as sent is asked for, it is a last column `raw`.
//! - A cell is empty where the normalized event has no such field. `metadata`, `tags` and `raw` are JSON text.
//! - Quoting as in RFC 4180, and only where a cell holds a comma, a quote, CR or LF; records end in LF.
//! - Text that begins with `=`, `+`, `-`, `@`, tab or CR is given a leading apostrophe, so that no spreadsheet takes it for
//!   a formula; so is text in which only apostrophes stand before such a character. A reader gets the text back by
//!   taking one apostrophe off wherever one of these characters follows the leading apostrophes. Numbers, instants and
//!   truth values are no text: -12.5 stays a number.

use crate::core::catalogue::Field;
use crate::core::normalize::{Context, Normalized, PROVIDER, SCHEMA_VERSION, Text, write_one_line};
use crate::core::normalize::{push_decimal, push_digest};
use crate::core::time::UtcMillis;
use crate::sink::row::{self, Cells};

macro_rules! columns {
    () => {
        "schema,id,provider,stream,type,type_id,source_type,group,time,observed_at,late,late_by_ms,revision,\
         recipient,recipient_domain,recipient_type,sender,sending_domain,subject,message_id,transmission_id,\
         campaign_id,template_id,template_version,subaccount_id,ip_pool,sending_ip,mailbox_provider,\
         mailbox_provider_region,injected_at,transactional,bounce_class,bounce_name,bounce_category,bounce_code,\
         bounce_reason,bounce_raw_reason,bounce_out_of_band,engagement_ip,engagement_user_agent,engagement_url,\
         engagement_link_name,engagement_initial,engagement_amp,engagement_mobile,engagement_proxy,\
         engagement_prefetched,engagement_geo_country,engagement_geo_region,engagement_geo_city,\
         engagement_geo_latitude,engagement_geo_longitude,complaint_type,complaint_by,complaint_to,\
         delivery_attempt_retries,delivery_attempt_queue_ms,delivery_attempt_ip,delivery_attempt_method,\
         metadata,tags"
    };
}

/// The header line, without its line break.
pub(super) const HEADER: &str = columns!();
/// The header line of records that carry the event as sent.
pub(super) const HEADER_RAW: &str = concat!(columns!(), ",raw");

/// Appends one record, without its line break.
pub(super) fn write(event: &Normalized<'_>, context: &Context<'_>, out: &mut Vec<u8>) {
    out.reserve(event.raw().len() + 256 + if context.raw { 2 * event.raw().len() } else { 0 });
    let mut record = Record { out, first: true };
    write_identity(event, context, &mut record);
    row::write_rest(event, &mut record);
    if context.raw {
        let mut json = Vec::new();
        if !event.is_tombstone() {
            write_one_line(event.raw().trim_ascii(), &mut json);
        }
        record.json(Some(&json));
    }
}

fn write_identity(event: &Normalized<'_>, context: &Context<'_>, record: &mut Record<'_>) {
    record.count(Some(SCHEMA_VERSION));
    match event.event_id() {
        Some(id) => record.text(Some(id)),
        None => push_digest(&event.digest(), record.cell()),
    }
    record.plain(Some(PROVIDER));
    // A stream may be called `-x`.
    push_text(context.stream.as_str(), record.cell());
    record.text(Some(event.type_name()));
    let known = event.event_type();
    record.count(known.and_then(|known| known.type_id).map(u64::from));
    record.text(event.text(Field::Type));
    record.plain(known.and_then(|known| known.group));
    record.time(event.time());
    record.time(Some(context.observed_at));
    record.flag(context.late.then_some(true));
    record.count(context.late_by_ms(event.time()));
    record.flag(context.revision.then_some(true));
}

/// A record being written: what is absent is an empty cell.
struct Record<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl Record<'_> {
    /// Begins a cell.
    fn cell(&mut self) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(b',');
        }
        self.out
    }
}

impl Cells for Record<'_> {
    fn text(&mut self, text: Option<Text<'_>>) {
        let out = self.cell();
        if let Some(text) = text {
            push_text(&text.decode(), out);
        }
    }

    /// `text` must be a number, or a name of this program's that needs neither quotes nor an apostrophe.
    fn plain(&mut self, text: Option<&str>) {
        self.cell().extend_from_slice(text.unwrap_or_default().as_bytes());
    }

    fn number(&mut self, number: Option<i64>) {
        self.plain(number.map(|number| number.to_string()).as_deref());
    }

    fn count(&mut self, count: Option<u64>) {
        let out = self.cell();
        if let Some(count) = count {
            push_decimal(count, out);
        }
    }

    fn flag(&mut self, flag: Option<bool>) {
        self.plain(flag.map(|flag| if flag { "true" } else { "false" }));
    }

    fn time(&mut self, time: Option<UtcMillis>) {
        let out = self.cell();
        if let Some(time) = time {
            time.write_rfc3339(out);
        }
    }

    fn degrees(&mut self, number: Option<&str>) {
        self.plain(number);
    }

    /// JSON begins with a bracket, which no spreadsheet takes for a formula, and what holds any string needs quotes.
    fn json(&mut self, json: Option<&[u8]>) {
        push_quoted_where_needed(json.unwrap_or_default(), self.cell());
    }
}

/// Appends text that may come from anybody.
fn push_text(text: &str, out: &mut Vec<u8>) {
    if !begins_a_formula(text) {
        push_quoted_where_needed(text.as_bytes(), out);
    } else if needs_quotes(text.as_bytes()) {
        out.extend_from_slice(b"\"'");
        push_doubled(text.as_bytes(), out);
        out.push(b'"');
    } else {
        out.push(b'\'');
        out.extend_from_slice(text.as_bytes());
    }
}

/// Whether a spreadsheet might take this for a formula. Apostrophes before it are passed over, so that the one that is
/// put in front can be told from those that were there.
fn begins_a_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

fn needs_quotes(cell: &[u8]) -> bool {
    memchr::memchr3(b',', b'"', b'\n', cell).is_some() || memchr::memchr(b'\r', cell).is_some()
}

fn push_quoted_where_needed(cell: &[u8], out: &mut Vec<u8>) {
    if !needs_quotes(cell) {
        return out.extend_from_slice(cell);
    }
    out.push(b'"');
    push_doubled(cell, out);
    out.push(b'"');
}

fn push_doubled(cell: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    for quote in memchr::memchr_iter(b'"', cell) {
        out.extend_from_slice(&cell[from..=quote]);
        from = quote;
    }
    out.extend_from_slice(&cell[from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> String {
        let mut out = Vec::new();
        push_text(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn cells_are_quoted_where_they_must_be_and_are_never_formulas() {
        let cases = [
            ("", ""),
            ("plain text; 'quoted'", "plain text; 'quoted'"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("two\rlines", "\"two\rlines\""),
            ("=1+1", "'=1+1"),
            ("+49 30 1", "'+49 30 1"),
            ("-5", "'-5"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("\rx", "\"'\rx\""),
            ("=HYPERLINK(\"http://x\",\"y\")", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""),
            ("'=1", "''=1"),
            ("'", "'"),
            ("a=1", "a=1"),
        ];
        for (text, expected) in cases {
            assert_eq!(cell(text), expected);
        }
    }

    #[test]
    fn columns_are_those_that_are_written() {
        let theirs = HEADER_RAW.split_once(",revision,").unwrap().1.replace("engagement_geo_", "geo_");
        let ours: Vec<&str> = row::CONTENT[4..].iter().map(|(name, _)| *name).collect();
        assert_eq!(theirs.replace("delivery_attempt_", "delivery_"), ours.join(","));
    }

    #[test]
    fn columns_are_named_once_each() {
        let names: Vec<&str> = HEADER.split(',').collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!((names.len(), distinct.len()), (61, 61));
        assert!(names.iter().all(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
