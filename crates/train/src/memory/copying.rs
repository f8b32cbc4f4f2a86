//! A map of shared values as it was at one step, copied over the steps that follow.
//!
//! Owns the copy while it grows, and what has changed or gone since. A pointer costs a cache miss
//! or two, so a million of them in one piece would hold a step up for a quarter of a second.

use std::sync::Arc;

use crate::kernel::id_map::IdMap;

/// Pointers to copy for each step, over all maps: some 2 ms.
pub(crate) const CAPTURE_POINTERS_A_STEP: usize = 8192;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Copying<V> {
    /// The keys at the beginning.
    keys: Vec<u64>,
    /// Values that have changed or gone since, as they were.
    kept: IdMap<Arc<V>>,
    /// Of the first keys, in their order.
    values: Vec<Arc<V>>,
}

impl<V> Copying<V> {
    /// Begins to copy a map of these keys.
    pub(crate) fn new(keys: Vec<u64>) -> Self {
        let values = Vec::with_capacity(keys.len());
        Self { keys, kept: IdMap::default(), values }
    }

    /// Keeps the value of `key`, which is about to change or to go.
    pub(crate) fn keep(&mut self, key: u64, value: &Arc<V>) {
        // The first time counts: what comes later is not as it was.
        self.kept.entry(key).or_insert_with(|| Arc::clone(value));
    }

    /// Copies up to `pointers` more, of the map as `get` reads it. True once all are copied.
    ///
    /// # Panics
    /// If `get` has no value for a key that was there and was not kept.
    pub(crate) fn advance(
        &mut self,
        pointers: &mut usize,
        get: impl Fn(u64) -> Option<Arc<V>>,
    ) -> bool {
        let more = &self.keys[self.values.len()..];
        let more = &more[..more.len().min(*pointers)];
        *pointers -= more.len();
        let kept = &self.kept;
        let value = |key: &u64| kept.get(key).cloned().or_else(|| get(*key));
        self.values.extend(more.iter().map(|key| value(key).expect("what goes is kept")));
        self.values.len() == self.keys.len()
    }

    /// The keys, and the value of each.
    ///
    /// # Panics
    /// If they are not all copied.
    pub(crate) fn finish(self) -> (Vec<u64>, Vec<Arc<V>>) {
        assert!(self.values.len() == self.keys.len(), "all are copied");
        (self.keys, self.values)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use millrace_events::SplitMix;

    #[test]
    fn a_copy_is_the_map_as_it_was() {
        let mut random = SplitMix::new(4);
        let mut map: BTreeMap<u64, Arc<u64>> = (0..100).map(|key| (key, Arc::new(key))).collect();
        let want = map.clone();
        let mut copying = Copying::new(map.keys().copied().collect());
        let mut turns = 0;
        while !copying.advance(&mut 7, |key| map.get(&key).cloned()) {
            turns += 1;
            // Some change, some go, some of these come back, and new ones come.
            for _ in 0..20 {
                let key = random.next_u64() % 120;
                if let Some(value) = map.get(&key) {
                    copying.keep(key, value);
                }
                match random.next_u64() % 3 {
                    0 => drop(map.remove(&key)),
                    _ => drop(map.insert(key, Arc::new(random.next_u64()))),
                }
            }
        }
        assert_eq!(turns, 14);
        assert_ne!(map, want);
        let (keys, values) = copying.finish();
        assert_eq!(keys.into_iter().zip(values).collect::<BTreeMap<_, _>>(), want);
    }

    #[test]
    fn the_step_share_goes_from_map_to_map() {
        let get = |key| Some(Arc::new(key));
        let (mut one, mut two) = (Copying::new((0..5).collect()), Copying::new((0..5).collect()));
        let mut pointers = 8;
        assert!(one.advance(&mut pointers, get) && !two.advance(&mut pointers, get));
        assert_eq!((pointers, two.values.len()), (0, 3));
        assert!(two.advance(&mut 2, get));
        assert!(
            Copying::<u64>::new(Vec::new()).advance(&mut 0, |_| None),
            "nothing is all there is"
        );
    }
}
