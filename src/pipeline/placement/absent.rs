//! A build without the feature `gpu`.

use anyhow::bail;

use millrace_train::placement::Placement;

/// None: this build computes on the CPU.
#[expect(clippy::unnecessary_wraps, reason = "a build with the feature may fail here")]
pub(super) fn hardware() -> anyhow::Result<Option<Placement>> {
    Ok(None)
}

pub(super) fn any() -> anyhow::Result<Placement> {
    bail!(
        "device = \"gpu\", but this program was built with --no-default-features and computes on \
         the CPU alone; build it with the feature `gpu`, or set device = \"cpu\""
    )
}
