//! The stream of JetStream that keeps the events: looked at before anything is published, and made where that is wanted.
//! It exists because an ack is worth as much as the stream behind it.

use super::refusal::{Trouble, of_jetstream, of_request, unusable};
use super::subject::{Template, covers};
use super::{Note, Options};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    Context, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind, RequestError, RequestErrorKind,
};
use async_nats::jetstream::stream::{Config, StorageType};
use std::error::Error as _;
use std::time::Duration;

/// The longest a batch waits between two attempts, a server's own wish included: what is remembered for less time may be
/// there twice.
const WINDOW_MIN: Duration = Duration::from_mins(15);

/// Makes sure that there is a stream that keeps what the sink publishes.
pub(super) async fn look(
    context: &Context,
    options: &Options,
    template: &Template,
    note: &(dyn Fn(Note) + Send + Sync),
) -> Result<(), Trouble> {
    let pattern = template.pattern();
    let config = match context.get_stream(&options.jetstream).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) => match of_looking(&error) {
            None if options.create => return create(context, options, pattern).await,
            None => {
                let why = format!("there is no stream `{}` in JetStream", options.jetstream);
                let hint = format!(
                    "create it: nats stream add {} --subjects '{pattern}' --storage file --dupe-window 30m --defaults; \
                     or set `create = true`",
                    options.jetstream
                );
                return Err(unusable(why, hint).into());
            }
            Some(trouble) => return Err(trouble),
        },
    };
    examine(&config, &pattern)?;
    if config.storage == StorageType::Memory {
        note(Note::Memory { jetstream: config.name.clone() });
    }
    if config.duplicate_window < WINDOW_MIN {
        note(Note::ShortWindow { jetstream: config.name, window: config.duplicate_window });
    }
    Ok(())
}

fn examine(config: &Config, pattern: &str) -> Result<(), Trouble> {
    let name = &config.name;
    if !config.subjects.iter().any(|filter| covers(filter, pattern)) {
        let why = format!("the stream `{name}` of JetStream does not keep all of `{pattern}`");
        let hint =
            format!("add the subject: nats stream edit {name} --subjects …; or correct `subject` or `jetstream`");
        return Err(unusable(why, hint).into());
    }
    if config.no_ack {
        let why = format!("the stream `{name}` of JetStream acknowledges nothing (no_ack)");
        return Err(unusable(why, "switch its acknowledgements on, or name another stream with `jetstream`").into());
    }
    Ok(())
}

/// What it means that no stream was found; `None` where there just is none.
fn of_looking(error: &GetStreamError) -> Option<Trouble> {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => None,
        GetStreamErrorKind::JetStream(error) => Some(of_jetstream(&error, "say what stream it has").into()),
        GetStreamErrorKind::Request => {
            let request = error.source().and_then(|source| source.downcast_ref::<RequestError>());
            Some(of_request(request.map_or(RequestErrorKind::Other, RequestError::kind)))
        }
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
            Some(unusable("that is no name of a stream of JetStream", "correct `jetstream`").into())
        }
    }
}

async fn create(context: &Context, options: &Options, pattern: String) -> Result<(), Trouble> {
    let config = Config {
        name: options.jetstream.clone(),
        description: Some("Events of SparkPost's, published by sparkspool".to_owned()),
        subjects: vec![pattern],
        storage: StorageType::File,
        duplicate_window: options.duplicate_window,
        ..Config::default()
    };
    let Err(error) = context.create_stream(config).await else { return Ok(()) };
    Err(match error.kind() {
        CreateStreamErrorKind::JetStream(error) => of_jetstream(&error, "create the stream").into(),
        CreateStreamErrorKind::JetStreamUnavailable => of_request(RequestErrorKind::NoResponders),
        _ => Trouble::Slow,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Refusal;

    #[test]
    fn a_stream_is_used_where_it_keeps_and_acknowledges_everything() {
        let config = |subjects: &[&str], no_ack| Config {
            name: "S".to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            no_ack,
            ..Config::default()
        };
        let refused = |config: Config| match examine(&config, "sparkpost.*.*") {
            Ok(()) => None,
            Err(Trouble::Refused(Refusal::Unusable { why, .. })) => Some(why),
            Err(other) => panic!("{:?}", other.refusal()),
        };
        assert_eq!(refused(config(&["other", "sparkpost.>"], false)), None);
        assert!(refused(config(&[], false)).unwrap().contains("does not keep"));
        assert!(refused(config(&["sparkpost.all.*"], false)).unwrap().contains("does not keep"));
        assert!(refused(config(&["sparkpost.>"], true)).unwrap().contains("no_ack"));
    }
}
