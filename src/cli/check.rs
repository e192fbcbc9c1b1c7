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
use serde::Serialize;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Options of `check`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Ask the API and open the sinks, too
    #[arg(long)]
    online: bool,
    /// A JSON object a line: `level`, `about`, `what`, and `hint` where there is one
    #[arg(long)]
    json: bool,
}

/// What was found out, said line by line.
#[derive(Clone, Copy)]
struct Report {
    json: bool,
}

/// One line of it.
#[derive(Serialize)]
struct Finding<'a> {
    level: Level,
    about: &'a str,
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Report {
    fn ok(self, about: &str, what: &str) -> Result<(), Failure> {
        self.say(&Finding { level: Level::Ok, about, what, hint: None })
    }

    fn warn(self, about: &str, what: &str) -> Result<(), Failure> {
        self.say(&Finding { level: Level::Warn, about, what, hint: None })
    }

    fn fail(self, about: &str, what: &str, hint: Option<&str>) -> Result<(), Failure> {
        self.say(&Finding { level: Level::Fail, about, what, hint })
    }

    fn say(self, finding: &Finding<'_>) -> Result<(), Failure> {
        if self.json {
            let line = serde_json::to_string(finding);
            return say!("{}", line.map_err(|e| Failure::new(Code::Bug, e.to_string(), "report this"))?);
        }
        let Finding { level, about, what, hint } = finding;
        let level = match level {
            Level::Ok => "ok   ",
            Level::Warn => "warn ",
            Level::Fail => "FAIL ",
        };
        let indented = what.replace('\n', "\n      ");
        say!("{level} {about}: {indented}")?;
        hint.map_or(Ok(()), |hint| say!("      hint: {hint}"))
    }
}

/// A check waits only for what passes quickly.
const PATIENCE: Patience = Patience { failing: 10 * SECOND, throttled: 30 * SECOND };

/// Runs the command.
pub(super) async fn run(global: &Global, options: &Options) -> Result<(), Failure> {
    let config = global.load()?;
    let upstream = Upstream::new(&config, surroundings(Some(PATIENCE)))?;
    let file =
        config.file.as_ref().map_or_else(|| "no file, the defaults".to_owned(), |file| file.display().to_string());
    let report = Report { json: options.json };
    report.ok("configuration", &file)?;
    for stream in &config.streams {
        let what = format!("{}, to {}", stream.schedule.describe(), stream.sinks.join(", "));
        report.ok(&format!("stream {}", stream.name), &what)?;
    }
    if !options.online {
        return Ok(());
    }
    let mut worst: Option<Failure> = None;
    for stream in &config.streams {
        let about = format!("stream {}", stream.name);
        if let Err(failure) = ask(&upstream, stream, &about, report).await {
            report.fail(&about, &failure.what, failure.hint.as_deref())?;
            worst.get_or_insert(failure);
        }
    }
    if let Err(failure) = sinks(&config, report).await {
        worst.get_or_insert(failure);
    }
    match worst {
        Some(failure) => Err(Failure { what: String::new(), hint: None, ..failure }),
        None => Ok(()),
    }
}

async fn ask(upstream: &Upstream, stream: &Stream, about: &str, report: Report) -> Result<(), Failure> {
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
    report.ok(about, &format!("{} answers, {count} in the last hour", asker.source.describe()))?;
    let skew = clock.skew();
    if skew.abs() > TOLERANCE {
        let side = if skew > 0 { "ahead of" } else { "behind" };
        let what = format!("this machine's is {} {side} the API's; sparkspool goes by the API's", humane(skew.abs()));
        report.warn("clock", &what)?;
    }
    Ok(())
}

/// Opens each sink as its forwarder would. While the daemon runs it has them open itself.
async fn sinks(config: &Config, report: Report) -> Result<(), Failure> {
    let store = match crate::store::Handle::open(&config.data_dir) {
        Ok(store) => store,
        Err(StoreError::Locked { .. }) => {
            return report
                .ok("store", "the daemon runs: sinks are not tried beside it; reload it and see `sparkspool status`");
        }
        Err(error @ StoreError::Foreign { .. }) => {
            return report.warn("store", &format!("it and the sinks are not tried: {error}"));
        }
        Err(error) => {
            let failure = Failure::from(error);
            report.fail("store", &failure.what, failure.hint.as_deref())?;
            return Err(failure);
        }
    };
    report.ok("store", &config.data_dir.display().to_string())?;
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
        let about = format!("sink {}", sink.name);
        match opened {
            Ok(()) => report.ok(&about, "can be used")?,
            Err(refusal) => {
                let hint = match &refusal {
                    Refusal::Unusable { hint, .. } => Some(hint.as_str()),
                    Refusal::Later { .. } | Refusal::Never { .. } => None,
                };
                report.fail(&about, &refusal.to_string(), hint)?;
                failed = Some(Failure::new(Code::Unavailable, refusal.to_string(), "see above"));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}
