//! `where` as a parameter: `image`, `path`, and any field of a record.

use std::ops::Bound;

use serde_json::Value as Json;

use crate::data::filter::{Filter, Globs};
use stic_engine::digest::Value;
use stic_engine::node::Parameter;
use stic_engine::parameters;
use stic_engine::spec::parameter::{Declaration, Form, Parameters, Setting, boolean};
use stic_engine::spec::syntax::{Located, Syntax};
use stic_engine::spec::{FromToml, Mistake, Mistakes, Reader};

parameters! {
    /// The conditions that are not on a field.
    struct Named {
        /// Whether there is a picture
        image: Option<bool> = boolean().optional("either").selection(),
        /// Globs, one of which must match the picture's name as the source writes it; `**` matches any number of directories
        path: Option<Globs> = Setting::new(globs_form(), read_globs, |globs| Some(globs.patterns.clone().into()))
            .optional("any")
            .selection(),
    }
}

fn globs_form() -> Form {
    let glob = || Form::String { what: "a glob", blank: true };
    let list = Form::List { of: Box::new(glob()), least: 0, most: None, distinct: false };
    Form::Any { what: "a glob, or a list of globs", forms: vec![glob(), list] }
}

fn read_globs(table: &mut Reader<'_>, key: &str) -> Option<Globs> {
    let patterns =
        if table.is_string(key) { vec![table.optional(key)?] } else { table.optional::<Vec<String>>(key)? };
    let (pattern, cause) = match Globs::new(patterns) {
        Ok(globs) => return Some(globs),
        Err(wrong) => wrong,
    };
    table.reject(key, format!("`{pattern}` is not a glob"), cause, None);
    None
}

impl Parameters for Filter {
    fn read(table: &mut Reader<'_>) -> Option<Self> {
        let Named { image, path } = Named::read(table)?;
        let mut fields = Vec::new();
        for name in table.remaining_keys() {
            fields.extend(table.optional(&name).map(|OneOrMany(values)| (name, values)));
        }
        Some(Self { image, path, fields })
    }

    fn declared() -> Vec<Declaration> {
        Named::declared()
    }

    fn key_fields(&self) -> Vec<Parameter> {
        let mut list = Named { image: self.image, path: self.path.clone() }.key_fields();
        for (name, values) in &self.fields {
            let values: Vec<Value> = values.iter().map(value).collect();
            list.push(Parameter::selection(name, Value::List(values)));
        }
        list
    }

    fn form() -> Form {
        let number = Form::Number { low: Bound::Unbounded, high: Bound::Unbounded };
        let one = Form::Any {
            what: "a string, a number, a boolean",
            forms: vec![Form::String { what: "a string", blank: true }, number, Form::Boolean],
        };
        let list = Form::List { of: Box::new(one.clone()), least: 0, most: None, distinct: false };
        let rest = Form::Any { what: "a value of the record's field, or a list of them", forms: vec![one, list] };
        Form::Table { keys: Self::declared(), rest: Some(Box::new(rest)) }
    }
}

/// A string, number or boolean, or a list of them.
struct OneOrMany(Vec<Json>);

impl FromToml for OneOrMany {
    fn expected() -> String {
        "a string, a number, a boolean, or a list of them".to_owned()
    }

    fn plural() -> String {
        "lists".to_owned()
    }

    fn from_toml(value: &Located, key: &str, mistakes: &Mistakes) -> Option<Self> {
        let one = |value: &Located| {
            let json = match &value.value {
                Syntax::Boolean(truth) => Some(Json::from(*truth)),
                Syntax::Integer(number) => number.and_then(|number| i64::try_from(number).ok()).map(Json::from),
                Syntax::Float(number) if number.is_finite() => Some(Json::from(*number)),
                Syntax::String(text) => Some(Json::from(text.clone())),
                Syntax::Broken => return None,
                _ => None,
            };
            if json.is_none() {
                let (expected, found) = (Self::expected(), value.value.name());
                mistakes.add(Mistake::Type { key: key.to_owned(), expected, found }, value.span.clone());
            }
            json
        };
        match &value.value {
            Syntax::List(values) => {
                let read: Vec<_> = values.iter().map(one).collect();
                read.into_iter().collect::<Option<_>>().map(Self)
            }
            _ => one(value).map(|value| Self(vec![value])),
        }
    }
}

fn value(json: &Json) -> Value {
    match json {
        Json::Bool(truth) => (*truth).into(),
        Json::Number(number) => number.as_i64().map_or_else(|| number.as_f64().unwrap_or_default().into(), Value::from),
        Json::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}
