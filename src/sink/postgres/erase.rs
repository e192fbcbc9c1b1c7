//! Taking a person out of the table: every row that names them anywhere. It exists beside the writing of batches because it
//! looks at rows whose events have long left the spool.

use super::refusal::Trouble;
use super::schema::{Claim, stale};
use super::write::Statements;
use super::{Desk, Options};
use crate::core::person::Person;
use tokio_postgres::Client;

/// Rows looked at in one request; so many at most are taken out in one transaction.
const STEP: i64 = 2_000;

/// Takes out every row that names the person, or has the pseudonym for its recipient, and returns how many those were. Done
/// again after a lost connection, it finds what is left.
pub(super) async fn erase(
    desk: &mut Desk,
    options: &Options,
    claim: &Claim,
    person: &Person,
    pseudonym: Option<&str>,
) -> Result<u64, Trouble> {
    let (mut after, mut rows) = (0, 0);
    loop {
        let statements = &desk.statements;
        let step = async |client: &Client| {
            let (last, found) = look(client, statements, after, person, pseudonym).await?;
            let deleted = if found.is_empty() { 0 } else { delete(client, statements, options, claim, &found).await? };
            Ok((last, deleted))
        };
        let (last, deleted) = desk.link.run(step).await?;
        rows += deleted;
        match last {
            Some(last) => after = last,
            None => return Ok(rows),
        }
    }
}

/// The rows of one step that are meant, and the last one that was looked at; `None` where there are no more.
async fn look(
    client: &Client,
    statements: &Statements,
    after: i64,
    person: &Person,
    pseudonym: Option<&str>,
) -> Result<(Option<i64>, Vec<i64>), Trouble> {
    // The server leaves out most rows; what is an address, only `Person` knows.
    let sql = format!(
        "SELECT seq, recipient, CASE WHEN strpos(lower(whole), $3) > 0 THEN whole END FROM \
         (SELECT seq, recipient, row_to_json(e)::text AS whole FROM {} AS e WHERE seq > $1 ORDER BY seq LIMIT $2) AS part \
         ORDER BY seq",
        statements.events
    );
    let rows = client.query(&sql, &[&after, &STEP, &person.landmark()]).await?;
    let mut found = Vec::new();
    for row in &rows {
        let (seq, recipient, whole): (i64, Option<&str>, Option<&str>) = (row.get(0), row.get(1), row.get(2));
        let recipient = recipient.unwrap_or_default().trim();
        let is_recipient = recipient.to_lowercase() == person.address() || pseudonym == Some(recipient);
        if is_recipient || whole.is_some_and(|whole| person.is_in(whole)) {
            found.push(seq);
        }
    }
    Ok((rows.last().map(|row| row.get(0)), found))
}

async fn delete(
    client: &Client,
    statements: &Statements,
    options: &Options,
    claim: &Claim,
    found: &[i64],
) -> Result<u64, Trouble> {
    client.batch_execute("BEGIN").await?;
    if client.execute(&statements.claim, &[&options.table, &options.sink, &claim.epoch]).await? == 0 {
        return Err(stale(&options.sink).into());
    }
    let deleted = client.execute(&format!("DELETE FROM {} WHERE seq = ANY($1)", statements.events), &[&found]).await?;
    client.batch_execute("COMMIT").await?;
    Ok(deleted)
}
