//! A saved state, as its reader sees it: sections by name, in parts, and the one error of the
//! trainer.

use serde::Deserialize;

/// A part of a section, as a checkpoint holds it.
#[derive(Clone, Copy, Debug)]
pub enum SavedPart<'a> {
    /// All of the section.
    Whole(&'a [u8]),
    /// What has changed of it since the part before.
    Increment(&'a [u8]),
}

/// Takes the parts of a section, one after the other.
pub type TakePart<'a> = &'a mut dyn FnMut(SavedPart<'_>) -> Result<(), Damaged>;

/// Gives the parts of a section by its name: all of it first, then each increment, oldest first.
pub type ReadSection<'a> = &'a dyn Fn(&str, TakePart<'_>) -> Result<(), Damaged>;

/// What a section that is always saved whole holds, as `load` reads it.
pub(crate) fn whole<T>(
    read: ReadSection<'_>,
    name: &str,
    load: impl FnMut(&[u8]) -> Result<T, Damaged>,
) -> Result<T, Damaged> {
    let refuse = |_: &mut T, _: &[u8]| {
        Err(Damaged(format!("section {name} does not come in increments: damaged")))
    };
    grown(read, name, load, refuse)
}

/// What a section holds: `load` reads all of it, `apply` takes in an increment. Their errors are
/// told with the section's name.
pub(crate) fn grown<T>(
    read: ReadSection<'_>,
    name: &str,
    mut load: impl FnMut(&[u8]) -> Result<T, Damaged>,
    mut apply: impl FnMut(&mut T, &[u8]) -> Result<(), Damaged>,
) -> Result<T, Damaged> {
    let mut loaded = None;
    read(name, &mut |part| match part {
        SavedPart::Whole(bytes) => {
            loaded = Some(load(bytes).map_err(|damaged| damaged.of(name))?);
            Ok(())
        }
        SavedPart::Increment(bytes) => match &mut loaded {
            Some(loaded) => apply(loaded, bytes).map_err(|damaged| damaged.of(name)),
            None => Err(Damaged(format!("section {name} begins with an increment: damaged"))),
        },
    })?;
    loaded.ok_or_else(|| Damaged(format!("section {name} has no content: damaged")))
}

/// Decodes all of `bytes`, which are `what`.
pub(crate) fn decode<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, Damaged> {
    let (value, rest) = decode_first(what, bytes)?;
    if !rest.is_empty() {
        return Err(Damaged::undecodable(what, "there are bytes behind its end"));
    }
    Ok(value)
}

/// Decodes the first of `bytes`, which are `what`; and those behind it.
pub(crate) fn decode_first<'a, T: Deserialize<'a>>(
    what: &str,
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), Damaged> {
    postcard::take_from_bytes(bytes).map_err(|error| Damaged::undecodable(what, error))
}

/// A saved state that is missing, damaged or of another shape; the text says what and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub String);

impl Damaged {
    /// The same, told with the section's name.
    pub(crate) fn of(self, section: &str) -> Self {
        Self(format!("section {section}: {self}"))
    }

    /// A part that does not decode, and why.
    pub(crate) fn undecodable(what: &str, why: impl std::fmt::Display) -> Self {
        Self(format!("{what} does not decode: {why}"))
    }
}

impl From<String> for Damaged {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Damaged {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
