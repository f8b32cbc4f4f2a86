//! What a step looks up.

use crate::memory::window::Traffic;
use crate::model::Model;
use crate::model::encoder::Encoded;
use crate::objective::distinct::Distinct;
use crate::objective::negatives::DrawnItems;
use millrace_events::Batch;

/// Both sides' ids, ready to be looked up; the item side has the traffic's distinct items and the
/// drawn ones behind them. Which ids a feature with dropout loses is a function of `seed`; those
/// that are not admitted yet are unknown.
pub(super) fn encode(
    model: &Model,
    batch: &Batch,
    before: &[Vec<u64>],
    traffic: &Traffic<'_>,
    distinct: &Distinct,
    drawn: &DrawnItems,
    seed: u64,
) -> (Encoded, Encoded) {
    let Model { encoder, statistics, tables, .. } = model;
    let mut query = encoder.query.encode(&batch.events.query, batch.len(), before, statistics);
    let columns = drawn.behind(distinct.columns(&traffic.columns));
    let items = distinct.events.len() + drawn.ids.len();
    let mut item = encoder.item.encode(&columns, items, &[], statistics);
    encoder.query.drop_ids(&mut query, seed);
    encoder.item.drop_ids(&mut item, !seed);
    encoder.query.leave_out(&mut query, tables);
    encoder.item.leave_out(&mut item, tables);
    (query, item)
}
