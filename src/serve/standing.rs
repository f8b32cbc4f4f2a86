//! How far histories are, for people, probes and gauges.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use millrace_events::Offsets;
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
    next: Offsets,
    /// By lane.
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
    /// Further topics of interactions, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<Further>,
    /// Records between there and the log's end, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<i64>,
    bytes: usize,
}

/// The next offset of each partition behind what histories know.
#[derive(Serialize, ToSchema)]
pub(super) struct Known<'v> {
    /// The topic of interactions.
    topic: &'v str,
    /// By partition.
    #[schema(value_type = BTreeMap<String, i64>)]
    next: BTreeMap<i32, i64>,
    /// Further topics of interactions, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<Further>,
}

impl Known<'_> {
    /// As these offsets have it.
    pub(super) fn of(offsets: &Offsets) -> Known<'_> {
        let (topic, next) = offsets.by_topic().next().expect("a log has a topic");
        Known { topic, next: next.into_iter().collect(), others: Further::of(offsets) }
    }
}

/// A topic of interactions behind the first one.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Further {
    topic: String,
    /// The next offset of each partition.
    #[schema(value_type = BTreeMap<String, i64>)]
    next: BTreeMap<i32, i64>,
}

impl Further {
    /// Those of a log.
    fn of(offsets: &Offsets) -> Vec<Further> {
        let others = offsets.by_topic().skip(1);
        let further = |(topic, next): (&str, Vec<_>)| Further {
            topic: topic.to_owned(),
            next: next.into_iter().collect(),
        };
        others.map(further).collect()
    }
}

impl Standing {
    pub(super) fn new(state: State) -> Self {
        let (next, lag) = (Offsets::new(""), BTreeMap::new());
        Self(Mutex::new(Now { state, next, lag, bytes: 0, newest_ms: None }))
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
        now.state = state;
        now.next = recent.next();
        now.lag = lag.iter().copied().collect();
        now.bytes = recent.bytes();
        now.newest_ms = recent.newest_ms();
    }

    /// For `GET /v1/versions`.
    pub(super) fn described(&self) -> Histories {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let detail = now.state.detail().map(str::to_owned);
        let lag = (!now.lag.is_empty()).then(|| now.lag.values().sum());
        let Now { state, next, bytes, .. } = now;
        let others = Further::of(&next);
        let (topic, next) = next.by_topic().next().expect("a log has a topic");
        let (topic, next) = (topic.to_owned(), next.into_iter().collect());
        Histories { state: state.spelt(), detail, topic, next, others, lag, bytes }
    }

    /// Sets the gauges.
    pub(super) fn measure(&self, metrics: &ServeMetrics) {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        metrics.histories(now.state == State::Following, now.bytes, now.newest_ms);
        now.lag.iter().for_each(|(&lane, &lag)| {
            let (topic, partition) = now.next.place(lane);
            metrics.history_lag(topic, partition, lag);
        });
    }
}
