//! The JSON Schema of pipeline files, from what kinds declare: editors complete and validate by it.
//!
//! It is a draft 4 schema, which editors for TOML support. It accepts a file exactly when reading finds no unknown or missing
//! key, no value of another type and none out of range, as far as a schema can say that: it cannot compare values with
//! each other (`fraction = [0.5, 0.1]`), nor look for the nodes and models that are named, nor tell which keys a node
//! lacks, since they may be in the defaults of its kind, on an axis, or in an included file.

use std::ops::Bound;

use serde_json::{Map, Value, json};

use crate::node::{Arity, Importer, Kinds, NodeKind};
use crate::spec::parameter::{Declaration, Fallback, Form, Parameters};
use crate::spec::{CacheTable, NodeKeys, PipelineTable};

/// The schema of pipeline files with nodes of `kinds`.
pub fn schema(kinds: &Kinds) -> Value {
    let mut tables = Map::new();
    tables.insert("pipeline".into(), table(&PipelineTable::declared(), None));
    tables.insert("cache".into(), table(&CacheTable::declared(), None));
    for pool in kinds.declared().pools {
        tables.insert(pool.name.into(), table(&(pool.declared)(), None));
    }
    for resource in kinds.declared().resources {
        tables.insert(resource.table.into(), by_name(table(&resource.declared(), None)));
    }
    let nodes: Vec<Value> = kinds.all().iter().map(|kind| node(kind.as_ref(), kinds.importer())).collect();
    let mut by_kind = by_name(json!({ "oneOf": nodes }));
    by_kind["minProperties"] = json!(1);
    tables.insert("nodes".into(), by_kind);
    let defaults: Map<String, Value> =
        kinds.all().iter().map(|kind| (kind.name().into(), defaults(kind.as_ref()))).collect();
    let about = "What every node of a kind has unless its own table has it";
    tables.insert(
        "defaults".into(),
        json!({ "type": "object", "properties": defaults, "additionalProperties": false, "description": about }),
    );
    let path = json!({ "type": "string", "pattern": "\\S" });
    let about = "Files whose tables are added to those of this one";
    tables.insert("include".into(), json!({ "type": "array", "items": path, "description": about }));
    let definitions: Map<String, Value> =
        kinds.all().iter().map(|kind| (kind.name().into(), keys(kind.as_ref())["properties"].clone())).collect();
    json!({
        "$schema": "http://json-schema.org/draft-04/schema#",
        "title": "a pipeline of stic",
        "type": "object",
        "properties": tables,
        "anyOf": [{ "required": ["nodes"] }, { "required": ["include"] }],
        "additionalProperties": false,
        "definitions": definitions,
    })
}

/// The keys of a kind's nodes beside `kind` and `inputs`.
fn keys(kind: &dyn NodeKind) -> Value {
    table(&[NodeKeys::declared(), kind.declared()].concat(), None)
}

/// A table with the keys of a kind's nodes, all of which may be left out, by reference to their definitions.
fn referring(kind: &dyn NodeKind) -> Value {
    let keys = keys(kind);
    let names = keys["properties"].as_object().into_iter().flat_map(Map::keys);
    let refer = |name: &String| (name.clone(), json!({ "$ref": format!("#/definitions/{}/{name}", kind.name()) }));
    let properties: Map<String, Value> = names.map(refer).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn defaults(kind: &dyn NodeKind) -> Value {
    let mut table = referring(kind);
    if let Some(properties) = table["properties"].as_object_mut() {
        properties.remove("matrix");
    }
    table
}

/// A table whose keys are names, each of something like `value`.
fn by_name(value: Value) -> Value {
    json!({ "type": "object", "patternProperties": { "^[A-Za-z0-9_-]+$": value }, "additionalProperties": false })
}

fn node(kind: &dyn NodeKind, importer: Option<&dyn Importer>) -> Value {
    let mut node = referring(kind);
    node["description"] = json!(kind.help());
    node["properties"]["kind"] = json!({ "enum": [kind.name()] });
    node["properties"]["inputs"] = inputs(kind, importer);
    node["required"] = json!(["kind"]);
    node
}

fn inputs(kind: &dyn NodeKind, importer: Option<&dyn Importer>) -> Value {
    let mut ports = Map::new();
    for port in kind.ports() {
        let import = importer.map(|importer| table(&importer.kind(port.accepts).declared(), None));
        let forms: Vec<Value> = [json!({ "type": "string" })].into_iter().chain(import).collect();
        let one = json!({ "anyOf": forms });
        let accepts: Vec<&str> = port.accepts.iter().map(|kind| kind.name).collect();
        let mut list = json!({ "type": "array", "items": one, "minItems": 1 });
        if port.arity != Arity::Many {
            list["maxItems"] = json!(1);
        }
        ports.insert(port.name.into(), json!({ "anyOf": [one, list], "description": accepts.join(" or ") }));
    }
    let required: Vec<&str> =
        kind.ports().iter().filter(|port| port.arity != Arity::Optional).map(|port| port.name).collect();
    let mut inputs = json!({ "type": "object", "properties": ports, "additionalProperties": false });
    if !required.is_empty() {
        inputs["required"] = json!(required);
    }
    inputs
}

fn table(keys: &[Declaration], rest: Option<&Form>) -> Value {
    let mut properties = Map::new();
    let mut required: Vec<&str> = Vec::new();
    for Declaration { name, form, fallback, help, .. } in keys {
        let mut property = form_schema(form);
        property["description"] = json!(help);
        match fallback {
            Fallback::Required => required.push(name),
            Fallback::Value(value) => property["default"] = json!(value),
            Fallback::Words(_) => {}
        }
        properties.insert((*name).into(), property);
    }
    let rest = rest.map_or(Value::Bool(false), form_schema);
    let mut table = json!({ "type": "object", "properties": properties, "additionalProperties": rest });
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    table
}

fn form_schema(form: &Form) -> Value {
    match form {
        Form::Boolean => json!({ "type": "boolean" }),
        Form::Integer { low, high } => {
            // TOML promises 63 bits.
            json!({ "type": "integer", "minimum": low, "maximum": high.unwrap_or(i64::MAX as u64) })
        }
        Form::Number { low, high } => {
            let mut number = json!({ "type": "number" });
            for (bound, limit, exclusive) in
                [(low, "minimum", "exclusiveMinimum"), (high, "maximum", "exclusiveMaximum")]
            {
                match bound {
                    Bound::Included(value) => number[limit] = json!(value),
                    Bound::Excluded(value) => {
                        number[limit] = json!(value);
                        number[exclusive] = json!(true);
                    }
                    Bound::Unbounded => {}
                }
            }
            number
        }
        Form::String { blank: true, .. } | Form::Resource { .. } => json!({ "type": "string" }),
        Form::String { blank: false, .. } | Form::Path => json!({ "type": "string", "pattern": "\\S" }),
        Form::Pattern { regex, .. } => json!({ "type": "string", "pattern": regex }),
        Form::Choice(names) => json!({ "enum": names }),
        Form::List { of, least, most, distinct } => {
            let mut list = json!({ "type": "array", "items": form_schema(of) });
            if *least > 0 {
                list["minItems"] = json!(least);
            }
            if let Some(most) = most {
                list["maxItems"] = json!(most);
            }
            if *distinct {
                list["uniqueItems"] = json!(true);
            }
            list
        }
        Form::Table { keys, rest } => table(keys, rest.as_deref()),
        Form::Any { forms, .. } => match &forms[..] {
            [] => json!({}),
            [only] => form_schema(only),
            forms => json!({ "anyOf": forms.iter().map(form_schema).collect::<Vec<_>>() }),
        },
    }
}
