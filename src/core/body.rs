//! A short sum of an event's body, by which a row that is read again is known to be the same or to have changed.
//! It exists so that noticing a revision costs the day book four bytes for each event, and reading next to nothing.

/// The sum of one body, in 32 bits: 29 of the sum itself, one for the dialect it was read in, two that count revisions.
///
/// The sum depends neither on the order of the object's members nor on the white space around them, for an API may write
/// the same event in another order. Everything inside a member counts as it was written. Two bodies of one event have the
/// same sum by chance once in 2^29 changes; such a change goes unnoticed, and nothing else depends on the sum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BodySum(u32);

/// What a row that is read again says about the body that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meeting {
    /// The same body, or nothing that could be compared.
    Same,
    /// The body was not known so far, or only as another dialect writes it: this sum is held from now on.
    Learnt(BodySum),
    /// Another body: a revision. This sum is held from now on.
    Revised(BodySum),
    /// Another body, of an event that has had [`BodySum::REVISIONS_MAX`] revisions: what is held stays.
    Unsteady,
}

impl BodySum {
    /// A body of which nothing is known, or whose event has no id: there another body is another event.
    pub const UNKNOWN: Self = Self(0);

    /// So many revisions of one event are noticed. Two replicas that differ for ever would otherwise make one with every
    /// read; an event that grows in steps, as its enrichments come in, takes fewer.
    pub const REVISIONS_MAX: u32 = 3;

    const SUM: u32 = (1 << 29) - 1;
    const DIALECT: u32 = 1 << 29;
    const REVISION: u32 = 1 << 30;

    /// The sum as it is stored; 0 is [`BodySum::UNKNOWN`].
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// What [`BodySum::to_bits`] gave.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether anything is known of the body.
    pub const fn is_known(self) -> bool {
        self.0 != 0
    }

    /// How many revisions were noticed, up to [`BodySum::REVISIONS_MAX`].
    pub const fn revisions(self) -> u32 {
        self.0 / Self::REVISION
    }

    /// Compares the held body, `self`, with one that was `read` now.
    pub const fn meet(self, read: Self) -> Meeting {
        if !read.is_known() {
            return Meeting::Same;
        }
        let revisions = self.0 & !(Self::SUM | Self::DIALECT);
        let read = read.0 & (Self::SUM | Self::DIALECT);
        match self.0 ^ revisions ^ read {
            0 => Meeting::Same,
            // The dialects write the same event differently: what differs between them says nothing.
            differing if !self.is_known() || differing & Self::DIALECT != 0 => Meeting::Learnt(Self(read | revisions)),
            _ if self.revisions() < Self::REVISIONS_MAX => Meeting::Revised(Self((read | revisions) + Self::REVISION)),
            _ => Meeting::Unsteady,
        }
    }
}

impl std::fmt::Debug for BodySum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BodySum({:#x})", self.0)
    }
}

/// A sum under way: the members of one object, in any order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summing(u64);

impl Summing {
    /// Adds a member: its name and its value as they are written, without the white space around them.
    pub fn add(&mut self, name: &str, value: &str) {
        // Adding makes the order of members void; the name as the value's seed keeps each value with its name.
        self.0 = self.0.wrapping_add(scattered(value.as_bytes(), scattered(name.as_bytes(), SEED)));
    }

    /// The sum of the whole body, which is never [`BodySum::UNKNOWN`]. `dialect` tells the two dialects of an API apart.
    pub const fn finish(self, dialect: bool) -> BodySum {
        let [_, _, _, _, high @ ..] = self.0.to_le_bytes();
        let sum = u32::from_le_bytes(high) & BodySum::SUM;
        BodySum((if sum == 0 { 1 } else { sum }) | if dialect { BodySum::DIALECT } else { 0 })
    }
}

/// Odd numbers with about as many ones as zeros, and no other meaning: the digits of the square roots of 2, 3 and 5.
const SEED: u64 = 0x6A09_E667_F3BC_C909;
const LEFT: u64 = 0xBB67_AE85_84CA_A73B;
const RIGHT: u64 = 0x3C6E_F372_FE94_F82B;

/// A hash for this process's own comparisons: sixteen bytes a step, and most names and values are one step. It withstands
/// chance, not malice; but whoever can forge an event's body needs no collision.
fn scattered(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = seed ^ bytes.len() as u64;
    let mut rest = bytes;
    while let Some((chunk, behind)) = rest.split_first_chunk::<16>()
        && !behind.is_empty()
    {
        let [first, last] = halves(chunk);
        hash = folded(first ^ hash, last ^ LEFT);
        rest = behind;
    }
    let [first, last] = ends(if bytes.len() < 16 { rest } else { &bytes[bytes.len() - 16..] });
    folded(first ^ hash, last ^ RIGHT)
}

/// All of up to sixteen bytes, as two numbers that may overlap.
fn ends(bytes: &[u8]) -> [u64; 2] {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return [u64::from_le_bytes(*first), u64::from_le_bytes(*last)];
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return [u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()];
    }
    match bytes {
        [] => [0, 0],
        [one] => [u64::from(*one), 1],
        [first, .., last] => [u64::from(*first) << 8 | u64::from(bytes[1]), u64::from(*last)],
    }
}

fn halves(chunk: &[u8; 16]) -> [u64; 2] {
    let number = u128::from_le_bytes(*chunk);
    [low(number), low(number >> 64)]
}

/// Both halves of the product: every bit of it depends on every bit of both factors.
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    low(product) ^ low(product >> 64)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn low(number: u128) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(members: &[(String, String)]) -> BodySum {
        let mut sum = Summing::default();
        members.iter().for_each(|(name, value)| sum.add(name, value));
        sum.finish(false)
    }

    fn members() -> impl Strategy<Value = Vec<(String, String)>> {
        proptest::collection::vec(("\\PC{0,24}", "\\PC{0,70}"), 1..12)
    }

    proptest! {
        #[test]
        fn the_order_of_members_is_void(members in members(), seed: u64) {
            let mut shuffled = members.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            prop_assert_eq!(sum(&members), sum(&shuffled));
        }

        #[test]
        fn every_byte_of_every_member_counts(
            members in members(), which: prop::sample::Index, at: prop::sample::Index, letter in "[a-z]",
        ) {
            let which = which.index(members.len());
            let mut changed = members.clone();
            let places: Vec<usize> = changed[which].1.char_indices().map(|(place, _)| place).collect();
            if !places.is_empty() {
                let place = places[at.index(places.len())];
                let long = changed[which].1[place..].chars().next().map_or(0, char::len_utf8);
                changed[which].1.replace_range(place..place + long, &letter);
                prop_assert_eq!(changed == members, sum(&changed) == sum(&members));
            }
            let mut longer = members.clone();
            longer[which].1.push_str(&letter);
            prop_assert_ne!(sum(&longer), sum(&members));
            let mut renamed = members.clone();
            renamed[which].0.push_str(&letter);
            prop_assert_ne!(sum(&renamed), sum(&members));
            let mut fewer = members.clone();
            fewer.remove(which);
            prop_assert_ne!(sum(&fewer), sum(&members));
        }

        #[test]
        fn what_was_read_is_held_and_then_the_same(a in 1_u32..1 << 29, b in 1_u32..1 << 29, dialects: (bool, bool), revisions in 0..4_u32) {
            let bits = |sum: u32, dialect: bool| BodySum::from_bits(sum | u32::from(dialect) << 29);
            let held = BodySum::from_bits(bits(a, dialects.0).to_bits() | revisions << 30);
            let read = bits(b, dialects.1);
            match held.meet(read) {
                Meeting::Same => prop_assert_eq!((a, dialects.0), (b, dialects.1)),
                Meeting::Learnt(now) => {
                    prop_assert!(dialects.0 != dialects.1);
                    prop_assert_eq!((now.meet(read), now.revisions()), (Meeting::Same, revisions));
                }
                Meeting::Revised(now) => {
                    prop_assert!(dialects.0 == dialects.1 && a != b && revisions < 3);
                    prop_assert_eq!((now.meet(read), now.revisions()), (Meeting::Same, revisions + 1));
                }
                Meeting::Unsteady => prop_assert!(dialects.0 == dialects.1 && a != b && revisions == 3),
            }
            prop_assert_eq!(held.meet(BodySum::UNKNOWN), Meeting::Same);
            prop_assert_eq!(BodySum::UNKNOWN.meet(read), Meeting::Learnt(read));
        }
    }

    #[test]
    fn values_that_change_places_are_another_body() {
        let of = |members: [(&str, &str); 2]| sum(&members.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_ne!(of([("a", "1"), ("b", "2")]), of([("a", "2"), ("b", "1")]));
        assert_ne!(of([("a", "1"), ("a", "1")]), of([("a", "2"), ("a", "2")]));
        assert_ne!(of([("ab", "c"), ("", "")]), of([("a", "bc"), ("", "")]));
    }

    #[test]
    fn no_body_is_unknown_and_the_dialects_differ() {
        let [one, other] = [false, true].map(|dialect| Summing::default().finish(dialect));
        assert!(one.is_known() && other.is_known() && one != other && !BodySum::UNKNOWN.is_known());
        assert!(Summing(u64::MAX).finish(true).revisions() == 0);
    }

    /// Sums are stored: the next version must find the same for the same body, or everything would be revised.
    #[test]
    fn sums_never_change() {
        let text = "a longer value, of more than thirty-two bytes in all";
        let members = [("", ""), ("a", "1"), ("ab", "12"), ("type", "\"open\""), ("event_id", "\"92356927693813856\"")];
        let mut sum = Summing::default();
        let mut sums = Vec::new();
        for (name, value) in members.into_iter().chain([("a_name_of_25_bytes_in_all", text), ("é", &text[..33])]) {
            sum.add(name, value);
            sums.push(sum.finish(false).to_bits());
        }
        let expected = [0x0876_e495, 0x0a2c_45ec, 0x0b26_1e9e, 0x09af_e577, 0x0c90_8816, 0x182d_e4a1, 0x0adc_8ce0];
        assert_eq!(sums, expected);
    }
}
