//! The program under test: started, killed, started again, and asked how it is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process::{Page, Process};

/// A trainer that has not said its address by then does not start.
const START: Duration = Duration::from_secs(60);

/// How to start the trainer of one run.
pub(super) struct Setup {
    pub(super) program: PathBuf,
    pub(super) config: PathBuf,
    pub(super) sets: Vec<String>,
    pub(super) logs: PathBuf,
}

/// A live trainer.
pub(super) struct Trainer {
    setup: Setup,
    process: Option<Process>,
    page: Option<Page>,
    starts: u32,
}

impl Trainer {
    pub(super) fn start(setup: Setup) -> anyhow::Result<Trainer> {
        let mut trainer = Trainer { setup, process: None, page: None, starts: 0 };
        trainer.launch()?;
        Ok(trainer)
    }

    /// Starts it again.
    pub(super) fn launch(&mut self) -> anyhow::Result<()> {
        let mut process = self.spawn()?;
        self.page = Some(process.page(START)?);
        self.process = Some(process);
        Ok(())
    }

    /// Starts another one with the same settings.
    pub(super) fn spawn(&mut self) -> anyhow::Result<Process> {
        self.starts += 1;
        let log = self.setup.logs.join(format!("trainer-{}.log", self.starts));
        let Setup { program, config, sets, .. } = &self.setup;
        let config = config.to_str().context("a path of ours is text")?;
        Process::start(program, "train", config, sets, &[], log)
    }

    pub(super) fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().context("the trainer does not run")
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        // Dropping it kills it.
        self.process = None;
    }

    /// SIGTERM; how long it took to end.
    pub(super) fn terminate(&mut self, bound: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let process = self.process.take().context("the trainer does not run")?;
        process.terminate(bound)?;
        Ok(began.elapsed())
    }

    /// A series' value on its page; NaN if the page does not answer or has no such series.
    pub(super) fn metric(&self, series: &str) -> f64 {
        self.page.as_ref().map_or(f64::NAN, |page| page.value(series))
    }

    /// The sum of a metric's series.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.page.as_ref().map_or(f64::NAN, |page| page.sum(name))
    }

    /// Fails if it has ended by itself.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        self.process()?.must_run()
    }

    /// Waits for it to end by itself, with exit status 1 and `words` in its log.
    pub(super) fn must_refuse(&mut self, words: &[&str], bound: Duration) -> anyhow::Result<()> {
        let process = self.process.take().context("the trainer does not run")?;
        refuses(process, words, bound)
    }
}

/// Waits for a process that must end by itself, with exit status 1 and one of `words` in its log.
pub(super) fn refuses(mut process: Process, words: &[&str], bound: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + bound;
    loop {
        match process.ended()? {
            Some(1) if words.iter().any(|words| process.said().contains(words)) => return Ok(()),
            Some(status) => bail!("ended with {status}, not 1 and {words:?}:\n{}", process.tail()),
            None if Instant::now() >= deadline => {
                bail!("goes on instead of refusing with {words:?}:\n{}", process.tail())
            }
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The checkpoints' directories, by steps.
pub(super) fn checkpoints(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let is_step = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
    };
    let mut steps: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_step).collect();
    steps.sort();
    steps
}
