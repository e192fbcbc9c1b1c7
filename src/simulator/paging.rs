//! From a search to the body of its page: which rows, how many in all, which links, and the lies asked for.
//! It exists apart from routing because this is what a client's correctness is tested against.

use super::api::Api;
use super::chance::{falls, hashed, pick};
use super::faults::{Fault, LinkShape};
use super::json::write_text;
use super::kind::{Dialect, EventId};
use super::rows::BLOCK;
use super::search::{Search, Start};
use super::view::View;
use crate::core::time::{Millis, UtcMillis};
use bytes::Bytes;
use std::ops::Range;

/// What an answer is made under: the clock, the faults, and the number their draws come from.
pub(super) struct Circumstances<'a> {
    pub(super) now: UtcMillis,
    pub(super) faults: &'a [Fault],
    pub(super) salt: u64,
    /// The `Host` of the request, for absolute links.
    pub(super) host: &'a str,
}

/// A page, composed.
pub(super) struct Composed {
    pub(super) body: Vec<Bytes>,
    pub(super) rows: usize,
    /// The faults that changed something.
    pub(super) fired: Vec<&'static str>,
}

/// The rows of a page, by place, and how many match in all.
#[derive(Default)]
struct Selection {
    places: Vec<usize>,
    total: usize,
    /// Matches behind the page.
    more: bool,
}

/// The replica an answer comes from, by default one that is up to date and keeps ties in the order of ids.
#[derive(Default)]
struct Replica {
    lag: Millis,
    /// The fault that makes it lag.
    name: Option<&'static str>,
    /// What orders its ties, and the fault that does.
    ties: Option<(u64, &'static str)>,
}

/// Orders the ties of the sticky replica, the same in every answer.
const STICKY: u64 = 0x0DD;

struct Composer<'a> {
    api: &'a Api,
    search: &'a Search<'a>,
    around: &'a Circumstances<'a>,
    /// The instant whose events and bodies the answering replica shows.
    shown_at: UtcMillis,
    fired: Vec<&'static str>,
}

/// The body that answers `search`.
pub(super) fn compose(api: &Api, search: &Search<'_>, around: &Circumstances<'_>) -> Composed {
    let mut composer = Composer { api, search, around, shown_at: around.now, fired: Vec::new() };
    let mut selection = composer.select();
    let total = composer.total(selection.total);
    // Before the rows are spoilt: a cursor stands behind the true last row, so what a copy replaces is lost to the walk.
    let links = composer.links(&selection);
    composer.spoil_rows(&mut selection);
    composer.body(&selection, total.as_deref(), links.as_deref())
}

impl Composer<'_> {
    /// The first fault that `test` accepts.
    fn fault<T>(&self, test: impl Fn(&Fault) -> Option<T>) -> Option<(T, &'static str)> {
        self.around.faults.iter().find_map(|fault| test(fault).map(|found| (found, fault.name())))
    }

    fn strikes(&self, wanted: &Fault) -> bool {
        self.around.faults.contains(wanted)
    }

    fn select(&mut self) -> Selection {
        let range = self.api.population().places(self.search.from, self.search.to);
        let replica = self.replica();
        let now = self.around.now.plus(-replica.lag);
        self.shown_at = now;
        if let Some(name) = replica.name {
            let changed = |place: usize| {
                let event = &self.api.population().events()[place];
                let shows = |now| event.is_visible(now).then(|| event.is_changed(now));
                shows(now) != shows(self.around.now)
            };
            if range.clone().any(changed) {
                self.fired.push(name);
            }
        }
        let partial = self.fault(|fault| if let Fault::Partial(share) = fault { Some(*share) } else { None });
        if partial.is_none() && replica.ties.is_none() {
            return self.select_in_order(range, now);
        }
        let mut all: Vec<usize> = range.filter(|place| self.shows(*place, now)).collect();
        if let Some((share, name)) = partial {
            let before = all.len();
            all.retain(|place| falls(hashed(self.around.salt, *place as u64), share));
            if all.len() < before {
                self.fired.push(name);
            }
        }
        if let Some((salt, name)) = replica.ties {
            let events = self.api.population().events();
            for tie in all.chunk_by_mut(|a, b| events[*a].at == events[*b].at).filter(|tie| tie.len() > 1) {
                tie.sort_by_key(|place| hashed(salt, *place as u64));
            }
            if !all.is_sorted() && !self.fired.contains(&name) {
                self.fired.push(name);
            }
        }
        let (behind, skip) = self.beginning();
        let total = all.len();
        let left = all.into_iter().filter(|place| *place >= behind).collect::<Vec<_>>();
        let page = left.iter().copied().skip(skip).take(self.search.per_page).collect();
        Selection { places: page, total, more: left.len() > skip.saturating_add(self.search.per_page) }
    }

    /// Which replica answers; the first fault that names one decides.
    fn replica(&self) -> Replica {
        let numbered = if let Start::Page(page) = self.search.start { Some(page) } else { None };
        let chosen = self.fault(|fault| match (fault, numbered) {
            (Fault::ReplicaLag(lag), _) => Some((*lag, None)),
            (Fault::TiesReordered, Some(_)) => Some((0, Some(self.around.salt))),
            (Fault::StickyReplica(lag), Some(page)) if page % 2 == 1 => Some((*lag, Some(STICKY))),
            _ => None,
        });
        chosen.map_or(Replica::default(), |((lag, ties), name)| Replica {
            lag,
            name: (lag != 0).then_some(name),
            ties: ties.map(|salt| (salt, name)),
        })
    }

    fn shows(&self, place: usize, now: UtcMillis) -> bool {
        let population = self.api.population();
        let event = &population.events()[place];
        event.is_visible(now)
            && (self.search.filter.is_empty() || self.search.filter.matches(&View::of(population, event)))
    }

    /// The place before which nothing is shown, and how many matches from there on are skipped.
    fn beginning(&self) -> (usize, usize) {
        match self.search.start {
            Start::Page(page) => (0, (page - 1).saturating_mul(self.search.per_page)),
            Start::Behind(None) => (0, 0),
            Start::Behind(Some((at, id))) => (self.api.population().place_after(at, id), 0),
        }
    }

    /// Walks the range block by block; where a whole block is shown, only its length is looked at.
    fn select_in_order(&self, range: Range<usize>, now: UtcMillis) -> Selection {
        let (behind, skip) = self.beginning();
        let page = skip..skip.saturating_add(self.search.per_page);
        let mut selection = Selection::default();
        // Matches at or behind `behind`, the ones that pages are cut from.
        let mut counted = 0;
        let mut first = range.start;
        while first < range.end {
            let block = first / BLOCK;
            let last = range.end.min((block + 1) * BLOCK);
            if self.search.filter.is_empty() && self.api.is_all_shown(block, now) {
                selection.total += last - first;
                let from = behind.clamp(first, last);
                let wanted = page.start.max(counted)..page.end.min(counted + (last - from));
                selection.places.extend(wanted.map(|rank| from + rank - counted));
                counted += last - from;
            } else {
                for place in (first..last).filter(|place| self.shows(*place, now)) {
                    selection.total += 1;
                    if place >= behind {
                        if page.contains(&counted) {
                            selection.places.push(place);
                        }
                        counted += 1;
                    }
                }
            }
            first = last;
        }
        selection.more = counted > page.end;
        selection
    }

    fn is_named(&self, place: usize) -> bool {
        !matches!(self.api.population().events()[place].id, EventId::Nameless(_))
    }

    fn spoil_rows(&mut self, selection: &mut Selection) {
        if self.strikes(&Fault::LastRowTwice)
            && let [earlier @ .., last] = selection.places.as_mut_slice()
            // A copy of a row without an id is what two such events look like: no client could tell.
            && let Some(named) = earlier.iter().rfind(|place| self.is_named(**place))
        {
            *last = *named;
            self.fired.push(Fault::LastRowTwice.name());
        }
    }

    /// `total_count` as text: of the whole query, not the page `[D]`.
    fn total(&mut self, total: usize) -> Option<String> {
        let total = total as u64;
        let told = self.fault(|fault| match fault {
            Fault::TotalOff(by) => Some(Some(total.saturating_add_signed(*by))),
            Fault::TotalCapped(cap) => Some(Some(total.min(*cap))),
            Fault::TotalAbsent => Some(None),
            _ => None,
        });
        let Some((told, name)) = told else { return Some(total.to_string()) };
        if told != Some(total) {
            self.fired.push(name);
        }
        told.map(|count| count.to_string())
    }

    /// The links of a page as `(rel, href)`.
    fn true_links(&self, selection: &Selection) -> Vec<(&'static str, String)> {
        let search = self.search;
        match search.start {
            Start::Page(page) => {
                let last = selection.total.div_ceil(search.per_page);
                let mut links = Vec::new();
                // Beyond the end too: `first` and `previous`, as on the last page [A].
                if page > 1 {
                    links.push(("first", search.page_link(1)));
                    links.push(("previous", search.page_link(page - 1)));
                }
                if page < last {
                    links.push(("next", search.page_link(page + 1)));
                    links.push(("last", search.page_link(last)));
                }
                links
            }
            Start::Behind(_) => {
                let last = selection.places.last().map(|place| self.api.population().events()[*place].rank());
                last.filter(|_| selection.more)
                    .map(|last| ("next", search.cursor_link(Some(last))))
                    .into_iter()
                    .collect()
            }
        }
    }

    /// The value of `links` as JSON; `None` leaves the field out.
    fn links(&mut self, selection: &Selection) -> Option<String> {
        let mut links = self.true_links(selection);
        if let Some(next) = links.iter().position(|(rel, _)| *rel == "next") {
            self.spoil_next(&mut links, next);
        }
        let natural = match self.search.dialect {
            Dialect::MessageEvents => LinkShape::Array,
            Dialect::Events => LinkShape::Object,
        };
        let asked = self.fault(|fault| if let Fault::Links(shape) = fault { Some(*shape) } else { None });
        let shape = match asked.filter(|(shape, _)| *shape != natural) {
            Some((shape, name)) => {
                self.fired.push(name);
                shape
            }
            None => natural,
        };
        match shape {
            LinkShape::Null => Some("null".to_owned()),
            LinkShape::EmptyArray => Some("[]".to_owned()),
            LinkShape::Absent => None,
            LinkShape::Array => {
                let items: Vec<_> = links
                    .iter()
                    .map(|(rel, href)| format!("{{\"href\":{},\"rel\":{}}}", quoted(href), quoted(rel)))
                    .collect();
                Some(format!("[{}]", items.join(",")))
            }
            LinkShape::Object => {
                let items: Vec<_> =
                    links.iter().map(|(rel, href)| format!("{}:{}", quoted(rel), quoted(href))).collect();
                Some(format!("{{{}}}", items.join(",")))
            }
        }
    }

    fn spoil_next(&mut self, links: &mut Vec<(&'static str, String)>, next: usize) {
        let spoilt = self.fault(|fault| {
            matches!(fault, Fault::NextMissing | Fault::NextRepeats | Fault::NextForeign | Fault::NextAbsolute)
                .then(|| fault.clone())
        });
        let Some((fault, name)) = spoilt else { return };
        self.fired.push(name);
        let href = &mut links[next].1;
        match fault {
            Fault::NextRepeats => {
                *href = match self.search.start {
                    Start::Page(page) => self.search.page_link(page),
                    Start::Behind(behind) => self.search.cursor_link(behind),
                };
            }
            Fault::NextAbsolute => *href = format!("http://{}{href}", self.around.host),
            // Each is a host of its own once a client glues `"https://" + host + href` or resolves it as a URL.
            Fault::NextForeign => {
                let front = pick(
                    self.around.salt,
                    &["https://collect.example.net", "//collect.example.net", "@collect.example.net"],
                );
                *href = format!("{front}{href}");
            }
            // A page whose successor is hidden has no `last` either, as on a true last page [L].
            _ => links.retain(|(rel, _)| !matches!(*rel, "next" | "last")),
        }
    }

    fn body(mut self, selection: &Selection, total: Option<&str>, links: Option<&str>) -> Composed {
        let mut rows = selection.places.as_slice();
        if self.strikes(&Fault::EmptyPage) && selection.more && !rows.is_empty() {
            rows = &[];
            self.fired.push(Fault::EmptyPage.name());
        }
        let zone = self.search.zone.as_ref();
        let written = self.api.rows(self.search.dialect).joined(self.api.population(), rows, zone, self.shown_at);
        let total = total.map(|total| format!("\"total_count\":{total}"));
        let links = links.map(|links| format!("\"links\":{links}"));
        let join = |fields: [Option<String>; 2]| fields.into_iter().flatten().collect::<Vec<_>>().join(",");
        // The capture of the legacy API begins with its links [L].
        let (before, after) = match self.search.dialect {
            Dialect::MessageEvents => (links, join([total, None])),
            Dialect::Events => (None, join([total, links])),
        };
        let before = before.map(|links| links + ",").unwrap_or_default();
        let after = if after.is_empty() { String::new() } else { format!(",{after}") };
        let mut body = Vec::with_capacity(written.len() + 2);
        body.push(Bytes::from(format!("{{{before}\"results\":[")));
        body.extend(written);
        body.push(Bytes::from(format!("]{after}}}")));
        Composed { body, rows: rows.len(), fired: self.fired }
    }
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_text(text, &mut out);
    // JSON of a str is UTF-8.
    String::from_utf8(out).unwrap_or_default()
}
