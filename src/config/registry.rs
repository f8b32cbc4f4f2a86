//! Where the schemas of records are: `[registry]`.

use serde::{Deserialize, Serialize};

use super::validate::at_least;
use super::{Faults, KafkaConfig, RecordFormat};

/// `[registry]`: a schema registry by Confluent's API, as Apicurio, Karapace and Redpanda speak it,
/// too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryConfig {
    /// Its address, with the path before `/schemas`; empty: there is none.
    pub url: String,
    /// Name of a login; empty: none.
    pub user: String,
    /// Its password.
    pub password: String,
    /// A request is answered within this, in ms.
    pub timeout_ms: u64,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        let nobody = String::new();
        Self { url: nobody.clone(), user: nobody.clone(), password: nobody, timeout_ms: 5000 }
    }
}

impl RegistryConfig {
    pub(super) fn validate(&self, kafka: &KafkaConfig, faults: &mut Faults) {
        let KafkaConfig { format, schema_file, .. } = kafka;
        let (url, file) = (!self.url.is_empty(), !schema_file.is_empty());
        if format.needs_schemas() && !cfg!(feature = "registry") {
            let reason = "Avro and Protobuf are not in this build: build it with the feature \
                          `registry` (cargo build --features registry)";
            faults.add("kafka.format", reason);
        }
        match format {
            RecordFormat::Avro if !url && !file => faults.add(
                "registry.url",
                "kafka.format = \"avro\" needs either a registry here, or the schema of all \
                 records in kafka.schema_file",
            ),
            RecordFormat::Protobuf if !url => {
                faults.add("registry.url", "kafka.format = \"protobuf\" needs a registry");
            }
            _ => {}
        }
        if file && *format != RecordFormat::Avro {
            faults.add("kafka.schema_file", "is for kafka.format = \"avro\" alone");
        }
        at_least(faults, "registry.timeout_ms", self.timeout_ms, 1);
        if url && let Err(reason) = self.address() {
            faults.add("registry.url", reason);
        }
        if self.user.is_empty() && !self.password.is_empty() {
            faults.add("registry.user", "there is a password, and nobody whose it is");
        }
    }

    /// Host and port of the registry, and what its paths begin with.
    ///
    /// # Errors
    /// It is no address of ours. What is wrong is said without it: a password may stand in it.
    pub fn address(&self) -> Result<(&str, &str), &'static str> {
        let Some(rest) = self.url.strip_prefix("http://") else {
            return Err(if self.url.starts_with("https://") {
                "https is not spoken here: put a proxy beside the trainer that does (stunnel, \
                 envoy), and name it as http://"
            } else {
                "expected like http://registry:8081, or for Apicurio \
                 http://registry:8080/apis/ccompat/v7"
            });
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if host.contains('@') {
            return Err("a login stands in registry.user and registry.password");
        }
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !plain(host) || !plain(path) || path.contains(['?', '#']) {
            return Err("expected like http://registry:8081, without blanks and parameters");
        }
        Ok((host, path.trim_end_matches('/')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(url: &str) -> RegistryConfig {
        RegistryConfig { url: url.to_owned(), ..RegistryConfig::default() }
    }

    #[test]
    fn an_address_is_a_host_and_what_paths_begin_with() {
        for (url, host, path) in [
            ("http://registry:8081", "registry:8081", ""),
            ("http://registry:8081/", "registry:8081", ""),
            ("http://[::1]:8080/apis/ccompat/v7/", "[::1]:8080", "/apis/ccompat/v7"),
        ] {
            assert_eq!(registry(url).address(), Ok((host, path)), "{url}");
        }
        for wrong in ["", "registry:8081", "https://r", "http://", "http://a b", "http://r/?x=1"] {
            assert!(registry(wrong).address().is_err(), "{wrong}");
        }
    }

    /// A fault is shown, and a password must not be.
    #[test]
    fn a_login_in_the_address_is_refused_and_not_repeated() {
        let mut faults = Faults::default();
        registry("http://me:5ecret@registry").validate(&KafkaConfig::default(), &mut faults);
        let said = faults.to_string();
        assert!(said.contains("registry.user") && !said.contains("5ecret"), "{said}");
    }

    #[test]
    fn a_build_without_the_feature_says_so() {
        let kafka = KafkaConfig { format: RecordFormat::Avro, ..KafkaConfig::default() };
        let mut faults = Faults::default();
        registry("http://registry").validate(&kafka, &mut faults);
        let said = faults.to_string();
        assert_eq!(said.contains("--features registry"), !cfg!(feature = "registry"), "{said}");
    }

    #[test]
    fn a_format_with_schemas_says_what_it_lacks() {
        let faults = |format, url, schema_file: &str| {
            let schema_file = schema_file.to_owned();
            let kafka = KafkaConfig { format, schema_file, ..KafkaConfig::default() };
            let mut faults = Faults::default();
            registry(url).validate(&kafka, &mut faults);
            faults.0.retain(|fault| fault.key != "kafka.format");
            faults.0.iter().map(|fault| fault.key.clone()).collect::<Vec<_>>()
        };
        let url = "http://registry";
        assert_eq!(faults(RecordFormat::Avro, "", ""), ["registry.url"]);
        assert_eq!(faults(RecordFormat::Protobuf, "", ""), ["registry.url"]);
        assert_eq!(faults(RecordFormat::Json, "", "a.avsc"), ["kafka.schema_file"]);
        for (format, url, file) in [
            (RecordFormat::Avro, url, ""),
            (RecordFormat::Avro, "", "a.avsc"),
            // Another topic's schemas may be in the registry.
            (RecordFormat::Avro, url, "a.avsc"),
            (RecordFormat::Protobuf, url, ""),
            (RecordFormat::JsonSchema, "", ""),
        ] {
            assert_eq!(faults(format, url, file), [""; 0], "{format:?}");
        }
    }
}
