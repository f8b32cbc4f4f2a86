//! What is wrong with a broker's certificate.
//!
//! librdkafka says only that a certificate does not hold, be it out of date, for another host or by
//! an unknown authority. It tells a callback more, which the binding's clients do not take; so a
//! client of our own connects once more, with one.
//!
//! Must never know: what is read or sent.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::types::{RDKafka, RDKafkaType};

/// A handshake takes milliseconds, over an ocean a second.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// A certificate that does not hold, and the broker that showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    broker: String,
    /// Of OpenSSL's `X509_V_ERR_`.
    code: c_int,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broker = &self.broker;
        match self.code {
            9 => write!(
                f,
                "the certificate of {broker} is not valid yet; wait, or correct the clock here"
            ),
            10 => write!(
                f,
                "the certificate of {broker} has expired; renew it on the broker (or correct the \
                 clock here)"
            ),
            18..=21 => write!(
                f,
                "the certificate of {broker} is not signed by an authority known here; name the \
                 file with the authority's certificate (PEM) as \"ssl.ca.location\" in \
                 kafka.properties"
            ),
            23 => write!(f, "the certificate of {broker} was revoked; renew it on the broker"),
            62 | 64 => write!(
                f,
                "the certificate of {broker} is for another host; name the broker in kafka.brokers \
                 (and in its advertised.listeners) as the certificate does, or give it one with \
                 this name (subjectAltName)"
            ),
            code => write!(
                f,
                "the certificate of {broker} does not hold (OpenSSL's verify error {code}); \
                 `openssl s_client -connect {broker}` shows it"
            ),
        }
    }
}

/// Connects as `client` says, and returns what is wrong with the first certificate that does not
/// hold. None: there was none, or no connection at all.
pub(super) fn flaw(client: &ClientConfig) -> Option<Flaw> {
    let native = client.create_native_config().ok()?;
    // SAFETY: the config is a live one of ours, and the callback has the type that is asked for.
    unsafe {
        rdkafka::bindings::rd_kafka_conf_set_ssl_cert_verify_cb(native.ptr(), Some(verify));
    }
    let kind = RDKafkaType::RD_KAFKA_PRODUCER;
    let client = Client::new(client, native, kind, Witness::default()).ok()?;
    // What it answers does not matter: a handshake came before.
    client.fetch_metadata(None, LOOK_MAX).ok();
    client.context().seen.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Remembers the first flaw.
#[derive(Default)]
struct Witness {
    seen: Mutex<Option<Flaw>>,
}

impl ClientContext for Witness {
    // Whoever asks has heard all this before.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: rdkafka::error::KafkaError, _: &str) {}
}

/// librdkafka's question whether a certificate holds. The answer is OpenSSL's own.
unsafe extern "C" fn verify(
    _: *mut RDKafka,
    broker_name: *const c_char,
    _: i32,
    x509_error: *mut c_int,
    _: c_int,
    _: *const c_char,
    _: usize,
    _: *mut c_char,
    _: usize,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: librdkafka passes the name of a broker, a pointer to OpenSSL's verdict, and the
    // opaque pointer that `Client::new` set: to its context, which lives as long as the client's
    // threads.
    let (broker, code, witness) =
        unsafe { (CStr::from_ptr(broker_name), *x509_error, &*opaque.cast::<Witness>()) };
    if code != 0 {
        let broker = broker.to_string_lossy().into_owned();
        let mut seen = witness.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get_or_insert(Flaw { broker, code });
    }
    c_int::from(code == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flaw_says_what_to_do() {
        let text = |code| Flaw { broker: "kafka-1:9093".to_owned(), code }.to_string();
        let parts = [(10, "renew it"), (20, "ssl.ca.location"), (62, "kafka.brokers")];
        for (code, part) in parts {
            assert!(text(code).contains(part) && text(code).contains("kafka-1:9093"), "{code}");
        }
        assert!(text(99).contains("99"), "{}", text(99));
    }

    /// A port that nobody answers shows no certificate.
    #[test]
    fn without_a_connection_nothing_is_wrong_with_a_certificate() {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", "127.0.0.1:1");
        assert_eq!(flaw(&client), None);
    }
}
