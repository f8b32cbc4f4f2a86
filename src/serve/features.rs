//! What items are, for requests that choose by it: the ids and numbers of their features, as last
//! seen.

use std::collections::{BTreeMap, HashMap};

use millrace_events::{FeatureValue, id_key};
use millrace_train::memory::corpus::Item;

use super::attributes::Attributes;
use super::problem::Problem;
use super::request::Condition;
use crate::config::{Config, FeatureKind};

/// Features that one may choose by, by name.
pub(super) struct Features {
    named: BTreeMap<String, Feature>,
    /// So many items are in it.
    items: u32,
}

struct Feature {
    /// Among an item's values.
    place: usize,
    kind: Kind,
}

enum Kind {
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

impl Features {
    /// Those of no item yet. An item's own id is none: `include` is for that.
    pub(super) fn new(config: &Config) -> Self {
        let features = config.item.features.iter().enumerate();
        let features = features.filter(|(_, feature)| feature.field != config.item.id);
        let named = features.filter_map(|(place, feature)| {
            let kind = match feature.kind {
                FeatureKind::Id | FeatureKind::Bag => Kind::Ids(HashMap::new()),
                FeatureKind::Number => Kind::Numbers(Vec::new()),
                FeatureKind::History | FeatureKind::Vector => return None,
            };
            Some((feature.name.clone(), Feature { place, kind }))
        });
        Self { named: named.collect(), items: 0 }
    }

    /// Adds those of the next items, in the order of their numbers.
    pub(super) fn add(&mut self, items: &[(u64, Item)]) {
        for Feature { place, kind } in self.named.values_mut() {
            for (number, (_, item)) in (self.items..).zip(items) {
                kind.add(number, &item.values[*place]);
            }
        }
        self.items += u32::try_from(items.len()).expect("fewer than 2^32 items");
    }

    /// The names, and whether each is a number.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        let is_number = |feature: &Feature| matches!(feature.kind, Kind::Numbers(_));
        self.named.iter().map(move |(name, feature)| (&**name, is_number(feature)))
    }

    /// Those of `count` items, by number, that are all of `filter`; none: there is no filter. A
    /// name that no feature has is one of `attributes`.
    ///
    /// # Errors
    /// A name that there is not, or a feature of another kind.
    pub(super) fn chosen(
        &self,
        filter: &BTreeMap<String, Condition>,
        attributes: &Attributes,
        count: usize,
    ) -> Result<Option<Vec<u32>>, Problem> {
        let mut chosen: Option<Vec<u32>> = None;
        for (name, condition) in filter {
            let marks = self.marks((name, condition), attributes, count)?;
            let holds = |item: &u32| marks.holds(*item);
            chosen = Some(match chosen {
                None => (0..u32::try_from(count).unwrap_or(u32::MAX)).filter(holds).collect(),
                Some(before) => before.into_iter().filter(holds).collect(),
            });
        }
        Ok(chosen)
    }

    fn marks(
        &self,
        (name, condition): (&str, &Condition),
        attributes: &Attributes,
        count: usize,
    ) -> Result<Marks, Problem> {
        let wrong = |detail: String| Err(Problem::field(format!("filter.{name}"), detail));
        let mut marks = Marks(vec![0; count.div_ceil(64)]);
        match (self.named.get(name).map(|feature| &feature.kind), condition) {
            (Some(Kind::Ids(items)), Condition::OneOf(ids)) => {
                let lists = ids.iter().filter_map(|id| items.get(&id_key(id.as_bytes())));
                lists.flatten().for_each(|&item| marks.set(item));
            }
            (Some(Kind::Numbers(numbers)), Condition::Within(min, max)) => {
                let within = |number: &f32| (*min..=*max).contains(number);
                let inside = (0..).zip(numbers).filter(|(_, number)| within(number));
                inside.for_each(|(item, _)| marks.set(item));
            }
            (Some(Kind::Ids(_)), _) => return wrong("has ids: give one, or a list".into()),
            (Some(Kind::Numbers(_)), _) => {
                return wrong("is a number: give {\"min\": .., \"max\": ..}".into());
            }
            (None, _) => match attributes.matching(name, condition) {
                Some(items) => items.into_iter().for_each(|item| marks.set(item)),
                None => {
                    let features = self.named.keys().map(String::as_str);
                    let there: Vec<&str> = features.chain(attributes.names()).collect();
                    return wrong(format!("no such feature or attribute; there are {there:?}"));
                }
            },
        }
        Ok(marks)
    }
}

impl Kind {
    /// Adds what `item` has of it.
    fn add(&mut self, item: u32, value: &FeatureValue) {
        match (self, value) {
            (Self::Ids(ids), FeatureValue::Id(key)) => ids.entry(*key).or_default().push(item),
            (Self::Ids(ids), FeatureValue::Bag(bag)) => {
                bag.iter().for_each(|&(key, _)| ids.entry(key).or_default().push(item));
            }
            (Self::Ids(_), _) => {}
            (Self::Numbers(numbers), FeatureValue::Number(number)) => numbers.push(*number),
            (Self::Numbers(numbers), _) => numbers.push(f32::NAN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features() -> Features {
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
            attributes: <_>::default(),
        };
        let items = [
            item(bag(&["war", "love"]), FeatureValue::Number(3.0)),
            item(bag(&["love"]), FeatureValue::Absent),
            item(FeatureValue::Absent, FeatureValue::Number(5.0)),
        ];
        let mut features = Features::new(&config.expect("valid"));
        let items = items.map(|item| (1, item));
        items.chunks(2).for_each(|items| features.add(items));
        features
    }

    #[test]
    fn what_is_chosen_is_all_of_the_filter() {
        let features = features();
        let none = Attributes::new(Vec::new());
        assert_eq!(features.names().collect::<Vec<_>>(), [("genres", false), ("price", true)]);
        let one_of = |ids: &[&str]| Condition::OneOf(ids.iter().map(|&id| id.into()).collect());
        let chosen = |filter: &[(&str, Condition)]| {
            let filter = filter.iter().map(|(name, c)| ((*name).to_owned(), c.clone())).collect();
            features
                .chosen(&filter, &none, 3)
                .map_err(|problem| problem.body()["field"].to_string())
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
