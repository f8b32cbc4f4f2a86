//! The routes for programs: `/openapi.json`, OpenAPI 3.1.
//!
//! Routes, bodies and answers are described where they are made. What a query's fields and an
//! item's attributes are, the version that answers says: its config names them.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::Version;
use super::http::App;
use super::problem::ProblemBody;
use super::request::{Filter, Query};
use super::{kserve, routes};
use crate::config::{FeatureConfig, FeatureKind, alternatives};
use crate::telemetry;

/// What a number may be and still be one of 32 bits.
const NUMBER_MAX: f64 = 3.4e38;

#[derive(OpenApi)]
#[openapi(
    info(title = "millrace serve", description = "Answers queries from a running trainer."),
    paths(
        routes::retrieve,
        routes::score,
        routes::embed,
        routes::item,
        routes::similar,
        routes::versions,
        routes::activate,
        routes::infer,
        routes::infer_pinned,
        kserve::server,
        kserve::live,
        kserve::ready,
        kserve::model,
        kserve::model_ready,
    ),
    components(schemas(ProblemBody<'static>, Query, Filter)),
    modifiers(&Keys)
)]
struct Description;

/// Bearer tokens, where there are keys.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut Document) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(bearer));
    }
}

/// The route of the document.
pub(super) fn route(app: Arc<App>) -> Router {
    let document = |State(app): State<Arc<App>>| async move {
        telemetry::json(described(app.arms.any_version().as_deref()))
    };
    Router::new().route("/openapi.json", get(document)).with_state(app)
}

/// The document, with the fields and attributes of `version`.
fn described(version: Option<&Version>) -> String {
    let mut document = serde_json::to_value(Description::openapi()).expect("a description is JSON");
    if let Some(version) = version {
        let schemas = &mut document["components"]["schemas"];
        let query = &mut schemas["Query"];
        // A request needs one of a field's alternatives alone.
        let path = alternatives(&version.config.query.id).next().unwrap_or_default();
        add(query, path, id(version));
        for feature in &version.config.query.features {
            describe(query, feature, version);
        }
        let condition = schemas["Filter"]["additionalProperties"].take();
        let forms = |at: &[usize]| -> Vec<Value> {
            at.iter().map(|&at| condition["oneOf"][at].clone()).collect()
        };
        let (ids, range) = (json!({ "oneOf": forms(&[0, 1]) }), json!({ "oneOf": forms(&[2]) }));
        let named = version.item_features.names().map(|(name, is_number)| {
            (name.to_owned(), if is_number { range.clone() } else { ids.clone() })
        });
        let said = version.attributes.names();
        let said = said.map(|name| (name.to_owned(), json!({ "oneOf": forms(&[0, 1, 2]) })));
        // A feature goes before an attribute of its name.
        let properties: Map<String, Value> = said.chain(named).collect();
        schemas["Filter"] =
            json!({ "type": "object", "properties": properties, "additionalProperties": false });
    }
    document.to_string()
}

fn id(version: &Version) -> Value {
    // In bytes here, in letters there: a text of other letters may be refused below it.
    let most = version.config.kafka.id_bytes_max;
    json!({
        "type": ["string", "integer", "boolean", "null"],
        "maxLength": most,
        "minimum": i64::MIN,
        "maximum": u64::MAX,
    })
}

fn describe(query: &mut Value, feature: &FeatureConfig, version: &Version) {
    // None: a history that the trainer keeps. Keys, headers and places in arrays have other forms.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let path = alternatives(&feature.field).next().unwrap_or_default();
    if path.is_empty() || !path.chars().all(is_plain) {
        return;
    }
    let number = json!({ "type": "number", "minimum": -NUMBER_MAX, "maximum": NUMBER_MAX });
    let array = |of: Value| json!({ "type": ["array", "null"], "items": of });
    let field = match feature.kind {
        FeatureKind::Id => id(version),
        FeatureKind::Number => {
            let mut number = number;
            number["type"] = json!(["number", "null"]);
            number
        }
        FeatureKind::Bag | FeatureKind::History => {
            let mut id = id(version);
            id["type"] = json!(["string", "integer", "boolean"]);
            id["minLength"] = json!(1);
            array(id)
        }
        FeatureKind::Vector => {
            let mut vector = array(number);
            vector["minItems"] = json!(feature.length);
            vector["maxItems"] = json!(feature.length);
            vector
        }
    };
    add(query, path, field);
}

/// Puts what `path` holds where it is: dots reach into objects.
fn add(object: &mut Value, path: &str, schema: Value) {
    match path.split_once('.') {
        None => object["properties"][path] = schema,
        Some((outer, inner)) => {
            let outer = &mut object["properties"][outer];
            outer["type"] = json!("object");
            add(outer, inner, schema);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_and_every_refusal_is_described() {
        let document: Value = serde_json::from_str(&described(None)).expect("JSON");
        let routes = include_str!("routes.rs");
        let mut seen = 0;
        for line in routes.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
            let (path, rest) = line.split_once('"').expect("a path");
            if !path.starts_with("/v1/") && !path.starts_with("/v2") {
                continue;
            }
            let method = if rest.contains("post(") { "post" } else { "get" };
            let operation = &document["paths"][path][method];
            assert!(operation.is_object(), "{method} {path} is not described");
            assert!(operation["responses"]["200"].is_object(), "{method} {path}");
            // Health says neither which fields nor which keys.
            if path.starts_with("/v1/") || path.ends_with("/infer") {
                for status in ["400", "401", "403", "404", "405", "408", "410", "413", "503"] {
                    let refusal = &operation["responses"][status];
                    assert!(refusal["description"].is_string(), "{method} {path} {status}");
                }
            }
            seen += 1;
        }
        assert!(seen >= 14, "{seen} routes");
        assert_eq!(seen, document["paths"].as_object().expect("paths").len());
    }

    #[test]
    fn a_field_lies_where_its_path_says() {
        let mut query = json!({ "type": "object" });
        add(&mut query, "user.id", json!(1));
        add(&mut query, "user.age", json!(2));
        add(&mut query, "country", json!(3));
        let user = &query["properties"]["user"];
        assert_eq!(user["properties"], json!({ "id": 1, "age": 2 }));
        assert_eq!(query["properties"]["country"], 3);
    }
}
