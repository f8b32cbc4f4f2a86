//! A history pooled by what its items have to do with the last one: dot-product attention whose
//! query is the last item's row (Vaswani et al. 2017, equation 1; no matrices of its own).
//!
//! Item i of rows `e` has the share `a_i = w_i exp(s_i) / sum_j w_j exp(s_j)` with `s_i = <e_i,
//! e_last> / sqrt(dim)` and the weight `w_i` that it would have in a mean. Young rows are near 0,
//! so a history begins as that mean.

use crate::kernel::product::{add_scaled, dot};

/// What gathering one event needs; used again.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[dim]`, of an id that has no row.
    pub(super) new_row: Vec<f32>,
    pub(super) attention: Attention,
}

/// Rows of one event, and what their shares are computed in; used again.
#[derive(Default)]
pub(super) struct Attention {
    /// `[items, dim]`, oldest first.
    pub(super) rows: Vec<f32>,
    shares: Vec<f32>,
}

impl Attention {
    /// Adds to `out`, `[dim]`, the sum of the rows by their shares. `weights` are those of a mean.
    pub(super) fn pool(&mut self, weights: &[f32], out: &mut [f32]) {
        self.attend(weights, out.len());
        for (row, share) in self.rows.chunks_exact(out.len()).zip(&self.shares) {
            add_scaled(out, *share, row);
        }
    }

    /// Makes `gradients`, `[items, dim]`, those of the rows, from that of the `pooled` row.
    ///
    /// With `c_i = a_i (<g, e_i> - <g, pooled>) / sqrt(dim)` a row's is `a_i g + c_i e_last`, and
    /// the last one's `sum_j c_j e_j` besides.
    pub(super) fn give_back(
        &mut self,
        weights: &[f32],
        of_pooled: &[f32],
        pooled: &[f32],
        gradients: &mut [f32],
    ) {
        let dim = pooled.len();
        self.attend(weights, dim);
        gradients.fill(0.0);
        let at_last = gradients.len() - dim;
        let last = &self.rows[at_last..];
        let mean = dot::<8>(of_pooled, pooled);
        for (place, (row, &share)) in self.rows.chunks_exact(dim).zip(&self.shares).enumerate() {
            let slope = share * (dot::<8>(of_pooled, row) - mean) * scale(dim);
            let own = &mut gradients[place * dim..][..dim];
            add_scaled(own, share, of_pooled);
            add_scaled(own, slope, last);
            add_scaled(&mut gradients[at_last..], slope, row);
        }
    }

    fn attend(&mut self, weights: &[f32], dim: usize) {
        let Self { rows, shares } = self;
        let last = &rows[rows.len() - dim..];
        shares.clear();
        shares.extend(rows.chunks_exact(dim).map(|row| dot::<8>(row, last) * scale(dim)));
        let greatest = shares.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weighted = shares.iter_mut().zip(weights);
        let sum: f32 = weighted
            .map(|(share, weight)| {
                *share = weight * (*share - greatest).exp();
                *share
            })
            .sum();
        shares.iter_mut().for_each(|share| *share /= sum);
    }
}

#[expect(clippy::cast_precision_loss, reason = "widths are small")]
fn scale(dim: usize) -> f32 {
    (dim as f32).sqrt().recip()
}
