//! What items are, for requests that choose by it: the ids and numbers of their features, as last
//! seen.

use std::collections::{BTreeMap, HashMap};

use millrace_events::{FeatureValue, id_key};
use millrace_train::memory::corpus::Item;

use super::problem::Problem;
use super::request::Condition;
use crate::config::{Config, FeatureKind};

/// Attributes by the name of their feature.
#[derive(Default)]
pub(super) struct Attributes(BTreeMap<String, Attribute>);

enum Attribute {
    /// Numbers of the items, by the key of an id that they have.
    Ids(HashMap<u64, Vec<u32>>),
    /// By item; NaN where it has none, which is in no range.
    Numbers(Vec<f32>),
}

/// Items, a bit each.
struct Marks(Vec<u64>);

impl Marks {
    fn set(&mut self, item: u32) {
        self.0[item as usize / 64] |= 1 << (item % 64);
    }

    fn holds(&self, item: u32) -> bool {
        self.0[item as usize / 64] >> (item % 64) & 1 == 1
    }
}

impl Attributes {
    /// Those of `items`, an item's number being its place. An item's own id is none: `include` is
    /// for that.
    pub(super) fn new<'i>(config: &Config, items: impl Iterator<Item = &'i Item> + Clone) -> Self {
        let features = config.item.features.iter().enumerate();
        let features = features.filter(|(_, feature)| feature.field != config.item.id);
        let of = |(place, kind): (usize, FeatureKind)| {
            let values = items.clone().map(move |item| &item.values[place]);
            match kind {
                FeatureKind::Id | FeatureKind::Bag => {
                    let mut ids: HashMap<u64, Vec<u32>> = HashMap::new();
                    let mut add = |key: u64, item: u32| ids.entry(key).or_default().push(item);
                    for (item, value) in (0..).zip(values) {
                        match value {
                            FeatureValue::Id(key) => add(*key, item),
                            FeatureValue::Bag(bag) => {
                                bag.iter().for_each(|&(key, _)| add(key, item))
                            }
                            _ => {}
                        }
                    }
                    Some(Attribute::Ids(ids))
                }
                FeatureKind::Number => {
                    let number = |value: &FeatureValue| match value {
                        FeatureValue::Number(number) => *number,
                        _ => f32::NAN,
                    };
                    Some(Attribute::Numbers(values.map(number).collect()))
                }
                FeatureKind::History | FeatureKind::Vector => None,
            }
        };
        let named = features.filter_map(|(place, feature)| {
            Some((feature.name.clone(), of((place, feature.kind))?))
        });
        Self(named.collect())
    }

    /// The names, and whether each is a number.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        let is_number = |attribute: &Attribute| matches!(attribute, Attribute::Numbers(_));
        self.0.iter().map(move |(name, attribute)| (&**name, is_number(attribute)))
    }

    /// Those of `count` items, by number, that are all of `filter`; none: there is no filter.
    ///
    /// # Errors
    /// An attribute that there is not, or one of another kind.
    pub(super) fn chosen(
        &self,
        filter: &BTreeMap<String, Condition>,
        count: usize,
    ) -> Result<Option<Vec<u32>>, Problem> {
        let mut chosen: Option<Vec<u32>> = None;
        for (name, condition) in filter {
            let marks = self.marks(name, condition, count)?;
            let holds = |item: &u32| marks.holds(*item);
            chosen = Some(match chosen {
                None => (0..u32::try_from(count).unwrap_or(u32::MAX)).filter(holds).collect(),
                Some(before) => before.into_iter().filter(holds).collect(),
            });
        }
        Ok(chosen)
    }

    fn marks(&self, name: &str, condition: &Condition, count: usize) -> Result<Marks, Problem> {
        let wrong = |detail: String| Err(Problem::field(format!("filter.{name}"), detail));
        let mut marks = Marks(vec![0; count.div_ceil(64)]);
        match (self.0.get(name), condition) {
            (Some(Attribute::Ids(items)), Condition::OneOf(ids)) => {
                let lists = ids.iter().filter_map(|id| items.get(&id_key(id.as_bytes())));
                lists.flatten().for_each(|&item| marks.set(item));
            }
            (Some(Attribute::Numbers(numbers)), Condition::Within(min, max)) => {
                let within = |number: &f32| (*min..=*max).contains(number);
                let inside = (0..).zip(numbers).filter(|(_, number)| within(number));
                inside.for_each(|(item, _)| marks.set(item));
            }
            (Some(Attribute::Ids(_)), _) => return wrong("has ids: give one, or a list".into()),
            (Some(Attribute::Numbers(_)), _) => {
                return wrong("is a number: give {\"min\": .., \"max\": ..}".into());
            }
            (None, _) => {
                let there: Vec<&String> = self.0.keys().collect();
                return wrong(format!("no such attribute; there are {there:?}"));
            }
        }
        Ok(marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        let config = Config::from_toml(
            r#"
            [query]
            id = "u"
            features = [{ name = "u", kind = "id", field = "u", table = "u" }]
            [item]
            id = "i"
            features = [
                { name = "i", kind = "id", field = "i", table = "i" },
                { name = "genres", kind = "bag", field = "genres", table = "g", optional = true },
                { name = "price", kind = "number", field = "price", optional = true },
            ]
            "#,
        );
        let bag = |ids: &[&str]| {
            FeatureValue::Bag(ids.iter().map(|id| (id_key(id.as_bytes()), 0.5)).collect())
        };
        let item = |genres, price| Item {
            name: "x".into(),
            values: vec![FeatureValue::Id(1), genres, price],
            count: 1,
            touched: 1,
        };
        let items = [
            item(bag(&["war", "love"]), FeatureValue::Number(3.0)),
            item(bag(&["love"]), FeatureValue::Absent),
            item(FeatureValue::Absent, FeatureValue::Number(5.0)),
        ];
        Attributes::new(&config.expect("valid"), items.iter())
    }

    #[test]
    fn what_is_chosen_is_all_of_the_filter() {
        let attributes = attributes();
        assert_eq!(attributes.names().collect::<Vec<_>>(), [("genres", false), ("price", true)]);
        let one_of = |ids: &[&str]| Condition::OneOf(ids.iter().map(|&id| id.into()).collect());
        let chosen = |filter: &[(&str, Condition)]| {
            let filter = filter.iter().map(|(name, c)| ((*name).to_owned(), c.clone())).collect();
            attributes.chosen(&filter, 3).map_err(|problem| problem.body()["field"].to_string())
        };
        assert_eq!(chosen(&[]), Ok(None));
        assert_eq!(chosen(&[("genres", one_of(&["love"]))]), Ok(Some(vec![0, 1])));
        assert_eq!(chosen(&[("genres", one_of(&["war", "none"]))]), Ok(Some(vec![0])));
        assert_eq!(chosen(&[("genres", one_of(&["none"]))]), Ok(Some(vec![])));
        let price = |min, max| ("price", Condition::Within(min, max));
        assert_eq!(chosen(&[price(3.0, f32::INFINITY)]), Ok(Some(vec![0, 2])));
        let both = [("genres", one_of(&["love"])), price(0.0, 9.0)];
        assert_eq!(chosen(&both), Ok(Some(vec![0])));
        for wrong in [("colour", one_of(&["red"])), ("genres", price(0.0, 1.0).1)] {
            let field = format!("\"filter.{}\"", wrong.0);
            assert_eq!(chosen(&[wrong]), Err(field));
        }
        assert_eq!(chosen(&[("i", one_of(&["x"]))]), Err("\"filter.i\"".into()));
    }
}
