//! What is known of a parameter before a file is read: its form, its default, its class, and its line of help.

use std::fmt;
use std::ops::{Bound, RangeBounds};

use super::value::FromToml;
use crate::diagnostic::listed;
use crate::digest::Value;

/// All that is known of a parameter before a file is read.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// Its key in the table.
    pub name: &'static str,
    /// What it may be.
    pub form: Form,
    /// What it is when it is not written.
    pub fallback: Fallback,
    /// What its change makes stale.
    pub class: Class,
    /// What it does, and where its default comes from: one line.
    pub help: &'static str,
}

impl Declaration {
    /// It and the keys of tables below it, by their dotted names.
    pub fn flattened(&self, above: &str) -> Vec<(String, Self)> {
        let name = format!("{above}{}", self.name);
        let mut all = vec![(name.clone(), self.clone())];
        self.form.flatten_below(&name, &mut all);
        all
    }
}

/// What it means that the parameter `dotted` of those `declared` is not in a key, in words.
pub fn left_out(declared: &[Declaration], dotted: &str) -> Option<String> {
    let (name, below) = dotted.split_once('.').map_or((dotted, None), |(name, below)| (name, Some(below)));
    let declaration = declared.iter().find(|declaration| declaration.name == name)?;
    match (below, &declaration.form, &declaration.fallback) {
        (Some(below), Form::Table { keys, rest }, _) => {
            left_out(keys, below).or_else(|| rest.as_ref().map(|_| "none".to_owned()))
        }
        (_, _, Fallback::Required) => None,
        (_, _, Fallback::Value(default)) => by_default(default.clone()),
        (_, _, Fallback::Words(words)) => Some((*words).to_owned()),
    }
}

/// What a parameter's change makes stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Every item and the node: part of both keys.
    Function,
    /// Which items there are: part of the node's key alone.
    Selection,
    /// Nothing: it says how to run, not what to compute, and is in no key.
    Execution,
}

/// What a parameter is when it is not written.
#[derive(Clone, Debug, PartialEq)]
pub enum Fallback {
    /// It must be written.
    Required,
    /// This value.
    Value(Value),
    /// What these words say.
    Words(&'static str),
}

/// What the value of a parameter may be.
#[derive(Clone, Debug)]
pub enum Form {
    /// `true` or `false`.
    Boolean,
    /// An integer, `low` and `high` included.
    Integer {
        /// The smallest.
        low: u64,
        /// The largest, where there is one below 2⁶³.
        high: Option<u64>,
    },
    /// A finite number between these bounds.
    Number {
        /// The lower.
        low: Bound<f64>,
        /// The upper.
        high: Bound<f64>,
    },
    /// A string: any, or a non-blank one.
    String {
        /// What it is: `a prompt`.
        what: &'static str,
        /// Whether it may be blank.
        blank: bool,
    },
    /// A string that matches a regular expression; `like` shows one.
    Pattern {
        /// The expression.
        regex: String,
        /// An example.
        like: &'static str,
    },
    /// A path, relative to the pipeline file.
    Path,
    /// One of these strings.
    Choice(Vec<&'static str>),
    /// The name of something that the file declares.
    Resource {
        /// What it is: `model`.
        noun: &'static str,
        /// The table that declares it.
        table: &'static str,
    },
    /// A list of values.
    List {
        /// What each may be.
        of: Box<Form>,
        /// How few.
        least: usize,
        /// How many.
        most: Option<usize>,
        /// Whether none may be there twice.
        distinct: bool,
    },
    /// A table.
    Table {
        /// Its keys.
        keys: Vec<Declaration>,
        /// What keys beside these may be, where their names are free.
        rest: Option<Box<Form>>,
    },
    /// Any of several.
    Any {
        /// What it is, in words.
        what: &'static str,
        /// The forms; anything when there are none.
        forms: Vec<Form>,
    },
}

impl Form {
    fn flatten_below(&self, name: &str, all: &mut Vec<(String, Declaration)>) {
        match self {
            Self::Table { keys, .. } => {
                // Tables of which a key has one value are distinguished by it.
                let is_tag = |key: &&Declaration| matches!(&key.form, Form::Choice(names) if names.len() == 1);
                let tag = keys.iter().find(is_tag).map(|key| key.form.to_string());
                let name = tag.map_or_else(|| name.to_owned(), |tag| format!("{name}[{}]", tag.trim_matches('"')));
                let keys = keys.iter().filter(|key| !is_tag(key));
                all.extend(keys.flat_map(|key| key.flattened(&format!("{name}."))));
            }
            Self::List { of, .. } => of.flatten_below(name, all),
            Self::Any { forms, .. } => forms.iter().for_each(|form| form.flatten_below(name, all)),
            _ => {}
        }
    }

    fn has_tables(&self) -> bool {
        match self {
            Self::Table { .. } => true,
            Self::List { of, .. } => of.has_tables(),
            Self::Any { forms, .. } => forms.iter().any(Self::has_tables),
            _ => false,
        }
    }

    /// What the value must be, for a message that it is missing.
    pub fn expected(&self) -> String {
        match self {
            Self::Boolean => bool::expected(),
            Self::Integer { low, high: Some(high) } => format!("an integer from {low} to {high}"),
            Self::Integer { low, high: None } => format!("an integer, at least {low}"),
            Self::Number { low, high } => words("a number", &(*low, *high)),
            Self::String { what, .. } => (*what).to_owned(),
            Self::Pattern { like, .. } => format!("a string like `{like}`"),
            Self::Path => "a path".to_owned(),
            Self::Choice(names) => format!("one of {}", listed(names)),
            Self::Resource { noun, table } => format!("the name of a {noun} under `[{table}]`"),
            Self::List { .. } => "a list".to_owned(),
            Self::Table { .. } => "a table".to_owned(),
            Self::Any { what, .. } => (*what).to_owned(),
        }
    }
}

/// The type in short, for references: `integer in [1, 4096]`.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Integer { low, high: Some(high) } => write!(f, "integer in [{low}, {high}]"),
            Self::Integer { low: 0, high: None } => f.write_str("integer"),
            Self::Integer { low, high: None } => write!(f, "integer >= {low}"),
            Self::Number { low, high } => match (low, high) {
                (Bound::Unbounded, Bound::Unbounded) => f.write_str("number"),
                (Bound::Included(low), Bound::Unbounded) => write!(f, "number >= {low}"),
                (Bound::Excluded(low), Bound::Unbounded) => write!(f, "number > {low}"),
                (Bound::Unbounded, Bound::Included(high)) => write!(f, "number <= {high}"),
                (Bound::Unbounded, Bound::Excluded(high)) => write!(f, "number < {high}"),
                (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => {
                    let open = if matches!(self, Self::Number { low: Bound::Excluded(_), .. }) { "(" } else { "[" };
                    let close = if matches!(self, Self::Number { high: Bound::Excluded(_), .. }) { ")" } else { "]" };
                    write!(f, "number in {open}{low}, {high}{close}")
                }
            },
            Self::String { .. } => f.write_str("string"),
            Self::Pattern { like, .. } => write!(f, "string like \"{like}\""),
            Self::Path => f.write_str("path"),
            Self::Choice(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
                f.write_str(&names.join(" | "))
            }
            Self::Resource { noun, .. } => write!(f, "name of a {noun}"),
            Self::List { of, least, most: Some(most), .. } if least == most => write!(f, "list of {least}: {of}"),
            Self::List { of, .. } => write!(f, "list of {of}"),
            Self::Table { .. } => f.write_str("table"),
            Self::Any { what, forms } if forms.is_empty() || self.has_tables() => f.write_str(what),
            Self::Any { forms, .. } => {
                let forms: Vec<String> = forms.iter().map(Self::to_string).collect();
                f.write_str(&forms.join(", or "))
            }
        }
    }
}

/// That a parameter is left out because it has the value `default`, in words.
pub fn by_default(default: impl Into<Value>) -> Option<String> {
    Some(format!("{} (the default)", default.into()))
}

/// `a number from 0 to 1`, `an integer, at least 1`: what `range` takes, in words.
pub(super) fn words<T: fmt::Display>(noun: &str, range: &impl RangeBounds<T>) -> String {
    match (range.start_bound(), range.end_bound()) {
        (Bound::Included(low), Bound::Included(high)) => format!("{noun} from {low} to {high}"),
        (low, high) => {
            let low = match low {
                Bound::Included(low) => Some(format!("at least {low}")),
                Bound::Excluded(low) => Some(format!("above {low}")),
                Bound::Unbounded => None,
            };
            let high = match high {
                Bound::Included(high) => Some(format!("at most {high}")),
                Bound::Excluded(high) => Some(format!("below {high}")),
                Bound::Unbounded => None,
            };
            match (low, high) {
                (Some(low), Some(high)) => format!("{noun}, {low} and {high}"),
                (Some(bound), None) | (None, Some(bound)) => format!("{noun}, {bound}"),
                (None, None) => noun.to_owned(),
            }
        }
    }
}
