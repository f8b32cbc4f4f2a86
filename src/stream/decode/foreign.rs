//! Texts that are nearly JSON are read, and values that are something else are named.
//!
//! Only records that failed, or that begin in an odd way, come here: the ordinary record pays
//! nothing.

use std::borrow::Cow;

/// U+FEFF in UTF-8, which Windows tools put in front of a text.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A payload without the mark that it is UTF-8.
pub(super) fn without_bom(payload: &[u8]) -> &[u8] {
    payload.strip_prefix(BOM).unwrap_or(payload)
}

/// Bytes for a person to look at: each in hex, with blanks between.
pub(crate) fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// What a payload is that begins like no JSON text, and what to do about it.
pub(super) fn name(payload: &[u8]) -> Option<&'static str> {
    Some(match payload {
        [0, _, _, _, _, _, ..] => {
            "a value in the Confluent wire format (a zero byte, then the id of a schema); set \
             kafka.format to \"avro\", \"protobuf\" or \"json-schema\""
        }
        [0x1f, 0x8b, ..] => {
            "a gzip file; produce the text, and let compression.type of the producer compress it"
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "a zstd frame; produce the text, and let compression.type of the producer compress it"
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{', 0, ..] | [0, b'{', ..] => {
            "text in UTF-16; produce UTF-8"
        }
        _ => return None,
    })
}

/// What a text is that is JSON, but no object.
pub(super) fn name_text(text: &str) -> &'static str {
    match text.trim_start().as_bytes().first() {
        Some(b'"') => " (JSON within a JSON string: produce the object itself)",
        _ => "",
    }
}

/// The text as strict JSON, if it differs from it by what languages in use write: `NaN` and
/// `Infinity` (Python) become `number`; half an emoji (JavaScript cut a string) becomes U+FFFD.
pub(super) fn mended(text: &str, number: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut mends = 0;
    while let Some(at) = rest.find(['"', 'N', 'I']) {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        if found.starts_with('"') {
            let length = string_length(found);
            let string = with_whole_surrogates(&found[..length]);
            mends += usize::from(matches!(string, Cow::Owned(_)));
            out.push_str(&string);
            rest = &found[length..];
            continue;
        }
        let word = ["NaN", "Infinity"].into_iter().find(|word| found.starts_with(word))?;
        out.push_str(number);
        mends += 1;
        rest = &found[word.len()..];
    }
    out.push_str(rest);
    (mends > 0).then_some(out)
}

/// Bytes of the JSON string that `text` begins with, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A JSON string whose escaped surrogates all have their other half, or U+FFFD instead.
fn with_whole_surrogates(string: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(step) = string.get(at..).and_then(|rest| rest.find('\\')) {
        at += step;
        let Some(unit) = surrogate(string, at) else {
            at += 2;
            continue;
        };
        let whole = unit < 0xdc00 && surrogate(string, at + 6).is_some_and(|low| low >= 0xdc00);
        if whole {
            at += 12;
            continue;
        }
        out.push_str(&string[copied..at]);
        out.push_str("\\ufffd");
        at += 6;
        copied = at;
    }
    if copied == 0 {
        return Cow::Borrowed(string);
    }
    out.push_str(&string[copied..]);
    Cow::Owned(out)
}

/// The surrogate that is escaped at `at`, if one is.
fn surrogate(string: &str, at: usize) -> Option<u16> {
    let digits = string.get(at..at + 6)?.strip_prefix("\\u")?;
    let unit = u16::from_str_radix(digits, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_strict_json_is_left_alone() {
        for text in [
            r#"{"a": "NaN", "Infinity": 1, "b": "\\ud83d", "c": "\ud83d\ude00"}"#,
            r#"{"a": "\"Infinity\""}"#,
            "",
            "{\"a\": 1",
        ] {
            assert_eq!(mended(text, "1e999"), None, "{text}");
        }
        assert_eq!(mended(r#"{"a": Nil}"#, "1e999"), None, "some other word");
    }

    #[test]
    fn words_of_python_and_halves_of_emoji_are_mended() {
        let text = r#"{"a":NaN,"b":[-Infinity,1],"c":"NaN \" NaN","d":"x\ud83d","e":"\ude00y"}"#;
        let want = r#"{"a":1e999,"b":[-1e999,1],"c":"NaN \" NaN","d":"x\ufffd","e":"\ufffdy"}"#;
        assert_eq!(mended(text, "1e999").as_deref(), Some(want));
        let twice = r#"{"a":"\ud83d\ud83d\ude00"}"#;
        assert_eq!(mended(twice, "1e999").as_deref(), Some(r#"{"a":"\ufffd\ud83d\ude00"}"#));
    }
}
