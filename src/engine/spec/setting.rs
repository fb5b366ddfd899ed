//! A setting of the command line, `-S stage1.beta=0.2`: the same as writing the value in the file.
//!
//! The value is TOML; what is not is a string without quotes. A setting changes what there is: it adds keys, but no
//! nodes and no resources.

use toml::de::DeTable;

use super::declared::Declared;
use super::syntax::{self, Entry, Located, Syntax, Table};
use super::written::shifted;
use crate::diagnostic::{Diagnostic, Span, did_you_mean, nearest};

/// A setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// The dotted key, and where its parts are.
    path: Vec<(String, Span)>,
    value: Located,
}

impl Setting {
    /// Reads `KEY=VALUE`.
    pub(super) fn parse(text: &str) -> Result<Self, Diagnostic> {
        let Some(equals) = equals(text) else {
            let help = Some(format!("write `-S {}=VALUE`", text.trim()));
            return Err(Diagnostic::new("a setting needs a value").label(0..text.len(), "expected `=`").help(help));
        };
        let path = path(&text[..equals]).ok_or_else(|| {
            let help = if text[..equals].contains('[') {
                "a setting is for all instances of a node: `-S stage1.beta=0.2`; name an instance to run it alone"
            } else {
                "write `-S NODE.KEY=VALUE` or `-S TABLE.KEY=VALUE`"
            };
            let message = format!("`{}` is not a key", text[..equals].trim());
            Diagnostic::new(message).label(0..equals, "expected a key with dots").help(help.to_owned())
        })?;
        Ok(Self { path, value: value(text, equals)? })
    }

    pub(super) fn shift(&mut self, by: usize) {
        self.path.iter_mut().for_each(|(_, span)| *span = shifted(span, by));
        self.value.shift(by);
    }
}

/// Where the first `=` is that is in no quotes.
fn equals(text: &str) -> Option<usize> {
    let mut quote = None;
    text.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            (None, '=') => return Some(at),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        None
    })
}

fn path(key: &str) -> Option<Vec<(String, Span)>> {
    if key.contains(['\n', '\r', '#']) {
        return None;
    }
    let text = format!("{key}=0");
    let (table, errors) = DeTable::parse_recoverable(&text);
    let mut table = Some(syntax::tree(table.into_inner())).filter(|_| errors.is_empty())?;
    let mut path = Vec::new();
    loop {
        let Entry { key, key_span, value } = table.entries.pop()?;
        path.push((key, key_span));
        match value.value {
            Syntax::Table(below) => table = below,
            _ => return Some(path),
        }
    }
}

fn value(text: &str, equals: usize) -> Result<Located, Diagnostic> {
    let written = &text[equals + 1..];
    let start = equals + 1 + (written.len() - written.trim_start().len());
    let written = written.trim();
    let span = start..start + written.len();
    if written.is_empty() {
        let help = Some("write `\"\"` for an empty string".to_owned());
        return Err(Diagnostic::new("a setting needs a value").label(0..text.len(), "expected a value").help(help));
    }
    // The same places as in the text, behind another key.
    let toml = format!("v{}{}", " ".repeat(equals.saturating_sub(1)), &text[equals..]);
    let (table, errors) = DeTable::parse_recoverable(&toml);
    if errors.is_empty() {
        let mut entries = syntax::tree(table.into_inner()).entries;
        if let (Some(Entry { value, .. }), 0) = (entries.pop(), entries.len()) {
            return Ok(value);
        }
    }
    match errors.first().filter(|_| written.starts_with(['"', '\'', '[', '{'])) {
        Some(error) => {
            let message = error.message().split(", expected ").next().unwrap_or_default();
            let help = Some("quote the whole setting for the shell: `-S 'NODE.KEY=[1, 2]'`".to_owned());
            let label = "expected a value of TOML, or a string without quotes";
            Err(Diagnostic::new(format!("this is not TOML: {message}")).label(span, label).help(help))
        }
        None => Ok(Located { span, value: Syntax::String(written.to_owned()) }),
    }
}

/// Puts a setting in place of what `root` has.
pub(super) fn apply(root: &mut Table, setting: Setting, declared: &Declared) -> Result<(), Diagnostic> {
    let Setting { mut path, value } = setting;
    let resource = declared.resources.iter().map(|kind| (kind.table, kind.noun));
    let by_name: Vec<(&str, &str)> = resource.chain([("nodes", "node"), ("defaults", "kind")]).collect();
    let pools = declared.pools.iter().map(|pool| pool.name);
    let tables: Vec<&str> = by_name.iter().map(|(table, _)| *table).chain(pools).chain(["pipeline", "cache"]).collect();
    let place = path[0].1.start..path[path.len() - 1].1.end;
    if !tables.contains(&path[0].0.as_str()) {
        path.insert(0, ("nodes".to_owned(), path[0].1.clone()));
    }
    let noun = by_name.iter().find(|(table, _)| *table == path[0].0).map(|(_, noun)| *noun);
    if path.len() < if noun.is_some() { 3 } else { 2 } {
        let name = if path[0].0 == "nodes" { &path[path.len() - 1].0 } else { &path[0].0 };
        let help = "write `-S NODE.KEY=VALUE` or `-S pipeline.KEY=VALUE`";
        let message = format!("`{name}` alone cannot be set");
        return Err(Diagnostic::new(message).label(place, "expected a key behind it").help(help.to_owned()));
    }
    if let Some(noun) = noun.filter(|noun| *noun != "kind") {
        let (name, span) = &path[1];
        let known: Vec<&str> = match root.get(&path[0].0).map(|entry| &entry.value.value) {
            Some(Syntax::Table(table)) => table.entries.iter().map(|entry| entry.key.as_str()).collect(),
            _ => Vec::new(),
        };
        if !known.contains(&name.as_str()) {
            let table =
                nearest(name, tables).filter(|_| noun == "node" && nearest(name, known.iter().copied()).is_none());
            let table = table.map(|table| format!("did you mean `{table}`?"));
            let help = table.or_else(|| did_you_mean(name, &format!("{noun}s"), &known));
            return Err(Diagnostic::new(format!("unknown {noun} `{name}`"))
                .label(span.clone(), format!("no {noun} has this name"))
                .help(help));
        }
    }
    put(root, &path, value);
    Ok(())
}

/// Puts `value` at a path below `table`, in place of what is there.
pub(super) fn put(table: &mut Table, path: &[(String, Span)], value: Located) {
    let Some(((key, span), below)) = path.split_first() else { return };
    let position = table.entries.iter().position(|entry| entry.key == *key);
    let position = position.unwrap_or_else(|| {
        let value = Located { span: span.clone(), value: Syntax::Broken };
        table.entries.push(Entry { key: key.clone(), key_span: span.clone(), value });
        table.entries.len() - 1
    });
    let entry = &mut table.entries[position];
    if below.is_empty() {
        (entry.key_span, entry.value) = (span.clone(), value);
        return;
    }
    if !matches!(entry.value.value, Syntax::Table(_)) {
        let table = Table { span: span.clone(), entries: Vec::new() };
        (entry.key_span, entry.value) = (span.clone(), Located { span: span.clone(), value: Syntax::Table(table) });
    }
    if let Syntax::Table(table) = &mut entry.value.value {
        put(table, below, value);
    }
}
