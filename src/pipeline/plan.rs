//! What a run is to do: where it reads, how often, and whether it publishes.

use crate::stream::cut::Cut;
use crate::stream::position::Position;

/// What part of the log a run reads, and what becomes of it.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// Where to begin without a checkpoint.
    pub from: Position,
    /// Where to end; `None`: never.
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
    /// Reads on without end, and publishes.
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
