//! What `dpo` and `sft` share: a training as a node's work.
//!
//! The kinds say what is trained on and what is minimized; how steps are taken is [`crate::train`]'s.

use burn::tensor::DType;

use super::adapter::{self, Origin};
use super::device;
use crate::artifact::write_lines;
use crate::device::Backend;
use crate::model::ModelError;
use crate::model::adapter::Adapter;
use crate::model::contract::{ImageFeatures, Model, Shape};
use crate::model::device::dtype;
use crate::model::processor::Processor;
use crate::model::room::Use;
use crate::train::checkpoint;
use crate::train::objective::Objective;
use crate::train::training::{CHECKPOINT_AFTER, Observer, Outcome, Step, Training, padded_length};
use stic_engine::diagnostic::counted;
use stic_engine::digest::Digest;
use stic_engine::node::{
    Checkpoints, Context, Failure, FileDigests, FileProblem, Inputs, Node, Output, Parameter, Progress, SeedUse,
    WholeWork, Work, by_default,
};
use stic_engine::pool::Slots;
use stic_engine::spec::Resource;
use stic_engine::spec::parameter::Parameters;

mod parameters;
mod set;
mod summary;

pub use parameters::TrainingParameters;
use parameters::{is_inputs, linears};
pub use set::Set;
use set::{Examples, decoded, longest, teach_end};
use summary::summary;

/// The parameters of a kind that trains, and what they say of its training.
pub trait Recipe: Parameters + Send + Sync {
    /// Those that all such kinds have.
    fn shared(&self) -> &TrainingParameters;

    /// What is wrong with the inputs, by what is known of them; see [`Node::check_inputs`].
    fn check_inputs(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Option<FileProblem> {
        let _ = above;
        None
    }

    /// What is trained on.
    ///
    /// # Errors
    /// When an input cannot be read.
    fn set(&self, inputs: &Inputs, context: &dyn Context) -> Result<Set, Failure>;

    /// The objective, given `input`, the adapter that training continues from.
    fn objective<'a>(&self, input: Option<&'a Adapter>) -> Objective<'a>;
}

/// A node that trains.
pub struct TrainingNode<R> {
    /// What the file says.
    pub recipe: R,
    /// Whether there is an input adapter, so that its shape is no parameter.
    pub continues: bool,
}

impl<R: Recipe> Node for TrainingNode<R> {
    fn parameters(&self) -> Vec<Parameter> {
        let mut fields = self.recipe.key_fields();
        let TrainingParameters { lora, model, .. } = self.recipe.shared();
        let is_default = |name: &str| name == "lora.targets" && lora.adapts_all(&model.source);
        fields.retain(|field| !(self.continues && is_inputs(&field.name) || is_default(&field.name)));
        // With dropout, and only then, how it is drawn is part of the key: earlier versions drew in another way.
        if let Some(dropout) = fields.iter().position(|field| field.name == "lora.dropout") {
            fields.insert(dropout + 1, Parameter::function("lora.dropout_draws", "by place"));
        }
        fields
    }

    fn left_out(&self, parameter: &str) -> Option<String> {
        let model = &self.recipe.shared().model;
        match parameter {
            _ if self.continues && is_inputs(parameter) => Some("the input adapter's".to_owned()),
            "lora.targets" => by_default(linears(&model.source)?),
            _ => model.left_out(parameter),
        }
    }

    fn seeds(&self) -> SeedUse {
        SeedUse { pipeline: false, node: true }
    }

    fn origin(&self) -> Option<&Resource> {
        Some(&self.recipe.shared().model.source)
    }

    fn resources(&self) -> Option<Slots> {
        Some(device::one(&self.recipe.shared().model.device))
    }

    fn check_files(&self) -> Vec<FileProblem> {
        let TrainingParameters { lora, model, .. } = self.recipe.shared();
        let mut problems = model.check_files();
        problems.extend(linears(&model.source).and_then(|names| lora.foreign(&names)));
        problems
    }

    fn promises(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<Parameter> {
        let TrainingParameters { lora, model, .. } = self.recipe.shared();
        if self.continues { above("adapter") } else { lora.shape(&model.source) }
    }

    fn check_inputs(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<FileProblem> {
        let lora = &self.recipe.shared().lora;
        let mut problems = if self.continues { lora.contradictions(&above("adapter")) } else { Vec::new() };
        problems.extend(self.recipe.check_inputs(above));
        problems
    }

    fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        self.recipe.shared().model.sources(digests)
    }

    fn work(&self) -> Work<'_> {
        Work::Whole(self)
    }
}

impl<R: Recipe> WholeWork for TrainingNode<R> {
    fn run(&self, inputs: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        device::computing(context, || self.train(inputs, context))
    }
}

impl<R: Recipe> TrainingNode<R> {
    fn train(&self, inputs: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        let set = self.recipe.set(inputs, context)?;
        let given = self.recipe.shared();
        let settings = given.settings(context.seed());
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
        if processor.template().name != "plain" && !teach_end(&examples, &processor.shape().end_tokens) {
            context.note(&format!(
                "no answer ends with an end token in the template `{}`: when to stop is not learned",
                processor.template().name
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

        let longest = longest(&examples, processor.images().most_image_tokens());
        let example = memory(processor.shape(), dtype(device::occupied(context)?.precision), longest);
        let used = Use::Train { example: example as u64, micro_batch_size: given.micro_batch_size };
        let model = given.model.load(context, used)?;
        let input = adapter::load(inputs, "adapter", &*model)?;
        let start = given.lora.start(input.as_ref(), &*model, context.seed())?;
        let made_for = model.shape().context;
        if longest > made_for {
            context.note(&format!("examples take up to {longest} positions, and the model was made for {made_for}"));
        }
        let backend = device::occupied(context)?.backend;
        let training = Training {
            model: &*model,
            objective: self.recipe.objective(input.as_ref()),
            settings,
            examples: &examples,
            micro_batch_size: given
                .micro_batch_size
                .unwrap_or_else(|| (budget(backend) / example).clamp(1, settings.batch_size)),
            checkpoint_every: given.checkpoint_every,
            checkpoint_after: CHECKPOINT_AFTER,
            checkpoints: &Kept(context.checkpoints()),
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

/// The checkpoints of a training, kept by the engine.
struct Kept<'a>(&'a dyn Checkpoints);

impl checkpoint::Checkpoints for Kept<'_> {
    fn save(&self, name: &str, content: &[u8]) -> Result<(), ModelError> {
        self.0.save(name, content).map_err(environmental)
    }

    fn load(&self, name: &str, read: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<Vec<String>, ModelError> {
        self.0.load(name, read).map_err(environmental)
    }
}

/// The failure of what the engine offers, as a training hands it on.
fn environmental(failure: Failure) -> ModelError {
    let message = failure.to_string();
    let help = match failure {
        Failure::Node { help, .. } | Failure::Environment { help, .. } => help,
        Failure::Interrupted => None,
    };
    ModelError { message, help, environment: true }
}

/// Reports a training to the engine.
struct Watch<'a> {
    context: &'a dyn Context,
    began: bool,
}

impl Observer for Watch<'_> {
    fn step(&mut self, Step { line, total, tokens }: Step<'_>) {
        if !self.began && line.step > 1 {
            self.context.note(&format!("resuming after step {} of {total}", line.step - 1));
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

/// About how many bytes an example of `positions` needs: the input of every layer, one layer's graph with its attention
/// scores, and logits for half of the positions.
fn memory(shape: &Shape, dtype: DType, positions: usize) -> usize {
    let Shape { vocabulary, hidden, intermediate, layers, heads, .. } = *shape;
    let length = padded_length(positions);
    let kept = layers * length * hidden * dtype.size();
    let graph = length * (16 * hidden + 8 * intermediate) * 4 + heads * length * length * 16;
    kept + graph + length / 2 * vocabulary * 12
}

/// The memory that a micro-batch may take, in bytes: what is left beside a 7B model in 16 bits on a GPU of 48 GB.
fn budget(backend: Backend) -> usize {
    if backend == Backend::Cpu { 2 << 30 } else { 24 << 30 }
}

/// The image features of a picture.
fn features(
    model: &dyn Model,
    digest: &Digest,
    processor: &Processor,
    context: &dyn Context,
) -> Result<ImageFeatures, ModelError> {
    let picture = decoded(digest, context).map_err(environmental)?.map_err(ModelError::new)?;
    Ok(model.encode_images(&[&processor.image(&picture)]).remove(0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::artifact::{
        self, Conversation, ItemId, Origin as PairOrigin, OriginKind, Pair, Speaker, Turn, read_lines,
    };
    use crate::nodes::harness::{TestContext, read};
    use crate::nodes::{DpoKind, SftKind};
    use crate::train::log::Line;
    use stic_engine::node::{Artifact, Block, NodeKind, Objects};

    const REQUIRED: &str = "model = 'base'\nlearning_rate = 1e-3\nbatch_size = 2\n";

    pub(super) fn reference(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
    }

    pub(super) fn node(kind: &dyn NodeKind, text: &str, connected: &[&str]) -> Result<Box<dyn Node>, Vec<String>> {
        read(kind, &format!("{REQUIRED}{text}"), connected, &reference("llava"))
    }

    pub(super) fn harness() -> (TestContext, Vec<Digest>) {
        let harness = TestContext::new();
        let pictures = ["square", "tall", "wide"].map(|name| {
            let bytes = std::fs::read(reference("pictures").join(format!("{name}.png"))).unwrap();
            harness.objects.put(&bytes).unwrap()
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
    fn dpo_makes_an_adapter_a_log_and_a_course() {
        let (harness, pictures) = harness();
        let rows = harness.artifact(artifact::PAIRS, &write_lines(&pairs(&pictures)));
        let text = "lora = { rank = 2, alpha = 4 }\nepochs = 6\nlearning_rate = 1e-2\n";
        let text = format!("model = 'base'\nbatch_size = 2\n{text}");
        let node = read(&DpoKind, &text, &[], &reference("llava")).unwrap();
        let output = harness.run(&*node, connect("pairs", rows.clone())).unwrap();
        let log: Vec<Line> = read_lines(&harness.objects.read(&output.side[0].digest).unwrap()).unwrap();
        assert_eq!(log.len(), 12);
        let margin = |line: &Line| line.preference.unwrap().margin;
        assert!(margin(&log[0]) == 0.0 && margin(&log[11]) > margin(&log[4]), "{log:?}");
        assert!(output.summary.line.starts_with("12 steps on 3 examples: loss "), "{}", output.summary.line);
        assert!(matches!(&output.summary.blocks[1], Block::Curve { name, .. } if name == "margin"));
        assert_eq!(harness.progress.lock().unwrap().last().unwrap().done, 12);

        // Interrupted and run again: the same identity.
        let parts = TestContext { objects: harness.objects.clone(), stop_after: Some(5), ..TestContext::new() };
        assert_eq!(parts.run(&*node, connect("pairs", rows.clone())).unwrap_err(), Failure::Interrupted);
        let parts = TestContext { stop_after: None, stop: false.into(), ..parts };
        let resumed = parts.run(&*node, connect("pairs", rows)).unwrap();
        assert_eq!(parts.notes.lock().unwrap()[..], ["resuming after step 5 of 12"]);
        assert_eq!(resumed.identity, output.identity);
    }

    #[test]
    fn a_training_that_learns_nothing_is_warned_of() {
        let (harness, pictures) = harness();
        let rows = harness.artifact(artifact::PAIRS, &write_lines(&pairs(&pictures)));
        for kind in [&DpoKind as &dyn NodeKind, &SftKind] {
            let port = kind.ports()[0].name;
            let run = |rate: &str| {
                let harness = TestContext { objects: harness.objects.clone(), ..TestContext::new() };
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
            let harness = TestContext { objects: harness.objects.clone(), ..TestContext::new() };
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
    fn sft_goes_on_from_the_input_adapter() {
        let (harness, pictures) = harness();
        let imported = adapter::import(&reference("llava/adapter"), &*harness.objects).unwrap().0;
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
        let imported = adapter::import(&reference("llava_next/adapter"), &*harness.objects).unwrap().0;
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
        let harness = TestContext::new();
        let rows = harness.artifact(artifact::PAIRS, b"");
        let error = harness.run(&*node(&DpoKind, "", &[]).unwrap(), connect("pairs", rows)).unwrap_err();
        assert!(error.to_string().starts_with("there is nothing to train on"));
    }
}
