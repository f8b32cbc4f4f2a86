//! What is answered over HTTP, and how: `[http]`, `[serve]`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Faults;
use super::validate::at_least;

/// `[http]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpConfig {
    /// Address of `/metrics`, `/healthz`, `/readyz`; empty: no server.
    pub listen: String,
}

/// `[serve]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServeConfig {
    /// Versions held in memory, the newest and those before it.
    pub keep_versions: usize,
    /// How often the directory is looked at for a newer version, in ms.
    pub poll_ms: u64,
    /// Not ready once the version is older than this, in seconds of wall time; 0: never.
    pub stale_max_s: u64,
    /// Histories follow the topic of interactions.
    pub follow: bool,
    /// Bytes of what is read there, at most.
    pub follow_bytes_max: usize,
    /// Threads that compute answers; 0: as many as there are processors.
    pub threads: usize,
    /// Requests that are worked on at once.
    pub requests_max: usize,
    /// Largest body of a request.
    pub body_bytes_max: usize,
    /// A request's body must have come, and its answer be there, within this, in ms.
    pub timeout_ms: u64,
    /// Up to so many items every answer is exact.
    pub exact_items_max: usize,
    /// Lists that a request scans where there are more items.
    pub lists_probed: usize,
    /// What is served side by side; none: one directory, and no arms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arms: Vec<ArmConfig>,
    /// Who may ask.
    pub keys: ServeKeys,
}

/// One entry of `[[serve.arms]]`: what a share of the queries is answered with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArmConfig {
    /// Labels answers and series.
    pub name: String,
    /// A checkpoint, or a directory of them.
    pub from: String,
    /// Share of the queries, of the sum of all shares.
    pub share: f64,
}

impl ArmConfig {
    /// The only one, which has no name.
    pub fn only(from: impl Into<String>) -> Self {
        Self { name: String::new(), from: from.into(), share: 1.0 }
    }
}

/// `[serve.keys]`: bearer tokens. None at all: whoever reaches the port may ask.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServeKeys {
    /// May ask. So may an admin's.
    pub read: Vec<String>,
    /// May also change which version answers.
    pub admin: Vec<String>,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            keep_versions: 2,
            poll_ms: 500,
            stale_max_s: 0,
            follow: true,
            follow_bytes_max: 256 << 20,
            threads: 0,
            requests_max: 256,
            body_bytes_max: 1 << 20,
            timeout_ms: 2000,
            exact_items_max: 200_000,
            lists_probed: 128,
            arms: Vec::new(),
            keys: ServeKeys::default(),
        }
    }
}

/// A shorter key is guessed.
const KEY_BYTES_MIN: usize = 16;

impl ServeConfig {
    pub(super) fn validate(&self, faults: &mut Faults) {
        let least = [
            ("serve.keep_versions", self.keep_versions as u64),
            ("serve.poll_ms", self.poll_ms),
            ("serve.follow_bytes_max", self.follow_bytes_max as u64),
            ("serve.requests_max", self.requests_max as u64),
            ("serve.body_bytes_max", self.body_bytes_max as u64),
            ("serve.timeout_ms", self.timeout_ms),
            ("serve.lists_probed", self.lists_probed as u64),
        ];
        least.into_iter().for_each(|(key, value)| at_least(faults, key, value, 1));
        self.validate_arms(faults);
        for (name, keys) in [("read", &self.keys.read), ("admin", &self.keys.admin)] {
            let short = keys.iter().any(|key| key.len() < KEY_BYTES_MIN);
            let plain = keys.iter().all(|key| key.bytes().all(|byte| byte.is_ascii_graphic()));
            if short || !plain {
                let reason = format!(
                    "a key has at least {KEY_BYTES_MIN} bytes, letters, digits and signs without \
                     blanks (openssl rand -hex 24 makes one)"
                );
                faults.add(format!("serve.keys.{name}"), reason);
            }
        }
    }

    fn validate_arms(&self, faults: &mut Faults) {
        for (index, arm) in self.arms.iter().enumerate() {
            let key = |name: &str| format!("serve.arms[{index}].{name}");
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if arm.name.is_empty() || !arm.name.chars().all(plain) {
                faults.add(key("name"), "is a name of letters, digits, `_`, `-` and `.`");
            }
            if self.arms[..index].iter().any(|other| other.name == arm.name) {
                faults.add(key("name"), "is that of another arm");
            }
            if arm.from.is_empty() {
                faults.add(key("from"), "must name a checkpoint, or a directory of them");
            }
            if !(arm.share > 0.0 && arm.share.is_finite()) {
                faults.add(key("share"), "must be above 0: it is a share of all queries");
            }
        }
    }

    /// Whether anybody needs a key.
    pub fn has_keys(&self) -> bool {
        !(self.keys.read.is_empty() && self.keys.admin.is_empty())
    }

    /// Why `listen` cannot be served on, if it cannot: without keys only this machine may ask.
    pub fn refuses(&self, listen: &str) -> Option<String> {
        let address: Result<SocketAddr, _> = listen.parse();
        match address {
            Err(_) => Some("http.listen is empty: there is no address to answer on".to_owned()),
            Ok(address) if !address.ip().is_loopback() && !self.has_keys() => Some(format!(
                "http.listen is {listen}, which others reach, and there is no key: set \
                 serve.keys.read (like [\"env:MILLRACE_READ_KEY\"]), or listen on 127.0.0.1"
            )),
            Ok(_) => None,
        }
    }
}
