//! A word of a person that has not the form it should have.

/// What was written, and the forms that would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongForm(pub(super) String);
