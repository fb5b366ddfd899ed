//! `sample`: pictures or instruction records from a directory, a glob, a list or a file of records.
//!
//! With `count`, takes the entries with the smallest hashes of (seed, id), in the order of these hashes, so that adding
//! pictures to a source changes few picks. Otherwise the pictures of a directory or a glob are ordered by content
//! digest, and the entries of a list or a file of records keep their order. Renaming or moving pictures therefore
//! changes nothing.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use image::metadata::Orientation;
use rand_core::RngCore;
use rayon::prelude::*;

use super::adapter::part;
use super::labels::label;
use super::listing::{Conversations, Listed, Listing, Source, deep_gray_note, images_problem, record_parts};
use super::source_check::Checked;
use crate::artifact::{self, ArtifactKind, Label, Record};
use crate::data::filter::Filter;
use crate::data::picture::{decode_unturned, encode_png, has_deep_gray, orientation};
use crate::data::source::PassedOver;
use stic_engine::diagnostic::counted;
use stic_engine::digest::{Digest, Value};
use stic_engine::draw::Draws;
use stic_engine::node::{
    Artifact, BadItems, Context, Failure, FileDigests, FileProblem, Inputs, Labelled, Node, NodeKind, Objects,
    OnBadItem, Output, Parameter, Port, SeedUse, Summary, WholeWork, Work,
};
use stic_engine::parameters;
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{Class, Declaration, Parameters, below, boolean, choice, group, integer, path};

pub mod changes;

/// The kind `sample`.
pub struct SampleKind;

impl NodeKind for SampleKind {
    fn name(&self) -> &'static str {
        "sample"
    }

    fn version(&self) -> u32 {
        2
    }

    fn ports(&self) -> &'static [Port] {
        &[]
    }

    fn output(&self) -> ArtifactKind {
        artifact::RECORDS
    }

    fn help(&self) -> &'static str {
        "reads pictures or instruction records from a directory, glob, list or JSON file, filters them and samples `count`"
    }

    fn example(&self) -> &'static str {
        r#"from = "pictures"
count = 100"#
    }

    fn declared(&self) -> Vec<Declaration> {
        SampleParameters::declared()
    }

    fn read(&self, table: &mut Reader<'_>, _: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        let parameters = SampleParameters::read(table)?;
        let SampleParameters { from, images, r#where: filter, .. } = parameters.clone();
        let source = Source { from, images, filter };
        Some(Box::new(Sample { source, parameters, checked: OnceLock::new() }))
    }
}

parameters! {
    /// The parameters.
    struct SampleParameters {
        /// A directory, a glob, a list file, or records in JSON
        from: PathBuf = path().selection(),
        /// The directory that picture names are relative to
        images: Option<PathBuf> = path().optional("the directory of `from`").execution(),
        /// Number of entries to sample: the same ones every time, and almost the same after pictures are added
        count: Option<usize> = integer(1..).optional("all").selection(),
        /// Conditions that entries must meet, on `image`, `path` or any field of a record
        r#where: Filter = below(Class::Selection),
        /// Whether to drop entries with the same content as an earlier one
        dedupe: bool = boolean().default(true).selection(),
        /// Whether to apply the EXIF orientation (transformers does, LLaVA's loader does not)
        orientation: ExifOrientation = choice([("apply", ExifOrientation::Apply), ("ignore", ExifOrientation::Ignore)])
            .default(ExifOrientation::Apply),
        /// Shared
        bad_items: BadItems = group(),
    }
}

/// What to do with a picture's EXIF orientation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExifOrientation {
    /// Apply it.
    Apply,
    /// Keep the pixels as stored.
    Ignore,
}

#[derive(Debug)]
struct Sample {
    source: Source,
    parameters: SampleParameters,
    /// The check of the source before a run; done once.
    checked: OnceLock<Checked>,
}

impl Node for Sample {
    fn parameters(&self) -> Vec<Parameter> {
        self.parameters.key_fields()
    }

    fn seeds(&self) -> SeedUse {
        SeedUse { pipeline: false, node: self.parameters.count.is_some() }
    }

    fn check_files(&self) -> Vec<FileProblem> {
        let images = images_problem(self.source.images.as_deref());
        // If `images` is missing, do not report every picture as missing, too.
        if images.is_some() && self.source.from.exists() {
            return Vec::from_iter(images);
        }
        let Checked { entries, passed_over, problems, .. } = self.checked();
        let mut problems = problems.clone();
        if let Some((parameter, message, help)) = self.too_few(*entries, passed_over).filter(|_| problems.is_empty()) {
            problems.push(FileProblem { parameter: parameter.to_owned(), message, help: Some(help.to_owned()) });
        }
        images.into_iter().chain(problems).collect()
    }

    fn remarks(&self) -> Vec<String> {
        self.checked().notes.clone()
    }

    fn promises(&self, _: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<Parameter> {
        self.checked().promises()
    }

    fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        let listing = self.list(Conversations::Dropped, digests)?;
        let content = Value::Table(
            [("items".to_owned(), listing.items.len().into()), ("content".to_owned(), listing.digest().into())].into(),
        );
        Ok(vec![Parameter::selection("from", content)])
    }

    fn source_changes(
        &self,
        parameter: &str,
        old: &Value,
        earlier: &Artifact,
        objects: &dyn Objects,
        digests: &dyn FileDigests,
    ) -> Option<String> {
        if parameter != "from" {
            return None;
        }
        let listing = self.source.list(self.parameters.dedupe, Conversations::Dropped, digests).ok()?;
        changes::since(earlier, old, &listing, &self.source.from, objects)
    }

    fn on_bad_item(&self) -> OnBadItem {
        self.parameters.bad_items.on_bad_item
    }

    fn labels(&self, files: &dyn FileDigests) -> Result<Vec<Labelled>, Failure> {
        Ok(self.list(Conversations::Dropped, files)?.labels(&self.source.from))
    }

    fn work(&self) -> Work<'_> {
        Work::Whole(self)
    }
}

impl Sample {
    fn checked(&self) -> &Checked {
        self.checked.get_or_init(|| self.source.check("from", self.parameters.bad_items.on_bad_item, |_| None))
    }

    fn list(&self, conversations: Conversations, digests: &dyn FileDigests) -> Result<Listing, Failure> {
        let listing = self.source.list(self.parameters.dedupe, conversations, digests)?;
        listing.check_unreadable(self.parameters.bad_items.on_bad_item)?;
        if let Some((_, message, help)) = self.too_few(listing.items.len(), &listing.passed_over) {
            let repeats = listing.repeats;
            let repeats =
                if repeats > 0 { format!(" ({} left out)", counted(repeats, "repeat")) } else { String::new() };
            return Err(Failure::node(message + &repeats).help(help));
        }
        Ok(listing)
    }

    /// The problem with a source of `found` entries, if any: parameter, message and help.
    fn too_few(&self, found: usize, passed_over: &PassedOver) -> Option<(&'static str, String, &'static str)> {
        let from = self.source.from.display();
        let filtered = if self.source.filter.is_empty() { "" } else { " that match `where`" };
        match self.parameters.count {
            _ if found == 0 && self.source.filter.is_empty() && !passed_over.is_empty() => Some((
                "from",
                format!("no readable picture in `{from}`, only {passed_over}"),
                if passed_over.has_unread_pictures() {
                    "supported formats are JPEG, PNG, GIF, WebP, BMP, TIFF and PNM; convert others, such as HEIC, to JPEG or PNG"
                } else {
                    "name a directory with pictures"
                },
            )),
            _ if found == 0 && !self.source.filter.is_empty() => {
                Some(("from", format!("`{from}` has no entries{filtered}"), "loosen `where`"))
            }
            _ if found == 0 && !self.source.from.exists() => Some((
                "from",
                format!("no file matches `{from}`"),
                "`*` matches any part of a name, `**` any number of directories",
            )),
            _ if found == 0 => Some(("from", format!("`{from}` is empty"), "name a directory with pictures")),
            Some(count) if count > found => Some((
                "count",
                format!("`count` is {count}, but `{from}` has only {found} entries{filtered}"),
                "lower `count`, or omit it to take all",
            )),
            _ => None,
        }
    }

    /// The `count` items with the smallest hashes, in the order of the hashes.
    fn choose(&self, items: Vec<Listed>, seed: u64) -> Vec<Listed> {
        let Some(count) = self.parameters.count else { return items };
        let hash = |item: &Listed| (Draws::new(seed, "sample", item.id.as_str()).next_u64(), item.id.clone());
        let mut order: Vec<_> = items.into_par_iter().map(|item| (hash(&item), item)).collect();
        order.par_sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        order.into_iter().take(count).map(|(_, item)| item).collect()
    }
}

impl WholeWork for Sample {
    fn run(&self, _: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        let conversations = if self.parameters.count.is_some() { Conversations::Dropped } else { Conversations::Kept };
        let listing = self.list(conversations, context.files())?;
        let (found, repeats) = (listing.items.len(), listing.repeats);
        listing.notes(&self.source.from).iter().for_each(|note| context.note(note));
        if listing.shared_names > 0 {
            let (count, share) =
                (listing.shared_names, if listing.shared_names == 1 { "shares its" } else { "share their" });
            let records = counted(count, "record");
            context.note(&format!("{records} {share} `id` with another record; content identifies records"));
        }
        let mut side = Vec::new();
        if self.parameters.count.is_some() {
            let candidates: String = changes::candidates(&listing);
            side.push(part(changes::CANDIDATES, candidates.as_bytes(), context.objects())?);
        }
        let mut chosen = self.choose(listing.items, context.seed());
        if conversations == Conversations::Dropped {
            self.source.read_again(&mut chosen)?;
        }
        let looks: Vec<Look> = chosen.par_iter().map(Look::at).collect();
        let turned = looks.iter().filter(|look| look.turn != Orientation::NoTransforms).count();
        let deep = looks.iter().filter(|look| look.has_deep_gray).count();
        deep_gray_note(deep, looks.len()).iter().for_each(|note| context.note(note));
        if turned > 0 {
            let done = if self.parameters.orientation == ExifOrientation::Ignore { "ignored" } else { "applied" };
            context.note(&format!(
                "{turned} of {} {} an EXIF orientation, which is {done}",
                counted(looks.len(), "picture"),
                if turned == 1 { "has" } else { "have" }
            ));
        }
        let conversations = chosen.iter().any(|item| item.entry.conversations.is_some());
        let mut items = Vec::with_capacity(chosen.len());
        let mut objects = Vec::new();
        for (item, look) in chosen.into_iter().zip(looks) {
            if context.interrupted() {
                return Err(Failure::Interrupted);
            }
            let unturned = if self.parameters.orientation == ExifOrientation::Ignore {
                unturned(&item, look.turn, context)?
            } else {
                None
            };
            objects.extend(unturned);
            items.push(record(item, unturned, &self.source.from));
        }
        let (records, labels) = record_parts(&items, context.objects())?;
        let mut line = format!("{} of {found} {}", items.len(), if conversations { "records" } else { "pictures" });
        if repeats > 0 {
            line += &format!(" ({} left out)", counted(repeats, "repeat"));
        }
        let summary = Summary { line, ..Summary::default() };
        side.push(labels);
        Ok(Output { identity: vec![records], side, objects, summary })
    }
}

fn record(item: Listed, picture: Option<Digest>, from: &Path) -> (Record, Label) {
    let label = label(&item.entry, from);
    let Listed { id, picture: source, entry } = item;
    let picture = picture.or(source);
    (Record { id, picture, altered: None, conversations: entry.conversations, fields: entry.fields }, label)
}

/// Notes about all pictures together.
struct Look {
    turn: Orientation,
    has_deep_gray: bool,
}

impl Look {
    fn at(item: &Listed) -> Self {
        let bytes = item.entry.picture.as_deref().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        Self { turn: orientation(&bytes), has_deep_gray: has_deep_gray(&bytes) }
    }
}

/// The picture as stored, without its orientation, so that nodes below see the same pixels. `None` if it has no
/// orientation, or cannot be decoded: the node that decodes it reports that.
fn unturned(item: &Listed, turn: Orientation, context: &dyn Context) -> Result<Option<Digest>, Failure> {
    if turn == Orientation::NoTransforms {
        return Ok(None);
    }
    let Some(path) = &item.entry.picture else { return Ok(None) };
    let bytes = std::fs::read(path).map_err(|cause| Failure::io(path, &cause))?;
    decode_unturned(&bytes).ok().map(|picture| context.objects().put(&encode_png(&picture))).transpose()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::super::harness::{TestContext, read};
    use super::*;
    use crate::artifact::read_lines;
    use crate::data::picture::{decode, encode_png};
    use crate::data::resample::tests::ramps;
    use stic_engine::node::Objects;

    /// A directory of `count` pictures `0.png`, `1.png`, …
    fn pictures(count: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..count {
            std::fs::write(folder.path().join(format!("{n}.png")), encode_png(&ramps(n + 1, 2))).unwrap();
        }
        folder
    }

    fn node(text: &str) -> Box<dyn Node> {
        read(&SampleKind, text, &[], Path::new("m")).unwrap()
    }

    fn mistakes(text: &str) -> Vec<String> {
        read(&SampleKind, text, &[], Path::new("m")).err().unwrap()
    }

    fn sampled(node: &dyn Node) -> Result<(Vec<Record>, Output, TestContext), Failure> {
        let harness = TestContext::new();
        let output = harness.run(node, BTreeMap::new())?;
        let records = read_lines(&harness.objects.read(&output.identity[0].digest).unwrap()).unwrap();
        Ok((records, output, harness))
    }

    fn key(node: &dyn Node) -> Vec<Parameter> {
        node.sources(&TestContext::new()).unwrap()
    }

    #[test]
    fn pictures_are_known_by_their_content() {
        let folder = pictures(3);
        let node = node(&format!("from = {:?}", folder.path()));
        let (records, output, harness) = sampled(node.as_ref()).unwrap();
        let bytes = std::fs::read(folder.path().join("1.png")).unwrap();
        let at = records.iter().position(|record| record.picture == Some(Digest::of(&bytes))).unwrap();
        assert_eq!(records[at].id.as_str(), Digest::of(&bytes).to_string());
        assert_eq!(output.summary.line, "3 of 3 pictures");
        let labels: Vec<Label> = read_lines(&harness.objects.read(&output.side[0].digest).unwrap()).unwrap();
        assert_eq!(labels[at].path, Some(folder.path().join("1.png").to_str().unwrap().to_owned()));
    }

    #[test]
    fn renaming_and_moving_files_changes_neither_key_nor_result_and_new_content_does() {
        let folder = pictures(12);
        let glob = folder.path().join("**/*.png");
        let nodes = [
            node(&format!("from = {:?}", folder.path())),
            node(&format!("from = {:?}\ncount = 5", folder.path())),
            node(&format!("from = {glob:?}\ndedupe = false")),
        ];
        std::fs::copy(folder.path().join("0.png"), folder.path().join("copy.png")).unwrap();
        let seen = || nodes.each_ref().map(|node| (key(node.as_ref()), sampled(node.as_ref()).unwrap().1.identity));
        let before = seen();
        std::fs::create_dir(folder.path().join("2")).unwrap();
        std::fs::rename(folder.path().join("2.png"), folder.path().join("2/renamed.png")).unwrap();
        std::fs::rename(folder.path().join("11.png"), folder.path().join("a first one.png")).unwrap();
        std::fs::rename(folder.path().join("0.png"), folder.path().join("z.png")).unwrap();
        assert_eq!(seen(), before);
        std::fs::write(folder.path().join("3.png"), encode_png(&ramps(99, 9))).unwrap();
        let after = seen();
        assert!(after.iter().zip(&before).all(|(after, before)| after.0 != before.0));
    }

    #[test]
    fn a_list_keeps_its_order() {
        let folder = pictures(4);
        std::fs::write(folder.path().join("list.txt"), "3.png\n0.png\n2.png\n1.png\n0.png\n").unwrap();
        let (_, output, harness) =
            sampled(node(&format!("from = {:?}", folder.path().join("list.txt"))).as_ref()).unwrap();
        let labels: Vec<Label> = read_lines(&harness.objects.read(&output.side[0].digest).unwrap()).unwrap();
        let names = labels.iter().map(|label| label.path.as_deref().unwrap().rsplit('/').next().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), ["3.png", "0.png", "2.png", "1.png"]);
    }

    /// If these picks change, the pipelines of users train on other data: raise the kind's version.
    #[test]
    fn what_is_taken_is_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        (0..8u8).for_each(|n| {
            std::fs::write(folder.path().join(format!("{n}.png")), [b"GIF89a", &[n][..]].concat()).unwrap()
        });
        let taken = |more: &str| {
            let (_, output, _) = sampled(node(&format!("from = {:?}{more}", folder.path())).as_ref()).unwrap();
            output.identity[0].digest.short()
        };
        assert_eq!(
            (SampleKind.version(), taken(""), taken("\ncount = 3")),
            (2, "b7e1c8141a51".to_owned(), "83029a9d702a".to_owned())
        );
    }

    #[test]
    fn an_added_picture_disturbs_few_picks_and_order_stays() {
        let folder = pictures(60);
        let node = node(&format!("from = {:?}\ncount = 20", folder.path()));
        let ids = |records: Vec<Record>| records.into_iter().map(|record| record.id).collect::<Vec<_>>();
        let before = ids(sampled(node.as_ref()).unwrap().0);
        std::fs::write(folder.path().join("a.png"), encode_png(&ramps(99, 9))).unwrap();
        let after = ids(sampled(node.as_ref()).unwrap().0);
        assert_eq!((before.len(), after.len()), (20, 20));
        let kept: Vec<_> = after.iter().filter(|id| before.contains(id)).collect();
        assert!(kept.len() >= 19);
        assert_eq!(kept, before.iter().filter(|id| after.contains(id)).collect::<Vec<_>>());
        let fewer = ids(sampled(self::node(&format!("from = {:?}\ncount = 7", folder.path())).as_ref()).unwrap().0);
        assert_eq!(fewer, after[..7], "fewer are the first of more");
    }

    #[test]
    fn a_repeat_is_left_out_or_carries_its_ordinal() {
        let folder = pictures(2);
        std::fs::copy(folder.path().join("0.png"), folder.path().join("copy.png")).unwrap();
        let (records, output, harness) = sampled(node(&format!("from = {:?}", folder.path())).as_ref()).unwrap();
        assert_eq!((records.len(), output.summary.line.as_str()), (2, "2 of 2 pictures (1 repeat left out)"));
        let labels: Vec<Label> = read_lines(&harness.objects.read(&output.side[0].digest).unwrap()).unwrap();
        let paths: Vec<_> = labels.iter().filter_map(|label| label.path.as_deref()).collect();
        assert!(paths.iter().any(|path| path.ends_with("/0.png")), "the first path stays its label: {paths:?}");
        let (records, ..) = sampled(node(&format!("from = {:?}\ndedupe = false", folder.path())).as_ref()).unwrap();
        let first = Digest::of_file(&folder.path().join("0.png")).unwrap();
        let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
        let at = ids.iter().position(|id| *id == first.to_string()).unwrap();
        assert_eq!((ids.len(), ids[at + 1]), (3, format!("{first}#2").as_str()));
    }

    #[test]
    fn more_than_there_are_cannot_be_taken() {
        let folder = pictures(2);
        let node = node(&format!("from = {:?}\ncount = 5", folder.path()));
        let problem = &node.check_files()[0];
        assert_eq!(problem.parameter, "count");
        assert!(problem.message.starts_with("`count` is 5, but `"), "{}", problem.message);
        assert!(matches!(node.sources(&TestContext::new()), Err(Failure::Node { .. })), "a plan says so too");
        assert!(matches!(sampled(node.as_ref()), Err(Failure::Node { .. })));
        let empty = tempfile::tempdir().unwrap();
        let problem = &self::node(&format!("from = {:?}", empty.path())).check_files()[0];
        assert!(problem.message.ends_with("is empty"), "{}", problem.message);
        assert_eq!(problem.help.as_deref(), Some("name a directory with pictures"), "nothing is filtered");
        let problem = &self::node(&format!("from = {:?}", folder.path().join("*.tiff"))).check_files()[0];
        assert!(problem.message.starts_with("no file matches "), "{}", problem.message);
        std::fs::write(folder.path().join("a.heic"), b"\0\0\0\x18ftypheic").unwrap();
        let problem = &self::node(&format!("from = {:?}", folder.path().join("*.heic"))).check_files()[0];
        assert!(problem.message.ends_with("only 1 file (1 .heic)"), "{}", problem.message);
        assert_eq!(self::node("from = \"none\"").check_files()[0].message, "`folder/none` does not exist");
    }

    #[test]
    fn instruction_records_are_filtered_and_distinguished_by_content() {
        let folder = pictures(2);
        let turn =
            |question: &str| serde_json::json!([{"from": "human", "value": question}, {"from": "gpt", "value": "a"}]);
        let records = serde_json::json!([
            {"id": "7", "image": "0.png", "conversations": turn("<image>\nWhat?"), "set": "vg"},
            {"id": "7", "image": "0.png", "conversations": turn("<image>\nWhy?"), "set": "vg"},
            {"id": "8", "image": "1.png", "conversations": turn("What?"), "set": "coco"},
            {"id": "9", "conversations": turn("What?")},
        ]);
        std::fs::write(folder.path().join("r.json"), records.to_string()).unwrap();
        let text =
            format!("from = {:?}\nwhere = {{ image = true, set = [\"vg\", \"gqa\"] }}", folder.path().join("r.json"));
        let node = node(&text);
        let (records, _, harness) = sampled(node.as_ref()).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].picture, records[1].picture);
        assert_ne!(records[0].id, records[1].id);
        assert_eq!(records[0].fields["set"], "vg");
        assert!(harness.notes.lock().unwrap()[0].starts_with("1 record shares its `id` with another"));
        let names: Vec<String> = node.parameters().into_iter().map(|parameter| parameter.name).collect();
        assert_eq!(names, ["where.image", "where.set"]);
    }

    #[test]
    fn pictures_that_cannot_be_read_are_few_or_fail_the_node() {
        let folder = pictures(1);
        std::fs::write(folder.path().join("list.txt"), "0.png\nnone.png\n").unwrap();
        let error = sampled(node(&format!("from = {:?}", folder.path().join("list.txt"))).as_ref()).err().unwrap();
        assert!(error.to_string().starts_with("1 of 2 pictures cannot be read, first "), "{error}");
        let names: String = (0..200).map(|_| "0.png\n").collect();
        std::fs::write(folder.path().join("list.txt"), names + "none.png\n").unwrap();
        let list = format!("from = {:?}", folder.path().join("list.txt"));
        let (_, _, harness) = sampled(node(&list).as_ref()).unwrap();
        assert!(harness.notes.lock().unwrap()[0].starts_with("left out 1 that cannot be read, first "));
        assert!(sampled(node(&(list + "\non_bad_item = \"fail\"")).as_ref()).is_err());
    }

    #[test]
    fn what_a_folder_holds_beside_pictures_is_reported() {
        let folder = pictures(1);
        std::fs::write(folder.path().join("notes.txt"), "notes").unwrap();
        let from = format!("from = {:?}", folder.path());
        let (records, _, harness) = sampled(node(&from).as_ref()).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(*harness.notes.lock().unwrap(), ["ignoring 1 file (1 .txt): not in a supported picture format"]);

        let folder = tempfile::tempdir().unwrap();
        (0..3).for_each(|n| std::fs::write(folder.path().join(format!("{n}.HEIC")), "\0\0\0\u{18}ftypheic").unwrap());
        let problem = &node(&format!("from = {:?}", folder.path())).check_files()[0];
        assert!(problem.message.ends_with("`, only 3 files (3 .heic)"), "{}", problem.message);
        assert!(problem.help.as_ref().unwrap().contains("HEIC"), "{problem:?}");
    }

    #[test]
    fn gray_of_more_than_eight_bits_is_reported_once() {
        let folder = pictures(1);
        let odd = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference/odd");
        for name in ["grey_16_bits.png", "pnm_grey_1000.pgm"] {
            std::fs::copy(odd.join(name), folder.path().join(name)).unwrap();
        }
        let (_, _, harness) = sampled(node(&format!("from = {:?}", folder.path())).as_ref()).unwrap();
        let notes = harness.notes.lock().unwrap();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].starts_with("2 of 3 pictures are gray of more than 8 bits"), "{notes:?}");
    }

    #[test]
    fn an_ignored_orientation_is_gone_from_the_picture_itself() {
        let odd = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference/odd");
        let text = format!("from = {:?}", odd.join("jpeg_orientation_6.jpg"));
        let (records, output, harness) = sampled(node(&text).as_ref()).unwrap();
        assert_eq!(records[0].id.as_str(), records[0].picture.unwrap().to_string());
        assert_eq!(*harness.notes.lock().unwrap(), ["1 of 1 picture has an EXIF orientation, which is applied"]);
        assert!(output.objects.is_empty());

        let (ignored, output, harness) = sampled(node(&(text + "\norientation = \"ignore\"")).as_ref()).unwrap();
        assert_eq!(ignored[0].id, records[0].id);
        assert_eq!(output.objects, [ignored[0].picture.unwrap()]);
        let picture = decode(&harness.objects.read(&output.objects[0]).unwrap()).unwrap();
        let source = std::fs::read(odd.join("jpeg_orientation_6.jpg")).unwrap();
        assert_eq!(picture, decode_unturned(&source).unwrap());
        assert_eq!(decode(&source).unwrap().dimensions(), (picture.height(), picture.width()));
    }

    #[test]
    fn mistakes_are_reported() {
        assert_eq!(mistakes("count = 0\norientation = \"aply\"").len(), 3);
        let reported = mistakes("from = \"x\"\nwhere = { path = \"a[\", image = 3, set = [{}] }");
        assert_eq!(reported.len(), 3, "{reported:?}");
        assert!(reported.iter().any(|mistake| mistake.contains("`a[` is not a glob")), "{reported:?}");
    }
}
