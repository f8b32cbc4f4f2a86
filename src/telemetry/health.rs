//! Whether the process works, and whether it trains (or answers) yet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use axum::http::StatusCode;

/// Says what is stuck, if anything is.
type Stuck = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// Whether the process works, and whether it trains yet. Any thread may report.
#[derive(Default)]
pub struct Health {
    ready: AtomicBool,
    phase: Mutex<&'static str>,
    /// What a process that has begun waits for, and cannot go on without.
    waits_for: Mutex<Option<String>>,
    failure: OnceLock<String>,
    stuck: OnceLock<Stuck>,
}

impl Health {
    /// Healthy and not ready, in no phase yet.
    #[must_use]
    pub fn new() -> Health {
        Health::default()
    }

    /// Says whether the trainer takes batches, or `serve` answers; `/readyz` answers 200 only then.
    pub fn set_ready(&self, ready: bool) {
        // Nothing else is published through this flag, so no ordering with other data is needed.
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Names what the process is busy with; `/readyz` shows it until the process is ready.
    pub fn set_phase(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Says what the process cannot go on without, if there is such a thing; `/readyz` shows it.
    pub fn set_waits_for(&self, what: Option<String>) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Turns `/livez` to 503 for good. The first reason stays: later ones tend to follow from it.
    pub fn fail(&self, reason: String) {
        self.failure.get_or_init(|| reason);
    }

    /// Why the process is not healthy, if it is not.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Looks at `stuck` whenever `/livez` is asked: a thread that is stuck cannot report it. The
    /// first one stays.
    pub fn watch(&self, stuck: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.stuck.get_or_init(|| Box::new(stuck));
    }

    /// The answer of `/livez`.
    pub(crate) fn livez(&self) -> (StatusCode, String) {
        let unwell =
            |what, reason| (StatusCode::SERVICE_UNAVAILABLE, format!("{what}: {reason}\n"));
        match (self.failure(), self.stuck.get().and_then(|stuck| stuck())) {
            (Some(reason), _) => unwell("failed", reason),
            (None, Some(reason)) => unwell("stuck", &reason),
            (None, None) => (StatusCode::OK, "ok\n".to_owned()),
        }
    }

    /// The answer of `/readyz`.
    pub(crate) fn readyz(&self) -> (StatusCode, String) {
        if self.failure().is_some() {
            return self.livez();
        }
        if self.ready.load(Ordering::Relaxed) {
            let waits_for = self.waits_for.lock().unwrap_or_else(PoisonError::into_inner);
            return match &*waits_for {
                None => (StatusCode::OK, "ready\n".to_owned()),
                Some(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("waits for {what}\n")),
            };
        }
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let phase = if phase.is_empty() { "the process" } else { phase };
        let waits_for = self.waits_for.lock().unwrap_or_else(PoisonError::into_inner);
        let waits_for =
            waits_for.as_ref().map_or(String::new(), |what| format!("; waits for {what}"));
        (StatusCode::SERVICE_UNAVAILABLE, format!("starting: {phase}{waits_for}\n"))
    }
}
