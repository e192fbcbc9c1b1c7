//! Numbers, spans and bars as people read them. It exists so that every command writes them the same way.

/// `12431` as `12,431`.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 event`, `2 events`.
pub(super) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { many })
}

/// Bytes in binary units with one decimal: `9.5 MiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scaled = n;
    let mut rest = 0;
    while scaled >= 1024 && unit + 1 < UNITS.len() {
        rest = scaled % 1024;
        scaled /= 1024;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{scaled}.{} {}", rest * 10 / 1024, UNITS[unit]) }
}

/// A table as lines, without the spaces that pad its last column.
pub(super) fn lines(table: &comfy_table::Table) -> String {
    table.to_string().lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// A horizontal bar of `value` against `max`, at most `width` characters, in eighths of a block. Anything above zero
/// shows.
pub(super) fn bar(value: u64, max: u64, width: u64) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = if max == 0 { 0 } else { (value.min(max) * width * 8).div_ceil(max) };
    let mut out = "█".repeat(usize::try_from(eighths / 8).unwrap_or(0));
    if eighths % 8 > 0 {
        out.push(EIGHTHS[usize::try_from(eighths % 8).unwrap_or(0)]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (n, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_431, "12,431"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(n), text);
        }
    }

    #[test]
    fn sizes_have_one_decimal() {
        for (n, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (1_536, "1.5 KiB"), (10_000_000, "9.5 MiB")]
        {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn bars_are_proportional_and_never_vanish() {
        assert_eq!(bar(0, 10, 8), "");
        assert_eq!(bar(10, 10, 4), "████");
        assert_eq!(bar(5, 10, 4), "██");
        assert_eq!(bar(1, 1_000, 4), "▏");
        assert_eq!(bar(1, 0, 4), "");
    }
}
