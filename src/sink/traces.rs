//! Whether the bytes of a file name a person. It exists because whoever was erased is looked for in files of sinks, by the sinks
//! themselves and by the command, and both must find the same.

use crate::core::person::Person;
use std::io::{self, Read};

/// Files are searched in pieces of this size.
const PIECE: usize = 1 << 20;

/// Whether `file`, from where it stands, holds the person's address. An address that lies across two pieces is found, too.
pub fn hold(file: &mut impl Read, person: &Person) -> io::Result<bool> {
    let mut piece = vec![0; PIECE];
    let mut kept = 0;
    loop {
        let read = file.read(&mut piece[kept..])?;
        if read == 0 {
            return Ok(false);
        }
        let filled = kept + read;
        if person.is_in_bytes(&piece[..filled]) {
            return Ok(true);
        }
        kept = filled.min(person.longest());
        piece.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte at a time, as a slow disk gives them.
    struct Dripping<'a>(&'a [u8]);

    impl Read for Dripping<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            (into[0], self.0) = (*first, rest);
            Ok(1)
        }
    }

    #[test]
    fn an_address_is_found_wherever_a_piece_ends() {
        let person = Person::new("ann@example.org").unwrap();
        for before in [0, 1, PIECE - 16, PIECE - 8, PIECE - 1, PIECE, PIECE + 5] {
            let bytes = [&vec![b' '; before][..], b"<ann@example.org>"].concat();
            assert!(hold(&mut &bytes[..], &person).unwrap(), "behind {before} bytes");
        }
        assert!(hold(&mut Dripping(b"to: Ann@Example.org"), &person).unwrap());
        assert!(!hold(&mut Dripping(b"to: joann@example.org"), &person).unwrap());
    }
}
