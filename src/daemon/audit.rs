//! Compares what is stored with what the API counts, in as few requests as it can: one count over a long range, halved
//! where it differs, down to the hours that do. It exists to answer "is anything missing?" without reading events.

use super::ask::{Asker, Halt};
use super::walk::{Counted, count};
use crate::core::hours::Shown;
use crate::core::time::{HOUR, MINUTE, Millis, UtcMillis};
use crate::core::window::{Coverage, Window};
use crate::store::StoreError;

/// The oldest events expire while an audit asks for them: it begins so much behind the horizon.
pub const MARGIN: Millis = 15 * MINUTE;

/// Plans that were made void (another dialect, another clock) are made again so often.
const PLANS_MAX: u32 = 3;

/// Why the counts of a range cannot be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// The API gives no count, or one that its own answer belies.
    NoCount,
    /// Its answer shows events of other times: it ignores `from` and `to`.
    Elsewhere,
    /// The parts of a range sum up to more than the whole: it counts up to a limit.
    Capped(u64),
}

/// An hour, or less, whose counts differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The range.
    pub window: Window,
    /// Events that are stored, less those known to be erased upstream.
    pub expected: u64,
    /// Events by the API's count.
    pub counted: u64,
}

impl Difference {
    /// Whether the API counts more.
    pub fn is_short(&self) -> bool {
        self.counted > self.expected
    }
}

/// What comparing has shown.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// The hours, for [`crate::core::hours::hours`].
    pub shown: Shown,
    /// What differs, earliest first, in pieces of an hour at most.
    pub differences: Vec<Difference>,
    /// Why something could not be compared, and where.
    pub doubts: Vec<(Window, Doubt)>,
    /// Events that are expected in everything that was compared.
    pub expected: u64,
    /// The API's count of it; `None` where it gave none that can be believed.
    pub counted: Option<u64>,
}

/// Compares `ranges` (earliest first; edges on whole minutes). `expected` says how many events of a window the API should
/// show; it is asked after the API was, so that what is captured meanwhile never looks short. The API's clock must be known.
pub async fn compare<E>(asker: &Asker, ranges: &[Window], expected: E) -> Result<Comparison, Halt>
where
    E: Fn(Window) -> Result<u64, StoreError>,
{
    let mut plans = 1;
    loop {
        let mut audit = Audit { asker, expected: &expected, found: Comparison::default(), cap: None };
        match audit.all(ranges).await {
            Err(Halt::Replan(what)) if plans < PLANS_MAX => {
                tracing::info!(stream = %asker.stream, "{what}");
                plans += 1;
            }
            outcome => return outcome.map(|()| audit.found),
        }
    }
}

/// One comparison under way.
struct Audit<'a, E> {
    asker: &'a Asker,
    expected: &'a E,
    found: Comparison,
    /// The count beyond which the API does not count, once that was found out.
    cap: Option<u64>,
}

/// A range to look at, and its count where that is known.
struct Part {
    window: Window,
    counted: Option<u64>,
    /// Whether the count was asked for, not worked out.
    asked: bool,
}

impl<E: Fn(Window) -> Result<u64, StoreError>> Audit<'_, E> {
    async fn all(&mut self, ranges: &[Window]) -> Result<(), Halt> {
        let mut total = Some(0);
        for range in ranges {
            let counted = self.range(*range).await?;
            total = total.zip(counted).map(|(sum, counted)| sum + counted);
            self.found.expected += (self.expected)(*range)?;
        }
        self.found.counted = total.filter(|_| self.cap.is_none());
        self.found.differences.sort_by_key(|difference| difference.window);
        Ok(())
    }

    async fn range(&mut self, range: Window) -> Result<Option<u64>, Halt> {
        let Some(total) = self.ask(range).await? else { return Ok(None) };
        let mut stack = vec![Part { window: range, counted: Some(total), asked: true }];
        while let Some(Part { window, counted, asked }) = stack.pop() {
            let counted = match counted {
                Some(counted) => counted,
                None => match self.ask(window).await? {
                    Some(counted) => counted,
                    None => continue,
                },
            };
            if self.nearest(window, counted)? == counted {
                self.found.shown.equal.insert(window);
                continue;
            }
            match window.bisect(HOUR) {
                Some((older, newer)) => {
                    let [first, second] = self.halves(window, counted, older, newer).await?;
                    stack.extend([second, first]);
                }
                // What was worked out is not held against anybody before it was asked for.
                None if !asked => stack.push(Part { window, counted: None, asked: true }),
                None => self.differs(window, counted)?,
            }
        }
        Ok(Some(total))
    }

    /// The counts of both halves of a window that differs. Where the API's edges are sharp, the second follows from the
    /// first; it is asked for all the same where it would show too little, for so does an API that counts up to a limit.
    async fn halves(&mut self, window: Window, whole: u64, older: Window, newer: Window) -> Result<[Part; 2], Halt> {
        let part = |window, counted, asked| Part { window, counted, asked };
        let Some(first) = self.ask(older).await? else {
            return Ok([part(older, Some((self.expected)(older)?), true), part(newer, None, true)]);
        };
        let sharp = self.asker.source.grain() < MINUTE;
        let rest = whole.checked_sub(first).filter(|_| sharp && self.cap.is_none());
        let expected = (self.expected)(newer)?;
        if let Some(rest) = rest.filter(|rest| *rest >= expected) {
            return Ok([part(older, Some(first), true), part(newer, Some(rest), false)]);
        }
        let Some(second) = self.ask(newer).await? else {
            return Ok([part(older, Some(first), true), part(newer, Some(expected), true)]);
        };
        // The minute in the middle may be counted on both sides.
        let twice = if sharp { 0 } else { self.minute(newer.from())? };
        if first + second > whole + twice && self.cap.is_none() {
            let again = self.ask(window).await?.unwrap_or(whole);
            if first + second > again + twice {
                self.cap = Some(again);
                self.found.doubts.push((window, Doubt::Capped(again)));
            }
        }
        Ok([part(older, Some(first), true), part(newer, Some(second), true)])
    }

    /// The API's count, or `None` where it has none that can be compared, which is noted.
    async fn ask(&mut self, window: Window) -> Result<Option<u64>, Halt> {
        let Counted { total, elsewhere } = count(self.asker, window).await?;
        let doubt = if elsewhere { Some(Doubt::Elsewhere) } else { total.is_none().then_some(Doubt::NoCount) };
        if let Some(doubt) = doubt {
            self.found.doubts.push((window, doubt));
            self.found.shown.doubtful.insert(window);
        }
        Ok(total.filter(|_| doubt.is_none()))
    }

    fn differs(&mut self, window: Window, counted: u64) -> Result<(), Halt> {
        let expected = self.nearest(window, counted)?;
        let difference = Difference { window, expected, counted };
        let at_the_cap = self.cap == Some(counted);
        let set = if difference.is_short() && !at_the_cap {
            &mut self.found.shown.short
        } else {
            &mut self.found.shown.doubtful
        };
        set.insert(window);
        if !at_the_cap {
            self.found.differences.push(difference);
        }
        Ok(())
    }

    /// What is expected of a window, by the reading of its end that comes nearer to the count: the legacy API may count
    /// the whole minute that `to` names.
    fn nearest(&self, window: Window, counted: u64) -> Result<u64, Halt> {
        let exact = (self.expected)(window)?;
        if exact == counted || self.asker.source.grain() < MINUTE {
            return Ok(exact);
        }
        let wider = exact + self.minute(window.to())?;
        Ok(if wider.abs_diff(counted) < exact.abs_diff(counted) { wider } else { exact })
    }

    fn minute(&self, from: UtcMillis) -> Result<u64, Halt> {
        let minute = Window::new(from, from.plus(MINUTE));
        Ok(minute.map_or(Ok(0), |minute| (self.expected)(minute))?)
    }
}

/// The parts of `whole` that can be compared: read, still served at `oldest`, and on whole minutes.
pub fn comparable(coverage: &Coverage, whole: Window, oldest: UtcMillis) -> Vec<Window> {
    let served = Window::new(whole.from().max(oldest), whole.to());
    let read = served.map(|served| coverage.within(served)).unwrap_or_default();
    read.iter().filter_map(|read| Window::new(read.from().ceil(MINUTE), read.to().floor(MINUTE))).collect()
}
