//! Opening: the lock, the refusals, the rights of files, and that a refused file is left as it was.
//! They exist because a second writer or a silent downgrade would undo everything else.

use super::*;
use rusqlite::Connection;
use std::path::Path;

/// What a later program's migration leaves.
const NEWER: &str = "PRAGMA user_version = 99; UPDATE meta SET value = '99' WHERE key = 'schema'";

fn database_with(dir: &Path, sql: &str) -> std::path::PathBuf {
    let path = dir.join("sparkspool.db");
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    path
}

#[test]
fn a_second_instance_is_told_who_holds_the_store() {
    let (dir, store, _) = fresh();
    let error = Store::open(dir.path()).unwrap_err();
    let StoreError::Locked { pid, .. } = &error else { panic!("{error}") };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[test]
fn openings_are_counted_and_a_store_on_a_full_disk_is_counted_later() {
    let (dir, store, _) = fresh();
    assert_eq!(store.epoch(), Some(1));
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(store.epoch(), Some(2));
    store.epoch = fence::Epoch::Unclaimed;
    assert_eq!(store.epoch(), None);
    store.set_meta("k", "v").unwrap();
    assert_eq!(store.epoch(), Some(3));
}

#[test]
fn a_writer_whose_lock_file_is_gone_or_another_commits_nothing() {
    let away: [fn(&Path); 3] = [
        |lock| std::fs::remove_file(lock).unwrap(),
        |lock| std::fs::rename(lock, lock.with_extension("away")).unwrap(),
        |lock| {
            std::fs::rename(lock, lock.with_extension("away")).unwrap();
            std::fs::write(lock, "1\n").unwrap();
        },
    ];
    for take_away in away {
        let (dir, mut older, stream) = fresh();
        take_away(&dir.path().join("sparkspool.lock"));
        assert_eq!(kind(older.set_meta("k", "older")), "fenced");
        let mut newer = Store::open(dir.path()).unwrap();
        newer.set_meta("k", "newer").unwrap();
        assert_eq!(kind(commit(&mut older, stream, &page(&[given("1", 5)]))), "fenced");
        assert_eq!(older.meta("k").unwrap().as_deref(), Some("newer"));
        // Closing the older one takes nothing from the newer one.
        drop(older);
        assert_eq!(commit(&mut newer, stream, &page(&[given("1", 5)])).unwrap().new_events, 1);
    }
}

#[test]
fn a_writer_behind_which_another_has_opened_commits_nothing_even_with_its_lock_file_back() {
    let (dir, mut older, stream) = fresh();
    let lock = dir.path().join("sparkspool.lock");
    std::fs::rename(&lock, lock.with_extension("away")).unwrap();
    drop(Store::open(dir.path()).unwrap());
    std::fs::rename(lock.with_extension("away"), &lock).unwrap();
    let error = commit(&mut older, stream, &page(&[given("1", 5)])).unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }) && !error.is_pause(), "{error}");
    assert!(spooled(&older, &[stream]).is_empty());
}

#[test]
fn directories_above_are_created_too() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("a/b/c");
    drop(Store::open(&inside).unwrap());
    Store::open(&inside).unwrap();
}

#[test]
fn a_newer_schema_is_refused_and_left_byte_identical() {
    let (dir, mut store, _) = fresh();
    store.checkpoint().unwrap();
    drop(store);
    let path = database_with(dir.path(), NEWER);
    let before = std::fs::read(&path).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 99, known: 4 }), "{error}");
    assert_eq!(kind(Reader::open(dir.path())), "newer");
    assert_eq!(kind(Mailbox::open(dir.path())), "newer");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_newer_schema_that_is_still_in_the_log_is_refused_and_left_there() {
    let (_dir, store, _) = fresh();
    store.conn.execute_batch(NEWER).unwrap();
    let copy = crashed(&store);
    let read = |file: &str| std::fs::read(copy.path().join(file)).unwrap();
    let before = (read("sparkspool.db"), read("sparkspool.db-wal"));
    assert_eq!(kind(Store::open(copy.path())), "newer");
    assert_eq!((read("sparkspool.db"), read("sparkspool.db-wal")), before);
}

#[test]
fn a_database_of_another_program_is_refused_and_left_byte_identical() {
    for sql in
        ["CREATE TABLE theirs (x)", "PRAGMA application_id = 7; CREATE TABLE theirs (x)", "PRAGMA user_version = 1"]
    {
        let dir = tempfile::tempdir().unwrap();
        let path = database_with(dir.path(), sql);
        let before = std::fs::read(&path).unwrap();
        assert_eq!(kind(Store::open(dir.path())), "not ours", "{sql}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "{sql}");
    }
}

#[test]
fn what_is_no_database_is_damage_and_left_byte_identical() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparkspool.db");
    let text = "these are no pages of a database ".repeat(1_000);
    std::fs::write(&path, &text).unwrap();
    assert_eq!(kind(Store::open(dir.path())), "corrupt");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_damaged_page_is_found_when_opening() {
    let (dir, mut store, stream) = fresh();
    let events: Vec<_> = (0..5_000).map(|i| given(&format!("{}", i * 7919), i * MINUTE)).collect();
    commit(&mut store, stream, &page(&events)).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    let path = dir.path().join("sparkspool.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 64].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(kind(Store::open(dir.path())), "corrupt");
}

#[test]
fn an_empty_file_left_by_a_first_start_that_was_cut_off_is_used() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sparkspool.db"), b"").unwrap();
    assert_eq!(kind(Reader::open(dir.path())), "missing");
    Store::open(dir.path()).unwrap();
    Reader::open(dir.path()).unwrap();
}

#[test]
fn reading_what_is_not_there_says_so_and_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("none");
    assert_eq!(kind(Reader::open(&inside)), "missing");
    assert_eq!(kind(Mailbox::open(dir.path())), "missing");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_below_a_file_is_unwritable() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(&file.path().join("inside")).unwrap_err();
    assert!(matches!(error, StoreError::Unwritable { .. }), "{error}");
    assert!(error.to_string().contains("data_dir"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_in_which_nothing_can_be_created_is_unwritable() {
    // The rights of a directory do not bind root; that processes create no files in /proc binds everyone.
    assert_eq!(kind(Store::open(Path::new("/proc/self"))), "unwritable");
}

#[cfg(unix)]
#[test]
fn a_directory_without_the_right_to_write_is_unwritable() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    let binds = std::fs::write(dir.path().join("probe"), b"").is_err();
    assert_eq!(kind(Store::open(dir.path())), if binds { "unwritable" } else { "ok" });
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    let mut store = Store::open(&dir).unwrap();
    store.set_meta("k", "v").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
}

#[test]
fn the_settings_hold_that_make_a_commit_durable() {
    let (_dir, store, _) = fresh();
    let number = |name: &str| store.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    let text = |name: &str| store.conn.pragma_query_value(None, name, |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("journal_mode"), "wal");
    let expected = [
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("trusted_schema", 0),
        ("cell_size_check", 1),
        ("temp_store", 2),
        ("busy_timeout", 5_000),
        ("secure_delete", 1),
        ("journal_size_limit", 64 << 20),
        ("user_version", 4),
        ("page_size", 16 << 10),
        ("wal_autocheckpoint", 256),
    ];
    for (name, value) in expected {
        assert_eq!(number(name), value, "{name}");
    }
}

#[test]
fn what_was_committed_survives_a_crash_and_a_close() {
    let (dir, mut store, stream) = fresh();
    let first = commit(&mut store, stream, &page(&[given("1", 5), given("x", 70_000)])).unwrap();
    store.close_window(stream, &closing(window(0, 60_000), true), &[]).unwrap();
    let copy = crashed(&store);
    let expected = (spooled(&store, &[stream]), store.progress(stream).unwrap());
    drop(store);
    for path in [dir.path(), copy.path()] {
        let mut store = Store::open(path).unwrap();
        assert_eq!((spooled(&store, &[stream]), store.progress(stream).unwrap()), expected);
        let again = commit(&mut store, stream, &page(&[given("x", 70_000), given("2", 5)])).unwrap();
        assert_eq!((again.new_events, again.duplicates), (1, 1));
        assert_eq!(again.seq, first.seq.map(|seq| seq + 1));
    }
}

#[test]
fn a_checkpoint_empties_the_log() {
    let (dir, mut store, stream) = fresh();
    commit(&mut store, stream, &page(&[given("1", 5)])).unwrap();
    let log = dir.path().join("sparkspool.db-wal");
    assert!(std::fs::metadata(&log).unwrap().len() > 0);
    assert!(store.checkpoint().unwrap());
    assert_eq!(std::fs::metadata(&log).unwrap().len(), 0);
}

#[test]
fn a_store_is_held_while_it_is_open_and_not_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!is_held(dir.path()), "there is nothing to hold");
    let store = Store::open(dir.path()).unwrap();
    assert!(is_held(dir.path()));
    drop(store);
    assert!(!is_held(dir.path()));
}

#[cfg(unix)]
#[test]
fn root_is_refused_a_store_of_somebody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let held = Store::open(dir.path()).unwrap();
    if std::os::unix::fs::chown(open::database(dir.path()), Some(61_184), None).is_err() {
        // Only root can give a file away.
        return;
    }
    // Beside the owner's daemon a command hands its work over, so it has to learn of that one first.
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked { .. })));
    drop(held);
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Foreign { owner: 61_184, .. })));
    assert_eq!(names(), before);
}
