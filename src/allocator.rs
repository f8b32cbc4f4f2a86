//! When memory that nobody uses goes back to the system.
//!
//! A version of a million items is hundreds of megabytes, and where one comes every few seconds
//! they would go back and be taken again all the time. On a virtual machine whose host takes free
//! pages away at once, that stopped all of its threads for a tenth of a second, several times a
//! minute (docs/benchmarks/2026-11-27-serving.md). Who makes versions keeps the memory of those
//! that left, and gives it back when none has come for a while.

use std::ffi::{c_int, c_long};

// mimalloc's, version 2 and 3. Its crate has no such calls without a feature, nor the number of the
// option with it.
unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
    fn mi_collect(force: bool);
}

/// `mi_option_purge_delay`, ms.
const PURGE_DELAY: c_int = 15;
/// Longer than anybody waits for [`give_back`]. Without any purging nothing would be marked for it.
const DAY_MS: c_long = 24 * 3600 * 1000;

/// From now on memory that is free stays with this process until [`give_back`].
pub(crate) fn keep() {
    // Where another allocator is the program's it changes nothing.
    let _linked = mimalloc::MiMalloc;
    // SAFETY: plain numbers; any thread may set an option at any time.
    unsafe { mi_option_set(PURGE_DELAY, DAY_MS) };
}

/// Gives memory that is free back to the system.
pub(crate) fn give_back() {
    // SAFETY: what is in use is not touched.
    unsafe { mi_collect(true) };
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::alloc::{GlobalAlloc, Layout};
    use std::time::{Duration, Instant};

    use super::*;

    /// Bytes of this process that are in memory.
    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").expect("procfs");
        let resident = pages.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
        4096 * resident.unwrap_or(0usize)
    }

    const BYTES: usize = 256 << 20;

    fn take_and_free(bytes: usize) {
        let layout = Layout::from_size_align(bytes, 64).expect("a layout");
        // SAFETY: the layout is not empty, the memory is written within it and goes back once.
        unsafe {
            let memory = mimalloc::MiMalloc.alloc(layout);
            assert!(!memory.is_null());
            memory.write_bytes(1, bytes);
            mimalloc::MiMalloc.dealloc(memory, layout);
        }
    }

    #[test]
    fn free_memory_stays_until_it_is_given_back() {
        // Other tests take and give memory meanwhile, but not so much.
        let most = resident() + BYTES / 2;
        take_and_free(BYTES);
        let began = Instant::now();
        while resident() > most {
            assert!(began.elapsed() < Duration::from_secs(30), "it does not go back by itself");
            // It goes when others come.
            take_and_free(BYTES / 100);
        }
        let took = began.elapsed();
        keep();
        take_and_free(BYTES);
        let began = Instant::now();
        while began.elapsed() < 2 * took {
            take_and_free(BYTES / 100);
        }
        assert!(resident() > most, "it went back by itself");
        give_back();
        assert!(resident() < most, "it was not given back");
    }
}
