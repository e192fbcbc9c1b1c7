//! What a capture costs as a whole process: 200,000 events of about 1 KB in pages of 10,000, from a loopback API into an
//! NDJSON file, durable. It exists to compare, in one run on one machine, with a bare Python loop and with curl over the
//! same pages: once as bare bytes, and once compressed, which is how the real API sends them to whoever accepts it. Run: `cargo bench --bench capture` (python3 with `requests`, and curl, are compared where installed).

#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a panic is a broken benchmark")]

use sparkspool::core::time::HOUR;
use sparkspool::core::window::Window;
use sparkspool::daemon::clock::TimeSource;
use sparkspool::simulator::{Dialect, Options, Simulator};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const EVENTS: u32 = 200_000;
const BYTES_EACH: u32 = 1_000;
const ROUNDS: usize = 5;

const PYTHON: &str = r"
import json, sys, requests
url, out = sys.argv[1], open(sys.argv[2], 'w')
origin = '/'.join(url.split('/')[:3])
session = requests.Session()
session.headers['Authorization'] = 'simulated-key'
while url:
    page = session.get(url).json()
    for event in page['results']:
        out.write(json.dumps(event) + '\n')
    following = page['links'].get('next')
    url = origin + following if following else None
";

const CURL: &str = r#"

curl -s $3 -H 'Authorization: simulated-key' -D /dev/null -o /dev/null $(cat "$2")
"#;

/// One run of a process.
struct Run {
    cpu: Duration,
    wall: Duration,
    peak_kib: u64,
}

#[tokio::main]
async fn main() {
    compare(false).await;
    compare(true).await;
}

/// Times everything against one API, which sends bare bytes or gzip that was packed before.
async fn compare(gzip: bool) {
    let now = (TimeSource::system().wall)();
    let to = now.plus(-HOUR).floor(60_000);
    let window = Window::new(to.plus(-20 * HOUR), to).expect("twenty hours");
    let options = Options::benchmark(window, EVENTS, BYTES_EACH, Dialect::Events);
    let options = Options { gzip, keep_packed: true, ..options };
    let api = Simulator::start(options, TimeSource::system().wall).await.expect("a loopback port");
    let dir = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let first = format!(
        "{}/api/v1/events/message?from={}&to={}&per_page=10000&cursor=initial",
        api.url(),
        window.from().to_second_text(),
        window.to().to_second_text()
    );
    let pages = page_urls(&api.url(), &first).await;
    std::fs::write(dir.path().join("pages"), pages.join(" ")).unwrap();
    let form = if gzip { "gzip" } else { "as bare bytes" };
    println!("{EVENTS} events in {} pages, {form}; median of {ROUNDS} runs, in turns", pages.len());
    println!("{:28} {:>9} {:>9} {:>12} {:>10}", "", "cpu s", "wall s", "cpu s/M", "peak MiB");
    let mut rows: Vec<(&str, Vec<Run>)> = Vec::new();
    // The first round warms up: what is packed once is packed there.
    for round in 0..=ROUNDS {
        for Case { name, command, folder } in cases(dir.path(), &api.url(), &first, window, gzip) {
            let run = tokio::task::spawn_blocking(move || measure(command)).await.unwrap();
            // What was written goes, or its pages would be written and given back at the expense of who comes next.
            std::fs::remove_dir_all(folder).unwrap();
            if round == 0 {
                continue;
            }
            match rows.iter_mut().find(|(known, _)| *known == name) {
                Some((_, runs)) => runs.push(run),
                None => rows.push((name, vec![run])),
            }
        }
    }
    for (name, runs) in &mut rows {
        let cpu = median(runs, |run| run.cpu);
        let wall = median(runs, |run| run.wall);
        let peak = runs.iter().map(|run| run.peak_kib).max().unwrap_or(0);
        println!(
            "{name:28} {:9.2} {:9.2} {:12.2} {:10.1}",
            cpu.as_secs_f64(),
            wall.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / f64::from(EVENTS),
            f64::from(u32::try_from(peak).unwrap_or(u32::MAX)) / 1024.0
        );
    }
}

/// A process to measure, and the folder that it writes in.
struct Case {
    name: &'static str,
    command: Command,
    folder: PathBuf,
}

/// What is compared in one round.
fn cases(dir: &Path, api: &str, first: &str, window: Window, gzip: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, command: &dyn Fn(&Path) -> Command| {
        let folder = dir.join(format!("out-{}", cases.len()));
        std::fs::create_dir(&folder).unwrap();
        cases.push(Case { name, command: command(&folder), folder });
    };
    for (name, format) in [("sparkspool raw", "raw"), ("sparkspool normalized", "normalized")] {
        add(name, &|folder| sparkspool(folder, api, format, window));
    }
    if has("curl") {
        let compressed = if gzip { "--compressed" } else { "" };
        add("curl to /dev/null", &|_| script("sh", CURL, &[first, &path(dir, "pages"), compressed]));
    }
    if has("python3") {
        add("python requests, ndjson", &|folder| script("python3", PYTHON, &[first, &path(folder, "py.ndjson")]));
    }
    cases
}

/// The URLs of all pages, found by following the links once.
async fn page_urls(origin: &str, first: &str) -> Vec<String> {
    let client = sparkspool::net::Client::new(
        sparkspool::net::Limits {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            request: Duration::from_mins(1),
            body_max: 1 << 30,
        },
        None,
    )
    .unwrap();
    let mut urls = vec![first.to_owned()];
    loop {
        let url = url::Url::parse(urls.last().unwrap()).unwrap();
        let page = client.get(url, Some("simulated-key")).await.unwrap();
        let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
        match page["links"]["next"].as_str() {
            Some(next) => urls.push(format!("{origin}{next}")),
            None => return urls,
        }
    }
}

fn sparkspool(base: &Path, api: &str, format: &str, window: Window) -> Command {
    let config = base.join("sparkspool.toml");
    let text = format!(
        "data_dir = '{base}/data'\n[api]\nurl = '{api}'\ndialect = 'events'\nrequests_per_minute = 6000\n\
         [streams.all]\nsinks = ['file']\n[sinks.file.file]\npath = '{base}/out.ndjson'\nformat = '{format}'\n",
        base = base.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparkspool"));
    command.args(["backfill", "--from", &window.from().to_string(), "--to", &window.to().to_string()]);
    command.arg("--config").arg(config).env("SPARKPOST_API_KEY", "simulated-key");
    command
}

fn script(program: &str, text: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-c", text]);
    if program == "sh" {
        command.arg("sh");
    }
    command.args(arguments);
    command
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

fn has(program: &str) -> bool {
    let probe = if program == "python3" { vec!["-c", "import requests"] } else { vec!["--version"] };
    Command::new(program).args(probe).output().is_ok_and(|output| output.status.success())
}

fn measure(mut command: Command) -> Run {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak_kib = 0;
    while !is_over(&child) {
        peak_kib = peak_kib.max(peak(&child));
        std::thread::sleep(Duration::from_millis(5));
    }
    let (wall, cpu) = (started.elapsed(), cpu(&child));
    assert!(child.wait().unwrap().success(), "the measured command failed");
    Run { cpu, wall, peak_kib }
}

/// Whether the child has ended; it stays there to be asked for its times.
fn is_over(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

/// User and system time, of reaped children, too.
fn cpu(child: &Child) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn peak(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

fn median(runs: &mut [Run], of: impl Fn(&Run) -> Duration) -> Duration {
    runs.sort_by_key(|run| of(run));
    of(&runs[runs.len() / 2])
}
