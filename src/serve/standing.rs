//! How far histories are, for people, probes and gauges.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

use super::metrics::ServeMetrics;
use super::recent::Recent;

/// What the reading of histories is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// `serve.follow` is false: histories are the versions' own.
    Off,
    /// No version is there to go on from.
    Waiting,
    /// No feature of the version's query tower is a history that the trainer keeps.
    Unused,
    /// The topic is read.
    Following,
    /// `serve.follow_bytes_max` is reached: nothing more is taken until a newer version comes.
    Full,
    /// The topic cannot be read, and why.
    Away(String),
}

impl State {
    fn spelt(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Waiting => "waiting",
            Self::Unused => "unused",
            Self::Following => "following",
            Self::Full => "full",
            Self::Away(_) => "away",
        }
    }

    fn detail(&self) -> Option<&str> {
        match self {
            Self::Off => Some("serve.follow is false: histories are those of the checkpoint"),
            Self::Waiting => Some("no version is loaded yet"),
            Self::Unused => Some("the query tower reads no history that the trainer keeps"),
            Self::Following => None,
            Self::Full => Some(
                "serve.follow_bytes_max is reached: nothing more is taken until a newer version \
                 comes; checkpoint more often, or raise it",
            ),
            Self::Away(why) => Some(why),
        }
    }
}

/// See the module's head. One thread sets it, any may look.
pub(super) struct Standing(Mutex<Now>);

#[derive(Clone)]
struct Now {
    state: State,
    topic: String,
    next: BTreeMap<i32, i64>,
    lag: BTreeMap<i32, i64>,
    bytes: usize,
    newest_ms: Option<i64>,
}

/// `histories` of `GET /v1/versions`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Histories {
    /// `following`, `away`, `full`, `waiting`, `unused`, `off`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    topic: String,
    /// The next offset of each partition that is read.
    #[schema(value_type = BTreeMap<String, i64>)]
    next: BTreeMap<i32, i64>,
    /// Records between there and the log's end, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<i64>,
    bytes: usize,
}

impl Standing {
    pub(super) fn new(state: State) -> Self {
        let (next, lag, topic) = (BTreeMap::new(), BTreeMap::new(), String::new());
        Self(Mutex::new(Now { state, topic, next, lag, bytes: 0, newest_ms: None }))
    }

    /// Notes how it stands, and says in the log what a person should know.
    pub(super) fn set(&self, state: State, lag: &[(i32, i64)], recent: &Recent) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = std::mem::discriminant(&now.state) == std::mem::discriminant(&state);
        match &state {
            State::Away(why) if !same => tracing::warn!(
                "histories stay as they are: {why}. Answers go on, and say how far their histories \
                 were read"
            ),
            State::Full if !same => {
                tracing::warn!(
                    "histories stay as they are: {}",
                    state.detail().unwrap_or_default()
                );
            }
            State::Following if matches!(now.state, State::Away(_) | State::Full) => {
                tracing::info!("histories follow the topic again");
            }
            _ => {}
        }
        let next = recent.next();
        now.state = state;
        next.topic().clone_into(&mut now.topic);
        now.next = next.iter().collect();
        now.lag = lag.iter().copied().collect();
        now.bytes = recent.bytes();
        now.newest_ms = recent.newest_ms();
    }

    /// For `GET /v1/versions`.
    pub(super) fn described(&self) -> Histories {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let detail = now.state.detail().map(str::to_owned);
        let lag = (!now.lag.is_empty()).then(|| now.lag.values().sum());
        let Now { state, topic, next, bytes, .. } = now;
        Histories { state: state.spelt(), detail, topic, next, lag, bytes }
    }

    /// Sets the gauges.
    pub(super) fn measure(&self, metrics: &ServeMetrics) {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        metrics.histories(now.state == State::Following, now.bytes, now.newest_ms);
        now.lag.iter().for_each(|(&partition, &lag)| {
            metrics.history_lag(&now.topic, partition, lag);
        });
    }
}
