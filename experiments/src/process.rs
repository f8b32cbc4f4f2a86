//! A run of the program as a child process, with an end to every wait.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;

/// How often a process is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of its log that a message quotes.
const LINES: usize = 10;

/// A child process. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    what: String,
    log: PathBuf,
}

impl Process {
    /// `PROGRAM COMMAND --config CONFIG --set ..`, what it says going to the file `log`.
    pub(crate) fn start(
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
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended early ({status}):\n{}", self.what, self.tail()),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it fails, or still runs after `patience`.
    pub(crate) fn finish(mut self, patience: Duration) -> anyhow::Result<()> {
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
    pub(crate) fn terminate(self, patience: Duration) -> anyhow::Result<()> {
        signal(&self.child, libc::SIGTERM)
            .with_context(|| format!("no signal to {}", self.what))?;
        self.finish(patience)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it has ended and was waited for.
    pub(crate) fn signal(&self, signal: i32) -> anyhow::Result<()> {
        self::signal(&self.child, signal).with_context(|| format!("no signal to {}", self.what))
    }

    /// Its exit code, if it has ended by itself.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<i32>> {
        Ok(self.child.try_wait()?.map(|status| status.code().unwrap_or(-1)))
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its page of metrics, once it has said where that is.
    ///
    /// # Errors
    /// If it ends before, or says nothing within `patience`.
    pub(crate) fn page(&mut self, patience: Duration) -> anyhow::Result<Page> {
        let deadline = Instant::now() + patience;
        loop {
            let said = self.said();
            if let Some((_, rest)) = said.split_once(" on http://") {
                let end = rest.find(|c: char| c == '/' || c.is_whitespace());
                return Ok(Page { address: rest[..end.unwrap_or(rest.len())].to_owned() });
            }
            self.must_run()?;
            ensure!(Instant::now() < deadline, "no address after {patience:?}:\n{said}");
            std::thread::sleep(LOOK);
        }
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self) -> String {
        let log = self.said();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

/// A process' page of metrics.
pub(crate) struct Page {
    address: String,
}

/// A page that takes longer does not answer.
const PAGE_MAX: Duration = Duration::from_secs(5);

impl Page {
    /// HOST:PORT.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A series' value; NaN if the page does not answer or has no such series.
    pub(crate) fn value(&self, series: &str) -> f64 {
        let page = self.text().unwrap_or_default();
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(f64::NAN)
    }

    /// The sum of a metric's series.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let page = self.text().unwrap_or_default();
        let series = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    fn text(&self) -> std::io::Result<String> {
        self.get("/metrics")
    }

    /// What a path answers, its head first.
    pub(crate) fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PAGE_MAX))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    }
}

/// Sends a signal to a child.
///
/// # Errors
/// If there is no such process any more.
pub(crate) fn signal(child: &Child, signal: i32) -> anyhow::Result<()> {
    let id = libc::pid_t::try_from(child.id()).context("a process id")?;
    // SAFETY: a signal to a child that is not waited for yet, so the id is still its own.
    if unsafe { libc::kill(id, signal) } != 0 {
        bail!("signal {signal}: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Which program is run.
#[derive(Args)]
pub(crate) struct ProgramArgs {
    /// The program [default: the one built beside this one].
    #[arg(long, value_name = "FILE")]
    millrace: Option<PathBuf>,
}

impl ProgramArgs {
    /// `millrace`, as given or [`beside`] this program.
    ///
    /// # Errors
    /// As of [`beside`].
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        self.millrace.clone().map_or_else(beside, Ok)
    }
}

/// `millrace` in the directory of this program, or in the one above it.
///
/// # Errors
/// If it is not there.
pub(crate) fn beside() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("this program's own path")?;
    let directory = own.parent().context("this program's directory")?;
    let places = [directory.join("millrace"), directory.join("../millrace")];
    places.into_iter().find(|path| path.exists()).with_context(|| {
        format!(
            "no millrace beside {}: build it by `cargo build --release --bin millrace`, or name \
             one with --millrace",
            own.display()
        )
    })
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
