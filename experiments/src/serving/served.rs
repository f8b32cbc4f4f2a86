//! A running `serve`, asked what it answers with.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::stream::Times;
use crate::live::topic::PARTITIONS;
use crate::process::Page;

/// How often it is asked for its versions.
const LOOK: Duration = Duration::from_millis(20);

/// A `serve` that has a version.
pub(super) struct Served {
    page: Page,
}

/// The version that answers, and the offsets up to which it has learned.
type Active = (String, [i64; PARTITIONS]);

impl Served {
    /// Waits until it answers.
    pub(super) fn of(page: Page, patience: Duration) -> anyhow::Result<Self> {
        let deadline = Instant::now() + patience;
        let served = Self { page };
        while served.active()?.is_none() {
            if Instant::now() >= deadline {
                bail!("no version after {patience:?}");
            }
            std::thread::sleep(LOOK);
        }
        Ok(served)
    }

    pub(super) fn address(&self) -> anyhow::Result<SocketAddr> {
        self.page.address().parse().context("an address")
    }

    /// Looks which version answers until `stop`; seconds from the sending of each event to the
    /// first look that found a version with it, and how many versions there were.
    pub(super) fn watch(
        &self,
        times: &Mutex<Times>,
        stop: &AtomicBool,
    ) -> anyhow::Result<(Vec<f64>, usize)> {
        let (mut seconds, mut known, mut versions) = (Vec::new(), [0; PARTITIONS], 0);
        let mut last = String::new();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            let Some((version, next)) = self.active()? else { continue };
            if version == last {
                continue;
            }
            (last, versions) = (version, versions + 1);
            let times = times.lock().expect("nobody panicked");
            for partition in 0..PARTITIONS {
                let sent = &times.sent[partition];
                let up_to = usize::try_from(next[partition] - times.first[partition]);
                let up_to = up_to.unwrap_or(0).min(sent.len());
                let new = &sent[known[partition].min(up_to)..up_to];
                seconds.extend(new.iter().map(|sent| sent.elapsed().as_secs_f64()));
                known[partition] = up_to.max(known[partition]);
            }
        }
        Ok((seconds, versions))
    }

    fn active(&self) -> anyhow::Result<Option<Active>> {
        let answer = self.page.get("/v1/versions").context("no answer of /v1/versions")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
        let listed: Value = serde_json::from_str(body).context("an answer that is not JSON")?;
        let versions = listed["versions"].as_array().map_or(&[][..], Vec::as_slice);
        let Some(active) = versions.iter().find(|version| version["active"] == true) else {
            return Ok(None);
        };
        let id = active["version"].as_str().context("a version without an id")?;
        let next = &active["offsets"]["next"];
        let of = |partition: usize| next[partition.to_string()].as_i64().unwrap_or(0);
        Ok(Some((id.to_owned(), std::array::from_fn(of))))
    }
}
