//! A terminal for a program under test. It exists because what is drawn for people is drawn on nothing else.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A program on a terminal of 120 columns, and all that it has drawn so far.
pub(crate) struct Screen {
    child: Child,
    drawn: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Screen {
    /// Starts `command` with its output on the terminal.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut ours = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        tcsetwinsize(&ours, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = OsString::from_vec(ptsname(&ours, Vec::new()).unwrap().into_bytes());
        let theirs = File::options().read(true).write(true).open(name).unwrap();
        command.env("TERM", "xterm-256color").stdout(theirs.try_clone().unwrap()).stderr(theirs);
        let child = command.spawn().unwrap();
        // With it goes the last handle of ours on their side: reading ends when the program does.
        drop(command);
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&drawn);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(len) = ours.read(&mut buffer).ok().filter(|len| *len > 0) {
                kept.lock().unwrap().extend_from_slice(&buffer[..len]);
            }
        });
        Self { child, drawn, reader }
    }

    /// What has been drawn.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().unwrap()).into_owned()
    }

    /// Waits until what has been drawn is as it should be.
    pub(crate) fn wait_until(&self, is_right: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !is_right(&self.text()) {
            assert!(Instant::now() < deadline, "{}", self.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Interrupts the program, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        super::program::signal(&self.child, "-INT");
    }

    /// Waits for the program's end; returns all that it has drawn, too.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        self.reader.join().unwrap();
        let drawn = String::from_utf8_lossy(&self.drawn.lock().unwrap()).into_owned();
        (status, drawn)
    }
}
