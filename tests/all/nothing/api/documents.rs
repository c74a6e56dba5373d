//! The two documents, and what they say about an answer or a message.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::{Draft, Registry};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// Where the documents would be served, so that the one's references to the other resolve as they do for a reader.
const BASE: &str = "http://documents.test/";

/// What stands for itself in the fragment of a URI that is a JSON pointer.
const POINTER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'~').remove(b'-').remove(b'_').remove(b'.');

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Openapi,
    Asyncapi,
}

impl Which {
    fn file(self) -> &'static str {
        match self {
            Self::Openapi => "openapi.yaml",
            Self::Asyncapi => "asyncapi.yaml",
        }
    }

    /// The document.
    pub fn value(self) -> &'static Value {
        match self {
            Self::Openapi => &DOCUMENTS.openapi,
            Self::Asyncapi => &DOCUMENTS.asyncapi,
        }
    }
}

struct Documents {
    openapi: Value,
    asyncapi: Value,
    /// As they are: what is not mentioned is allowed, for later versions add to it.
    open: Registry<'static>,
    /// What is not mentioned is forbidden: this version must not say anything that is not documented.
    closed: Registry<'static>,
}

static DOCUMENTS: LazyLock<Documents> = LazyLock::new(|| {
    let openapi = read(include_str!("../../../../openapi/openapi.yaml"));
    let asyncapi = read(include_str!("../../../../openapi/asyncapi.yaml"));
    let registry = |openapi: Value, asyncapi: Value| {
        let builder = Registry::new().draft(Draft::Draft202012);
        let builder = builder.add(format!("{BASE}openapi.yaml"), openapi).expect("a URI");
        let builder = builder.add(format!("{BASE}asyncapi.yaml"), asyncapi).expect("a URI");
        builder.prepare().expect("references that resolve")
    };
    let open = registry(openapi.clone(), asyncapi.clone());
    let closed = registry(close(openapi.clone()), close(asyncapi.clone()));
    Documents { openapi, asyncapi, open, closed }
});

fn read(yaml: &str) -> Value {
    serde_yaml_ng::from_str(yaml).expect("YAML")
}

/// Forbids what is not mentioned, in every schema of an object. One that says `additionalProperties: true` is a part of
/// others, which forbid on its behalf; where it is used as a whole, [`Place::faults`] does.
fn close(value: Value) -> Value {
    match value {
        Value::Object(mut members) => {
            if is_part(members.get("additionalProperties")) {
                members.remove("additionalProperties");
            } else if members.get("properties").is_some_and(Value::is_object) || members.contains_key("allOf") {
                members.insert("unevaluatedProperties".to_owned(), Value::Bool(false));
            }
            Value::Object(members.into_iter().map(|(name, member)| (name, close(member))).collect())
        }
        Value::Array(elements) => elements.into_iter().map(close).collect(),
        value => value,
    }
}

fn is_part(additional_properties: Option<&Value>) -> bool {
    additional_properties == Some(&Value::Bool(true))
}

/// A place in a document.
#[derive(Debug, Clone)]
pub struct Place {
    which: Which,
    pointer: String,
}

impl Place {
    pub fn root(which: Which) -> Self {
        Self { which, pointer: String::new() }
    }

    /// The member that is there, references followed.
    pub fn at(&self, name: &str) -> Option<Self> {
        let pointer = format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1"));
        Self { which: self.which, pointer }.resolved()
    }

    /// As [`Place::at`], for what must be there.
    pub fn member(&self, name: &str) -> Self {
        self.at(name).unwrap_or_else(|| panic!("{self:?} has no {name}"))
    }

    pub fn value(&self) -> &'static Value {
        self.which.value().pointer(&self.pointer).unwrap_or_else(|| panic!("there is no {self:?}"))
    }

    /// The names of the members.
    pub fn names(&self) -> Vec<&'static str> {
        match self.value() {
            Value::Object(members) => members.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The members or elements.
    pub fn children(&self) -> Vec<Self> {
        let names: Vec<String> = match self.value() {
            Value::Object(members) => members.keys().cloned().collect(),
            Value::Array(elements) => (0..elements.len()).map(|n| n.to_string()).collect(),
            _ => Vec::new(),
        };
        names.iter().filter_map(|name| self.at(name)).collect()
    }

    /// Follows references within the document; one to the other document is left to the validator.
    fn resolved(self) -> Option<Self> {
        let value = self.which.value().pointer(&self.pointer)?;
        match value.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#')) {
            Some(pointer) => Self { which: self.which, pointer: pointer.to_owned() }.resolved(),
            None => Some(self),
        }
    }

    /// What is wrong with `instance` by the schema at this place; nothing that is not mentioned is allowed.
    pub fn faults(&self, instance: &Value) -> Vec<String> {
        let uri = format!("{BASE}{}#{}", self.which.file(), utf8_percent_encode(&self.pointer, POINTER));
        let mut faults = Vec::new();
        let open = json!({ "$ref": uri });
        let mut closed = open.clone();
        if is_part(self.value().get("additionalProperties")) {
            closed["unevaluatedProperties"] = false.into();
        }
        for (registry, schema) in [(&DOCUMENTS.open, open), (&DOCUMENTS.closed, closed)] {
            let options = jsonschema::options().with_draft(Draft::Draft202012).with_registry(registry);
            let validator = options.should_validate_formats(true).build(&schema).expect("a schema");
            faults.extend(
                validator.iter_errors(instance).map(|error| format!("{} at {:?}", error, error.instance_path().as_str())),
            );
        }
        faults
    }

    /// Panics unless `instance` is what the schema at this place says.
    pub fn expect(&self, instance: &Value) {
        let faults = self.faults(instance);
        assert!(faults.is_empty(), "{} {} does not allow {instance}:\n{}", self.which.file(), self.pointer, faults.join("\n"));
    }
}

/// The operations of openapi.yaml: method and path.
pub fn operations() -> BTreeSet<(String, String)> {
    let paths = Place::root(Which::Openapi).member("paths");
    let methods = |path: &'static str| {
        let methods = paths.member(path).names().into_iter().filter(|name| !matches!(*name, "parameters" | "summary"));
        methods.map(move |method| (method.to_uppercase(), path.to_owned()))
    };
    paths.names().into_iter().flat_map(methods).collect()
}

/// The place of an operation.
pub fn operation(method: &str, path: &str) -> Place {
    Place::root(Which::Openapi).member("paths").member(path).member(&method.to_lowercase())
}

/// Validates every example of a document by the schema that it stands beside; returns how many there were.
pub fn check_examples(which: Which) -> usize {
    check_examples_below(&Place::root(which))
}

fn check_examples_below(place: &Place) -> usize {
    let mut count = 0;
    let mut check = |schema: &Place, instance: &Value| {
        schema.expect(instance);
        count += 1;
    };
    // A media type, a parameter or a header of OpenAPI.
    if let Some(schema) = place.at("schema") {
        place.at("example").iter().for_each(|example| check(&schema, example.value()));
        let named = place.at("examples").map(|examples| examples.children()).unwrap_or_default();
        named.iter().for_each(|example| check(&schema, example.member("value").value()));
    }
    // A message of AsyncAPI.
    if let Some(payload) = place.at("payload") {
        for example in place.at("examples").map(|examples| examples.children()).unwrap_or_default() {
            check(&payload, example.member("payload").value());
            if let (Some(schema), Some(headers)) = (place.at("headers"), example.at("headers")) {
                check(&schema, headers.value());
            }
        }
    }
    // A schema with examples of itself.
    if let Value::Object(members) = place.value()
        && let Some(Value::Array(examples)) = members.get("examples")
        && !members.contains_key("payload")
    {
        examples.iter().for_each(|example| check(place, example));
    }
    let below = match place.value() {
        Value::Object(members) => members.keys().cloned().collect(),
        Value::Array(elements) => (0..elements.len()).map(|n| n.to_string()).collect(),
        _ => Vec::new(),
    };
    let inner = below.iter().filter(|name| !matches!(name.as_str(), "example" | "examples")).map(|name| {
        // Not through references: every place is looked at once, where it stands.
        let pointer = format!("{}/{}", place.pointer, name.replace('~', "~0").replace('/', "~1"));
        check_examples_below(&Place { which: place.which, pointer })
    });
    inner.sum::<usize>() + count
}
