//! One interaction by itself, and the values of its features.

/// 64-bit key of an id: xxh3 of its text, an integer's being its decimal digits, so that `858`
/// and `"858"` are one id. Two of ten million ids share a key with probability 3e-6.
#[inline]
pub fn id_key(text: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text)
}

/// One interaction, made by hand (tests, benches): decoding writes [`Events`](crate::Events) at
/// once.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Event time, ms since 1970.
    pub time_ms: i64,
    /// Key of the query's id.
    pub query_id: u64,
    /// Key of the item's id.
    pub item_id: u64,
    /// The item's id as the source wrote it: the key of its published embedding.
    pub item_name: Box<str>,
    /// What the event is worth, in `[reward.min, reward.max]`.
    pub reward: f32,
    /// One value per entry of `query.features`.
    pub query: Vec<FeatureValue>,
    /// One value per entry of `item.features`.
    pub item: Vec<FeatureValue>,
}

/// The value of one feature in one event.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum FeatureValue {
    /// An optional field that the record lacks, or a history that the trainer keeps.
    Absent,
    /// One id's key.
    Id(u64),
    /// Keys and their weights in the pool (1/n each for a mean).
    Bag(Vec<(u64, f32)>),
    /// A raw number, before any transform.
    Number(f32),
    /// A given embedding.
    Vector(Vec<f32>),
}
