//! Checks of `[[catalogue]]`.

use crate::config::{
    CatalogueBegin, CatalogueConfig, Condition, Config, Faults, FeatureKind, Order, RecordFormat,
    Step, alternatives, beside, steps,
};

impl Config {
    pub(super) fn validate_catalogues(&self, faults: &mut Faults) {
        if !self.catalogue.is_empty() && self.kafka.order == Order::Arrival {
            let reason = "must be \"event_time\" with a [[catalogue]]: which word of it an event \
                          sees is a matter of time";
            faults.add("kafka.order", reason);
        }
        for (index, catalogue) in self.catalogue.iter().enumerate() {
            let key = format!("catalogue[{index}]");
            if catalogue.topic.is_empty() {
                faults.add(format!("{key}.topic"), "must not be empty");
            }
            let output = [&self.publish.topic, &self.publish.versions_topic];
            let others = [&self.kafka.topic, &self.kafka.dead_letter_topic];
            if others.into_iter().chain(output).any(|other| *other == catalogue.topic) {
                let reason = format!("`{}` has another use in this config", catalogue.topic);
                faults.add(format!("{key}.topic"), reason);
            }
            let before = &self.catalogue[..index];
            if before.iter().any(|other| other.side == catalogue.side) {
                let reason = "is that of another [[catalogue]]: there is one a side; join them in \
                              one topic";
                faults.add(format!("{key}.side"), reason);
            }
            if !matches!(
                catalogue.format,
                RecordFormat::Json | RecordFormat::Debezium | RecordFormat::CloudEvents
            ) {
                let reason = "a catalogue is in \"json\", \"debezium\" or \"cloudevents\"";
                faults.add(format!("{key}.format"), reason);
            }
            self.validate_catalogue(&key, catalogue, faults);
        }
    }

    fn validate_catalogue(&self, key: &str, catalogue: &CatalogueConfig, faults: &mut Faults) {
        let path = |faults: &mut Faults, name: String, path: &str| match one_of_a_record(path) {
            Ok(()) => {}
            Err(reason) => faults.add(format!("{key}.{name}"), reason),
        };
        path(faults, "id".to_owned(), &catalogue.id);
        let side = self.side(catalogue.side);
        for (name, field) in &catalogue.features {
            path(faults, format!("features.{name}"), field);
            let feature = side.features.iter().find(|feature| feature.name == *name);
            let kept = |kind| kind == FeatureKind::History;
            if feature.is_none_or(|feature| kept(feature.kind)) {
                let names = side.features.iter().filter(|feature| !kept(feature.kind));
                let names: Vec<&str> = names.map(|feature| feature.name.as_str()).collect();
                let reason = format!("no such feature; a catalogue can have {names:?}");
                faults.add(format!("{key}.features.{name}"), reason);
            }
        }
        for (index, field) in catalogue.attributes.iter().enumerate() {
            path(faults, format!("attributes[{index}]"), field);
        }
        if let Some(Condition { field, equals, one_of, exists }) = &catalogue.hidden {
            path(faults, "hidden.field".to_owned(), field);
            let tests = [equals.is_some(), !one_of.is_empty(), exists.is_some()];
            if tests.into_iter().filter(|given| *given).count() != 1 {
                let reason = "one of `equals`, `in` and `exists` must be given";
                faults.add(format!("{key}.hidden"), reason);
            }
        }
        if !catalogue.end.is_empty() && catalogue.begin != CatalogueBegin::End {
            faults.add(format!("{key}.end"), "needs begin = \"end\"");
        }
        if catalogue.end.iter().any(|end| *end < 0) {
            faults.add(format!("{key}.end"), "an offset is not negative");
        }
    }
}

/// Whether a path names one value of a record.
fn one_of_a_record(field: &str) -> Result<(), String> {
    alternatives(field).try_for_each(|path| {
        if path.is_empty() {
            return Err("must name a field of the record".to_owned());
        }
        if beside(path)?.is_none() && steps(path)?.contains(&Step::Each) {
            return Err(format!("`{path}`: a record of a catalogue is of one id"));
        }
        Ok(())
    })
}
