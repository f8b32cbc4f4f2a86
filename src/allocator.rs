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
    // What is marked already has a time of before, and all that comes to it would go with it.
    give_back();
}

/// Gives memory that is free back to the system.
pub(crate) fn give_back() {
    // SAFETY: what is in use is not touched.
    unsafe { mi_collect(true) };
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::alloc::{GlobalAlloc, Layout};
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    /// Bytes of this process that are in memory.
    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").expect("procfs");
        let resident = pages.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
        4096 * resident.unwrap_or(0usize)
    }

    const BYTES: usize = 256 << 20;

    /// A piece of a version.
    const PIECE: usize = 1 << 20;

    /// In pieces: a block as large as all of them may be one of the system's own, which goes at
    /// once.
    fn take_and_free(bytes: usize) {
        let layout = Layout::from_size_align(PIECE, 64).expect("a layout");
        let taken = (0..bytes.div_ceil(PIECE)).map(|_| {
            // SAFETY: the layout is not empty, and the memory is written within it.
            unsafe {
                let memory = mimalloc::MiMalloc.alloc(layout);
                assert!(!memory.is_null());
                memory.write_bytes(1, PIECE);
                memory
            }
        });
        let taken: Vec<*mut u8> = taken.collect();
        // SAFETY: taken above with this layout, each goes back once.
        taken.into_iter().for_each(|memory| unsafe { mimalloc::MiMalloc.dealloc(memory, layout) });
    }

    /// Each half in a process of its own: other tests take and give memory of theirs meanwhile.
    #[test]
    fn free_memory_stays_until_it_is_given_back() {
        const ALONE: &str = "MILLRACE_TEST_ALONE";
        match std::env::var(ALONE).as_deref() {
            Ok("as it is") => goes_back_by_itself(),
            Ok(_) => stays_until_it_is_given_back(),
            Err(_) => {
                let tests = std::env::current_exe().expect("this program");
                let name = "allocator::tests::free_memory_stays_until_it_is_given_back";
                for half in ["as it is", "kept"] {
                    let ran =
                        Command::new(&tests).args(["--exact", name]).env(ALONE, half).output();
                    let ran = ran.expect("it can be run");
                    let said = String::from_utf8_lossy(&ran.stdout);
                    assert!(ran.status.success() && said.contains("1 passed"), "{half}: {said}");
                }
            }
        }
    }

    fn goes_back_by_itself() {
        let (most, began) = (resident() + BYTES / 2, Instant::now());
        take_and_free(BYTES);
        while resident() > most {
            assert!(began.elapsed() < Duration::from_secs(30), "it does not go back by itself");
            // It goes when others come.
            take_and_free(BYTES / 100);
        }
    }

    fn stays_until_it_is_given_back() {
        keep();
        let (most, began) = (resident() + BYTES / 2, Instant::now());
        take_and_free(BYTES);
        // Some times as long as it takes by itself.
        while began.elapsed() < Duration::from_secs(5) {
            take_and_free(BYTES / 100);
        }
        assert!(resident() > most, "it went back by itself");
        give_back();
        assert!(resident() < most, "it was not given back");
    }
}
