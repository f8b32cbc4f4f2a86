//! A build without the feature `gpu`.

use anyhow::bail;

use millrace_train::placement::Placement;

/// False: this build would take none.
pub(super) fn has_node() -> bool {
    false
}

pub(super) fn any() -> anyhow::Result<Placement> {
    bail!(
        "device = \"gpu\", but this program was built with --no-default-features and computes on \
         the CPU alone; build it with the feature `gpu`, or set device = \"cpu\""
    )
}
