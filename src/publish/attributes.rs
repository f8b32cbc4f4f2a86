//! What a version says of each item beside its vector.

use xxhash_rust::xxh3::xxh3_64;

use millrace_train::ItemSide;

/// The attributes of `names` that item `number` has, as the text of a JSON object; none: there are
/// no names.
pub(super) fn text(names: &[String], items: &ItemSide, number: usize) -> Option<String> {
    let mut text = String::from("{");
    for name in names {
        let column = items.attributes.iter().find(|(kept, _)| kept == name);
        let json = column.map_or("", |(_, column)| column.get(number));
        if !json.is_empty() {
            if text.len() > 1 {
                text.push(',');
            }
            text += &serde_json::to_string(name).expect("a text is JSON");
            text.push(':');
            text += json;
        }
    }
    text.push('}');
    (!names.is_empty()).then_some(text)
}

/// Hashes of what is said of each of `items`; none at all: there are no `names`.
pub(super) fn hashes(names: &[String], items: &ItemSide) -> Vec<u64> {
    let text = |number| text(names, items, number).map(|text| xxh3_64(text.as_bytes()));
    (0..items.len()).filter_map(text).collect()
}
