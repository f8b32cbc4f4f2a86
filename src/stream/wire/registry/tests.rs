//! Against a registry of a few lines, which answers what it is told to. `tests/it/registry.rs` asks
//! an actual one.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use super::*;
use crate::config::RegistryConfig;

/// Longer than any of these waits takes.
const PATIENCE: Duration = Duration::from_secs(20);

type Route = fn(&str) -> (u16, String);

/// Answers each request by `route`, given its head, until the test ends. Chunked, as most do.
fn listen(listener: TcpListener, route: Route, asked: Arc<AtomicUsize>) {
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("a connection");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).expect("a head") > 0 {
                head.push(byte[0]);
            }
            asked.fetch_add(1, Ordering::Relaxed);
            let (status, body) = route(&String::from_utf8(head).expect("text"));
            let (first, second) = body.split_at(body.len() / 2);
            let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
            let answer = format!(
                "HTTP/1.1 {status} x\r\nTransfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
                chunk(first),
                chunk(second)
            );
            socket.write_all(answer.as_bytes()).expect("sent");
        }
    });
}

fn config(address: SocketAddr, format: RecordFormat) -> Config {
    let mut config = Config::default();
    config.kafka.format = format;
    config.registry.url = format!("http://{address}/api");
    config.registry.user = "me".to_owned();
    config.registry.password = "5ecret".to_owned();
    config.registry.timeout_ms = 1000;
    config
}

fn registry(address: SocketAddr, format: RecordFormat) -> Registry {
    Registry::open(&config(address, format)).expect("a thread")
}

fn started(route: Route) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, asked) = (listener.local_addr().expect("bound"), Arc::default());
    listen(listener, route, Arc::clone(&asked));
    (address, asked)
}

/// Schema `id`, once it is known.
fn wait(registry: &Registry, id: u32) -> Result<Arc<Schema>, DecodeError> {
    let begun = Instant::now();
    loop {
        match registry.get(id) {
            Some(known) => return known,
            None if begun.elapsed() > PATIENCE => panic!("nothing: {:?}", registry.away()),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const USER: &str =
    r#"{"type": "record", "name": "User", "fields": [{"name": "id", "type": "long"}]}"#;

fn stored(head: &str) -> (u16, String) {
    let path = head.split(' ').nth(1).expect("a path");
    let event = r#"{"type": "record", "name": "E", "fields": [{"name": "user", "type": "User"}]}"#;
    let reference = json!([{"name": "User", "subject": "a/b user", "version": 3}]);
    match path {
        // base64 of me:5ecret
        _ if !head.to_lowercase().contains("authorization: basic bwu6nwvjcmv0") => {
            (401, "who are you?".to_owned())
        }
        "/api/schemas/ids/1" => (200, json!({"schema": USER}).to_string()),
        "/api/schemas/ids/2" => {
            (200, json!({"schema": event, "references": reference}).to_string())
        }
        "/api/subjects/a%2Fb%20user/versions/3" => (200, json!({"schema": USER}).to_string()),
        "/api/schemas/ids/3" => (200, json!({"schema": "{}", "schemaType": "JSON"}).to_string()),
        "/api/schemas/ids/4" => (200, json!({"schema": "{\"type\": \"recrod\"}"}).to_string()),
        _ => (404, json!({"error_code": 40403, "message": "Schema not found"}).to_string()),
    }
}

#[test]
fn a_schema_says_what_format_its_records_are_of() {
    let (address, _) = started(stored);
    let config = config(address, RecordFormat::Json);
    let of = |id| format_of(&config, id).map_err(|error| format!("{error:#}"));
    assert_eq!((of(1), of(3)), (Ok(RecordFormat::Avro), Ok(RecordFormat::JsonSchema)));
    let unknown = of(9).expect_err("nobody knows it");
    assert!(unknown.contains("no schema 9") && !unknown.contains("5ecret"), "{unknown}");
    let stranger = Config {
        registry: RegistryConfig { user: String::new(), ..config.registry.clone() },
        ..config
    };
    let refused = format_of(&stranger, 1).expect_err("a login is asked for").to_string();
    assert!(refused.contains("registry"), "{refused}");
}

#[test]
fn schemas_are_asked_for_once_and_kept() {
    let (address, asked) = started(stored);
    let registry = registry(address, RecordFormat::Avro);
    assert!(registry.get(1).is_none(), "nobody knows it yet");
    wait(&registry, 1).expect("a schema");
    wait(&registry, 2).expect("a schema, with what it refers to");
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    for _ in 0..100 {
        registry.get(1).expect("kept").expect("a schema");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    let reasons = [9, 3, 4].map(|id| wait(&registry, id).expect_err("no schema to read by"));
    assert_eq!(
        reasons.each_ref().map(DecodeError::reason),
        ["unknown_schema", "bad_schema", "bad_schema"]
    );
    assert_eq!(reasons[0], DecodeError::UnknownSchema { id: 9 });
    assert!(reasons[1].to_string().contains("it is of JSON"), "{}", reasons[1]);
    assert_eq!(registry.away(), None);
}

#[test]
fn a_registry_that_is_away_is_waited_for_and_asked_again() {
    // A port that nobody listens on, for now.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let registry = registry(address, RecordFormat::Avro);
    assert!(registry.get(1).is_none());
    until("it is said", || registry.away().is_some());
    assert!(registry.get(1).is_none(), "no record is rejected for it");
    assert_eq!(registry.refused(), None, "it passes by itself");
    static READY: AtomicBool = AtomicBool::new(false);
    let route: Route = |head| match READY.load(Ordering::Relaxed) {
        true => stored(head),
        false => (503, "starting".to_owned()),
    };
    listen(TcpListener::bind(address).expect("the port"), route, Arc::default());
    until("it says why", || registry.away().is_some_and(|why| why.contains("503")));
    READY.store(true, Ordering::Relaxed);
    wait(&registry, 1).expect("a schema");
    assert_eq!(registry.away(), None);
}

#[test]
fn a_refusal_takes_a_person_and_shows_no_password() {
    for (route, part) in [
        ((|_| (401, "no".to_owned())) as Route, "registry.password"),
        (|_| (404, "<html>".to_owned()), "/apis/ccompat/v7"),
        (|_| (200, "<html>".to_owned()), "answers with no schema"),
        (|_| (302, "there".to_owned()), "302"),
    ] {
        let (address, _) = started(route);
        let registry = registry(address, RecordFormat::Avro);
        assert!(registry.get(1).is_none());
        until("it is said", || registry.away().is_some());
        let why = registry.away().expect("said");
        assert!(why.contains(part) && !why.contains("5ecret"), "{why}");
        assert_eq!(registry.refused(), None, "it is borne for a while");
        registry.shared.standing().away.as_mut().expect("away").since -= REFUSED_MAX;
        assert_eq!(registry.refused().as_deref(), Some(&*why));
    }
}

#[test]
fn the_bound_on_schemas_holds() {
    let shared = Shared::default();
    let not = || Known::Not(DecodeError::Empty, Instant::now() + UNKNOWN_FOR);
    let most = u32::try_from(KNOWN_MAX).expect("a thousand");
    (0..most + 5).for_each(|id| shared.learn(id, not()));
    assert!(shared.known.read().expect("nobody panics").len() <= KNOWN_MAX);
    assert!(shared.get(most + 4).is_some());
    shared.learn(1, Known::Not(DecodeError::Empty, Instant::now()));
    assert!(shared.get(1).is_none(), "believed for a while only");
}
