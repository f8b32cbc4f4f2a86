//! Threads that yield to those that train.
//!
//! A sweep over a million items computes for seconds. On the trainer's pool it would hold up a step
//! for as long; on threads of its own with the same priority it would take its share of the
//! processors.

use anyhow::Context as _;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool of `threads` threads at the lowest priority.
///
/// # Errors
/// A system that makes no more threads.
pub(super) fn pool(threads: usize) -> anyhow::Result<ThreadPool> {
    let name = |number| format!("vectors-{number}");
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(name);
    let pool = pool.start_handler(|_| yield_to_others()).build();
    pool.context("cannot make the threads that compute vectors")
}

/// Gives the calling thread, and those that it makes from now on, the lowest priority.
pub fn yield_to_others() {
    // Elsewhere the call is about the whole process.
    #[cfg(target_os = "linux")]
    {
        const LOWEST: libc::c_int = 19;
        // SAFETY: it takes plain numbers; to Linux 0 is the calling thread.
        let answer = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LOWEST) };
        if answer != 0 {
            tracing::debug!("a thread keeps its priority: {}", std::io::Error::last_os_error());
        }
    }
}
