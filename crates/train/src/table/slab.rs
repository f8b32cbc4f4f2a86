//! Large arrays of zeros in huge pages.
//!
//! A row of a large table is a random place in hundreds of megabytes: with pages of 4 KiB each
//! visit misses the TLB, and on a virtual machine walks two page tables for it. The kernel backs
//! what is advised so with pages of 2 MiB. Owns the memory; must never know what is in it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

/// A huge page on x86-64 and on ARM with pages of 4 KiB.
const HUGE: usize = 2 << 20;

/// What may be made of zero bytes.
///
/// # Safety
/// Zero bytes must be a valid value, and the type must need no drop.
pub(super) unsafe trait Zeroed: Copy {}

// SAFETY: zero bytes are 0.0.
unsafe impl Zeroed for f32 {}

/// A zeroed array of fixed length. What was never written takes no memory.
pub(super) struct Slab<T> {
    /// At a huge page's start if it is as large as one.
    values: NonNull<T>,
    length: usize,
    memory: Memory,
}

/// Whom the memory goes back to.
enum Memory {
    /// The allocator.
    Heap(Layout),
    /// The kernel, at once: a mapping of so many bytes. An allocator would keep it, would need room
    /// for the alignment, and lays other things beside it, so that a huge page is half in use: a
    /// tenth of a table of 32 floats a row.
    #[cfg(all(target_os = "linux", not(miri)))]
    Mapped(usize),
}

// SAFETY: a slab owns its memory, as a Vec does.
unsafe impl<T: Send> Send for Slab<T> {}
// SAFETY: as above; what is changed through a shared slab is the caller's promise.
unsafe impl<T: Sync> Sync for Slab<T> {}

impl<T: Zeroed> Slab<T> {
    pub(super) fn new(length: usize) -> Self {
        let layout = Layout::array::<T>(length).expect("fits the address space");
        assert!(layout.size() > 0, "a slab has room for something");
        #[cfg(all(target_os = "linux", not(miri)))]
        if layout.size() >= HUGE {
            let (values, mapped) = map(layout.size());
            return Self { values: values.cast(), length, memory: Memory::Mapped(mapped) };
        }
        // SAFETY: the layout is not empty.
        let values = NonNull::new(unsafe { alloc_zeroed(layout) });
        let values = values.unwrap_or_else(|| handle_alloc_error(layout)).cast();
        Self { values, length, memory: Memory::Heap(layout) }
    }

    /// Where value `at` lies. Makes no reference, so that others may be changing it.
    pub(super) fn pointer(&self, at: usize) -> *const T {
        self.values.as_ptr().wrapping_add(at)
    }

    /// Values in `range`, to be changed by one of several threads.
    ///
    /// # Safety
    /// For as long as the result lives nobody else may read or change them.
    #[expect(clippy::mut_from_ref, reason = "the memory is behind a pointer, like an UnsafeCell")]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.length, "out of the slab");
        // SAFETY: in bounds, initialised, and not shared by the caller's promise.
        unsafe {
            std::slice::from_raw_parts_mut(self.values.as_ptr().add(range.start), range.len())
        }
    }
}

/// Zeroed memory for `bytes` from the kernel, at a huge page's start, and how much of it there is.
/// It asks for huge pages; the kernel may refuse, and nothing is lost.
#[cfg(all(target_os = "linux", not(miri)))]
fn map(bytes: usize) -> (NonNull<u8>, usize) {
    /// More than a page has anywhere that huge pages are 2 MiB.
    const PAGE: usize = 64 << 10;
    let mapped = bytes.next_multiple_of(PAGE);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a mapping of its own, where the kernel likes; what lies before the first huge page
    // and behind the last byte goes back at once, in whole pages, and nobody has seen it.
    unsafe {
        let base = libc::mmap(std::ptr::null_mut(), mapped + HUGE, protection, flags, -1, 0);
        if base == libc::MAP_FAILED {
            handle_alloc_error(Layout::from_size_align_unchecked(bytes, 1));
        }
        let base = base.cast::<u8>();
        let skip = base.align_offset(HUGE);
        let values = base.add(skip);
        if skip > 0 {
            libc::munmap(base.cast(), skip);
        }
        libc::munmap(values.add(mapped).cast(), HUGE - skip);
        libc::madvise(values.cast(), mapped / HUGE * HUGE, libc::MADV_HUGEPAGE);
        (NonNull::new_unchecked(values), mapped)
    }
}

impl<T> Deref for Slab<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: allocated and zeroed, and zeros are values.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for Slab<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.values.as_ptr(), self.length) }
    }
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        let values = self.values.as_ptr().cast::<u8>();
        match self.memory {
            // SAFETY: allocated with this layout; values need no drop.
            Memory::Heap(layout) => unsafe { dealloc(values, layout) },
            #[cfg(all(target_os = "linux", not(miri)))]
            // SAFETY: mapped for this slab alone, as long.
            Memory::Mapped(bytes) => unsafe {
                libc::munmap(values.cast(), bytes);
            },
        }
    }
}

/// Asks for the cache line at `pointer` ahead of its use. Any address will do.
#[inline(always)]
pub(crate) fn prefetch<T>(pointer: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which faults on no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(pointer.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_of_every_size_are_zero_and_keep_what_is_written() {
        for length in [1, 1000, HUGE / 4 - 1, HUGE / 4, HUGE / 4 + 1, HUGE] {
            let mut slab = Slab::<f32>::new(length);
            assert_eq!(slab.len(), length);
            // Miri would take minutes for every value.
            let every = if cfg!(miri) { (length / 100).max(1) } else { 1 };
            assert!(slab.iter().step_by(every).all(|&value| value == 0.0));
            slab[length - 1] = 1.0;
            // SAFETY: nobody else has the slab.
            unsafe { slab.part(0..1)[0] += 2.0 };
            assert_eq!(slab[0], if length == 1 { 3.0 } else { 2.0 });
            if cfg!(all(target_os = "linux", not(miri))) && length >= HUGE / 4 {
                assert_eq!(slab.as_ptr().align_offset(HUGE), 0);
            }
        }
    }

    #[test]
    #[should_panic(expected = "out of the slab")]
    fn parts_stay_within() {
        let slab = Slab::<f32>::new(4);
        // SAFETY: nobody else has the slab.
        unsafe { slab.part(3..5)[0] = 1.0 };
    }
}
