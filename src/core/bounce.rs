//! SparkPost's bounce classes: which failures are the recipient's fault for good, and which are not.
//! It exists because a bounced event says nothing of the kind by itself: a full mailbox and a dead one both bounce.

/// What a bounce means for the next message to the same recipient.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Category {
    /// Permanent: stop sending to this address.
    Hard,
    /// Temporary, or about this one message: a later one may arrive.
    Soft,
    /// The receiver refused the sender, its reputation or the content.
    Block,
    /// SparkPost's own policy or a request by mail, not the receiver.
    Admin,
    /// Nobody could tell from the response.
    Undetermined,
}

impl Category {
    /// Every category.
    pub const ALL: [Self; 5] = [Self::Hard, Self::Soft, Self::Block, Self::Admin, Self::Undetermined];

    /// The name in a normalized event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
            Self::Block => "block",
            Self::Admin => "admin",
            Self::Undetermined => "undetermined",
        }
    }
}

/// One row of the vendor's table of bounce classification codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BounceClass {
    /// The code, the value of `bounce_class`.
    pub code: u16,
    /// The vendor's name.
    pub name: &'static str,
    /// The vendor's category.
    pub category: Category,
}

const fn class(code: u16, name: &'static str, category: Category) -> BounceClass {
    BounceClass { code, name, category }
}

/// The vendor's table (support documentation, "Bounce Classification Codes"), by rising code. 26 has gone from the
/// table of today but was in it in 2019, and events carried it.
///
/// SendPost's copy of the table differs and is not followed: it lacks 26 and 54, calls 51 "Spam Related" and 30
/// plain "Generic Bounce", and explains 24 as a timeout of the connection where it is one of the message.
pub static BOUNCE_CLASSES: [BounceClass; 21] = [
    class(1, "Undetermined", Category::Undetermined),
    class(10, "Invalid Recipient", Category::Hard),
    class(20, "Soft Bounce", Category::Soft),
    class(21, "DNS Failure", Category::Soft),
    class(22, "Mailbox Full", Category::Soft),
    class(23, "Too Large", Category::Soft),
    class(24, "Timeout", Category::Soft),
    class(25, "Admin Failure", Category::Admin),
    class(26, "Smart Send Suppression", Category::Admin),
    class(30, "Generic Bounce: No RCPT", Category::Hard),
    class(40, "Generic Bounce", Category::Soft),
    class(50, "Mail Block", Category::Block),
    class(51, "Spam Block", Category::Block),
    class(52, "Spam Content", Category::Block),
    class(53, "Prohibited Attachment", Category::Block),
    class(54, "Relaying Denied", Category::Block),
    class(60, "Auto-Reply", Category::Soft),
    class(70, "Transient Failure", Category::Soft),
    class(80, "Subscribe", Category::Admin),
    class(90, "Unsubscribe", Category::Hard),
    class(100, "Challenge-Response", Category::Soft),
];

/// The class of this code, or `None` where the table does not list it.
pub fn bounce_class(code: u64) -> Option<&'static BounceClass> {
    let at = BOUNCE_CLASSES.binary_search_by_key(&code, |class| u64::from(class.code)).ok()?;
    BOUNCE_CLASSES.get(at)
}

/// The category of this code. An unlisted code is [`Category::Undetermined`]: a new code must never look like a
/// reason to suppress an address, and the absent name tells it from class 1.
pub fn category(code: u64) -> Category {
    bounce_class(code).map_or(Category::Undetermined, |class| class.category)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_code_is_found() {
        assert!(BOUNCE_CLASSES.is_sorted_by_key(|class| class.code));
        for class in &BOUNCE_CLASSES {
            assert_eq!(bounce_class(u64::from(class.code)), Some(class));
        }
    }

    #[test]
    fn only_three_classes_are_reasons_to_stop_sending() {
        let hard: Vec<_> = (0..=200).filter(|code| category(*code) == Category::Hard).collect();
        assert_eq!(hard, [10, 30, 90]);
    }

    #[test]
    fn an_unlisted_class_has_no_name_and_no_verdict() {
        for code in [0, 11, 101, u64::MAX] {
            assert_eq!((bounce_class(code), category(code)), (None, Category::Undetermined));
        }
    }

    #[test]
    fn rows_that_are_often_told_wrong() {
        let row = |code| bounce_class(code).map(|class| (class.name, class.category));
        assert_eq!(row(24), Some(("Timeout", Category::Soft)));
        assert_eq!(row(30), Some(("Generic Bounce: No RCPT", Category::Hard)));
        assert_eq!(row(40), Some(("Generic Bounce", Category::Soft)));
        assert_eq!(row(51), Some(("Spam Block", Category::Block)));
        assert_eq!(row(54), Some(("Relaying Denied", Category::Block)));
    }
}
