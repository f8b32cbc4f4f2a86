//! What the page at `/` shows: the state in a sentence, curves, warnings.
//!
//! Owns the page, which is one file and asks nobody else, and the JSON that it draws.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::curves::{Curve, Curves, Newest, Points, by_label};
use super::logging::{Warning, last_warnings};
use super::{Health, Registry};

const PAGE: &str = include_str!("page/page.html");
/// uPlot 1.6.32 (MIT), from the npm registry: vendor/uplot.
const UPLOT: &str = include_str!("../../vendor/uplot/uPlot.iife.min.js");
const UPLOT_CSS: &str = include_str!("../../vendor/uplot/uPlot.min.css");

/// Nothing is loaded from elsewhere, and nobody frames it.
const POLICY: &str = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; \
                      style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It trains.
    Train,
    /// It answers queries.
    Serve,
}

/// See the module's head.
pub struct Board {
    role: Role,
    health: Arc<Health>,
    registry: Registry,
    /// Sets the gauges that are true only at a moment, ages above all.
    refresh: Box<dyn Fn() + Send + Sync>,
    curves: Mutex<Curves>,
    /// Warnings quote records, which not everybody may read who may see figures.
    shows_warnings: bool,
}

/// `GET /status.json`
#[derive(Serialize)]
struct Status {
    role: Role,
    version: &'static str,
    ready: bool,
    failed: bool,
    sentence: String,
    curves: Vec<Newest>,
    /// Seconds, by phase of a step.
    phases: BTreeMap<String, f64>,
    /// Records, by reason.
    rejected: BTreeMap<String, f64>,
    /// The newest first.
    warnings: Vec<Warning>,
}

impl Board {
    /// The board of a process that has `health` and `registry`, and draws `curves`. `refresh` sets
    /// what is true only at a moment. Warnings are shown if everybody who reaches the page may read
    /// records.
    pub fn new(
        role: Role,
        health: Arc<Health>,
        registry: Registry,
        curves: &'static [Curve],
        shows_warnings: bool,
        refresh: impl Fn() + Send + Sync + 'static,
    ) -> Board {
        let curves = Mutex::new(Curves::new(curves));
        Board { role, health, registry, refresh: Box::new(refresh), curves, shows_warnings }
    }

    /// Everything in the Prometheus text format, as of now.
    pub fn render(&self) -> String {
        (self.refresh)();
        self.registry.render()
    }

    /// Whether the process works, and whether it does what it is for.
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Takes a point of each curve; to be called every [`EVERY`](super::curves::EVERY).
    pub(crate) fn sample(&self) {
        (self.refresh)();
        let mut curves = self.curves.lock().unwrap_or_else(PoisonError::into_inner);
        curves.sample(&self.registry, SystemTime::now());
    }

    /// `GET /status.json`
    pub(crate) fn status(&self) -> String {
        let curves = self.curves.lock().unwrap_or_else(PoisonError::into_inner).newest();
        let by = |name, label| by_label(&self.registry, name, label).into_iter().collect();
        let (ready, failed, sentence) = self.sentence();
        let status = Status {
            role: self.role,
            version: env!("CARGO_PKG_VERSION"),
            ready,
            failed,
            sentence,
            curves,
            phases: by("step_seconds", "phase"),
            rejected: by("rejected_total", "reason"),
            warnings: if self.shows_warnings { last_warnings() } else { Vec::new() },
        };
        serde_json::to_string(&status).expect("numbers and texts are JSON")
    }

    /// Whether it does what it is for, whether it has failed, and both in words.
    fn sentence(&self) -> (bool, bool, String) {
        let (alive, unwell) = self.health.livez();
        let (ready, waits) = self.health.readyz();
        let failed = !alive.is_success();
        let said = if failed { unwell } else { waits };
        let said = said.trim();
        let sentence = match (self.role, said) {
            (Role::Train, "ready") => "Training.".to_owned(),
            (Role::Serve, "ready") => "Answering.".to_owned(),
            (_, said) => {
                let mut letters = said.chars();
                let first = letters.next().map_or(String::new(), |c| c.to_uppercase().to_string());
                first + letters.as_str() + "."
            }
        };
        (ready.is_success() && !failed, failed, sentence)
    }

    /// `GET /curves.json`, with the part of the address behind its `?`.
    pub(crate) fn points(&self, parameters: &str) -> String {
        let value = |wanted: &str| {
            let pairs = parameters.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| value).next()
        };
        let after = value("after").and_then(|after| after.parse().ok()).unwrap_or(0);
        let curves = self.curves.lock().unwrap_or_else(PoisonError::into_inner);
        let points: Points = curves.points(value("span") == Some("day"), after);
        serde_json::to_string(&points).expect("numbers and texts are JSON")
    }
}

/// The page, for who asks as a browser does; `index` for others.
pub(crate) fn page(head: &HeaderMap, index: &'static str) -> Response {
    let accepts = head.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accepts.contains("text/html") {
        return index.into_response();
    }
    let page = PAGE.replace("/*uplot.css*/", UPLOT_CSS).replace("/*uplot.js*/", UPLOT);
    let kind = (CONTENT_TYPE, "text/html; charset=utf-8");
    ([kind, (CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-cache")], page).into_response()
}

/// JSON that is of this moment.
pub(crate) fn json(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn the_page_is_one_file_that_asks_nobody_else() {
        let bytes = PAGE.len() + UPLOT.len() + UPLOT_CSS.len();
        assert!(bytes <= 120 << 10, "{bytes} bytes");
        assert!(PAGE.contains("/*uplot.css*/") && PAGE.contains("/*uplot.js*/"));
        for text in [PAGE, UPLOT_CSS] {
            assert!(
                !text.contains("http://") && !text.contains("https://") && !text.contains("//cdn")
            );
        }
        // Names in the log are texts of others.
        assert!(!PAGE.contains("innerHTML") && !PAGE.contains("insertAdjacentHTML"));
        let mut browser = HeaderMap::new();
        browser.insert(ACCEPT, "text/html,*/*".parse().expect("a header"));
        let answer = page(&browser, "index");
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(
            page(&HeaderMap::new(), "index").headers()[CONTENT_TYPE]
                .as_bytes()
                .starts_with(b"text/plain")
        );
    }

    #[test]
    fn the_state_is_a_sentence() {
        let health = Arc::new(Health::new());
        let board = Board::new(Role::Train, Arc::clone(&health), Registry::new(), &[], true, || {});
        let sentence = || {
            let status: serde_json::Value = serde_json::from_str(&board.status()).expect("JSON");
            let text = status["sentence"].as_str().expect("a text").to_owned();
            (text, status["ready"] == true, status["failed"] == true)
        };
        health.set_phase("restoring the checkpoint");
        assert_eq!(sentence(), ("Starting: restoring the checkpoint.".into(), false, false));
        health.set_ready(true);
        assert_eq!(sentence(), ("Training.".into(), true, false));
        health.set_waits_for(Some("the brokers: none answers".into()));
        assert_eq!(sentence(), ("Waits for the brokers: none answers.".into(), false, false));
        health.set_waits_for(None);
        let stuck = Arc::new(AtomicBool::new(true));
        let watched = Arc::clone(&stuck);
        health.watch(move || watched.load(Ordering::Relaxed).then(|| "a step".to_owned()));
        assert_eq!(sentence(), ("Stuck: a step.".into(), false, true));
        stuck.store(false, Ordering::Relaxed);
        assert_eq!(sentence(), ("Training.".into(), true, false));
        health.fail("the disk is full".into());
        assert_eq!(sentence(), ("Failed: the disk is full.".into(), false, true));
    }
}
