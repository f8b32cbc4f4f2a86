//! A saved state, as its reader sees it: sections by name, in parts, and the one error of the
//! trainer.

use std::io::Read;

use serde::Deserialize;

/// A part of a section, as a checkpoint holds it.
pub enum SavedPart<'a> {
    /// All of the section.
    Whole(SavedBytes<'a>),
    /// What has changed of it since the part before.
    Increment(SavedBytes<'a>),
}

/// The bytes of a part, read from the front: a large one is never in memory as a whole.
pub struct SavedBytes<'a> {
    source: Box<dyn Read + 'a>,
    left: u64,
}

impl<'a> SavedBytes<'a> {
    /// The next `length` bytes of `source`.
    pub fn new(source: impl Read + 'a, length: u64) -> Self {
        Self { source: Box::new(source), left: length }
    }

    /// Those of a slice.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self::new(bytes, bytes.len() as u64)
    }

    /// How many are to come.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Fills `out` with the next ones.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<(), Damaged> {
        let wanted = out.len() as u64;
        self.left = self.left.checked_sub(wanted).ok_or("section ends too early: truncated")?;
        self.source.read_exact(out).map_err(|error| Damaged(format!("cannot read it: {error}")))
    }

    /// The next `N`.
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// All that are to come.
    fn all(mut self) -> Result<Vec<u8>, Damaged> {
        let mut bytes = vec![0; usize::try_from(self.left).map_err(|_| "too long to read")?];
        self.read(&mut bytes)?;
        Ok(bytes)
    }
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
    let apply = |loaded: &mut T, bytes: SavedBytes<'_>| apply(loaded, &bytes.all()?);
    streamed(read, name, |bytes| load(&bytes.all()?), apply)
}

/// The same, for a section that may be large.
pub(crate) fn streamed<T>(
    read: ReadSection<'_>,
    name: &str,
    mut load: impl FnMut(SavedBytes<'_>) -> Result<T, Damaged>,
    mut apply: impl FnMut(&mut T, SavedBytes<'_>) -> Result<(), Damaged>,
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
