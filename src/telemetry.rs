//! What the outside sees of a running trainer: log lines, metrics, health endpoints.
//!
//! Owns the registry with every `millrace_` series, the state behind `/healthz` and `/readyz`, the
//! HTTP routes that show them, and how the process logs.
//! Must never know: any other room. It reads no clock, no topic, no model and no file; whoever
//! measured a value sets it here. Ages are plain gauges that the owner of the clock refreshes
//! before a scrape.

mod logging;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use logging::init_logging;

/// What can become of an event; values of `result` in `millrace_events_total`.
pub const RESULTS: [&str; 2] = ["trained", "rejected"];

/// The parts of one training step in order; values of `phase` in `millrace_step_seconds`.
/// `wait` is the time without a batch: when it dominates, the source is the bottleneck.
pub const PHASES: [&str; 7] =
    ["wait", "estimate", "gather", "forward", "loss", "backward", "update"];

/// The bounded channels between threads; values of `queue` in `millrace_queue_batches`.
pub const QUEUES: [&str; 2] = ["batches", "snapshots"];

/// How far an event has come; values of `stage` in `millrace_event_age_seconds`.
pub const STAGES: [&str; 3] = ["decoded", "trained", "published"];

/// The cut-offs of the progressive recall; values of `k` in `millrace_recall`.
pub const RECALL_KS: [&str; 3] = ["10", "50", "100"];

/// What the progressive recall ranks against; values of `candidates` in `millrace_recall`. `batch`:
/// the distinct items of the last `batch.size` events, whatever the size of the batch at hand.
pub const RECALL_CANDIDATES: [&str; 1] = ["batch"];

/// Batch sizes are powers of two up to 32,768; what the linger cut short is smaller, and four-fold
/// steps below the usual sizes tell a trickle from a full batch.
const BATCH_BUCKETS: [f64; 12] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0];

/// First bound and number of doubling buckets: from the 100 us of a gather of a small batch to the
/// 13 s of a large one on software Vulkan. Doubling keeps a quantile within a factor of two.
const STEP_SECONDS: (f64, usize) = (1e-4, 18);

/// As [`STEP_SECONDS`]: a small model on a local disk takes 10 ms; past 164 s a checkpoint interval
/// of minutes is at risk, and how far past no longer matters.
const CHECKPOINT_SECONDS: (f64, usize) = (0.01, 15);

/// How long open connections may hold up the end of [`serve`]. Longer eats into the ten seconds
/// that a stopping trainer has for its last checkpoint; shorter cuts off a scrape under load.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Content type of the Prometheus text format, as Prometheus asks for it.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";
const INDEX: &str = "millrace\n\n/metrics  Prometheus text format\n/healthz  200 unless a person \
                     must act\n/readyz   200 when training, else what it waits for\n";

/// Every series of the process, in a registry of its own: two trainers in one test do not meet.
///
/// A gauge of something not measured yet (loss, recall, ages) reads `NaN`, because zero would
/// claim a perfect loss or a fresh event; Prometheus stores it and no alert fires on it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Events that reached their end, by `result` (see [`RESULTS`]).
    pub events_total: IntCounterVec,
    /// Records in the log that the trainer has not read, by `topic` and `partition`.
    pub consumer_lag: IntGaugeVec,
    /// Events of each batch that the trainer took.
    pub batch_events: Histogram,
    /// Items that wait in a channel, by `queue` (see [`QUEUES`]).
    pub queue_batches: IntGaugeVec,
    /// Time of one step, by `phase` (see [`PHASES`]).
    pub step_seconds: HistogramVec,
    /// Mean loss of the newest full batch's worth of events.
    pub train_loss: Gauge,
    /// Recall of the newest batches, scored before they were trained on, by `k` and `candidates`.
    pub recall: GaugeVec,
    /// Now minus the event time of the newest event at a `stage` (see [`STAGES`]).
    pub event_age_seconds: GaugeVec,
    /// Rows held by each embedding `table`.
    pub embedding_rows: IntGaugeVec,
    /// Rows dropped from each embedding `table`, by expiry or bound.
    pub embedding_evictions_total: IntCounterVec,
    /// Buckets of the frequency estimator that more than one item writes to.
    pub frequency_collisions: Gauge,
    /// Time from a snapshot to its durable checkpoint.
    pub checkpoint_seconds: Histogram,
    /// Age of the newest durable checkpoint.
    pub checkpoint_age_seconds: Gauge,
    /// Checkpoints that could not be written, each try counted.
    pub checkpoint_failures_total: IntCounter,
    /// Vectors delivered to the output topic.
    pub published_total: IntCounter,
    /// Versions that could not be published.
    pub publish_failures_total: IntCounter,
    /// Step of the newest version whose end marker is on the versions topic.
    pub published_version_step: IntGauge,
    /// Steps skipped because the loss or a gradient was not finite.
    pub nonfinite_steps_total: IntCounter,
    /// Memory the training device holds, host tables excluded.
    pub device_memory_bytes: IntGauge,
}

impl Metrics {
    /// All series, registered; those whose labels are known already exist, so that a rate or an
    /// alert has something to look at from the first scrape on.
    #[must_use]
    pub fn new() -> Metrics {
        let r = Registry::new();
        let metrics = Metrics {
            events_total: counters(&r, "events_total", "Events by result.", &["result"]),
            consumer_lag: gauges(&r, "consumer_lag", "Records not read.", &["topic", "partition"]),
            batch_events: histogram(&r, "batch_events", "Events in a batch.", &BATCH_BUCKETS),
            queue_batches: gauges(&r, "queue_batches", "Items waiting in a channel.", &["queue"]),
            step_seconds: phases(&r, "step_seconds", "Time of a step by phase.", &["phase"]),
            train_loss: gauge(&r, "train_loss", "Mean loss of the newest batch.size events."),
            recall: floats(&r, "recall", "Recall before training.", &["k", "candidates"]),
            event_age_seconds: floats(&r, "event_age_seconds", "Newest event's age.", &["stage"]),
            embedding_rows: gauges(&r, "embedding_rows", "Rows of a table.", &["table"]),
            embedding_evictions_total: counters(
                &r,
                "embedding_evictions_total",
                "Rows dropped from a table.",
                &["table"],
            ),
            frequency_collisions: gauge(
                &r,
                "frequency_collisions",
                "Share of the last batch's occurrences in buckets last written by another item.",
            ),
            checkpoint_seconds: histogram(
                &r,
                "checkpoint_seconds",
                "Time to make a snapshot durable.",
                &doubling(CHECKPOINT_SECONDS),
            ),
            checkpoint_age_seconds: gauge(&r, "checkpoint_age_seconds", "Newest checkpoint's age."),
            checkpoint_failures_total: counter(
                &r,
                "checkpoint_failures_total",
                "Checkpoints not written, by try.",
            ),
            published_total: counter(&r, "published_total", "Vectors delivered."),
            publish_failures_total: counter(
                &r,
                "publish_failures_total",
                "Versions not published.",
            ),
            published_version_step: int_gauge(
                &r,
                "published_version_step",
                "Step of the newest version.",
            ),
            nonfinite_steps_total: counter(&r, "nonfinite_steps_total", "Steps skipped."),
            device_memory_bytes: int_gauge(&r, "device_memory_bytes", "Memory held on the device."),
            registry: r,
        };
        metrics.initialise();
        metrics
    }

    /// Creates the series of one embedding table, so that it shows before its first row.
    pub fn declare_table(&self, table: &str) {
        self.embedding_rows.with_label_values(&[table]);
        self.embedding_evictions_total.with_label_values(&[table]);
    }

    /// Creates the lag series of one partition, so that it shows before the first record.
    pub fn declare_partition(&self, topic: &str, partition: i32) {
        self.consumer_lag.with_label_values(&[topic, partition.to_string().as_str()]);
    }

    /// The whole registry in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("registered families have names, and a String takes any text")
    }

    fn initialise(&self) {
        let build = gauges(&self.registry, "build_info", "Always 1.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for result in RESULTS {
            self.events_total.with_label_values(&[result]);
        }
        for phase in PHASES {
            self.step_seconds.with_label_values(&[phase]);
        }
        for queue in QUEUES {
            self.queue_batches.with_label_values(&[queue]);
        }
        for stage in STAGES {
            self.event_age_seconds.with_label_values(&[stage]).set(f64::NAN);
        }
        for k in RECALL_KS {
            for candidates in RECALL_CANDIDATES {
                self.recall.with_label_values(&[k, candidates]).set(f64::NAN);
            }
        }
        self.train_loss.set(f64::NAN);
        self.checkpoint_age_seconds.set(f64::NAN);
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// Whether the process works, and whether it trains yet. Any thread may report.
#[derive(Debug, Default)]
pub struct Health {
    ready: AtomicBool,
    phase: Mutex<&'static str>,
    failure: OnceLock<String>,
}

impl Health {
    /// Healthy and not ready, in no phase yet.
    #[must_use]
    pub fn new() -> Health {
        Health::default()
    }

    /// Says whether the trainer takes batches; `/readyz` answers 200 only while it does.
    pub fn set_ready(&self, ready: bool) {
        // Nothing else is published through this flag, so no ordering with other data is needed.
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Names what the process is busy with; `/readyz` shows it until the process is ready.
    pub fn set_phase(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Turns `/healthz` to 503 for good. The first reason stays: later ones tend to follow from it.
    pub fn fail(&self, reason: String) {
        self.failure.get_or_init(|| reason);
    }

    /// Why the process is not healthy, if it is not.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    fn healthz(&self) -> (StatusCode, String) {
        match self.failure() {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("failed: {reason}\n")),
        }
    }

    fn readyz(&self) -> (StatusCode, String) {
        if self.failure().is_some() {
            return self.healthz();
        }
        if self.ready.load(Ordering::Relaxed) {
            return (StatusCode::OK, "ready\n".to_owned());
        }
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let phase = if phase.is_empty() { "the process" } else { phase };
        (StatusCode::SERVICE_UNAVAILABLE, format!("starting: {phase}\n"))
    }
}

/// Serves `/metrics`, `/healthz`, `/readyz` and a text index until `shutdown` resolves, then waits
/// at most [`SHUTDOWN_GRACE`] for open requests. `before_scrape` sets what only its owner can
/// compute (ages, lags); it runs on the HTTP thread, so it must not block.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    before_scrape: impl Fn(&Metrics) + Send + Sync + 'static,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let app = routes(metrics, health, before_scrape);
    // Dropping the sender is the signal, so it also fires if the server ends by itself.
    let (stopping, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        shutdown.await;
        drop(stopping);
    });
    let deadline = async move {
        stopped.await.unwrap_or_default();
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    tokio::select! {
        served = server.into_future() => served.context("serve metrics and health"),
        () = deadline => {
            tracing::debug!("closed the metrics port on connections that were still open");
            Ok(())
        }
    }
}

fn routes(
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    before_scrape: impl Fn(&Metrics) + Send + Sync + 'static,
) -> Router {
    let before_scrape = Arc::new(before_scrape);
    let scrape = move || {
        before_scrape(&metrics);
        std::future::ready(([(CONTENT_TYPE, METRICS_TYPE)], metrics.render()))
    };
    let healthy = Arc::clone(&health);
    let healthz = move || std::future::ready(healthy.healthz());
    let readyz = move || std::future::ready(health.readyz());
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("millrace")
}

fn doubling((first, count): (f64, usize)) -> Vec<f64> {
    prometheus::exponential_buckets(first, 2.0, count).expect("positive start, factor above one")
}

/// Registers a metric that was built from constants.
fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("names, labels and buckets are valid constants");
    registry.register(Box::new(metric.clone())).expect("each name is registered once");
    metric
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    registered(registry, Gauge::with_opts(opts(name, help)))
}

fn int_gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    registered(registry, IntGauge::with_opts(opts(name, help)))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(opts(name, help), labels))
}

fn floats(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    registered(registry, GaugeVec::new(opts(name, help), labels))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(opts(name, help), labels))
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    registered(registry, IntCounter::with_opts(opts(name, help)))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
    registered(registry, Histogram::with_opts(opts))
}

fn phases(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let opts = HistogramOpts::from(opts(name, help)).buckets(doubling(STEP_SECONDS));
    registered(registry, HistogramVec::new(opts, labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Instant;

    /// A server on a free port, in a thread of its own, as the trainer runs it.
    struct Server {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        thread: std::thread::JoinHandle<anyhow::Result<()>>,
    }

    impl Server {
        fn start(metrics: &Arc<Metrics>, health: &Arc<Health>) -> Server {
            let (metrics, health) = (Arc::clone(metrics), Arc::clone(health));
            let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bind a free port");
            socket.set_nonblocking(true).expect("tokio asks for this");
            let address = socket.local_addr().expect("bound");
            let (stop, stopped) = oneshot::channel::<()>();
            let thread = std::thread::spawn(move || {
                tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(
                    async move {
                        let listener = TcpListener::from_std(socket)?;
                        let ages = |m: &Metrics| m.checkpoint_age_seconds.set(12.5);
                        let shutdown = async { stopped.await.unwrap_or_default() };
                        serve(listener, metrics, health, ages, shutdown).await
                    },
                )
            });
            Server { address, stop, thread }
        }

        fn get(&self, path: &str) -> (u16, String) {
            let mut stream = TcpStream::connect(self.address).expect("connect");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                .expect("send");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("read");
            let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
            (status, answer)
        }

        fn stop(self) {
            self.stop.send(()).expect("the server still runs");
            self.thread.join().expect("no panic").expect("a clean end");
        }
    }

    fn body(answer: &str) -> &str {
        answer.split_once("\r\n\r\n").expect("headers end").1
    }

    /// Every `millrace_` word of a text, with the suffixes of a histogram's series removed.
    fn families(text: &str) -> BTreeSet<String> {
        text.match_indices("millrace_")
            .map(|(at, _)| {
                let word = text[at..]
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .next()
                    .expect("split yields at least one part");
                let mut word = word.to_owned();
                for suffix in ["_bucket", "_sum", "_count"] {
                    if let Some(stem) = word.strip_suffix(suffix) {
                        word = stem.to_owned();
                    }
                }
                word
            })
            .collect()
    }

    #[test]
    fn known_series_exist_before_anything_happened() {
        let text = Metrics::new().render();
        for line in [
            "millrace_events_total{result=\"trained\"} 0",
            "millrace_events_total{result=\"rejected\"} 0",
            "millrace_queue_batches{queue=\"batches\"} 0",
            "millrace_queue_batches{queue=\"snapshots\"} 0",
            "millrace_step_seconds_count{phase=\"wait\"} 0",
            "millrace_step_seconds_count{phase=\"update\"} 0",
            "millrace_recall{candidates=\"batch\",k=\"10\"} NaN",
            "millrace_event_age_seconds{stage=\"published\"} NaN",
            "millrace_checkpoint_age_seconds NaN",
            "millrace_nonfinite_steps_total 0",
            "millrace_published_total 0",
            "millrace_publish_failures_total 0",
            "millrace_checkpoint_failures_total 0",
        ] {
            assert!(text.lines().any(|l| l == line), "missing {line:?} in\n{text}");
        }
        let version = env!("CARGO_PKG_VERSION");
        assert!(text.contains(&format!("millrace_build_info{{version=\"{version}\"}} 1")));
    }

    #[test]
    fn tables_and_partitions_exist_once_declared() {
        let metrics = Metrics::new();
        metrics.declare_table("item");
        metrics.declare_partition("interactions", 3);
        let text = metrics.render();
        assert!(text.contains("millrace_embedding_rows{table=\"item\"} 0"));
        assert!(text.contains("millrace_embedding_evictions_total{table=\"item\"} 0"));
        assert!(text.contains("millrace_consumer_lag{partition=\"3\",topic=\"interactions\"} 0"));
    }

    #[test]
    fn two_registries_do_not_meet() {
        let (one, two) = (Metrics::new(), Metrics::new());
        one.published_total.inc_by(7);
        assert!(one.render().contains("millrace_published_total 7"));
        assert!(two.render().contains("millrace_published_total 0"));
    }

    #[test]
    fn buckets_reach_from_a_gather_to_a_slow_step() {
        let metrics = Metrics::new();
        metrics.step_seconds.with_label_values(&["loss"]).observe(9.0);
        metrics.checkpoint_seconds.observe(150.0);
        metrics.batch_events.observe(1024.0);
        let text = metrics.render();
        assert!(text.contains("millrace_step_seconds_bucket{phase=\"loss\",le=\"0.0001\"} 0"));
        assert!(text.contains("millrace_step_seconds_bucket{phase=\"loss\",le=\"13.1072\"} 1"));
        assert!(text.contains("millrace_checkpoint_seconds_bucket{le=\"163.84\"} 1"));
        assert!(text.contains("millrace_batch_events_bucket{le=\"512\"} 0"));
        assert!(text.contains("millrace_batch_events_bucket{le=\"1024\"} 1"));
    }

    #[test]
    fn the_dashboard_shows_every_metric_and_no_other() {
        let metrics = Metrics::new();
        metrics.declare_table("item");
        metrics.declare_partition("interactions", 0);
        let served = families(&metrics.render());
        let shown = families(include_str!("../dashboards/trainer.json"));
        assert_eq!(served, shown, "left: on /metrics, right: on the dashboard");
    }

    #[test]
    fn health_tells_what_it_waits_for_and_why_it_failed() {
        let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::new()));
        let server = Server::start(&metrics, &health);
        let (status, answer) = server.get("/readyz");
        assert_eq!((status, body(&answer)), (503, "starting: the process\n"));
        health.set_phase("restoring the checkpoint");
        let (status, answer) = server.get("/readyz");
        assert_eq!((status, body(&answer)), (503, "starting: restoring the checkpoint\n"));
        health.set_ready(true);
        assert_eq!(server.get("/readyz").0, 200);
        let (status, answer) = server.get("/healthz");
        assert_eq!((status, body(&answer)), (200, "ok\n"));
        health.fail("the disk is full".to_owned());
        health.fail("the source stopped".to_owned());
        let (status, answer) = server.get("/healthz");
        assert_eq!((status, body(&answer)), (503, "failed: the disk is full\n"));
        assert_eq!(server.get("/readyz").0, 503, "a failed process takes no work");
        server.stop();
    }

    #[test]
    fn a_scrape_refreshes_ages_first() {
        let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::new()));
        let server = Server::start(&metrics, &health);
        metrics.events_total.with_label_values(&["trained"]).inc_by(1024);
        let (status, answer) = server.get("/metrics");
        assert_eq!(status, 200);
        assert!(answer.contains("content-type: text/plain; version=0.0.4\r\n"), "{answer}");
        assert!(answer.contains("millrace_events_total{result=\"trained\"} 1024"));
        assert!(answer.contains("millrace_checkpoint_age_seconds 12.5"));
        let (status, answer) = server.get("/");
        assert_eq!(status, 200);
        assert!(body(&answer).contains("/metrics"));
        assert_eq!(server.get("/nowhere").0, 404);
        server.stop();
    }

    #[test]
    fn an_open_connection_does_not_hold_up_the_end() {
        let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::new()));
        let server = Server::start(&metrics, &health);
        // Half a request: hyper waits for the rest of it, graceful shutdown or not.
        let mut slow = TcpStream::connect(server.address).expect("connect");
        slow.write_all(b"GET /metrics HT").expect("send");
        assert_eq!(server.get("/healthz").0, 200);
        let began = Instant::now();
        server.stop();
        assert!(began.elapsed() < SHUTDOWN_GRACE * 4, "took {:?}", began.elapsed());
    }

    #[test]
    fn logging_may_be_set_up_twice() {
        init_logging(false, "warn");
        init_logging(true, "warn");
        tracing::info!("not shown, and no panic");
    }
}
