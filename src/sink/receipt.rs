//! Receipts as most sinks keep them: JSON with a version. It exists so that a receipt that cannot be understood is refused in
//! the same words by each of them, and never half understood.

use super::{Receipt, Refusal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Receipt {
    /// What a sink of this kind has written down, in this version; an empty receipt is as good as none.
    pub(super) fn read<T: DeserializeOwned>(
        receipt: Option<&Self>,
        kind: &str,
        version: u32,
    ) -> Result<Option<T>, Refusal> {
        let Some(Self(text)) = receipt.filter(|receipt| !receipt.0.is_empty()) else { return Ok(None) };
        let unreadable = |what: String| Refusal::Unusable {
            why: format!("the receipt of this {kind} sink cannot be read: {what}"),
            hint: "it was stored by a newer sparkspool, or for a sink of another kind under this name: \
                   run that version again, or rename the sink"
                .to_owned(),
        };
        let broken = |error: serde_json::Error| unreadable(error.to_string());
        let found: Versioned = serde_json::from_str(text).map_err(broken)?;
        if found.version != version {
            return Err(unreadable(format!("version {}", found.version)));
        }
        serde_json::from_str(text).map(Some).map_err(broken)
    }

    /// The receipt to store with the position. `progress` must be of numbers, texts, and maps with names of text: what is
    /// always representable as JSON.
    pub(super) fn of(progress: &impl Serialize) -> Self {
        Self(serde_json::to_string(progress).unwrap_or_default())
    }
}
