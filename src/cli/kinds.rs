//! `stic kinds`: the kinds of node, their inputs and parameters, and the data formats they read; `stic schema`.

use serde_json::{Value, json};

use super::args::KindsArguments;
use super::table::{hanging, table};
use super::ui::{CliError, Exit, Paint, Ui, write_json, write_lines, write_out};
use crate::nodes::formats::{DataFormat, FORMATS};
use stic_engine::diagnostic::did_you_mean;
use stic_engine::node::{Arity, Kinds, NodeKind, Port};
use stic_engine::schema::schema;
use stic_engine::spec::NodeKeys;
use stic_engine::spec::parameter::{Class, Declaration, Fallback, Parameters};

/// Prints the JSON Schema of pipeline files.
///
/// # Errors
/// When standard output cannot be written to.
pub fn print_schema(kinds: &Kinds) -> Result<Exit, CliError> {
    write_out(&format!("{:#}\n", schema(kinds)))?;
    Ok(Exit::Success)
}

/// Lists all kinds and data formats, or the inputs and parameters of one kind.
///
/// # Errors
/// When there is no such kind.
pub fn kinds(arguments: &KindsArguments, kinds: &Kinds, ui: &Ui) -> Result<Exit, CliError> {
    let chosen = match &arguments.kind {
        None => kinds.all().iter().collect::<Vec<_>>(),
        Some(name) => {
            let Some(kind) = kinds.get(name) else {
                let help = did_you_mean(name, "kinds", &kinds.names());
                return Err(CliError::usage(format!("unknown kind `{name}`")).help(help));
            };
            vec![kind]
        }
    };
    if arguments.json {
        chosen.iter().try_for_each(|kind| write_json(&as_json(kind.as_ref())))?;
        return Ok(Exit::Success);
    }
    let ui = ui.for_stdout();
    let lines =
        if arguments.kind.is_some() { one(chosen[0].as_ref(), &ui) } else { all(&chosen, &kinds.tables(), &ui) };
    write_lines(&lines)?;
    Ok(Exit::Success)
}

fn all(kinds: &[&std::sync::Arc<dyn NodeKind>], tables: &[(String, Vec<Declaration>)], ui: &Ui) -> Vec<String> {
    let mut rows = vec![["kind", "inputs", "output", "description"].map(str::to_owned).to_vec()];
    for kind in kinds {
        let takes: Vec<&str> = kind.ports().iter().map(|port| port.name).collect();
        let takes = if takes.is_empty() { "-".to_owned() } else { takes.join(", ") };
        rows.push(vec![kind.name().to_owned(), takes, kind.output().name.to_owned(), kind.help().to_owned()]);
    }
    let mut lines = table(&rows, true, ui.width);
    lines.extend([String::new(), "`stic kinds KIND` lists a kind's inputs and parameters".to_owned()]);
    for (name, declared) in tables {
        lines.extend([String::new(), ui.paint(Paint::Dim, format_args!("[{name}]"))]);
        lines.extend(parameters(declared.iter().flat_map(|declaration| declaration.flattened("")), ui));
    }
    lines.extend(formats(FORMATS.iter(), ui));
    lines
}

fn one(kind: &dyn NodeKind, ui: &Ui) -> Vec<String> {
    let mut lines = hanging("", &format!("{}: {}", kind.name(), kind.help()), ui.width, 2);
    lines.push(match kind.same_as() {
        Some(port) => format!("makes what comes in by `inputs.{port}`"),
        None => format!("makes {}", kind.output().name),
    });
    lines.extend([String::new(), ui.paint(Paint::Dim, "example")]);
    for line in format!("[nodes.NAME]\nkind = \"{}\"\n{}", kind.name(), kind.example()).lines() {
        lines.extend(hanging("", line, ui.width, 4));
    }
    if !kind.ports().is_empty() {
        lines.extend([String::new(), ui.paint(Paint::Dim, "inputs")]);
    }
    for port in kind.ports() {
        let name = ui.paint(Paint::Good, format_args!("inputs.{}", port.name));
        lines.extend(hanging(&format!("{name}  "), &takes(port), ui.width, 4));
    }
    lines.extend([String::new(), ui.paint(Paint::Dim, "parameters")]);
    lines.extend(parameters(rows(kind), ui));
    lines.extend(formats(FORMATS.iter().filter(|format| format.is_read_by(kind)), ui));
    lines
}

/// The parameters of `kind`, those of nested tables by their dotted names.
fn rows(kind: &dyn NodeKind) -> Vec<(String, Declaration)> {
    let declared = [kind.declared(), NodeKeys::declared()].concat();
    declared.iter().flat_map(|declaration| declaration.flattened("")).collect()
}

fn parameters(rows: impl IntoIterator<Item = (String, Declaration)>, ui: &Ui) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, declaration) in rows {
        let name = ui.paint(Paint::Good, name);
        lines.extend(hanging(&format!("{name}  "), &about(&declaration), ui.width, 4));
        lines.extend(hanging("    ", declaration.help, ui.width, 4));
    }
    lines
}

fn formats<'a>(formats: impl Iterator<Item = &'a DataFormat>, ui: &Ui) -> Vec<String> {
    let mut lines = Vec::new();
    for DataFormat { name, help, example, .. } in formats {
        if lines.is_empty() {
            lines.extend([String::new(), ui.paint(Paint::Dim, "data formats")]);
        }
        let name = ui.paint(Paint::Good, name);
        lines.extend(hanging(&format!("{name}  "), help, ui.width, 4));
        lines.extend(hanging("    ", example, ui.width, 6));
    }
    lines
}

fn takes(port: &Port) -> String {
    let accepts: Vec<&str> = port.accepts.iter().map(|kind| kind.name).collect();
    let count = match port.arity {
        Arity::One => "one node or file",
        Arity::Optional => "one node or file, optional",
        Arity::Many => "one or more nodes or files",
    };
    format!("{}: {count}", accepts.join(", or "))
}

/// Type, default and class in one line.
fn about(Declaration { form, fallback, class, .. }: &Declaration) -> String {
    let fallback = match fallback {
        Fallback::Required => "required".to_owned(),
        Fallback::Value(value) => format!("default {value}"),
        Fallback::Words(words) => format!("default: {words}"),
    };
    let class = match class {
        Class::Function => "",
        Class::Selection => "; not part of the keys of items",
        Class::Execution => "; not part of the key",
    };
    format!("{form}, {fallback}{class}")
}

fn as_json(kind: &dyn NodeKind) -> Value {
    let takes: Vec<Value> = kind.ports().iter().map(port_as_json).collect();
    let parameters: Vec<Value> =
        rows(kind).iter().map(|(name, declaration)| parameter_as_json(name, declaration)).collect();
    let formats = FORMATS.iter().filter(|format| format.is_read_by(kind));
    let formats: Vec<Value> = formats
        .map(|DataFormat { name, help, example, .. }| json!({ "name": name, "help": help, "example": example }))
        .collect();
    json!({
        "kind": kind.name(),
        "help": kind.help(),
        "takes": takes,
        "makes": kind.same_as().is_none().then(|| kind.output().name),
        "example": kind.example(),
        "parameters": parameters,
        "formats": formats,
    })
}

fn port_as_json(port: &Port) -> Value {
    let accepts: Vec<&str> = port.accepts.iter().map(|kind| kind.name).collect();
    json!({
        "input": format!("inputs.{}", port.name),
        "accepts": accepts,
        "required": port.arity != Arity::Optional,
        "many": port.arity == Arity::Many,
    })
}

fn parameter_as_json(name: &str, Declaration { form, fallback, class, help, .. }: &Declaration) -> Value {
    let (default, otherwise) = match fallback {
        Fallback::Required => (Value::Null, None),
        Fallback::Value(value) => (json!(value), None),
        Fallback::Words(words) => (Value::Null, Some(words)),
    };
    let class = match class {
        Class::Function => "function",
        Class::Selection => "selection",
        Class::Execution => "execution",
    };
    json!({
        "name": name,
        "type": form.to_string(),
        "required": matches!(fallback, Fallback::Required),
        "default": default,
        "otherwise": otherwise,
        "class": class,
        "help": help,
    })
}
