//! Half-open time ranges and sets of them: the arithmetic in which progress, gaps and slices are expressed.
//! Progress is a set of closed windows, never a single bookmark, so that windows may be read in any order.

use super::time::{Millis, UtcMillis};
use std::fmt;

/// A half-open time range `[from, to)`; never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    from: UtcMillis,
    to: UtcMillis,
}

impl Window {
    /// `[from, to)`, or `None` where that would be empty.
    pub fn new(from: UtcMillis, to: UtcMillis) -> Option<Self> {
        (from < to).then_some(Self { from, to })
    }

    /// The first instant inside.
    pub const fn from(self) -> UtcMillis {
        self.from
    }

    /// The first instant behind the end.
    pub const fn to(self) -> UtcMillis {
        self.to
    }

    /// Length in milliseconds; positive.
    pub const fn span(self) -> Millis {
        self.to.since(self.from)
    }

    /// Whether `at` lies inside.
    pub fn contains(self, at: UtcMillis) -> bool {
        self.from <= at && at < self.to
    }

    /// The part shared with `other`.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.from.max(other.from), self.to.min(other.to))
    }

    /// The smallest window around this one whose edges are multiples of `step` milliseconds.
    #[must_use]
    pub fn align_outward(self, step: Millis) -> Self {
        Self { from: self.from.floor(step), to: self.to.ceil(step) }
    }

    /// Two halves that tile this window and meet on a multiple of `grain`, or `None` when no such edge lies inside.
    pub fn bisect(self, grain: Millis) -> Option<(Self, Self)> {
        let middle = self.from.plus(self.span() / 2).floor(grain);
        let middle = if middle <= self.from { self.from.plus(1).ceil(grain) } else { middle };
        Some((Self::new(self.from, middle)?, Self::new(middle, self.to)?))
    }

    /// Tiles this window with at most `pieces` windows of about equal length whose inner edges are multiples of
    /// `grain`. Order: earliest first.
    pub fn split(self, pieces: u64, grain: Millis) -> Vec<Self> {
        let pieces = i64::try_from(pieces.max(1)).unwrap_or(i64::MAX);
        let step = UtcMillis::from_millis((self.span() - 1) / pieces + 1).ceil(grain).as_millis();
        let mut edges = vec![self.from];
        let mut edge = self.from.plus(step).floor(grain);
        while edge < self.to {
            if edge > self.from {
                edges.push(edge);
            }
            edge = edge.plus(step);
        }
        edges.push(self.to);
        edges.windows(2).filter_map(|pair| Self::new(pair[0], pair[1])).collect()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.from, self.to)
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of instants as disjoint windows, sorted, with touching ones merged.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Coverage {
    windows: Vec<Window>,
}

impl Coverage {
    /// The set that holds nothing.
    pub const fn new() -> Self {
        Self { windows: Vec::new() }
    }

    /// The disjoint windows, earliest first; no two touch.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Total length in milliseconds.
    pub fn span(&self) -> Millis {
        self.windows.iter().map(|w| w.span()).sum()
    }

    /// Adds every instant of `window`.
    pub fn insert(&mut self, window: Window) {
        let first = self.windows.partition_point(|w| w.to < window.from);
        let last = self.windows.partition_point(|w| w.from <= window.to);
        let merged = self.windows[first..last]
            .iter()
            .fold(window, |sum, w| Window { from: sum.from.min(w.from), to: sum.to.max(w.to) });
        self.windows.splice(first..last, [merged]);
    }

    /// Takes every instant of `window` out.
    pub fn remove(&mut self, window: Window) {
        let before = std::mem::take(&mut self.windows);
        for w in before {
            self.windows.extend(Window::new(w.from, w.to.min(window.from)));
            self.windows.extend(Window::new(w.from.max(window.to), w.to));
        }
    }

    /// The parts of `window` that are in the set, earliest first.
    pub fn within(&self, window: Window) -> Vec<Window> {
        self.windows.iter().filter_map(|w| w.intersection(window)).collect()
    }

    /// The parts of `window` that are not in the set, earliest first.
    pub fn missing(&self, window: Window) -> Vec<Window> {
        let mut parts = Vec::new();
        let mut from = window.from;
        for w in self.within(window) {
            parts.extend(Window::new(from, w.from));
            from = w.to;
        }
        parts.extend(Window::new(from, window.to));
        parts
    }

    /// Whether every instant of `window` is in the set.
    pub fn contains_window(&self, window: Window) -> bool {
        self.missing(window).is_empty()
    }

    /// The end of the contiguous part that begins at or before `floor`: the watermark of a stream that started at
    /// `floor`. `floor` itself where nothing there was read.
    pub fn watermark(&self, floor: UtcMillis) -> UtcMillis {
        let after = self.windows.partition_point(|w| w.to < floor);
        self.windows.get(after).filter(|w| w.from <= floor).map_or(floor, |w| w.to)
    }
}

impl Extend<Window> for Coverage {
    fn extend<I: IntoIterator<Item = Window>>(&mut self, windows: I) {
        windows.into_iter().for_each(|w| self.insert(w));
    }
}

impl FromIterator<Window> for Coverage {
    fn from_iter<I: IntoIterator<Item = Window>>(windows: I) -> Self {
        let mut set = Self::new();
        windows.into_iter().for_each(|w| set.insert(w));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(from: i64, to: i64) -> Window {
        Window::new(UtcMillis::from_millis(from), UtcMillis::from_millis(to)).unwrap()
    }

    fn windows() -> impl Strategy<Value = Vec<Window>> {
        proptest::collection::vec((0_i64..60, 1_i64..12).prop_map(|(from, span)| window(from, from + span)), 0..12)
    }

    fn holds(set: &Coverage, at: i64) -> bool {
        set.windows().iter().any(|w| w.contains(UtcMillis::from_millis(at)))
    }

    proptest! {
        #[test]
        fn a_set_of_windows_is_a_set_of_instants(added in windows(), removed in windows(), asked in windows()) {
            let mut set: Coverage = added.iter().copied().collect();
            removed.iter().for_each(|w| set.remove(*w));
            for at in 0..80 {
                let instant = UtcMillis::from_millis(at);
                let expected = added.iter().any(|w| w.contains(instant)) && !removed.iter().any(|w| w.contains(instant));
                prop_assert_eq!(holds(&set, at), expected, "{}", at);
            }
            prop_assert!(set.windows().windows(2).all(|p| p[0].to() <= p[1].from()));
            for w in asked {
                let missing: Coverage = set.missing(w).into_iter().collect();
                let within: Coverage = set.within(w).into_iter().collect();
                for at in 0..80 {
                    let inside = w.contains(UtcMillis::from_millis(at));
                    prop_assert_eq!(holds(&missing, at), inside && !holds(&set, at));
                    prop_assert_eq!(holds(&within, at), inside && holds(&set, at));
                }
                prop_assert_eq!(missing.span() + within.span(), w.span());
            }
        }

        #[test]
        fn touching_windows_merge(added in windows()) {
            let set: Coverage = added.into_iter().collect();
            prop_assert!(set.windows().windows(2).all(|p| p[0].to() < p[1].from()));
        }

        #[test]
        fn the_watermark_ends_the_contiguous_part(added in windows(), floor in 0_i64..70) {
            let set: Coverage = added.into_iter().collect();
            let mark = set.watermark(UtcMillis::from_millis(floor)).as_millis();
            prop_assert!((floor..mark).all(|at| holds(&set, at)));
            prop_assert!(!holds(&set, mark));
        }

        #[test]
        fn splitting_tiles_exactly(from in -500_i64..500, span in 1_i64..5_000, pieces in 0_u64..40, grain in 1_i64..200) {
            let whole = window(from, from + span);
            let parts = whole.split(pieces, grain);
            prop_assert_eq!(parts.first().map(|w| w.from()), Some(whole.from()));
            prop_assert_eq!(parts.last().map(|w| w.to()), Some(whole.to()));
            prop_assert!(parts.windows(2).all(|p| p[0].to() == p[1].from() && p[0].to().as_millis() % grain == 0));
            prop_assert!(parts.len() as u64 <= pieces.max(1) + 1);
        }

        #[test]
        fn bisecting_tiles_and_ends_at_one_grain(from in -500_i64..500, span in 1_i64..5_000, grain in 1_i64..200) {
            let whole = window(from, from + span);
            match whole.bisect(grain) {
                Some((a, b)) => {
                    prop_assert_eq!((a.from(), b.to()), (whole.from(), whole.to()));
                    prop_assert_eq!(a.to(), b.from());
                    prop_assert_eq!(a.to().as_millis().rem_euclid(grain), 0);
                }
                None => prop_assert!((from + 1..from + span).all(|at| at.rem_euclid(grain) != 0)),
            }
        }
    }
}
