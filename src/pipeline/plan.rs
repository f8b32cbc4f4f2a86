//! The task of a run: the part of the log to read, how often, and whether to publish.

use crate::stream::cut::Cut;
use crate::stream::position::Position;

/// The part of the log that a run reads, and the treatment of its checkpoints.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// The beginning, if there is no checkpoint.
    pub from: Position,
    /// The end; `None`: there is none.
    pub to: Option<Position>,
    /// How often the range is read over the life of the state; 1: once.
    pub passes: u32,
    /// Makes batches smaller than they need to be.
    pub cut: Cut,
    /// Sets existing checkpoints aside instead of going on from the newest.
    pub fresh: bool,
    /// Whether it publishes.
    pub publication: Publication,
}

impl RunPlan {
    /// Reads without end, and publishes.
    pub fn live(from: Position) -> RunPlan {
        RunPlan {
            from,
            to: None,
            passes: 1,
            cut: Cut::Full,
            fresh: false,
            publication: Publication::Live,
        }
    }

    /// Reads a bounded range once, and publishes nothing.
    pub fn replay(from: Position, to: Position) -> RunPlan {
        let to = Some(to);
        RunPlan { to, publication: Publication::Never, ..RunPlan::live(from) }
    }
}

/// Whether, and how firmly, a run publishes its checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// Nothing is published, and no producer is made.
    Never,
    /// Every `publish.every_checkpoints`-th checkpoint. A failure is counted and logged, since the
    /// next version replaces the one that failed; a stop does not wait for a sweep over the corpus.
    Live,
    /// The same and the last checkpoint, whatever stops the run. A failure ends the run: it would
    /// not do what it was started for.
    Complete,
}
