//! Where the towers and the loss compute.

#[cfg(feature = "gpu")]
use burn::tensor::Device;

/// See the variants. Tables, estimator and histories lie on the host whatever this says.
#[derive(Clone, Debug)]
pub enum Placement {
    /// Our own passes over `gemm`.
    Cpu,
    /// burn's tensors on this device.
    #[cfg(feature = "gpu")]
    Gpu(Device),
}

impl Placement {
    /// Whether a device of its own computes: then shapes are padded, and equal items are not
    /// merged, so that they do not change from step to step.
    pub fn is_gpu(&self) -> bool {
        !matches!(self, Self::Cpu)
    }
}

/// Whatever adapter there is: Mesa's software Vulkan serves, which `scripts/test` installs.
#[cfg(all(test, feature = "gpu"))]
pub(super) fn any_gpu() -> Device {
    Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)
}
