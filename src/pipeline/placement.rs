//! The device that a config means on this machine.

#[cfg_attr(not(feature = "gpu"), path = "placement/absent.rs")]
mod gpu;

use crate::config::DeviceChoice;
use millrace_train::placement::Placement;

/// The device that `choice` means on this machine.
///
/// # Errors
/// `gpu` without any adapter, or in a build without GPU support.
pub fn placement(choice: DeviceChoice) -> anyhow::Result<Placement> {
    match choice {
        DeviceChoice::Cpu => Ok(Placement::Cpu),
        DeviceChoice::Auto => {
            if gpu::has_node() {
                tracing::info!(
                    "this machine has a GPU; training on the CPU, which was faster wherever both \
                     were measured with more than five cores (device = \"gpu\" takes it)"
                );
            }
            Ok(Placement::Cpu)
        }
        DeviceChoice::Gpu => gpu::any(),
    }
}
