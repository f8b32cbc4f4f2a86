//! Bytes of a saved state, read from the front.

use crate::saved::Damaged;

/// Takes `N` bytes off the front of `bytes`.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Damaged> {
    let (head, rest) = bytes.split_first_chunk().ok_or("section ends too early: truncated")?;
    *bytes = rest;
    Ok(*head)
}
