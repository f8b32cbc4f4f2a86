//! How the rows of an event's ids become one: the weights of their sum, or the greatest of them.

use crate::kernel::product::add_scaled;
use crate::model::feature::{Feature, Pool};
use millrace_events::Column;

/// The weights of `entries` items of a history, oldest first, which add up to 1.
#[expect(clippy::cast_precision_loss, reason = "histories are short")]
pub(super) fn of_history(entries: usize, half_life: Option<f32>) -> impl Iterator<Item = f32> {
    let weight = move |age: usize| match half_life {
        Some(half_life) => (-(age as f32) / half_life).exp2(),
        None => 1.0,
    };
    let sum: f32 = (0..entries).map(weight).sum();
    (0..entries).rev().map(move |age| weight(age) / sum)
}

/// The column of a feature that pools given ids, with the weights that its sum takes.
pub(super) fn weighed(column: &Column, feature: &Feature) -> Column {
    let mut out = column.clone();
    if feature.half_life.is_some() {
        for event in 0..out.ends.len() {
            let values = &mut out.values[column.range(event)];
            let weights = of_history(values.len(), feature.half_life);
            values.iter_mut().zip(weights).for_each(|(value, weight)| *value = weight);
        }
    }
    match feature.pool {
        Pool::Sum | Pool::Attention => {}
        Pool::Mean => {
            for event in 0..out.ends.len() {
                let values = &mut out.values[column.range(event)];
                let sum: f32 = values.iter().map(|weight| weight.abs()).sum();
                if sum > 0.0 {
                    values.iter_mut().for_each(|weight| *weight /= sum);
                }
            }
        }
        Pool::Max => return each_once(column),
    }
    out
}

/// Each id once an event, so that the gradient of the greatest goes to its row once.
fn each_once(column: &Column) -> Column {
    let mut out = Column::default();
    for event in 0..column.ends.len() {
        let ids = &column.ids[column.range(event)];
        for (place, id) in ids.iter().enumerate() {
            if !ids[..place].contains(id) {
                out.ids.push(*id);
                out.values.push(1.0);
            }
        }
        out.end();
    }
    out
}

/// Adds one more `row` of an event to what `out` holds of the rows before it: so many.
pub(super) fn take_in(pool: Pool, before: usize, weight: f32, row: &[f32], out: &mut [f32]) {
    match pool {
        Pool::Sum | Pool::Mean => add_scaled(out, weight, row),
        Pool::Attention => unreachable!("attention takes the rows of an event together"),
        Pool::Max if before == 0 => out.copy_from_slice(row),
        Pool::Max => out.iter_mut().zip(row).for_each(|(out, &value)| *out = out.max(value)),
    }
}

/// Adds to a row's `gradient` that of the pooled vector, where the row is the greatest: `pooled` is
/// what came of all, `row` what the row held then.
pub(super) fn give_back(gradient: &mut [f32], of_pooled: &[f32], pooled: &[f32], row: &[f32]) {
    let values = gradient.iter_mut().zip(of_pooled).zip(pooled.iter().zip(row));
    for ((gradient, of_pooled), (pooled, value)) in values {
        if pooled == value {
            *gradient += of_pooled;
        }
    }
}
