//! `where` as a parameter: `image`, `path`, and any field of a record.

use serde_json::Value as Json;

use crate::data::filter::{Filter, Globs};
use crate::digest::Value;
use crate::node::Parameter;
use crate::spec::syntax::{Located, Syntax};
use crate::spec::{FromToml, Mistake, Mistakes, Reader};

/// Reads `where`.
pub fn read_filter(table: &mut Reader<'_>) -> Filter {
    let image = table.optional("image");
    let patterns = if table.is_text("path") {
        table.optional("path").map(|pattern| vec![pattern])
    } else {
        table.optional::<Vec<String>>("path")
    };
    let path = patterns.map(Globs::new).transpose().unwrap_or_else(|(pattern, cause)| {
        table.reject("path", format!("`{pattern}` is not a glob"), cause, None);
        None
    });
    let mut fields = Vec::new();
    for name in table.remaining_keys() {
        fields.extend(table.optional(&name).map(|OneOrMany(values)| (name, values)));
    }
    Filter { image, path, fields }
}

/// A text, number or truth, or a list of them.
struct OneOrMany(Vec<Json>);

impl FromToml for OneOrMany {
    fn expected() -> String {
        "a text, a number, true or false, or a list of them".to_owned()
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
                Syntax::Text(text) => Some(Json::from(text.clone())),
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

/// The conditions as parameters.
pub fn filter_parameters(filter: &Filter) -> Vec<Parameter> {
    let mut list = Vec::new();
    list.extend(filter.image.map(|image| Parameter::selection("where.image", image)));
    list.extend(filter.path.as_ref().map(|globs| Parameter::selection("where.path", globs.patterns.clone())));
    for (name, values) in &filter.fields {
        let values: Vec<Value> = values.iter().map(value).collect();
        list.push(Parameter::selection(&format!("where.{name}"), Value::List(values)));
    }
    list
}

fn value(json: &Json) -> Value {
    match json {
        Json::Bool(truth) => (*truth).into(),
        Json::Number(number) => number.as_i64().map_or_else(|| number.as_f64().unwrap_or_default().into(), Value::from),
        Json::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}
