//! Segments of the spool as a damaged disk, or somebody's hand, may leave them: refused, or events that tile their body.
//! The input is: events (1 byte), raw bytes (2), length of the lengths (1), length of the marks (1), lengths, marks, body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparkspool::store::Segment;

fuzz_target!(|data: &[u8]| {
    let Some((head, rest)) = data.split_first_chunk::<5>() else { return };
    let [events, low, high, lengths_len, marks_len] = *head;
    let lengths_len = usize::from(lengths_len).min(rest.len());
    let (lengths, rest) = rest.split_at(lengths_len);
    let (marks, body) = rest.split_at(usize::from(marks_len).min(rest.len()));
    let late = (!marks.is_empty()).then_some(marks);
    let raw_bytes = u64::from(u16::from_le_bytes([low, high]));
    let Ok(segment) = Segment::decode(lengths, late, body, u64::from(events), raw_bytes) else { return };
    assert_eq!(u64::from(segment.len()), u64::from(events));
    let total: u64 = segment.events_from(0).map(|event| event.raw.len() as u64 + 1).sum();
    assert_eq!(total, raw_bytes);
    assert!(segment.event(segment.len()).is_none());
});
