//! The thin binary: how memory is kept, then arguments in, exit code out. Everything else is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    give_free_memory_back();
    sparkspool::cli::main()
}

/// By itself glibc keeps a heap for each thread, and in each of them as much as the largest buffer that was ever freed: with eight
/// sinks that is twice what is in use. Buffers that come and go with each piece of work are smaller than these thresholds, or kept for
/// the next piece: from the system they would come cleared anew, at a tenth of a capture's time. What the environment says stays.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no safe interface to it is to be had")]
fn give_free_memory_back() {
    let settings = [
        ("MALLOC_ARENA_MAX", libc::M_ARENA_MAX, 1),
        ("MALLOC_MMAP_THRESHOLD_", libc::M_MMAP_THRESHOLD, 256 << 10),
        ("MALLOC_TRIM_THRESHOLD_", libc::M_TRIM_THRESHOLD, 2 << 20),
    ];
    for (variable, parameter, value) in settings {
        if std::env::var_os(variable).is_none() {
            // SAFETY: it takes two numbers and no pointer, and no other thread is there yet whose heap it could change.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}
