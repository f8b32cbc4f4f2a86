//! Is what `/openapi.json` says true, are filters kept, and is KServe V2 the same answer?

use serde_json::{Value, json};

use super::{Client, ready, records, serve, user};
use crate::support::{Bench, json as result};

/// What of JSON Schema the description uses, held against `value`; the path of the first thing that
/// is not allowed.
fn flaw(document: &Value, schema: &Value, value: &Value, path: &str) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').expect("a reference within the document");
        let schema = document.pointer(pointer).unwrap_or_else(|| panic!("no {name}"));
        return flaw(document, schema, value, path);
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().find_map(|schema| flaw(document, schema, value, path));
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(some) = schema[choice].as_array() {
            let fits = |schema: &&Value| flaw(document, schema, value, path).is_none();
            let count = some.iter().filter(fits).count();
            let right = if choice == "oneOf" { count == 1 } else { count > 0 };
            return (!right).then(|| format!("{path}: {count} of {choice} fit {value}"));
        }
    }
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        kind => panic!("no such type: {kind}"),
    };
    let right = match &schema["type"] {
        Value::String(kind) => is(kind),
        Value::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().expect("a type"))),
        _ => true,
    };
    if !right {
        return Some(format!("{path}: {value} is no {}", schema["type"]));
    }
    let missing = schema["required"].as_array().into_iter().flatten();
    let mut missing = missing.filter(|name| value.get(name.as_str().expect("a name")).is_none());
    if let Some(name) = missing.next().filter(|_| value.is_object()) {
        return Some(format!("{path}: {name} is missing in {value}"));
    }
    let fields = value.as_object().into_iter().flatten();
    let items = value.as_array().into_iter().flatten();
    let mut inner = fields.map(|(name, value)| (&schema["properties"][name], value, name.clone()));
    inner
        .find_map(|(schema, value, name)| flaw(document, schema, value, &format!("{path}.{name}")))
        .or_else(|| {
            let mut items = items.map(|value| flaw(document, &schema["items"], value, path));
            items.find_map(|flaw| flaw)
        })
}

/// Panics unless the answer to a request is one that the description allows.
fn holds(client: &mut Client, document: &Value, method: &str, path: &str, body: &str) -> Value {
    let (status, _, text) = client.ask(&method.to_uppercase(), path, "", body);
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    let route = path.split('?').next().unwrap_or(path);
    let described = document["paths"].as_object().expect("paths").iter().find(|(pattern, _)| {
        let (pattern, route) = (pattern.split('/'), route.split('/'));
        pattern.clone().count() == route.clone().count()
            && pattern.zip(route).all(|(one, other)| one.starts_with('{') || one == other)
    });
    let (_, described) = described.unwrap_or_else(|| panic!("{path} is not described"));
    let response = &described[method]["responses"][status.to_string()];
    let content = response["content"].as_object().expect("a body is described");
    let schema = &content.values().next().expect("one kind")["schema"];
    assert_eq!(flaw(document, schema, &answer, ""), None, "{method} {path} {status}: {answer}");
    answer
}

#[test]
fn real_answers_are_those_that_the_description_allows() {
    let bench = Bench::new("demo.toml", 1);
    bench.produce_synthetic(10_000, 71);
    let sets = ["item.attributes=[\"category\", \"time_ms\"]"];
    result(&mut bench.command("replay", "kept", &sets));
    let (mut run, address) = serve(&bench, &bench.checkpoints("kept"), &[]);
    ready(&mut run);
    let mut client = Client::new(&address);
    let (_, document) = client.get("/openapi.json");
    assert_eq!(
        document["components"]["schemas"]["Query"]["properties"]["user"]["type"][0],
        "string"
    );
    let mut ask = |method: &str, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        holds(&mut client, &document, method, path, &body)
    };
    let query = user(&records(71, 1)[0]);
    let some = ask("post", "/v1/retrieve", json!({ "query": query, "k": 5, "explain": true }));
    let id = some["items"][0]["id"].as_str().expect("an id").to_owned();
    ask("post", "/v1/retrieve", json!({ "queries": [query, { "user": "stranger" }, {}] }));
    ask("post", "/v1/retrieve", json!({ "query": query, "k": 0 }));
    ask("post", "/v1/retrieve", json!({ "query": query, "version": "gone" }));
    ask("post", "/v1/score", json!({ "query": query, "items": [id, "none", 7] }));
    ask("post", "/v1/embed", json!({ "query": query }));
    ask("get", &format!("/v1/items/{id}"), Value::Null);
    ask("get", "/v1/items/none", Value::Null);
    let said = |answer: &Value| answer["items"][0]["attributes"].clone();
    assert!(some["items"][0].get("attributes").is_none(), "nobody asked");
    let asked = json!({ "query": query, "attributes": true });
    let all = said(&ask("post", "/v1/retrieve", asked));
    assert!(all["category"].is_string() && all["time_ms"].is_i64(), "{all}");
    let asked = json!({ "query": query, "items": [id, "none"], "attributes": ["category"] });
    let one = said(&ask("post", "/v1/score", asked));
    assert_eq!(one, json!({ "category": all["category"] }));
    assert!(
        said(&ask("get", &format!("/v1/items/{id}/similar?attributes=true"), Value::Null))
            .is_object()
    );
    let filtered = json!({ "query": query, "filter": { "time_ms": { "min": 1.7e12 } }, "k": 1000 });
    assert!(!ask("post", "/v1/retrieve", filtered)["items"].as_array().expect("items").is_empty());
    let unknown = ask("post", "/v1/retrieve", json!({ "query": query, "attributes": ["title"] }));
    assert_eq!(unknown["field"], "attributes[0]");
    ask("get", &format!("/v1/items/{id}/similar?k=3"), Value::Null);
    let version = some["version"].as_str().expect("a version");
    ask("get", &format!("/v1/items/{id}/similar?version={version}"), Value::Null);
    ask("get", "/v1/items/x/similar?k=0", Value::Null);
    ask("get", "/v1/versions", Value::Null);
    ask("post", "/v1/versions/latest/activate", json!({}));
    ask("post", "/v1/versions/none/activate", json!({}));
    filters_are_kept(&mut client, &query);
    kserve_is_the_same_answer(&mut client, &document, &query);
}

/// Each item of the demo has a category.
fn filters_are_kept(client: &mut Client, query: &Value) {
    let ids = |client: &mut Client, filter: Value| -> Vec<String> {
        let body = json!({ "query": query, "k": 1000, "filter": filter });
        let (status, answer) = client.post("/v1/retrieve", &body);
        assert_eq!(status, 200, "{answer}");
        let items = answer["items"].as_array().expect("items").iter();
        items.map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
    };
    let mut all = ids(client, json!({}));
    let mut parts = Vec::new();
    let categories: Vec<String> = (0..64).map(|category| format!("c{category}")).collect();
    for category in &categories {
        parts.extend(ids(client, json!({ "category": category })));
    }
    let listed = ids(client, json!({ "category": categories }));
    assert_eq!(listed, all, "every item has one, and the order stays");
    parts.sort();
    all.sort();
    assert!(parts == all && all.len() > 200, "{} items in all", all.len());
    let body = json!({ "query": query, "filter": { "colour": "red" } });
    let (status, problem) = client.post("/v1/retrieve", &body);
    assert_eq!((status, &problem["field"]), (400, &json!("filter.colour")));
    let body = json!({ "query": query, "filter": { "category": { "min": 3 } } });
    assert_eq!(client.post("/v1/retrieve", &body).1["field"], "filter.category");
}

fn kserve_is_the_same_answer(client: &mut Client, document: &Value, query: &Value) {
    let text = query.to_string();
    let infer = |data: &[&str], shape: Value| {
        json!({
            "id": "7",
            "parameters": { "k": 6 },
            "inputs": [{ "name": "query", "datatype": "BYTES", "shape": shape, "data": data }],
        })
    };
    let path = "/v2/models/millrace/infer";
    let body = infer(&[&text, "{}"], json!([2, 1])).to_string();
    let inferred = holds(client, document, "post", path, &body);
    let plain = json!({ "queries": [query, {}], "k": 6 });
    let plain = client.post("/v1/retrieve", &plain).1;
    let items = |name: &str| -> Vec<Value> {
        let answers = plain["answers"].as_array().expect("answers").iter();
        answers
            .flat_map(|answer| answer["items"].as_array().expect("items"))
            .map(|item| item[name].clone())
            .collect()
    };
    assert_eq!(inferred["outputs"][0]["data"], json!(items("id")));
    assert_eq!(inferred["outputs"][1]["data"], json!(items("score")));
    assert_eq!(inferred["outputs"][0]["shape"], json!([2, 6]));
    assert_eq!((&inferred["id"], &inferred["model_version"]), (&json!("7"), &plain["version"]));
    let named =
        format!("/v2/models/millrace/versions/{}/infer", plain["version"].as_str().expect("one"));
    assert_eq!(client.post(&named, &infer(&[&text], json!([1]))).0, 200);
    for (body, field) in [
        (infer(&["{"], json!([1])), "inputs[0].data[0]"),
        (infer(&[&text], json!([3])), "inputs[0].shape"),
        (json!({ "inputs": [] }), "inputs"),
    ] {
        let (status, problem) = client.post(path, &body);
        assert_eq!((status, &problem["field"]), (400, &json!(field)), "{problem}");
    }
    assert_eq!(client.post("/v2/models/other/infer", &infer(&[&text], json!([1]))).0, 404);
    for path in ["/v2", "/v2/models/millrace", "/v2/health/ready", "/v2/models/millrace/ready"] {
        assert_eq!(client.get(path).0, 200, "{path}");
    }
}
