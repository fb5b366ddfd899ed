//! What can be wrong with a pipeline file as it is written: the mistakes as data, and their prose in one place.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use super::keys::{Synonyms, suggestion};
use crate::diagnostic::{Diagnostic, Span, did_you_mean, listed, nearest};

/// A mistake in a pipeline file. `key` is the key as written, `place` names the table that it is in.
#[derive(Clone, Debug, PartialEq)]
pub enum Mistake {
    /// A key that nothing reads.
    UnknownKey {
        /// The key.
        key: String,
        /// Its table, such as "node `stage1`".
        place: String,
        /// The keys that the table may have.
        known: Vec<String>,
    },
    /// A key that must be there.
    Missing {
        /// The key.
        key: String,
        /// Its table.
        place: String,
        /// What its value must be.
        expected: String,
    },
    /// A value of another type.
    Type {
        /// The key.
        key: String,
        /// What its value must be.
        expected: String,
        /// What it is.
        found: &'static str,
    },
    /// A number that the key does not take.
    Range {
        /// The key.
        key: String,
        /// What it takes.
        expected: String,
    },
    /// A list of another length.
    Length {
        /// The key.
        key: String,
        /// What its value must be.
        expected: String,
        /// How many there are.
        found: usize,
    },
    /// A string that is none of those that the key takes.
    Choice {
        /// The key.
        key: String,
        /// The text.
        written: String,
        /// What the key takes.
        choices: Vec<String>,
    },
    /// An unknown name.
    UnknownName {
        /// What it should be the name of.
        what: &'static str,
        /// The name.
        written: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A string without content.
    Empty {
        /// The key.
        key: String,
        /// What its value must be.
        expected: &'static str,
    },
    /// A name with characters that names do not have.
    Name {
        /// What it is the name of.
        what: &'static str,
        /// The name.
        written: String,
    },
    /// A key of the language that this version does not do yet.
    NotYet {
        /// The key.
        key: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// A file for a newer version.
    Newer {
        /// Its language.
        language: u64,
    },
    /// A pipeline of nothing.
    NoNodes,
    /// What a kind of node finds wrong.
    Other {
        /// What is wrong.
        message: String,
        /// What to say at the place.
        label: String,
        /// What to do.
        help: Option<String>,
    },
}

impl Mistake {
    /// Whether it may be there only because a part of the file could not be read.
    fn is_about_absence(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::UnknownName { .. } | Self::NoNodes)
    }

    /// The prose, and `span` as the place.
    fn at(self, span: Span, synonyms: &Synonyms) -> Diagnostic {
        match self {
            Self::UnknownKey { key, place, known } => Diagnostic::new(format!("unknown key `{key}` in {place}"))
                .label(span, "not recognized")
                .help(suggestion(&key, &known, synonyms)),
            Self::Missing { key, place, expected } => Diagnostic::new(format!("`{key}` is missing in {place}"))
                .label(span, format!("needs `{key}`, {expected}"))
                .help(format!("add `{key} = …`")),
            Self::Type { key, expected, found } => {
                let help = retyped(&expected, found).map(str::to_owned);
                Diagnostic::new(format!("`{key}` must be {expected}"))
                    .label(span, format!("this is {found}"))
                    .help(help)
            }
            Self::Range { key, expected } => {
                Diagnostic::new(format!("`{key}` is out of range")).label(span, format!("expected {expected}"))
            }
            Self::Length { key, expected, found } => {
                Diagnostic::new(format!("`{key}` must be {expected}")).label(span, format!("this has {found}"))
            }
            Self::Choice { key, written, choices } => {
                let known = choices.iter().map(String::as_str);
                let mistake = Diagnostic::new(format!("`{key}` cannot be `{written}`"));
                let near = nearest(&written, known).map(|near| format!("did you mean `{near}`?"));
                mistake.label(span, format!("expected one of {}", listed(&choices))).help(near)
            }
            Self::UnknownName { what, written, known } => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                let near = did_you_mean(&written, &format!("{what}s"), &known);
                let help = if written.contains(['/', '\\']) {
                    format!(
                        "give it a name: a table `[{what}s.NAME]` with `source = \"{written}\"`, and that name here"
                    )
                } else {
                    near.unwrap_or(format!(
                        "the file has no {what}s: add a table `[{what}s.{written}]` with a `source`"
                    ))
                };
                Diagnostic::new(format!("unknown {what} `{written}`"))
                    .label(span, format!("no {what} has this name"))
                    .help(help)
            }
            Self::Empty { key, expected } => {
                Diagnostic::new(format!("`{key}` is empty")).label(span, format!("expected {expected}"))
            }
            Self::Name { what, written } => Diagnostic::new(format!("`{written}` cannot be the name of a {what}"))
                .label(span, "a name has letters, digits, `_` and `-`")
                .help("choose another name".to_owned()),
            Self::NotYet { key, instead } => Diagnostic::new(format!("`{key}` is not supported yet"))
                .label(span, "not supported by this version of stic")
                .help(instead.to_owned()),
            Self::Newer { language } => Diagnostic::new(format!(
                "the file is written in language {language}, stic {} reads language {}",
                env!("CARGO_PKG_VERSION"),
                super::LANGUAGE
            ))
            .label(span, "a newer language")
            .help("install the version of stic that the file was written for, or a later one".to_owned()),
            Self::NoNodes => Diagnostic::new("the pipeline has no nodes")
                .label(span, "the file ends without one")
                .help("add a table `[nodes.NAME]` with a `kind`".to_owned()),
            Self::Other { message, label, help } => Diagnostic::new(message).label(span, label).help(help),
        }
    }
}

/// What to do about a value of another type, where its type tells.
fn retyped(expected: &str, found: &str) -> Option<&'static str> {
    let one = |nouns: &[&str]| nouns.iter().any(|noun| expected == *noun || expected.starts_with(&format!("{noun},")));
    match found {
        "a list" if one(&["a number", "an integer", "a string", "a boolean"]) => {
            Some("for a sweep, write `matrix = { KEY = [VALUE, VALUE] }` in the node")
        }
        "a string" if one(&["a number", "an integer", "a boolean"]) => Some("write it without quotes"),
        "a number" if one(&["an integer"]) => Some("write it without a decimal point or an exponent"),
        "a boolean" | "an integer" | "a number" if one(&["a string"]) => Some("put it in quotes"),
        "a list" if expected == "a table" => Some("a table has one pair of brackets or braces"),
        _ => None,
    }
}

/// All mistakes of a file so far. Readers of several tables share one.
#[derive(Debug, Default)]
pub struct Mistakes {
    list: RefCell<Vec<Diagnostic>>,
    /// The places of those in the list, and what is said there.
    places: RefCell<HashSet<(Span, String)>>,
    incomplete: Cell<bool>,
    /// What the program's keys are called elsewhere.
    pub(crate) synonyms: &'static Synonyms,
}

impl Mistakes {
    /// Mistakes of a string that has those of `syntax` already. When it is `incomplete`, what is missing from it is not
    /// held against it.
    pub fn after(syntax: Vec<Diagnostic>, incomplete: bool) -> Self {
        let mistakes = Self { incomplete: Cell::new(incomplete), ..Self::default() };
        syntax.into_iter().for_each(|mistake| mistakes.push(mistake));
        mistakes
    }

    /// A part of the text is in a place that is not read: from now on, missing keys are not reported.
    pub fn set_incomplete(&self) {
        self.incomplete.set(true);
    }

    /// Adds one.
    pub fn add(&self, mistake: Mistake, span: Span) {
        if !(self.incomplete.get() && mistake.is_about_absence()) {
            self.push(mistake.at(span, self.synonyms));
        }
    }

    /// Adds one that has its message. The same mistake at the same place is one mistake, even if several nodes have it:
    /// those that share a default, or are instances of one table.
    pub fn push(&self, diagnostic: Diagnostic) {
        let place = diagnostic.labels.first().map(|label| (label.span.clone(), label.text.clone()));
        if place.is_none_or(|place| self.places.borrow_mut().insert(place)) {
            self.list.borrow_mut().push(diagnostic);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.borrow().len()
    }

    /// Whether a part of the text could not be read.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete.get()
    }

    /// The list, in the order of finding.
    pub fn into_list(self) -> Vec<Diagnostic> {
        self.list.into_inner()
    }
}
