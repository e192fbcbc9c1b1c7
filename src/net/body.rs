//! A response's body under construction: plain or inflating, and never above its cap.
//! It exists so that a bomb stops at the cap and a stream that was cut is noticed, whoever asked.

use super::NetError;
use flate2::write::MultiGzDecoder;
use std::io::{self, Write};

/// A body under construction, plain or inflating, never above its cap.
pub(super) enum Body {
    Plain(Capped),
    Gzip(Box<MultiGzDecoder<Capped>>),
}

pub(super) struct Capped {
    bytes: Vec<u8>,
    cap: u64,
}

impl Write for Capped {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        if self.bytes.len() as u64 + chunk.len() as u64 > self.cap {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Body {
    /// A body that grows in `spare`.
    pub(super) fn new(mut spare: Vec<u8>, gzip: bool, announced: Option<u64>, cap: u64) -> Self {
        spare.clear();
        // What a server announces is only believed up to the cap.
        spare.reserve_exact(usize::try_from(announced.unwrap_or(0).min(cap)).unwrap_or(0));
        let plain = Capped { bytes: spare, cap };
        if gzip { Self::Gzip(Box::new(MultiGzDecoder::new(plain))) } else { Self::Plain(plain) }
    }

    /// Bytes so far, decompressed.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(plain) => plain.bytes.len(),
            Self::Gzip(gzip) => gzip.get_ref().bytes.len(),
        }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), NetError> {
        let written = match self {
            Self::Plain(plain) => plain.write_all(chunk),
            Self::Gzip(gzip) => gzip.write_all(chunk),
        };
        written.map_err(|e| self.broken(&e, "it is not valid gzip"))
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>, NetError> {
        if let Self::Gzip(gzip) = &mut self
            && let Err(e) = gzip.try_finish()
        {
            return Err(self.broken(&e, "its gzip stream has no valid end"));
        }
        let plain = match &mut self {
            Self::Plain(plain) => plain,
            Self::Gzip(gzip) => gzip.get_mut(),
        };
        Ok(std::mem::take(&mut plain.bytes))
    }

    fn broken(&self, error: &io::Error, otherwise: &str) -> NetError {
        let cap = match self {
            Self::Plain(plain) => plain.cap,
            Self::Gzip(gzip) => gzip.get_ref().cap,
        };
        match error.kind() {
            io::ErrorKind::FileTooLarge => NetError::TooLarge(cap),
            _ => NetError::Broken(otherwise.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};

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
}
