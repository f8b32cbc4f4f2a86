//! Every series that a run has, and the values of their labels.
//!
//! Owns the names (a contract with dashboards and alerts), the labels as types, and the buckets.
//! Must never know: what a value means to the model; whoever measured it sets it here.

use super::unusable;
use crate::config::Config;
use crate::stream::decode::REASONS;
use crate::telemetry::{
    Counter, Counters, FRESHNESS_SECONDS, Gauge, Gauges, Histogram, Histograms, IntGauge,
    IntGauges, Registry, doubling,
};

/// Defines a label: its values, and how each is spelt.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$meaning:meta])* $value:ident => $spelt:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $name {
            $($(#[$meaning])* $value,)+
        }

        impl $name {
            pub(super) const ALL: &[$name] = &[$($name::$value),+];

            fn spelt(self) -> &'static str {
                match self {
                    $($name::$value => $spelt,)+
                }
            }
        }
    };
}

label! {
    /// An event's fate: `result` of `millrace_events_total`.
    Fate {
        /// The model has learned from it.
        Trained => "trained",
        /// Decoding or training could not use it.
        Rejected => "rejected",
        /// It is none that counts.
        Skipped => "skipped",
    }
}

label! {
    /// A part of one training step, in order: `phase` of `millrace_step_seconds`.
    StepPhase {
        /// The time without a batch: when it dominates, the source is the bottleneck.
        Wait => "wait",
        /// Histories, statistics, distinct items.
        Estimate => "estimate",
        /// Rows are found and pooled; the frequency estimator.
        Gather => "gather",
        /// Both towers.
        Forward => "forward",
        /// The loss and its gradient.
        Loss => "loss",
        /// Back through the towers.
        Backward => "backward",
        /// Rows and corpus are updated.
        Update => "update",
    }
}

label! {
    /// A bounded channel between threads: `queue` of `millrace_queue_batches`.
    Queue {
        /// From the source to the trainer.
        Batches => "batches",
        /// From the trainer to the checkpoint thread.
        Snapshots => "snapshots",
    }
}

label! {
    /// How far an event has come: `stage` of `millrace_event_age_seconds`.
    Stage {
        /// It is in a batch.
        Decoded => "decoded",
        /// It is in the model.
        Trained => "trained",
        /// It is in the vectors on the output topic.
        Published => "published",
    }
}

label! {
    /// A stage of the line, by its last sign of life: `stage` of `millrace_stage_age_seconds`.
    Beat {
        /// The source looked for records.
        Polled => "polled",
        /// A batch was trained on.
        Batch => "trained",
        /// A checkpoint became durable.
        Durable => "durable",
        /// A version was published.
        Version => "published",
    }
}

/// Cut-offs of progressive recall: `k` of `millrace_recall`.
pub(super) const RECALL_KS: [u32; 3] = [10, 50, 100];

/// The candidates of progressive recall: `candidates` of `millrace_recall`. They are the distinct
/// items of the last `batch.size` events, whatever the size of the batch at hand.
const RECALL_CANDIDATES: &str = "batch";

/// Batch sizes are powers of two up to 32,768; what the linger cut short is smaller, and four-fold
/// steps below the usual sizes tell a trickle from a full batch.
const BATCH_BUCKETS: [f64; 12] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0];

/// First bound and number of doubling buckets: from the 100 us of a gather of a small batch to the
/// 13 s of a large one on software Vulkan. Doubling keeps a quantile within a factor of two.
const STEP_SECONDS: (f64, i32) = (1e-4, 18);

/// As [`STEP_SECONDS`]: a small model on a local disk takes 10 ms; past 164 s a checkpoint interval
/// of minutes is at risk, and how far past no longer matters.
const CHECKPOINT_SECONDS: (f64, i32) = (0.01, 15);

/// Every series of a run, in a registry of its own.
///
/// A gauge of something not measured yet (loss, recall, ages) reads `NaN`, because zero would
/// claim a perfect loss or a fresh event; Prometheus stores it and no alert fires on it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    events_total: Counters,
    consumer_lag: IntGauges,
    consumer_uncommitted: IntGauges,
    merge_waits_total: Counters,
    queue_batches: IntGauges,
    step_seconds: Histograms,
    recall: Gauges,
    popularity_recall: Gauges,
    event_age_seconds: Gauges,
    freshness_seconds: Histograms,
    stage_age_seconds: Gauges,
    rejected_total: Counters,
    embedding_rows: IntGauges,
    embedding_evictions_total: Counters,
    /// Events of each batch that the trainer took.
    pub(super) batch_events: Histogram,
    /// Mean loss of the newest full batch's worth of events.
    pub(super) train_loss: Gauge,
    /// Share of the last batch's occurrences in buckets of the frequency estimator that another
    /// item wrote last.
    pub(super) frequency_collisions: Gauge,
    /// Time from a snapshot to its durable checkpoint.
    pub(super) checkpoint_seconds: Histogram,
    /// Age of the newest durable checkpoint.
    pub(super) checkpoint_age_seconds: Gauge,
    /// Checkpoints that could not be written, each try counted.
    pub(super) checkpoint_failures_total: Counter,
    /// Vectors delivered to the output topic.
    pub(super) published_total: Counter,
    /// Versions that could not be published.
    pub(super) publish_failures_total: Counter,
    /// Step of the newest version whose end marker is on the versions topic.
    pub(super) published_version_step: IntGauge,
    /// Values of optional features that count as absent.
    pub(super) unread_values_total: Counter,
    /// Steps skipped because the loss or a gradient was not finite.
    pub(super) nonfinite_steps_total: Counter,
    /// Memory the training device holds, host tables excluded.
    #[cfg_attr(
        not(feature = "gpu"),
        expect(dead_code, reason = "the series is there all the same")
    )]
    pub(super) device_memory_bytes: IntGauge,
}

impl Metrics {
    /// The series of a run of `config`. Those whose labels are known already exist, so that a rate
    /// or an alert has something to look at from the first scrape on.
    pub fn new(config: &Config) -> Metrics {
        let metrics = Metrics::without_series(Registry::new());
        for &fate in Fate::ALL {
            metrics.events(fate);
        }
        for &phase in StepPhase::ALL {
            metrics.step(phase);
        }
        for &queue in Queue::ALL {
            metrics.queue(queue);
        }
        for &stage in Stage::ALL {
            metrics.event_age(stage).set(f64::NAN);
        }
        metrics.freshness();
        for reason in REASONS.into_iter().chain(unusable::REASONS) {
            metrics.rejected(reason);
        }
        for &beat in Beat::ALL {
            metrics.stage_age(beat).set(0.0);
        }
        for k in RECALL_KS {
            metrics.recall(k).set(f64::NAN);
            metrics.popularity_recall(k).set(f64::NAN);
        }
        for table in config.table_names() {
            metrics.rows(&table);
            metrics.evictions(&table);
        }
        metrics.train_loss.set(f64::NAN);
        metrics.checkpoint_age_seconds.set(f64::NAN);
        metrics
    }

    fn without_series(r: Registry) -> Metrics {
        let seconds = doubling(CHECKPOINT_SECONDS);
        let (step, freshness) = (doubling(STEP_SECONDS), doubling(FRESHNESS_SECONDS));
        let (topic, table) = (["topic", "partition"], ["table"]);
        let fresh = "Time from an event until a version that has learned from it is out.";
        let popular = "Recall of popularity alone, among the same items.";
        let collisions =
            "Share of the last batch's occurrences in buckets last written by another item.";
        Metrics {
            events_total: r.counters("events_total", "Events by result.", &["result"]),
            consumer_lag: r.int_gauges("consumer_lag", "Records not read.", &topic),
            consumer_uncommitted: r.int_gauges(
                "consumer_uncommitted",
                "Records behind a transaction that has not ended.",
                &topic,
            ),
            merge_waits_total: r.counters(
                "merge_waits_total",
                "Times the merge went on without a silent partition.",
                &topic,
            ),
            queue_batches: r.int_gauges("queue_batches", "Items waiting in a channel.", &["queue"]),
            step_seconds: r.histograms(
                "step_seconds",
                "Time of a step by phase.",
                &["phase"],
                &step,
            ),
            recall: r.gauges("recall", "Recall before training.", &["k", "candidates"]),
            popularity_recall: r.gauges("popularity_recall", popular, &["k"]),
            event_age_seconds: r.gauges("event_age_seconds", "Newest event's age.", &["stage"]),
            freshness_seconds: r.histograms("freshness_seconds", fresh, &["stage"], &freshness),
            stage_age_seconds: r.gauges(
                "stage_age_seconds",
                "Time since a stage's last sign of life.",
                &["stage"],
            ),
            rejected_total: r.counters("rejected_total", "Records rejected.", &["reason"]),
            embedding_rows: r.int_gauges("embedding_rows", "Rows of a table.", &table),
            embedding_evictions_total: r.counters(
                "embedding_evictions_total",
                "Rows dropped from a table.",
                &table,
            ),
            batch_events: r.histogram("batch_events", "Events in a batch.", &BATCH_BUCKETS),
            train_loss: r.gauge("train_loss", "Mean loss of the newest batch.size events."),
            frequency_collisions: r.gauge("frequency_collisions", collisions),
            checkpoint_seconds: r.histogram(
                "checkpoint_seconds",
                "Time to make a snapshot durable.",
                &seconds,
            ),
            checkpoint_age_seconds: r.gauge("checkpoint_age_seconds", "Newest checkpoint's age."),
            checkpoint_failures_total: r
                .counter("checkpoint_failures_total", "Checkpoints not written, by try."),
            published_total: r.counter("published_total", "Vectors delivered."),
            publish_failures_total: r.counter("publish_failures_total", "Versions not published."),
            published_version_step: r
                .int_gauge("published_version_step", "Step of the newest version."),
            unread_values_total: r
                .counter("unread_values_total", "Optional values that could not be read."),
            nonfinite_steps_total: r.counter("nonfinite_steps_total", "Steps skipped."),
            device_memory_bytes: r.int_gauge("device_memory_bytes", "Memory held on the device."),
            registry: r,
        }
    }

    /// All series.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Events that reached their end.
    pub(super) fn events(&self, fate: Fate) -> Counter {
        self.events_total.with_label_values(&[fate.spelt()])
    }

    /// Records in a partition that the trainer has not read.
    pub(super) fn lag(&self, topic: &str, partition: i32) -> IntGauge {
        self.consumer_lag.with_label_values(&[topic, &partition.to_string()])
    }

    /// Records that cannot be read before a transaction ends.
    pub(super) fn uncommitted(&self, topic: &str, partition: i32) -> IntGauge {
        self.consumer_uncommitted.with_label_values(&[topic, &partition.to_string()])
    }

    /// Times that the merge went on without a partition that gave no word.
    pub(super) fn merge_waits(&self, topic: &str, partition: i32) -> Counter {
        self.merge_waits_total.with_label_values(&[topic, &partition.to_string()])
    }

    /// Items that wait in a channel.
    pub(super) fn queue(&self, queue: Queue) -> IntGauge {
        self.queue_batches.with_label_values(&[queue.spelt()])
    }

    /// Time of one step in a phase.
    pub(super) fn step(&self, phase: StepPhase) -> Histogram {
        self.step_seconds.with_label_values(&[phase.spelt()])
    }

    /// Recall at `k` of the newest batches, scored before they were trained on.
    pub(super) fn recall(&self, k: u32) -> Gauge {
        self.recall.with_label_values(&[k.to_string().as_str(), RECALL_CANDIDATES])
    }

    /// Recall at `k` of popularity alone, of some of the same batches among the same items.
    pub(super) fn popularity_recall(&self, k: u32) -> Gauge {
        self.popularity_recall.with_label_values(&[k.to_string().as_str()])
    }

    /// Now minus the event time of the newest event at a stage.
    pub(super) fn event_age(&self, stage: Stage) -> Gauge {
        self.event_age_seconds.with_label_values(&[stage.spelt()])
    }

    /// Time from an event until the brokers have acknowledged a version that has learned from it.
    pub(super) fn freshness(&self) -> Histogram {
        self.freshness_seconds.with_label_values(&[Stage::Published.spelt()])
    }

    /// Now minus a stage's last sign of life, or minus the start.
    pub(super) fn stage_age(&self, beat: Beat) -> Gauge {
        self.stage_age_seconds.with_label_values(&[beat.spelt()])
    }

    /// Records rejected for a reason.
    pub(super) fn rejected(&self, reason: &str) -> Counter {
        self.rejected_total.with_label_values(&[reason])
    }

    /// Rows that an embedding table holds.
    pub(super) fn rows(&self, table: &str) -> IntGauge {
        self.embedding_rows.with_label_values(&[table])
    }

    /// Rows dropped from an embedding table, by expiry or bound.
    pub(super) fn evictions(&self, table: &str) -> Counter {
        self.embedding_evictions_total.with_label_values(&[table])
    }
}

#[cfg(test)]
mod tests;
