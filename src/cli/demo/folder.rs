//! The folder of the demo: which files in it are its own, and the configuration it is run by. It exists so that a demo
//! starts afresh without ever removing a file that somebody else has put there.

use super::day;
use crate::cli::exit::{Code, Failure};
use crate::config::{self, Config};
use crate::core::time::UtcMillis;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The variable that the demo's configuration names. It is not read from the environment: the demo needs no key.
pub(super) const KEY_VARIABLE: &str = "SPARKSPOOL_DEMO_KEY";

/// The first line of the demo's configuration; a folder without it is not the demo's.
const MARK: &str = "# Written by `sparkspool demo`, which replaces it at every run.\n";

const CONFIG: &str = "sparkspool.toml";
const EVENTS: &str = "events.ndjson";
const STORE: &str = "store";
const DATABASE: &str = "sparkspool.db";
const FILES: [&str; 3] = [CONFIG, EVENTS, ".events.ndjson.journal"];
const STORE_FILES: [&str; 8] = [
    DATABASE,
    "sparkspool.db-wal",
    "sparkspool.db-shm",
    "sparkspool.lock",
    "store-id",
    "ballast",
    "status.json",
    "status.json.new",
];

/// The folder, made ready.
pub(super) struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// Creates `dir`, or empties it of what an earlier demo has left. Refuses a folder that holds anything else.
    pub(super) fn prepare(dir: &Path) -> Result<Self, Failure> {
        let folder = Self { dir: dir.to_owned() };
        let unwritable = |error: io::Error| {
            Failure::new(Code::Store, format!("{}: {error}", dir.display()), "choose another folder with --dir")
        };
        if dir.to_string_lossy().contains(['{', '}']) {
            let what = format!("{}: braces would be placeholders in the path of the sink", dir.display());
            return Err(Failure::new(Code::Usage, what, "choose another folder with --dir"));
        }
        fs::create_dir_all(dir).map_err(unwritable)?;
        let entries = names(dir).map_err(unwritable)?;
        if !entries.is_empty() {
            folder.refuse_foreign(&entries).map_err(unwritable)??;
            folder.refuse_in_use()?;
            folder.clear().map_err(unwritable)?;
        }
        Ok(folder)
    }

    fn refuse_foreign(&self, entries: &[String]) -> io::Result<Result<(), Failure>> {
        let refused = |what: String| {
            let hint = "name a new or empty folder with --dir; nothing was changed in this one";
            Ok(Err(Failure::new(Code::Usage, format!("{}: {what}", self.dir.display()), hint)))
        };
        let is_plain = |path: PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
        if !is_plain(self.config_file()) || !fs::read(self.config_file())?.starts_with(MARK.as_bytes()) {
            return refused("the folder is not empty, and not an earlier demo's".into());
        }
        let ours = |name: &&String| FILES.contains(&name.as_str()) && is_plain(self.dir.join(name.as_str()));
        if let Some(foreign) = entries.iter().filter(|name| *name != STORE).find(|name| !ours(name)) {
            return refused(format!("`{foreign}` is not a file of the demo's"));
        }
        if !entries.iter().any(|name| name == STORE) {
            return Ok(Ok(()));
        }
        if !fs::symlink_metadata(self.store())?.is_dir() {
            return refused(format!("`{STORE}` is not a folder of the demo's"));
        }
        let ours = |name: &&String| STORE_FILES.contains(&name.as_str()) && is_plain(self.store().join(name.as_str()));
        match names(&self.store())?.iter().find(|name| !ours(name)) {
            Some(foreign) => refused(format!("`{STORE}/{foreign}` is not a file of the demo's")),
            None => Ok(Ok(())),
        }
    }

    /// Whoever has the store open holds the lock beside it.
    fn refuse_in_use(&self) -> Result<(), Failure> {
        match fs::File::open(self.store().join("sparkspool.lock")).map(|lock| lock.try_lock()) {
            Ok(Err(fs::TryLockError::WouldBlock)) => Err(Failure::new(
                Code::Store,
                format!("{}: another demo is running in this folder", self.dir.display()),
                "wait for it, or choose another folder with --dir",
            )),
            _ => Ok(()),
        }
    }

    /// Removes the demo's files by name. The configuration goes last: it marks the folder as the demo's.
    fn clear(&self) -> io::Result<()> {
        STORE_FILES.iter().try_for_each(|name| remove(&self.store().join(name)))?;
        if self.store().exists() {
            fs::remove_dir(self.store())?;
        }
        FILES.iter().rev().try_for_each(|name| remove(&self.dir.join(name)))
    }

    /// Writes the configuration for an API at `url` whose mail begins at `from`, and reads it as any other.
    pub(super) fn configure(&self, url: &str, from: UtcMillis) -> Result<Config, Failure> {
        let text = config_text(url, from, &self.store(), &self.events_file());
        let file = self.config_file();
        let unwritable = |error: io::Error| {
            Failure::new(Code::Store, format!("{}: {error}", file.display()), "choose another folder with --dir")
        };
        fs::write(&file, &text).map_err(unwritable)?;
        config::parse(&text, &file.display().to_string(), &env)
            .map_err(|error| crate::cli::exit::config_failure(&error))
    }

    /// The NDJSON.
    pub(super) fn events_file(&self) -> PathBuf {
        self.dir.join(EVENTS)
    }

    /// The configuration.
    pub(super) fn config_file(&self) -> PathBuf {
        self.dir.join(CONFIG)
    }

    /// The directory of the store.
    pub(super) fn store(&self) -> PathBuf {
        self.dir.join(STORE)
    }

    /// The database in it, without which the rest of the store says nothing.
    pub(super) fn database(&self) -> PathBuf {
        self.store().join(DATABASE)
    }

    /// Bytes of the NDJSON, and of the database.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let size = |path: PathBuf| fs::metadata(path).map_or(0, |found| found.len());
        (size(self.events_file()), size(self.database()))
    }
}

/// The demo's environment: its own key, and nothing of the user's.
pub(super) fn env(name: &str) -> Option<String> {
    (name == KEY_VARIABLE).then(|| day::KEY.to_owned())
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn config_text(url: &str, from: UtcMillis, store: &Path, events: &Path) -> String {
    // A JSON string of printable text is a TOML string, too.
    let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
    format!(
        r#"{MARK}# The simulated API ends with the demo; with a key of yours this runs against SparkPost.

data_dir = {store}

[api]
# SparkPost is https://api.sparkpost.com, and https://api.eu.sparkpost.com for EU accounts.
url = "{url}"
key_env = "{KEY_VARIABLE}"  # yours: SPARKPOST_API_KEY
dialect = "auto"                 # message-events first, events where that is gone
page_size = 1000                 # small pages, so that there are some; the default is 10000
requests_per_minute = 6000       # the demo is in a hurry; the default is 60

[streams.all]
every = "1s"                     # the default is 60s
start = "{from}"
settle = "2s"                    # the default is 90s: real events need about a minute to appear
lookback = "30m"
sinks = ["archive"]

[sinks.archive.file]
path = {events}
"#,
        store = quoted(store),
        events = quoted(events),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("demo");
        let folder = Folder::prepare(&dir).unwrap();
        folder.configure("http://127.0.0.1:1", UtcMillis::from_secs(1_795_000_000)).unwrap();
        fs::write(folder.events_file(), "{}\n").unwrap();
        fs::create_dir(folder.store()).unwrap();
        fs::write(folder.store().join("sparkspool.db"), "").unwrap();
        (root, dir)
    }

    #[test]
    fn an_earlier_demo_makes_room_and_nothing_else_does() {
        let (_root, dir) = used();
        Folder::prepare(&dir).unwrap();
        assert_eq!(names(&dir).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_foreign_file_anywhere_stops_it_and_everything_stays() {
        for foreign in ["letter.txt", "store/letter.txt", "events.ndjson.old"] {
            let (_root, dir) = used();
            fs::write(dir.join(foreign), "mine").unwrap();
            let refused = Folder::prepare(&dir).err().unwrap();
            assert_eq!(refused.code, Code::Usage);
            assert!(refused.what.contains(foreign), "{}", refused.what);
            assert!(dir.join("events.ndjson").exists() && dir.join("store/sparkspool.db").exists());
        }
    }

    #[test]
    fn files_with_the_right_names_but_without_the_mark_are_not_the_demos() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("events.ndjson"), "mine").unwrap();
        assert!(Folder::prepare(root.path()).is_err());
        fs::write(root.path().join("sparkspool.toml"), "# mine").unwrap();
        assert!(Folder::prepare(root.path()).is_err());
        assert_eq!(fs::read_to_string(root.path().join("events.ndjson")).unwrap(), "mine");
    }

    #[test]
    fn a_link_is_not_followed() {
        let (root, dir) = used();
        let elsewhere = root.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("sparkspool.db"), "mine").unwrap();
        fs::remove_file(dir.join("store/sparkspool.db")).unwrap();
        fs::remove_dir(dir.join("store")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.join("store")).unwrap();
        assert!(Folder::prepare(&dir).is_err());
        assert!(elsewhere.join("sparkspool.db").exists());
    }

    #[test]
    fn a_running_demo_keeps_its_files() {
        let (_root, dir) = used();
        let lock = fs::File::create(dir.join("store/sparkspool.lock")).unwrap();
        lock.lock().unwrap();
        let refused = Folder::prepare(&dir).err().unwrap();
        assert_eq!(refused.code, Code::Store);
        assert!(dir.join("events.ndjson").exists());
    }

    #[test]
    fn odd_folder_names_make_a_configuration_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a \"b\" \\c ü");
        let folder = Folder::prepare(&dir).unwrap();
        let config = folder.configure("http://127.0.0.1:1", UtcMillis::from_secs(1_795_000_000)).unwrap();
        assert_eq!(config.data_dir, dir.join("store"));
        let braced = root.path().join("{date}");
        assert_eq!(Folder::prepare(&braced).err().unwrap().code, Code::Usage);
        assert!(!braced.exists());
    }
}
