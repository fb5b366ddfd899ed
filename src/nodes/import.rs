//! `inputs.PORT = { file = "…", images = "…" }`: files that stand where a node's result is expected.
//!
//! The published forms of every artifact are read, and our own, which are what `stic export` writes. What is imported
//! is known by its content like any result: moving the file reruns nothing.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::adapter::{self, part};
use super::listing::{Source, Survey, absolute, check_unreadable, elsewhere_note, failure, label, unreadable};
use crate::artifact::{
    ArtifactKind, Conversation, Finish, ItemId, LABELS, Label, Pair, Record, Response, Speaker, Turn, read_lines,
    write_lines,
};
use crate::data::filter::Filter;
use crate::data::published::{Preference, read_description, read_preference};
use crate::data::source::{Entry, Place, SourceError, each_entry, each_record, found_elsewhere, is_records};
use crate::data::turns::IMAGE;
use crate::digest::{Digest, Value};
use crate::model::{ModelError, peft};
use crate::node::{
    Context, Failure, FileDigests, FileProblem, Importer, Inputs, Labelled, Node, NodeKind, OnBadItem, Output,
    Parameter, Port, Summary, WholeWork, Work,
};
use crate::spec::Reader;

mod own;

use own::{Own, is_own, own_label, own_row};

/// Imports files as the artifacts that ports take.
pub struct FileImporter;

impl Importer for FileImporter {
    fn import(
        &self,
        accepts: &[ArtifactKind],
        file: PathBuf,
        images: Option<PathBuf>,
    ) -> (ArtifactKind, Arc<dyn NodeKind>, Box<dyn Node>) {
        let kind = accepts.first().copied().unwrap_or(ArtifactKind::Records);
        (kind, Arc::new(ImportKind(kind)), Box::new(Import { kind, file, images }))
    }
}

struct ImportKind(ArtifactKind);

impl NodeKind for ImportKind {
    fn name(&self) -> &'static str {
        "import"
    }

    fn version(&self) -> u32 {
        1
    }

    fn ports(&self) -> &'static [Port] {
        &[]
    }

    fn output(&self) -> ArtifactKind {
        self.0
    }

    fn read(&self, table: &mut Reader<'_>, _: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        let (file, images) = (table.required_path("file"), table.path("images"));
        Some(Box::new(Import { kind: self.0, file: file?, images }))
    }
}

struct Import {
    kind: ArtifactKind,
    file: PathBuf,
    images: Option<PathBuf>,
}

/// The rows of an artifact as text, and what goes beside them.
struct Rows {
    text: Vec<u8>,
    count: usize,
    labels: Vec<Label>,
    /// Pictures that rows name by digest alone, for which a file has to be found.
    wanted: Vec<Digest>,
    notes: Vec<String>,
}

impl Node for Import {
    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }

    fn check_files(&self) -> Vec<FileProblem> {
        let problem = |parameter: &str, message: String, help: &str| {
            vec![FileProblem { parameter: parameter.to_owned(), message, help: Some(help.to_owned()) }]
        };
        let relative = "paths are relative to the pipeline file";
        let shown = self.file.display();
        if let Some(images) = self.images.as_ref().filter(|images| !images.is_dir()) {
            return problem("images", format!("`{}` is not a folder", images.display()), relative);
        }
        match self.kind {
            ArtifactKind::Adapter => match adapter::read_shape(&self.file) {
                Ok(_) => Vec::new(),
                Err(ModelError { message, help, .. }) => {
                    vec![FileProblem { parameter: "file".to_owned(), message, help }]
                }
            },
            ArtifactKind::Records | ArtifactKind::Conversations if !is_records(&self.file) => self.check_entries(),
            _ if self.file.is_dir() => problem(
                "file",
                format!("`{shown}` is a folder"),
                "name the file in it, such as the `.jsonl` of an export",
            ),
            _ if !self.file.is_file() => problem("file", format!("there is no file `{shown}`"), relative),
            _ => self.check_rows(),
        }
    }

    fn promises(&self, _: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<Parameter> {
        let adapter = self.kind == ArtifactKind::Adapter;
        adapter.then(|| adapter::read_shape(&self.file).ok()).flatten().unwrap_or_default()
    }

    fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        let content = if self.kind == ArtifactKind::Adapter {
            let digest = |name: &str| {
                let path = self.file.join(name);
                digests.file(&path).map(Value::from).map_err(|cause| Failure::io(&path, &cause))
            };
            Value::List(vec![digest(peft::SETTINGS)?, digest(peft::TENSORS)?])
        } else {
            Digest::of(&self.rows(digests)?.text).into()
        };
        Ok(vec![Parameter::selection("as", self.kind.name()), Parameter::selection("file", content)])
    }

    fn labels(&self, files: &dyn FileDigests) -> Result<Vec<Labelled>, Failure> {
        #[derive(Deserialize)]
        struct Row {
            id: ItemId,
            #[serde(default)]
            picture: Option<Digest>,
        }
        if self.kind == ArtifactKind::Adapter {
            return Ok(Vec::new());
        }
        let Rows { text, labels, .. } = self.rows(files)?;
        let rows: Vec<Row> = read_lines(&text).map_err(|error| Failure::node(error.cause.to_string()))?;
        let named = |(Row { id, picture }, label)| Labelled { id, picture, label };
        Ok(std::iter::zip(rows, labels).map(named).collect())
    }

    fn work(&self) -> Work<'_> {
        Work::Whole(self)
    }
}

impl WholeWork for Import {
    fn run(&self, _: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        let objects = context.objects();
        if self.kind == ArtifactKind::Adapter {
            let (output, notes) = adapter::import(&self.file, objects)?;
            notes.iter().for_each(|note| context.note(note));
            return Ok(output);
        }
        let Rows { text, count, labels, wanted, notes } = self.rows(context.files())?;
        if count == 0 {
            return Err(Failure::node(format!("there is nothing in `{}`", self.file.display())));
        }
        notes.iter().for_each(|note| context.note(note));
        if let Some(digest) = wanted.iter().find(|digest| context.picture_path(digest).is_none()) {
            let message = format!("no picture in `{}` has the content {}", self.images().display(), digest.short());
            return Err(Failure::node(message).help("say with `images` in which folder the pictures are"));
        }
        let name = self.kind.rows_name().unwrap_or_default();
        Ok(Output {
            identity: vec![part(name, &text, objects)?],
            side: vec![part(LABELS, &write_lines(&labels), objects)?],
            objects: Vec::new(),
            summary: Summary { line: format!("{count} {} imported", self.kind), ..Summary::default() },
        })
    }
}

impl Import {
    fn images(&self) -> &Path {
        self.images.as_deref().or(self.file.parent()).unwrap_or(Path::new(""))
    }

    /// What is wrong with the file's rows, without reading a picture.
    fn check_rows(&self) -> Vec<FileProblem> {
        // What cannot be read is told of the whole file.
        let first = self.first().ok().flatten();
        let own = first.as_ref().is_some_and(is_own);
        let mut ids = HashSet::new();
        match self.kind {
            ArtifactKind::Records if own => self.check_each(|value| own_row::<Record>(value, &mut ids).map(|_| None)),
            ArtifactKind::Responses if own => {
                self.check_each(|value| own_row::<Response>(value, &mut ids).map(|_| None))
            }
            ArtifactKind::Pairs if own => self.check_each(|value| own_row::<Pair>(value, &mut ids).map(|_| None)),
            ArtifactKind::Conversations if own => {
                self.check_each(|value| own_row::<Conversation>(value, &mut ids).map(|_| None))
            }
            ArtifactKind::Responses => self.check_each(|value| read_description(value).map(|row| Some(row.image))),
            ArtifactKind::Conversations if !first.as_ref().is_some_and(is_preference) => self.check_entries(),
            ArtifactKind::Pairs | ArtifactKind::Conversations => {
                self.check_each(|value| read_preference(value).map(|row| Some(row.image)))
            }
            ArtifactKind::Records | ArtifactKind::Adapter | ArtifactKind::Scores => self.check_entries(),
        }
    }

    /// What is wrong with rows, each of which `read` makes the name of its picture of, where it has one.
    fn check_each(&self, mut read: impl FnMut(Json) -> Result<Option<String>, String>) -> Vec<FileProblem> {
        let mut survey = Survey::new(&self.file, self.images());
        let done = each_record(&self.file, &mut |place, value| {
            match value.and_then(&mut read) {
                Ok(Some(image)) => survey.picture(place, image),
                Ok(None) => survey.entries += 1,
                Err(cause) => survey.fault(place, &cause),
            }
            Ok(())
        });
        let found = survey.entries;
        self.or_empty(found, survey.problems("file", OnBadItem::default(), done))
    }

    fn check_entries(&self) -> Vec<FileProblem> {
        let silent = |entry: &Entry| match entry.conversations.as_deref() {
            _ if self.kind != ArtifactKind::Conversations => None,
            None => Some("the record has no `conversations`"),
            Some(turns) => turns
                .last()
                .is_none_or(|turn| turn.from == Speaker::Human)
                .then_some("the last turn of the conversation has no answer"),
        };
        let (found, _, problems) = self.source().check("file", OnBadItem::default(), silent);
        self.or_empty(found, problems)
    }

    /// `problems`, or that there is nothing at all.
    fn or_empty(&self, found: usize, mut problems: Vec<FileProblem>) -> Vec<FileProblem> {
        if found == 0 && problems.is_empty() {
            let (parameter, message) = ("file".to_owned(), format!("there is nothing in `{}`", self.file.display()));
            problems.push(FileProblem { parameter, message, help: None });
        }
        problems
    }

    fn source(&self) -> Source {
        Source { from: self.file.clone(), images: self.images.clone(), filter: Filter::default() }
    }

    fn rows(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        let first = self.first()?;
        let own = first.as_ref().is_some_and(is_own);
        match self.kind {
            ArtifactKind::Records if own => self.own::<Record>(digests),
            ArtifactKind::Responses if own => self.own::<Response>(digests),
            ArtifactKind::Pairs if own => self.own::<Pair>(digests),
            ArtifactKind::Conversations if own => self.own::<Conversation>(digests),
            ArtifactKind::Conversations if first.as_ref().is_some_and(is_preference) => self.chosen(digests),
            ArtifactKind::Records | ArtifactKind::Conversations => self.instructions(digests),
            ArtifactKind::Responses => self.descriptions(digests),
            ArtifactKind::Pairs => self.preferences(digests),
            ArtifactKind::Adapter | ArtifactKind::Scores => {
                Err(Failure::node(format!("{} cannot be imported from `{}`", self.kind, self.file.display())))
            }
        }
    }

    /// The first sound record of a file of records.
    fn first(&self) -> Result<Option<Json>, Failure> {
        let mut first = None;
        if !is_records(&self.file) {
            return Ok(first);
        }
        let read = each_record(&self.file, &mut |_, value| match value {
            Ok(value) => {
                first = Some(value);
                // Enough is known: the error only ends the reading.
                Err(SourceError::NoArray(self.file.clone()))
            }
            Err(_) => Ok(()),
        });
        match read {
            Err(error) if first.is_none() => Err(failure(error)),
            _ => Ok(first),
        }
    }

    /// Hands what `read` makes of every record to `take`.
    fn each<T>(
        &self,
        mut read: impl FnMut(Json) -> Result<T, String>,
        mut take: impl FnMut(Place, T),
    ) -> Result<(), Failure> {
        each_record(&self.file, &mut |place, value| {
            take(place, value.and_then(&mut read).map_err(|cause| self.wrong(place, cause))?);
            Ok(())
        })
        .map_err(failure)
    }

    fn wrong(&self, place: Place, cause: String) -> SourceError {
        SourceError::Record { path: self.file.clone(), place, cause }
    }

    /// Rows of our own, as they are. Their pictures are looked for where they say, and in `images`.
    fn own<T: Own>(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        let mut rows: Vec<T> = Vec::new();
        let mut labels: Vec<Label> = Vec::new();
        let mut ids = HashSet::new();
        let beside = self.file.parent().unwrap_or(Path::new(""));
        let read = |value: Json| {
            let label = own_label(&value, beside);
            Ok((own_row(value, &mut ids)?, label))
        };
        self.each(read, |_, (row, label)| {
            rows.push(row);
            labels.push(label);
        })?;
        let mut paths = Vec::new();
        let mut take = |path: Option<PathBuf>| paths.extend(path.filter(|path| path.is_file()));
        labels.iter().for_each(|label| take(label.path.as_ref().map(PathBuf::from)));
        if self.images().is_dir() {
            each_entry(self.images(), None, &mut |entry| entry.map(|entry| take(entry.picture))).map_err(failure)?;
        }
        let contents = digests.files(&paths).into_iter().map(Result::ok);
        let found: HashMap<Digest, PathBuf> =
            contents.zip(paths).filter_map(|(digest, path)| Some((digest?, path))).collect();
        let mut wanted = Vec::new();
        for (row, label) in rows.iter().zip(&mut labels) {
            let pictures = row.pictures();
            label.path = pictures[0].and_then(|picture| found.get(&picture)).map(|path| absolute(path));
            wanted.extend(pictures.into_iter().flatten().filter(|picture| !found.contains_key(picture)));
        }
        Ok(Rows { text: write_lines(&rows), count: rows.len(), labels, wanted, notes: Vec::new() })
    }

    /// Pictures, instruction records, or description-infused ones, which have the same form.
    fn instructions(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        let listing = self.source().list(true, digests)?;
        listing.check_unreadable(OnBadItem::default())?;
        let notes = notes(listing.repeats, &listing.unreadable, listing.elsewhere);
        let labels: Vec<Label> = listing.items.iter().map(|item| label(&item.entry)).collect();
        let count = labels.len();
        let text = if self.kind == ArtifactKind::Conversations {
            let mut rows = Vec::with_capacity(count);
            for item in listing.items {
                let conversations = item.entry.conversations.ok_or_else(|| {
                    let named = item.entry.name.or(item.entry.written).unwrap_or_else(|| item.id.short());
                    Failure::node(format!("`{}`: the record `{named}` has no conversation", self.file.display()))
                })?;
                rows.push(Conversation { id: item.id, picture: item.picture, conversations });
            }
            write_lines(&rows)
        } else {
            let rows = listing.items.into_iter().map(|item| Record {
                id: item.id,
                picture: item.picture,
                altered: None,
                conversations: item.entry.conversations,
                fields: item.entry.fields,
            });
            write_lines(&rows.collect::<Vec<_>>())
        };
        Ok(Rows { text, count, labels, wanted: Vec::new(), notes })
    }

    fn descriptions(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        let mut read = Vec::new();
        self.each(read_description, |place, row| read.push((place, row.image.clone(), row)))?;
        self.with_pictures(read, digests, |id, picture, description| Response {
            id,
            picture,
            altered: None,
            prompt: description.prompt,
            text: description.text,
            tokens: 0,
            finish: Finish::Stop,
        })
    }

    fn read_preferences(&self) -> Result<Vec<(Place, String, Preference)>, Failure> {
        let mut read = Vec::new();
        self.each(read_preference, |place, row| read.push((place, row.image.clone(), row)))?;
        Ok(read)
    }

    fn preferences(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        self.with_pictures(self.read_preferences()?, digests, |id, picture, preference| Pair {
            id,
            picture,
            instruction: preference.instruction,
            chosen: preference.chosen,
            rejected: preference.rejected,
            origin: preference.origin,
        })
    }

    /// Preference data where conversations are expected: x and the preferred response.
    fn chosen(&self, digests: &dyn FileDigests) -> Result<Rows, Failure> {
        self.with_pictures(self.read_preferences()?, digests, |id, picture, preference| Conversation {
            id,
            picture: Some(picture),
            conversations: vec![
                Turn { from: Speaker::Human, value: format!("{IMAGE}\n{}", preference.instruction) },
                Turn { from: Speaker::Gpt, value: preference.chosen },
            ],
        })
    }

    /// Rows of records that name their pictures. Their ids are the pictures'; of several rows about one picture the
    /// equal ones are one, and the others carry their ordinals.
    fn with_pictures<T, R: Serialize>(
        &self,
        read: Vec<(Place, String, T)>,
        digests: &dyn FileDigests,
        row: impl Fn(ItemId, Digest, T) -> R,
    ) -> Result<Rows, Failure>
    where
        T: PartialEq + Clone + Sync,
    {
        let images = self.images();
        let located: Vec<_> = read.par_iter().map(|(_, image, _)| found_elsewhere(images, image)).collect();
        let elsewhere = located.iter().flatten().count();
        let paths: Vec<PathBuf> = std::iter::zip(&read, located)
            .map(|((_, image, _), found)| found.unwrap_or_else(|| images.join(image)))
            .collect();
        let mut before: HashMap<Digest, Vec<T>> = HashMap::new();
        let (mut repeats, mut lost) = (0, Vec::new());
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for (((place, image, value), path), digest) in read.into_iter().zip(&paths).zip(digests.files(&paths)) {
            let picture = match digest {
                Ok(digest) => digest,
                Err(cause) => {
                    lost.push(unreadable(&self.file, images, Some(place), Some(&image), path, &cause));
                    continue;
                }
            };
            let others = before.entry(picture).or_default();
            if others.contains(&value) {
                repeats += 1;
                continue;
            }
            others.push(value.clone());
            rows.push(row(ItemId::repeated(picture, others.len()), picture, value));
            labels.push(Label { name: None, path: Some(absolute(path)) });
        }
        check_unreadable(&lost, rows.len() + repeats, OnBadItem::default())?;
        let notes = notes(repeats, &lost, elsewhere);
        Ok(Rows { text: write_lines(&rows), count: rows.len(), labels, wanted: Vec::new(), notes })
    }
}

fn notes(repeats: usize, unreadable: &[String], elsewhere: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if repeats > 0 {
        notes.push(format!("left out {repeats} rows that repeat another"));
    }
    if let Some(first) = unreadable.first() {
        notes.push(format!("left out {} rows whose pictures cannot be read, first {first}", unreadable.len()));
    }
    notes.extend(elsewhere_note(elsewhere));
    notes
}

/// Whether a record is preference data.
fn is_preference(value: &Json) -> bool {
    value.get("chosen").is_some()
}

#[cfg(test)]
mod tests;
