//! Globo's clicks, and what share of the traffic each article really had.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use flate2::read::GzDecoder;
use serde::Deserialize;

pub(super) const BATCH: usize = 1024;
/// What "current" means for the truth.
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: f64 = 86_400_000.0;
/// Steps until the first reading, and between readings.
const READ_FROM: usize = 300;
const READ_EVERY: usize = 10;

/// Clicks in time order.
pub(super) struct Clicks {
    /// Number of the article, from 0 in the order of first clicks.
    articles: Vec<u64>,
    /// Milliseconds since 1970.
    times: Vec<u64>,
}

/// The truth after a batch.
pub(super) struct Moment {
    pub(super) step: usize,
    /// Time since the first click.
    pub(super) days: f64,
    /// Share of the last hour's clicks, of every article seen so far.
    pub(super) shares: Vec<f32>,
}

#[derive(Deserialize)]
struct Click {
    click_article_id: u64,
    click_timestamp: u64,
}

impl Clicks {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path)?;
        let mut clicks = Self { articles: Vec::new(), times: Vec::new() };
        let mut numbers = HashMap::new();
        for line in BufReader::new(GzDecoder::new(file)).lines() {
            let click: Click = serde_json::from_str(&line?)
                .with_context(|| format!("line {}", clicks.times.len() + 1))?;
            let next = numbers.len() as u64;
            clicks.articles.push(*numbers.entry(click.click_article_id).or_insert(next));
            clicks.times.push(click.click_timestamp);
        }
        Ok(clicks)
    }

    /// The last, partial one is left out.
    pub(super) fn batches(&self) -> impl Iterator<Item = &[u64]> + Clone {
        self.articles.chunks_exact(BATCH)
    }

    /// The truth at each reading.
    pub(super) fn moments(&self) -> Vec<Moment> {
        let mut moments = Vec::new();
        let mut counts: Vec<u32> = Vec::new();
        let mut oldest = 0;
        for (batch, step) in self.batches().zip(1..) {
            for &article in batch {
                let at = article as usize;
                counts.resize(counts.len().max(at + 1), 0);
                counts[at] += 1;
            }
            let end = step * BATCH;
            let now = self.times[end - 1];
            while self.times[oldest] + HOUR_MS <= now {
                counts[self.articles[oldest] as usize] -= 1;
                oldest += 1;
            }
            // With a batch to come, which the forecast is for.
            let followed = self.articles.len() >= end + BATCH;
            if step >= READ_FROM && step % READ_EVERY == 0 && followed {
                let clicks = (end - oldest) as f32;
                let shares = counts.iter().map(|&count| count as f32 / clicks).collect();
                let days = (now - self.times[0]) as f64 / DAY_MS;
                moments.push(Moment { step, days, shares });
            }
        }
        moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_is_the_last_hour() {
        // A click a second, article 0 in the first half and article 1 after it.
        let steps = 400 * BATCH as u64;
        let articles = (0..steps).map(|click| u64::from(click >= steps / 2)).collect();
        let clicks = Clicks { articles, times: (0..steps).map(|click| click * 1000).collect() };
        let moments = clicks.moments();
        assert_eq!(moments.len(), 10);
        assert_eq!((moments[0].step, &moments[0].shares[..]), (300, &[0.0, 1.0][..]));
        let hour = Clicks { articles: vec![0; 301 * BATCH], times: vec![5; 301 * BATCH] };
        assert_eq!(hour.moments()[0].shares, [1.0]);
    }
}
