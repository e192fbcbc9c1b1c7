//! The head of an HTTP request, for servers that are played. It exists so that each of them reads it alike, and none takes a head
//! that was cut for a request.

use std::collections::BTreeMap;
use std::io::BufRead;

/// A request up to its body.
pub(crate) struct Head {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// `HTTP/1.1`, or an older one.
    pub(crate) version: String,
    /// By name, in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Head {
    /// Reads one; `None` where the connection ends before it does.
    pub(crate) fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Self>> {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.trim_end().split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let (method, target, version) = (word(), word(), word());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if !line.ends_with('\n') {
                return Ok(None);
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        Ok(Some(Self { method, target, version, headers }))
    }

    /// How long the body is.
    pub(crate) fn length(&self) -> u64 {
        self.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
    }
}
