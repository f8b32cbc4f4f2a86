//! How often each item comes in a batch, learned from the gaps between its appearances
//! (paper section 4, Algorithms 2 and 3): the `log q` that corrects the in-batch softmax.
//!
//! Owns one fixed-size array of slots (or, in exact mode, a bounded map) that is a function of
//! the updates made so far, and nothing else.
//!
//! Must never know: the model, the loss that uses `log q`, configuration files, the clock (time is
//! the step).
//!
//! # What the estimate is worth
//! With gaps of mean `d` and variance `s²`, a moving average of rate `a` that starts at `d0` has,
//! after `t` *hits of its slot* (not steps):
//! - bias `(1 - a)^t (d0 - d)`,
//! - variance `a / (2 - a) · (1 - (1 - a)^(2t)) · s²`,
//! - mean squared error: variance plus squared bias, at most `(1 - a)^(2t) (d0 - d)² + a s²`.
//!
//! This is Proposition 4.1 corrected. As printed, the bias (7) is `(1-a)^t d0 - (1-a)^(t-1) d`,
//! the bound (8) has `E(Δ1 - a)²` for `E(Δ1 - d)²`, the proof has exponent `2t - 2` for `2t`, and
//! the "ideal initialization" is `d / (1 - a)`; it is `d0 = d`. Gaps of an item that comes with
//! probability p are geometric, `s² = d² (1 - p)`, so at `a = 0.01` the noise of `log q` settles at
//! 7 %, and `E[1/B]` is high by `a / (2 - a) (1 - p)`, half a percent.
//!
//! At `a = 0.01` an initial gap takes 69 hits to fade by half, which a rare item never has. The
//! default mode therefore averages the first `1 / a` gaps evenly; [`Mode::Paper`] does not.

mod slot;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::embedding::{IdMap, take};
use slot::Slot;

/// Most hash functions. Each costs a cache miss per id; past a handful they gain nothing.
const HASHES_MAX: usize = 16;

/// A full exact map drops this share of its ids at once, so that the scan for the oldest is paid
/// once per `exact_ids_max / 16` new ids. Larger shares forget ids too early.
const SWEEP_SHARE: usize = 16;

const MAGIC: [u8; 4] = *b"MRFQ";
const VERSION: u32 = 1;

/// Which rules an update follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A step updates each slot once, so a gap is at least 1; the first hit only sets the last
    /// step (and the count); the rate is `max(alpha, 1 / hits)`; items absent from the batch are
    /// read with their open gap.
    Default,
    /// Algorithms 2 and 3 to the letter, for comparison: every slot starts with last step 0, every
    /// occurrence in a batch updates it (the second copy has gap 0), and `p = 1 / max B` is the
    /// only reading. Departs only where `B` would divide by zero.
    Paper,
}

/// What a number read from the estimator stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Copies of the item in a batch, `C / B`; may exceed 1. Right when duplicates stay in the
    /// softmax.
    ExpectedCount,
    /// Probability that the item is in a batch, `1 / B`. Right when duplicates are merged.
    Probability,
}

/// What a [`Frequency`] is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct FrequencySettings {
    /// The rules of an update.
    pub mode: Mode,
    /// One slot per id instead of per bucket: no collisions, `hashes` and `buckets` unused.
    pub exact: bool,
    /// Hash functions, the paper's m; at least 1.
    pub hashes: usize,
    /// Buckets of each hash function, the paper's H. Memory is `16 * hashes * buckets` bytes; for
    /// the same memory 2 to 4 hashes beat 1 (paper, Figure 5).
    pub buckets: usize,
    /// Rate of the moving averages, in (0, 1]. The default mode's hit count saturates at 65,535,
    /// so there a smaller alpha acts as 1/65,535.
    pub alpha: f32,
    /// The paper's B0, in steps: gap of an item until its first gap is known; at least 1.
    pub initial_gap: f32,
    /// Exact mode: ids kept (about 40 bytes each). Past it the longest unseen are dropped, so the
    /// map holds at most this many or, if that is more, the distinct ids of one batch.
    pub exact_ids_max: usize,
    /// Seed of the hash functions.
    pub seed: u64,
}

impl FrequencySettings {
    /// Name and value of each that gives saved slots their meaning, to name the one that differs.
    /// The rate and the exact variant's bound may be retuned between runs.
    fn fields(&self) -> [(&'static str, String); 6] {
        [
            ("mode", format!("{:?}", self.mode)),
            ("exact", self.exact.to_string()),
            ("hashes", self.hashes.to_string()),
            ("buckets", self.buckets.to_string()),
            ("initial_gap", self.initial_gap.to_string()),
            ("seed", self.seed.to_string()),
        ]
    }

    fn check(&self) {
        assert!(self.alpha > 0.0 && self.alpha <= 1.0, "alpha must be in (0, 1]");
        assert!(self.initial_gap >= 1.0 && self.initial_gap.is_finite(), "initial_gap is under 1");
        if self.exact {
            assert!(self.exact_ids_max > 0, "exact_ids_max must be above 0");
        } else {
            assert!((1..=HASHES_MAX).contains(&self.hashes), "hashes must be 1 to {HASHES_MAX}");
            assert!(self.buckets > 0, "buckets must be above 0");
        }
    }
}

enum Slots {
    /// `[hashes, buckets]`; bucket ranges are independent of each other.
    Hashed(Vec<Slot>),
    Exact(IdMap<Slot>),
}

/// The streaming frequency estimator. Call [`update`](Self::update) with a step's batch, then read
/// with [`log_q`](Self::log_q).
///
/// Deterministic: equal update sequences give equal bits. A slot depends only on the occurrences
/// of its own ids in batch order, so slots can be split over threads without changing any.
pub struct Frequency {
    settings: FrequencySettings,
    slots: Slots,
    /// Step of the last update.
    step: u64,
    /// Occurrences in the last update, and those of them that [`collisions`](Self::collisions)
    /// counts.
    occurrences: u64,
    collided: u64,
}

impl Frequency {
    /// An estimator that has seen nothing. Panics on settings that cannot work; the config layer
    /// reports them first.
    pub fn new(settings: FrequencySettings) -> Self {
        settings.check();
        let slots = if settings.exact {
            Slots::Exact(IdMap::default())
        } else {
            let count = settings.hashes.checked_mul(settings.buckets);
            let count = count.expect("hashes * buckets fits the address space");
            Slots::Hashed(vec![Slot::new(settings.initial_gap); count])
        };
        Self { settings, slots, step: 0, occurrences: 0, collided: 0 }
    }

    /// Takes in one step's batch: `ids` are its item ids, duplicates included, in batch order.
    /// Steps start at 1 and must increase; an empty batch is a step too.
    ///
    /// Steps are stored modulo 2^32. A gap of 2^32 steps or more is read modulo 2^32, which in the
    /// default mode makes a gap of exactly a multiple of it look like a copy in the same batch.
    pub fn update(&mut self, step: u64, ids: &[u64]) {
        assert!(step > self.step, "step {step} after {}: steps must increase", self.step);
        self.step = step;
        self.occurrences = ids.len() as u64;
        self.collided = 0;
        match &mut self.slots {
            Slots::Hashed(slots) => {
                self.collided = update_hashed(slots, &self.settings, step, ids);
            }
            Slots::Exact(slots) => {
                update_exact(slots, &self.settings, step, ids);
                sweep(slots, self.settings.exact_ids_max, step);
            }
        }
    }

    /// Natural logarithm of the frequency of each id, for ids of the batch just updated; `out` is
    /// as long as `ids`. Reads the hash with the largest mean gap, since a collision can only
    /// shorten it (equal gaps: the smaller count, for the same reason). An item seen for the first
    /// time has the initial gap. Paper mode reads `1 / B` whatever the `meaning`.
    pub fn log_q(&self, ids: &[u64], meaning: Meaning, out: &mut [f32]) {
        assert_eq!(ids.len(), out.len(), "log_q writes one value per id");
        for (&id, out) in ids.iter().zip(out) {
            let (gap, count) = self.reading(id, |slot| slot.gap);
            *out = match (self.settings.mode, meaning) {
                (Mode::Default, Meaning::ExpectedCount) => (count / gap).ln(),
                (Mode::Default, Meaning::Probability) | (Mode::Paper, _) => -gap.ln(),
            };
        }
    }

    /// Expected copies per batch (not a logarithm) of an item that is not in the batch of `step`,
    /// a uniformly drawn negative for instance. Its gap is still open and already at least as long
    /// as the time since it was seen, or since the start if it never was: `C / max(B, t - A)`. So
    /// an item that died out fades instead of keeping its last estimate. Paper mode: `1 / B`.
    pub fn absent_count(&self, step: u64, id: u64) -> f32 {
        assert!(step >= self.step, "step {step} is before the last update, {}", self.step);
        match self.settings.mode {
            Mode::Default => {
                let (gap, count) = self.reading(id, |slot| slot.gap.max(slot.open_gap(step)));
                count / gap
            }
            Mode::Paper => 1.0 / self.reading(id, |slot| slot.gap).0,
        }
    }

    /// Share of the last batch's occurrences that found *every* one of their buckets last written
    /// by another id, 0 for an empty batch and in exact mode. These are the occurrences that no
    /// hash gave a gap of their own: with one hash it is the share of gaps that a collision cut
    /// short. A share of traffic, not of ids.
    ///
    /// Ids are told apart by 16 bits of their hash, so 1 in 65,536 collisions is missed; an id
    /// that shares its bucket but came twice in a row is not counted, nor need it be, its gap is
    /// right.
    pub fn collisions(&self) -> f64 {
        self.collided as f64 / self.occurrences.max(1) as f64
    }

    /// Appends the whole state to `out`, little-endian: 16 bytes a slot (24 an id in exact mode).
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let s = &self.settings;
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend([u8::from(s.mode == Mode::Paper), u8::from(s.exact)]);
        out.extend(s.alpha.to_le_bytes());
        out.extend(s.initial_gap.to_le_bytes());
        let sizes = [s.hashes, s.buckets, s.exact_ids_max].map(|size| size as u64);
        let numbers = [s.seed, self.step, self.occurrences, self.collided];
        for number in sizes.into_iter().chain(numbers) {
            out.extend(number.to_le_bytes());
        }
        match &self.slots {
            Slots::Hashed(slots) => {
                out.reserve(slots.len() * Slot::BYTES);
                slots.iter().for_each(|slot| out.extend(slot.to_bytes()));
            }
            Slots::Exact(slots) => {
                // By id, so that equal states give equal bytes whatever the map's order.
                let mut slots: Vec<_> = slots.iter().collect();
                slots.sort_unstable_by_key(|(id, _)| **id);
                out.reserve(slots.len() * (8 + Slot::BYTES));
                for (id, slot) in slots {
                    out.extend(id.to_le_bytes());
                    out.extend(slot.to_bytes());
                }
            }
        }
    }

    /// The estimator that [`write_to`](Self::write_to) wrote, bit for bit. Refuses bytes written
    /// with other settings: slots mean nothing under other hashes, and averages of two rules mixed
    /// are wrong without a sign of it.
    pub fn read_from(settings: FrequencySettings, mut bytes: &[u8]) -> Result<Self, String> {
        settings.check();
        let bytes = &mut bytes;
        let (stored, [step, occurrences, collided]) = read_header(bytes)?;
        for ((name, stored), (_, wanted)) in stored.fields().into_iter().zip(settings.fields()) {
            if stored != wanted {
                return Err(format!(
                    "frequency state was written with {name} = {stored}, the settings say {wanted}"
                ));
            }
        }
        let (slot_bytes, count) = if settings.exact {
            (8 + Slot::BYTES, bytes.len() / (8 + Slot::BYTES))
        } else {
            (Slot::BYTES, settings.hashes * settings.buckets)
        };
        if bytes.len() / slot_bytes != count || !bytes.len().is_multiple_of(slot_bytes) {
            return Err(format!("frequency state of {} bytes is damaged", bytes.len()));
        }
        let slots = if settings.exact {
            let mut slots = IdMap::with_capacity_and_hasher(count, Default::default());
            while !bytes.is_empty() {
                slots.insert(u64::from_le_bytes(take(bytes)?), Slot::from_bytes(take(bytes)?));
            }
            Slots::Exact(slots)
        } else {
            Slots::Hashed(bytes.as_chunks().0.iter().map(|raw| Slot::from_bytes(*raw)).collect())
        };
        Ok(Self { settings, slots, step, occurrences, collided })
    }

    /// Gap and count of the slot of `id` with the largest `gap_of`. The gap is above 0: in paper
    /// mode many copies in one batch can drive it to 0, and this is the guard.
    fn reading(&self, id: u64, gap_of: impl Fn(&Slot) -> f32) -> (f32, f32) {
        let read = |slot: &Slot| (gap_of(slot).max(f32::MIN_POSITIVE), slot.count);
        match &self.slots {
            Slots::Hashed(slots) => {
                let readings = (0..self.settings.hashes)
                    .map(|hash| read(&slots[place(&self.settings, hash, id).0]));
                readings
                    .reduce(|best, other| {
                        let longer = other.0 > best.0 || (other.0 == best.0 && other.1 < best.1);
                        if longer { other } else { best }
                    })
                    .expect("there is at least one hash")
            }
            Slots::Exact(slots) => {
                read(slots.get(&id).unwrap_or(&Slot::new(self.settings.initial_gap)))
            }
        }
    }
}

/// Returns how many occurrences found every bucket last written by another id.
fn update_hashed(slots: &mut [Slot], s: &FrequencySettings, step: u64, ids: &[u64]) -> u64 {
    let mut collided = 0;
    let mut repeats = Vec::with_capacity(ids.len());
    for &id in ids {
        let mut cut = true;
        for hash in 0..s.hashes {
            let (place, writer) = place(s, hash, id);
            let slot = &mut slots[place];
            cut &= slot.claim(writer);
            if !slot.hit(s.mode, s.alpha, step) {
                repeats.push(place);
            }
        }
        collided += u64::from(cut);
    }
    for_each_run(repeats, |place, count| slots[place].repeat(s.alpha, count));
    collided
}

fn update_exact(slots: &mut IdMap<Slot>, s: &FrequencySettings, step: u64, ids: &[u64]) {
    let mut repeats = Vec::with_capacity(ids.len());
    for &id in ids {
        let slot = slots.entry(id).or_insert(Slot::new(s.initial_gap));
        if !slot.hit(s.mode, s.alpha, step) {
            repeats.push(id);
        }
    }
    for_each_run(repeats, |id, count| {
        slots.get_mut(&id).expect("hit in this step").repeat(s.alpha, count);
    });
}

/// Calls `each` with every distinct key and how often it occurs. One addition per slot and step
/// instead of one per occurrence: adding 0.01 over and over to a large mean rounds the same way each
/// time (measured 2.3 % low for an item that comes 8,192 times a batch).
fn for_each_run<K: Ord + Copy>(mut keys: Vec<K>, mut each: impl FnMut(K, usize)) {
    keys.sort_unstable();
    keys.chunk_by(|a, b| a == b).for_each(|run| each(run[0], run.len()));
}

/// Slot of `id` under one hash function, and the id's fingerprint there. The bucket comes from the
/// high bits of the hash, the fingerprint from the low ones.
fn place(settings: &FrequencySettings, hash: usize, id: u64) -> (usize, u16) {
    let bits = xxh3_64_with_seed(&id.to_le_bytes(), settings.seed.wrapping_add(hash as u64));
    let bucket = (u128::from(bits) * settings.buckets as u128) >> 64;
    (hash * settings.buckets + bucket as usize, bits as u16)
}

/// Drops the longest unseen ids, ties by id, once there are more than `ids_max`. Ids of the current
/// step stay: they are about to be read.
fn sweep(slots: &mut IdMap<Slot>, ids_max: usize, step: u64) {
    if slots.len() <= ids_max {
        return;
    }
    let excess = slots.len() - (ids_max - ids_max / SWEEP_SHARE);
    // Age, not step: it orders rightly past step 2^32.
    let ages = slots.iter().map(|(&id, slot)| ((step as u32).wrapping_sub(slot.last_step), id));
    let mut oldest: Vec<_> = ages.filter(|&(age, _)| age > 0).collect();
    if excess < oldest.len() {
        oldest.select_nth_unstable_by_key(excess, |&(age, id)| (std::cmp::Reverse(age), id));
        oldest.truncate(excess);
    }
    for (_, id) in oldest {
        slots.remove(&id);
    }
}

/// The settings the bytes were written with; then step, occurrences and collided.
fn read_header(bytes: &mut &[u8]) -> Result<(FrequencySettings, [u64; 3]), String> {
    let (magic, version) = (take::<4>(bytes)?, u32::from_le_bytes(take(bytes)?));
    if magic != MAGIC || version != VERSION {
        return Err(format!("not a frequency state of format {VERSION}"));
    }
    let [paper, exact] = take(bytes)?;
    let (alpha, initial_gap) = (f32::from_le_bytes(take(bytes)?), f32::from_le_bytes(take(bytes)?));
    let mut number = || take(bytes).map(u64::from_le_bytes);
    let settings = FrequencySettings {
        mode: if paper != 0 { Mode::Paper } else { Mode::Default },
        exact: exact != 0,
        alpha,
        initial_gap,
        hashes: number()? as usize,
        buckets: number()? as usize,
        exact_ids_max: number()? as usize,
        seed: number()?,
    };
    Ok((settings, [number()?, number()?, number()?]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings() -> FrequencySettings {
        FrequencySettings {
            mode: Mode::Default,
            exact: false,
            hashes: 1,
            buckets: 1 << 16,
            alpha: 0.01,
            initial_gap: 100.0,
            exact_ids_max: 1000,
            seed: 3,
        }
    }

    fn exact() -> FrequencySettings {
        FrequencySettings { exact: true, ..settings() }
    }

    fn paper() -> FrequencySettings {
        FrequencySettings { mode: Mode::Paper, alpha: 0.5, ..settings() }
    }

    fn one_bucket() -> FrequencySettings {
        FrequencySettings { buckets: 1, ..settings() }
    }

    fn read(frequency: &Frequency, id: u64, meaning: Meaning) -> f32 {
        let mut out = [0.0];
        frequency.log_q(&[id], meaning, &mut out);
        out[0].exp()
    }

    fn count(frequency: &Frequency, id: u64) -> f32 {
        read(frequency, id, Meaning::ExpectedCount)
    }

    fn probability(frequency: &Frequency, id: u64) -> f32 {
        read(frequency, id, Meaning::Probability)
    }

    fn bytes_of(frequency: &Frequency) -> Vec<u8> {
        let mut out = Vec::new();
        frequency.write_to(&mut out);
        out
    }

    #[track_caller]
    fn assert_near(got: f32, want: f32) {
        assert!((got / want - 1.0).abs() < 1e-5, "{got}, expected {want}");
    }

    #[test]
    fn default_mode_by_hand() {
        for settings in [settings(), exact()] {
            let mut f = Frequency::new(settings);
            f.update(10, &[1, 1, 1, 2]);
            // First hits: the initial gap stands, the counts are known.
            assert_near(count(&f, 1), 3.0 / 100.0);
            assert_near(probability(&f, 1), 1.0 / 100.0);
            f.update(14, &[1]);
            // First gap 4 replaces 100; counts 3 and 1 average to 2.
            assert_near(probability(&f, 1), 1.0 / 4.0);
            assert_near(count(&f, 1), 2.0 / 4.0);
            f.update(16, &[1, 1]);
            // Gaps 4 and 2; counts 3, 1 and 2.
            assert_near(probability(&f, 1), 1.0 / 3.0);
            assert_near(count(&f, 1), 2.0 / 3.0);
            // Item 2: last seen at 10; its gap is open.
            assert_near(f.absent_count(16, 2), 1.0 / 100.0);
            assert_near(f.absent_count(310, 2), 1.0 / 300.0);
            // Item 1 dies out.
            assert_near(f.absent_count(18, 1), 2.0 / 3.0);
            assert_near(f.absent_count(416, 1), 2.0 / 400.0);
            // Never seen: at least as rare as the time so far says.
            assert_near(f.absent_count(50, 9), 1.0 / 100.0);
            assert_near(f.absent_count(5000, 9), 1.0 / 5000.0);
        }
    }

    #[test]
    fn alpha_takes_over_from_the_even_mean() {
        let mut f = Frequency::new(FrequencySettings { alpha: 0.5, ..settings() });
        for (step, gap) in [(1, None), (9, Some(8.0)), (11, Some(5.0)), (12, Some(3.0))] {
            f.update(step, &[1]);
            if let Some(gap) = gap {
                assert_near(probability(&f, 1), 1.0 / gap); // 8; (8 + 2) / 2; (5 + 1) / 2
            }
        }
    }

    #[test]
    fn paper_mode_by_hand() {
        let mut f = Frequency::new(paper());
        f.update(4, &[1, 1]);
        // 100 -> (100 + 4) / 2 = 52; the second copy has gap 0: 26.
        assert_near(probability(&f, 1), 1.0 / 26.0);
        f.update(10, &[1]);
        assert_near(probability(&f, 1), 1.0 / 16.0);
        assert_near(count(&f, 1), 1.0 / 16.0);
        assert_near(f.absent_count(1000, 1), 1.0 / 16.0);
        assert_near(f.absent_count(1000, 2), 1.0 / 100.0);
        // 100 halves to nothing: the guard keeps log q finite.
        f.update(11, &[1; 400]);
        let mut out = [0.0];
        f.log_q(&[1], Meaning::Probability, &mut out);
        assert!(out[0].is_finite() && out[0] > 80.0, "{}", out[0]);
    }

    #[test]
    fn copies_in_a_batch_never_shorten_the_gap() {
        let mut f = Frequency::new(settings());
        for step in 1..=500 {
            f.update(step, &[7; 50]);
        }
        assert_eq!(probability(&f, 7), 1.0);
        assert_near(count(&f, 7), 50.0);
    }

    #[test]
    fn many_copies_lose_nothing_to_rounding() {
        let mut f = Frequency::new(settings());
        for step in 1..=1000 {
            f.update(step, &[7; 8192]);
        }
        assert_near(count(&f, 7), 8192.0);
    }

    #[test]
    fn ids_of_one_bucket_are_one_item() {
        let mut f = Frequency::new(one_bucket());
        for step in 1..=300 {
            f.update(step, &[step, step + 1, step + 2, 5]);
        }
        assert_near(count(&f, 1), 4.0);
        assert_near(probability(&f, 2), 1.0);
        assert!(f.collisions() > 0.99);
    }

    #[test]
    fn collisions_are_the_gaps_cut_short() {
        let mut f = Frequency::new(one_bucket());
        f.update(1, &[1]);
        assert_eq!(f.collisions(), 0.0); // an empty bucket
        f.update(2, &[1, 1, 2, 2]);
        assert_eq!(f.collisions(), 0.25); // the first 2 only
        f.update(3, &[1, 2]);
        assert_eq!(f.collisions(), 1.0);
        f.update(4, &[]);
        assert_eq!(f.collisions(), 0.0);
        let mut f = Frequency::new(exact());
        f.update(1, &[1, 2, 3]);
        f.update(2, &[3, 2, 1]);
        assert_eq!(f.collisions(), 0.0);
    }

    #[test]
    fn a_second_hash_reads_past_a_collision() {
        // Find two ids that share their bucket under the first hash but not under the second.
        let s = FrequencySettings { hashes: 2, buckets: 64, ..settings() };
        let bucket = |hash, id| place(&s, hash, id).0;
        let other = (1..10_000)
            .find(|&id| bucket(0, id) == bucket(0, 0) && bucket(1, id) != bucket(1, 0))
            .expect("one in 64 ids");
        let mut f = Frequency::new(s.clone());
        for step in 1..=400 {
            let ids = [0, other];
            f.update(step, &ids[..if step % 20 == 0 { 2 } else { 1 }]);
            assert_eq!(f.collisions(), 0.0);
        }
        assert_near(probability(&f, other), 1.0 / 20.0);
        // Item 0 has gap 1 under both; the smaller count is its own.
        assert_near(count(&f, 0), 1.0);
    }

    #[test]
    fn an_empty_batch_is_a_step() {
        let mut f = Frequency::new(settings());
        f.update(1, &[1]);
        f.update(2, &[]);
        f.update(3, &[1]);
        assert_near(probability(&f, 1), 0.5);
        f.log_q(&[], Meaning::Probability, &mut []);
    }

    #[test]
    #[should_panic(expected = "step 3 after 3")]
    fn a_repeated_step_is_refused() {
        let mut f = Frequency::new(settings());
        f.update(3, &[1]);
        f.update(3, &[1]);
    }

    #[test]
    fn steps_past_two_to_the_32_count_on() {
        let start = (1u64 << 32) - 3;
        for settings in [settings(), exact(), paper()] {
            let mode = settings.mode;
            let mut f = Frequency::new(settings);
            for step in (start..start + 60).step_by(2) {
                f.update(step, &[1]);
            }
            if mode == Mode::Default {
                assert_near(probability(&f, 1), 0.5);
                assert_near(f.absent_count(start + 58 + 500, 1), 1.0 / 500.0);
                assert_near(f.absent_count(start + 58, 2), 1.0 / (start + 58) as f32);
            } else {
                // B = start / 2 at once, then halves towards 2.
                assert!((probability(&f, 1) - 1.0 / 6.0).abs() < 0.02, "{}", probability(&f, 1));
            }
        }
    }

    #[test]
    fn exact_mode_drops_the_longest_unseen_ties_by_id() {
        let mut f = Frequency::new(FrequencySettings { exact_ids_max: 32, ..exact() });
        f.update(1, &(0..32).rev().collect::<Vec<_>>());
        f.update(2, &[0, 5]);
        f.update(3, &[100]);
        let kept = |f: &Frequency, id| match &f.slots {
            Slots::Exact(slots) => slots.contains_key(&id),
            Slots::Hashed(_) => unreachable!("exact mode"),
        };
        // 33 ids shrink to 30: ids 1, 2 and 3 of step 1 go.
        assert!([1, 2, 3].iter().all(|&id| !kept(&f, id)));
        assert!([0, 4, 5, 31, 100].iter().all(|&id| kept(&f, id)));
        // A batch larger than the bound stays whole while it is the newest.
        f.update(4, &(200..250).collect::<Vec<_>>());
        assert!((200..250).all(|id| kept(&f, id)) && !kept(&f, 100));
        f.update(5, &[300]);
        assert!(kept(&f, 300) && !kept(&f, 220) && kept(&f, 221));
    }

    /// splitmix64 as a source of uniform numbers.
    struct Random(u64);

    impl Random {
        fn bits(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = self.0;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        }

        /// Uniform in (0, 1).
        fn uniform(&mut self) -> f64 {
            ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        }
    }

    /// Mean expected count and probability of some items over steps 4,000 to 20,000 of a Zipf(1)
    /// stream, 1,000 items, 128 draws a step with replacement.
    fn zipf(settings: FrequencySettings, items: [u64; 4]) -> [(f32, f32); 4] {
        let mut cumulative: Vec<f64> = (1..=1000).map(|rank| 1.0 / rank as f64).collect();
        for i in 1..cumulative.len() {
            cumulative[i] += cumulative[i - 1];
        }
        let total = cumulative[999];
        let mut random = Random(1);
        let mut f = Frequency::new(settings);
        let mut means = [(0.0, 0.0); 4];
        for step in 1..=20_000 {
            let mut draw = || {
                let u = random.uniform() * total;
                cumulative.partition_point(|&c| c < u) as u64
            };
            let ids: Vec<u64> = (0..128).map(|_| draw()).collect();
            f.update(step, &ids);
            if step > 4000 && step % 16 == 0 {
                for (mean, &id) in means.iter_mut().zip(&items) {
                    mean.0 += count(&f, id) / 1000.0;
                    mean.1 += probability(&f, id) / 1000.0;
                }
            }
        }
        means
    }

    #[test]
    fn zipf_counts_match_theory() {
        let expected = [(17.10, 1.0), (3.42, 0.969), (1.71, 0.821), (0.342, 0.290)];
        let wide = FrequencySettings { buckets: 1 << 22, ..settings() };
        let wide = zipf(wide, [0, 4, 9, 49]);
        let exact = zipf(exact(), [0, 4, 9, 49]);
        for ((wide, exact), want) in wide.iter().zip(exact).zip(expected) {
            assert_eq!(*wide, exact, "wide enough for no collision");
            let error = |got: f32, want: f32| (got / want - 1.0).abs();
            // The rarer the item, the noisier its mean.
            let limit = if want.0 > 1.0 { 0.02 } else { 0.05 };
            assert!(error(exact.0, want.0) < limit, "{exact:?}, expected {want:?}");
            assert!(error(exact.1, want.1) < limit, "{exact:?}, expected {want:?}");
        }
    }

    /// The paper's section 6.1: 1,000 items, `q ∝ i²`, 128 a step without replacement (the 128
    /// smallest of `exponential / weight`, Efraimidis and Spirakis). Returns the error, half the
    /// summed `|p̂ - 128 q|` over 128, after each of `stops`.
    fn simulation<const N: usize>(settings: FrequencySettings, stops: [u64; N]) -> [f64; N] {
        let total: f64 = (0..1000).map(|i| f64::from(i * i)).sum();
        let weights: Vec<f64> = (0..1000).map(|i| f64::from(i * i) / total).collect();
        let all: Vec<u64> = (0..1000).collect();
        let mut random = Random(settings.seed);
        let mut f = Frequency::new(settings);
        let mut log_p = vec![0.0; all.len()];
        let mut step = 0;
        stops.map(|stop| {
            while step < stop {
                step += 1;
                let keyed = |&id: &u64| (-random.uniform().ln() / weights[id as usize], id);
                let mut keys: Vec<(f64, u64)> = all.iter().map(keyed).collect();
                keys.select_nth_unstable_by(128, |a, b| a.0.total_cmp(&b.0));
                let batch: Vec<u64> = keys[..128].iter().map(|key| key.1).collect();
                f.update(step, &batch);
            }
            f.log_q(&all, Meaning::Probability, &mut log_p);
            let errors = log_p.iter().zip(&weights);
            errors.map(|(p, q)| (f64::from(p.exp()) - 128.0 * q).abs()).sum::<f64>() / 256.0
        })
    }

    fn mean_simulation<const N: usize>(
        settings: FrequencySettings,
        seeds: u64,
        stops: [u64; N],
    ) -> [f64; N] {
        let mut mean = [0.0; N];
        for seed in 1..=seeds {
            let errors = simulation(FrequencySettings { seed, ..settings.clone() }, stops);
            mean.iter_mut().zip(errors).for_each(|(mean, error)| *mean += error / seeds as f64);
        }
        mean
    }

    fn figure_4(mode: Mode) -> FrequencySettings {
        FrequencySettings { mode, buckets: 5000, ..settings() }
    }

    #[test]
    fn paper_mode_reaches_the_floor_of_figure_4() {
        let [first, late] = mean_simulation(figure_4(Mode::Paper), 3, [1, 10_000]);
        assert!((first - 0.469).abs() < 0.002, "{first}");
        assert!((late - 0.137).abs() < 0.02, "{late}");
    }

    #[test]
    fn default_mode_is_there_after_500_steps() {
        // Its floor is lower too: two items of one bucket in one batch are one hit, not two.
        let [early, late] = mean_simulation(figure_4(Mode::Default), 3, [500, 5000]);
        assert!(early <= 0.16, "{early}");
        assert!(late <= 0.13, "{late}");
    }

    #[test]
    fn without_collisions_only_the_variance_is_left() {
        // A perfect estimator has 0.0238: without replacement the top items' inclusion is not B q.
        let exact = FrequencySettings { exact: true, ..figure_4(Mode::Default) };
        let [late] = mean_simulation(exact, 1, [5000]);
        assert!((late - 0.035).abs() < 0.01, "{late}");
    }

    #[test]
    fn foreign_or_damaged_bytes_are_refused() {
        let small = FrequencySettings { hashes: 2, buckets: 3, ..settings() };
        let mut f = Frequency::new(small.clone());
        f.update(1, &[1, 2, 3]);
        let bytes = bytes_of(&f);
        let refuse =
            |settings, bytes: &[u8]| Frequency::read_from(settings, bytes).err().expect("refused");
        let other = FrequencySettings { initial_gap: 50.0, ..small.clone() };
        assert_eq!(
            refuse(other, &bytes),
            "frequency state was written with initial_gap = 100, the settings say 50"
        );
        assert!(
            refuse(FrequencySettings { buckets: 4, ..small.clone() }, &bytes).contains("buckets")
        );
        assert!(refuse(FrequencySettings { seed: 4, ..small.clone() }, &bytes).contains("seed"));
        assert!(
            refuse(FrequencySettings { mode: Mode::Paper, ..small.clone() }, &bytes)
                .contains("mode")
        );
        for end in 0..bytes.len() {
            refuse(small.clone(), &bytes[..end]);
        }
        let longer = [&bytes[..], &[0; 16]].concat();
        assert!(refuse(small, &longer).contains("damaged"));
    }

    fn any_settings() -> impl Strategy<Value = FrequencySettings> {
        let mode = prop_oneof![Just(Mode::Default), Just(Mode::Paper)];
        let alpha = prop_oneof![Just(1.0f32), 1e-6f32..1.0];
        (mode, any::<bool>(), 1usize..4, 1usize..40, alpha, 1.0f32..1e6).prop_map(
            |(mode, exact, hashes, buckets, alpha, initial_gap)| FrequencySettings {
                mode,
                exact,
                hashes,
                buckets,
                alpha,
                initial_gap,
                exact_ids_max: 20,
                seed: 5,
            },
        )
    }

    /// Batches with the step each comes at; steps leap, so that large gaps occur.
    fn any_batches() -> impl Strategy<Value = Vec<(u64, Vec<u64>)>> {
        let leap = prop_oneof![4 => 1u64..4, 1 => 1u64..1 << 31];
        let batch = (leap, prop::collection::vec(0u64..50, 0..20));
        prop::collection::vec(batch, 1..40).prop_map(|mut batches| {
            let mut step = 0;
            for batch in &mut batches {
                step += batch.0;
                batch.0 = step;
            }
            batches
        })
    }

    proptest! {
        #[test]
        fn gaps_and_counts_stay_at_least_1(s in any_settings(), batches in any_batches()) {
            let mut f = Frequency::new(FrequencySettings { mode: Mode::Default, ..s });
            for (step, ids) in batches {
                f.update(step, &ids);
                let slots: Vec<Slot> = match &f.slots {
                    Slots::Hashed(slots) => slots.clone(),
                    Slots::Exact(slots) => slots.values().copied().collect(),
                };
                prop_assert!(slots.iter().all(|slot| slot.gap >= 1.0 && slot.gap.is_finite()));
                prop_assert!(slots.iter().all(|slot| slot.count > 0.9999 && slot.count < 20.001));
            }
        }

        #[test]
        fn a_restored_estimator_goes_on_with_the_same_bits(
            s in any_settings(),
            batches in any_batches(),
            stop in 0usize..40,
        ) {
            let mut f = Frequency::new(s.clone());
            let mut restored = None;
            for (i, (step, ids)) in batches.iter().enumerate() {
                if i == stop {
                    let bytes = bytes_of(&f);
                    let read = Frequency::read_from(s.clone(), &bytes).expect("own bytes");
                    prop_assert_eq!(bytes_of(&read), bytes);
                    restored = Some(read);
                }
                f.update(*step, ids);
                if let Some(restored) = &mut restored {
                    restored.update(*step, ids);
                    prop_assert_eq!(bytes_of(restored), bytes_of(&f));
                    prop_assert_eq!(restored.collisions(), f.collisions());
                }
            }
        }

        #[test]
        fn slots_do_not_depend_on_other_slots_order(ids in prop::collection::vec(0u64..50, 0..60)) {
            // The ground for sharding: within a step, only the order inside a slot could matter,
            // and in default mode not even that (but for the fingerprint of the last writer).
            let (mut ahead, mut sorted) = (Frequency::new(settings()), Frequency::new(settings()));
            let mut order = ids.clone();
            order.sort_unstable();
            ahead.update(1, &ids);
            sorted.update(1, &order);
            prop_assert_eq!(bytes_of(&ahead), bytes_of(&sorted));
        }
    }
}
