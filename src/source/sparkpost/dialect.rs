//! The two event search APIs as one enum: path, grain, words for time, and how far their edges can be trusted.
//! It exists so that every difference between them is said here and nowhere else.

use crate::core::time::{MINUTE, Millis, SECOND, UtcMillis};
use crate::core::window::Window;
use url::Url;

/// One of the two APIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// `GET /api/v1/message-events`: page numbers, whole minutes. Discontinued by the vendor in October 2019; answers
    /// 404 there since, but compatible servers and mocks speak it.
    MessageEvents,
    /// `GET /api/v1/events/message`: cursors, whole seconds.
    Events,
}

impl Dialect {
    /// Its name in configuration and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MessageEvents => "message-events",
            Self::Events => "events",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::MessageEvents => "api/v1/message-events",
            Self::Events => "api/v1/events/message",
        }
    }

    /// The search endpoint under an account's URL. A path of the account's URL is kept as a prefix.
    pub fn endpoint(self, base: &Url) -> Url {
        under(base, self.path())
    }

    /// The endpoint that describes every event type and field; needs no key.
    pub fn documentation(self, base: &Url) -> Url {
        match self {
            Self::MessageEvents => under(base, "api/v1/message-events/events/documentation"),
            Self::Events => under(base, "api/v1/events/message/documentation"),
        }
    }

    /// The endpoint that shows an example of every event type; needs no key.
    pub fn samples(self, base: &Url) -> Url {
        match self {
            Self::MessageEvents => under(base, "api/v1/message-events/events/samples"),
            Self::Events => under(base, "api/v1/events/message/samples"),
        }
    }

    /// The parameter without which a `next` link leads nowhere.
    pub const fn paging_parameter(self) -> &'static str {
        match self {
            Self::MessageEvents => "page",
            Self::Events => "cursor",
        }
    }

    /// The smallest range it can address: a minute, or a second.
    pub const fn grain(self) -> Millis {
        match self {
            Self::MessageEvents => MINUTE,
            Self::Events => SECOND,
        }
    }

    /// `at` in the format of `from` and `to`.
    pub fn time_text(self, at: UtcMillis) -> String {
        match self {
            Self::MessageEvents => at.to_minute_text(),
            Self::Events => at.to_second_text(),
        }
    }

    /// The range to ask for so that `window` is covered whatever the edges mean.
    ///
    /// The legacy `to` may mean the whole minute, its first instant, or nothing of it; asking up to the minute in which
    /// the window ends covers the window under all three. `from` is documented as inclusive for the Events API only;
    /// one grain more on the left makes an exclusive one harmless too. The day book absorbs what is read twice.
    pub fn covering(self, window: Window, with_margin: bool) -> Window {
        let aligned = window.align_outward(self.grain());
        let margin = if with_margin { self.grain() } else { 0 };
        Window::new(aligned.from().plus(-margin), aligned.to()).unwrap_or(aligned)
    }
}

/// `path` under an account's URL.
pub(super) fn under(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let prefix = base.path().trim_end_matches('/').to_owned();
    let prefix = prefix.strip_suffix("/api/v1").unwrap_or(&prefix).to_owned();
    url.set_path(&format!("{prefix}/{path}"));
    url.set_query(None);
    url.set_fragment(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_are_accepted_with_and_without_the_api_path() {
        for base in
            ["https://api.eu.sparkpost.com", "https://api.eu.sparkpost.com/", "https://api.eu.sparkpost.com/api/v1/"]
        {
            let endpoint = Dialect::Events.endpoint(&Url::parse(base).unwrap());
            assert_eq!(endpoint.as_str(), "https://api.eu.sparkpost.com/api/v1/events/message");
        }
        let own = Dialect::MessageEvents.endpoint(&Url::parse("http://127.0.0.1:8080/mock").unwrap());
        assert_eq!(own.as_str(), "http://127.0.0.1:8080/mock/api/v1/message-events");
    }

    /// Whether an API that was asked for `asked` shows what happened at `at`, under every reading of its edges.
    fn is_shown_under_every_reading(asked: Window, grain: Millis, at: UtcMillis) -> bool {
        let (from, to) = (asked.from(), asked.to());
        let [whole_unit, instant, exclusive] = [at < to.plus(grain), at <= to, at < to];
        from < at && whole_unit && instant && exclusive
    }

    /// The first instant is what an exclusive `from` loses, the last one what an exclusive `to` does.
    #[test]
    fn both_edges_of_a_window_are_covered_under_every_reading() {
        for dialect in [Dialect::MessageEvents, Dialect::Events] {
            let whole = UtcMillis::parse("2026-11-12T10:00:00Z").unwrap();
            for (from, to) in [(0, 2 * MINUTE), (0, 1), (1, MINUTE), (MINUTE - 1, MINUTE), (SECOND, MINUTE + SECOND)] {
                let window = Window::new(whole.plus(from), whole.plus(to)).unwrap();
                let asked = dialect.covering(window, true);
                for at in [window.from(), window.to().plus(-1)] {
                    assert!(is_shown_under_every_reading(asked, dialect.grain(), at), "{dialect:?}: {at} of {window}");
                }
                assert_eq!(
                    dialect.covering(window, false),
                    window.align_outward(dialect.grain()),
                    "a count has no margin"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn every_reading_of_the_edges_covers_the_window(from in 0_i64..100_000, span in 1_i64..100_000, share in 0.0..1.0) {
            let window = Window::new(UtcMillis::from_millis(from * 500), UtcMillis::from_millis((from + span) * 500)).unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a place inside the window")]
            let inside = window.from().plus((share * window.span() as f64) as i64);
            for dialect in [Dialect::MessageEvents, Dialect::Events] {
                let (asked, grain) = (dialect.covering(window, true), dialect.grain());
                prop_assert_eq!((asked.from().as_millis() % grain, asked.to().as_millis() % grain), (0, 0));
                for at in [window.from(), inside, window.to().plus(-1)] {
                    prop_assert!(is_shown_under_every_reading(asked, grain, at), "{} of {}", at, window);
                }
            }
        }
    }
}
