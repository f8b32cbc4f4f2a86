//! `item.attributes` and those of a catalogue: what is kept of items for people and stores.

use std::collections::BTreeSet;

use millrace_events::EventSide;

use super::{Config, Faults, alternatives};

/// The name of the attribute that is read from `field`: the last part of its path, without
/// brackets; of alternatives, of the first one's.
pub(crate) fn attribute_name(field: &str) -> &str {
    let path = alternatives(field).next().unwrap_or(field);
    let last = path.rsplit('.').next().unwrap_or(path);
    last.split('[').next().unwrap_or(last).trim_start_matches('@')
}

impl Config {
    /// Names of the attributes that are kept of items: those of events, in their order, and behind
    /// them those that only the catalogue has.
    pub fn attributes(&self) -> Vec<String> {
        let catalogue = self.catalogue.iter().filter(|entry| entry.side == EventSide::Item);
        let catalogue = catalogue.flat_map(|entry| &entry.attributes);
        let mut names: Vec<String> = Vec::new();
        for field in self.item.attributes.iter().chain(catalogue) {
            let name = attribute_name(field);
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }

    pub(super) fn validate_attributes(&self, faults: &mut Faults) {
        const OF_ITEMS: &str = "only items have attributes";
        if !self.query.attributes.is_empty() {
            faults.add("query.attributes", OF_ITEMS);
        }
        different("item.attributes", &self.item.attributes, faults);
        for (index, entry) in self.catalogue.iter().enumerate() {
            let key = format!("catalogue[{index}].attributes");
            if entry.side == EventSide::Query && !entry.attributes.is_empty() {
                faults.add(&key, OF_ITEMS);
            }
            different(&key, &entry.attributes, faults);
        }
        let kept = self.attributes();
        let unknown = |name: &&String| !kept.contains(name);
        for name in self.publish.attributes.iter().filter(unknown) {
            let reason = format!(
                "no attribute `{name}` is kept; there are {kept:?}: put its field into \
                 item.attributes, or into those of a [[catalogue]]"
            );
            faults.add("publish.attributes", reason);
        }
    }
}

/// Two fields of one record would be one attribute.
fn different(key: &str, fields: &[String], faults: &mut Faults) {
    let mut names = BTreeSet::new();
    for field in fields {
        let name = attribute_name(field);
        if name.is_empty() {
            faults.add(key, format!("`{field}` names no field of the record"));
        } else if !names.insert(name) {
            let reason = format!(
                "`{field}`: an attribute is called by the last part of its path, and `{name}` is \
                 another one's"
            );
            faults.add(key, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::minimal;

    /// `entries` stand in `[item]`.
    fn config(entries: &str) -> Result<Config, String> {
        minimal(entries).map_err(|faults| faults.to_string())
    }

    #[test]
    fn an_attribute_is_called_by_the_last_part_of_its_path() {
        let names = ["title", "product.price", "items[].name", "tags[0]", "@headers.shop", "@key"];
        let names: Vec<&str> = names.into_iter().map(attribute_name).collect();
        assert_eq!(names, ["title", "price", "name", "tags", "shop", "key"]);
    }

    #[test]
    fn events_and_the_catalogue_share_names() {
        let config = config(
            "attributes = [\"title\", \"product.price\"]
            [[catalogue]]
            topic = \"products\"
            id = \"sku\"
            attributes = [\"detail.picture\", \"price\"]",
        );
        let mut config = config.expect("valid");
        assert_eq!(config.attributes(), ["title", "price", "picture"]);
        let before = config.catalogue[0].reading();
        config.catalogue[0].attributes.clear();
        assert_ne!(before, config.catalogue[0].reading(), "its rows are read again");
        assert!(!config.catalogue[0].reading().contains("[]"), "none is as it always was");
    }

    #[test]
    fn a_further_topic_may_have_them_elsewhere() {
        let of = |attributes: &str| {
            config(&format!(
                "attributes = [\"title\", \"product.price\"]
                [[interactions]]
                topic = \"orders\"
                item.attributes = {{ {attributes} }}"
            ))
        };
        let config = of("price = \"paid.cents\"").expect("valid");
        let fields: Vec<_> = config.by_topic().map(|own| own.item.attributes).collect();
        assert_eq!(fields, [["title", "product.price"], ["title", "paid.cents"]]);
        assert_eq!(config.attributes(), ["title", "price"]);
        for (attributes, fault) in [
            ("name = \"x\"", "item.attributes.name: no such attribute; there are"),
            ("price = \"\"", "item.attributes.price: must name"),
            ("price = \"a[\"", "item.attributes[1]: `a[`: expected"),
        ] {
            let faults = of(attributes).expect_err(attributes);
            assert!(faults.contains(fault), "{faults}");
        }
    }

    #[test]
    fn what_cannot_be_kept_or_sent_is_a_fault_that_says_what_to_do() {
        for (entries, fault) in [
            ("attributes = [\"a.name\", \"b.name\"]", "item.attributes: `b.name`: an attribute is"),
            ("attributes = [\"\"]", "item.attributes: `` names no field"),
            ("attributes = [\"a[\"]", "item.attributes[0]: `a[`: expected"),
            ("attributes = [\"a[].b\", \"c[].d\"]", "only one array of a record"),
            ("\n[publish]\nattributes = [\"title\"]", "no attribute `title` is kept; there are []"),
            (
                "\n[[catalogue]]\ntopic = \"u\"\nside = \"query\"\nid = \"id\"
                 attributes = [\"x\"]",
                "catalogue[0].attributes: only items have attributes",
            ),
            (
                "\n[[catalogue]]\ntopic = \"u\"\nid = \"id\"\nattributes = [\"x[].y\"]",
                "catalogue[0].attributes[0]: `x[].y`: a record of a catalogue is of one id",
            ),
        ] {
            let faults = config(entries).expect_err(entries);
            assert!(faults.contains(fault), "{faults}");
        }
    }
}
