//! Seals: a checksum that a row carries over its own content. It exists because SQLite has none: a byte that the disk
//! has changed inside a value is read as another value, and day book and positions decide what is forwarded.

use flate2::Crc;

/// The seal of a row with these numbers and texts; never 0, which marks a row that has none.
pub(super) fn of(numbers: &[i64], blobs: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    numbers.iter().for_each(|number| crc.update(&number.to_le_bytes()));
    for blob in blobs {
        crc.update(&(blob.len() as u64).to_le_bytes());
        crc.update(blob);
    }
    crc.sum().max(1)
}

/// Whether `stored` is the seal of this content, or there is none.
pub(super) fn holds(stored: i64, numbers: &[i64], blobs: &[&[u8]]) -> bool {
    stored == 0 || stored == i64::from(of(numbers, blobs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_changed_byte_goes_unnoticed(
            number in any::<i64>(), blob in proptest::collection::vec(any::<u8>(), 1..200),
            at in any::<prop::sample::Index>(), change in 1_u8..,
        ) {
            let seal = i64::from(of(&[number], &[&blob, b"end"]));
            prop_assert!(seal != 0 && holds(seal, &[number], &[&blob, b"end"]));
            let mut changed = blob.clone();
            changed[at.index(blob.len())] ^= change;
            prop_assert!(!holds(seal, &[number], &[&changed, b"end"]));
            prop_assert!(!holds(seal, &[number ^ i64::from(change)], &[&blob, b"end"]));
            prop_assert!(!holds(seal, &[number], &[b"", &[&blob[..], b"end"].concat()]));
        }
    }
}
