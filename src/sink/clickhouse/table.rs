//! The table: made where it is missing, looked at where it is there. It exists so that a table of another program is never
//! written to, and one that is gone with acknowledged rows is not silently begun anew.

use super::refusal::unusable;
use super::row::{COLUMNS, TIME};
use super::server::{MILLIS, Server, TOKENS, Version};
use crate::sink::Refusal;
use std::collections::BTreeMap;

/// What makes an event: the sorting key, within which one row stays.
const KEY: &str = "stream, minute, source_type, id, twin";

/// So many batches a table of one server remembers by their tokens.
const WINDOW: u32 = 1_000;

/// Where rows go.
pub(super) struct Table {
    pub(super) database: String,
    pub(super) name: String,
}

/// What was found or made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether its times have milliseconds.
    pub(super) has_millis: bool,
}

impl Table {
    /// Its name, as SQL takes any.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.database), identifier(&self.name))
    }

    /// The statement that rows are inserted with.
    pub(super) fn insert(&self) -> String {
        let columns = COLUMNS.map(|(name, _)| identifier(name)).join(", ");
        format!("INSERT INTO {} ({columns}) FORMAT JSONEachRow", self.quoted())
    }

    /// Makes it where it is missing; `is_known` says that rows of it were acknowledged.
    pub(super) async fn open(&self, server: &Server, version: Version, is_known: bool) -> Result<Found, Refusal> {
        if let Some(found) = self.look(server).await? {
            return Ok(found);
        }
        if is_known {
            return Err(self.is_gone());
        }
        server.query(self.create(version), "create the table").await?;
        self.look(server).await?.ok_or_else(|| self.is_gone())
    }

    /// What is there; `None` where nothing is.
    pub(super) async fn look(&self, server: &Server) -> Result<Option<Found>, Refusal> {
        let sql = format!(
            "SELECT name, type FROM system.columns WHERE database = {} AND table = {} FORMAT JSONEachRow",
            literal(&self.database),
            literal(&self.name)
        );
        let text = server.query(sql, "look at the table").await?;
        let columns = columns_of(&text);
        if columns.is_empty() {
            return Ok(None);
        }
        let missing: Vec<&str> =
            COLUMNS.iter().map(|(name, _)| *name).filter(|name| !columns.contains_key(*name)).collect();
        if !missing.is_empty() {
            let why = format!("{} has no {}", self.quoted(), listed(&missing));
            let hint =
                "it is not a table of sparkspool's, or was changed: name another one with `table`, or add the columns";
            return Err(unusable(why, hint));
        }
        Ok(Some(Found { has_millis: columns.get("time").is_some_and(|kind| kind.contains("DateTime64")) }))
    }

    pub(super) fn is_gone(&self) -> Refusal {
        let why = format!("{} is gone, with rows that were acknowledged", self.quoted());
        unusable(why, "is it another server, or was it dropped? put it back; or rename the sink to begin anew")
    }

    fn create(&self, version: Version) -> String {
        let kind =
            |kind: &str| if kind == TIME && version < MILLIS { "Nullable(DateTime('UTC'))" } else { kind }.to_owned();
        let columns = COLUMNS.map(|(name, typed)| format!("    {} {}", identifier(name), kind(typed))).join(",\n");
        let settings = if version >= TOKENS {
            format!("\nSETTINGS non_replicated_deduplication_window = {WINDOW}")
        } else {
            String::new()
        };
        format!(
            "CREATE TABLE IF NOT EXISTS {} (\n{columns}\n)\nENGINE = ReplacingMergeTree(version)\n\
             PARTITION BY toYYYYMM(minute)\nORDER BY ({KEY}){settings}",
            self.quoted()
        )
    }
}

fn columns_of(text: &str) -> BTreeMap<String, String> {
    #[derive(serde::Deserialize)]
    struct Column {
        name: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let column = |line: &str| serde_json::from_str::<Column>(line).ok();
    text.lines().filter_map(column).map(|column| (column.name, column.kind)).collect()
}

fn listed(missing: &[&str]) -> String {
    match missing {
        [one] => format!("column `{one}`"),
        [first, rest @ ..] => format!("column `{first}`, and {} others of the sink's are missing", rest.len()),
        [] => String::new(),
    }
}

fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_the_server() {
        let table = Table { database: "mail".to_owned(), name: "e`v".to_owned() };
        insta::assert_snapshot!(table.create((24, 3)));
        let old = table.create((18, 16));
        assert!(!old.contains("DateTime64") && !old.contains("SETTINGS"), "{old}");
        assert!(table.insert().starts_with("INSERT INTO `mail`.`e\\`v` (`stream`, "));
    }

    #[test]
    fn names_cannot_end_their_quotes() {
        assert_eq!(literal(r"a'\b"), r"'a\'\\b'");
        assert_eq!(identifier(r"a`\b"), r"`a\`\\b`");
    }
}
