//! Catalogues: which records of their topics a run reads, and which of them come before its first
//! event.
//!
//! Owns the rules of where a catalogue begins and goes on. Must never know: what a record says.

mod tail;

use anyhow::{Context, bail};
use millrace_events::{CataloguePlace, Offsets};

use super::topic::{Topic, Watermarks};
use super::verdict;
use crate::config::{CatalogueBegin, CatalogueConfig, Config};
pub use tail::{CatalogueTail, Said};

/// What a source reads of a catalogue's topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueRange {
    /// The next offset to read of every partition.
    pub from: Offsets,
    /// What lies before these comes before the first event, whatever its time.
    pub bootstrap: Offsets,
    /// The end of each partition; none: there is none.
    pub to: Option<Offsets>,
}

/// Catalogue and partition of lane -1, -2 and so on of the merge.
pub fn lanes(ranges: &[CatalogueRange]) -> Vec<(usize, i32)> {
    let of = |(catalogue, range): (usize, &CatalogueRange)| {
        range.from.iter().map(move |(partition, _)| (catalogue, partition)).collect::<Vec<_>>()
    };
    ranges.iter().enumerate().flat_map(of).collect()
}

/// The places among `stored` at which catalogues of `config` go on: those that are read as before.
pub fn known(config: &Config, stored: &[CataloguePlace]) -> Vec<CataloguePlace> {
    let is_known =
        |place: &&CataloguePlace| config.catalogue.iter().any(|catalogue| is_of(catalogue, place));
    stored.iter().filter(is_known).cloned().collect()
}

fn is_of(catalogue: &CatalogueConfig, place: &CataloguePlace) -> bool {
    place.next.topic() == catalogue.topic && place.reading == catalogue.reading()
}

/// The places of all catalogues of `config`, in order: those of `known` go on, the others begin.
/// `live`: without an end.
///
/// # Errors
/// A topic that is not there or not the one it was, or brokers that do not answer.
pub fn places(
    config: &Config,
    known: &[CataloguePlace],
    live: bool,
) -> anyhow::Result<Vec<CataloguePlace>> {
    let place = |catalogue: &CatalogueConfig| {
        let bounds = bounds(config, catalogue)?;
        let Some(place) = known.iter().find(|place| is_of(catalogue, place)) else {
            return begin(catalogue, &bounds, live);
        };
        let verdict = verdict::judge(&place.next, &bounds, &[], config.kafka.on_data_loss)?;
        verdict.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(CataloguePlace { next: verdict.offsets, ..place.clone() })
    };
    config.catalogue.iter().map(place).collect()
}

/// The same as of a state that has read nothing: catalogues begin anew, and what came before its
/// first event comes before it again.
///
/// # Errors
/// As of [`places`].
pub fn again(
    config: &Config,
    stored: &[CataloguePlace],
    live: bool,
) -> anyhow::Result<Vec<CataloguePlace>> {
    let mut places = places(config, &[], live)?;
    for place in &mut places {
        if let Some(before) = stored.iter().find(|before| before.next.topic() == place.next.topic())
        {
            place.bootstrap.clone_from(&before.bootstrap);
        }
    }
    Ok(places)
}

fn begin(
    catalogue: &CatalogueConfig,
    bounds: &Watermarks,
    live: bool,
) -> anyhow::Result<CataloguePlace> {
    let topic = catalogue.topic.as_str();
    let (mut next, mut bootstrap) = (Offsets::new(topic), Offsets::new(topic));
    let at_end = match catalogue.begin {
        CatalogueBegin::End => true,
        CatalogueBegin::PointInTime => false,
        CatalogueBegin::Auto => live,
    };
    if !catalogue.end.is_empty() && catalogue.end.len() != bounds.len() {
        let (given, there) = (catalogue.end.len(), bounds.len());
        bail!("the end of `{topic}` is given for {given} partitions; it has {there}");
    }
    for (place, (&partition, &(low, high))) in bounds.iter().enumerate() {
        let end = match catalogue.end.get(place) {
            Some(&end) if end > high => {
                bail!("partition {partition} of `{topic}` ends at {high}, before {end}")
            }
            Some(&end) => end,
            None if at_end => high,
            None => 0,
        };
        next.advance(partition, low);
        bootstrap.advance(partition, end);
    }
    Ok(CataloguePlace { side: catalogue.side, reading: catalogue.reading(), next, bootstrap })
}

/// What a run reads from these `places` on: to the ends that there are now if it is `bounded`.
///
/// # Errors
/// As of [`places`].
pub fn ranges(
    config: &Config,
    places: &[CataloguePlace],
    bounded: bool,
) -> anyhow::Result<Vec<CatalogueRange>> {
    let range = |(catalogue, place): (&CatalogueConfig, &CataloguePlace)| {
        let mut range = CatalogueRange {
            from: place.next.clone(),
            bootstrap: place.bootstrap.clone(),
            to: None,
        };
        if bounded {
            let mut to = Offsets::new(catalogue.topic.as_str());
            let bounds = bounds(config, catalogue)?;
            bounds.iter().for_each(|(&partition, &(_, high))| to.advance(partition, high));
            range.to = Some(to);
        }
        Ok(range)
    };
    config.catalogue.iter().zip(places).map(range).collect()
}

fn bounds(config: &Config, catalogue: &CatalogueConfig) -> anyhow::Result<Watermarks> {
    let topic = Topic::named(&catalogue.topic, config)?;
    topic.watermarks().with_context(|| format!("the catalogue `{}`", catalogue.topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(begin: CatalogueBegin, end: &[i64]) -> CatalogueConfig {
        let topic = "items".to_owned();
        CatalogueConfig { topic, begin, end: end.to_vec(), ..CatalogueConfig::default() }
    }

    #[test]
    fn a_catalogue_begins_with_what_there_is_or_with_nothing() {
        let bounds = Watermarks::from([(0, (3, 50)), (1, (0, 7))]);
        let ends = |begin, end: &[i64], live| {
            let place = super::begin(&catalogue(begin, end), &bounds, live).expect("valid");
            assert_eq!(place.next.iter().collect::<Vec<_>>(), [(0, 3), (1, 0)]);
            place.bootstrap.iter().map(|(_, end)| end).collect::<Vec<_>>()
        };
        use CatalogueBegin::{Auto, End, PointInTime};
        assert_eq!(ends(Auto, &[], true), [50, 7]);
        assert_eq!(ends(Auto, &[], false), [0, 0]);
        assert_eq!(ends(PointInTime, &[], true), [0, 0]);
        assert_eq!(ends(End, &[], false), [50, 7]);
        assert_eq!(ends(End, &[40, 7], false), [40, 7]);
        for (end, said) in [(&[40][..], "2"), (&[51, 7], "ends at 50")] {
            let error = super::begin(&catalogue(End, end), &bounds, true).expect_err("wrong");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn a_catalogue_that_is_read_in_another_way_begins_anew() {
        let mut config =
            Config { catalogue: vec![catalogue(CatalogueBegin::Auto, &[])], ..Config::default() };
        let bounds = Watermarks::from([(0, (0, 5))]);
        let places = [begin(&config.catalogue[0], &bounds, true).expect("valid")];
        assert_eq!(known(&config, &places), places);
        config.catalogue[0].begin = CatalogueBegin::PointInTime;
        assert_eq!(known(&config, &places), places, "where it begins is not how it is read");
        config.catalogue[0].id = "sku".to_owned();
        assert_eq!(known(&config, &places), []);
        config.catalogue.clear();
        assert_eq!(known(&config, &places), []);
    }
}
