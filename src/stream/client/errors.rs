//! Errors that librdkafka retries by itself, and what follows from them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::contact::Contact;
use crate::stream::refusal::{REFUSED_AT_START_MAX, REFUSED_MAX, Refusal};

/// An unreachable broker is reported by librdkafka several times a second; once in this long is
/// enough for a person.
const WARN_EVERY: Duration = Duration::from_secs(5);
/// A refused connection is as long a sign that the brokers are away: librdkafka repeats the same
/// error every 30 s.
const ALL_DOWN_RECENT: Duration = Duration::from_secs(45);

/// Errors that librdkafka retries by itself: the last one is kept, and one in a while is logged.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    state: Mutex<ErrorState>,
}

#[derive(Debug, Default)]
struct ErrorState {
    /// librdkafka said that no broker can be reached, and nothing has come since.
    all_down: bool,
    /// They are connected, and have not answered for so long.
    silent: Option<Duration>,
    /// The brokers refuse us, and nothing has come since.
    refused: Option<(Refusal, Instant)>,
    /// Something has come at all.
    answered: bool,
    last: String,
    /// The last one that was a refusal: broken connections follow it.
    refusal: String,
    noted: Option<Instant>,
    warned: Option<Instant>,
    unwarned: u64,
}

impl Errors {
    pub(super) fn note(&self, error: &KafkaError, reason: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let all_down = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        state.all_down |= all_down;
        // What brought the last one down says more than that all are.
        if !all_down || state.last.is_empty() {
            state.last = format!("{error}: {reason}");
        }
        if let Some(refusal) = Refusal::of(error) {
            // When it began, librdkafka says once, and then every 30 s at most.
            state.refused.get_or_insert((refusal, Instant::now()));
            reason.clone_into(&mut state.refusal);
        }
        state.noted = Some(Instant::now());
        if state.warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            state.unwarned += 1;
            return;
        }
        let since_last = std::mem::take(&mut state.unwarned);
        state.warned = Some(Instant::now());
        tracing::warn!(%error, reason, since_last, "trouble with kafka, retrying");
    }

    /// Keeps a log line about a connection that broke: where the other side closed it, as a
    /// listener with TLS does that is spoken to without, no error tells of it.
    pub(super) fn hint(&self, facility: &str, message: &str) {
        if facility == "FAIL" {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            message.clone_into(&mut state.last);
        }
    }

    /// The last error with its reason and its age, unless it is older than `within`.
    pub(crate) fn recent(&self, within: Duration) -> Option<(String, Duration)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let age = state.noted?.elapsed();
        (age <= within).then(|| (state.last.clone(), age))
    }

    /// Notes what the connections show. A broker that answers may refuse us all the same.
    pub(super) fn contact(&self, contact: Contact) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.all_down &= contact != Contact::Answers;
        state.silent = if let Contact::Silent(silent) = contact { Some(silent) } else { None };
    }

    /// Notes that a broker has answered.
    pub(crate) fn answered(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.all_down = false;
        state.silent = None;
        state.refused = None;
        state.answered = true;
    }

    /// The refusal in force, with librdkafka's words, if the brokers refuse us.
    pub(crate) fn refusing(&self) -> Option<(Refusal, String)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.refused.map(|(refusal, _)| (refusal, state.refusal.clone()))
    }

    /// As [`Errors::refusing`], once it has lasted so long that a person must act.
    pub(crate) fn refused(&self) -> Option<(Refusal, String)> {
        let answered = self.state.lock().unwrap_or_else(PoisonError::into_inner).answered;
        self.refused_for(if answered { REFUSED_MAX } else { REFUSED_AT_START_MAX })
    }

    /// As [`Errors::refusing`], once it has lasted for `borne`.
    pub(crate) fn refused_for(&self, borne: Duration) -> Option<(Refusal, String)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (refusal, since) = state.refused?;
        (since.elapsed() >= borne).then(|| (refusal, state.refusal.clone()))
    }

    /// The last error, if no broker can be reached (librdkafka says so once, and from then on at
    /// least every 30 s that a connection was refused), or for how long none has answered.
    pub(crate) fn all_down(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(silent) = state.silent {
            return Some(format!("no broker has answered for {} s", silent.as_secs()));
        }
        let recent = state.noted.is_some_and(|at| at.elapsed() < ALL_DOWN_RECENT);
        (state.all_down && recent).then(|| state.last.clone())
    }

    /// The last error with its reason, for a message.
    pub(crate) fn last(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if what has been noted had been noted `earlier`.
    fn age(errors: &Errors, earlier: Duration) {
        let mut state = errors.state.lock().expect("nobody panics with it");
        state.refused.as_mut().expect("refused").1 -= earlier;
    }

    #[test]
    fn a_refusal_is_borne_for_a_while_and_forgotten_with_the_first_answer() {
        let errors = Errors::default();
        let refused = KafkaError::Global(RDKafkaErrorCode::Authentication);
        errors.note(&refused, "wrong password");
        // The connection that breaks after it is not the reason.
        errors.note(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "gone");
        errors.hint("FAIL", "closed by peer");
        errors.note(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert!(errors.all_down().expect("all are").contains("closed by peer"), "and how");
        let said = Some((Refusal::Credentials, "wrong password".to_owned()));
        assert_eq!((errors.refusing(), errors.refused()), (said.clone(), None));
        age(&errors, REFUSED_AT_START_MAX);
        assert_eq!(errors.refused(), said, "nothing has ever come");
        errors.contact(Contact::Answers);
        assert_eq!(errors.all_down(), None);
        assert_eq!(errors.refused(), said, "it answers that we may not");
        errors.contact(Contact::Silent(Duration::from_secs(12)));
        assert_eq!(errors.all_down().as_deref(), Some("no broker has answered for 12 s"));
        errors.answered();
        assert_eq!((errors.refusing(), errors.refused(), errors.all_down()), (None, None, None));

        errors.note(&refused, "wrong password");
        age(&errors, REFUSED_MAX - Duration::from_secs(5));
        // Said again: it is the same one, and as old.
        errors.note(&refused, "wrong password");
        assert_eq!(errors.refused(), None, "a broker may be restarting");
        age(&errors, Duration::from_secs(5));
        assert_eq!(errors.refused(), said);
    }
}
