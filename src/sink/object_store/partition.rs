//! Which events of a batch become one object, in which order, and what the object is called. It exists so that a batch
//! that comes again is cut into the same objects of the same names, whatever became of the first attempt.

use super::Layout;
use crate::core::event::{StoredEvent, StreamName};
use crate::core::time::{DAY, UtcMillis};
use crate::sink::Batch;

/// The date of events that do not say when they happened: what Hive calls a missing value, and readers take for NULL.
const NO_DATE: &str = "__HIVE_DEFAULT_PARTITION__";

/// Events of one stream and day, ordered by time, then by discovery.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Partition<'a> {
    pub(super) stream: &'a StreamName,
    /// `stream=NAME/date=YYYY-MM-DD`, the date in UTC.
    pub(super) folder: String,
    /// Places in the batch.
    pub(super) picks: Vec<u32>,
}

/// Cuts a batch. `times` says of each event when it happened.
pub(super) fn cut<'a>(events: &[StoredEvent<'a>], times: &[Option<UtcMillis>]) -> Vec<Partition<'a>> {
    let mut order: Vec<(Option<UtcMillis>, u32)> = times.iter().copied().zip(0..).collect();
    let day = |time: Option<UtcMillis>| time.map(|time| time.floor(DAY));
    let stream_of = |pick: u32| events.get(pick as usize).map(|event| event.stream);
    order.sort_unstable_by(|(time, pick), (other_time, other)| {
        let streams = stream_of(*pick).cmp(&stream_of(*other));
        streams.then_with(|| (time, pick).cmp(&(other_time, other)))
    });
    let mut partitions = Vec::new();
    for run in order.chunk_by(|(time, pick), (other_time, other)| {
        stream_of(*pick) == stream_of(*other) && day(*time) == day(*other_time)
    }) {
        if let Some((time, first)) = run.first()
            && let Some(stream) = stream_of(*first)
        {
            let date = time.map_or_else(|| NO_DATE.to_owned(), UtcMillis::to_date_text);
            let folder = format!("stream={stream}/date={date}");
            partitions.push(Partition { stream, folder, picks: run.iter().map(|(_, pick)| *pick).collect() });
        }
    }
    partitions
}

/// What the objects of a batch are called, below their folders: when its first event was captured, which orders them as
/// they were discovered, and the digest of what it holds. What is handed over again begins with a word instead of a digit.
pub(super) fn name(batch: &Batch<'_>, layout: Layout) -> String {
    let captured = batch.events.first().map_or(UtcMillis::from_secs(0), |event| event.observed_at);
    let mut text = Vec::with_capacity(24);
    captured.write_rfc3339(&mut text);
    let captured: String = text.into_iter().map(char::from).filter(|c| !matches!(c, '-' | ':' | '.')).collect();
    let mark = if batch.again { "replay-" } else { "" };
    let ending = match layout {
        Layout::Parquet => "parquet",
        Layout::Lines => "ndjson.zst",
    };
    format!("{mark}{captured}-{}.{ending}", batch.key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Option<UtcMillis> {
        UtcMillis::parse(text)
    }

    fn stored<'a>(raw: &'a str, stream: &'a StreamName) -> StoredEvent<'a> {
        let observed_at = UtcMillis::parse("2026-11-12T10:00:30.007Z").unwrap();
        StoredEvent { raw, stream, observed_at, late: false, revision: false }
    }

    #[test]
    fn a_batch_is_cut_by_stream_and_day_and_ordered_by_time_then_discovery() {
        let (all, bounces) = (StreamName::new("all").unwrap(), StreamName::new("bounces").unwrap());
        let events =
            [stored("0", &bounces), stored("1", &all), stored("2", &all), stored("3", &all), stored("4", &all)];
        let times = [
            at("2026-11-12T10:00:00Z"),
            at("2026-11-13T00:00:00Z"),
            at("2026-11-12T23:59:59.999Z"),
            at("2026-11-12T23:59:59.999Z"),
            None,
        ];
        let cut: Vec<(String, Vec<u32>)> =
            cut(&events, &times).into_iter().map(|partition| (partition.folder, partition.picks)).collect();
        let expected = [
            ("stream=all/date=__HIVE_DEFAULT_PARTITION__", vec![4]),
            ("stream=all/date=2026-11-12", vec![2, 3]),
            ("stream=all/date=2026-11-13", vec![1]),
            ("stream=bounces/date=2026-11-12", vec![0]),
        ];
        assert_eq!(cut, expected.map(|(folder, picks)| (folder.to_owned(), picks)));
    }

    #[test]
    fn a_name_says_when_and_what_and_whether_again() {
        let all = StreamName::new("all").unwrap();
        let name_of = |raw, again| name(&Batch { events: vec![stored(raw, &all)], again }, Layout::Parquet);
        insta::assert_snapshot!(name_of("{}", false), @"20261112T100030007Z-d9ddb4a6e8632c2bb3a82ff646c9ee7c.parquet");
        assert_eq!(name_of("{}", true), format!("replay-{}", name_of("{}", false)));
        assert_ne!(name_of("{}", false), name_of("{ }", false));
    }

    proptest! {
        #[test]
        fn every_event_is_in_one_partition_of_its_stream_and_day(
            rows in proptest::collection::vec((0_usize..3, proptest::option::of(0_i64..400_000_000)), 0..60),
        ) {
            let streams = ["a", "b", "c"].map(|name| StreamName::new(name).unwrap());
            let events: Vec<_> = rows.iter().map(|(stream, _)| stored("{}", &streams[*stream])).collect();
            let times: Vec<_> = rows.iter().map(|(_, time)| time.map(UtcMillis::from_millis)).collect();
            let partitions = cut(&events, &times);
            let mut seen: Vec<u32> = partitions.iter().flat_map(|partition| partition.picks.clone()).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..u32::try_from(rows.len()).unwrap()).collect::<Vec<_>>());
            let mut folders: Vec<_> = partitions.iter().map(|partition| partition.folder.clone()).collect();
            folders.dedup();
            prop_assert_eq!(folders.len(), partitions.len(), "one object for each folder");
            for partition in &partitions {
                let of = |pick: u32| (times[pick as usize], pick);
                prop_assert!(partition.picks.is_sorted_by_key(|pick| of(*pick)));
                for pick in &partition.picks {
                    let date = of(*pick).0.map_or(NO_DATE.to_owned(), UtcMillis::to_date_text);
                    prop_assert_eq!(&partition.folder, &format!("stream={}/date={date}", events[*pick as usize].stream));
                }
            }
        }
    }
}
