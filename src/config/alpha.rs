//! `frequency.alpha`: a number, or `"auto"`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Fault;

/// Rate of the estimator's moving averages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Alpha {
    /// The rate that lately forecast the traffic best. The paper's own algorithms, which cannot
    /// choose, take the paper's 0.01.
    #[default]
    Auto,
    /// This rate.
    Fixed(f32),
}

impl Alpha {
    /// Whether an estimator can be built with it.
    pub fn is_valid(self) -> bool {
        match self {
            Self::Auto => true,
            Self::Fixed(alpha) => alpha > 0.0 && alpha <= 1.0,
        }
    }
}

impl fmt::Display for Alpha {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Fixed(alpha) => alpha.fmt(formatter),
        }
    }
}

impl FromStr for Alpha {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let alpha = match text {
            "auto" => Some(Self::Auto),
            number => number.parse().ok().map(Self::Fixed),
        };
        let wrong = || Fault { key: String::new(), reason: "a number in (0, 1] or auto".into() };
        alpha.filter(|alpha| alpha.is_valid()).ok_or_else(wrong)
    }
}

impl Serialize for Alpha {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(alpha) => serializer.serialize_f32(*alpha),
        }
    }
}

impl<'de> Deserialize<'de> for Alpha {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AlphaVisitor)
    }
}

struct AlphaVisitor;

impl Visitor<'_> for AlphaVisitor {
    type Value = Alpha;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number in (0, 1] or \"auto\"")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Alpha, E> {
        Ok(Alpha::Fixed(value as f32))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Alpha, E> {
        Ok(Alpha::Fixed(value as f32))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Alpha, E> {
        match value {
            "auto" => Ok(Alpha::Auto),
            other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
        }
    }
}
