//! The vectors of an index in full, for what is computed again.
//!
//! Few are kept as they came. Of many, in lists, the codes have eight bits of each value already:
//! 16 more, of what the codes lack, make 24, as many as an `f32` has, in half its memory.

use rayon::prelude::*;

use crate::codes::Blocks;
use crate::kernel::LANES;

/// Largest rest. Codes are off by half of what one is worth at most.
const REST_MAX: f32 = 32_767.0;

/// Vectors in pieces of equally many; the last one may have fewer.
#[derive(Clone, Copy)]
pub(crate) struct Pieces<'a> {
    /// `[rows, dim]` each.
    pieces: &'a [Vec<f32>],
    dim: usize,
    /// Rows of each piece but the last.
    rows: usize,
    count: usize,
}

impl<'a> Pieces<'a> {
    /// # Panics
    /// If a piece that is not the last has another length than the first.
    pub(crate) fn new(pieces: &'a [Vec<f32>], dim: usize) -> Self {
        let values = pieces.first().map_or(0, Vec::len);
        let (rest, last) = pieces.split_last().map_or((&[][..], 0), |(l, r)| (r, l.len()));
        let whole = rest.iter().all(|piece| piece.len() == values);
        assert!(whole && last <= values && values.is_multiple_of(dim), "pieces of whole rows");
        let rows = (values / dim).max(1);
        Self { pieces, dim, rows, count: rest.len() * rows + last / dim }
    }

    pub(crate) fn len(self) -> usize {
        self.count
    }

    /// Vector `at`, `[dim]`.
    pub(crate) fn row(self, at: usize) -> &'a [f32] {
        row_of(self.pieces, (self.rows, self.dim), at)
    }

    /// All of them, in their order.
    pub(crate) fn iter(self) -> impl Iterator<Item = &'a [f32]> {
        self.pieces.iter().flat_map(move |piece| piece.chunks_exact(self.dim))
    }
}

/// Row `at` of pieces of `rows` rows each, `[dim]`.
fn row_of<T>(pieces: &[impl AsRef<[T]>], (rows, dim): (usize, usize), at: usize) -> &[T] {
    &pieces[at / rows].as_ref()[at % rows * dim..][..dim]
}

/// See the module's head.
pub(crate) enum Full {
    /// As they came, so many in a piece.
    Floats { pieces: Vec<Vec<f32>>, rows: usize },
    /// What codes lack.
    Rests(Rests),
}

/// What the codes of each vector lack, by its number.
pub(crate) struct Rests {
    /// `[rows, dim]` each, in shares of the scale of the row's codes.
    pieces: Vec<Box<[i16]>>,
    rows: usize,
    /// `[blocks]`, whose mean a block's codes are off.
    list_of: Vec<u32>,
}

/// What the codes of a list are off.
pub(crate) struct Coded<'a> {
    pub(crate) blocks: &'a Blocks,
    /// Where each vector lies in the blocks.
    pub(crate) positions: &'a [u32],
    /// `[lists, dim]`
    pub(crate) means: &'a [f32],
}

impl Full {
    /// `vectors` as they are, in pieces.
    pub(crate) fn as_floats(vectors: Vec<Vec<f32>>, dim: usize) -> Self {
        let rows = Pieces::new(&vectors, dim).rows;
        Self::Floats { pieces: vectors, rows }
    }

    /// Of `vectors`, in pieces of which each goes as soon as its rests are there. On the current
    /// rayon pool.
    pub(crate) fn in_rests(
        vectors: Vec<Vec<f32>>,
        dim: usize,
        coded: &Coded<'_>,
        list_of: Vec<u32>,
    ) -> Self {
        let rows = Pieces::new(&vectors, dim).rows;
        let pieces = vectors.into_par_iter().enumerate().map(|(piece, vectors)| {
            let (mut codes, mut rests) = (vec![0.0; dim], Vec::with_capacity(vectors.len()));
            for (number, vector) in (piece * rows..).zip(vectors.chunks_exact(dim)) {
                let (mean, scale) = coded.decode(number, &list_of, &mut codes);
                // Without a scale the codes say nothing, and what they lack is below 1e-38.
                let unit = if scale > 0.0 { 2.0 * REST_MAX / scale } else { 0.0 };
                let lacking = vector.iter().zip(mean).zip(&codes);
                rests.extend(lacking.map(|((x, mean), code)| {
                    ((x - mean - code * scale) * unit).round() as i16 // saturates
                }));
            }
            rests.into()
        });
        Self::Rests(Rests { pieces: pieces.collect(), rows, list_of })
    }

    /// Makes `out` vector `number`, `[dim]`.
    pub(crate) fn vector(&self, number: usize, coded: &Coded<'_>, out: &mut [f32]) {
        match self {
            Self::Floats { pieces, rows } => {
                out.copy_from_slice(row_of(pieces, (*rows, out.len()), number));
            }
            Self::Rests(rests) => {
                let (mean, scale) = coded.decode(number, &rests.list_of, out);
                let lacks = row_of(&rests.pieces, (rests.rows, out.len()), number);
                for ((x, mean), &rest) in out.iter_mut().zip(mean).zip(lacks) {
                    *x = mean + (*x + f32::from(rest) / (2.0 * REST_MAX)) * scale;
                }
            }
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Floats { pieces, .. } => pieces.iter().map(|piece| size_of_val(&**piece)).sum(),
            Self::Rests(Rests { pieces, list_of, .. }) => {
                let pieces = pieces.iter().map(|piece| size_of_val(&**piece)).sum::<usize>();
                pieces + size_of_val(&**list_of)
            }
        }
    }
}

impl<'a> Coded<'a> {
    /// Makes `codes` those of vector `number`; the mean of its list, and what a code is worth.
    fn decode(&self, number: usize, list_of: &[u32], codes: &mut [f32]) -> (&'a [f32], f32) {
        let position = self.positions[number] as usize;
        let (block, lane) = (position / LANES, position % LANES);
        let scale = self.blocks.decode((block, lane), codes);
        (&self.means[list_of[block] as usize * codes.len()..][..codes.len()], scale)
    }
}
