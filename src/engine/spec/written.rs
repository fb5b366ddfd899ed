//! A pipeline as it is written: its file, the files that it includes and the settings of the command line, as one tree
//! in which every value knows its text.
//!
//! Reads no file itself, and does not know what the tables mean.
//!
//! The tables of an included file are added to those of the file. What stands below a table of the top level (a node, a
//! model, a key of `[pipeline]`) is in one of the files only; two are a mistake, never an override. A file that is
//! included twice is read once. An axis of a sweep replaces the value that another file gives the parameter, so that a
//! file can sweep what it includes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::declared::Declared;
use super::mistake::Mistakes;
use super::paths;
use super::reader::resolve;
use super::setting::{self, Setting};
use super::syntax::{self, Entry, Located, Syntax, Table};
use crate::diagnostic::{Diagnostic, Source, Sources, Span};

/// How deep files may include each other.
const DEEPEST: usize = 16;

/// Where included files come from.
pub trait Files {
    /// One path for each file, however it is named.
    fn identity(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read, and what to do; without a place.
    fn read(&self, path: &Path) -> Result<String, Diagnostic>;
}

/// There are no other files.
impl Files for () {
    fn read(&self, path: &Path) -> Result<String, Diagnostic> {
        Err(Diagnostic::new(format!("cannot read {}: this pipeline is not in a file", path.display())))
    }
}

/// A pipeline as it is written.
#[derive(Debug)]
pub struct Written {
    /// The texts that it was read from: the file, the files that it includes, and settings.
    pub sources: Sources,
    /// Against which directories paths are resolved.
    pub(super) folders: Folders,
    /// All tables.
    pub(super) root: Table,
    /// What is wrong so far.
    pub(super) mistakes: Mistakes,
    /// Where the file ends.
    pub(super) end: usize,
}

/// The directories against which paths are resolved: each text's own.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Where each text begins, and its directory.
    texts: Vec<(usize, PathBuf)>,
    /// How many of the texts are files; the rest are settings.
    files: usize,
}

impl Folders {
    /// One directory for everything.
    pub fn of(folder: &Path) -> Self {
        Self { texts: vec![(0, folder.to_owned())], files: 1 }
    }

    fn index(&self, place: usize) -> usize {
        self.texts.partition_point(|(start, _)| *start <= place).saturating_sub(1)
    }

    /// The directory of the text that `place` is in.
    pub fn at(&self, place: usize) -> &Path {
        &self.texts[self.index(place)].1
    }

    /// Whether an axis at one place may replace a value at another: one of another file, and never a setting.
    pub(super) fn may_replace(&self, axis: usize, value: usize) -> bool {
        let value = self.index(value);
        value < self.files && value != self.index(axis)
    }
}

impl Written {
    /// Reads the `text` of the pipeline file at `path`, and what it includes, out of `files`; then `settings`, each
    /// `NODE.KEY=VALUE` or `TABLE.KEY=VALUE`, replace what is written.
    pub fn read(path: &Path, text: &str, files: &dyn Files, settings: &[String], declared: &Declared) -> Self {
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut reading = Reading {
            files,
            sources: Sources::default(),
            folders: Folders { texts: Vec::new(), files: 0 },
            root: Table::default(),
            mistakes: Vec::new(),
            incomplete: false,
            seen: vec![files.identity(path)],
            ring: vec![path.to_owned()],
        };
        reading.add(path, text);
        reading.folders.files = reading.folders.texts.len();
        for setting in settings {
            let start = reading.sources.add(Source { name: "-S".to_owned(), text: setting.clone() });
            reading.folders.texts.push((start, folder.to_owned()));
            reading.set(Setting::parse(setting), start, declared);
        }
        let mut mistakes = Mistakes::after(reading.mistakes, reading.incomplete);
        mistakes.synonyms = declared.synonyms;
        let Reading { sources, folders, root, .. } = reading;
        Self { sources, folders, root, mistakes, end: text.trim_end().len() }
    }
}

/// A pipeline while its files are read.
struct Reading<'a> {
    files: &'a dyn Files,
    sources: Sources,
    folders: Folders,
    root: Table,
    mistakes: Vec<Diagnostic>,
    incomplete: bool,
    /// The identities of all files so far.
    seen: Vec<PathBuf>,
    /// The file that is read, and those that include it.
    ring: Vec<PathBuf>,
}

impl Reading<'_> {
    /// Adds a file, and what it includes.
    fn add(&mut self, path: &Path, text: &str) {
        let start = self.sources.add(Source { name: path.display().to_string(), text: text.to_owned() });
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        self.folders.texts.push((start, folder.clone()));
        let mut parsed = syntax::parse(text);
        parsed.root.shift(start);
        self.mistakes.extend(parsed.mistakes.into_iter().map(|mistake| mistake.shifted(start)));
        self.incomplete |= parsed.incomplete;
        let include = parsed.root.entries.iter().position(|entry| entry.key == "include");
        let include = include.map(|index| parsed.root.entries.remove(index));
        self.merge(parsed.root);
        for (written, span) in include.map(|entry| self.included(&entry.value)).unwrap_or_default() {
            self.include(&folder, &written, span);
        }
    }

    /// The paths that `include` names.
    fn included(&mut self, value: &Located) -> Vec<(String, Span)> {
        let wrong = |value: &Located, help: Option<String>| {
            let label = format!("this is {}", value.value.name());
            Diagnostic::new("`include` must be a list of paths").label(value.span.clone(), label).help(help)
        };
        let path = |value: &Located| match &value.value {
            Syntax::String(path) => Ok((path.clone(), value.span.clone())),
            _ => Err(wrong(value, None)),
        };
        let paths: Vec<_> = match &value.value {
            Syntax::List(paths) => paths.iter().map(path).collect(),
            Syntax::Broken => Vec::new(),
            Syntax::String(path) => vec![Err(wrong(value, Some(format!("write `include = [\"{path}\"]`"))))],
            _ => vec![Err(wrong(value, None))],
        };
        // What is not included is not held against what names it.
        self.incomplete |= value.value == Syntax::Broken || paths.iter().any(Result::is_err);
        paths.into_iter().filter_map(|path| path.map_err(|mistake| self.mistakes.push(mistake)).ok()).collect()
    }

    fn include(&mut self, folder: &Path, written: &str, span: Span) {
        let path = resolve(folder, written);
        let identity = self.files.identity(&path);
        let mistake = if let Some((message, label, help)) = paths::problem(written) {
            Diagnostic::new(message).label(span, label).help(help)
        } else if let Some(first) = self.ring.iter().position(|above| self.files.identity(above) == identity) {
            let ring: Vec<String> = self.ring[first..].iter().map(|path| format!("`{}`", path.display())).collect();
            let message = match &ring[..] {
                [only] => format!("{only} includes itself"),
                ring => format!("files include each other: {} → {}", ring.join(" → "), ring[0]),
            };
            Diagnostic::new(message).label(span, "included again here").help("remove one of these includes".to_owned())
        } else if self.seen.contains(&identity) {
            return;
        } else if self.ring.len() >= DEEPEST {
            let message = format!("files include each other more than {DEEPEST} levels deep");
            Diagnostic::new(message).label(span, "one level too many").help("include it in the first file".to_owned())
        } else {
            match self.files.read(&path) {
                Ok(text) => {
                    self.seen.push(identity);
                    self.ring.push(path.clone());
                    self.add(&path, &text);
                    self.ring.pop();
                    return;
                }
                Err(mistake) => mistake.label(span, "included here"),
            }
        };
        self.incomplete = true;
        self.mistakes.push(mistake);
    }

    /// Adds the tables of another file.
    fn merge(&mut self, other: Table) {
        if self.root.entries.is_empty() {
            self.root = other;
            return;
        }
        for entry in other.entries {
            let Some(known) = self.root.entries.iter_mut().find(|known| known.key == entry.key) else {
                self.root.entries.push(entry);
                continue;
            };
            let (Syntax::Table(known), Syntax::Table(added)) = (&mut known.value.value, &entry.value.value) else {
                self.mistakes.push(twice(&entry.key, &known.key_span, &entry.key_span));
                continue;
            };
            let keys: HashMap<String, Span> =
                known.entries.iter().map(|entry| (entry.key.clone(), entry.key_span.clone())).collect();
            for below in added.entries.clone() {
                match keys.get(&below.key) {
                    Some(first) => {
                        let name = format!("{}.{}", entry.key, below.key);
                        self.mistakes.push(twice(&name, first, &below.key_span));
                    }
                    None => known.entries.push(below),
                }
            }
        }
    }

    /// Puts a setting in place of what is written; `start` is where its text begins.
    fn set(&mut self, parsed: Result<Setting, Diagnostic>, start: usize, declared: &Declared) {
        let applied = parsed.map_err(|mistake| mistake.shifted(start)).and_then(|mut parsed| {
            parsed.shift(start);
            setting::apply(&mut self.root, parsed, declared)
        });
        match applied {
            // It may be in what could not be read.
            Err(mistake) if self.incomplete && mistake.message.starts_with("unknown ") => {}
            Err(mistake) => self.mistakes.push(mistake),
            Ok(()) => {}
        }
    }
}

fn twice(name: &str, first: &Span, again: &Span) -> Diagnostic {
    Diagnostic::new(format!("`{name}` is defined in two files"))
        .label(again.clone(), "defined again here")
        .label(first.clone(), "first defined here")
        .help("remove or rename one of them".to_owned())
}

impl Table {
    /// Moves all places in it.
    pub(super) fn shift(&mut self, by: usize) {
        if by == 0 {
            return;
        }
        self.span = shifted(&self.span, by);
        for Entry { key_span, value, .. } in &mut self.entries {
            *key_span = shifted(key_span, by);
            value.shift(by);
        }
    }
}

impl Located {
    /// Moves all places in it.
    pub(super) fn shift(&mut self, by: usize) {
        self.span = shifted(&self.span, by);
        match &mut self.value {
            Syntax::Table(table) => table.shift(by),
            Syntax::List(values) => values.iter_mut().for_each(|value| value.shift(by)),
            _ => {}
        }
    }
}

pub(super) fn shifted(span: &Span, by: usize) -> Span {
    span.start + by..span.end + by
}
