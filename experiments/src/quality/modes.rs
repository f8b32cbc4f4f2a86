//! What is compared: settings on top of a data set's config.

/// One way of training and ranking.
pub(super) struct Mode {
    /// Its key in quality.json.
    pub(super) name: &'static str,
    /// What it is, for the report.
    pub(super) what: &'static str,
    /// `--set` overrides.
    pub(super) set: &'static [&'static str],
}

const PLAIN: Mode = Mode {
    name: "plain",
    what: "in-batch softmax (paper, eq. 3)",
    set: &["loss.correction=plain", "negatives.mixed=0", "loss.mask_same_query=false"],
};
const CORRECTED: Mode = Mode {
    name: "corrected",
    what: "log q subtracted from every logit (eq. 4)",
    set: &["negatives.mixed=0", "loss.mask_same_query=false"],
};
const EXCLUDED: Mode = Mode {
    name: "corrected_positive_excluded",
    what: "positive uncorrected and outside the sum (Khrylchenko et al. 2025)",
    set: &[
        "loss.correction=corrected_positive_excluded",
        "negatives.mixed=0",
        "loss.mask_same_query=false",
    ],
};
const ADAGRAD: Mode = Mode {
    name: "corrected_adagrad",
    what: "eq. 4 with sums of squares that only grow, as in the paper",
    set: &[
        "negatives.mixed=0",
        "loss.mask_same_query=false",
        "embedding.accumulator_decay=1",
        "optimizer.accumulator_decay=1",
    ],
};
const MIXED: Mode = Mode {
    name: "mixed",
    what: "eq. 4 and 2,048 items drawn uniformly from the corpus (Yang et al. 2020)",
    set: &["negatives.mixed=2048", "loss.mask_same_query=false"],
};
const MIXED_MASKED: Mode = Mode {
    name: "mixed_masked",
    what: "the same, other events of the same query being no negatives",
    set: &["negatives.mixed=2048", "loss.mask_same_query=true"],
};
const CROSS_BATCH: Mode = Mode {
    name: "cross_batch",
    what: "eq. 4 and the 2,048 last item vectors as negatives (Wang et al. 2021)",
    set: &["negatives.mixed=0", "loss.mask_same_query=false", "negatives.cross_batch=2048"],
};

/// Modes that are measured on held-out events.
pub(super) const HELD_OUT: [Mode; 7] =
    [PLAIN, ADAGRAD, CORRECTED, EXCLUDED, MIXED, MIXED_MASKED, CROSS_BATCH];
