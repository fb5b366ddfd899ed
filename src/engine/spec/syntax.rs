//! TOML text → a tree in which every key and value knows its place, in the order of the text.

use toml::de::{DeTable, DeValue};

use super::chunks;
use super::slips::{self, Draft};
use crate::diagnostic::{Diagnostic, Span};

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Its header, or its braces, or the first key that implies it.
    pub span: Span,
    /// Its keys in the order of the text.
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub key_span: Span,
    /// The value.
    pub value: Located,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// Where it is.
    pub span: Span,
    /// What it is.
    pub value: Syntax,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Syntax {
    /// `true` or `false`.
    Boolean(bool),
    /// An integer; `None` when it exceeds 128 bits.
    Integer(Option<i128>),
    /// A number, which may be infinite or not a number.
    Float(f64),
    /// A string.
    String(String),
    /// A date or time, which no key takes.
    Datetime,
    /// A list.
    List(Vec<Located>),
    /// A table.
    Table(Table),
    /// Nothing that could be read; the parser has reported it.
    Broken,
}

impl Syntax {
    /// What to call it in a message.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::Datetime => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Broken => "nothing",
        }
    }
}

impl Table {
    /// The entry called `key`.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The place of the value at a dotted path: the deepest part of it that is written.
    pub fn place(&self, path: &str) -> Option<Span> {
        let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
        let entry = self.get(key)?;
        let deeper = match (&entry.value.value, rest) {
            (Syntax::Table(table), Some(rest)) => table.place(rest),
            _ => None,
        };
        Some(deeper.unwrap_or_else(|| entry.place()))
    }
}

impl Entry {
    /// The place to underline for this entry's value: a table written with a header is named by its key.
    pub fn place(&self) -> Span {
        if self.value.value == Syntax::Broken { self.key_span.clone() } else { self.value.span.clone() }
    }
}

/// What became of a string.
#[derive(Debug, Default)]
pub struct Parsed {
    /// All that could be read.
    pub root: Table,
    /// What is wrong with it as TOML.
    pub mistakes: Vec<Diagnostic>,
    /// Whether something could not be read: what is missing from `root` may be in the file.
    pub incomplete: bool,
}

/// Reads TOML; what cannot be read is reported, and the rest is still there. Slips of which it is plain what was meant
/// are reported, too, and read as that.
pub fn parse(text: &str) -> Parsed {
    if let Some(other) = slips::other_format(text) {
        return Parsed { mistakes: vec![other], incomplete: true, ..Parsed::default() };
    }
    if text.contains('\r') && !text.contains('\n') {
        let help = "save it with the line ends of Unix (LF) or Windows (CR LF)";
        let mistake = Diagnostic::new("the lines end with a bare carriage return").help(help.to_owned());
        return Parsed { mistakes: vec![mistake], incomplete: true, ..Parsed::default() };
    }
    if let Some(root) = chunks::parse(text) {
        return Parsed { root, ..Parsed::default() };
    }
    let draft = Draft::of(text);
    let (root, errors) = recovered(&draft);
    let headers = headers(text);
    let mut mistakes = draft.slips.clone();
    let mut incomplete = draft.lossy;
    let mut repeated_sections: Vec<Span> = Vec::new();
    for (span, message) in errors {
        if message != "duplicate key" {
            incomplete = true;
            let line = text[span.start.min(text.len())..].lines().next().unwrap_or_default();
            let message = match message.as_str() {
                // What the parser says of `key =` with nothing after it is about quotes.
                message if span.is_empty() && message.contains("must be quoted") => {
                    "a value is missing, expected a value"
                }
                "key with no value, expected `=`" if line.trim_start().starts_with('=') => {
                    "a value is missing, expected a value"
                }
                message => message,
            };
            let expected = message.split_once(", expected ");
            let (message, label) = expected.map_or((message, "here".to_owned()), |(m, e)| {
                (m, if e == "nothing" { "unexpected".to_owned() } else { format!("expected {e}") })
            });
            mistakes.push(Diagnostic::new(format!("this is not TOML: {message}")).label(span, label));
            continue;
        }
        // What stood there the second time is nowhere now.
        incomplete = true;
        if repeated_sections.iter().any(|section| section.contains(&span.start)) {
            continue;
        }
        let key = text.get(span.clone()).unwrap_or_default();
        let header = headers.iter().position(|header| header.span.contains(&span.start));
        let first = match header {
            Some(index) => {
                // Keys of a table that is written twice repeat because the table does: one mistake, not many.
                let end = headers.get(index + 1).map_or(text.len(), |next| next.span.start);
                repeated_sections.push(headers[index].span.end..end);
                let first = headers[..index].iter().find(|header| header.path == headers[index].path);
                first.map(|header| header.span.clone())
            }
            None => first_place(&root, text, &headers, &span),
        };
        let what = if header.is_some() { "table" } else { "key" };
        let mut mistake = Diagnostic::new(format!("{what} `{key}` is defined twice")).label(span, "defined again here");
        if let Some(first) = first {
            mistake = mistake.label(first, "first defined here");
        }
        mistakes.push(mistake.help("remove or rename one of them".to_owned()));
    }
    Parsed { root, mistakes, incomplete }
}

/// All that can be read of the draft, and all errors, at their places in the text as it was written. The parser gives
/// up on what follows a key without a value: such a line is blanked, and the rest read again, unless it opens something
/// whose rest would mean nothing.
fn recovered(draft: &Draft) -> (Table, Vec<(Span, String)>) {
    const MOST: usize = 8;
    /// No pipeline is longer, and what is not one need not be read often.
    const LONGEST: usize = 1 << 20;
    let opens = |line: &str| {
        let brackets = line.matches(['[', '{']).count() != line.matches([']', '}']).count();
        brackets || line.contains("\"\"\"") || line.contains("'''")
    };
    let place = |span: Span| draft.place(span);
    let reported =
        |error: &toml::de::Error, end: usize| (place(error.span().unwrap_or(end..end)), error.message().to_owned());
    let (mut left, mut stops) = (draft.text.clone(), Vec::new());
    loop {
        let (root, errors) = DeTable::parse_recoverable(&left);
        let stop = errors.iter().position(|error| error.message().starts_with("key with no value"));
        let line = stop.and_then(|index| errors[index].span()).map(|span| {
            let start = left[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
            start..left[span.start..].find('\n').map_or(left.len(), |newline| span.start + newline)
        });
        let line = line.filter(|line| stops.len() < MOST && left.len() <= LONGEST && !opens(&left[line.clone()]));
        let (Some(index), Some(Span { start, end })) = (stop, line) else {
            let root = table(0..0, root.into_inner(), &place);
            stops.extend(errors.iter().map(|error| reported(error, left.len())));
            return (root, stops);
        };
        stops.push(reported(&errors[index], left.len()));
        drop(root);
        let blank = " ".repeat(end - start);
        left.replace_range(start..end, &blank);
    }
}

/// The line of a table header.
struct Header {
    span: Span,
    path: String,
}

/// All lines that look like `[header]`. A line inside a string of several lines may be among them; this is used for
/// messages only.
fn headers(text: &str) -> Vec<Header> {
    let mut headers = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        if let Some(end) = trimmed.find(']').filter(|_| trimmed.starts_with('[')) {
            let indent = line.len() - trimmed.len();
            let path = trimmed[1..end].chars().filter(|c| !c.is_whitespace() && !['"', '\''].contains(c)).collect();
            headers.push(Header { span: start + indent..start + indent + end + 1, path });
        }
        start += line.len();
    }
    headers
}

/// Where the key that is repeated at `span` was written first.
fn first_place(root: &Table, text: &str, headers: &[Header], span: &Span) -> Option<Span> {
    let key = text.get(span.clone())?.trim_matches(['"', '\'']);
    if let Some(table) = innermost_inline(root, span) {
        return table.get(key).map(|entry| entry.key_span.clone());
    }
    let section = headers.iter().rev().find(|header| header.span.start < span.start).map_or(0, |h| h.span.end);
    let line = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
    let path = text[line..span.end].trim_start();
    let mut start = section;
    for candidate in text.get(section..line)?.split_inclusive('\n') {
        let trimmed = candidate.trim_start();
        let rest = trimmed.strip_prefix(path);
        if rest.is_some_and(|rest| rest.trim_start().starts_with(['=', '.'])) {
            let begin = start + candidate.len() - trimmed.len();
            return Some(begin..begin + path.len());
        }
        start += candidate.len();
    }
    None
}

/// The innermost table in braces around `span`.
fn innermost_inline<'a>(table: &'a Table, span: &Span) -> Option<&'a Table> {
    fn of_value<'a>(value: &'a Located, span: &Span) -> Option<&'a Table> {
        match &value.value {
            Syntax::Table(inner) => innermost_inline(inner, span)
                .or_else(|| (inner.span.start <= span.start && span.end <= inner.span.end).then_some(inner)),
            Syntax::List(items) => items.iter().find_map(|item| of_value(item, span)),
            _ => None,
        }
    }
    table.entries.iter().find_map(|entry| of_value(&entry.value, span))
}

/// What was parsed, at the places where it was.
pub(super) fn tree(parsed: DeTable<'_>) -> Table {
    table(0..0, parsed, &|span| span)
}

/// `place` is where a part of what was parsed is in the text as it was written.
pub(super) fn table(span: Span, table: DeTable<'_>, place: &dyn Fn(Span) -> Span) -> Table {
    let entry = |(key, value): (toml::Spanned<std::borrow::Cow<'_, str>>, _)| Entry {
        key_span: place(key.span()),
        key: key.into_inner().into_owned(),
        value: located(value, place),
    };
    let mut entries: Vec<Entry> = table.into_iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    Table { span, entries }
}

fn located(value: toml::Spanned<DeValue<'_>>, place: &dyn Fn(Span) -> Span) -> Located {
    let parsed = value.span();
    let span = place(parsed.clone());
    let value = match value.into_inner() {
        // The parser's placeholder for a missing value.
        _ if parsed.is_empty() => Syntax::Broken,
        DeValue::Boolean(value) => Syntax::Boolean(value),
        DeValue::Integer(value) => Syntax::Integer(i128::from_str_radix(value.as_str(), value.radix()).ok()),
        DeValue::Float(value) => value.as_str().parse().map_or(Syntax::Broken, Syntax::Float),
        DeValue::String(value) => Syntax::String(value.into_owned()),
        DeValue::Datetime(_) => Syntax::Datetime,
        DeValue::Array(values) => Syntax::List(values.into_iter().map(|value| located(value, place)).collect()),
        DeValue::Table(inner) => Syntax::Table(table(span.clone(), inner, place)),
    };
    Located { span, value }
}
