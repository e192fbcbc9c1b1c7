//! The Metrics endpoint: how many events of which type happened, step by step, over the same population.
//! It exists because Metrics outlive events: what expired unread can still be counted, and tests must show that it is.

use super::kind::Kind;
use super::population::{Event, Population};
use super::query::{self, Problem};
use crate::core::time::{DAY, HOUR, MINUTE, Millis, UtcMillis};
use crate::core::window::Window;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// "Metrics API data is retained for 6 months" `[D]`.
const RETENTION: Millis = 182 * DAY;

/// A precision, its step, and the longest range it may be asked for `[D]`; `12hr`, `week` and `month` are left out.
const PRECISIONS: [(&str, Millis, Millis); 5] = [
    ("1min", MINUTE, DAY),
    ("5min", 5 * MINUTE, DAY),
    ("15min", 15 * MINUTE, 2 * DAY),
    ("hour", HOUR, 31 * DAY),
    ("day", DAY, Millis::MAX),
];

/// What is counted under a name `[D]`; `None` where there is no such metric here. Which metric, if any, counts AMP opens
/// and clicks is not written down: none `[A]`.
fn counts(metric: &str) -> Option<fn(Kind) -> bool> {
    Some(match metric {
        "count_injected" => |kind| kind == Kind::Injection,
        "count_delivered" => |kind| kind == Kind::Delivery,
        "count_delayed" => |kind| kind == Kind::Delay,
        "count_bounce" => |kind| matches!(kind, Kind::Bounce | Kind::OutOfBand),
        "count_inband_bounce" => |kind| kind == Kind::Bounce,
        "count_outofband_bounce" => |kind| kind == Kind::OutOfBand,
        "count_rejected" => |kind| kind == Kind::PolicyRejection || kind.is_generation(),
        "count_policy_rejection" => |kind| kind == Kind::PolicyRejection,
        "count_generation_failed" => |kind| kind == Kind::GenerationFailure,
        "count_generation_rejection" => |kind| kind == Kind::GenerationRejection,
        "count_spam_complaint" => |kind| kind == Kind::SpamComplaint,
        "count_rendered" => |kind| kind == Kind::Open,
        "count_initial_rendered" => |kind| kind == Kind::InitialOpen,
        "count_clicked" => |kind| kind == Kind::Click,
        "count_unsubscribe" => Kind::is_unsubscribe,
        _ => return None,
    })
}

/// `{"results":[{metric: count, …, "ts"}, …]}`, or the refusal of a parameter, whose words are assumed `[A]`. A step
/// without events is left out `[A]`; erasing recipients does not change what was counted `[A]`.
pub(super) fn time_series(
    population: &Population,
    query: &str,
    counted: impl Fn(&Event) -> bool,
    now: UtcMillis,
) -> Result<String, Problem> {
    let params = query::parse(query);
    let zone = query::zone(&params)?;
    let from = query::instant(&params, "from", zone.as_ref())?.ok_or_else(|| Problem("from is required".into()))?;
    let to = query::instant(&params, "to", zone.as_ref())?.unwrap_or(now);
    let name = query::value(&params, "precision").unwrap_or("day");
    let Some((_, step, longest)) = PRECISIONS.into_iter().find(|(known, ..)| *known == name) else {
        return Err(Problem(format!("precision {name} is not known")));
    };
    // The bounds are rounded outward to the precision [D].
    let Some(window) = Window::new(from, to).map(|window| window.align_outward(step)) else {
        return Err(Problem("from must lie before to".into()));
    };
    if window.span() > longest {
        return Err(Problem(format!("the range is too long for precision {name}")));
    }
    let metrics = query::value(&params, "metrics").ok_or_else(|| Problem("metrics is required".into()))?;
    let delimiter = query::value(&params, "delimiter").unwrap_or(",");
    let named = |metric: &str| Some((metric.to_owned(), counts(metric)?));
    let metrics: Vec<_> = metrics
        .split(delimiter)
        .map(|metric| named(metric).ok_or_else(|| Problem(format!("metric {metric} is not known"))))
        .collect::<Result<_, _>>()?;
    let oldest = window.from().max(now.plus(-RETENTION));
    let mut steps: BTreeMap<UtcMillis, Vec<u64>> = BTreeMap::new();
    for event in &population.events()[population.places(oldest, window.to())] {
        if event.visible_at <= now && counted(event) {
            let sums = steps.entry(event.at.floor(step)).or_insert_with(|| vec![0; metrics.len()]);
            sums.iter_mut().zip(&metrics).for_each(|(sum, (_, is_of))| *sum += u64::from(is_of(event.kind)));
        }
    }
    let row = |(at, sums): (UtcMillis, Vec<u64>)| {
        let named = metrics.iter().zip(sums).map(|((metric, _), sum)| (metric.clone(), Value::from(sum)));
        let mut row: Map<String, Value> = named.collect();
        row.insert("ts".into(), format!("{}+00:00", at.to_second_text().trim_end_matches('Z')).into());
        Value::Object(row)
    };
    Ok(json!({ "results": steps.into_iter().map(row).collect::<Vec<_>>() }).to_string())
}

#[cfg(test)]
mod tests {
    use super::super::population::{PopulationOptions, Size};
    use super::*;

    #[test]
    fn every_event_with_a_metric_is_counted_once() {
        let window = Window::new(UtcMillis::from_secs(1_794_000_000), UtcMillis::from_secs(1_794_080_000)).unwrap();
        let population = Population::generate(PopulationOptions::new(3, window, Size::Events(3_000)));
        let now = window.to().plus(300 * MINUTE);
        let count = |query: &str| -> u64 {
            let query = format!("from={}&to={}&{query}", window.from().to_minute_text(), window.to().to_minute_text());
            let body: Value = serde_json::from_str(&time_series(&population, &query, |_| true, now).unwrap()).unwrap();
            let rows = body["results"].as_array().unwrap();
            rows.iter().flat_map(|row| row.as_object().unwrap().values()).filter_map(Value::as_u64).sum()
        };
        let of = |is_of: fn(Kind) -> bool| population.events().iter().filter(|event| is_of(event.kind)).count() as u64;
        for precision in ["1min", "15min", "hour", "day"] {
            assert_eq!(
                count(&format!("precision={precision}&metrics=count_injected,count_bounce")),
                of(|kind| matches!(kind, Kind::Injection | Kind::Bounce | Kind::OutOfBand))
            );
        }
        assert_eq!(count("metrics=count_unsubscribe"), of(Kind::is_unsubscribe));
    }

    #[test]
    fn what_the_documents_rule_out_is_refused() {
        let now = UtcMillis::from_secs(1_794_000_000);
        let window = Window::new(now.plus(-DAY), now).unwrap();
        let population = Population::generate(PopulationOptions::new(3, window, Size::Events(10)));
        for query in [
            "metrics=count_injected",
            "from=2026-11-01T00:00",
            "from=2026-11-01T00:00&metrics=count_nonsense",
            "from=2026-11-01T00:00&to=2026-11-03T00:00&precision=1min&metrics=count_injected",
            "from=2026-11-03T00:00&to=2026-11-01T00:00&metrics=count_injected",
            "from=2026-11-01T00:00&precision=2min&metrics=count_injected",
        ] {
            assert!(time_series(&population, query, |_| true, now).is_err(), "{query}");
        }
    }
}
