//! The reference as a page of the manual, sparkspool.toml(5). It exists so that a machine without a browser has it, too.

use super::{Table, tables};
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use serde_json::Value;

/// The reference for `schema`.
pub(in crate::cli) fn roff(schema: &Value) -> String {
    let mut page = Roff::new();
    let version = format!("sparkspool {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["sparkspool.toml", "5", "", &version, ""]);
    page.control("SH", ["NAME"]).text([roman("sparkspool.toml - configuration of sparkspool")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("What may stand in the file that "),
        bold("sparkspool --config"),
        roman(" names, else in ./sparkspool.toml or /etc/sparkspool/sparkspool.toml. It is TOML. "),
        roman(
            "Durations are written 90s, 15m, 1h, 10d; sizes 512KiB, 8MiB, 1GiB. A key that does not exist is an error.",
        ),
    ]);
    tables(schema).iter().for_each(|table| section(&mut page, table));
    page.control("SH", ["SEE ALSO"]).text([bold("sparkspool"), roman("(1)")]);
    page.render()
}

fn section(page: &mut Roff, table: &Table) {
    let title = if table.path.is_empty() { "BEFORE ALL TABLES".to_owned() } else { format!("[{}]", table.path) };
    page.control("SH", [title.as_str()]).text(prose(&table.about));
    for key in &table.keys {
        let takes = if key.required { format!("{}, required", key.takes) } else { key.takes.clone() };
        page.control("TP", []).text([bold(key.name.as_str()), roman(" ("), italic(takes), roman(")")]);
        page.text(prose(&key.about));
        for (word, about) in &key.choices {
            page.control("br", []);
            page.text([bold(word.as_str()), roman(format!(": {}", about.replace('`', "")))]);
        }
    }
}

/// What stands between backquotes becomes bold.
fn prose(text: &str) -> Vec<Inline> {
    let part = |(index, part): (usize, &str)| if index % 2 == 1 { bold(part) } else { roman(part) };
    text.split('`').enumerate().map(part).collect()
}
