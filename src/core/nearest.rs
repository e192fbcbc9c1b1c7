//! The known name that somebody probably meant. It exists so that every refusal of a name ends in a suggestion.

/// The candidate nearest to `typed`, where one is near enough to be worth suggesting. Ties go to the first.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower: Vec<char> = typed.to_lowercase().replace('-', "_").chars().take(TYPED_CHARS_MAX).collect();
    // A third of the letters may be wrong, but one always may.
    let allowed = (lower.len() / 3).max(1);
    let scored = candidates.into_iter().map(|candidate| {
        let letters: Vec<char> = candidate.to_lowercase().replace('-', "_").chars().collect();
        (distance(&lower, &letters), candidate)
    });
    scored.filter(|(far, _)| *far <= allowed).min_by_key(|(far, _)| *far).map(|(_, candidate)| candidate)
}

/// Longer texts are compared by their beginning: a bound on the work that a hostile file can cause.
const TYPED_CHARS_MAX: usize = 64;

/// Edits (insert, delete, replace, swap of neighbours) that turn one text into the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn distance_is_a_metric(a in "[a-c]{0,6}", b in "[a-c]{0,6}") {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
        }
    }

    #[test]
    fn slips_of_the_fingers_are_recognized_and_strangers_are_not() {
        let names = ["schedule", "settle", "sinks", "start", "key_env", "every"];
        let cases = [
            ("shedule", Some("schedule")),
            ("shcedule", Some("schedule")),
            ("sink", Some("sinks")),
            ("key-env", Some("key_env")),
            ("Every", Some("every")),
            ("strat", Some("start")),
            ("zebra", None),
            ("", None),
        ];
        for (typed, meant) in cases {
            assert_eq!(nearest(typed, names), meant, "{typed}");
        }
    }
}
