//! The graphics adapters of this machine.

use std::path::Path;

use anyhow::Context;
use burn::tensor::{Device, DeviceKind};

use millrace_train::placement::Placement;

/// Whatever adapter there is.
///
/// # Errors
/// If there is none.
pub(super) fn any() -> anyhow::Result<Placement> {
    let adapter = adapters()?.into_iter().next().context(
        "device = \"gpu\", but no adapter was found; install a driver (software: apt-get install \
         mesa-vulkan-drivers) or set device = \"cpu\"",
    )?;
    tracing::info!(adapter = adapter.name, "training on wgpu");
    Ok(Placement::Gpu(Device::wgpu(DeviceKind::DefaultDevice)))
}

/// Whether the Linux kernel shows any GPU: DRM render nodes, NVIDIA's own, or WSL's.
pub(super) fn has_node() -> bool {
    let render = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("renderD"))
    };
    let dri = std::fs::read_dir("/dev/dri").is_ok_and(|mut entries| entries.any(render));
    dri || ["/dev/nvidia0", "/dev/dxg"].iter().any(|node| Path::new(node).exists())
}

/// All graphics adapters of this machine, software ones included.
fn adapters() -> anyhow::Result<Vec<wgpu::AdapterInfo>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    // Without OpenGL, whose loader complains on stderr where there is no display.
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    let adapters = runtime.block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    Ok(adapters.into_iter().map(|adapter| adapter.get_info()).collect())
}
