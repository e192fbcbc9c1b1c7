//! The timer of the schedules: tells a stream that its next instant has come, once, and never twice at the same time.
//! tokio-cron-scheduler only keeps the time here. It would start overlapping runs, freezes the UTC offset across DST and
//! has been seen to stop repeated jobs, so due times are computed by `core::schedule`, each is armed as a one-shot, and
//! the run itself belongs to the stream's own task.

use super::account::sleep;
use super::clock::ApiClock;
use crate::core::schedule::Schedule;
use crate::core::time::{Millis, SECOND, UtcMillis};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// A timer that is this late is taken for dead, and the instant is met without it.
const GRACE: Millis = 5 * SECOND;

/// The longest single wait: a clock that moved meanwhile is noticed after this.
const WAIT_MAX: Millis = 60 * SECOND;

/// The process's timer.
#[derive(Clone)]
pub struct Timer {
    scheduler: JobScheduler,
}

impl Timer {
    /// Starts the timer.
    pub async fn start() -> Result<Self, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        scheduler.start().await?;
        Ok(Self { scheduler })
    }

    /// Waits until `clock` has reached the first instant of `schedule` after `after`, and returns it. Instants missed
    /// meanwhile are met by one run. `None` where the schedule has no further instant.
    pub async fn next(&self, schedule: &Schedule, after: UtcMillis, clock: &ApiClock) -> Option<UtcMillis> {
        let due = schedule.next_after(after)?;
        loop {
            let left = due.since(clock.now());
            if left <= 0 {
                return Some(due);
            }
            self.wait(left.min(WAIT_MAX)).await;
        }
    }

    /// Waits about `wait` milliseconds: by the scheduler, and past a grace without it.
    async fn wait(&self, wait: Millis) {
        let Some(armed) = self.arm(wait).await else { return sleep(wait).await };
        tokio::select! {
            fired = armed => {
                if fired.is_err() {
                    sleep(wait.min(SECOND)).await;
                }
            }
            () = sleep(wait.saturating_add(GRACE)) => tracing::warn!("the timer is late and was passed over"),
        }
    }

    async fn arm(&self, wait: Millis) -> Option<oneshot::Receiver<()>> {
        let (fire, fired) = oneshot::channel();
        let fire = Arc::new(Mutex::new(Some(fire)));
        let job = Job::new_one_shot_async(Duration::from_millis(wait.unsigned_abs()), move |_, _| {
            let fire = fire.clone();
            Box::pin(async move {
                if let Some(fire) = fire.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    // Nobody waits any more when the grace was over first.
                    let _ = fire.send(());
                }
            })
        });
        self.scheduler.add(job.ok()?).await.ok()?;
        Some(fired)
    }

    /// Stops the timer.
    pub async fn shutdown(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::debug!(%error, "the timer did not stop cleanly");
        }
    }
}
