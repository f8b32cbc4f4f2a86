//! What stands behind the `?` of a request's address, checked.

use utoipa::IntoParams;

use super::problem::Problem;
use super::request::{K, Wanted, k};

/// The parameters of `GET /v1/items/{id}`.
#[derive(Debug, Default, PartialEq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Pin {
    /// A version in memory; absent: the one that answers.
    pub(super) version: Option<String>,
    /// One of `serve.arms`; absent: the first, or the first that holds the version.
    pub(super) arm: Option<String>,
}

/// The parameters of `GET /v1/items/{id}/similar`, besides [`Pin`].
#[derive(Debug, PartialEq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Similar {
    /// Items wanted.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1000)]
    pub(super) k: usize,
    /// Each item has its attributes.
    #[param(value_type = Option<bool>)]
    pub(super) attributes: bool,
    #[param(ignore)]
    pub(super) pin: Pin,
}

/// The parameters of `/v1/versions` and what is below it.
#[derive(Debug, Default, PartialEq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OfArm {
    /// One of `serve.arms`; absent: the first, or the one that holds the version.
    pub(super) arm: Option<String>,
}

impl Pin {
    /// The parameters in the part of an address behind its `?`.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let mut pin = Self::default();
        for (name, value) in parameters(text) {
            if !pin.takes(name, value) {
                let detail = "unknown parameter; there are `version` and `arm`";
                return Err(Problem::field(name, detail));
            }
        }
        Ok(pin)
    }

    /// Whether it is a parameter of this kind.
    fn takes(&mut self, name: &str, value: &str) -> bool {
        let field = match name {
            "version" => &mut self.version,
            "arm" => &mut self.arm,
            _ => return false,
        };
        *field = Some(value.to_owned());
        true
    }

    /// Who is to answer.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted { arm: self.arm.as_deref(), version: self.version.as_deref(), query: None }
    }
}

impl Similar {
    /// The parameters in the part of an address behind its `?`.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let (mut wanted, mut attributes, mut pin) = (K, false, Pin::default());
        for (name, value) in parameters(text) {
            if name == "k" {
                wanted = value
                    .parse()
                    .map_err(|_| Problem::field("k", "must be a whole number from 1 to 1000"))?;
            } else if name == "attributes" {
                attributes =
                    value.parse().map_err(|_| Problem::field(name, "must be true or false"))?;
            } else if !pin.takes(name, value) {
                let detail = "unknown parameter; there are `k`, `attributes`, `version` and `arm`";
                return Err(Problem::field(name, detail));
            }
        }
        Ok(Self { k: k(wanted)?, attributes, pin })
    }
}

impl OfArm {
    /// The parameter in the part of an address behind its `?`.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let mut of = Self::default();
        for (name, value) in parameters(text) {
            match name {
                "arm" => of.arm = Some(value.to_owned()),
                _ => return Err(Problem::field(name, "unknown parameter; there is `arm`")),
            }
        }
        Ok(of)
    }

    /// Who is to answer.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted { arm: self.arm.as_deref(), ..Wanted::default() }
    }
}

/// Names and values. Neither a number nor a version's id needs an escape.
fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_by_name_and_others_are_refused() {
        assert_eq!(
            Similar::parse("k=3").expect("right"),
            Similar { k: 3, attributes: false, pin: Pin::parse("").expect("right") }
        );
        let pin = Pin { version: Some("v-1".into()), arm: Some("b".into()) };
        let pinned = Similar { k: 10, attributes: true, pin };
        assert_eq!(Similar::parse("version=v-1&attributes=true&arm=b").expect("right"), pinned);
        assert_eq!(OfArm::parse("arm=b").expect("right").arm.as_deref(), Some("b"));
        assert!(OfArm::parse("k=3").is_err());
        assert_eq!(Pin::parse("version=v-1").expect("right").version.as_deref(), Some("v-1"));
        assert!(Pin::parse("k=3").is_err());
        for wrong in ["k=0", "k=a", "q=3", "k", "attributes=title"] {
            assert!(Similar::parse(wrong).is_err(), "{wrong}");
        }
    }
}
