//! A small disk that can be full, or read-only: a file system in memory.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

/// Room for the checkpoints of a small model, several times over.
const DISK: &str = "size=64m";

/// A small disk of its own, in memory; unmounted when this is dropped.
pub(super) struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    pub(super) fn mount(directory: tempfile::TempDir) -> anyhow::Result<Disk> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK, "millrace-faults"]).arg(directory.path());
        let mounted = mount.status().context("mount cannot be run")?;
        ensure!(mounted.success(), "no small disk can be mounted: scripts/faults needs root");
        Ok(Disk { directory })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path().display());
        }
    }
}

/// Leaves no byte of a disk free for a while.
pub(super) fn fill_for_a_while(disk: &Path, time: Duration) -> anyhow::Result<()> {
    let fill = disk.join("fill");
    let mut file = std::fs::File::create(&fill)?;
    let block = vec![0_u8; 1 << 16];
    // Until there is no space left; then smaller pieces, down to single bytes.
    let mut size = block.len();
    while size > 0 {
        if std::io::Write::write_all(&mut file, &block[..size]).is_err() {
            size /= 2;
        }
    }
    std::thread::sleep(time);
    std::fs::remove_file(&fill).context("the disk cannot be freed")
}

pub(super) fn remount(disk: &Path, mode: &str) -> anyhow::Result<()> {
    let status = Command::new("mount").arg("-o").arg(format!("remount,{mode}")).arg(disk).status();
    ensure!(status?.success(), "{} cannot be mounted {mode}", disk.display());
    Ok(())
}
