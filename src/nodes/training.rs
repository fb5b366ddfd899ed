//! What `dpo` and `sft` share: a training as a node's work.
//!
//! The kinds say what is trained on and what is minimised; how steps are taken is [`crate::train`]'s.

use super::adapter::{self, Origin};
use super::device;
use crate::artifact::write_lines;
use crate::device::Backend;
use crate::diagnostic::{counted, rounded};
use crate::digest::Digest;
use crate::model::ModelError;
use crate::model::contract::{ImageFeatures, Model, Shape};
use crate::model::processor::Processor;
use crate::model::template::Template;
use crate::node::{Block, Context, Failure, Inputs, Output, Progress, Summary};
use crate::train::log::{Line, Preference};
use crate::train::loss::dpo::Dpo;
use crate::train::objective::Objective;
use crate::train::training::{self, CHECKPOINT_AFTER, Observer, Outcome, Settings, Step, padded_length};

mod parameters;
mod set;

pub use parameters::{Training, TrainingParameters};
pub use set::Set;
use set::{Examples, decoded, longest, teach_end};

/// What a kind minimises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Cross-entropy on answers.
    Sft,
    /// STIC's regularised DPO loss.
    Dpo {
        /// The loss.
        loss: Dpo,
        /// Whether the reference is the base model with the input adapter, not without.
        input_is_reference: bool,
    },
}

impl Training<'_> {
    /// Trains towards `goal` on `set`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn run(&self, inputs: &Inputs, context: &dyn Context, goal: Goal, set: Set) -> Result<Output, Failure> {
        let (given, settings) = (self.parameters, self.settings());
        let nothing = |why: String| Err(Failure::node(format!("there is nothing to train on: {why}")));
        if set.is_empty() {
            return nothing("the inputs have no items".to_owned());
        }
        let processor = given.model.processor(context)?;
        let Examples { list: examples, unanswered, bad } =
            set.examples(&processor, given.max_length, given.bad_items.on_bad_item, context)?;
        match unanswered {
            0 => {}
            1 if examples.is_empty() => return nothing("the answer of the only example is empty".to_owned()),
            all if examples.is_empty() => return nothing(format!("the answers of all {all} examples are empty")),
            some => {
                let left_out = counted(some, "example");
                context.note(&format!("left out {left_out} with an empty answer: nothing is learned from it"));
            }
        }
        // LLaVA's own `plain` ends a caption with a line feed.
        if *processor.template() != Template::Plain && !teach_end(&examples, &processor.shape().end_tokens) {
            context.note(&format!(
                "no answer ends with an end token in the template `{}`: when to stop is not learned",
                processor.template().name()
            ));
        }
        if let Some(text) = set.emptiness().filter(|_| unanswered == 0) {
            context.note(&text);
        }
        let cut = examples.iter().flat_map(|example| &example.sequences).filter(|sequence| sequence.cut > 0).count();
        if cut > 0 {
            context.note(&format!(
                "{} cut to `max_length` {}",
                if cut == 1 { "1 answer was".to_owned() } else { format!("{cut} answers were") },
                given.max_length
            ));
        }

        let model = given.model.load(context)?;
        let input = adapter::load(inputs, "adapter", &*model)?;
        let start = given.lora.start(input.as_ref(), &*model, context.seed())?;
        let objective = match goal {
            Goal::Sft => Objective::Sft,
            Goal::Dpo { loss, input_is_reference } => {
                Objective::Dpo { loss, reference: input.as_ref().filter(|_| input_is_reference) }
            }
        };
        let longest = longest(&examples, processor.images().most_image_tokens());
        let made_for = model.shape().context;
        if longest > made_for {
            context.note(&format!("examples take up to {longest} positions, and the model was made for {made_for}"));
        }
        let backend = device::occupied(context)?.backend;
        let training = training::Training {
            model: &*model,
            objective,
            settings: Settings { seed: context.seed(), ..settings },
            examples: &examples,
            micro_batch_size: given
                .micro_batch_size
                .unwrap_or_else(|| (budget(backend) / memory(&*model, longest)).clamp(1, settings.batch_size)),
            checkpoint_every: given.checkpoint_every,
            checkpoint_after: CHECKPOINT_AFTER,
            scratch: context.scratch(),
        };
        let mut pictures = |picture: usize| features(&*model, &set.pictures[picture], &processor, context);
        match training.run(start, &mut pictures, &mut Watch { context, began: false })? {
            Outcome::Stopped => Err(Failure::Interrupted),
            Outcome::Finished(trained, log) => {
                let objects = context.objects();
                let origin = Origin { base_model: None, dropout: settings.dropout };
                Ok(Output {
                    identity: adapter::write(&trained, model.shape(), objects)?,
                    side: vec![
                        adapter::part(adapter::LOG, &write_lines(&log), objects)?,
                        adapter::write_origin(&origin, objects)?,
                    ],
                    objects: Vec::new(),
                    summary: summary(&log, &set, examples.len(), bad),
                })
            }
        }
    }
}

/// Tells the engine of a training.
struct Watch<'a> {
    context: &'a dyn Context,
    began: bool,
}

impl Observer for Watch<'_> {
    fn step(&mut self, Step { line, total, tokens }: Step<'_>) {
        if !self.began && line.step > 1 {
            self.context.note(&format!("goes on after step {} of {total}", line.step - 1));
        }
        self.began = true;
        if line.skipped {
            let scale = line.loss_scale.unwrap_or(1.0);
            self.context.note(&format!(
                "step {} of {total} was skipped: its gradients overflowed f16; the loss scale, {scale}, is halved",
                line.step
            ));
        }
        let loss = Some(line.loss).filter(|loss| loss.is_finite());
        self.context.progress(Progress { done: line.step, total, tokens: Some(tokens), loss });
    }

    fn note(&mut self, text: &str) {
        self.context.note(text);
    }

    fn stops(&self) -> bool {
        self.context.interrupted()
    }
}

/// About how many bytes an example of `positions` needs: what enters every layer, one layer's graph with its square
/// of scores, and logits for half of the positions.
fn memory(model: &dyn Model, positions: usize) -> usize {
    let Shape { vocabulary, hidden, intermediate, layers, heads, .. } = *model.shape();
    let length = padded_length(positions);
    let kept = layers * length * hidden * model.dtype().size();
    let graph = length * (16 * hidden + 8 * intermediate) * 4 + heads * length * length * 16;
    kept + graph + length / 2 * vocabulary * 12
}

/// How much of a device's memory micro-batches may take, in bytes. Beside a 7B model in 16 bits on a GPU of 48 GB.
fn budget(backend: Backend) -> usize {
    if backend == Backend::Cpu { 2 << 30 } else { 24 << 30 }
}

/// What stands for a picture in the decoder.
fn features(
    model: &dyn Model,
    digest: &Digest,
    processor: &Processor,
    context: &dyn Context,
) -> Result<ImageFeatures, ModelError> {
    let picture = decoded(digest, context)
        .map_err(|failure| ModelError { message: failure.to_string(), help: None, environment: true })?
        .map_err(ModelError::new)?;
    Ok(model.encode_images(&[&processor.image(&picture)]).remove(0))
}

/// What people are shown of a training: where it began and ended, and its course.
fn summary(log: &[Line], set: &Set, examples: usize, bad: usize) -> Summary {
    let taken: Vec<&Line> = log.iter().filter(|line| !line.skipped).collect();
    let loss: Vec<f64> = taken.iter().map(|line| line.loss).collect();
    let pairs: Vec<Preference> = taken.iter().filter_map(|line| line.preference).collect();
    let course = |value: fn(&Preference) -> f64| pairs.iter().map(value).collect::<Vec<_>>();
    let tokens: u64 = log.iter().map(|line| line.tokens).sum();
    let seconds: f64 = log.iter().map(|line| line.seconds).sum();
    let Some([first, last]) = ends(&loss) else { return Summary::default() };
    let mut line =
        format!("{} on {}: loss {first:.3} → {last:.3}", counted(log.len(), "step"), counted(examples, "example"));
    let curve = |name: &str, values: &[f64]| Block::Curve { name: name.to_owned(), values: means(values, POINTS) };
    let mut blocks = vec![curve("loss", &loss)];
    if let (Some(margin), Some(accuracy)) = (ends(&course(|pair| pair.margin)), ends(&course(|pair| pair.accuracy))) {
        let ([before, after], [at_first, at_last]) = (margin, accuracy);
        line += &format!(
            ", margin {:.2} → {:.2}, accuracy {at_first:.2} → {at_last:.2}",
            rounded(before, 2),
            rounded(after, 2)
        );
        blocks.push(curve("margin", &course(|pair| pair.margin)));
        blocks.push(curve("accuracy", &course(|pair| pair.accuracy)));
    }
    line += &format!(", {:.0} tokens/s", tokens as f64 / seconds.max(1e-9));
    if bad > 0 {
        line += &format!("; {bad} left out that cannot be trained on");
    }

    let mut warnings = Vec::new();
    if taken.iter().all(|line| line.learning_rate == 0.0) {
        warnings.push(format!(
            "no step had a learning rate above 0, and nothing was learned: {} warm-up; train for more steps, or set \
             `warmup_ratio = 0`",
            if taken.len() == 1 { "the only step is" } else { "all steps are" }
        ));
    }
    // Of DPO's loss, the part that preferences have: what a batch's responses are like moves the other part about.
    let preferred = course(|pair| pair.dpo);
    let (what, minimised) = if preferred.is_empty() { ("loss", &loss) } else { ("DPO loss", &preferred) };
    if let Some([first, last]) = ends(minimised).filter(|[first, last]| minimised.len() > 1 && last >= first) {
        let (equal, all) = (set.equal, examples);
        let rate = "`learning_rate` may be too high, or too low for so few steps";
        let cause = match equal {
            0 => rate.to_owned(),
            _ if equal >= all => "the responses of every pair are equal, and nothing tells them apart".to_owned(),
            _ => format!("{equal} of {all} pairs have equal responses, which teach nothing, and {rate}"),
        };
        warnings.push(format!(
            "the {what} did not fall: {first:.4} over the first steps, {last:.4} over the last ones; {cause}"
        ));
    }
    // A model whose factors have grown beyond all measure says the same to everything, and learns no more, whatever its
    // loss.
    let norms: Vec<f64> = taken.iter().map(|line| line.gradient_norm).collect();
    let largest = norms.iter().copied().fold(0.0, f64::max);
    if let Some([_, last]) = ends(&norms).filter(|[_, last]| *last <= VANISHED * largest) {
        let last = if last == 0.0 { "0".to_owned() } else { format!("{last:.1e}") };
        warnings.push(format!(
            "the gradient vanished: its norm was {largest:.3} at most and is {last} over the last steps; `learning_rate` \
             may be too high"
        ));
    }
    let skipped = log.len() - taken.len();
    if skipped > 0 {
        let scale = log.last().and_then(|line| line.loss_scale).unwrap_or(1.0);
        let text = format!(
            "{skipped} of {} {} skipped, whose gradients overflowed f16",
            counted(log.len(), "step"),
            if skipped == 1 { "was" } else { "were" }
        );
        line += &format!("; {skipped} skipped, loss scale {scale}");
        // A few are what it takes to find the scale.
        if skipped > log.len() / 10 {
            warnings.push(format!("{text}: compute in another `dtype`, or train for longer"));
        }
    }
    warnings.extend(set.emptiness());
    Summary { line, blocks, warnings, ..Summary::default() }
}

/// The mean of each of at most `points` equal spans of `values`.
fn means(values: &[f64], points: usize) -> Vec<f64> {
    let points = points.min(values.len());
    (0..points)
        .map(|point| {
            let span = &values[point * values.len() / points..(point + 1) * values.len() / points];
            span.iter().sum::<f64>() / span.len() as f64
        })
        .collect()
}

/// The means of the first and of the last tenth of `values`: three at least, and none twice.
fn ends(values: &[f64]) -> Option<[f64; 2]> {
    let count = values.len();
    let window = (count / 10).max(3).min(count / 2).max(1).min(count);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    (count > 0).then(|| [mean(&values[..window]), mean(&values[count - window..])])
}

/// The share of the largest gradient below which one no longer teaches anything.
const VANISHED: f64 = 1e-9;

/// How many points a course is shown in.
const POINTS: usize = 10;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::artifact::{
        self, Conversation, ItemId, Origin as PairOrigin, OriginKind, Pair, Speaker, Turn, read_lines,
    };
    use crate::node::{Artifact, Node, NodeKind, Objects};
    use crate::nodes::harness::{Trial, read};
    use crate::nodes::{DpoKind, SftKind};

    const REQUIRED: &str = "model = 'base'\nlearning_rate = 1e-3\nbatch_size = 2\n";

    pub(super) fn reference(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
    }

    pub(super) fn node(kind: &dyn NodeKind, text: &str, connected: &[&str]) -> Result<Box<dyn Node>, Vec<String>> {
        read(kind, &format!("{REQUIRED}{text}"), connected, &reference("llava"))
    }

    pub(super) fn harness() -> (Trial, Vec<Digest>) {
        let harness = Trial::new();
        let pictures = ["square", "tall", "wide"].map(|name| {
            let bytes = std::fs::read(reference("pictures").join(format!("{name}.png"))).unwrap();
            harness.shelf.put(&bytes).unwrap()
        });
        (harness, pictures.to_vec())
    }

    fn pairs(pictures: &[Digest]) -> Vec<Pair> {
        let pair = |(index, picture): (usize, &Digest)| Pair {
            id: ItemId::new(*picture),
            picture: *picture,
            instruction: "Describe the picture.".to_owned(),
            chosen: format!("A red circle is left of {index} squares."),
            rejected: "A green ring.".to_owned(),
            origin: PairOrigin { kind: OriginKind::Misled, prompt: "Imagine.".to_owned(), altered: None },
        };
        pictures.iter().enumerate().map(pair).collect()
    }

    fn connect(port: &'static str, artifact: Artifact) -> BTreeMap<&'static str, Vec<Artifact>> {
        BTreeMap::from([(port, vec![artifact])])
    }

    #[test]
    fn spans_cover_all_values_once() {
        assert_eq!(means(&[1.0, 3.0, 5.0, 7.0, 9.0], 2), [2.0, 7.0]);
        assert_eq!(means(&[1.0, 2.0], 8), [1.0, 2.0]);
        assert!(means(&[], 8).is_empty());
    }

    #[test]
    fn dpo_makes_an_adapter_a_log_and_a_course() {
        let (harness, pictures) = harness();
        let rows = harness.artifact(artifact::PAIRS, &write_lines(&pairs(&pictures)));
        let text = "lora = { rank = 2, alpha = 4 }\nepochs = 6\nlearning_rate = 1e-2\n";
        let text = format!("model = 'base'\nbatch_size = 2\n{text}");
        let node = read(&DpoKind, &text, &[], &reference("llava")).unwrap();
        let output = harness.run(&*node, connect("pairs", rows.clone())).unwrap();
        let log: Vec<Line> = read_lines(&harness.shelf.read(&output.side[0].digest).unwrap()).unwrap();
        assert_eq!(log.len(), 12);
        let margin = |line: &Line| line.preference.unwrap().margin;
        assert!(margin(&log[0]) == 0.0 && margin(&log[11]) > margin(&log[4]), "{log:?}");
        assert!(output.summary.line.starts_with("12 steps on 3 examples: loss "), "{}", output.summary.line);
        assert!(matches!(&output.summary.blocks[1], Block::Curve { name, .. } if name == "margin"));
        assert_eq!(harness.progress.lock().unwrap().last().unwrap().done, 12);

        // Interrupted and run again: the same identity.
        let parts = Trial { shelf: harness.shelf.clone(), stop_after: Some(5), ..Trial::new() };
        assert_eq!(parts.run(&*node, connect("pairs", rows.clone())).unwrap_err(), Failure::Interrupted);
        let parts = Trial { stop_after: None, stop: false.into(), ..parts };
        let resumed = parts.run(&*node, connect("pairs", rows)).unwrap();
        assert_eq!(parts.notes.lock().unwrap()[..], ["goes on after step 5 of 12"]);
        assert_eq!(resumed.identity, output.identity);
    }

    #[test]
    fn a_training_that_learns_nothing_is_warned_of() {
        let (harness, pictures) = harness();
        let rows = harness.artifact(artifact::PAIRS, &write_lines(&pairs(&pictures)));
        for kind in [&DpoKind as &dyn NodeKind, &SftKind] {
            let port = kind.ports()[0].name;
            let run = |rate: &str| {
                let harness = Trial { shelf: harness.shelf.clone(), ..Trial::new() };
                let text = format!(
                    "model = 'base'\nbatch_size = 2\nepochs = 6\nlearning_rate = {rate}\nlora = {{ rank = 2 }}"
                );
                let node = read(kind, &text, &[], &reference("llava")).unwrap();
                harness.run(&*node, connect(port, rows.clone()))
            };
            let good = run("1e-2").unwrap().summary;
            assert_eq!(good.warnings, Vec::<String>::new());
            match run("1e6") {
                Ok(output) => {
                    let warnings = output.summary.warnings.join("\n");
                    assert!(warnings.contains("did not fall") || warnings.contains("vanished"), "{:?}", output.summary);
                }
                Err(failure) => assert!(failure.to_string().contains("is NaN"), "{failure}"),
            }
        }
    }

    #[test]
    fn a_training_that_teaches_no_end_is_noted() {
        let (harness, pictures) = harness();
        let rows = harness.artifact(artifact::PAIRS, &write_lines(&pairs(&pictures)));
        let model = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(reference("llava")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, model.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        for (close, noted) in [("", true), ("{{ eos_token }}", false)] {
            // As LLaVA-1.5's on the hub, which closes no answer.
            let template = "{% for message in messages %}{{ message.role | upper }}: {% for part in message.content %}\
                {% if part.type == 'image' %}<image>\n{% else %}{{ part.text }}{% endif %}{% endfor %}\
                {% if message.role == 'assistant' %}CLOSE{% endif %} {% endfor %}\
                {% if add_generation_prompt %}ASSISTANT:{% endif %}";
            let path = model.path().join("chat_template.jinja");
            std::fs::write(path, template.replace("CLOSE", close)).unwrap();
            let harness = Trial { shelf: harness.shelf.clone(), ..Trial::new() };
            let text = format!("{REQUIRED}lora = {{ rank = 2 }}\ntemplate = 'checkpoint'");
            let node = read(&DpoKind, &text, &[], model.path()).unwrap();
            harness.run(&*node, connect("pairs", rows.clone())).unwrap();
            let notes = harness.notes.lock().unwrap();
            assert_eq!(notes.iter().any(|note| note.contains("when to stop is not learned")), noted, "{notes:?}");
        }
    }

    #[test]
    fn a_training_whose_only_step_warms_up_is_warned_of() {
        let (harness, pictures) = harness();
        let rows = harness.artifact(artifact::PAIRS, &write_lines(&pairs(&pictures)));
        let warnings = |text: &str| {
            let text = format!("model = 'base'\nbatch_size = 8\nlearning_rate = 1e-2\nlora = {{ rank = 2 }}\n{text}");
            let node = read(&DpoKind, &text, &[], &reference("llava")).unwrap();
            harness.run(&*node, connect("pairs", rows.clone())).unwrap().summary.warnings
        };
        let warned = warnings("");
        assert!(warned[0].starts_with("no step had a learning rate above 0"), "{warned:?}");
        assert_eq!(warnings("warmup_ratio = 0"), Vec::<String>::new());
    }

    #[test]
    fn pairs_of_equal_responses_are_the_cause_when_nothing_is_learned_from_them() {
        let (harness, pictures) = harness();
        let mut rows = pairs(&pictures);
        rows.iter_mut().for_each(|pair| pair.rejected = pair.chosen.clone());
        let rows = harness.artifact(artifact::PAIRS, &write_lines(&rows));
        let output =
            harness.run(&*node(&DpoKind, "epochs = 4\nlora = { rank = 2 }", &[]).unwrap(), connect("pairs", rows));
        let warnings = output.unwrap().summary.warnings.join("\n");
        assert!(warnings.contains("the responses of every pair are equal"), "{warnings}");
        assert!(!warnings.contains("`learning_rate` may be too high, or"), "{warnings}");
    }

    #[test]
    fn the_ends_of_a_course_are_means_that_do_not_meet() {
        assert_eq!(ends(&[]), None);
        assert_eq!(ends(&[2.0]), Some([2.0, 2.0]));
        assert_eq!(ends(&[2.0, 4.0, 6.0]), Some([2.0, 6.0]));
        assert_eq!(ends(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), Some([2.0, 6.0]));
        let hundred: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(ends(&hundred), Some([4.5, 94.5]));
    }

    #[test]
    fn skipped_steps_and_empty_answers_are_counted_and_warned_of() {
        let line = |step: usize, skipped: bool| Line {
            step,
            epoch: 1,
            loss: if skipped { f64::NAN } else { 4.0 / step as f64 },
            preference: None,
            learning_rate: 0.1,
            gradient_norm: 1.0,
            loss_scale: Some(512.0),
            skipped,
            tokens: 10,
            seconds: 1.0,
        };
        let mut set = Set::default();
        ["a", " ", "b", ""].iter().for_each(|answer| set.wanted(answer));
        let log = [line(1, true), line(2, false), line(3, true), line(4, false)];
        let summary = summary(&log, &set, 0, 0);
        assert!(summary.line.starts_with("4 steps on 0 examples: loss 2.000 → 1.000, "), "{}", summary.line);
        assert!(summary.line.ends_with("; 2 skipped, loss scale 512"), "{}", summary.line);
        assert_eq!(
            summary.warnings,
            [
                "2 of 4 steps were skipped, whose gradients overflowed f16: compute in another `dtype`, or train for longer",
                "2 of 4 answers to be learnt are empty",
            ]
        );
    }

    #[test]
    fn sft_goes_on_from_the_input_adapter() {
        let (harness, pictures) = harness();
        let imported = adapter::import(&reference("llava/adapter"), &*harness.shelf).unwrap().0;
        let input = harness.made(artifact::ADAPTER, imported);
        let turn = |from, value: &str| Turn { from, value: value.to_owned() };
        let conversations = [Conversation {
            id: ItemId::new(pictures[0]),
            picture: Some(pictures[0]),
            conversations: vec![turn(Speaker::Human, "What is this?\n<image>"), turn(Speaker::Gpt, "A ring.")],
        }];
        let conversations = harness.artifact(artifact::CONVERSATIONS, &write_lines(&conversations));
        let pairs = harness.artifact(artifact::PAIRS, &write_lines(&pairs(&pictures)));
        let ports = |input: &Artifact| {
            BTreeMap::from([
                ("conversations", vec![conversations.clone(), pairs.clone()]),
                ("adapter", vec![input.clone()]),
            ])
        };
        let run = |text: &str| harness.run(&*node(&SftKind, text, &["adapter"]).unwrap(), ports(&input));
        let output = run("warmup_ratio = 0\nlora = { rank = 4, alpha = 8, dropout = 0.1 }").unwrap();
        assert!(output.summary.line.starts_with("2 steps on 4 examples: loss "), "{}", output.summary.line);
        assert_ne!(output.identity[0], input.identity[0], "the tensors have changed");
        assert_eq!(output.identity[1], input.identity[1], "rank, alpha and targets have not");

        let Err(Failure::Node { message, help }) = run("lora = { rank = 8 }") else { panic!("accepted") };
        assert_eq!(message, "`lora.rank` is 8, but the input adapter's is 4");
        assert!(help.is_some());
    }

    #[test]
    fn an_adapter_of_another_model_is_refused() {
        let (harness, pictures) = harness();
        let imported = adapter::import(&reference("llava_next/adapter"), &*harness.shelf).unwrap().0;
        let ports = BTreeMap::from([
            ("pairs", vec![harness.artifact(artifact::PAIRS, &write_lines(&pairs(&pictures)))]),
            ("adapter", vec![harness.made(artifact::ADAPTER, imported)]),
        ]);
        let Err(Failure::Node { message, .. }) = harness.run(&*node(&DpoKind, "", &["adapter"]).unwrap(), ports) else {
            panic!("accepted")
        };
        assert!(message.starts_with("the adapter of `above`: "), "{message}");
    }

    #[test]
    fn a_prompt_without_room_for_an_answer_names_its_item() {
        let (harness, pictures) = harness();
        let rows = harness.artifact(artifact::PAIRS, &write_lines(&pairs(&pictures[..1])));
        let node = node(&DpoKind, "max_length = 4", &[]).unwrap();
        let Err(Failure::Node { message, help }) = harness.run(&*node, connect("pairs", rows)) else {
            panic!("accepted")
        };
        let item = ItemId::new(pictures[0]);
        let first = format!("1 of 1 example cannot be trained on, first the item {}: the prompt takes ", item.short());
        assert!(message.starts_with(&first), "{message}");
        assert!(help.is_some());
    }

    #[test]
    fn nothing_to_train_on_is_an_error() {
        let harness = Trial::new();
        let rows = harness.artifact(artifact::PAIRS, b"");
        let error = harness.run(&*node(&DpoKind, "", &[]).unwrap(), connect("pairs", rows)).unwrap_err();
        assert!(error.to_string().starts_with("there is nothing to train on"));
    }
}
