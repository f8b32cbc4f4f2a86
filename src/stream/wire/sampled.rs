//! The values of a topic that nobody has described yet, as JSON texts: what are they, and what do
//! they hold?
//!
//! Must never know: where they came from, and what is made of them.

use anyhow::bail;
use serde_json::Value;

use super::{Reader, Wire, framed};
use crate::config::{Config, RecordFormat};
use crate::stream::decode::{Content, in_hex};

/// Values as JSON.
#[derive(Debug, Default)]
pub struct Sampled {
    /// What `kafka.format` must say; none: they are JSON as they are.
    pub format: Option<RecordFormat>,
    /// Those that could be read.
    pub lines: Vec<Vec<u8>>,
    /// How many others there are, and what is wrong with the first one.
    pub unread: Option<(usize, String)>,
}

impl Sampled {
    /// As `config` has it: its format, its registry, its schema's file. Where it names no format,
    /// the values say it, and the registry does.
    ///
    /// # Errors
    /// The registry is not named, does not answer, or refuses us; the schema's file is none; or no
    /// value can be read.
    pub(in crate::stream) fn new(config: &Config, values: Vec<Vec<u8>>) -> anyhow::Result<Sampled> {
        let format = match config.kafka.format {
            RecordFormat::Json => format_of(config, &values)?,
            named => Some(named),
        };
        let Some(format) = format else {
            return Ok(Sampled { lines: values, ..Sampled::default() });
        };
        let mut config = config.clone();
        config.kafka.format = format;
        let wire = Wire::open(&config)?;
        let mut reader = Reader::new(&wire);
        let mut sampled = Sampled { format: Some(format), ..Sampled::default() };
        for value in &values {
            wire.wait_for_schema(Some(value))?;
            match text(&mut reader, value) {
                Ok(text) => sampled.lines.push(text),
                Err(reason) => sampled.unread.get_or_insert((0, reason)).0 += 1,
            }
        }
        match &sampled.unread {
            Some((count, reason)) if sampled.lines.is_empty() => {
                bail!("none of {count} records can be read, the first because {reason}")
            }
            _ => Ok(sampled),
        }
    }
}

/// What values are whose format nobody named; none: not behind the ids of schemas.
fn format_of(config: &Config, values: &[Vec<u8>]) -> anyhow::Result<Option<RecordFormat>> {
    let behind: Vec<(u32, &[u8])> = values.iter().filter_map(|value| framed(value)).collect();
    let Some(&(id, first)) = behind.first() else { return Ok(None) };
    if 2 * behind.len() < values.len() {
        return Ok(None);
    }
    let is_json = |(_, rest): &(u32, &[u8])| {
        matches!(serde_json::from_slice(rest), Ok(Value::Object(_) | Value::Array(_)))
    };
    if behind.iter().all(is_json) {
        return Ok(Some(RecordFormat::JsonSchema));
    }
    if config.registry.url.is_empty() {
        bail!(
            "{} of {} records are in the Confluent wire format: a zero byte, the id of a schema \
             (of the first one {id}), and what that schema describes ({} ..). Name the registry \
             that has it: --set registry.url=http://HOST:8081 (Apicurio: \
             http://HOST:8080/apis/ccompat/v7), and if it asks who you are --set \
             registry.user=env:NAME --set registry.password=env:NAME",
            behind.len(),
            values.len(),
            in_hex(&first[..first.len().min(8)])
        );
    }
    #[cfg(feature = "registry")]
    return super::registry::format_of(config, id).map(Some);
    #[cfg(not(feature = "registry"))]
    bail!("a registry is not asked by this build: build it with the feature `registry`");
}

fn text(reader: &mut Reader, value: &[u8]) -> Result<Vec<u8>, String> {
    match reader.content(Some(value)).map_err(|error| error.to_string())? {
        Content::Text(text) => Ok(text.unwrap_or_default().to_vec()),
        #[cfg(feature = "registry")]
        Content::Datum(schema, datum) => Ok(schema.json(datum)?.to_string().into_bytes()),
    }
}
