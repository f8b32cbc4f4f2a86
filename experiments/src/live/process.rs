//! A run of the program as a child process, with an end to every wait.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How often a process is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of its log that a message quotes.
const LINES: usize = 10;

/// A child process. It is killed when this is dropped.
pub(super) struct Process {
    child: Child,
    what: String,
    log: PathBuf,
}

impl Process {
    /// `PROGRAM COMMAND --config CONFIG --set ..`, what it says going to the file `log`.
    pub(super) fn start(
        program: &Path,
        command: &str,
        config: &str,
        sets: &[String],
        more: &[&str],
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut process = Command::new(program);
        process.args([command, "--config", config]).args(more);
        for set in sets {
            process.args(["--set", set]);
        }
        let child = process
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { child, what: format!("millrace {command}"), log })
    }

    /// # Errors
    /// If it has ended.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended early ({status}):\n{}", self.what, self.tail()),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it fails, or still runs after `patience`.
    pub(super) fn finish(mut self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} failed ({status}):\n{}", self.what, self.tail()),
                None if Instant::now() >= deadline => {
                    bail!("{} still runs after {patience:?}:\n{}", self.what, self.tail())
                }
                None => std::thread::sleep(LOOK),
            }
        }
    }

    /// Asks it to end (SIGTERM), and waits for that.
    ///
    /// # Errors
    /// As [`Process::finish`].
    pub(super) fn terminate(self, patience: Duration) -> anyhow::Result<()> {
        let id = libc::pid_t::try_from(self.child.id()).context("a process id")?;
        // SAFETY: a signal to a child that is not waited for yet, so the id is still its own.
        let sent = unsafe { libc::kill(id, libc::SIGTERM) };
        if sent != 0 {
            bail!("no signal to {}: {}", self.what, std::io::Error::last_os_error());
        }
        self.finish(patience)
    }

    /// The last lines of its log.
    fn tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended and was waited for is not signalled again.
        if let Ok(None) = self.child.try_wait() {
            let killed = self.child.kill().and_then(|()| self.child.wait());
            if let Err(error) = killed {
                eprintln!("{} may still run: {error}", self.what);
            }
        }
    }
}
