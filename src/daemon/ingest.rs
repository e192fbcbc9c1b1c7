//! One stream's capture: plan, read what is due side by side, compare counts, and say what was lost.
//! It exists as the one owner of a stream, so that its passes can never overlap and its watermark has one writer.

use super::ask::Halt;
use super::recheck::Rechecks;
use super::reconcile::Reconciled;
use super::walk::{Counted, Walked, Walker};
use crate::core::plan::{self, Known, Plan, Policy, SPAN_MAX};
use crate::core::recheck::Reread;
use crate::core::time::{HOUR, MINUTE, Millis, SECOND, UtcMillis, humane};
use crate::core::window::{Coverage, Window};
use crate::source::SourceError;
use crate::store::{Closing, Progress};
use tokio::task::JoinSet;

/// A fresh window and the lookback, together up to this long, are first asked for as one count: a quiet tick is one
/// request, whether it comes every minute or every few hours.
const QUIET_SPAN_MAX: Millis = 6 * HOUR;

/// Quiet windows are written down together at least this often: a quiet tick costs no fsync.
const QUIET_UNWRITTEN_MAX: Millis = 10 * MINUTE;

/// When so many windows of a pass have failed, it is the API and not the window.
const PUT_OFF_MAX: usize = 3;

/// Windows at least this long are counted before they are read, while it is not known how dense they are.
const COUNT_FIRST_FROM: Millis = 2 * HOUR;

/// One stream's capture.
pub struct Ingest {
    pub(super) walker: Walker,
    pub(super) rechecks: Rechecks,
    /// Length of the next windows; adapts to how dense events are.
    pub(super) span: Millis,
    /// Whether `span` rests on a count rather than on hope.
    span_known: bool,
    /// Read and found empty, but not written down yet.
    quiet: Option<Window>,
    /// Under which key of the store the dialect that was found out is remembered.
    dialect_key: String,
    /// The dialect that is written down there.
    dialect_written: Option<String>,
}

/// What a first count over lookback and fresh window says.
enum Glance {
    /// There is nothing to read.
    Nothing,
    /// It differs in a way that was looked into in vain: only what is fresh is read.
    Known,
    /// Read, and compare.
    Something,
}

/// Under which key of the store the dialect of a stream is remembered.
pub fn dialect_key(stream: &str) -> String {
    format!("dialect:{stream}")
}

/// What expires so soon is not read again in another dialect: it might be gone before its turn comes, and count as lost
/// although it was read.
const EXPIRING: Millis = 10 * MINUTE;

/// What one pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Windows closed.
    pub closed: u32,
    /// Of these, windows whose counts differ.
    pub unverified: u32,
    /// Ranges that expired unread, found in this pass.
    pub gaps: u32,
    /// Event time lost in them, in milliseconds.
    pub gap_span: Millis,
}

impl Pass {
    fn and(self, next: Self) -> Self {
        Self {
            closed: self.closed + next.closed,
            unverified: self.unverified + next.unverified,
            gaps: self.gaps + next.gaps,
            gap_span: self.gap_span + next.gap_span,
        }
    }
}

impl Ingest {
    /// Capture of the stream that `walker` reads. `dialect_written` is the dialect that the store holds for it.
    pub fn new(walker: Walker, lookback: Millis, reread: Reread, dialect_written: Option<String>) -> Self {
        let stream = walker.asker.stream.clone();
        Self {
            walker,
            rechecks: Rechecks::new(lookback, reread, &stream),
            span: SPAN_MAX,
            span_known: false,
            quiet: None,
            dialect_key: dialect_key(&stream),
            dialect_written,
        }
    }

    /// Reads everything that is due, then looks again at what was read before.
    pub async fn tick(&mut self) -> Result<Pass, Halt> {
        let mut pass = self.tick_planned().await?;
        if self.remember_dialect().await? {
            // Until the next tick the oldest of what is due again would expire.
            pass = pass.and(self.tick_planned().await?);
        }
        match self.recheck().await {
            Err(Halt::Replan(what)) => self.replan(&what).await?,
            outcome => outcome?,
        }
        Ok(pass)
    }

    async fn tick_planned(&mut self) -> Result<Pass, Halt> {
        let mut quiet_tried = false;
        loop {
            match self.tick_once(&mut quiet_tried).await {
                Err(Halt::Replan(what)) => self.replan(&what).await?,
                outcome => return outcome,
            }
        }
    }

    /// Says why, and rests a moment: what makes a plan void must not become a busy loop.
    async fn replan(&self, why: &str) -> Result<(), Halt> {
        tracing::info!(stream = %self.walker.asker.stream, "{why}");
        self.walker.pause(SECOND / 5).await
    }

    /// Writes the dialect down that answers. Another one than before may show other events: what the API still has is due
    /// again then, and `true` is returned.
    async fn remember_dialect(&mut self) -> Result<bool, Halt> {
        let described = self.walker.asker.source.describe();
        let Some(found) = described.split(' ').next().filter(|found| *found != "auto") else { return Ok(false) };
        if self.dialect_written.as_deref() == Some(found) {
            return Ok(false);
        }
        let changed = self.dialect_written.is_some();
        let now = self.walker.asker.account.clock.now();
        let again = Window::new(plan::horizon(now).plus(EXPIRING), now).filter(|_| changed);
        if changed {
            tracing::warn!(stream = %self.walker.asker.stream, dialect = found,
                "the API is asked in another dialect than before: what it still has is due again");
            self.write_quiet().await?;
        }
        let (stream, key, value) = (self.walker.stream, self.dialect_key.clone(), found.to_owned());
        self.walker.write(move |store| store.adopt_dialect(stream, &key, &value, again)).await?;
        self.dialect_written = Some(found.to_owned());
        Ok(changed)
    }

    async fn tick_once(&mut self, quiet_tried: &mut bool) -> Result<Pass, Halt> {
        let mut known = false;
        if !std::mem::replace(quiet_tried, true) {
            match self.nothing_new().await? {
                Glance::Nothing => return Ok(Pass::default()),
                Glance::Known => known = true,
                Glance::Something => {}
            }
        }
        let pass = self.read_due(|known, policy, now, _| plan::plan(known, policy, now)).await?;
        if let Some(recheck) = self.plan(&self.progress().await?, &plan::plan).recheck.filter(|_| !known) {
            self.compare(recheck, true).await?;
        }
        Ok(pass)
    }

    /// One count over lookback and fresh window together: where it equals the day book's, there is nothing to read.
    async fn nothing_new(&mut self) -> Result<Glance, Halt> {
        let progress = self.progress().await?;
        let plan = self.plan(&progress, &plan::plan);
        let (Some(recheck), [] | [_]) = (plan.recheck, plan.due.as_slice()) else { return Ok(Glance::Something) };
        let fresh = plan.due.first().copied();
        let from = fresh.map_or(recheck.from(), |fresh| fresh.from().floor(MINUTE).min(recheck.from()));
        let Some(both) = Window::new(from, recheck.to()).filter(|both| both.span() <= QUIET_SPAN_MAX) else {
            return Ok(Glance::Something);
        };
        if !plan.gaps.is_empty() {
            return Ok(Glance::Something);
        }
        match self.count(both).await? {
            Some(Some(0)) => {}
            Some(_) => return Ok(Glance::Something),
            None => return Ok(Glance::Known),
        }
        if let Some(fresh) = fresh {
            self.note_quiet(fresh).await?;
        }
        Ok(Glance::Nothing)
    }

    async fn note_quiet(&mut self, window: Window) -> Result<(), Halt> {
        let touching = self.quiet.filter(|quiet| quiet.to() == window.from());
        let merged = touching.and_then(|quiet| Window::new(quiet.from(), window.to())).unwrap_or(window);
        if touching.is_none() {
            self.write_quiet().await?;
        }
        self.quiet = Some(merged);
        if merged.span() >= QUIET_UNWRITTEN_MAX { self.write_quiet().await } else { Ok(()) }
    }

    /// Writes down the quiet windows that are only remembered so far.
    pub async fn write_quiet(&mut self) -> Result<(), Halt> {
        let Some(window) = self.quiet else { return Ok(()) };
        let stream = self.walker.stream;
        let at = self.walker.asker.account.clock.now();
        let closing = Closing { window, api_count: Some(0), distinct: 0, pages: 0, verified: true, at };
        self.walker.write(move |store| store.close_window(stream, &closing, &[])).await?;
        self.quiet = None;
        Ok(())
    }

    /// Reads `range` (whole minutes), what is missing first and then what differs. The pass names every gap in the range,
    /// also those that were found before: asking again makes nothing complete. The second figure says what the whole
    /// range turned out to hold.
    pub async fn backfill(&mut self, range: Window) -> Result<(Pass, Reconciled), Halt> {
        let tally = self.walker.asker.tally.clone();
        tally.span_due.add(range.span().unsigned_abs());
        let read_before: Millis = self.progress().await?.coverage.within(range).iter().map(|w| w.span()).sum();
        tally.span_read.add(read_before.unsigned_abs());
        let outcome = loop {
            match self.backfill_once(range).await {
                Err(Halt::Replan(what)) => self.replan(&what).await?,
                outcome => break outcome?,
            }
        };
        self.remember_dialect().await?;
        let (mut pass, settled) = outcome;
        let lost = self.progress().await?.gaps.within(range);
        pass.gaps = u32::try_from(lost.len()).unwrap_or(u32::MAX);
        pass.gap_span = lost.iter().map(|gap| gap.span()).sum();
        Ok((pass, settled))
    }

    async fn backfill_once(&mut self, range: Window) -> Result<(Pass, Reconciled), Halt> {
        let planner = move |known: Known<'_>, policy: Policy, now| plan::plan_range(known, range, policy, now);
        let pass = self.read_due(|known, policy, now, _| planner(known, policy, now)).await?;
        let settled = match self.plan(&self.progress().await?, &planner).recheck {
            Some(rest) => self.walker.reconcile(rest, true).await?,
            None => Reconciled { complete: true, ..Reconciled::default() },
        };
        Ok((pass, settled))
    }

    /// Reads `range` once more, as if nothing of it had been read.
    pub(super) async fn read_again(&mut self, range: Window) -> Result<Pass, Halt> {
        self.read_due(|_, policy, now, taken| plan::plan_again(range, taken, policy, now)).await
    }

    /// Reads until the planner finds nothing due, as many windows side by side as the account allows. The planner is also
    /// told what this pass has taken up so far.
    async fn read_due(
        &mut self,
        planner: impl Fn(Known<'_>, Policy, UtcMillis, &Coverage) -> Plan,
    ) -> Result<Pass, Halt> {
        self.write_quiet().await?;
        let mut pass = Pass::default();
        let mut running: JoinSet<(Window, Result<Walked, Halt>)> = JoinSet::new();
        let mut in_flight: Vec<Window> = Vec::new();
        let mut forced: Option<Window> = None;
        let (mut put_off, mut closed) = (Vec::new(), Coverage::new());
        let mut trouble: Option<Halt> = None;
        let asker = self.walker.asker.clone();
        let pages_before = asker.tally.pages.get();
        loop {
            let mut progress = self.progress().await?;
            let mut taken = closed.clone();
            in_flight.iter().chain(&put_off).for_each(|window| taken.insert(*window));
            taken.windows().iter().for_each(|window| progress.coverage.insert(*window));
            let plan = self.plan(&progress, &|known: Known<'_>, policy, now| planner(known, policy, now, &taken));
            self.record_gaps(&plan.gaps, &mut pass).await?;
            let room = if self.span_known { self.walker.asker.account.concurrency } else { 1 };
            for window in plan.due.into_iter().take(room.saturating_sub(running.len())) {
                in_flight.push(window);
                let may_split = forced != Some(window);
                running.spawn(read(self.walker.clone(), window, may_split, self.span_known));
            }
            let Some(joined) = running.join_next().await else { return trouble.map_or(Ok(pass), Err) };
            let (window, outcome) = joined.map_err(|e| Halt::Replan(format!("a reader stopped: {e}")))?;
            in_flight.retain(|other| *other != window);
            match outcome {
                // The trouble of one window is not the trouble of all: it stays due, and the others are read.
                Err(Halt::Source(error @ SourceError::Transient { .. }))
                    if put_off.len() < PUT_OFF_MAX
                        && (asker.patience.is_none() || asker.tally.pages.get() > pages_before) =>
                {
                    put_off.push(window);
                    trouble = Some(Halt::Source(error));
                }
                Err(halt) => return Err(halt),
                Ok(Walked::Closed { verified, distinct, elsewhere, .. }) => {
                    closed.insert(window);
                    pass.closed += 1;
                    pass.unverified += u32::from(!verified);
                    self.walker.asker.tally.span_read.add(window.span().unsigned_abs());
                    if !elsewhere {
                        self.adapt(window, distinct);
                    }
                }
                Ok(Walked::Oversize { total }) => {
                    let before = self.span;
                    self.adapt(window, total);
                    // A window that cannot shrink is paged as deep as it goes.
                    let floor = self.walker.asker.source.grain();
                    forced = (self.span >= before.min(window.span()) || window.span() <= floor).then_some(window);
                }
            }
        }
    }

    fn adapt(&mut self, window: Window, total: u64) {
        let grain = self.walker.asker.source.grain();
        let target = target(&self.walker);
        // A short window with little in it, such as the newest second, says nothing about how long others may be. Half the
        // span is not short: what is missing is cut into equal pieces, all of them somewhat shorter than the span.
        if self.span_known && window.span() < self.span / 2 && total.saturating_mul(2) < target {
            return;
        }
        self.span = plan::next_span(window.span().max(grain), total, target, grain);
        self.span_known = true;
    }

    pub(super) async fn progress(&self) -> Result<Progress, Halt> {
        let stream = self.walker.stream;
        let mut progress = self.walker.write(move |store| store.progress(stream)).await?;
        if let Some(quiet) = self.quiet {
            progress.coverage.insert(quiet);
        }
        Ok(progress)
    }

    fn plan(&self, progress: &Progress, planner: &impl Fn(Known<'_>, Policy, UtcMillis) -> Plan) -> Plan {
        let account = &self.walker.asker.account;
        let grain = self.walker.asker.source.grain();
        let policy = Policy { settle: self.walker.settle, lookback: self.rechecks.lookback, grain, span: self.span };
        let known = Known { floor: progress.floor, coverage: &progress.coverage, gaps: &progress.gaps };
        let mut plan = planner(known, policy, account.clock.now());
        if !account.clock.is_confirmed() {
            // Before the API has said what time it is, nothing may be declared lost.
            plan.gaps.clear();
        }
        plan
    }

    async fn record_gaps(&self, gaps: &[Window], pass: &mut Pass) -> Result<(), Halt> {
        for gap in gaps.iter().copied() {
            let stream = self.walker.stream;
            let at = self.walker.asker.account.clock.now();
            self.walker
                .write(move |store| store.record_gap(stream, gap, "expired before it could be read", at))
                .await?;
            tracing::error!(stream = %self.walker.asker.stream, window = %gap, lost = humane(gap.span()),
                "events of this range expired at the API before they could be read");
            pass.gaps += 1;
            pass.gap_span += gap.span();
            // Nothing of it is ahead any more.
            self.walker.asker.tally.span_read.add(gap.span().unsigned_abs());
        }
        Ok(())
    }

    /// How long it still takes until the first event is lost, in milliseconds; see [`plan::retention_slack`]. What was read
    /// but never proven counts as unread here.
    pub async fn retention_slack(&self) -> Result<Option<Millis>, Halt> {
        let (progress, stream) = (self.progress().await?, self.walker.stream);
        let unverified = self.walker.store.read(move |reader| reader.unverified(stream)).await?;
        let known = Known { floor: progress.floor, coverage: &progress.coverage, gaps: &progress.gaps };
        let now = self.walker.asker.account.clock.now();
        let settled_to = plan::end(now, self.walker.settle, self.walker.asker.source.grain());
        Ok(plan::retention_slack(known, &unverified, settled_to, now))
    }

    /// The watermark: everything before it, back to the stream's start, is read or named in a gap.
    pub async fn watermark(&self) -> Result<UtcMillis, Halt> {
        let progress = self.progress().await?;
        let known = Known { floor: progress.floor, coverage: &progress.coverage, gaps: &progress.gaps };
        Ok(known.watermark())
    }

    /// The stream's reader.
    pub fn walker(&self) -> &Walker {
        &self.walker
    }
}

/// Events a slice should hold. Page numbers shift when rows vanish, so there a slice is one page, which is atomic;
/// cursors hold their place, so there a slice may have a few.
pub(super) fn target(walker: &Walker) -> u64 {
    let page = u64::from(walker.asker.account.page_size());
    if walker.asker.source.grain() == MINUTE { page } else { 5 * page }
}

async fn read(walker: Walker, window: Window, may_split: bool, span_known: bool) -> (Window, Result<Walked, Halt>) {
    let limit = 2 * target(&walker);
    let limit = if walker.asker.source.grain() == MINUTE { limit / 2 } else { limit };
    let divisible = may_split && window.bisect(walker.asker.source.grain()).is_some();
    if divisible && !span_known && window.span() >= COUNT_FIRST_FROM {
        match walker.probe(window).await {
            Ok(Counted { total: Some(total), elsewhere: false }) if total > limit => {
                return (window, Ok(Walked::Oversize { total }));
            }
            Ok(_) => {}
            Err(halt) => return (window, Err(halt)),
        }
    }
    let outcome = walker.walk(window, divisible.then_some(limit)).await;
    (window, outcome)
}
