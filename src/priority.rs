//! Threads that yield to those that train and answer.
//!
//! A sweep over a million items, or the index of a new version, computes for seconds. On the pool
//! of who trains or answers it would hold up a step or a request for as long; on threads of its own
//! with the same priority it would take its share of the processors.

use anyhow::Context as _;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// How far threads stand back.
#[derive(Clone, Copy, Debug)]
pub enum Priority {
    /// Nobody waits for it: it computes where nobody else does, and else a seventieth as much.
    Lowest,
    /// Somebody waits for it: it computes a third as much as who stands beside it.
    Low,
}

/// A pool of `threads` threads (0: as many as processors) of this priority, each called `name` and
/// a number.
///
/// # Errors
/// A system that makes no more threads.
pub(crate) fn pool(
    threads: usize,
    name: &'static str,
    priority: Priority,
) -> anyhow::Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(threads);
    let pool = pool.thread_name(move |number| format!("{name}-{number}"));
    let pool = pool.start_handler(move |_| yield_to_others(priority)).build();
    pool.with_context(|| format!("cannot make the threads {name}"))
}

/// Gives the calling thread, and those that it makes from now on, this priority.
pub fn yield_to_others(priority: Priority) {
    // Elsewhere the call is about the whole process.
    #[cfg(target_os = "linux")]
    {
        let nice: libc::c_int = match priority {
            Priority::Lowest => 19,
            Priority::Low => 5,
        };
        // SAFETY: it takes plain numbers; to Linux 0 is the calling thread.
        let answer = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
        if answer != 0 {
            tracing::debug!("a thread keeps its priority: {}", std::io::Error::last_os_error());
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = priority;
}
