//! Who may ask.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use subtle::{Choice, ConstantTimeEq};

use super::problem::Problem;
use crate::config::ServeKeys;

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// To read answers.
    Read,
    /// To change which version answers.
    Admin,
}

/// The keys that open something.
pub(super) struct Keys(ServeKeys);

impl Keys {
    pub(super) fn new(keys: &ServeKeys) -> Self {
        Self(keys.clone())
    }

    /// Whether a request with these headers may do `access`. Without any key everything is open;
    /// with one nothing is without a key.
    pub(super) fn check(&self, headers: &HeaderMap, access: Access) -> Result<(), Problem> {
        let Self(ServeKeys { read, admin }) = self;
        if read.is_empty() && admin.is_empty() {
            return Ok(());
        }
        let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let given = given.and_then(|value| value.split_at_checked(b"Bearer ".len()));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
        let Some((_, given)) = given else { return Err(Problem::no_key()) };
        let (reads, admins) = (among(read, given), among(admin, given));
        match access {
            _ if bool::from(admins) => Ok(()),
            Access::Read if bool::from(reads) => Ok(()),
            Access::Admin if bool::from(reads) => Err(Problem::not_admin()),
            _ => Err(Problem::no_key()),
        }
    }
}

/// Whether `given` is one of `keys`. All are compared, byte by byte, so that the time it takes
/// tells nothing of them but their lengths.
fn among(keys: &[String], given: &[u8]) -> Choice {
    let equal = keys.iter().map(|key| key.as_bytes().ct_eq(given));
    equal.fold(Choice::from(0), |any, equal| any | equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(keys: &ServeKeys, header: Option<&str>, access: Access) -> Option<u64> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().expect("a header"));
        }
        let checked = Keys::new(keys).check(&headers, access);
        checked.err().and_then(|problem| problem.body()["status"].as_u64())
    }

    #[test]
    fn a_key_opens_what_it_is_for() {
        let keys =
            ServeKeys { read: vec!["reader".into(), "other".into()], admin: vec!["chief".into()] };
        for (header, read, admin) in [
            (None, Some(401), Some(401)),
            (Some("reader"), Some(401), Some(401)),
            (Some("Basic reader"), Some(401), Some(401)),
            (Some("Bearer wrong"), Some(401), Some(401)),
            (Some("Bearer reade"), Some(401), Some(401)),
            (Some("Bearer "), Some(401), Some(401)),
            (Some("Bearer reader"), None, Some(403)),
            (Some("bearer other"), None, Some(403)),
            (Some("Bearer chief"), None, None),
        ] {
            let found = [Access::Read, Access::Admin].map(|access| may(&keys, header, access));
            assert_eq!(found, [read, admin], "{header:?}");
        }
        let open = ServeKeys::default();
        assert_eq!(may(&open, None, Access::Admin), None);
        let guarded = ServeKeys { admin: vec!["chief".into()], ..ServeKeys::default() };
        assert_eq!(may(&guarded, None, Access::Read), Some(401));
        assert_eq!(may(&guarded, None, Access::Admin), Some(401));
    }
}
