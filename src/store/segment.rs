//! A segment: a run of captured events as one compressed block, framed by stored lengths and sealed by a checksum.
//! It exists so that being durable costs a row or a few for each page, and damaged bytes are never forwarded.

use super::columns::StreamId;
use super::error::StoreError;
use super::spare::Spare;
use crate::core::time::UtcMillis;
use flate2::Crc;
use std::fmt;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

/// Level -3 packs events to a fifth at the speed of memory, which keeps a page of 10,000 below 15 ms.
const LEVEL: i32 = -3;
/// Events are gathered to about this much before they are compressed, as one frame: what was just copied is still in
/// the processor's cache then, and a frame of one piece takes the fast path of zstd.
const FRAME_BYTES: usize = 512 * 1024;
/// A segment holds a page or a part of one. More than this is damage, not data.
const RAW_BYTES_MAX: u64 = 1 << 30;

/// What a segment's row says beside its blobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) stream: StreamId,
    pub(super) observed_at: UtcMillis,
    pub(super) first_at: UtcMillis,
    pub(super) last_at: UtcMillis,
    pub(super) events: u64,
    pub(super) raw_bytes: u64,
}

/// A segment's blobs.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    pub(super) lengths: &'a [u8],
    pub(super) late: Option<&'a [u8]>,
    pub(super) revised: Option<&'a [u8]>,
    pub(super) body: &'a [u8],
}

/// What is said of an event beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) late: bool,
    pub(super) revised: bool,
}

/// The checksum of a segment: over everything in its row but its number.
pub(super) fn checksum(label: &Label, packed: Packed<'_>) -> u32 {
    let mut crc = Crc::new();
    let late_len = packed.late.map_or(u64::MAX, |late| late.len() as u64);
    let times = [label.observed_at, label.first_at, label.last_at].map(|at| at.as_millis().cast_unsigned());
    let counts = [label.stream.0.cast_unsigned(), label.events, label.raw_bytes, packed.lengths.len() as u64, late_len];
    times.iter().chain(&counts).for_each(|number| crc.update(&number.to_le_bytes()));
    [packed.lengths, packed.late.unwrap_or_default(), packed.body].iter().for_each(|blob| crc.update(blob));
    // Segments of version 1 have no such bits, and their sums stay as they were written.
    if let Some(revised) = packed.revised {
        crc.update(&(revised.len() as u64).to_le_bytes());
        crc.update(revised);
    }
    crc.sum()
}

/// One bit for each event, lowest first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    len: usize,
    ones: u64,
}

impl Bits {
    fn clear(&mut self) {
        self.bytes.clear();
        (self.len, self.ones) = (0, 0);
    }

    fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut().filter(|_| bit) {
            *last |= 1 << (self.len % 8);
            self.ones += 1;
        }
        self.len += 1;
    }

    /// The bits, where at least one is set.
    fn packed(&self) -> Option<&[u8]> {
        (self.ones > 0).then_some(&*self.bytes)
    }
}

/// The bit at `index`; where there are no bits none is set.
fn is_set(bits: Option<&[u8]>, index: usize) -> bool {
    bits.and_then(|bits| bits.get(index / 8)).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// Builds segments, one after the other, in buffers and a compression context that are kept.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    frame: Vec<u8>,
    body: Vec<u8>,
    lengths: Vec<u8>,
    late: Bits,
    revised: Bits,
}

impl Packer {
    pub(super) fn new() -> Result<Self, StoreError> {
        let compressor = Compressor::new(LEVEL).map_err(|error| no_zstd(&error))?;
        let [frame, body, lengths] = [const { Vec::new() }; 3];
        Ok(Self { compressor, frame, body, lengths, late: Bits::default(), revised: Bits::default() })
    }

    /// Packs `events`, each with its mark, and returns the length of their bytes and how many are late.
    /// The events are gone through twice and must be the same both times.
    pub(super) fn pack<'a>(
        &mut self,
        events: impl Iterator<Item = (&'a [u8], Mark)> + Clone,
    ) -> Result<(u64, u64), StoreError> {
        [&mut self.frame, &mut self.body, &mut self.lengths].into_iter().for_each(Vec::clear);
        [&mut self.late, &mut self.revised].into_iter().for_each(Bits::clear);
        let raw_bytes = events.clone().map(|(raw, _)| raw.len() as u64 + 1).sum();
        if raw_bytes > RAW_BYTES_MAX {
            return Err(StoreError::invalid(format!("a page holds {raw_bytes} bytes of events")));
        }
        for (raw, mark) in events {
            push_length(&mut self.lengths, raw.len());
            self.late.push(mark.late);
            self.revised.push(mark.revised);
            self.frame.extend_from_slice(raw);
            self.frame.push(b'\n');
            if self.frame.len() >= FRAME_BYTES {
                self.close_frame()?;
            }
        }
        self.close_frame()?;
        Ok((raw_bytes, self.late.ones))
    }

    /// Compresses what was gathered, as a frame behind the others: together they are the body.
    fn close_frame(&mut self) -> Result<(), StoreError> {
        let at = self.body.len();
        self.body.resize(at + compress_bound(self.frame.len()), 0);
        let packed = self.compressor.compress_to_buffer(&self.frame, &mut self.body[at..]);
        self.body.truncate(at + packed.map_err(|error| no_zstd(&error))?);
        self.frame.clear();
        Ok(())
    }

    /// What was packed last.
    pub(super) fn packed(&self) -> Packed<'_> {
        let (late, revised) = (self.late.packed(), self.revised.packed());
        Packed { lengths: &self.lengths, late, revised, body: &self.body }
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

fn no_zstd(error: &std::io::Error) -> StoreError {
    StoreError::invalid(format!("compressing a segment failed ({error})"))
}

/// Appends `length` as LEB128: seven bits a byte, lowest first, the high bit set on all but the last.
fn push_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        // Masked to seven bits, so the conversion cannot fail.
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        if length == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Reads back what [`push_length`] wrote; `None` where it is cut off or longer than any length.
fn take_length(bytes: &mut &[u8]) -> Option<usize> {
    let mut length = 0;
    for shift in (0..35).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= usize::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}

/// Takes segments apart, in a decompression context that is kept.
pub(super) struct Unpacker {
    decompressor: Decompressor<'static>,
    spare: Spare,
}

impl Unpacker {
    pub(super) fn new() -> Result<Self, StoreError> {
        let decompressor = Decompressor::new()
            .map_err(|error| StoreError::invalid(format!("starting decompression failed ({error})")))?;
        Ok(Self { decompressor, spare: Spare::default() })
    }

    /// Keeps no more memory than one segment needs: nothing is to be read for a while.
    pub(super) fn rest(&self) {
        self.spare.give_back();
    }

    /// The segment `seq`, once its checksum, its length and its framing are found right.
    pub(super) fn unpack(
        &mut self,
        seq: u64,
        label: &Label,
        packed: Packed<'_>,
        crc: u32,
    ) -> Result<Segment, StoreError> {
        let damaged = |what: &str| StoreError::corrupt(format!("segment {seq} of the spool: {what}"));
        if checksum(label, packed) != crc {
            return Err(damaged("its checksum does not match"));
        }
        if label.raw_bytes > RAW_BYTES_MAX {
            return Err(damaged("its length is out of range"));
        }
        let capacity = usize::try_from(label.raw_bytes).map_err(|_| damaged("its length is out of range"))?;
        let mut body = self.spare.take();
        body.reserve_exact(capacity);
        self.decompressor.decompress_to_buffer(packed.body, &mut body).map_err(|_| damaged("it does not unpack"))?;
        let body = String::from_utf8(body).map_err(|_| damaged("it is not UTF-8"))?;
        let ends = event_ends(packed.lengths, &body).ok_or_else(|| damaged("its lengths do not add up"))?;
        let fits = |bits: Option<&[u8]>| bits.is_none_or(|bits| bits.len() == ends.len().div_ceil(8));
        let bits_fit = fits(packed.late) && fits(packed.revised);
        if ends.len() as u64 != label.events || body.len() != capacity || !bits_fit {
            return Err(damaged("its counts do not add up"));
        }
        let [late, revised] = [packed.late, packed.revised].map(|bits| bits.map(<[u8]>::to_vec));
        Ok(Segment { seq, label: *label, body, ends, late, revised, spare: self.spare.clone() })
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

/// Where each event of `body` ends, or `None` where the lengths do not tile it with a newline behind each event.
fn event_ends(mut lengths: &[u8], body: &str) -> Option<Vec<u32>> {
    let mut ends = Vec::with_capacity(lengths.len() / 2);
    let mut at = 0_usize;
    while !lengths.is_empty() {
        let end = at.checked_add(take_length(&mut lengths)?)?;
        // A newline is a whole character, so that the event before it ends on a character boundary too.
        if body.as_bytes().get(end) != Some(&b'\n') {
            return None;
        }
        ends.push(u32::try_from(end).ok()?);
        at = end + 1;
    }
    (at == body.len()).then_some(ends)
}

/// A segment of the spool, unpacked and found undamaged.
pub struct Segment {
    seq: u64,
    label: Label,
    body: String,
    ends: Vec<u32>,
    late: Option<Vec<u8>>,
    revised: Option<Vec<u8>>,
    spare: Spare,
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.spare.keep(std::mem::take(&mut self.body).into_bytes());
    }
}

/// One event of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpooledEvent<'a> {
    /// Which event of the segment, from 0.
    pub index: u32,
    /// The event exactly as the API sent it.
    pub raw: &'a str,
    /// Whether its instant had already been read when it appeared.
    pub late: bool,
    /// Whether it is another body of an event that was captured before.
    pub revised: bool,
}

impl Segment {
    /// Takes a segment's columns apart without its checksum, number and times: whatever they hold, they are refused or
    /// give exactly `events` events that make up `raw_bytes` bytes, each with its line break. For whoever looks into a
    /// store from outside, and for those that try to break this.
    pub fn decode(
        lengths: &[u8],
        late: Option<&[u8]>,
        body: &[u8],
        events: u64,
        raw_bytes: u64,
    ) -> Result<Self, StoreError> {
        let at = UtcMillis::default();
        let label = Label { stream: StreamId(0), observed_at: at, first_at: at, last_at: at, events, raw_bytes };
        let packed = Packed { lengths, late, revised: None, body };
        Unpacker::new()?.unpack(0, &label, packed, checksum(&label, packed))
    }

    /// The events, each with a line break behind it.
    pub(super) fn text(&self) -> &str {
        &self.body
    }

    /// What its row says beside its blobs.
    pub(super) fn label(&self) -> Label {
        self.label
    }

    /// Its number; never reused.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The stream it was captured for.
    pub fn stream(&self) -> StreamId {
        self.label.stream
    }

    /// When it was captured (API clock).
    pub fn observed_at(&self) -> UtcMillis {
        self.label.observed_at
    }

    /// The earliest and the latest instant of its events.
    pub fn span(&self) -> (UtcMillis, UtcMillis) {
        (self.label.first_at, self.label.last_at)
    }

    /// How many events it holds; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> u32 {
        // Each event has at least its newline in a body below 2^30 bytes.
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// The event at `index`, or `None` behind the last.
    pub fn event(&self, index: u32) -> Option<SpooledEvent<'_>> {
        let at = index as usize;
        let end = *self.ends.get(at)? as usize;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize + 1);
        let [late, revised] = [&self.late, &self.revised].map(|bits| is_set(bits.as_deref(), at));
        Some(SpooledEvent { index, raw: self.body.get(start..end)?, late, revised })
    }

    /// The events from `first` on, in the order of their discovery.
    pub fn events_from(&self, first: u32) -> impl Iterator<Item = SpooledEvent<'_>> + Clone {
        (first..self.len()).filter_map(|index| self.event(index))
    }

    /// All events, in the order of their discovery.
    pub fn events(&self) -> impl Iterator<Item = SpooledEvent<'_>> + Clone {
        self.events_from(0)
    }
}

impl fmt::Debug for Segment {
    /// Without the events: they hold addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("seq", &self.seq).field("events", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn label(events: usize, raw_bytes: u64) -> Label {
        let at = UtcMillis::from_millis;
        let events = events as u64;
        Label { stream: StreamId(7), observed_at: at(3), first_at: at(1), last_at: at(2), events, raw_bytes }
    }

    fn any_mark() -> impl Strategy<Value = Mark> {
        any::<(bool, bool)>().prop_map(|(late, revised)| Mark { late, revised })
    }

    fn packed_segment(events: &[(String, Mark)]) -> (Label, u32, Packer) {
        let mut packer = Packer::new().unwrap();
        // A packer that was used before gives the same bytes.
        packer.pack([(&b"something else"[..], Mark { late: true, revised: true })].into_iter()).unwrap();
        let (raw_bytes, late) = packer.pack(events.iter().map(|(raw, mark)| (raw.as_bytes(), *mark))).unwrap();
        assert_eq!(late, events.iter().filter(|(_, mark)| mark.late).count() as u64);
        let label = label(events.len(), raw_bytes);
        (label, checksum(&label, packer.packed()), packer)
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back_byte_for_byte(
            events in proptest::collection::vec(("(\\PC|\n|\r){0,40}", any_mark()), 1..20),
        ) {
            let (label, crc, packer) = packed_segment(&events);
            let segment = Unpacker::new().unwrap().unpack(1, &label, packer.packed(), crc).unwrap();
            let back: Vec<_> = segment.events().map(|e| (e.raw.to_owned(), Mark { late: e.late, revised: e.revised })).collect();
            prop_assert_eq!(&back, &events);
            prop_assert_eq!(segment.events_from(1).next().map(|e| e.index), (events.len() > 1).then_some(1));
        }

        #[test]
        fn any_changed_byte_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u32, blob in 0..4_usize) {
            let mark = |i| Mark { late: i % 3 == 0, revised: i % 5 == 0 };
            let events: Vec<_> = (0..40).map(|i| (format!("{{\"n\":{i}}}"), mark(i))).collect();
            let (label, crc, packer) = packed_segment(&events);
            let packed = packer.packed();
            let mut blobs = [packed.lengths, packed.late.unwrap(), packed.revised.unwrap(), packed.body].map(<[u8]>::to_vec);
            let at = at.index(blobs[blob].len());
            blobs[blob][at] ^= 1 << bit;
            let changed = Packed { lengths: &blobs[0], late: Some(&blobs[1]), revised: Some(&blobs[2]), body: &blobs[3] };
            let outcome = Unpacker::new().unwrap().unpack(1, &label, changed, crc);
            let noticed = matches!(outcome, Err(StoreError::Corrupt { .. }));
            prop_assert!(noticed);
        }

        #[test]
        fn no_framing_panics(lengths in proptest::collection::vec(any::<u8>(), 0..20), body in "[a\n]{0,40}") {
            if let Some(ends) = event_ends(&lengths, &body) {
                prop_assert_eq!(ends.last().map_or(0, |end| *end as usize + 1), body.len());
            }
        }

        #[test]
        fn lengths_come_back(length in 0_usize..1 << 30) {
            let mut bytes = Vec::new();
            push_length(&mut bytes, length);
            prop_assert_eq!(take_length(&mut &*bytes), Some(length));
        }
    }

    #[test]
    fn a_body_reads_as_lines_by_hand() {
        let events = [("{\"a\":1}".to_owned(), Mark::default()), ("{\"b\":2}".to_owned(), Mark::default())];
        let (_, _, packer) = packed_segment(&events);
        assert_eq!(zstd::decode_all(packer.packed().body).unwrap(), b"{\"a\":1}\n{\"b\":2}\n");
        assert!(packer.packed().late.is_none() && packer.packed().revised.is_none());
    }

    #[test]
    fn without_revisions_a_segment_is_sealed_as_version_1_did() {
        let seal = |late: bool| {
            let mark = Mark { late, revised: false };
            let (label, crc, packer) = packed_segment(&[("{}".to_owned(), mark), ("{\"a\":1}".to_owned(), mark)]);
            let late_len = if late { 1_u64 } else { u64::MAX };
            let numbers = [3, 1, 2, 7, 2, label.raw_bytes, 2, late_len].map(u64::to_le_bytes).concat();
            let late_bits: &[u8] = if late { &[0b11] } else { &[] };
            let mut expected = Crc::new();
            expected.update(&[&numbers, &[2, 7][..], late_bits, packer.packed().body].concat());
            assert_eq!(crc, expected.sum());
        };
        [true, false].into_iter().for_each(seal);
    }

    #[test]
    fn many_blocks_are_one_frame() {
        let events: Vec<_> =
            (0..3_000).map(|i| (format!("{{\"n\":\"{}\"}}", "x".repeat(i % 997)), Mark::default())).collect();
        let (label, crc, packer) = packed_segment(&events);
        assert!(label.raw_bytes > 1_000_000 && packer.packed().body.len() < 300_000);
        let segment = Unpacker::new().unwrap().unpack(1, &label, packer.packed(), crc).unwrap();
        assert!(segment.events().zip(&events).all(|(found, (raw, _))| found.raw == raw));
    }
}
