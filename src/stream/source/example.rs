//! The first rejected record of each reason, for the log: a count alone does not tell whether the
//! mapping is wrong or the producer.
//!
//! Owns the choice of what is shown, and how much: more people read the log than the topic.

use rdkafka::message::Message;
use serde_json::Value;

use crate::config::alternatives;
use crate::stream::decode::{DecodeError, in_hex};

/// Most characters of a value that are shown: enough to recognise it.
const CHARS_MAX: usize = 100;
/// Most bytes of a value that is no text.
const BYTES_MAX: usize = 24;
/// Marks the end of a value that was longer.
const CUT: &str = "...";

/// Logs a record that was rejected.
pub(super) fn show(message: &impl Message, error: &DecodeError) {
    tracing::warn!(
        reason = error.reason(),
        topic = message.topic(),
        partition = message.partition(),
        offset = message.offset(),
        field = error.field().unwrap_or("the whole record"),
        value = value(message.payload(), error.field()),
        "a record was rejected: {error}. It is the first of its kind; the others are counted and \
         dead-lettered without a line"
    );
}

/// Logs an event whose time lies more than ten years from its record's, or the event's before.
pub(super) fn show_odd_time(message: &impl Message, time_ms: i64) {
    tracing::warn!(
        topic = message.topic(),
        partition = message.partition(),
        offset = message.offset(),
        event_time_ms = time_ms,
        record_time_ms = message.timestamp().to_millis(),
        "an event's time lies more than ten years from that of its record, or of the event before: \
         is timestamp.unit right, for every producer? The event is trained on; others like it are \
         without a line"
    );
}

/// The record's value at `field`; if there is no telling, the record's first characters.
pub(super) fn value(payload: Option<&[u8]>, field: Option<&str>) -> String {
    let Some(payload) = payload else { return "none".to_owned() };
    if let Some(field) = field
        && let Ok(record) = serde_json::from_slice::<Value>(payload)
    {
        // As the mapping reads paths: a key that is written with its dots comes first.
        let reach = |path: &str| path.split('.').try_fold(&record, |value, key| value.get(key));
        let at = alternatives(field).find_map(|path| record.get(path).or_else(|| reach(path)));
        return at.map_or("nothing".to_owned(), |value| cut(&value.to_string()));
    }
    if payload.first().is_some_and(|b| b.is_ascii_control() && !b.is_ascii_whitespace()) {
        let begin = in_hex(&payload[..payload.len().min(BYTES_MAX)]);
        let cut = if payload.len() > BYTES_MAX { CUT } else { "" };
        return format!("{begin}{cut} ({} bytes)", payload.len());
    }
    // A character takes at most four bytes: a record of megabytes need not be looked through.
    let begin = &payload[..payload.len().min(4 * (CHARS_MAX + 1))];
    cut(&String::from_utf8_lossy(begin))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}{CUT}", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_the_field_is_shown() {
        let record =
            br#"{"user": {"id": [1, "x"]}, "time": "soon", "none": null, "a.b": 5, "a": 6}"#;
        let shown = |field| value(Some(record), Some(field));
        assert_eq!(shown("user.id"), r#"[1,"x"]"#);
        assert_eq!(shown("time"), "\"soon\"");
        assert_eq!(shown("none"), "null");
        assert_eq!(shown("a.b"), "5");
        assert_eq!(shown("user.name"), "nothing");
        assert_eq!(shown("user.name | time"), "\"soon\"");
        assert_eq!(shown("time.zone"), "nothing");
    }

    #[test]
    fn without_a_field_the_record_is_shown() {
        assert_eq!(value(None, None), "none");
        assert_eq!(value(Some(b"no JSON"), None), "no JSON");
        assert_eq!(value(Some(b"{\"big\": 1e999}"), Some("big")), "{\"big\": 1e999}");
        assert_eq!(value(Some(b"a\xffb"), None), "a\u{fffd}b");
    }

    #[test]
    fn what_is_no_text_is_shown_in_digits() {
        assert_eq!(value(Some(&[0, 0, 0, 0, 7, b'a']), None), "00 00 00 00 07 61 (6 bytes)");
        let shown = value(Some(&[0; 5000]), Some("user"));
        assert!(shown.ends_with("00... (5000 bytes)") && shown.len() < CHARS_MAX, "{shown}");
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let long = "\u{1d11e}".repeat(5000);
        let shown = value(Some(long.as_bytes()), None);
        assert_eq!(shown.chars().count(), CHARS_MAX + CUT.len());
        let record = format!("{{\"id\": \"{long}\"}}");
        assert!(value(Some(record.as_bytes()), Some("id")).ends_with(CUT));
        assert_eq!(cut(&"x".repeat(CHARS_MAX)), "x".repeat(CHARS_MAX));
    }
}
