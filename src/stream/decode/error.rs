//! Every reason for which a record is rejected.

use super::RECORD_BYTES_MAX;

/// Why a record cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// No value at all: what a compacted topic uses to delete a key.
    #[error("the record has no value (it is a tombstone)")]
    Tombstone,
    /// A value without content.
    #[error("the record's value is empty")]
    Empty,
    /// Over [`RECORD_BYTES_MAX`].
    #[error("the record has {bytes} bytes; the limit is {RECORD_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Something else than JSON, as its first bytes tell.
    #[error("the value is {what}")]
    Foreign {
        /// What it is, and what to do.
        what: &'static str,
    },
    /// An id that is longer than any id should be. Ids are kept, and are keys on the output topic.
    #[error("field `{field}` is an id of {bytes} bytes; kafka.id_bytes_max is {limit}")]
    IdTooLong {
        /// The field's path.
        field: String,
        /// The id's length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// JSON is UTF-8.
    #[error("not UTF-8 from byte {at} on")]
    InvalidUtf8 {
        /// Index of the first bad byte.
        at: usize,
    },
    /// Not JSON, or something after it.
    #[error("not JSON: {reason}")]
    NotJson {
        /// The parser's words.
        reason: String,
    },
    /// JSON, but a scalar, or an array of something else than objects.
    #[error("the record is no JSON object: {reason}")]
    NotObject {
        /// The parser's words.
        reason: String,
    },
    /// No zero byte and id of a schema in front, where the format has them.
    #[error(
        "the value does not begin with a zero byte and the id of a schema, as kafka.format says; \
         its first bytes are {begin}"
    )]
    Unframed {
        /// Its first bytes, in hex.
        begin: String,
    },
    /// The registry does not know its schema.
    #[error("the registry knows no schema {id}; was it written with another registry?")]
    UnknownSchema {
        /// The schema's id.
        id: u32,
    },
    /// Its schema is none that we can read by.
    #[error("schema {id} cannot be used: {reason}")]
    BadSchema {
        /// The schema's id.
        id: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// Not what its schema describes.
    #[error("the value is not what its schema describes: {reason}")]
    BadDatum {
        /// The decoder's words.
        reason: String,
    },
    /// A field that the mapping requires is not there, null, or an empty id.
    #[error("field `{field}` is missing, null or empty")]
    MissingField {
        /// The field's path.
        field: String,
    },
    /// A field holds another kind of value.
    #[error("field `{field}` is {found}; expected {expected}")]
    WrongType {
        /// The field's path.
        field: String,
        /// The kind that is required.
        expected: &'static str,
        /// The kind that was found.
        found: &'static str,
    },
    /// A number that no 32-bit float can hold.
    #[error("field `{field}` is out of the range of numbers")]
    BadNumber {
        /// The field's path.
        field: String,
    },
    /// A time outside the years 1 to 9999.
    #[error("field `{field}`: {value} is no {expected}")]
    BadTimestamp {
        /// The field's path.
        field: String,
        /// The value that was found.
        value: String,
        /// What it should be, and what to look at.
        expected: String,
    },
    /// A time that lies too far ahead of the Kafka record's own.
    #[error(
        "field `{field}`: {value} is {ahead_s} s later than the time of its Kafka record, and \
         timestamp.ahead_max_s allows {limit_s}; is the producer's clock right, and timestamp.unit?"
    )]
    Future {
        /// The field's path.
        field: String,
        /// The value that was found.
        value: String,
        /// Seconds between the two.
        ahead_s: i64,
        /// Seconds that are allowed.
        limit_s: i64,
    },
    /// A record that holds more events than a batch, or than any should.
    #[error("the record holds {events} events; the limit is {limit}")]
    TooManyEvents {
        /// How many there are.
        events: usize,
        /// How many may be.
        limit: usize,
    },
    /// A vector, or a bag's weights, of another length.
    #[error("field `{field}` has {found} entries; expected {expected}")]
    WrongLength {
        /// The field's path.
        field: String,
        /// Entries it should have.
        expected: usize,
        /// Entries it has.
        found: usize,
    },
}

/// Every [`DecodeError::reason`], so that each has a counter before the first such record.
pub const REASONS: [&str; 19] = [
    "tombstone",
    "empty",
    "too_large",
    "foreign",
    "id_too_long",
    "invalid_utf8",
    "not_json",
    "not_object",
    "unframed",
    "unknown_schema",
    "bad_schema",
    "bad_datum",
    "missing_field",
    "wrong_type",
    "bad_number",
    "bad_timestamp",
    "future",
    "too_many_events",
    "wrong_length",
];

impl DecodeError {
    /// The path of the field that is wrong, if it is one field.
    pub fn field(&self) -> Option<&str> {
        match self {
            DecodeError::MissingField { field }
            | DecodeError::WrongType { field, .. }
            | DecodeError::IdTooLong { field, .. }
            | DecodeError::BadNumber { field }
            | DecodeError::BadTimestamp { field, .. }
            | DecodeError::Future { field, .. }
            | DecodeError::WrongLength { field, .. } => Some(field),
            DecodeError::Tombstone
            | DecodeError::Empty
            | DecodeError::TooLarge { .. }
            | DecodeError::Foreign { .. }
            | DecodeError::InvalidUtf8 { .. }
            | DecodeError::NotJson { .. }
            | DecodeError::TooManyEvents { .. }
            | DecodeError::Unframed { .. }
            | DecodeError::UnknownSchema { .. }
            | DecodeError::BadSchema { .. }
            | DecodeError::BadDatum { .. }
            | DecodeError::NotObject { .. } => None,
        }
    }

    /// A stable name of the kind, for counters and dead letters.
    pub fn reason(&self) -> &'static str {
        match self {
            DecodeError::Tombstone => "tombstone",
            DecodeError::Empty => "empty",
            DecodeError::TooLarge { .. } => "too_large",
            DecodeError::Foreign { .. } => "foreign",
            DecodeError::IdTooLong { .. } => "id_too_long",
            DecodeError::InvalidUtf8 { .. } => "invalid_utf8",
            DecodeError::NotJson { .. } => "not_json",
            DecodeError::NotObject { .. } => "not_object",
            DecodeError::Unframed { .. } => "unframed",
            DecodeError::UnknownSchema { .. } => "unknown_schema",
            DecodeError::BadSchema { .. } => "bad_schema",
            DecodeError::BadDatum { .. } => "bad_datum",
            DecodeError::MissingField { .. } => "missing_field",
            DecodeError::WrongType { .. } => "wrong_type",
            DecodeError::BadNumber { .. } => "bad_number",
            DecodeError::BadTimestamp { .. } => "bad_timestamp",
            DecodeError::Future { .. } => "future",
            DecodeError::TooManyEvents { .. } => "too_many_events",
            DecodeError::WrongLength { .. } => "wrong_length",
        }
    }
}
