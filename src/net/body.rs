//! A response's body under construction: plain or inflating, and never above its cap.
//! It exists so that a bomb stops at the cap and a stream that was cut is noticed, whoever asked.

use super::NetError;
use flate2::{Decompress, FlushDecompress, Status};

/// What a compressed body without a spare begins with; it doubles from there.
const FIRST_BYTES: usize = 64 << 10;
/// The base-2 logarithm of the largest window that gzip knows.
const WINDOW_BITS: u8 = 15;

/// A body under construction, plain or inflating, never above its cap.
pub(super) struct Body {
    bytes: Vec<u8>,
    cap: u64,
    gzip: Option<Inflating>,
}

/// A gzip stream: members, one behind the other. It is inflated to where the body lies, which is its own window then.
struct Inflating {
    member: Decompress,
    /// Whether the member was seen to its end, its checksum included.
    has_ended: bool,
}

impl Inflating {
    fn new() -> Self {
        Self { member: Decompress::new_gzip(WINDOW_BITS), has_ended: false }
    }

    /// Inflates all of `chunk`, behind `bytes`.
    fn push(&mut self, mut chunk: &[u8], bytes: &mut Vec<u8>, cap: u64) -> Result<(), NetError> {
        while !self.has_ended || !chunk.is_empty() {
            if self.has_ended {
                *self = Self::new();
            }
            if bytes.len() == bytes.capacity() {
                // One byte above the cap tells that there is more.
                let left = usize::try_from(cap.saturating_sub(bytes.len() as u64)).unwrap_or(usize::MAX);
                bytes.reserve_exact(bytes.len().max(FIRST_BYTES).min(left.saturating_add(1)));
            }
            let (len, taken) = (bytes.len(), self.member.total_in());
            let status = self.member.decompress_vec(chunk, bytes, FlushDecompress::None).map_err(|_| invalid())?;
            let taken = usize::try_from(self.member.total_in() - taken).unwrap_or(usize::MAX);
            chunk = chunk.get(taken..).unwrap_or_default();
            if bytes.len() as u64 > cap {
                return Err(NetError::TooLarge(cap));
            }
            match status {
                Status::StreamEnd => self.has_ended = true,
                // Where there is room left, nothing was held back.
                _ if chunk.is_empty() && bytes.len() < bytes.capacity() => break,
                _ if taken == 0 && bytes.len() == len => return Err(invalid()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn invalid() -> NetError {
    NetError::Broken("it is not valid gzip".into())
}

impl Body {
    /// A body that grows in `spare`.
    pub(super) fn new(mut spare: Vec<u8>, gzip: bool, announced: Option<u64>, cap: u64) -> Self {
        spare.clear();
        // What a server announces is only believed up to the cap.
        spare.reserve_exact(usize::try_from(announced.unwrap_or(0).min(cap)).unwrap_or(0));
        Self { bytes: spare, cap, gzip: gzip.then(Inflating::new) }
    }

    /// Bytes so far, decompressed.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), NetError> {
        if let Some(gzip) = &mut self.gzip {
            return gzip.push(chunk, &mut self.bytes, self.cap);
        }
        if self.bytes.len() as u64 + chunk.len() as u64 > self.cap {
            return Err(NetError::TooLarge(self.cap));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, NetError> {
        if self.gzip.is_some_and(|gzip| !gzip.has_ended) {
            return Err(NetError::Broken("its gzip stream has no valid end".into()));
        }
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write as _;

    fn inflate(bytes: &[u8], cap: u64) -> Result<Vec<u8>, NetError> {
        let mut body = Body::new(Vec::new(), true, None, cap);
        bytes.chunks(7).try_for_each(|chunk| body.push(chunk))?;
        body.finish()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_whole_gzip_body_is_read_and_every_cut_one_refused() {
        let text = br#"{"results":[{"type":"open"}],"total_count":1}"#.repeat(20);
        let whole = gzip(&text);
        assert_eq!(inflate(&whole, 1 << 20).unwrap(), &text[..]);
        for cut in 0..whole.len() {
            assert!(matches!(inflate(&whole[..cut], 1 << 20), Err(NetError::Broken(_))), "cut at {cut}");
        }
    }

    #[test]
    fn damage_is_noticed() {
        let mut bytes = gzip(b"some text that is long enough to be worth a checksum");
        let crc = bytes.len() - 6;
        bytes[crc] ^= 1;
        assert!(matches!(inflate(&bytes, 1 << 20), Err(NetError::Broken(_))));
    }

    #[test]
    fn a_bomb_stops_at_the_cap() {
        let bomb = gzip(&vec![b' '; 8 << 20]);
        assert!(bomb.len() < 256 << 10);
        let refused = inflate(&bomb, 1 << 20);
        assert!(matches!(refused, Err(NetError::TooLarge(cap)) if cap == 1 << 20), "{refused:?}");
    }
    #[test]
    fn what_follows_the_last_member_is_no_gzip() {
        for tail in [&b"x"[..], &[0; 8], &[0x1f, 0x8b]] {
            let refused = inflate(&[&gzip(b"text"), tail].concat(), 1 << 20);
            assert!(matches!(refused, Err(NetError::Broken(_))), "{refused:?}");
        }
    }

    #[test]
    fn a_body_of_exactly_the_cap_is_none_too_large() {
        let text = vec![b'x'; 3 * FIRST_BYTES];
        assert_eq!(inflate(&gzip(&text), text.len() as u64).unwrap(), text);
        assert!(matches!(inflate(&gzip(&text), text.len() as u64 - 1), Err(NetError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn members_come_out_as_they_went_in_however_they_are_cut(
            members in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40), 1_usize..3_000), 1..4),
            cuts in proptest::collection::vec(1_usize..200, 1..40), room in 0_usize..70_000,
        ) {
            let texts: Vec<Vec<u8>> = members.iter().map(|(text, times)| text.repeat(*times)).collect();
            let packed = texts.iter().map(|text| gzip(text)).collect::<Vec<_>>().concat();
            let mut body = Body::new(Vec::with_capacity(room), true, None, 1 << 20);
            let (mut rest, mut cuts) = (&packed[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (chunk, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                body.push(chunk).unwrap();
                rest = behind;
            }
            prop_assert_eq!(body.finish().unwrap(), texts.concat());
        }
    }
}
