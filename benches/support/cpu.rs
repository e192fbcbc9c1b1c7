//! The processors' time. It exists because on a busy machine it says more than the clock on the wall.

use std::time::Duration;

/// What this process has used of the processors.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
