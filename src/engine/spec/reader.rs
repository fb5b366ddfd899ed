//! Typed reading of one table of a pipeline file; every mistake is collected, none stops the reading.
//!
//! A reader has no list of keys: the keys that are read are known, a written key that is never read is reported
//! when the reader goes. Every question about a key counts, so that none can be forgotten: whoever looks at a key in
//! any way makes it known. So ask for every key first, and give up (`?`) on missing values only then.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::path::{Component, Path, PathBuf};

use super::declaration::words;
use super::declared::{Resource, ResourceKind};
use super::keys::meant;
use super::mistake::{Mistake, Mistakes};
use super::paths;
use super::syntax::{Entry, Located, Syntax, Table};
use super::value::FromToml;
use super::written::Folders;
use crate::diagnostic::{Span, did_you_mean};

/// What readers of one file share.
pub struct Scope<'a> {
    /// The directories against which paths are resolved.
    pub folders: &'a Folders,
    /// The resources that it declares.
    pub resources: &'a [Resource],
    /// Where mistakes go.
    pub mistakes: &'a Mistakes,
    named: RefCell<Named>,
}

/// What the tables that were read name outside the pipeline file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Named {
    /// Resources.
    pub resources: Vec<Resource>,
    /// Files and directories, each with the dotted key that names it.
    pub paths: Vec<(String, PathBuf)>,
}

impl<'a> Scope<'a> {
    /// A scope in which nothing was read yet.
    pub fn new(folders: &'a Folders, resources: &'a [Resource], mistakes: &'a Mistakes) -> Self {
        Self { folders, resources, mistakes, named: RefCell::default() }
    }

    /// What was named so far.
    pub fn named(&self) -> Named {
        self.named.borrow().clone()
    }
}

/// Reads one table. Keys that were never read are reported when it is dropped.
pub struct Reader<'a> {
    scope: &'a Scope<'a>,
    table: &'a Table,
    place: String,
    /// The dotted key of the table, with a point behind it; empty for the table of a node.
    path: String,
    asked: RefCell<Vec<Cow<'a, str>>>,
    missing: RefCell<Vec<(String, String)>>,
    all_read: bool,
    before: usize,
}

impl<'a> Reader<'a> {
    /// A reader of `table`, which messages call `place`.
    pub fn new(scope: &'a Scope<'a>, table: &'a Table, place: impl Into<String>) -> Self {
        Self {
            scope,
            table,
            place: place.into(),
            path: String::new(),
            asked: RefCell::default(),
            missing: RefCell::default(),
            all_read: false,
            before: scope.mistakes.count(),
        }
    }

    fn ask(&self, key: &str) -> Option<&'a Entry> {
        let found = self.table.get(key);
        let mut asked = self.asked.borrow_mut();
        if !asked.iter().any(|asked| asked == key) {
            asked.push(found.map_or_else(|| Cow::Owned(key.to_owned()), |entry| Cow::Borrowed(entry.key.as_str())));
        }
        found
    }

    /// The keys that were read so far.
    pub fn known(&self) -> Vec<String> {
        self.asked.borrow().iter().map(|key| key.clone().into_owned()).collect()
    }

    fn ask_value(&self, key: &str) -> Option<&'a Located> {
        self.ask(key).map(|entry| &entry.value).filter(|value| value.value != Syntax::Broken)
    }

    fn report(&self, mistake: Mistake, span: Span) {
        self.scope.mistakes.add(mistake, span);
    }

    /// A key that is missing is reported when the reader goes: it may be there by another name.
    fn report_missing(&self, key: &str, expected: String) {
        let known = |missing: &[(String, String)]| missing.iter().any(|(known, _)| known == key);
        if self.ask(key).is_none() && !known(&self.missing.borrow()) {
            self.missing.borrow_mut().push((key.to_owned(), expected));
        }
    }

    /// Reports a missing `key`, for keys that take several forms; `expected` says which.
    pub fn require(&mut self, key: &str, expected: &str) {
        self.report_missing(key, expected.to_owned());
    }

    /// Whether `key` is written in the table.
    pub fn has(&self, key: &str) -> bool {
        self.ask(key).is_some()
    }

    /// The value of `key`; `None` when it is absent, or ill-typed (which is reported).
    pub fn optional<T: FromToml>(&mut self, key: &str) -> Option<T> {
        let value = self.ask_value(key)?;
        T::from_toml(value, key, self.scope.mistakes)
    }

    /// The value of `key`; a missing or ill-typed one is reported.
    pub fn required<T: FromToml>(&mut self, key: &str) -> Option<T> {
        let value = self.optional(key);
        self.report_missing(key, T::expected());
        value
    }

    /// A finite number in `range`; anything else is reported and gives the default.
    pub fn number(&mut self, key: &str, default: f64, range: impl RangeBounds<f64>) -> f64 {
        self.optional_number(key, range).unwrap_or(default)
    }

    /// As [`Reader::number`], without a default.
    pub fn required_number(&mut self, key: &str, range: impl RangeBounds<f64>) -> Option<f64> {
        self.report_missing(key, words("a number", &range));
        self.optional_number(key, range)
    }

    /// A finite number in `range`; `None` when absent.
    pub fn optional_number(&mut self, key: &str, range: impl RangeBounds<f64>) -> Option<f64> {
        let value = self.ask_value(key)?;
        match value.value {
            Syntax::Float(_) | Syntax::Integer(_) => {
                let number = match value.value {
                    Syntax::Float(number) => number,
                    Syntax::Integer(Some(number)) => number as f64,
                    _ => f64::INFINITY,
                };
                if number.is_finite() && range.contains(&number) {
                    return Some(number);
                }
                let expected = words(if number.is_finite() { "a number" } else { "a finite number" }, &range);
                self.report(Mistake::Range { key: key.to_owned(), expected }, value.span.clone());
                None
            }
            _ => f64::from_toml(value, key, self.scope.mistakes),
        }
    }

    /// An integer in `range`; anything else is reported and gives the default.
    pub fn integer(&mut self, key: &str, default: u64, range: impl RangeBounds<u64>) -> u64 {
        self.optional_integer(key, range).unwrap_or(default)
    }

    /// As [`Reader::integer`], without a default.
    pub fn required_integer(&mut self, key: &str, range: impl RangeBounds<u64>) -> Option<u64> {
        self.report_missing(key, words("an integer", &range));
        self.optional_integer(key, range)
    }

    /// An integer in `range`; `None` when absent.
    pub fn optional_integer(&mut self, key: &str, range: impl RangeBounds<u64>) -> Option<u64> {
        let value = self.ask_value(key)?;
        let Syntax::Integer(number) = value.value else {
            return u64::from_toml(value, key, self.scope.mistakes);
        };
        let number = number.and_then(|number| i64::try_from(number).ok()).and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let low = range.start_bound().cloned();
            let low = if low == Bound::Unbounded { Bound::Included(0) } else { low };
            let expected = words("an integer", &(low, range.end_bound().cloned()));
            self.report(Mistake::Range { key: key.to_owned(), expected }, value.span.clone());
        }
        number
    }

    /// Two numbers `[a, b]` with a < b, both in `within`; `None` when absent.
    pub fn optional_interval(&mut self, key: &str, within: RangeInclusive<f64>) -> Option<[f64; 2]> {
        let [low, high] = self.optional::<[f64; 2]>(key)?;
        if within.contains(&low) && within.contains(&high) && low < high {
            return Some([low, high]);
        }
        let expected = format!("two numbers from {} to {}, the first below the second", within.start(), within.end());
        self.report(Mistake::Range { key: key.to_owned(), expected }, self.span_of(key));
        None
    }

    /// One of `choices`; another text is reported with the nearest.
    pub fn choice<T: Clone>(&mut self, key: &str, choices: &[(&str, T)], default: T) -> T {
        self.optional_choice(key, choices).unwrap_or(default)
    }

    /// As [`Reader::choice`]; a missing one is reported.
    pub fn required_choice<T: Clone>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.report_missing(key, format!("one of {}", crate::diagnostic::listed(&names)));
        self.optional_choice(key, choices)
    }

    /// As [`Reader::choice`]; `None` when absent.
    pub fn optional_choice<T: Clone>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let written: String = self.optional(key)?;
        let found = choices.iter().find(|(name, _)| *name == written).map(|(_, value)| value.clone());
        if found.is_none() {
            let choices = choices.iter().map(|(name, _)| (*name).to_owned()).collect();
            self.report(Mistake::Choice { key: key.to_owned(), written, choices }, self.span_of(key));
        }
        found
    }

    /// A string that is not empty; `expected` says what it is.
    pub fn string(&mut self, key: &str, expected: &'static str) -> Option<String> {
        let text: String = self.optional(key)?;
        if text.trim().is_empty() {
            self.report(Mistake::Empty { key: key.to_owned(), expected }, self.span_of(key));
            return None;
        }
        Some(text)
    }

    /// As [`Reader::string`]; a missing one is reported.
    pub fn required_string(&mut self, key: &str, expected: &'static str) -> Option<String> {
        self.report_missing(key, expected.to_owned());
        self.string(key, expected)
    }

    /// A path, resolved against the directory of the file that it is written in.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let written = self.string(key, "a path")?;
        self.is_plain_path(key, &written).then(|| {
            let path = resolve(self.scope.folders.at(self.span_of(key).start), &written);
            self.scope.named.borrow_mut().paths.push((format!("{}{key}", self.path), path.clone()));
            path
        })
    }

    /// Whether `written` can be a path as it is; what a shell, a string's escapes or a browser would make of it is
    /// reported.
    pub(super) fn is_plain_path(&mut self, key: &str, written: &str) -> bool {
        let problem = paths::problem(written);
        if let Some((message, label, help)) = &problem {
            self.reject(key, message.clone(), *label, Some(help.clone()));
        }
        problem.is_none()
    }

    /// As [`Reader::path`]; a missing one is reported.
    pub fn required_path(&mut self, key: &str) -> Option<PathBuf> {
        self.report_missing(key, "a path".to_owned());
        self.path(key)
    }

    /// As [`Reader::optional_resource`]; a missing one is reported.
    pub fn resource(&mut self, key: &str, kind: &ResourceKind) -> Option<Resource> {
        self.report_missing(key, format!("the name of a {} under `[{}]`", kind.noun, kind.table));
        self.optional_resource(key, kind)
    }

    /// The resource of `kind` that `key` names; an unknown name is reported.
    pub fn optional_resource(&mut self, key: &str, kind: &ResourceKind) -> Option<Resource> {
        let written: String = self.optional(key)?;
        let declared = || self.scope.resources.iter().filter(|resource| resource.table == kind.table);
        let found = declared().find(|resource| resource.name == written).cloned();
        if found.is_none() {
            let known = declared().map(|resource| resource.name.clone()).collect();
            self.report(Mistake::UnknownName { what: kind.noun, written, known }, self.span_of(key));
        }
        self.scope.named.borrow_mut().resources.extend(found.clone());
        found
    }

    /// The table under `key`, as a reader that collects into the same mistakes.
    pub fn table(&mut self, key: &str) -> Option<Reader<'a>> {
        let value = self.ask_value(key)?;
        self.reader_of(value, key, &format!("`{key}`"))
    }

    /// An empty table, in place of a missing one.
    pub(super) fn empty_table(&self) -> Reader<'a> {
        static EMPTY: Table = Table { span: 0..0, entries: Vec::new() };
        Reader::new(self.scope, &EMPTY, self.place.clone())
    }

    /// As [`Reader::table`], with another name in messages.
    pub(super) fn named_table(&mut self, key: &str, place: &str) -> Option<Reader<'a>> {
        let mut table = self.table(key)?;
        table.place = place.to_owned();
        Some(table)
    }

    /// Refuses `key`, which this version does not read yet; unless it is written, it is not among the known keys.
    pub fn refuse(&mut self, key: &'static str, instead: &'static str) {
        if let Some(entry) = self.table.get(key) {
            self.ask(key);
            self.report(Mistake::NotYet { key, instead }, entry.key_span.clone());
        }
    }

    /// Names keys that somebody else reads, for what may be meant by an unknown one; dotted ones belong to tables
    /// below.
    pub fn read_elsewhere(&mut self, keys: impl IntoIterator<Item = impl Into<Cow<'a, str>>>) {
        self.asked.borrow_mut().extend(keys.into_iter().map(Into::into));
    }

    /// The array of tables under `key`.
    pub fn tables(&mut self, key: &str) -> Vec<Reader<'a>> {
        let Some(value) = self.ask_value(key) else { return Vec::new() };
        let Syntax::List(items) = &value.value else {
            let expected = "a list of tables".to_owned();
            self.report(Mistake::Type { key: key.to_owned(), expected, found: value.value.name() }, value.span.clone());
            return Vec::new();
        };
        let numbered = items.iter().enumerate();
        numbered.filter_map(|(index, item)| self.reader_of(item, key, &format!("`{key}[{index}]`"))).collect()
    }

    fn reader_of(&self, value: &'a Located, key: &str, name: &str) -> Option<Reader<'a>> {
        if let Syntax::Table(table) = &value.value {
            let mut reader = Reader::new(self.scope, table, format!("{name} of {}", self.place));
            reader.path = format!("{}{key}.", self.path);
            return Some(reader);
        }
        if value.value != Syntax::Broken {
            let (key, expected) = (name.trim_matches('`').to_owned(), "a table".to_owned());
            self.report(Mistake::Type { key, expected, found: value.value.name() }, value.span.clone());
        }
        None
    }

    /// Whether the value under `key` is a string, a list, a table, …: for keys that take several forms.
    pub fn is_string(&self, key: &str) -> bool {
        matches!(self.syntax(key), Some(Syntax::String(_)))
    }

    /// See [`Reader::is_string`].
    pub fn is_list(&self, key: &str) -> bool {
        matches!(self.syntax(key), Some(Syntax::List(_)))
    }

    /// See [`Reader::is_string`].
    pub fn is_table(&self, key: &str) -> bool {
        matches!(self.syntax(key), Some(Syntax::Table(_)))
    }

    /// See [`Reader::is_string`].
    pub fn is_boolean(&self, key: &str) -> bool {
        matches!(self.syntax(key), Some(Syntax::Boolean(_)))
    }

    /// See [`Reader::is_string`]; whole or not.
    pub fn is_number(&self, key: &str) -> bool {
        matches!(self.syntax(key), Some(Syntax::Integer(_) | Syntax::Float(_)))
    }

    fn syntax(&self, key: &str) -> Option<&'a Syntax> {
        self.ask(key).map(|entry| &entry.value.value)
    }

    /// All keys of the table that were not read yet, marked as read: for tables with free names (`where`).
    pub fn remaining_keys(&mut self) -> Vec<String> {
        self.rest().into_iter().map(|entry| entry.key.clone()).collect()
    }

    /// The entries of the table that were not read yet, marked as read.
    pub(super) fn rest(&mut self) -> Vec<&'a Entry> {
        let asked = self.asked.borrow();
        let rest = self.table.entries.iter().filter(|entry| !asked.iter().any(|asked| *asked == entry.key)).collect();
        self.all_read = true;
        rest
    }

    /// Reports a mistake at the value of `key` (which may be dotted), or at the table when `key` is absent.
    pub fn reject(&mut self, key: &str, message: impl Into<String>, label: impl Into<String>, help: Option<String>) {
        self.ask(key.split('.').next().unwrap_or(key));
        let mistake = Mistake::Other { message: message.into(), label: label.into(), help };
        self.report(mistake, self.span_of(key));
    }

    /// Reports that the text under `key` is no `what` (a benchmark, a prompt set), with the nearest of `known`.
    pub fn reject_name(&mut self, key: &str, what: &str, written: &str, known: &[&str]) {
        let label = format!("no {what} has this name");
        let help = did_you_mean(written, &format!("{what}s"), known);
        self.reject(key, format!("unknown {what} `{written}`"), label, help);
    }

    /// Reports that the value under `key` has none of the types that the key takes.
    pub fn reject_type(&mut self, key: &str, expected: &str) {
        let Some(value) = self.ask_value(key) else { return };
        let mistake = Mistake::Type { key: key.to_owned(), expected: expected.to_owned(), found: value.value.name() };
        self.report(mistake, value.span.clone());
    }

    /// How many mistakes the reading of this table and of those below it has reported.
    pub fn mistakes(&self) -> usize {
        self.scope.mistakes.count() - self.before
    }

    fn span_of(&self, key: &str) -> Span {
        self.table.place(key).unwrap_or_else(|| self.table.span.clone())
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut missing = self.missing.take();
        let is_known = |entry: &Entry| self.asked.borrow().iter().any(|asked| *asked == entry.key);
        if !self.all_read && !self.table.entries.iter().all(is_known) {
            let known = self.known();
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            for entry in self.table.entries.iter().filter(|entry| !known.contains(&entry.key)) {
                // A key under another name is one mistake, not an unknown key and a missing one.
                let meant = meant(&entry.key, &names, self.scope.mistakes.synonyms);
                missing.retain(|(key, _)| meant.first() != Some(&key.as_str()));
                let (key, place, known) = (entry.key.clone(), self.place.clone(), known.clone());
                self.report(Mistake::UnknownKey { key, place, known }, entry.key_span.clone());
            }
        }
        for (key, expected) in missing {
            self.report(Mistake::Missing { key, place: self.place.clone(), expected }, self.table.span.clone());
        }
    }
}

/// `path` from `folder` on, without detours: `pipelines/../data` is `data`. As in a shell's `cd`, `..` goes back along
/// the path as it is written, not as links lead.
pub fn resolve(folder: &Path, path: impl AsRef<Path>) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in folder.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(resolved.components().next_back(), Some(Component::Normal(_))) => {
                resolved.pop();
            }
            component => resolved.push(component),
        }
    }
    if resolved.as_os_str().is_empty() { PathBuf::from(".") } else { resolved }
}

#[cfg(test)]
mod tests {
    use super::super::syntax;
    use super::*;
    use crate::diagnostic::Diagnostic;

    const MODEL: ResourceKind =
        ResourceKind { table: "models", noun: "model", expected: "a directory", is_remote: |_| false };

    fn read<T>(text: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> (T, Vec<Diagnostic>) {
        let syntax::Parsed { root: table, mistakes, incomplete } = syntax::parse(text);
        let mistakes = Mistakes::after(mistakes, incomplete);
        let name = "base".to_owned();
        let resources = [Resource { table: MODEL.table, name, source: "m".into(), path: "m".into(), revision: None }];
        let folders = Folders::of(Path::new("folder"));
        let scope = Scope::new(&folders, &resources, &mistakes);
        let value = read(&mut Reader::new(&scope, &table, "node `n`"));
        (value, mistakes.into_list())
    }

    fn messages(mistakes: &[Diagnostic]) -> Vec<String> {
        let reported = |mistake: &Diagnostic| format!("{}: {}", mistake.message, mistake.labels[0].text);
        mistakes.iter().map(reported).collect()
    }

    #[test]
    fn values_are_read_by_type() {
        let text = "b = true\ni = 7\nf = 1\nt = 'x'\nl = [1, 2.5]\np = 'a/b'\nm = 'base'";
        let (values, mistakes) = read(text, |reader| {
            assert_eq!(reader.optional::<bool>("b"), Some(true));
            assert_eq!(reader.required::<u64>("i"), Some(7));
            assert_eq!(reader.number("f", 0.0, ..), 1.0);
            assert_eq!(reader.required::<String>("t").as_deref(), Some("x"));
            assert_eq!(reader.optional::<[f64; 2]>("l"), Some([1.0, 2.5]));
            assert_eq!(reader.path("p"), Some("folder/a/b".into()));
            (reader.optional_resource("m", &MODEL).map(|model| model.name), reader.integer("absent", 3, ..))
        });
        assert_eq!(mistakes, []);
        assert_eq!(values, (Some("base".to_owned()), 3));
    }

    #[test]
    fn numbers_outside_their_range_are_reported_with_the_range() {
        let text = "a = nan\nb = inf\nc = -1\nd = 0\ne = 1.5\nf = 1e400\ng = 99999999999999999999\nh = 2";
        let ((), mistakes) = read(text, |reader| {
            reader.number("a", 0.0, 0.0..=1.0);
            reader.number("b", 0.0, ..);
            reader.integer("c", 0, ..);
            reader.number("d", 1.0, (Bound::Excluded(0.0), Bound::Unbounded));
            reader.integer("e", 0, 1..);
            reader.number("f", 0.0, 0.0..);
            reader.integer("g", 0, 1..=9);
            reader.number("h", 0.0, 0.0..1.0);
        });
        insta::assert_snapshot!(messages(&mistakes).join("\n"), @r"
        `a` is out of range: expected a finite number from 0 to 1
        `b` is out of range: expected a finite number
        `c` is out of range: expected an integer, at least 0
        `d` is out of range: expected a number, above 0
        `e` must be an integer: this is a number
        `f` is out of range: expected a finite number, at least 0
        `g` is out of range: expected an integer from 1 to 9
        `h` is out of range: expected a number, at least 0 and below 1
        ");
    }

    #[test]
    fn paths_are_resolved_without_detours() {
        let resolved = |folder: &str, path: &str| resolve(Path::new(folder), path).display().to_string();
        assert_eq!(resolved("pipelines", "../data/./a.json"), "data/a.json");
        assert_eq!(resolved("pipelines", ".."), ".");
        assert_eq!(resolved("", "../../data"), "../../data");
        assert_eq!(resolved("a/b", "/data"), "/data");
        assert_eq!(resolved("/", "../data/*/x"), "/../data/*/x");
    }

    #[test]
    fn every_mistake_of_a_list_is_reported() {
        let (value, mistakes) = read("l = [1, 'a', true]", |reader| reader.optional::<Vec<f64>>("l"));
        assert_eq!(value, None);
        let expected = ["`l[1]` must be a number: this is a string", "`l[2]` must be a number: this is a boolean"];
        assert_eq!(messages(&mistakes), expected);
        let (_, mistakes) = read("l = [{}, 2]", |reader| reader.tables("l").len());
        assert_eq!(messages(&mistakes), ["`l[1]` must be a table: this is an integer"]);
        let (value, mistakes) = read("l = [1, 2, 3]", |reader| reader.optional_interval("l", 0.0..=1.0));
        assert_eq!(value, None);
        assert_eq!(messages(&mistakes), ["`l` must be a list of 2 numbers: this has 3"]);
    }

    #[test]
    fn keys_that_nothing_asked_for_are_reported_with_the_nearest_that_was() {
        let ((), mistakes) = read("temprature = 1\nlora = { rnk = 2, rank = 1 }", |reader| {
            reader.number("temperature", 0.0, ..);
            let mut lora = reader.table("lora").expect("a table");
            lora.integer("rank", 1, ..);
        });
        let helps: Vec<_> = mistakes.iter().map(|mistake| mistake.help.clone().unwrap_or_default()).collect();
        assert_eq!(helps, ["did you mean `rank`?", "did you mean `temperature`?"]);
        assert_eq!(mistakes[0].message, "unknown key `rnk` in `lora` of node `n`");
    }

    #[test]
    fn tables_with_free_names_and_lists_of_tables_are_read() {
        let text = "where = { image = true, path = ['a'] }\nops = [{ op = 'blur' }, { op = 'nois' }]";
        let (keys, mistakes) = read(text, |reader| {
            let mut filter = reader.table("where").expect("a table");
            let keys = filter.remaining_keys();
            assert!(filter.is_boolean("image") && filter.is_list("path"));
            for mut operation in reader.tables("ops") {
                operation.required_choice("op", &[("blur", 1), ("noise", 2)]);
                operation.number("weight", 1.0, 0.0..);
            }
            keys
        });
        assert_eq!(keys, ["image", "path"]);
        assert_eq!(messages(&mistakes), ["`op` cannot be `nois`: expected one of `blur`, `noise`"]);
    }

    #[test]
    fn a_missing_key_is_reported_once_and_never_for_a_text_that_could_not_be_read() {
        let ((), mistakes) = read("", |reader| drop(reader.required::<String>("from")));
        assert_eq!(messages(&mistakes), ["`from` is missing in node `n`: needs `from`, a string"]);
        let ((), mistakes) = read("from =\n", |reader| drop(reader.required::<String>("from")));
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    }
}
