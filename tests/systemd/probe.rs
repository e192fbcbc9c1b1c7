//! A stand-in for sparkspool that uses, as it does, what its unit grants, and tries what the unit denies. It exists so that a
//! sandbox that is too tight or too loose is found by itself, and not through a bug report: `rustc probe.rs`, then run.sh.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

fn main() -> ExitCode {
    match (granted(), denied()) {
        (Ok(()), Ok(())) => {}
        (granted, denied) => {
            eprintln!("granted: {granted:?}; denied: {denied:?}");
            return ExitCode::FAILURE;
        }
    }
    tell("READY=1\nSTATUS=the sandbox is as it should be");
    loop {
        std::thread::sleep(Duration::from_secs(5));
        tell("WATCHDOG=1");
    }
}

fn tell(words: &str) {
    let socket = std::env::var("NOTIFY_SOCKET").expect("NOTIFY_SOCKET");
    UnixDatagram::unbound().and_then(|s| s.send_to(words.as_bytes(), socket)).expect("systemd listens");
}

fn place(variable: &str) -> Result<PathBuf, String> {
    std::env::var_os(variable).map(PathBuf::from).ok_or(format!("{variable} is not set"))
}

fn granted() -> Result<(), String> {
    let key = fs::read_to_string(place("CREDENTIALS_DIRECTORY")?.join("sparkpost-api-key"))
        .map_err(|e| format!("the key: {e}"))?;
    expect(!key.trim().is_empty(), "the key has a text")?;
    fs::read_to_string("/etc/sparkspool/sparkspool.toml").map_err(|e| format!("the configuration: {e}"))?;

    let home = place("STATE_DIRECTORY")?;
    let meta = fs::metadata(&home).map_err(|e| format!("the state directory: {e}"))?;
    expect(meta.mode() & 0o777 == 0o700, "the state directory is 0700")?;
    expect(meta.uid() != 0, "the state directory is not root's")?;
    let (draft, file) = (home.join("probe.tmp"), home.join("probe"));
    let mut made = File::create(&draft).map_err(|e| format!("a file: {e}"))?;
    made.write_all(b"kept").and_then(|()| made.sync_all()).map_err(|e| format!("a durable write: {e}"))?;
    made.lock().map_err(|e| format!("a lock: {e}"))?;
    fs::rename(&draft, &file)
        .and_then(|()| File::open(&home)?.sync_all())
        .map_err(|e| format!("a durable rename: {e}"))?;
    expect(fs::metadata(&file).is_ok_and(|m| m.mode() & 0o777 == 0o600), "a new file is 0600")?;

    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("listening: {e}"))?;
    TcpStream::connect(listener.local_addr().unwrap()).map_err(|e| format!("connecting: {e}"))?;
    UdpSocket::bind("[::]:0")
        .or_else(|_| UdpSocket::bind("0.0.0.0:0"))
        .map_err(|e| format!("asking for a name: {e}"))?;
    fs::read("/etc/resolv.conf")
        .or_else(|_| fs::read("/etc/nsswitch.conf"))
        .map_err(|e| format!("the resolver: {e}"))?;
    std::thread::spawn(|| ()).join().map_err(|_| "a thread".to_owned())?;
    let mut random = [0_u8; 16];
    File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut random)).map_err(|e| format!("randomness: {e}"))
}

fn denied() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let line = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("?").trim().to_owned();
    expect(line("Uid:").split_whitespace().all(|uid| uid != "0"), "it is not root")?;
    expect(line("CapBnd:").trim_matches('0').is_empty(), "no capability can be had")?;
    expect(line("NoNewPrivs:") == "1", "no new privileges")?;
    expect(line("Seccomp:") == "2", "system calls are filtered")?;
    for place in ["/", "/etc/sparkspool", "/usr/bin", "/var/lib", "/home", "/root", "/dev"] {
        expect(
            File::create(Path::new(place).join("sparkspool-probe")).is_err(),
            &format!("{place} cannot be written"),
        )?;
    }
    expect(fs::read("/etc/sparkspool/sparkpost-api-key").is_err(), "the key's file cannot be read")?;
    expect(fs::read_dir("/root").is_err(), "/root cannot be seen")?;
    expect(fs::read("/proc/1/cmdline").is_err(), "other processes cannot be seen")?;
    expect(fs::read("/proc/sys/kernel/hostname").is_err(), "the kernel's settings cannot be seen")?;
    expect(
        Command::new("/usr/bin/unshare").args(["--user", "true"]).output().is_ok_and(|o| !o.status.success()),
        "no namespaces",
    )
}

fn expect(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("does not hold: {what}")) }
}
