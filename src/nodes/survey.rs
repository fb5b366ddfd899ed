//! A look at a source before anything runs: what is wrong with its records, what is worth knowing of them, and what they
//! can serve for below. Of pictures the beginning alone is read.

use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::listing::{LOOKED_UP, MEND, MEND_OR_SKIP, Source, allows, help, named, passed_over_notes, respelled};
use crate::data::lookup::{Found, Lookup};
use crate::data::picture::check_beginning;
use crate::data::records::Place;
use crate::data::remarks::{Remark, Remarks};
use crate::data::source::{Entry, Faults, PassedOver, SourceError, each_entry};
use crate::data::turns::says_something;
use stic_engine::digest::Value;
use stic_engine::node::{FileProblem, OnBadItem, Parameter};

impl Source {
    /// Looks at what `parameter` names, as far as it can be determined without decoding a picture. `wrong` says what is wrong
    /// with an entry that is sound in itself.
    pub fn survey(
        &self,
        parameter: &str,
        on_bad_item: OnBadItem,
        wrong: impl Fn(&Entry) -> Option<&'static str>,
    ) -> Surveyed {
        let mut survey = Survey::new(&self.from, self.images());
        let in_folder = !self.from.is_file();
        let read = each_entry(&self.from, self.images.as_deref(), &mut |entry| {
            match entry {
                Err(SourceError::Record { place, cause, .. }) => survey.fault(place, &cause),
                Err(error) => return Err(error),
                Ok(entry) if !self.filter.takes(&entry) => {}
                Ok(mut entry) => {
                    let name = named(&entry);
                    if let Some(cause) = wrong(&entry) {
                        survey.fault(name, cause);
                        return Ok(());
                    }
                    survey.remarks(std::mem::take(&mut entry.remarks), &name);
                    survey.answered(entry.conversations.as_deref().is_some_and(says_something));
                    match (entry.place, entry.written, entry.picture) {
                        (Some(place), Some(written), _) if !in_folder => survey.picture(place, written),
                        (place, Some(written), path @ Some(_)) => survey.wait(Waiting { place, written, path }),
                        (_, written, _) => survey.sound(written.is_some()),
                    }
                }
            }
            Ok(())
        });
        let (passed_over, read) = read.map_or_else(|error| (PassedOver::default(), Err(error)), |all| (all, Ok(())));
        let mut surveyed = survey.surveyed(parameter, on_bad_item, read);
        surveyed.notes.extend(passed_over_notes(&passed_over));
        Surveyed { passed_over, ..surveyed }
    }
}

/// A look at a file of records before anything runs: keeps what is wrong, and nothing of what is sound.
pub struct Survey<'a> {
    file: &'a Path,
    lookup: Lookup<'a>,
    found: Surveyed,
    faults: Faults,
    missing: Faults,
    unlike: Faults,
    remarks: Remarks,
    waiting: Vec<Waiting>,
}

/// A picture that must be looked at.
struct Waiting {
    /// Where its record stands; `None` for what is found in a folder.
    place: Option<Place>,
    /// Its name, as its record or its folder has it.
    written: String,
    /// Where it is, when that is known.
    path: Option<PathBuf>,
}

/// What came of a look at a source: counts of its sound records, what is wrong, and what is worth knowing.
#[derive(Clone, Debug, Default)]
pub struct Surveyed {
    /// How many records there are.
    pub entries: usize,
    /// How many of them are about a picture.
    pub pictures: usize,
    /// How many have a conversation with an answer.
    pub answered: usize,
    /// The first record whose answer stands in a field that is not read, and the field.
    pub unread: Option<String>,
    /// The files of a folder that are no pictures.
    pub passed_over: PassedOver,
    /// What is wrong.
    pub problems: Vec<FileProblem>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// How many pictures are looked for at a time, on all threads.
const LOOKED_FOR: usize = 4096;

impl<'a> Survey<'a> {
    /// A look at `file`, whose pictures are in `images`.
    pub fn new(file: &'a Path, images: &'a Path) -> Self {
        Self {
            file,
            lookup: Lookup::new(images),
            found: Surveyed::default(),
            faults: Faults::default(),
            missing: Faults::default(),
            unlike: Faults::default(),
            remarks: Remarks::default(),
            waiting: Vec::new(),
        }
    }

    /// Something is wrong with the record called `name`.
    pub fn fault(&mut self, name: impl fmt::Display, cause: &str) {
        self.faults.add(name, cause);
    }

    /// The record called `name` is sound, and this was done to read it.
    pub fn remarks(&mut self, remarks: Vec<Remark>, name: impl fmt::Display) {
        remarks.into_iter().for_each(|remark| self.remarks.add(remark, &name));
    }

    /// A record is sound, and where its picture lies is known, if it has one.
    pub fn sound(&mut self, picture: bool) {
        self.found.entries += 1;
        self.found.pictures += usize::from(picture);
    }

    /// A sound record has a conversation with an answer, or not.
    pub fn answered(&mut self, answered: bool) {
        self.found.answered += usize::from(answered);
    }

    /// The record at `place` is about a picture.
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
                self.remarks.add(Remark::Spelling, &name);
            }
            match (looked, place) {
                (Some(Ok(())), _) => {}
                (None, Some(place)) => self.missing.add_with(place, || lookup.missing(&written)),
                (None, None) => self.missing.add_with(name, || lookup.missing(&written)),
                (Some(Err(cause)), _) => self.unlike.add(name, cause),
            }
        }
    }

    /// What came of reading the file (`read`), with problems of `parameter`. What `on_bad_item` skips is none.
    pub fn surveyed(mut self, parameter: &str, on_bad_item: OnBadItem, read: Result<(), SourceError>) -> Surveyed {
        self.look();
        let problem = |message: String, help: Option<&str>| FileProblem {
            parameter: parameter.to_owned(),
            message,
            help: help.map(str::to_owned),
        };
        let name = format!("`{}`", self.file.display());
        let entries = self.found.entries;
        let faults = self.faults.reported(&name, |count| format!("{count} records of {name} cannot be read:"));
        let missing = self
            .missing
            .reported(&name, |count| format!("{count} pictures of {entries} that {name} names are not there:"));
        let unlike =
            self.unlike.reported(&name, |count| format!("{count} pictures of {entries} in {name} cannot be read:"));
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
                unlike.map(|message| problem(message, Some(if parameter == "from" { MEND_OR_SKIP } else { MEND }))),
            );
        }
        found.notes.extend(self.remarks.lines().map(|line| format!("{name}: {line}")));
        if let Err(error) = read {
            let help = match &error {
                SourceError::Missing(_) => Some("paths are relative to the pipeline file"),
                SourceError::Glob { .. } => Some("name a folder, a glob, a list of paths or a JSON file"),
                error => help(error),
            };
            found.problems.push(problem(error.to_string(), help));
        }
        found
    }
}

/// What a survey tells of a result before it is made: how many of its records have a picture, and how many an answer.
impl Surveyed {
    /// As promises to the nodes that read it; none while there are problems.
    pub fn promises(&self) -> Vec<Parameter> {
        if !self.problems.is_empty() || self.entries == 0 {
            return Vec::new();
        }
        let unread = self.unread.as_ref().map(|reported| Parameter::selection(UNREAD, reported.as_str()));
        let counts = [(PICTURES, self.pictures), (ANSWERED, self.answered)];
        counts.into_iter().map(|(name, count)| Parameter::selection(name, count)).chain(unread).collect()
    }
}

/// The promise of how many records have a picture.
const PICTURES: &str = "pictures";
/// The promise of how many records have a conversation with an answer.
const ANSWERED: &str = "answered";
/// The promise of where an answer stands that is not read as one.
const UNREAD: &str = "unread";
/// The promise that pictures are altered ones.
pub const ALTERED: &str = "altered";
/// The promise of the prompts that altered pictures are described with.
pub const ALTERED_PROMPTS: &str = "altered_prompts";

/// That what comes in by `port` has no picture at all, where that is known.
pub fn check_pictures(port: &str, above: &dyn Fn(&str) -> Vec<Parameter>) -> Option<FileProblem> {
    let help = "connect records that have pictures, or a folder of pictures";
    promised_none(port, PICTURES, above, "has a picture", help)
}

/// That what comes in by `port` has no answer at all, where that is known.
pub fn check_answers(port: &str, above: &dyn Fn(&str) -> Vec<Parameter>) -> Option<FileProblem> {
    let help = "connect instruction records, whose `conversations` are questions and answers by turns";
    let mut problem =
        promised_none(port, ANSWERED, above, "has a conversation with an answer that says something", help)?;
    let unread = above(port).into_iter().find(|promise| promise.name == UNREAD);
    if let Some(Value::String(reported)) = unread.map(|promise| promise.value) {
        problem.message += &format!("; {reported}, which is not read as an answer");
    }
    Some(problem)
}

fn promised_none(
    port: &str,
    name: &str,
    above: &dyn Fn(&str) -> Vec<Parameter>,
    lacking: &str,
    help: &str,
) -> Option<FileProblem> {
    let none = above(port).iter().any(|promise| promise.name == name && promise.value == Value::from(0usize));
    none.then(|| FileProblem {
        parameter: format!("inputs.{port}"),
        message: format!("none of the records that come in by `{port}` {lacking}"),
        help: Some(help.to_owned()),
    })
}
