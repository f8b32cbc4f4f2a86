//! What a step looks up.

use crate::memory::window::Traffic;
use crate::model::Model;
use crate::model::encoder::Encoded;
use crate::objective::distinct::Distinct;
use crate::objective::negatives::DrawnItems;
use millrace_events::Batch;

/// Both sides' ids, ready to be looked up; the item side has the traffic's distinct items and the
/// drawn ones behind them.
pub(super) fn encode(
    model: &Model,
    batch: &Batch,
    before: &[Vec<u64>],
    traffic: &Traffic<'_>,
    distinct: &Distinct,
    drawn: &DrawnItems,
) -> (Encoded, Encoded) {
    let Model { encoder, statistics, .. } = model;
    let query = encoder.query.encode(&batch.events.query, batch.len(), before, statistics);
    let columns = drawn.behind(distinct.columns(&traffic.columns));
    let items = distinct.events.len() + drawn.ids.len();
    (query, encoder.item.encode(&columns, items, &[], statistics))
}
