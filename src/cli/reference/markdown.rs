//! The reference as a page of Markdown. It exists for `docs/configuration.md`, which a test holds against it.

use super::{Key, Table, tables};
use serde_json::Value;

const HEAD: &str = "# Configuration

Everything that may stand in `sparkspool.toml`. Made by `sparkspool schema config --markdown` from the schema that checks the files; a
test holds it against the program. [`config/example.toml`](../config/example.toml) shows every key with its default.

Durations are written `90s`, `15m`, `1h`, `10d`; sizes `512KiB`, `8MiB`, `1GiB`. A key that does not exist is an error that names its
line and the nearest key there is. `sparkspool check` reads the file, `sparkspool check --online` asks the API and the sinks, too.
";

/// The reference for `schema`.
pub(in crate::cli) fn markdown(schema: &Value) -> String {
    tables(schema).iter().fold(HEAD.to_owned(), |page, table| page + &section(table))
}

fn section(table: &Table) -> String {
    let title = if table.path.is_empty() { "Before all tables".to_owned() } else { format!("`[{}]`", table.path) };
    let mut text = format!("\n## {title}\n\n{}\n", table.about);
    if !table.keys.is_empty() {
        text.push_str("\n| key | takes | meaning |\n|---|---|---|\n");
        table.keys.iter().for_each(|key| text.push_str(&row(key)));
    }
    text
}

fn row(key: &Key) -> String {
    let needed = if key.required { " **Required.**" } else { "" };
    let mut choices = String::new();
    key.choices.iter().for_each(|(word, about)| choices.push_str(&format!("<br>`{word}`: {about}")));
    let cell = |text: &str| text.replace('|', "\\|");
    format!("| `{}` | {} | {}{needed}{} |\n", key.name, key.takes, cell(&key.about), cell(&choices))
}
