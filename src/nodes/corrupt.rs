//! `corrupt`: applies one corruption to each picture, drawn in proportion to the operations' weights.
//!
//! The item keeps its id and its picture; the altered picture is stored beside it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rayon::prelude::*;
use serde_json::{Value as Json, json};

use super::labels::{LeftOut, carried};
use super::listing::record_parts;
use super::operations;
use super::pictured::Pictured;
use super::share::Fraction;
use super::source_check::{ALTERED, check_pictures};
use crate::artifact::{self, Altered, ArtifactKind, Record};
use crate::data::corrupt::{Operation, Weighted, choose};
use crate::data::picture::{decode, encode_png};
use stic_engine::digest::{Digest, Value};
use stic_engine::node::{
    Arity, BadItem, BadItems, Block, Context, Failure, FileDigests, FileProblem, Inputs, Item, ItemValue, ItemWork,
    Node, NodeKind, OnBadItem, Output, Parameter, Port, Progress, Sample, SeedUse, Summary, Work,
};
use stic_engine::parameters;
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{Declaration, Parameters, group};

/// The kind `corrupt`.
pub struct CorruptKind;

impl NodeKind for CorruptKind {
    fn name(&self) -> &'static str {
        "corrupt"
    }

    fn version(&self) -> u32 {
        3
    }

    fn ports(&self) -> &'static [Port] {
        &[Port { name: "images", accepts: &[artifact::RECORDS], arity: Arity::Many, items: true }]
    }

    fn output(&self) -> ArtifactKind {
        artifact::RECORDS
    }

    fn help(&self) -> &'static str {
        "applies one corruption to each picture, drawn in proportion to the operations' weights"
    }

    fn example(&self) -> &'static str {
        r#"inputs.images = { file = "records.json" }
operations = [{ op = "greyscale" }]"#
    }

    fn declared(&self) -> Vec<Declaration> {
        Corrupt::declared()
    }

    fn read(&self, table: &mut Reader<'_>, _: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        Some(Box::new(Corrupt::read(table)?))
    }
}

parameters! {
    /// A node of the kind.
    struct Corrupt {
        /// The corruptions; one is drawn for each picture (Section 3: low resolution or color jitter)
        operations: Vec<Weighted> = operations::setting(),
        /// Shared
        fraction: Fraction = group(),
        /// Shared
        bad_items: BadItems = group(),
    }
}

impl Node for Corrupt {
    fn parameters(&self) -> Vec<Parameter> {
        self.key_fields()
    }

    fn seeds(&self) -> SeedUse {
        SeedUse {
            pipeline: self.fraction.draws() || self.operations.len() > 1,
            node: self.operations.iter().any(|weighted| weighted.operation.draws()),
        }
    }

    fn check_inputs(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<FileProblem> {
        check_pictures("images", above).into_iter().chain(self.fraction.check("images", &above("images"))).collect()
    }

    fn promises(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<Parameter> {
        let altered = std::iter::once(Parameter::selection(ALTERED, true));
        altered.chain(self.fraction.promises(&above("images"))).collect()
    }

    fn on_bad_item(&self) -> OnBadItem {
        self.bad_items.on_bad_item
    }

    fn work(&self) -> Work<'_> {
        Work::Items(self)
    }
}

/// A picture to alter, and the operation.
struct Subject<'a> {
    of: Pictured,
    operation: &'a Operation,
}

impl Corrupt {
    fn subjects(&self, inputs: &Inputs, pipeline_seed: u64) -> Result<(Vec<Subject<'_>>, LeftOut), Failure> {
        let (pictured, left_out) = Pictured::read(inputs, &self.fraction, pipeline_seed)?;
        let operation = |record: &Record| choose(&self.operations, pipeline_seed, &drawn_for(record));
        Ok((pictured.into_iter().map(|of| Subject { operation: operation(&of.record), of }).collect(), left_out))
    }
}

/// What random draws depend on: the item and its current picture, so that chained corruptions draw independently.
fn drawn_for(record: &Record) -> String {
    match &record.altered {
        None => record.id.to_string(),
        Some(before) => format!("{} {}", record.id, before.picture),
    }
}

impl Subject<'_> {
    fn item(&self) -> Item {
        let mut fields = vec![
            ("picture".to_owned(), Value::from(self.of.shown)),
            ("operation".to_owned(), Value::Table(self.operation.fields())),
        ];
        // An earlier alteration is part of the value.
        if let Some(before) = &self.of.record.altered {
            let before = json!({ "operation": before.operation, "values": before.values }).to_string();
            fields.push(("after".to_owned(), Value::from(before)));
            fields.push(("draws".to_owned(), Value::from("item and picture")));
        }
        Item { id: self.of.record.id.clone(), reads: Digest::of_fields("stic corrupt reads v1", &fields) }
    }

    fn alter(&self, context: &dyn Context) -> Result<Result<ItemValue, BadItem>, Failure> {
        let bad = |cause: String| self.of.bad(cause, context);
        let bytes = match context.content(&self.of.shown) {
            Ok(bytes) => bytes,
            Err(bad) => return Ok(Err(bad)),
        };
        let picture = match decode(&bytes) {
            Ok(picture) => picture,
            Err(error) => return Ok(Err(bad(error.to_string()))),
        };
        let (altered, mut values) = match self.operation.apply(&picture, context.seed(), &drawn_for(&self.of.record)) {
            Ok(made) => made,
            Err(error) => return Ok(Err(bad(error.to_string()))),
        };
        if let Some(before) = &self.of.record.altered {
            values.insert("after".to_owned(), json!({ "operation": before.operation, "values": before.values }));
        }
        let picture = context.objects().put(&encode_png(&altered))?;
        let altered = Altered { picture, operation: self.operation.name().to_owned(), values };
        Ok(Ok(ItemValue { value: json!(altered), objects: vec![picture] }))
    }
}

/// How many pictures are in memory at once.
const TOGETHER: usize = 16;

impl ItemWork for Corrupt {
    fn item_version(&self) -> u32 {
        2
    }

    fn items(&self, inputs: &Inputs, pipeline_seed: u64, _: &dyn FileDigests) -> Result<Vec<Item>, Failure> {
        Ok(self.subjects(inputs, pipeline_seed)?.0.iter().map(Subject::item).collect())
    }

    fn map(
        &self,
        inputs: &Inputs,
        pending: &[usize],
        context: &dyn Context,
        finished: &mut dyn FnMut(usize, Result<ItemValue, BadItem>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let (subjects, _) = self.subjects(inputs, context.pipeline_seed())?;
        let mut progress = Progress { total: pending.len(), ..Progress::default() };
        for indices in pending.chunks(TOGETHER) {
            let made: Vec<_> = indices.par_iter().map(|index| subjects[*index].alter(context)).collect();
            let mut flow = ControlFlow::Continue(());
            for (index, value) in indices.iter().zip(made) {
                progress.done += 1;
                if finished(*index, value?) == ControlFlow::Break(()) {
                    flow = ControlFlow::Break(());
                }
            }
            context.progress(progress);
            if flow == ControlFlow::Break(()) || context.interrupted() {
                break;
            }
        }
        Ok(())
    }

    fn collect(
        &self,
        inputs: &Inputs,
        values: &mut dyn Iterator<Item = (usize, ItemValue)>,
        context: &dyn Context,
    ) -> Result<Output, Failure> {
        let (subjects, left_out) = self.subjects(inputs, context.pipeline_seed())?;
        left_out.report(context);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut items = Vec::new();
        let mut objects = Vec::new();
        let mut samples = Vec::new();
        for (index, value) in values {
            let of = &subjects[index].of;
            let Pictured { record, label, .. } = of;
            let altered: Altered = of.value(value)?;
            *counts.entry(altered.operation.clone()).or_default() += 1;
            objects.push(altered.picture);
            let label = carried(label.clone(), record.picture, context);
            if samples.len() < SAMPLES {
                samples.extend(sample(record, &altered, context));
            }
            items.push((Record { altered: Some(altered), ..record.clone() }, label));
        }
        let (records, labels) = record_parts(&items, context.objects())?;
        let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let colon = if counts.is_empty() { "" } else { ": " };
        let line = format!("{} altered pictures{colon}{}{}", items.len(), counts.join(", "), left_out.clause());
        Ok(Output {
            identity: vec![records],
            side: vec![labels],
            objects,
            summary: Summary { line, blocks: samples, ..Summary::default() },
        })
    }
}

/// How many pictures a summary shows.
const SAMPLES: usize = 3;

/// A picture's size before and after, and the operation.
fn sample(record: &Record, altered: &Altered, context: &dyn Context) -> Option<Block> {
    let size = |bytes: &[u8]| decode(bytes).ok().map(|picture| format!("{}×{}", picture.width(), picture.height()));
    let before = size(&context.content(&record.shown()?).ok()?)?;
    let after = size(&context.objects().read(&altered.picture).ok()?)?;
    let values = altered.values.iter().map(|(name, value)| format!("{name} {}", readable(value)));
    let done: Vec<String> = std::iter::once(altered.operation.clone()).chain(values).collect();
    let text = format!("{before} → {after} by {}", done.join(", "));
    Some(Block::Sample(Sample { file: record.picture?, name: None, text, fields: Vec::new() }))
}

/// A drawn value, numbers to three digits.
fn readable(value: &Json) -> String {
    match value {
        Json::Array(values) => values.iter().map(readable).collect::<Vec<_>>().join(" then "),
        Json::String(text) => text.clone(),
        value => match value.as_f64().filter(|_| value.is_f64()) {
            Some(number) => format!("{number:.3}"),
            None => value.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::harness::{TestContext, read};
    use super::*;
    use crate::artifact::{ItemId, read_lines, write_lines};
    use crate::data::resample::tests::ramps;
    use stic_engine::node::{Artifact, Objects};

    fn mistakes(text: &str) -> Vec<String> {
        read(&CorruptKind, text, &["images"], Path::new("m")).err().unwrap()
    }

    const BOTH: &str = "operations = [{ op = \"low_resolution\", size = 3, weight = 0.5 }, { op = \"color_jitter\", brightness = 0.5, hue = 0.3, weight = 0.5 }]";

    fn node(text: &str) -> Box<dyn Node> {
        read(&CorruptKind, text, &["images"], Path::new("m")).unwrap()
    }

    /// Pictures in the store, as records.
    fn images(harness: &TestContext, count: u32) -> (Vec<Record>, Artifact) {
        let record = |n: u32| {
            let picture = harness.objects.put(&encode_png(&ramps(8 + n, 9))).unwrap();
            Record {
                id: ItemId::new(picture),
                picture: Some(picture),
                altered: None,
                conversations: None,
                fields: Default::default(),
            }
        };
        let records: Vec<Record> = (0..count).map(record).collect();
        let artifact = harness.artifact(artifact::RECORDS, &write_lines(&records));
        (records, artifact)
    }

    fn inputs(harness: &TestContext, artifact: Artifact) -> Inputs {
        Inputs::new([("images", vec![artifact])].into(), harness.objects.clone())
    }

    type Made = Vec<(usize, Result<ItemValue, BadItem>)>;

    fn mapped(harness: &TestContext, node: &dyn Node, inputs: &Inputs) -> (Vec<Item>, Made) {
        let Work::Items(work) = node.work() else { panic!("items") };
        let items = work.items(inputs, 7, harness).unwrap();
        let pending: Vec<usize> = (0..items.len()).collect();
        let mut made = Vec::new();
        let mut finished = |index, value| {
            made.push((index, value));
            ControlFlow::Continue(())
        };
        work.map(inputs, &pending, harness, &mut finished).unwrap();
        (items, made)
    }

    #[test]
    fn every_picture_gets_one_operation_and_keeps_its_id() {
        let harness = TestContext::new();
        let (records, artifact) = images(&harness, 40);
        let inputs = inputs(&harness, artifact);
        let node = node(BOTH);
        let (items, made) = mapped(&harness, node.as_ref(), &inputs);
        assert_eq!(items.len(), 40);
        let values: Vec<_> = made.into_iter().map(|(index, value)| (index, value.unwrap())).collect();
        let Work::Items(work) = node.work() else { panic!("items") };
        let output = work.collect(&inputs, &mut values.into_iter(), &harness).unwrap();
        let altered: Vec<Record> = read_lines(&harness.objects.read(&output.identity[0].digest).unwrap()).unwrap();
        for (before, after) in records.iter().zip(&altered) {
            assert_eq!((&before.id, before.picture), (&after.id, after.picture));
            let picture = decode(&harness.objects.read(&after.shown().unwrap()).unwrap()).unwrap();
            let small = after.altered.as_ref().unwrap().operation == "low_resolution";
            assert_eq!(picture.dimensions().1 == 3 || picture.dimensions().0 == 3, small);
        }
        let count =
            altered.iter().filter(|record| record.altered.as_ref().unwrap().operation == "color_jitter").count();
        assert!((10..31).contains(&count));
        assert_eq!(
            output.summary.line,
            format!("40 altered pictures: {count} color_jitter, {} low_resolution", 40 - count)
        );
        assert_eq!(output.objects.len(), 40);
    }

    #[test]
    fn a_share_takes_what_its_complement_leaves() {
        let harness = TestContext::new();
        let (records, artifact) = images(&harness, 30);
        let inputs = inputs(&harness, artifact);
        let ids = |text: &str| -> Vec<ItemId> {
            let node = node(&format!("{BOTH}\nfraction = {text}"));
            let Work::Items(work) = node.work() else { panic!("items") };
            work.items(&inputs, 7, &harness).unwrap().into_iter().map(|item| item.id).collect()
        };
        let (low, high) = (ids("[0.0, 0.5]"), ids("[0.5, 1.0]"));
        assert!(!low.is_empty() && !high.is_empty() && low.len() + high.len() == records.len());
        assert!(low.iter().all(|id| !high.contains(id)));
    }

    #[test]
    fn items_read_the_operation_that_they_drew_and_no_other() {
        let harness = TestContext::new();
        let (_, artifact) = images(&harness, 30);
        let inputs = inputs(&harness, artifact);
        let items = |text: &str| {
            let node = node(text);
            let Work::Items(work) = node.work() else { panic!("items") };
            work.items(&inputs, 7, &harness).unwrap()
        };
        let (before, after) = (items(BOTH), items(&BOTH.replace("size = 3", "size = 4")));
        let same = before.iter().zip(&after).filter(|(before, after)| before == after).count();
        assert!((5..26).contains(&same), "{same}");
    }

    #[test]
    fn an_item_reads_the_earlier_alterations_of_its_picture() {
        let harness = TestContext::new();
        let (mut records, plain) = images(&harness, 1);
        let node = node("operations = [{ op = \"greyscale\" }]");
        let mut made = |sigma: f64| {
            let picture = records[0].picture.unwrap();
            let values = json!({ "sigma": sigma }).as_object().cloned().unwrap();
            records[0].altered = Some(Altered { picture, operation: "noise".to_owned(), values });
            let inputs = inputs(&harness, harness.artifact(artifact::RECORDS, &write_lines(&records)));
            let (items, mut made) = mapped(&harness, node.as_ref(), &inputs);
            (items[0].reads, made.remove(0).1.unwrap().value)
        };
        let ((reads, value), (other_reads, other_value)) = (made(0.1), made(0.2));
        assert_ne!(value, other_value, "the same pixels, but another way to them");
        assert_ne!(reads, other_reads);
        // Unaltered pictures keep the digest of earlier versions, so that caches stay valid.
        let (items, _) = mapped(&harness, node.as_ref(), &inputs(&harness, plain));
        let operation = Operation::Greyscale;
        let fields = vec![
            ("picture".to_owned(), Value::from(records[0].picture.unwrap())),
            ("operation".to_owned(), Value::Table(operation.fields())),
        ];
        assert_eq!(items[0].reads, Digest::of_fields("stic corrupt reads v1", &fields));
    }

    #[test]
    fn chained_corruptions_draw_independently() {
        let harness = TestContext::new();
        let (records, artifact) = images(&harness, 20);
        let jitter = "{ op = \"color_jitter\", brightness = [0.5, 1.5] }";
        let node = node(&format!("operations = [{jitter}, {{ op = \"noise\", sigma = [0.01, 0.1] }}]"));
        let altered = |artifact: Artifact| -> Vec<Altered> {
            let (_, made) = mapped(&harness, node.as_ref(), &inputs(&harness, artifact));
            made.into_iter().map(|(_, made)| serde_json::from_value(made.unwrap().value).unwrap()).collect()
        };
        let first = altered(artifact);
        let again: Vec<Record> = std::iter::zip(records, &first)
            .map(|(record, altered)| Record { altered: Some(altered.clone()), ..record })
            .collect();
        let second = altered(harness.artifact(artifact::RECORDS, &write_lines(&again)));
        let same = std::iter::zip(&first, &second).filter(|(a, b)| a.operation == b.operation).count();
        assert!((3..18).contains(&same), "{same} of 20 links get the operation of the link before");
        let value = |altered: &Altered| {
            altered.values.get("brightness").or(altered.values.get("sigma")).and_then(Json::as_f64).unwrap()
        };
        assert!(std::iter::zip(&first, &second).all(|(a, b)| value(a) != value(b)));
    }

    #[test]
    fn records_without_a_picture_are_left_out_and_counted() {
        let harness = TestContext::new();
        let (mut records, _) = images(&harness, 2);
        let node = node("operations = [{ op = \"greyscale\" }]");
        let turns = vec![artifact::Turn { from: artifact::Speaker::Human, value: "What?".to_owned() }];
        let text = ItemId::new(Digest::of(b"text"));
        records.push(Record { id: text.clone(), picture: None, conversations: Some(turns), ..records[0].clone() });
        let inputs = inputs(&harness, harness.artifact(artifact::RECORDS, &write_lines(&records)));
        let (items, made) = mapped(&harness, node.as_ref(), &inputs);
        let values: Vec<_> = made.into_iter().map(|(index, value)| (index, value.unwrap())).collect();
        let Work::Items(work) = node.work() else { panic!("items") };
        let output = work.collect(&inputs, &mut values.into_iter(), &harness).unwrap();
        assert_eq!(
            (items.len(), output.summary.line.as_str()),
            (
                2,
                format!(
                    "2 altered pictures: 2 greyscale; 1 record without a picture left out: the item {}",
                    text.short()
                )
                .as_str()
            )
        );
        assert!(harness.notes.lock().unwrap()[0].starts_with("left out a record without a picture: the item "));
        let none = self::inputs(&harness, harness.artifact(artifact::RECORDS, &write_lines(&records[2..])));
        assert!(work.items(&none, 7, &harness).is_err());
        let promised = |count: usize| move |_: &str| vec![Parameter::selection("pictures", count)];
        assert!(node.check_inputs(&promised(1)).is_empty());
        assert_eq!(node.check_inputs(&promised(0))[0].message, "none of the records in `inputs.images` has a picture");
    }

    #[test]
    fn a_picture_that_cannot_be_decoded_is_a_bad_item() {
        let harness = TestContext::new();
        let picture = harness.objects.put(b"no picture").unwrap();
        let record = Record {
            id: ItemId::new(picture),
            picture: Some(picture),
            altered: None,
            conversations: None,
            fields: Default::default(),
        };
        let artifact = harness.artifact(artifact::RECORDS, &write_lines([&record]));
        let inputs = inputs(&harness, artifact);
        let (_, made) = mapped(&harness, node(BOTH).as_ref(), &inputs);
        assert!(made[0].1.as_ref().unwrap_err().cause.starts_with("not a picture"));
    }

    #[test]
    fn seeds_matter_where_something_is_drawn() {
        let seeds = |text: &str| node(text).seeds();
        assert_eq!(seeds("operations = [{ op = \"greyscale\" }]"), SeedUse { pipeline: false, node: false });
        assert_eq!(seeds("operations = [{ op = \"noise\", sigma = 0.1 }]"), SeedUse { pipeline: false, node: true });
        assert_eq!(seeds(BOTH), SeedUse { pipeline: true, node: true });
    }

    #[test]
    fn mistakes_are_reported() {
        let operation = |text: &str| mistakes(&format!("operations = [{{ {text} }}]")).join("; ");
        assert_eq!(mistakes("").len(), 1);
        assert!(operation("op = \"low_resolution\"").contains("size"));
        assert!(operation("op = \"low_resolution\", size = 0").contains("size"));
        assert!(operation("op = \"low_res\", size = 3").contains("low_res"));
        assert!(operation("op = \"greyscale\", weight = -1").contains("weight"));
        assert!(operation("op = \"greyscale\", weight = 0").contains("nothing to draw"));
        assert!(operation("op = \"color_jitter\"").contains("changes nothing"));
        assert!(operation("op = \"color_jitter\", hue = 0.6").contains("hue"));
        assert!(operation("op = \"color_jitter\", brightness = [2, 1]").contains("brightness"));
        assert!(operation("op = \"gaussian_blur\", sigma = 2, kernel_size = 4").contains("even"));
        assert!(operation("op = \"noise\", sigma = 0").contains("sigma"));
        assert!(operation("op = \"crop\", scale = [0, 1]").contains("scale"));
        assert!(operation("op = \"crop\", sigma = 1").contains("sigma"));
    }
}
