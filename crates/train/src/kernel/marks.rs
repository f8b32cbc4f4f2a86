//! Sets of places in an array, a bit each.

use std::ops::Range;

/// Places of a word.
const BITS: usize = u64::BITS as usize;

/// A set of places. Grows with the highest of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    words: Vec<u64>,
}

impl Marks {
    /// Takes `place` in; whether it is new.
    #[inline]
    pub(crate) fn insert(&mut self, place: usize) -> bool {
        let (word, bit) = (place / BITS, 1 << (place % BITS));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// Takes in the places of `other`, each `shift` places further, a multiple of 64.
    pub(crate) fn add(&mut self, other: &Self, shift: usize) {
        let first = shift / BITS;
        if self.words.len() < first + other.words.len() {
            self.words.resize(first + other.words.len(), 0);
        }
        for (word, other) in self.words[first..].iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// Takes all places out, and gives them.
    pub(crate) fn take(&mut self) -> Self {
        let empty = Self { words: vec![0; self.words.len()] };
        std::mem::replace(self, empty)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Those within `places`, ascending; `places` begins at a multiple of 64.
    pub(crate) fn within(&self, places: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        debug_assert!(places.start.is_multiple_of(BITS), "a word's beginning");
        let first = (places.start / BITS).min(self.words.len());
        let last = places.end.div_ceil(BITS).clamp(first, self.words.len());
        let words = self.words[first..last].iter().enumerate();
        let all = words
            .flat_map(move |(at, &word)| ones(word).map(move |bit| places.start + at * BITS + bit));
        all.take_while(move |&place| place < places.end)
    }
}

/// The places of a word's ones, ascending.
fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        (word != 0).then(|| {
            word &= word - 1;
            bit as usize
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use millrace_events::SplitMix;

    #[test]
    fn marks_are_a_set() {
        let mut random = SplitMix::new(6);
        let (mut marks, mut want) = (Marks::default(), BTreeSet::new());
        for _ in 0..500 {
            let place = (random.next_u64() % 1000) as usize;
            assert_eq!(marks.insert(place), want.insert(place));
        }
        assert_eq!(marks.len(), want.len());
        for range in [0..1000, 64..65, 128..500, 960..5000, 2048..2100, 64..64] {
            let found: Vec<usize> = marks.within(range.clone()).collect();
            assert_eq!(found, want.range(range).copied().collect::<Vec<_>>());
        }
        let mut more = Marks::default();
        more.add(&marks, 128);
        more.insert(3);
        let mut shifted: Vec<usize> = want.iter().map(|place| place + 128).collect();
        shifted.insert(0, 3);
        assert_eq!(more.within(0..5000).collect::<Vec<_>>(), shifted);
        assert_eq!(marks.take().len(), want.len());
        assert_eq!(marks.len(), 0);
    }
}
