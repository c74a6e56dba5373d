//! `openapi/openapi.yaml` and `openapi/asyncapi.yaml`, held against the program and against a running cluster.
//!
//! Both ways: what the program says must be documented, to the last field, and what is documented must happen.

mod acl;
mod documents;
mod frames;
mod rest;
mod streams;
mod words;

use std::collections::BTreeSet;

use documents::{Place, Which, check_examples, operations};
use mailpush::edge::auth::Scopes;
use mailpush::edge::http::{parameters, routes};
use mailpush::mail::event::EventType;
use mailpush::wire::ws::close::CloseReason;
use serde_json::{Value, json};

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn every_route_is_documented_and_every_operation_exists() {
    let routes: BTreeSet<_> = routes().map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(operations(), routes);
}

#[test]
fn the_parameters_are_those_of_the_program() {
    for (method, path) in operations() {
        let documented = documents::operation(&method, &path).at("parameters").map(|all| all.children()).unwrap_or_default();
        let of_query = documented.iter().filter(|place| *place.member("in").value() == "query");
        let names: BTreeSet<String> = of_query.map(|place| place.member("name").value().as_str().unwrap().to_owned()).collect();
        let known: BTreeSet<String> = parameters(&method, &path).iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names, known, "{method} {path}");
    }
    let form = Place::root(Which::Openapi).member("components").member("schemas").member("StreamForm").member("properties");
    let names: BTreeSet<&str> = form.names().into_iter().collect();
    assert_eq!(names, parameters("POST", "/v1/stream").iter().copied().collect());
}

#[test]
fn the_close_codes_are_those_of_the_program() {
    let documented = Place::root(Which::Asyncapi).member("channels").member("socket").member("x-close-codes");
    let row = |r: &CloseReason| json!({ "code": r.code(), "name": r.name(), "reason": r.words(), "reconnect": r.reconnect() });
    assert_eq!(*documented.value(), CloseReason::ALL.iter().map(row).collect::<Value>());
}

#[test]
fn the_types_of_events_are_those_of_the_program() {
    let known: Vec<&str> = EventType::ALL.iter().map(|t| t.as_str()).collect();
    let schemas = Place::root(Which::Openapi).member("components").member("schemas");
    assert_eq!(texts(schemas.member("EventType").member("enum").value()), known);
    let refs = |prefix: &str| known.iter().map(|name| json!({ "$ref": format!("{prefix}{name}") })).collect::<Value>();
    for name in ["Event", "PublishableEvent"] {
        assert_eq!(*schemas.member(name).member("oneOf").value(), refs("#/components/schemas/"));
        let mapping = schemas.member(name).member("discriminator").member("mapping").value();
        let targets = known.iter().map(|name| ((*name).to_owned(), format!("#/components/schemas/{name}").into()));
        assert_eq!(*mapping, Value::Object(targets.collect()));
    }
    for name in &known {
        assert_eq!(*schemas.member(name).member("properties").member("type").member("const").value(), **name);
    }
    let pushed = Place::root(Which::Asyncapi).member("components").member("schemas").member("Event");
    assert_eq!(*pushed.member("oneOf").value(), refs("./openapi.yaml#/components/schemas/"));
    assert_eq!(pushed.member("required").value(), schemas.member("Event").member("required").value());
}

#[test]
fn the_scopes_are_those_of_the_program() {
    let known: BTreeSet<&str> = Scopes::ALL.names().collect();
    let scheme = Place::root(Which::Openapi).member("components").member("securitySchemes").member("bearer");
    assert_eq!(scheme.member("x-scopes").names().into_iter().collect::<BTreeSet<_>>(), known);
    let mut used = BTreeSet::new();
    for (method, path) in operations() {
        let alternatives = documents::operation(&method, &path).at("security").map(|place| place.children());
        for alternative in alternatives.unwrap_or_default() {
            used.extend(alternative.at("bearer").iter().flat_map(|scopes| texts(scopes.value())));
        }
    }
    assert_eq!(used, known, "each scope is good for something");
}

#[test]
fn examples_are_what_they_are_examples_of() {
    let counts = [check_examples(Which::Openapi), check_examples(Which::Asyncapi)];
    assert!(counts.iter().all(|count| *count > 30), "{counts:?}");
}

#[test]
fn a_closed_schema_tells_what_is_not_documented() {
    let event = Place::root(Which::Openapi).member("components").member("schemas").member("Event");
    let mut instance = event.member("examples").children()[0].value().clone();
    event.expect(&instance);
    instance["messages"][0]["from_the_future"] = json!(1);
    let faults = event.faults(&instance);
    assert_eq!(faults.len(), 1, "allowed as documented, and noticed here: {faults:?}");
    instance["messages"][0]["modseq"] = json!(7);
    assert_eq!(event.faults(&instance).len(), 2, "a modseq is a string");
}

#[test]
fn a_problem_is_closed_too() {
    let responses = Place::root(Which::Openapi).member("components").member("responses");
    let places = [
        responses.member("Unauthorized").member("content"),
        documents::operation("POST", "/v1/events").member("responses").member("422").member("content"),
    ];
    for place in places.iter().map(|content| content.member("application/problem+json")) {
        let mut instance = place.member("example").value().clone();
        let schema = place.member("schema");
        schema.expect(&instance);
        instance["from_the_future"] = json!(1);
        assert_eq!(schema.faults(&instance).len(), 1, "{instance}");
    }
    let refused = places[0].member("application/problem+json");
    let mut instance = refused.member("example").value().clone();
    instance["code"] = json!("token_from_the_future");
    assert!(!refused.member("schema").faults(&instance).is_empty(), "codes are a closed list");
}
