//! What a step tells its caller: its phases as they begin, and what came of it.

/// What a step is doing. The caller who has a clock measures the phases; the trainer has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Histories and statistics; which items are distinct.
    Estimate,
    /// Rows are found or created and pooled; beside it, the frequency estimator.
    Gather,
    /// Both towers.
    Forward,
    /// The loss and its gradient.
    Loss,
    /// Back through the towers, dense update included.
    Backward,
    /// Row-wise update; beside it, the corpus.
    Update,
}

impl Phase {
    /// The `phase` label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Estimate => "estimate",
            Self::Gather => "gather",
            Self::Forward => "forward",
            Self::Loss => "loss",
            Self::Backward => "backward",
            Self::Update => "update",
        }
    }
}

/// What a step found out.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Mean loss over the usable events of the batch. Not finite: no weight and no row moved; what
    /// counts events (the estimator, histories, statistics) has moved on all the same.
    pub loss: f32,
    /// Rank of each usable event's item among the distinct items of the last `candidates` events,
    /// before training on it. Meaningless if the loss is not finite.
    pub ranks: Vec<u32>,
    /// What each ranked event is worth.
    pub rewards: Vec<f32>,
    /// Events that ranks are among: those of a full batch, once so many have come.
    pub candidates: usize,
    /// Events, by place in the batch, whose vectors were not finite: nothing was learned from them.
    pub unusable: Vec<u32>,
    /// Rows that stayed as they were because their gradient was not finite.
    pub nonfinite_rows: usize,
}
