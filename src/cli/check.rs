//! `check`: whether the configuration can work; with `--online`, whether API, key, clock and sinks agree.

use super::exit::{Code, Failure};
use super::{Global, surroundings};
use crate::config::{Config, Stream};
use crate::core::time::{MINUTE, SECOND, humane};
use crate::core::window::Window;
use crate::daemon::ask::Patience;
use crate::daemon::clock::{TOLERANCE, TimeSource};
use crate::daemon::sinks::{Means, opener};
use crate::daemon::upstream::Upstream;
use crate::sink::{Receipt, Refusal};
use crate::source::Ask;
use crate::store::{Reader, StoreError};
use clap::Args;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Options of `check`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Ask the API and open the sinks, too
    #[arg(long)]
    online: bool,
}

/// A check waits only for what passes quickly.
const PATIENCE: Patience = Patience { failing: 10 * SECOND, throttled: 30 * SECOND };

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let upstream = Upstream::new(&config, surroundings(Some(PATIENCE)))?;
    let file =
        config.file.as_ref().map_or_else(|| "no file, the defaults".to_owned(), |file| file.display().to_string());
    say!("ok    configuration ({file})")?;
    for stream in &config.streams {
        say!("ok    stream {}: {}, to {}", stream.name, stream.schedule.describe(), stream.sinks.join(", "))?;
    }
    if !options.online {
        return Ok(());
    }
    let mut worst: Option<Failure> = None;
    for stream in &config.streams {
        if let Err(failure) = ask(&upstream, stream).await {
            fail(&format!("stream {}", stream.name), &failure.what, failure.hint.as_deref())?;
            worst.get_or_insert(failure);
        }
    }
    if let Err(failure) = sinks(&config).await {
        worst.get_or_insert(failure);
    }
    match worst {
        Some(failure) => Err(Failure { what: String::new(), hint: None, ..failure }),
        None => Ok(()),
    }
}

fn fail(what: &str, why: &str, hint: Option<&str>) -> Result<(), Failure> {
    say!("FAIL  {what}: {}", why.replace('\n', "\n      "))?;
    hint.map_or(Ok(()), |hint| say!("      hint: {hint}"))
}

async fn ask(upstream: &Upstream, stream: &Stream) -> Result<(), Failure> {
    let asker = upstream
        .asker(stream, Arc::default(), CancellationToken::new(), None)
        .ok_or_else(|| Failure::new(Code::Bug, "no such account", "report this"))?;
    asker.greet(stream.settle).await?;
    let clock = &asker.account.clock;
    let end = clock.now().plus(-stream.settle).floor(MINUTE);
    let hour = Window::new(end.plus(-60 * MINUTE), end)
        .ok_or_else(|| Failure::new(Code::Unavailable, "the API's clock makes no sense", "check `url`"))?;
    let answer = asker.page(&Ask { window: hour, part: 0, per_page: 1, with_margin: false }, None).await?;
    let count = answer.page.total.map_or_else(|| "no count".to_owned(), |n| format!("{n} events"));
    say!("ok    stream {}: {} answers, {count} in the last hour", stream.name, asker.source.describe())?;
    let skew = clock.skew();
    if skew.abs() > TOLERANCE {
        let side = if skew > 0 { "ahead of" } else { "behind" };
        say!("warn  this machine's clock is {} {side} the API's; sparkspool goes by the API's", humane(skew.abs()))?;
    }
    Ok(())
}

/// Opens each sink as its forwarder would. While the daemon runs it has them open itself.
async fn sinks(config: &Config) -> Result<(), Failure> {
    let store = match crate::store::Handle::open(&config.data_dir) {
        Ok(store) => store,
        Err(StoreError::Locked { .. }) => {
            say!("ok    the daemon runs and has the sinks open; see `sparkspool status`")?;
            return Ok(());
        }
        Err(error) => {
            let failure = Failure::from(error);
            fail("store", &failure.what, failure.hint.as_deref())?;
            return Err(failure);
        }
    };
    say!("ok    store {}", config.data_dir.display())?;
    let mut failed = None;
    for sink in &config.sinks {
        let name = sink.name.clone();
        let receipt = store.read(move |reader: &mut Reader| reader.position(&name)).await?;
        let nowhere = Arc::new(|| Box::new(std::io::sink()) as Box<dyn std::io::Write + Send>);
        let env = Arc::new(|name: &str| std::env::var(name).ok());
        let means = Means { stdout: nowhere, now: TimeSource::system().wall, env, tally: Arc::default() };
        let open = opener(sink, means);
        let opened = match open(receipt.map(|bookmark| Receipt(bookmark.receipt))).await {
            Ok((mut opened, _)) => opened.check().await,
            Err(refusal) => Err(refusal),
        };
        match opened {
            Ok(()) => say!("ok    sink {}", sink.name)?,
            Err(refusal) => {
                let hint = match &refusal {
                    Refusal::Unusable { hint, .. } => Some(hint.as_str()),
                    Refusal::Later { .. } | Refusal::Never { .. } => None,
                };
                fail(&format!("sink {}", sink.name), &refusal.to_string(), hint)?;
                failed = Some(Failure::new(Code::Unavailable, refusal.to_string(), "see above"));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}
