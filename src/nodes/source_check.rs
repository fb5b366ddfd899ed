//! Checks a source before a run: mistakes in its records, notes on them, and what nodes below can expect. Reads only
//! the headers of pictures.

use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::listing::{FIX, FIX_OR_SKIP, LOOKED_UP, Source, allows, help, named, passed_over_notes, respelled};
use crate::data::lookup::{Found, Lookup};
use crate::data::picture::check_beginning;
use crate::data::record_notes::{RecordNote, RecordNotes};
use crate::data::records::Place;
use crate::data::source::{Entry, PassedOver, RowErrors, SourceError, each_entry};
use crate::data::turns::says_something;
use stic_engine::digest::Value;
use stic_engine::node::{FileProblem, OnBadItem, Parameter};

impl Source {
    /// Checks the source that `parameter` names without decoding pictures. `wrong` gives the problem that the caller
    /// has with an otherwise valid entry.
    pub fn check(
        &self,
        parameter: &str,
        on_bad_item: OnBadItem,
        wrong: impl Fn(&Entry) -> Option<&'static str>,
    ) -> Checked {
        let mut check = SourceCheck::new(&self.from, self.images());
        let in_folder = !self.from.is_file();
        let read = each_entry(&self.from, self.images.as_deref(), &mut |entry| {
            match entry {
                Err(SourceError::Record { place, cause, .. }) => check.fault(place, &cause),
                Err(error) => return Err(error),
                Ok(entry) if !self.filter.takes(&entry) => {}
                Ok(mut entry) => {
                    let name = named(&entry);
                    if let Some(cause) = wrong(&entry) {
                        check.fault(name, cause);
                        return Ok(());
                    }
                    check.remarks(std::mem::take(&mut entry.remarks), &name);
                    check.answered(entry.conversations.as_deref().is_some_and(says_something));
                    match (entry.place, entry.written, entry.picture) {
                        (Some(place), Some(written), _) if !in_folder => check.picture(place, written),
                        (place, Some(written), path @ Some(_)) => check.wait(Waiting { place, written, path }),
                        (_, written, _) => check.sound(written.is_some()),
                    }
                }
            }
            Ok(())
        });
        let (passed_over, read) = read.map_or_else(|error| (PassedOver::default(), Err(error)), |all| (all, Ok(())));
        let mut checked = check.finish(parameter, on_bad_item, read);
        checked.notes.extend(passed_over_notes(&passed_over));
        Checked { passed_over, ..checked }
    }
}

/// Checks a file of records before a run. Keeps problems and counts, not records.
pub struct SourceCheck<'a> {
    file: &'a Path,
    lookup: Lookup<'a>,
    found: Checked,
    faults: RowErrors,
    missing: RowErrors,
    unlike: RowErrors,
    remarks: RecordNotes,
    waiting: Vec<Waiting>,
}

/// A picture to be checked.
struct Waiting {
    /// The place of its record; `None` for a picture in a directory.
    place: Option<Place>,
    /// Its name in the record or the directory.
    written: String,
    /// Its path, if known.
    path: Option<PathBuf>,
}

/// The outcome of a check: counts of valid records, problems and notes.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Number of valid records.
    pub entries: usize,
    /// How many of them have a picture.
    pub pictures: usize,
    /// How many have a conversation with an answer.
    pub answered: usize,
    /// The first record with an answer in a field that is not read, and that field.
    pub unread: Option<String>,
    /// The files in a directory that are not pictures.
    pub passed_over: PassedOver,
    /// Mistakes.
    pub problems: Vec<FileProblem>,
    /// Notes.
    pub notes: Vec<String>,
}

/// How many pictures are checked per batch, on all threads.
const LOOKED_FOR: usize = 4096;

impl<'a> SourceCheck<'a> {
    /// Starts the check of `file`, whose pictures are in `images`.
    pub fn new(file: &'a Path, images: &'a Path) -> Self {
        Self {
            file,
            lookup: Lookup::new(images),
            found: Checked::default(),
            faults: RowErrors::default(),
            missing: RowErrors::default(),
            unlike: RowErrors::default(),
            remarks: RecordNotes::default(),
            waiting: Vec::new(),
        }
    }

    /// Adds a mistake in the record called `name`.
    pub fn fault(&mut self, name: impl fmt::Display, cause: &str) {
        self.faults.add(name, cause);
    }

    /// Adds remarks on the valid record called `name`.
    pub fn remarks(&mut self, remarks: Vec<RecordNote>, name: impl fmt::Display) {
        remarks.into_iter().for_each(|remark| self.remarks.add(remark, &name));
    }

    /// Adds a valid record; `picture`: whether it has one that is known to exist.
    pub fn sound(&mut self, picture: bool) {
        self.found.entries += 1;
        self.found.pictures += usize::from(picture);
    }

    /// Counts a record with a conversation that has an answer.
    pub fn answered(&mut self, answered: bool) {
        self.found.answered += usize::from(answered);
    }

    /// Adds a valid record at `place`, whose picture is to be checked.
    pub fn picture(&mut self, place: Place, written: String) {
        self.wait(Waiting { place: Some(place), written, path: None });
    }

    fn wait(&mut self, picture: Waiting) {
        self.sound(true);
        self.waiting.push(picture);
        if self.waiting.len() == LOOKED_FOR {
            self.look();
        }
    }

    fn look(&mut self) {
        let lookup = &self.lookup;
        let look = |Waiting { place, written, path }: Waiting| {
            let found = path.map(Found::There).or_else(|| lookup.find(&written));
            let respelled = matches!(found, Some(Found::Respelled(_)));
            let looked = found.map(|found| check_beginning(&found.into_path()));
            (respelled || !matches!(looked, Some(Ok(())))).then_some((place, written, respelled, looked))
        };
        let looked: Vec<_> = self.waiting.par_drain(..).filter_map(look).collect();
        for (place, written, is_respelled, looked) in looked {
            let name = place.map_or_else(|| format!("`{written}`"), |place| respelled(place, &written));
            if is_respelled {
                self.remarks.add(RecordNote::Spelling, &name);
            }
            match (looked, place) {
                (Some(Ok(())), _) => {}
                (None, Some(place)) => self.missing.add_with(place, || lookup.missing(&written)),
                (None, None) => self.missing.add_with(name, || lookup.missing(&written)),
                (Some(Err(cause)), _) => self.unlike.add(name, cause),
            }
        }
    }

    /// Finishes the check: `read` is how reading the file ended; problems are reported for `parameter`, or as notes
    /// where `on_bad_item` allows them.
    pub fn finish(mut self, parameter: &str, on_bad_item: OnBadItem, read: Result<(), SourceError>) -> Checked {
        self.look();
        let problem = |message: String, help: Option<&str>| FileProblem {
            parameter: parameter.to_owned(),
            message,
            help: help.map(str::to_owned),
        };
        let name = format!("`{}`", self.file.display());
        let entries = self.found.entries;
        let faults = self.faults.reported(&name, |count| format!("{count} records of {name} cannot be read:"));
        let missing =
            self.missing.reported(&name, |count| format!("{count} of {entries} pictures named in {name} are missing:"));
        let unlike =
            self.unlike.reported(&name, |count| format!("{count} of {entries} pictures in {name} cannot be read:"));
        let bad = self.faults.count() + self.missing.count() + self.unlike.count();
        let all = self.faults.count() + entries;
        let mut found = self.found;
        found.unread = self.remarks.unread_answer().map(|(first, key)| format!("{name}, {first} has `{key}`"));
        if allows(on_bad_item, bad, all) {
            found.notes.extend(
                [faults, missing, unlike].into_iter().flatten().map(|reported| format!("left out: {reported}")),
            );
        } else {
            found.problems.extend(faults.map(|message| problem(message, None)));
            found.problems.extend(missing.map(|message| problem(message, Some(LOOKED_UP))));
            found.problems.extend(
                unlike.map(|message| problem(message, Some(if parameter == "from" { FIX_OR_SKIP } else { FIX }))),
            );
        }
        found.notes.extend(self.remarks.lines().map(|line| format!("{name}: {line}")));
        if let Err(error) = read {
            let help = match &error {
                SourceError::Missing(_) => Some("paths are relative to the pipeline file"),
                SourceError::Glob { .. } => Some("name a directory, a glob, a list of paths or a JSON file"),
                error => help(error),
            };
            found.problems.push(problem(error.to_string(), help));
        }
        found
    }
}

impl Checked {
    /// What nodes below can expect of the result: how many records have a picture, and how many an answer. Empty if
    /// there are problems.
    pub fn promises(&self) -> Vec<Parameter> {
        if !self.problems.is_empty() || self.entries == 0 {
            return Vec::new();
        }
        let unread = self.unread.as_ref().map(|reported| Parameter::selection(UNREAD, reported.as_str()));
        let counts = [(PICTURES, self.pictures), (ANSWERED, self.answered)];
        counts.into_iter().map(|(name, count)| Parameter::selection(name, count)).chain(unread).collect()
    }
}

/// Promise: the number of records with a picture.
const PICTURES: &str = "pictures";
/// Promise: the number of records with an answer.
const ANSWERED: &str = "answered";
/// Promise: where an answer is in a field that is not read.
const UNREAD: &str = "unread";
/// Promise: pictures are altered.
pub const ALTERED: &str = "altered";
/// Promise: the prompts that altered pictures are described with.
pub const ALTERED_PROMPTS: &str = "altered_prompts";

/// The mistake that no record in `port` has a picture, if that is known.
pub fn check_pictures(port: &str, above: &dyn Fn(&str) -> Vec<Parameter>) -> Option<FileProblem> {
    let help = "connect records that have pictures, or a directory of pictures";
    check_some(port, PICTURES, above, "has a picture", help)
}

/// The mistake that no record in `port` has an answer, if that is known.
pub fn check_answers(port: &str, above: &dyn Fn(&str) -> Vec<Parameter>) -> Option<FileProblem> {
    let help = "connect instruction records, whose `conversations` alternate questions and answers";
    let mut problem = check_some(port, ANSWERED, above, "has a conversation with a non-empty answer", help)?;
    let unread = above(port).into_iter().find(|promise| promise.name == UNREAD);
    if let Some(Value::String(reported)) = unread.map(|promise| promise.value) {
        problem.message += &format!("; {reported}, which is not read as an answer");
    }
    Some(problem)
}

fn check_some(
    port: &str,
    name: &str,
    above: &dyn Fn(&str) -> Vec<Parameter>,
    lacking: &str,
    help: &str,
) -> Option<FileProblem> {
    let none = above(port).iter().any(|promise| promise.name == name && promise.value == Value::from(0usize));
    none.then(|| FileProblem {
        parameter: format!("inputs.{port}"),
        message: format!("none of the records in `inputs.{port}` {lacking}"),
        help: Some(help.to_owned()),
    })
}
