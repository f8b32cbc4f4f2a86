//! Which events made a step fail.

use millrace_events::Batch;

use super::distinct::Distinct;
use crate::kernel::matrix::{Matrix, PerTower};
use crate::memory::window::Traffic;

/// The events of a step without a finite loss that can be to blame: their query, their item or
/// their reward is not finite. Others share the loss with them, and are as good as before.
pub(crate) fn to_blame(
    batch: &Batch,
    traffic: &Traffic<'_>,
    distinct: &Distinct,
    vectors: &PerTower<Matrix<'_>>,
    dim: usize,
) -> Vec<bool> {
    let bad = |rows: Matrix<'_>, count: usize| -> Vec<bool> {
        let rows = rows.read(count, dim); // [count, dim]
        rows.chunks_exact(dim).map(|row| !row.iter().all(|value| value.is_finite())).collect()
    };
    let queries = bad(vectors.query, batch.len());
    let items = bad(vectors.item, distinct.events.len());
    let blame = |event: usize| {
        let own = || queries[event] || !batch.events.rewards[event].is_finite();
        items[distinct.places[event] as usize] || event < batch.len() && own()
    };
    (0..traffic.len()).map(blame).collect()
}
