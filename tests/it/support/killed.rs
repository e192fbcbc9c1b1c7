//! A program that is killed while it forwards to a sink, and servers of a test's own that are killed under it. It exists so that
//! every sink before a real server is put to the same trial.

use super::program::{Program, ended, slow_events, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Runs a backfill of 20,000 events into a sink, whose lines take the place of the file's, and kills it again and again; then lets it
/// come to its end. What every run has in its environment is in `env`. Returns how many runs were killed, too.
pub(crate) async fn killed_while_it_forwards(sink: &str, env: &[(&str, &str)]) -> (Program, u32) {
    let program = Program::new(slow_events(20_000, 30), "page_size = 500", "").await;
    let (before, _) = program.world.config.split_once("[sinks.file.file]").unwrap();
    std::fs::write(&program.config, format!("{before}{sink}\n")).unwrap();
    let (from, to) = (program.world.window.from().to_string(), program.world.window.to().to_string());
    let command = || {
        let mut command = program.command(&["backfill", "--from", &from, "--to", &to]);
        command.envs(env.iter().copied());
        command
    };
    let mut kills = 0;
    for life in 1..=12 {
        let mut child = command().spawn().unwrap();
        // At first too early for any run to come to its end, then later and later.
        tokio::time::sleep(Duration::from_millis(life * fastrand::u64(30..100))).await;
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = ended(command().spawn().unwrap()).await;
    assert!(last.status.success(), "{}", stderr(&last));
    assert!(kills >= 3, "only {kills} runs were killed before their end");
    (program, kills)
}

/// Where a server has everything, in a directory of its own.
const FOLDER: &str = "server";

/// A server of `tests/servers` for the one test that kills it.
pub(crate) struct OwnServer {
    script: String,
    dir: tempfile::TempDir,
    pub(crate) url: String,
}

impl OwnServer {
    /// Starts the server of this name.
    pub(crate) fn start(name: &str) -> Self {
        let script = format!("{}/tests/servers/{name}.sh", env!("CARGO_MANIFEST_DIR"));
        // A server that runs as another user must get there.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let dir = tempfile::Builder::new().permissions(open).tempdir().unwrap();
        let started = tell(&script, "start", &dir.path().join(FOLDER));
        let url = String::from_utf8(started.stdout).unwrap().trim().to_owned();
        Self { script, dir, url }
    }

    /// Kills it, as a crash would, and starts it again where it was.
    pub(crate) fn restart(&self) -> JoinHandle<()> {
        let (script, folder) = (self.script.clone(), self.folder());
        tokio::task::spawn_blocking(move || drop(tell(&script, "restart", &folder)))
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join(FOLDER)
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // A test that fails must not fail twice.
        let _ = Command::new(&self.script).arg("stop").arg(self.folder()).output();
    }
}

fn tell(script: &str, what: &str, folder: &Path) -> Output {
    let output = Command::new(script).arg(what).arg(folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}
