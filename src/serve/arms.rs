//! Arms: runs, or configs of one, that are served side by side and compared.
//!
//! A query belongs to one arm, by a hash of its id, as long as names and shares stay as they are:
//! nobody is shown the answers of two. Without `[[serve.arms]]` there is one, without a name, and
//! nothing says that there are arms at all.
//!
//! Must never know: what an answer is made of.

use std::sync::Arc;

use millrace_events::id_key;
use serde_json::Value;

use super::Version;
use super::metrics::ServeMetrics;
use super::problem::Problem;
use super::query::View;
use super::recall::Samples;
use super::recent::Recent;
use super::request::{Fields, Wanted};
use super::shelf::Shelf;
use super::standing::{Standing, State};
use super::withdrawn::Withdrawn;
use crate::config::{ArmConfig, ServeConfig, alternatives};
use crate::telemetry::Registry;

/// One of them.
pub(super) struct Arm {
    /// Empty: there is no other, and it has none.
    name: String,
    pub(super) share: f64,
    pub(super) stock: Stock,
    pub(super) metrics: Arc<ServeMetrics>,
    /// Answers that are held against the exact ones.
    pub(super) samples: Samples,
}

/// All of them, in the order of the config; at least one.
pub(super) struct Arms(Vec<Arm>);

/// What answers are made of.
#[derive(Clone)]
pub(super) struct Stock {
    pub(super) shelf: Arc<Shelf>,
    pub(super) recent: Arc<Recent>,
    pub(super) standing: Arc<Standing>,
    pub(super) withdrawn: Arc<Withdrawn>,
}

impl Stock {
    /// Nothing yet.
    pub(super) fn new(config: &ServeConfig) -> Self {
        let state = if config.follow { State::Waiting } else { State::Off };
        Self {
            shelf: Arc::new(Shelf::new(config.keep_versions)),
            recent: Arc::new(Recent::new(config.follow_bytes_max)),
            standing: Arc::new(Standing::new(state)),
            withdrawn: Arc::default(),
        }
    }
}

impl Arm {
    /// Its name; none: there are no arms.
    pub(super) fn name(&self) -> Option<&str> {
        Some(&*self.name).filter(|name| !name.is_empty())
    }

    /// `version`, and what is known behind it.
    pub(super) fn view<'v>(&'v self, version: &'v Version) -> View<'v> {
        let Stock { recent, withdrawn, .. } = &self.stock;
        View { version, recent, withdrawn, arm: self.name() }
    }

    fn active(&self) -> Option<Arc<Version>> {
        self.stock.shelf.row().active.clone()
    }

    fn version(&self, named: Option<&str>) -> Result<Arc<Version>, Problem> {
        let row = self.stock.shelf.row();
        let Some(active) = &row.active else { return Err(Problem::no_version()) };
        let Some(id) = named else { return Ok(Arc::clone(active)) };
        row.get(id).cloned().ok_or_else(|| Problem::gone(id, row.ids()))
    }
}

impl Arms {
    /// Nothing in any yet.
    ///
    /// # Errors
    /// No threads can be had.
    pub(super) fn new(config: &ServeConfig, arms: &[ArmConfig]) -> std::io::Result<Self> {
        let arm = |arm: &ArmConfig| {
            let registry = match &*arm.name {
                "" => Registry::new(),
                name => Registry::labelled("arm", name),
            };
            let metrics = Arc::new(ServeMetrics::new(registry));
            Ok(Arm {
                name: arm.name.clone(),
                share: arm.share,
                stock: Stock::new(config),
                samples: Samples::start(&metrics)?,
                metrics,
            })
        };
        Ok(Self(arms.iter().map(arm).collect::<std::io::Result<_>>()?))
    }

    /// All of them.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Arm> {
        self.0.iter()
    }

    /// The arm at this place.
    pub(super) fn at(&self, place: usize) -> &Arm {
        &self.0[place]
    }

    /// Whether there is more than one.
    pub(super) fn are_several(&self) -> bool {
        self.0.len() > 1
    }

    /// The series of all of them.
    pub(super) fn registry(&self) -> Registry {
        match &self.0[..] {
            [arm] if arm.name().is_none() => arm.metrics.registry().clone(),
            arms => {
                let each = arms.iter().map(|arm| arm.metrics.registry().clone());
                Registry::new().beside(each.collect())
            }
        }
    }

    /// The place of the arm that is to answer: the one that is named, the first one that holds the
    /// version that is named, or the query's.
    ///
    /// # Errors
    /// An arm that there is not.
    pub(super) fn place(&self, wanted: Wanted<'_>) -> Result<usize, Problem> {
        if let Some(name) = wanted.arm {
            let place = self.0.iter().position(|arm| arm.name() == Some(name));
            return place.ok_or_else(|| {
                let names: Vec<_> = self.0.iter().filter_map(Arm::name).collect();
                Problem::field("arm", format!("there is no arm {name:?}; there are {names:?}"))
            });
        }
        if let Some(id) = wanted.version {
            let holds = |arm: &Arm| arm.stock.shelf.row().get(id).is_some();
            return Ok(self.0.iter().position(holds).unwrap_or(0));
        }
        Ok(wanted.query.filter(|_| self.are_several()).map_or(0, |query| self.of_query(query)))
    }

    /// The version that answers for the arm at `place`: the one that is named, or its active one.
    ///
    /// # Errors
    /// No version, or not this one.
    pub(super) fn version(
        &self,
        place: usize,
        named: Option<&str>,
    ) -> Result<Arc<Version>, Problem> {
        self.0[place].version(named)
    }

    /// The version of the first arm that has any: its config names the fields of a query.
    pub(super) fn any_version(&self) -> Option<Arc<Version>> {
        self.0.iter().find_map(Arm::active)
    }

    /// The place of a query's arm; the first one's, if the query has no id.
    fn of_query(&self, query: &Fields) -> usize {
        let Some(version) = self.any_version() else { return 0 };
        let id = id(query, &version.query_id);
        id.map_or(0, |id| self.of_id(&id))
    }

    fn of_id(&self, id: &str) -> usize {
        let shares: Vec<(&str, f64)> = self.0.iter().map(|arm| (&*arm.name, arm.share)).collect();
        split(&shares, id)
    }
}

/// The place of the arm that `id` belongs to, of arms with these names and shares. Arms with other
/// names split the same ids otherwise, so that an experiment does not inherit the groups of the one
/// before.
fn split(arms: &[(&str, f64)], id: &str) -> usize {
    let names: Vec<&str> = arms.iter().map(|(name, _)| *name).collect();
    let key = id_key(format!("{}\n{id}", names.join("\n")).as_bytes());
    // 53 bits: each of them counts in a f64.
    let mut at = (key >> 11) as f64 / (1u64 << 53) as f64;
    at *= arms.iter().map(|(_, share)| share).sum::<f64>();
    let place = arms.iter().position(|(_, share)| {
        at -= share;
        at < 0.0
    });
    place.unwrap_or(arms.len() - 1)
}

/// A query's id, which its log has in `field`, as text.
fn id(query: &Fields, field: &str) -> Option<String> {
    alternatives(field).find_map(|path| text_at(query, path))
}

/// What lies at `path` of a query's fields: dots reach into objects.
fn text_at(query: &Fields, path: &str) -> Option<String> {
    let (outer, inner) = path.split_once('.').unwrap_or((path, ""));
    match query.get(outer)? {
        Value::Object(object) if !inner.is_empty() => text_at(object, inner),
        Value::String(id) => (!id.is_empty()).then(|| id.clone()),
        Value::Null | Value::Object(_) | Value::Array(_) => None,
        scalar => Some(scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_are_split_by_share_and_stay_where_they_are() {
        let arms = [("old", 0.9), ("new", 0.1)];
        let places: Vec<usize> = (0..20_000).map(|id| split(&arms, &format!("u{id}"))).collect();
        let new = places.iter().filter(|place| **place == 1).count();
        assert!((1850..2150).contains(&new), "{new} of 20000");
        assert_eq!(places[7], split(&[("old", 9.0), ("new", 1.0)], "u7"), "shares are relative");
        // Another experiment has other groups: a tenth of the tenth.
        let others = [("old", 0.9), ("newer", 0.1)];
        let both =
            (0..20_000).filter(|id| places[*id] == 1 && split(&others, &format!("u{id}")) == 1);
        let both = both.count();
        assert!((120..300).contains(&both), "{both} of {new}");
        // An arm that is given more keeps those that it has.
        let grown = [("old", 0.5), ("new", 0.5)];
        assert!((0..20_000).all(|id| places[id] == 0 || split(&grown, &format!("u{id}")) == 1));
    }

    #[test]
    fn an_id_is_read_where_the_config_says_and_a_number_is_its_digits() {
        let query = json!({ "user": { "id": 858 }, "name": "a", "none": null });
        let query = query.as_object().expect("an object");
        assert_eq!(id(query, "user.id").as_deref(), Some("858"));
        assert_eq!(id(query, "name").as_deref(), Some("a"));
        assert_eq!(id(query, "none | nobody | user.id").as_deref(), Some("858"));
        for absent in ["none", "user", "user.name", "other"] {
            assert_eq!(id(query, absent), None, "{absent}");
        }
    }
}
