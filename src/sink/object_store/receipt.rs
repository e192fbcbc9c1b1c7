//! What a receipt of this sink holds: how many objects were written. It exists so that a folder that is gone is not taken
//! for a new beginning.

use crate::sink::{Receipt, Refusal};
use serde::{Deserialize, Serialize};

/// The receipt's own version; a newer one is refused rather than half understood.
const VERSION: u32 = 1;

/// What was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    version: u32,
    /// Objects so far.
    pub(super) objects: u64,
}

impl Progress {
    /// Reads a receipt; an empty one is as good as none.
    pub(super) fn of_receipt(receipt: Option<&Receipt>) -> Result<Self, Refusal> {
        let known = Receipt::read(receipt, "object_store", VERSION)?;
        Ok(known.unwrap_or(Self { version: VERSION, objects: 0 }))
    }

    /// The receipt to store with the position.
    pub(super) fn to_receipt(&self) -> Receipt {
        Receipt::of(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_comes_back_and_those_of_others_are_refused() {
        let mut progress = Progress::of_receipt(None).unwrap();
        progress.objects += 7;
        assert_eq!(Progress::of_receipt(Some(&progress.to_receipt())).unwrap(), progress);
        for text in ["{\"version\":2,\"objects\":1}", "{\"path\":\"/a\"}", "x"] {
            let refused = Progress::of_receipt(Some(&Receipt(text.to_owned())));
            assert!(matches!(refused, Err(Refusal::Unusable { .. })), "{text}");
        }
    }
}
