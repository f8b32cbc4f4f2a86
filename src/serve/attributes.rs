//! What is said of a version's items: titles, prices, pictures, as the log and the catalogue have
//! them. For answers, and for filters by what is no feature.

use millrace_events::Names;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::problem::Problem;
use super::request::{Asked, Condition};

/// By name, each the JSON of every item, an item's number being its place; empty: nothing is said.
pub(super) struct Attributes(Vec<(String, Names)>);

/// What is said of one item, in the order of the config.
pub(super) struct Said<'v>(Vec<(&'v str, Value)>);

impl Serialize for Said<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Attributes {
    pub(super) fn new(columns: Vec<(String, Names)>) -> Self {
        Self(columns)
    }

    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Those that a request asks for, by their place; none: it asks for none.
    ///
    /// # Errors
    /// A name that none of them has.
    pub(super) fn asked(&self, asked: Option<&Asked>) -> Result<Option<Vec<usize>>, Problem> {
        let names = match asked {
            None | Some(Asked::All(false)) => return Ok(None),
            Some(Asked::All(true)) => return Ok(Some(self.all())),
            Some(Asked::Named(names)) => names,
        };
        let place = |(at, name): (usize, &String)| {
            self.names().position(|known| known == name).ok_or_else(|| {
                let there: Vec<&str> = self.names().collect();
                let detail = format!("`{name}` is no attribute; there are {there:?}");
                Problem::field(format!("attributes[{at}]"), detail)
            })
        };
        names.iter().enumerate().map(place).collect::<Result<_, _>>().map(Some)
    }

    /// The places of all.
    pub(super) fn all(&self) -> Vec<usize> {
        (0..self.0.len()).collect()
    }

    /// What those at these places say of `item`.
    pub(super) fn of(&self, places: &[usize], item: u32) -> Said<'_> {
        let said = |&place: &usize| {
            let (name, column) = &self.0[place];
            let json = serde_json::from_str(column.get(item as usize)).ok()?;
            Some((&**name, json))
        };
        Said(places.iter().filter_map(said).collect())
    }

    /// The items of which the attribute `name` says what `condition` asks for; none: there is no
    /// such attribute.
    pub(super) fn matching(&self, name: &str, condition: &Condition) -> Option<Vec<u32>> {
        let (_, column) = self.0.iter().find(|(known, _)| known == name)?;
        let quoted: Vec<String> = match condition {
            Condition::OneOf(ids) => ids.iter().map(|id| Value::from(&**id).to_string()).collect(),
            Condition::Within(..) => Vec::new(),
        };
        let holds = |json: &str| match condition {
            Condition::OneOf(ids) if json.starts_with('[') => {
                // Most are sorted out by their text: to read all takes ten times as long.
                let may = |(id, quoted): (&String, &String)| {
                    json.contains(&**quoted) || json.contains(&**id)
                };
                ids.iter().zip(&quoted).any(may) && one_of(json, ids)
            }
            Condition::OneOf(ids) => {
                ids.iter().zip(&quoted).any(|(id, quoted)| json == quoted || json == id)
            }
            Condition::Within(min, max) => {
                json.parse().is_ok_and(|number: f32| (*min..=*max).contains(&number))
            }
        };
        let matching = (0..).zip(column.iter()).filter(|(_, json)| holds(json));
        Some(matching.map(|(item, _)| item).collect())
    }
}

/// Whether an array has one of `ids`.
fn one_of(json: &str, ids: &[String]) -> bool {
    let entries: Vec<Value> = serde_json::from_str(json).unwrap_or_default();
    entries.iter().any(|entry| match entry {
        Value::String(text) => ids.contains(text),
        other => ids.contains(&other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        let column = |texts: &[&str]| {
            let mut column = Names::default();
            texts.iter().for_each(|text| column.push(text));
            column
        };
        Attributes::new(vec![
            ("title".into(), column(&[r#""Alien \"3\"""#, r#""war""#, ""])),
            ("tags".into(), column(&[r#"["war","7"]"#, r#"["x\"war",7]"#, ""])),
            ("price".into(), column(&["2.5", "", "\"2.5\""])),
        ])
    }

    #[test]
    fn an_item_has_what_is_said_of_it() {
        let attributes = attributes();
        let of = |asked: Asked, item| {
            let places = attributes.asked(Some(&asked)).expect("known").expect("asked");
            serde_json::to_string(&attributes.of(&places, item)).expect("JSON")
        };
        let named = |names: &[&str]| Asked::Named(names.iter().map(|&name| name.into()).collect());
        let first = r#"{"title":"Alien \"3\"","tags":["war","7"],"price":2.5}"#;
        assert_eq!(of(Asked::All(true), 0), first, "in their order");
        assert_eq!(of(named(&["title", "price"]), 1), r#"{"title":"war"}"#);
        assert_eq!(of(named(&["title"]), 2), "{}");
        assert!(attributes.asked(Some(&Asked::All(false))).is_ok_and(|asked| asked.is_none()));
        let problem =
            attributes.asked(Some(&named(&["title", "name"]))).expect_err("unknown").body();
        assert_eq!(problem["field"], "attributes[1]");
    }

    #[test]
    fn what_is_said_can_be_asked_for() {
        let attributes = attributes();
        let one_of = |ids: &[&str]| Condition::OneOf(ids.iter().map(|&id| id.into()).collect());
        let matching = |name, condition| attributes.matching(name, &condition);
        assert_eq!(matching("title", one_of(&["war", "Alien \"3\""])), Some(vec![0, 1]));
        assert_eq!(matching("tags", one_of(&["war"])), Some(vec![0]));
        assert_eq!(matching("tags", one_of(&["7"])), Some(vec![0, 1]));
        assert_eq!(matching("price", one_of(&["2.5"])), Some(vec![0, 2]), "5 and \"5\" are one id");
        assert_eq!(matching("price", Condition::Within(2.0, 3.0)), Some(vec![0]));
        assert_eq!(matching("colour", one_of(&["red"])), None);
    }
}
