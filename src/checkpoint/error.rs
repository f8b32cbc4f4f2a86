//! Why a checkpoint cannot be written, found or read.

use std::io;
use std::path::PathBuf;

/// An error of work on checkpoints: it says what failed and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A checkpoint is not what was written; an older one may be good.
    #[error("{0}")]
    Damaged(String),
    /// A checkpoint of another program version.
    #[error(
        "format version {found} is unknown to this program, which reads up to {known}; use the \
         version that wrote it, or another checkpoint directory"
    )]
    UnknownFormat {
        /// Its layout.
        found: u32,
        /// The newest layout that this program reads.
        known: u32,
    },
    /// A file or directory does not do what it should.
    #[error("{what}: {error}")]
    Disk {
        /// The attempted work.
        what: String,
        /// The system's answer.
        error: io::Error,
    },
    /// Another trainer has the directory.
    #[error(
        "checkpoint directory {} is in use by {owner}: one trainer per directory; stop that one, \
         or give this one a directory of its own",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// Its trainer.
        owner: String,
    },
    /// No good checkpoint lies at the given place.
    #[error("{0}")]
    Missing(String),
    /// The caller asks for what no directory can hold.
    #[error("{0}")]
    Impossible(String),
    /// A step of some larger work failed.
    #[error("{what}: {cause}")]
    During {
        /// The work.
        what: String,
        /// Why it failed.
        cause: Box<CheckpointError>,
    },
}

/// The result of work on checkpoints.
pub(super) type Result<T> = std::result::Result<T, CheckpointError>;

impl CheckpointError {
    /// This error, as the reason why `what` failed.
    #[must_use]
    pub(super) fn during(self, what: String) -> CheckpointError {
        CheckpointError::During { what, cause: Box::new(self) }
    }

    /// Whether it speaks of a damaged checkpoint, not of one that is kept from us.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            CheckpointError::Damaged(_) => true,
            CheckpointError::Disk { error, .. } => error.kind() != io::ErrorKind::PermissionDenied,
            CheckpointError::During { cause, .. } => cause.is_damage(),
            CheckpointError::UnknownFormat { .. }
            | CheckpointError::InUse { .. }
            | CheckpointError::Missing(_)
            | CheckpointError::Impossible(_) => false,
        }
    }
}

/// Says what was to be done when the system refused it.
pub(super) fn disk(what: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> CheckpointError {
    |error| CheckpointError::Disk { what: what(), error }
}
