//! What came of the faults: a line of JSON each as they happen, and a table in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::kind::Kind;

/// What came of one fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// Training goes on, so many seconds after the fault was over.
    Recovered(f64),
    /// The trainer has refused to go on, with the right words.
    Refused,
    /// It has done something else.
    Failed(String),
}

impl Outcome {
    pub(super) fn words(&self) -> String {
        match self {
            Outcome::Recovered(seconds) => format!("recovered in {seconds:.1} s"),
            Outcome::Refused => "refused, as it should".to_owned(),
            Outcome::Failed(why) => format!("FAILED: {why}"),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) run: usize,
    pub(super) kind: Kind,
    pub(super) outcome: Outcome,
}

/// The results so far.
pub(super) struct Report {
    out: PathBuf,
    file: File,
    runs: BTreeSet<usize>,
    records: Vec<Record>,
}

impl Report {
    /// Takes up the results of an earlier command with the same seed.
    pub(super) fn open(out: &Path, seed: u64) -> anyhow::Result<Report> {
        let path = out.join(format!("faults-{seed}.jsonl"));
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        let records: Vec<Record> = (before.lines())
            .map(|line| serde_json::from_str(line).context("a line of the results"))
            .collect::<anyhow::Result<_>>()?;
        let runs = records.iter().map(|record| record.run).collect();
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Report { out: out.to_owned(), file, runs, records })
    }

    pub(super) fn faults(&self) -> usize {
        self.records.len()
    }

    /// Whether a run is over.
    pub(super) fn has(&self, run: usize) -> bool {
        self.runs.contains(&run)
    }

    /// Takes a run's results, all of them at once: half a run is none.
    pub(super) fn add(&mut self, run: usize, records: Vec<Record>) -> anyhow::Result<()> {
        let mut lines = String::new();
        for record in &records {
            writeln!(lines, "{}", serde_json::to_string(record)?)?;
        }
        self.file.write_all(lines.as_bytes())?;
        self.runs.insert(run);
        self.records.extend(records);
        Ok(())
    }

    /// Writes the table.
    ///
    /// # Errors
    /// If a fault has failed.
    pub(super) fn finish(&self) -> anyhow::Result<()> {
        let mut kinds: BTreeMap<Kind, Vec<&Outcome>> = BTreeMap::new();
        for record in &self.records {
            kinds.entry(record.kind).or_default().push(&record.outcome);
        }
        let mut table = "| fault | times | failed | recovery, median | p99 |\n\
                         | --- | --- | --- | --- | --- |\n"
            .to_owned();
        for (kind, outcomes) in &kinds {
            let failed = outcomes.iter().filter(|o| matches!(o, Outcome::Failed(_))).count();
            let mut seconds: Vec<f64> = outcomes
                .iter()
                .filter_map(|o| if let Outcome::Recovered(s) = o { Some(*s) } else { None })
                .collect();
            seconds.sort_by(f64::total_cmp);
            let at = |share: f64| match seconds.len() {
                0 => "refused".to_owned(),
                n => format!("{:.1} s", seconds[((n - 1) as f64 * share).round() as usize]),
            };
            let (words, times) = (kind.words(), outcomes.len());
            writeln!(table, "| {words} | {times} | {failed} | {} | {} |", at(0.5), at(0.99))?;
        }
        println!("\n{table}");
        std::fs::write(self.out.join("faults.md"), &table)?;
        let failures = self.records.iter().filter(|r| matches!(r.outcome, Outcome::Failed(_)));
        let count = failures.clone().count();
        failures.for_each(|r| println!("run {}: {}: {}", r.run, r.kind.words(), r.outcome.words()));
        println!("{} faults in {} runs, {count} failed", self.records.len(), self.runs.len());
        ensure!(count == 0, "{count} faults of {} failed", self.records.len());
        Ok(())
    }
}
