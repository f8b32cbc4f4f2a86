//! The error for a person's word that does not have the required form.

/// A message that quotes the word and lists the forms that would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongForm(pub(super) String);
