//! The tasks that a worker can't do without. One that panics takes its worker along: that is noticed, where a worker that
//! accepts nothing or watches nothing would not be.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::thread;

use tokio::task::{JoinError, JoinHandle, spawn_local};

/// One of them.
#[derive(Debug)]
pub(crate) struct Task {
    /// As the log calls it.
    what: &'static str,
    running: JoinHandle<()>,
}

impl Task {
    pub(crate) fn spawn(what: &'static str, work: impl Future<Output = ()> + 'static) -> Self {
        Self { what, running: spawn_local(work) }
    }

    /// Waits for its end, whatever that is.
    pub(crate) async fn ended(self) {
        let _ = self.running.await;
    }
}

/// Ends when one of the tasks panics. A task that ends well has done what it was told; accepting ends so, and may hear that
/// it is to end before anybody else does.
pub(crate) async fn one_breaks(tasks: &mut Vec<Task>) {
    let (task, error) = broken(tasks).await;
    let thread = thread::current();
    tracing::error!(worker = thread.name(), task, %error, "a worker ends, because a task has that it can't do without");
}

async fn broken(tasks: &mut Vec<Task>) -> (&'static str, JoinError) {
    poll_fn(|cx| {
        let mut broken = None;
        tasks.retain_mut(|task| match Pin::new(&mut task.running).poll(cx) {
            Poll::Pending => true,
            Poll::Ready(ended) => {
                broken = broken.take().or(ended.err().map(|error| (task.what, error)));
                false
            }
        });
        broken.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use tokio::task::{LocalSet, yield_now};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_done_its_work_takes_no_worker_along_and_one_that_panics_is_named() {
        let test = async {
            let mut tasks = vec![Task::spawn("waiting", pending()), Task::spawn("yielding", yield_now())];
            assert!(timeout(Duration::from_secs(9), broken(&mut tasks)).await.is_err());
            assert_eq!(tasks.len(), 1, "who waits for the rest must not ask it again");
            tasks.push(Task::spawn("breaking", async { panic!("as tests do") }));
            let (what, error) = timeout(Duration::from_secs(9), broken(&mut tasks)).await.unwrap();
            assert_eq!(what, "breaking");
            assert!(error.to_string().contains("as tests do"), "{error}");
        };
        LocalSet::new().run_until(test).await;
    }
}
