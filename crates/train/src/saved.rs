//! A saved state, as its reader sees it: sections by name, and the one error of the trainer.

/// Bytes of a part of the state, by section name.
pub type ReadSection<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, Damaged>;

/// A saved state that is missing, damaged or of another shape; the text says what and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub String);

impl Damaged {
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
