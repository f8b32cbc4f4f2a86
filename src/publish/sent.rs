//! What the topic holds of each item, so that only what has moved is sent again.
//!
//! Must never know: a record.

use millrace_train::ItemSide;

use super::format::{bf16, of_bf16};

/// The vectors that were sent last, to 8 bits of mantissa, and hashes of the attributes: 16 + 2
/// `dim` bytes an item, and no more items than the corpus holds. It lasts as long as the session: a
/// restart sends all once more.
pub(super) struct Sent {
    /// Ascending.
    keys: Vec<u64>,
    /// `[keys, dim]`
    rows: Vec<u16>,
    /// `[keys]`: see [`hashes`](super::attributes::hashes).
    said: Vec<u64>,
    dim: usize,
    /// Versions since one sent all.
    versions: u64,
}

/// An angle that rounding to 8 bits of mantissa cannot exceed, in radians: each coordinate moves by
/// at most so much of itself.
const ROUNDING: f32 = 1.0 / 256.0;

impl Sent {
    /// After a version that sent all of `items`, of which so much is `said`.
    pub(super) fn all(items: &ItemSide, said: Vec<u64>) -> Sent {
        let rows = items.vectors.iter().flatten().map(|&value| bf16(value)).collect();
        Sent { keys: items.keys.clone(), rows, said, dim: items.dim, versions: 1 }
    }

    /// Whether the next version may send less than all, if all are sent every so many versions.
    pub(super) fn serves(&self, items: &ItemSide, full_every: u64) -> bool {
        self.versions < full_every && self.dim == items.dim
    }

    /// Which of `items` are new, or lie further than `moved_min` from what was sent of them, by
    /// cosine distance: all others are within it. One of which something else is `said` has moved,
    /// too.
    pub(super) fn moved(&self, items: &ItemSide, said: &[u64], moved_min: f32) -> Vec<bool> {
        // A distance that rounding may have shortened does not count as short.
        let nearest = ((1.0 - moved_min).clamp(-1.0, 1.0).acos() - ROUNDING).max(0.0).cos();
        let mut at = 0;
        let mut moved = Vec::with_capacity(items.len());
        for (number, key) in items.keys.iter().enumerate() {
            at += self.keys[at..].partition_point(|sent| sent < key).min(self.keys.len() - at);
            let known = self.keys.get(at) == Some(key);
            moved.push(
                !known
                    || self.said.get(at) != said.get(number)
                    || self.cosine(at, items.vector(number)) <= nearest,
            );
        }
        moved
    }

    /// The cosine of `vector`, of length 1, and the row at `at`.
    fn cosine(&self, at: usize, vector: &[f32]) -> f32 {
        let row = self.rows[at * self.dim..][..self.dim].iter().map(|&half| of_bf16(half));
        let (dot, square) = row.zip(vector).fold((0.0, 0.0), |(dot, square), (sent, value)| {
            (dot + sent * value, square + sent * sent)
        });
        dot / f32::sqrt(square).max(f32::MIN_POSITIVE)
    }

    /// After a version that sent those of `items` that had `moved`, of which so much is `said`.
    pub(super) fn after(&self, items: &ItemSide, said: Vec<u64>, moved: &[bool]) -> Sent {
        let mut rows = Vec::with_capacity(items.len() * self.dim);
        for (number, key) in items.keys.iter().enumerate() {
            if moved[number] {
                rows.extend(items.vector(number).iter().map(|&value| bf16(value)));
            } else {
                let at = self.keys.binary_search(key).expect("what is not new was sent");
                rows.extend_from_slice(&self.rows[at * self.dim..][..self.dim]);
            }
        }
        let (keys, dim) = (items.keys.clone(), self.dim);
        Sent { keys, rows, said, dim, versions: self.versions + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_events::{Names, SplitMix};

    fn items(vectors: &[(u64, [f32; 2])]) -> ItemSide {
        ItemSide {
            keys: vectors.iter().map(|(key, _)| *key).collect(),
            names: Names::default(),
            vectors: vec![vectors.iter().flat_map(|(_, vector)| *vector).collect()],
            log_q: vec![0.0; vectors.len()],
            dim: 2,
            temperature: 1.0,
            gone: Vec::new(),
            rowless: Vec::new(),
            attributes: Vec::new(),
        }
    }

    fn at(angle: f32) -> [f32; 2] {
        [angle.cos(), angle.sin()]
    }

    #[test]
    fn what_is_kept_is_within_the_bound_of_what_was_sent_whatever_the_rounding() {
        let mut random = SplitMix::new(5);
        let moved_min = 1e-3;
        // Each key's vector as a reader holds it.
        let mut held: Vec<(u64, f32)> = (0..200).map(|key| (key, random.uniform(3.0))).collect();
        let mut now = held.clone();
        let mut sent = Sent::all(&items(&vectors(&held)), Vec::new());
        let mut kept = 0;
        for _ in 0..50 {
            now.iter_mut().for_each(|(_, angle)| *angle += random.uniform(0.03));
            let items = items(&vectors(&now));
            let moved = sent.moved(&items, &[], moved_min);
            sent = sent.after(&items, Vec::new(), &moved);
            for ((held, now), moved) in held.iter_mut().zip(&now).zip(moved) {
                if moved {
                    *held = *now;
                }
                let distance = 1.0 - (f64::from(held.1) - f64::from(now.1)).cos();
                assert!(distance <= f64::from(moved_min), "{distance}");
                kept += usize::from(!moved);
            }
        }
        assert!((2_000..9_000).contains(&kept), "{kept} of 10,000 were not sent again");
    }

    fn vectors(angles: &[(u64, f32)]) -> Vec<(u64, [f32; 2])> {
        angles.iter().map(|&(key, angle)| (key, at(angle))).collect()
    }

    #[test]
    fn new_items_are_sent_and_those_that_went_are_forgotten() {
        let first = items(&vectors(&[(1, 0.0), (3, 1.0), (5, 2.0)]));
        let sent = Sent::all(&first, Vec::new());
        assert!(sent.serves(&first, 2) && !sent.serves(&first, 1));
        let second = items(&vectors(&[(0, 0.0), (1, 0.0), (5, 0.5), (9, 1.0)]));
        let moved = sent.moved(&second, &[], 1e-3);
        assert_eq!(moved, [true, false, true, true]);
        let sent = sent.after(&second, Vec::new(), &moved);
        assert!(!sent.serves(&second, 2), "the second of two sends all");
        // 3 is back.
        let third = items(&vectors(&[(1, 0.0), (3, 1.0), (5, 0.5)]));
        assert_eq!(sent.moved(&third, &[], 1e-3), [false, true, false]);
        let sent = Sent::all(&third, vec![7, 8, 9]);
        assert_eq!(sent.moved(&third, &[7, 8, 9], 0.0), [true; 3], "a bound of 0 keeps nothing");
        let moved = sent.moved(&third, &[7, 0, 9], 1e-3);
        assert_eq!(moved, [false, true, false], "what is said of 3 is new");
    }
}
