//! The real program in a small world: its configuration in a file, its output as text that can be compared.
//! It exists so that tests of the whole process say what they type and what they expect, and nothing about plumbing.

use super::world::{World, population};
use sparkspool::core::time::Millis;
use sparkspool::simulator::{Behaviour, Dialect, Fault, FaultPlan, Legacy, Options, When};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A world with its configuration in a file, and the program to run in it.
pub(crate) struct Program {
    pub(crate) world: World,
    pub(crate) config: PathBuf,
}

impl Program {
    pub(crate) async fn new(options: Options, account: &str, stream: &str) -> Self {
        let world = World::new(options, account, stream).await;
        let config = world.dir.path().join("sparkspool.toml");
        std::fs::write(&config, &world.config).unwrap();
        Self { world, config }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.surround(Command::new(env!("CARGO_BIN_EXE_sparkspool")), arguments)
    }

    /// What is added to a command that ends in the program's own arguments.
    pub(crate) fn surround(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).arg("--config").arg(&self.config);
        command.env_clear().env("SPARKPOST_API_KEY", "simulated-key").current_dir(self.world.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// Runs to the end, without blocking the simulated API that lives in this process.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        output(self.command(arguments)).await
    }

    pub(crate) async fn backfill(&self) -> Output {
        let (from, to) = (self.world.window.from().to_string(), self.world.window.to().to_string());
        self.run(&["backfill", "--from", &from, "--to", &to]).await
    }

    /// Writes another configuration: the world's, with one text in place of another that must be there.
    pub(crate) fn reconfigure(&self, pattern: &str, replacement: &str) {
        assert!(self.world.config.contains(pattern), "{pattern}");
        std::fs::write(&self.config, self.world.config.replacen(pattern, replacement, 1)).unwrap();
    }

    /// Writes the world's own configuration again.
    pub(crate) fn restore(&self) {
        std::fs::write(&self.config, &self.world.config).unwrap();
    }

    /// Waits until the file holds as many lines as the API shows events.
    pub(crate) async fn wait_until_complete(&self, dialect: Dialect) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.world.written().values().sum::<u32>() < self.world.truth(dialect).values().sum::<u32>() {
            assert!(Instant::now() < deadline, "{} lines", self.world.written().len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What a command printed, without what differs from run to run: directories, ports, processes, times.
    pub(crate) fn tidy(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let text = text.replace(self.world.dir.path().to_str().unwrap(), "DIR");
        let text = without_ports(&text);
        without_times(&without_numbers_after(&text, "process "))
    }
}

impl Program {
    /// What a person saw who typed this: the command, stderr, the exit code.
    pub(crate) fn said(&self, arguments: &[&str], output: &Output) -> String {
        let code = output.status.code().map_or_else(|| "by a signal".to_owned(), |code| code.to_string());
        let typed = self.tidy(arguments.join(" ").as_bytes());
        format!("$ sparkspool {typed}\n{}[exit {code}]\n", self.tidy_run(&output.stderr))
    }

    /// As [`Program::tidy`], without log lines of single attempts and the figures of the work, which depend on timing.
    pub(crate) fn tidy_run(&self, bytes: &[u8]) -> String {
        let text = self.tidy(bytes);
        let mut out = String::new();
        for line in text.lines() {
            let is_attempt = line.starts_with("TIME") && line.contains("trying again");
            if is_attempt && out.ends_with("…\n") {
                continue;
            }
            let figures = line.find("; ").filter(|at| line.contains(" received, ") && line[*at..].contains("request"));
            match (is_attempt, figures) {
                (true, _) => out.push_str("TIME  WARN … trying again …"),
                (false, Some(at)) => out.push_str(&format!("{}; FIGURES", &line[..at])),
                (false, None) => out.push_str(line),
            }
            out.push('\n');
        }
        out
    }
}

/// Runs to the end, without blocking the simulated API that lives in this process.
pub(crate) async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

pub(crate) fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").arg(name).arg(child.id().to_string()).status().unwrap().success());
}

pub(crate) async fn ended(child: Child) -> Output {
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A world of the Events API alone, as at SparkPost.
pub(crate) fn events(events: u32) -> Options {
    let mut options = Options::new(population(11, events));
    options.behaviour = Behaviour { legacy: Legacy::Retired, ..options.behaviour };
    options
}

/// The same, with a wait of so many milliseconds before each answer: what has to be seen under way is under way for long enough
/// on the fastest machine.
pub(crate) fn slow_events(count: u32, wait: Millis) -> Options {
    Options { faults: FaultPlan::one(When::Always, Fault::Slow(wait)), ..events(count) }
}

fn without_ports(text: &str) -> String {
    let mut pieces = text.split("127.0.0.1:");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out.push_str("127.0.0.1:PORT");
        out.push_str(piece.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

pub(crate) fn without_numbers_after(text: &str, word: &str) -> String {
    let mut pieces = text.split(word);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        out.push_str(word);
        out.push_str(if rest.len() < piece.len() { "N" } else { "" });
        out.push_str(rest);
    }
    out
}

/// Every instant of the form `2026-11-12T00:00:00Z`, with or without seconds and their fraction, with a blank for the
/// `T`, too, becomes `TIME`.
pub(crate) fn without_times(text: &str) -> String {
    const SHAPE: &[u8] = b"0000-00-00T00:00";
    let is_time = |piece: &[u8]| {
        piece.len() == SHAPE.len()
            && piece.iter().zip(SHAPE).all(|(c, shape)| match shape {
                b'0' => c.is_ascii_digit(),
                b'T' => matches!(c, b'T' | b' '),
                _ => c == shape,
            })
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.as_bytes().get(..SHAPE.len()).is_some_and(is_time) {
            let tail = rest[SHAPE.len()..].trim_start_matches(|c: char| c.is_ascii_digit() || c == ':' || c == '.');
            out.push_str("TIME");
            rest = tail.strip_prefix('Z').unwrap_or(tail);
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// What a person sees who types this: the command, stderr, the exit code.
pub(crate) async fn shown(program: &Program, arguments: &[&str]) -> String {
    program.said(arguments, &program.run(arguments).await)
}
