//! Streams and times as they are typed. It exists so that every command reads them the same way and refuses them in the
//! same words.

use super::exit::{Code, Failure};
use crate::config::{Config, Stream};
use crate::core::duration::parse_duration;
use crate::core::plan::end;
use crate::core::time::{MINUTE, SECOND, UtcMillis};
use crate::core::window::Window;
use clap::Args;

/// A range, as it is typed.
#[derive(Args, Debug)]
pub(super) struct Bounds {
    /// Begin: `2026-11-12T00:00Z`, or how long ago, as `24h`
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    from: Option<String>,
    /// End, not included; as --from [default: now, less what must settle]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// The last so much: `24h`, `10d`
    #[arg(long, value_name = "SPAN")]
    since: Option<String>,
}

/// The streams of these names, or all.
pub(super) fn chosen(config: &Config, names: &[String]) -> Result<Vec<Stream>, Failure> {
    if let Some(unknown) = names.iter().find(|name| config.streams.iter().all(|s| s.name.as_str() != **name)) {
        let known: Vec<&str> = config.streams.iter().map(|s| s.name.as_str()).collect();
        return Err(Failure::new(
            Code::Usage,
            format!("there is no stream `{unknown}`"),
            format!("there is: {}", known.join(", ")),
        ));
    }
    let wanted = |stream: &&Stream| names.is_empty() || names.iter().any(|name| name == stream.name.as_str());
    Ok(config.streams.iter().filter(wanted).cloned().collect())
}

/// A time, or how long before `now`; with `span_only`, nothing but the latter.
pub(super) fn instant(option: &str, text: &str, now: UtcMillis, span_only: bool) -> Result<UtcMillis, Failure> {
    if let Ok(span) = parse_duration(text) {
        return Ok(now.plus(-span));
    }
    let instant =
        (!span_only).then(|| UtcMillis::parse(text).or_else(|| UtcMillis::parse(&format!("{text}T00:00Z")))).flatten();
    instant.ok_or_else(|| {
        let example =
            if span_only { "write a span: 90m, 24h, 10d" } else { "write 2026-11-12T00:00Z, 2026-11-12 or 24h" };
        Failure::new(
            Code::Usage,
            format!("{option}: `{text}` is no {}", if span_only { "span" } else { "time" }),
            example,
        )
    })
}

impl Bounds {
    /// Whether the range depends on what time it is. That is for the API's clock to say: by a wrong one of this machine,
    /// "the last hour" would be another hour, or none.
    pub(super) fn is_relative(&self) -> bool {
        let is_span = |text: &String| parse_duration(text).is_ok();
        self.to.is_none() || [&self.since, &self.from, &self.to].into_iter().flatten().any(is_span)
    }

    /// Whether one was typed.
    pub(super) fn is_given(&self) -> bool {
        self.from.is_some() || self.to.is_some() || self.since.is_some()
    }

    /// The range that is meant, on whole minutes.
    pub(super) fn range(&self, streams: &[Stream], now: UtcMillis) -> Result<Window, Failure> {
        let settled = streams.iter().map(|stream| end(now, stream.settle, MINUTE)).max().unwrap_or(now);
        let from = match (&self.since, &self.from) {
            (Some(span), _) => instant("--since", span, now, true)?,
            (None, Some(text)) => instant("--from", text, now, false)?,
            (None, None) => {
                return Err(Failure::new(Code::Usage, "no range given", "give --since 24h, or --from and --to"));
            }
        };
        let to = self.to.as_deref().map_or(Ok(settled), |text| instant("--to", text, now, false))?;
        if from >= settled && from <= now && self.to.is_none() {
            return Err(Failure::new(
                Code::Usage,
                "nothing of this range has settled yet",
                format!(
                    "what is newer than {settled} may still grow in the API: reach further back, or lower `settle`"
                ),
            ));
        }
        if from >= now {
            return Err(Failure::new(
                Code::Usage,
                format!("the range begins in the future ({from})"),
                format!("by the clock it is {} now", now.floor(SECOND)),
            ));
        }
        let Some(range) = Window::new(from, to) else {
            return Err(Failure::new(
                Code::Usage,
                format!("the range from {from} to {to} is empty"),
                "--from must lie before --to",
            ));
        };
        let range = range.align_outward(MINUTE);
        Ok(Window::new(range.from(), range.to().min(settled)).unwrap_or(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(from: Option<&str>, to: Option<&str>, since: Option<&str>) -> Result<String, String> {
        let now = UtcMillis::parse("2026-11-21T18:00:30Z").unwrap();
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let bounds = Bounds { from: owned(from), to: owned(to), since: owned(since) };
        bounds.range(&[], now).map(|w| w.to_string()).map_err(|f| format!("{}; {}", f.what, f.hint.unwrap_or_default()))
    }

    #[test]
    fn ranges_are_read_in_every_form_and_put_on_whole_minutes() {
        let day = "[2026-11-12T00:00:00Z, 2026-11-13T00:00:00Z)".to_owned();
        assert_eq!(read(Some("2026-11-12T00:00Z"), Some("2026-11-13T00:00Z"), None), Ok(day.clone()));
        assert_eq!(read(Some("2026-11-12"), Some("2026-11-13"), None), Ok(day));
        assert_eq!(read(None, None, Some("1h")), Ok("[2026-11-21T17:00:00Z, 2026-11-21T18:00:30Z)".into()));
        assert_eq!(
            read(Some("2026-11-12T00:00:10Z"), Some("2026-11-12T00:00:20Z"), None),
            Ok("[2026-11-12T00:00:00Z, 2026-11-12T00:01:00Z)".into())
        );
    }

    #[test]
    fn impossible_ranges_are_refused_with_a_way_out() {
        for (from, to, since) in [
            (Some("2026-11-13"), Some("2026-11-12"), None),
            (Some("2026-11-12"), Some("2026-11-12"), None),
            (Some("2027-01-01"), None, None),
            (Some("yesterday"), None, None),
            (None, None, Some("2026-11-12")),
            (None, None, None),
        ] {
            let refused = read(from, to, since).unwrap_err();
            assert!(refused.contains("; "), "{refused}");
        }
    }
}
