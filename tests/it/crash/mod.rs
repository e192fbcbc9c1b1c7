//! The crash claims, proven with the real program: killed at any moment, on a disk that fails at any change, after a
//! power cut in any of the states it can leave, started twice, stopped. They exist because "exactly once" is a claim
//! about what survives, and nothing that survives can be read off the code that wrote it.
//!
//! A plain `cargo test` takes a sample; these variables ask for more, and each number is what one run is to reach:
//!
//! | variable | counts | plain | long |
//! |---|---|---|---|
//! | `SPARKSPOOL_KILLS` | SIGKILLs, and SIGTERMs at a tenth of that | 10 | 3000 |
//! | `SPARKSPOOL_FAULT_POINTS` | changes of the disk that each fault strikes, or `all` | 4 | all |
//! | `SPARKSPOOL_POWER_STATES` | states after a power cut | 300 | 100000 |
//! | `SPARKSPOOL_RACES` | pairs started at once | 4 | 100 |
//!
//! `SPARKSPOOL_TEST_SEED` repeats the random choices of a run, as far as two processes can be made to repeat.

// Always so in this binary; said here so that clippy takes the helpers, too, as tests.
#![cfg(test)]

mod disk;
mod faults;
mod ground;
mod instances;
mod kills;
mod life;
mod platter;
mod power;
mod stops;

/// A count from the environment; `usual` where it does not say.
fn number(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Err(_) => usual,
        Ok(text) if text == "all" => u64::MAX,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number or `all`, not `{text}`")),
    }
}

/// The seed of this run, said so that a failure can be repeated.
fn seed(of: &str) -> u64 {
    let given = std::env::var("SPARKSPOOL_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("{of}: SPARKSPOOL_TEST_SEED={seed}");
    seed
}

/// A directory in memory where that is possible: what survives a death of the process does not depend on the disk.
fn place() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("sparkspool-crash-");
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap()
}

/// Does `work` for every item on four threads, because much of it is waiting, and panics with what was complained of; after a few complaints it is enough.
fn side_by_side<T: Send>(items: Vec<T>, work: impl Fn(T) -> Result<(), String> + Sync) {
    const ENOUGH: usize = 4;
    let queue = std::sync::Mutex::new(items.into_iter());
    let complaints = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while complaints.lock().unwrap().len() < ENOUGH {
                    let Some(item) = queue.lock().unwrap().next() else { break };
                    if let Err(complaint) = work(item) {
                        complaints.lock().unwrap().push(complaint);
                    }
                }
            });
        }
    });
    let complaints = complaints.into_inner().unwrap();
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}
