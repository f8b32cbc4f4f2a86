//! The versions in memory, as JSON, and which of them answers.

use serde::Serialize;
use utoipa::ToSchema;

use super::Version;
use super::arms::{Arm, Arms};
use super::shelf::Row;
use super::standing::{Histories, Known};

/// What `GET /v1/versions` answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Listed<'v> {
    /// Whose versions they are, where there are arms.
    #[serde(skip_serializing_if = "Option::is_none")]
    arm: Option<&'v str>,
    /// All arms, in the order of the config.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    arms: Vec<ListedArm<'v>>,
    /// A person chose the one that answers; a newer one does not take its place.
    held: bool,
    /// Newest first.
    versions: Vec<Described<'v>>,
    histories: Histories,
}

/// One of `serve.arms`.
#[derive(Serialize, ToSchema)]
struct ListedArm<'v> {
    arm: &'v str,
    /// Of the sum of all shares.
    share: f64,
}

/// What `POST /v1/versions/{id}/activate` answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Activated<'v> {
    /// Of this arm, where there are arms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arm: Option<&'v str>,
    /// It answers from now on.
    pub(super) version: &'v str,
    /// Newer ones do not take its place.
    pub(super) held: bool,
}

/// One version.
#[derive(Serialize, ToSchema)]
pub(super) struct Described<'v> {
    version: &'v str,
    run: &'v str,
    step: u64,
    /// Time of the newest event it was trained on, ms since 1970.
    event_time_ms: i64,
    /// Up to where it was trained.
    offsets: Known<'v>,
    digest: &'v str,
    items: usize,
    /// Answers are exact.
    exact: bool,
    index_bytes: usize,
    /// Since its checkpoint was written.
    age_seconds: f64,
    /// It answers who names none.
    active: bool,
}

/// `GET /v1/versions`
pub(super) fn listed<'v>(row: &'v Row, arm: &'v Arm, arms: &'v Arms) -> Listed<'v> {
    let named = arms.iter().filter_map(|arm| Some((arm.name()?, arm.share)));
    let arms = named.map(|(arm, share)| ListedArm { arm, share }).collect();
    let versions = row.versions.iter();
    let versions = versions.map(|version| described(version, row.is_active(version))).collect();
    let histories = arm.stock.standing.described();
    Listed { arm: arm.name(), arms, held: row.held, versions, histories }
}

/// `version`, which is the one that answers or not.
fn described(version: &Version, active: bool) -> Described<'_> {
    Described {
        version: &version.id,
        run: &version.run,
        step: version.step,
        event_time_ms: version.event_time_ms,
        offsets: Known::of(&version.offsets),
        digest: &version.digest,
        items: version.items(),
        exact: version.index.is_exact(),
        index_bytes: version.index.bytes(),
        age_seconds: version.made.elapsed().unwrap_or_default().as_secs_f64(),
        active,
    }
}
