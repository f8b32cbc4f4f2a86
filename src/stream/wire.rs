//! What the bytes of a topic's records are, as `kafka.format` says: JSON, JSON behind the id of a
//! schema, or data that only their schemas explain.
//!
//! Owns: the head of a value. Must never know: what fields are for.

#[cfg(feature = "registry")]
mod registry;
#[cfg(feature = "registry")]
mod request;
mod sampled;

#[cfg(feature = "registry")]
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::decode::{Content, DecodeError};
#[cfg(feature = "registry")]
use super::decode::{RECORD_BYTES_MAX, Schema, Text, in_hex};
use crate::config::{Config, RecordFormat};
use millrace_events::lane_place;
#[cfg(feature = "registry")]
use registry::Registry;
pub use sampled::Sampled;

/// A registry that gives no schema within this is away.
const SCHEMA_WAIT_MAX: Duration = Duration::from_secs(10);
/// One near by answers within milliseconds.
const SCHEMA_POLL: Duration = Duration::from_millis(5);

/// How values are read; all readers of a topic share what is known of its schemas.
#[derive(Clone, Debug)]
pub(in crate::stream) enum Wire {
    /// As JSON.
    Text,
    /// As JSON, behind the id of a schema or without.
    FramedText,
    /// Behind the id of a schema of a registry.
    #[cfg(feature = "registry")]
    Framed(Arc<Registry>),
    /// By one schema.
    #[cfg(feature = "registry")]
    Bare(Arc<Schema>),
}

impl Wire {
    /// As `config` has it. Nobody is asked for anything yet.
    ///
    /// # Errors
    /// A schema's file that cannot be read, or holds none.
    pub(in crate::stream) fn open(config: &Config) -> anyhow::Result<Wire> {
        match config.kafka.format {
            RecordFormat::Json | RecordFormat::Debezium | RecordFormat::CloudEvents => {
                Ok(Wire::Text)
            }
            RecordFormat::JsonSchema => Ok(Wire::FramedText),
            #[cfg(feature = "registry")]
            RecordFormat::Avro if !config.kafka.schema_file.is_empty() => {
                bare(&config.kafka.schema_file)
            }
            #[cfg(feature = "registry")]
            RecordFormat::Avro | RecordFormat::Protobuf => {
                Ok(Wire::Framed(Arc::new(Registry::open(config)?)))
            }
            #[cfg(not(feature = "registry"))]
            format => anyhow::bail!("kafka.format: {format:?} needs the feature `registry`"),
        }
    }

    /// Whether a value cannot be read yet: its schema is asked for, and not known so far.
    pub(in crate::stream) fn lacks(&self, payload: Option<&[u8]>) -> bool {
        match (self, payload) {
            #[cfg(feature = "registry")]
            (Wire::Framed(registry), Some(payload)) => {
                framed(payload).is_some_and(|(id, _)| registry.get(id).is_none())
            }
            _ => false,
        }
    }

    /// Waits until the schema of a value is known, for who cannot go on without.
    ///
    /// # Errors
    /// The registry gives none.
    pub(in crate::stream) fn wait_for_schema(&self, payload: Option<&[u8]>) -> anyhow::Result<()> {
        let deadline = Instant::now() + SCHEMA_WAIT_MAX;
        while self.lacks(payload) {
            if Instant::now() > deadline {
                let why = self.away().unwrap_or_else(|| "it does not answer".to_owned());
                anyhow::bail!("a run would wait for the schema registry: {why}");
            }
            std::thread::sleep(SCHEMA_POLL);
        }
        Ok(())
    }

    /// Why the registry gives nothing: it does not answer, or refuses us.
    pub(in crate::stream) fn away(&self) -> Option<String> {
        match self {
            #[cfg(feature = "registry")]
            Wire::Framed(registry) => registry.away(),
            _ => None,
        }
    }

    /// As [`Wire::away`], once it has refused us for so long that a person must act.
    pub(in crate::stream) fn refused(&self) -> Option<String> {
        match self {
            #[cfg(feature = "registry")]
            Wire::Framed(registry) => registry.refused(),
            _ => None,
        }
    }
}

/// How the values of each topic of a log are read.
#[derive(Clone, Debug)]
pub(in crate::stream) struct Wires(Vec<Wire>);

impl Wires {
    /// As `config` has it; topics of one format, and of one schema's file, share what is known of
    /// its schemas.
    ///
    /// # Errors
    /// As of [`Wire::open`].
    pub(in crate::stream) fn open(config: &Config) -> anyhow::Result<Wires> {
        let mut wires: Vec<((RecordFormat, String), Wire)> = Vec::new();
        for topic in config.by_topic() {
            let form = (topic.kafka.format, topic.kafka.schema_file.clone());
            let wire = match wires.iter().find(|(known, _)| *known == form) {
                Some((_, wire)) => wire.clone(),
                None => Wire::open(&topic)?,
            };
            wires.push((form, wire));
        }
        Ok(Wires(wires.into_iter().map(|(_, wire)| wire).collect()))
    }

    /// Of a single topic whose records are JSON.
    pub(in crate::stream) fn text() -> Wires {
        Wires(vec![Wire::Text])
    }

    /// Topic by topic.
    pub(in crate::stream) fn iter(&self) -> impl Iterator<Item = &Wire> {
        self.0.iter()
    }

    /// That of a lane.
    pub(in crate::stream) fn of(&self, lane: i32) -> &Wire {
        &self.0[lane_place(lane).0]
    }

    /// As [`Wire::lacks`], for a value of this lane.
    pub(in crate::stream) fn lacks(&self, lane: i32, payload: Option<&[u8]>) -> bool {
        self.of(lane).lacks(payload)
    }

    /// As [`Wire::away`], of any topic.
    pub(in crate::stream) fn away(&self) -> Option<String> {
        self.0.iter().find_map(Wire::away)
    }

    /// As [`Wire::refused`], of any topic.
    pub(in crate::stream) fn refused(&self) -> Option<String> {
        self.0.iter().find_map(Wire::refused)
    }
}

/// Reads values on one thread.
#[derive(Clone, Debug)]
pub(in crate::stream) struct Reader {
    wire: Wire,
    /// The schema of the value before, by its id: most have the same one.
    #[cfg(feature = "registry")]
    last: Option<(u32, Arc<Schema>)>,
}

impl Reader {
    pub(in crate::stream) fn new(wire: &Wire) -> Reader {
        Reader {
            wire: wire.clone(),
            #[cfg(feature = "registry")]
            last: None,
        }
    }

    /// A value, out of what it is wrapped in.
    ///
    /// # Errors
    /// It is not wrapped so, or by a schema that nobody can read by.
    pub(in crate::stream) fn content<'r>(
        &'r mut self,
        payload: Option<&'r [u8]>,
    ) -> Result<Content<'r>, DecodeError> {
        let Some(value) = payload else { return Ok(Content::Text(None)) };
        match &self.wire {
            Wire::Text => Ok(Content::Text(payload)),
            Wire::FramedText => {
                Ok(Content::Text(Some(framed(value).map_or(value, |(_, text)| text))))
            }
            #[cfg(feature = "registry")]
            Wire::Bare(schema) => {
                let datum = sized(value)?;
                let datum = match &**schema {
                    Schema::Avro(schema) => schema.bare(datum),
                    Schema::Protobuf(_) => datum,
                };
                Ok(Content::Datum(schema, datum))
            }
            #[cfg(feature = "registry")]
            Wire::Framed(registry) => {
                let (id, datum) = framed(sized(value)?).ok_or_else(|| unframed(value))?;
                if self.last.as_ref().is_none_or(|(last, _)| *last != id) {
                    // Whoever does not wait for a schema rejects its records.
                    let known = registry.get(id).unwrap_or(Err(DecodeError::UnknownSchema { id }));
                    self.last = Some((id, known?));
                }
                let (_, schema) = self.last.as_ref().expect("just set");
                Ok(Content::Datum(schema, datum))
            }
        }
    }
}

/// The id of a value's schema, and what follows.
fn framed(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (id, rest) = payload.strip_prefix(&[0])?.split_first_chunk()?;
    Some((u32::from_be_bytes(*id), rest))
}

#[cfg(feature = "registry")]
fn unframed(payload: &[u8]) -> DecodeError {
    DecodeError::Unframed { begin: in_hex(&payload[..payload.len().min(8)]) }
}

/// A value of a size worth reading.
#[cfg(feature = "registry")]
fn sized(payload: &[u8]) -> Result<&[u8], DecodeError> {
    match payload.len() {
        0 => Err(DecodeError::Empty),
        bytes if bytes > RECORD_BYTES_MAX => Err(DecodeError::TooLarge { bytes }),
        _ => Ok(payload),
    }
}

#[cfg(feature = "registry")]
fn bare(file: &str) -> anyhow::Result<Wire> {
    use anyhow::{Context as _, anyhow};
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("kafka.schema_file: cannot read {file}"))?;
    let schema = Schema::avro(&Text { text, references: Vec::new() })
        .map_err(|reason| anyhow!("kafka.schema_file: {file}: {reason}"))?;
    Ok(Wire::Bare(Arc::new(schema)))
}

#[cfg(test)]
mod tests;
