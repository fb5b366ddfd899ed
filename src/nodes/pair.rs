//! `pair`: joins preferred and rejected responses about a picture to preference pairs.
//!
//! A pair's instruction x is drawn from the captioning prompts (Algorithm 1 of the paper): training never sees the
//! well-curated prompt or the misleading one. The pair's picture is the clean one.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand_core::RngCore;

use super::adapter::part;
use super::labels::{carried, item_name, labeled, labeled_of};
use super::prompts::Prompts;
use super::share::{check_meeting, check_once};
use super::source_check::ALTERED_PROMPTS;
use crate::artifact::{self, ArtifactKind, ItemId, LABELS, Label, Origin, OriginKind, Pair, Response, write_lines};
use crate::data::prompts::{BUILT_IN, PromptSet};
use stic_engine::diagnostic::counted;
use stic_engine::digest::Value;
use stic_engine::draw::Draws;
use stic_engine::node::{
    Arity, Block, Context, Failure, FileDigests, FileProblem, Inputs, Node, NodeKind, Output, Parameter, Port, Sample,
    SeedUse, Summary, WholeWork, Work,
};
use stic_engine::parameters;
use stic_engine::spec::Reader;
use stic_engine::spec::parameter::{Declaration, Parameters, boolean, choice};

/// The kind `pair`.
pub struct PairKind;

/// P, the default prompts for x.
const INSTRUCTIONS: &str = "stic:captions";

/// The built-in set of misleading prompts.
const MISLEADING: &str = "stic:hallucination";

impl NodeKind for PairKind {
    fn name(&self) -> &'static str {
        "pair"
    }

    fn version(&self) -> u32 {
        1
    }

    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "preferred", accepts: &[artifact::RESPONSES], arity: Arity::Many, items: false },
            Port { name: "rejected", accepts: &[artifact::RESPONSES], arity: Arity::Many, items: false },
        ]
    }

    fn output(&self) -> ArtifactKind {
        artifact::PAIRS
    }

    fn help(&self) -> &'static str {
        "joins preferred and rejected responses by picture and draws an instruction for each pair"
    }

    fn example(&self) -> &'static str {
        r#"inputs.preferred = { file = "described.json" }
inputs.rejected = [{ file = "corrupted.json" }, { file = "misled.json", images = "pictures" }]"#
    }

    fn declared(&self) -> Vec<Declaration> {
        PairNode::declared()
    }

    fn read(&self, table: &mut Reader<'_>, _: &dyn Fn(&str) -> bool) -> Option<Box<dyn Node>> {
        Some(Box::new(PairNode::read(table)?))
    }
}

parameters! {
    /// A node of the kind.
    struct PairNode {
        /// The prompts from which each pair's instruction is drawn (P in Algorithm 1)
        instructions: Prompts = Prompts::setting().default(instructions()),
        /// Whether to drop pairs whose two responses are equal
        drop_identical: bool = boolean().default(false).selection(),
        /// Whether a pair's rejected response is about the `same` picture, or another one (`shuffled`, a control)
        rejected_from: RejectedFrom = choice([("same", RejectedFrom::Same), ("shuffled", RejectedFrom::Shuffled)])
            .default(RejectedFrom::Same),
    }
}

/// Which rejected response a pair gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RejectedFrom {
    /// The one about its own picture.
    Same,
    /// One about another picture, as a control.
    Shuffled,
}

fn instructions() -> Prompts {
    Prompts::Given(PromptSet::built_in(INSTRUCTIONS).expect("a built-in set"))
}

impl Node for PairNode {
    fn parameters(&self) -> Vec<Parameter> {
        self.key_fields()
    }

    fn seeds(&self) -> SeedUse {
        SeedUse { pipeline: self.instructions.draws(), node: self.rejected_from == RejectedFrom::Shuffled }
    }

    fn check_files(&self) -> Vec<FileProblem> {
        self.instructions.problem("instructions").into_iter().collect()
    }

    fn check_inputs(&self, above: &dyn Fn(&str) -> Vec<Parameter>) -> Vec<FileProblem> {
        let shares = ["preferred", "rejected"].into_iter().filter_map(|port| check_once(port, above));
        let shares = shares.chain(check_meeting("rejected", "preferred", above));
        shares.chain(self.check_instructions(&above("rejected"))).collect()
    }

    fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        let parameter = self.instructions.parameter("instructions", digests)?;
        let default = PromptSet::built_in(INSTRUCTIONS)
            .is_some_and(|set| set == self.instructions.load().unwrap_or_else(|_| set.clone()));
        Ok(if default { Vec::new() } else { vec![parameter] })
    }

    fn work(&self) -> Work<'_> {
        Work::Whole(self)
    }
}

/// Counts of what was left out or is unusual.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    without_rejected: usize,
    without_preferred: usize,
    identical: usize,
    /// Pairs with an empty preferred response.
    empty_chosen: usize,
    /// Pairs with a response to a prompt outside the built-in sets.
    own_prompts: usize,
    /// Prompts that ask for a description: the instructions, and those of preferred responses.
    describing: HashSet<String>,
}

impl PairNode {
    /// One pair for each preferred response that has a rejected one, in the order of the preferred.
    fn pairs(&self, inputs: &Inputs, context: &dyn Context) -> Result<(Vec<(Pair, Label)>, Counts), Failure> {
        let instructions = self.instructions.load()?;
        let mut rejected: HashMap<ItemId, (Response, &str)> = HashMap::new();
        for artifact in inputs.artifacts("rejected") {
            for (response, label) in labeled_of::<Response>(inputs, artifact)? {
                let id = response.id.clone();
                if let Some((_, node)) = rejected.get(&id) {
                    let name = name(&id, &label);
                    let message = format!("{name} has two rejected responses, of `{node}` and `{}`", artifact.node);
                    return Err(Failure::node(message).help(
                        "give the nodes complementary shares, such as `fraction = [0.0, 0.5]` and `[0.5, 1.0]`",
                    ));
                }
                rejected.insert(id, (response, &artifact.node));
            }
        }
        let built_in = BUILT_IN.into_iter().filter(|name| *name != MISLEADING).filter_map(PromptSet::built_in);
        let describing = built_in.chain([instructions.clone()]).flat_map(|set| set.prompts().to_vec()).collect();
        let mut counts = Counts { describing, ..Counts::default() };
        let mut pairs = Vec::new();
        let mut seen = HashSet::new();
        for (preferred, label) in labeled::<Response>(inputs, "preferred")? {
            let id = preferred.id.clone();
            let label = carried(label, Some(preferred.picture), context);
            if !seen.insert(id.clone()) {
                let message = format!("{} has two preferred responses", name(&id, &label));
                return Err(Failure::node(message).help("connect each picture's preferred responses once"));
            }
            let Some((rejected, node)) = rejected.remove(&id) else {
                counts.without_rejected += 1;
                continue;
            };
            let instruction = instructions.draw(context.pipeline_seed(), &id);
            if rejected.altered.is_some() && rejected.prompt != instruction {
                let message = format!(
                    "the rejected response about {}, generated by `{node}` from an altered picture, answers {:?}, but its instruction is {instruction:?}",
                    name(&id, &label),
                    rejected.prompt,
                );
                return Err(Failure::node(message)
                    .help(format!("use the same set for `prompts` of `{node}` and `instructions` of this node")));
            }
            if preferred.text == rejected.text {
                counts.identical += 1;
                if self.drop_identical {
                    continue;
                }
            }
            if !preferred.prompt.is_empty() && !counts.describing.contains(&preferred.prompt) {
                counts.describing.insert(preferred.prompt.clone());
            }
            counts.empty_chosen += usize::from(preferred.text.trim().is_empty());
            counts.own_prompts +=
                usize::from([&preferred.prompt, &rejected.prompt].into_iter().any(|prompt| is_own(prompt)));
            let kind = if rejected.altered.is_some() { OriginKind::Corrupted } else { OriginKind::Misled };
            let pair = Pair {
                id,
                picture: preferred.picture,
                instruction: instruction.to_owned(),
                chosen: preferred.text,
                rejected: rejected.text,
                origin: Origin { kind, prompt: rejected.prompt, altered: rejected.altered },
            };
            pairs.push((pair, label));
        }
        counts.without_preferred = rejected.len();
        Ok((pairs, counts))
    }
}

impl PairNode {
    /// The mistake that altered pictures are described with other prompts; `rejected` are the promises about their
    /// descriptions.
    fn check_instructions(&self, rejected: &[Parameter]) -> Option<FileProblem> {
        let drawn = Value::from(self.instructions.load().ok()?.prompts().to_vec());
        let other = |promise: &&Parameter| promise.name == ALTERED_PROMPTS && promise.value != drawn;
        let asked = rejected.iter().find(other)?;
        let built_in = |name: &&str| {
            PromptSet::built_in(name).is_some_and(|set| Value::from(set.prompts().to_vec()) == asked.value)
        };
        let remedy = match BUILT_IN.into_iter().find(built_in) {
            Some(name) => format!("write `instructions = \"{name}\"`"),
            None => "set `instructions` to the value of `prompts` in the node that describes them".to_owned(),
        };
        Some(FileProblem {
            parameter: "inputs.rejected".to_owned(),
            message: "altered pictures are described with other `prompts` than the `instructions` that pairs draw from"
                .to_owned(),
            help: Some(format!("both responses of a pair answer its instruction: {remedy}")),
        })
    }

    /// What the line of the summary says of the instructions, where somebody's own prompts play a part: with prompts of
    /// one's own on one side alone, it is easily overlooked what the pairs answer.
    fn reported_instructions(&self, counts: &Counts) -> Result<String, Failure> {
        let set = self.instructions.load()?;
        let built_in = BUILT_IN.into_iter().find(|name| PromptSet::built_in(name).as_ref() == Some(&set));
        let own = built_in.is_none();
        Ok(match (&self.instructions, built_in, set.prompts()) {
            _ if !own && counts.own_prompts == 0 => String::new(),
            (_, Some(name), prompts) => format!("; instructions: `{name}` ({})", counted(prompts.len(), "prompt")),
            (Prompts::File(path), None, prompts) => {
                format!("; instructions: `{}` ({})", path.display(), counted(prompts.len(), "prompt"))
            }
            (Prompts::Given(_), None, [only]) => format!("; instruction: {only:?}"),
            (Prompts::Given(_), None, [first, rest @ ..]) => {
                format!("; instructions: {first:?} and {} more custom prompts", rest.len())
            }
            (Prompts::Given(_), None, []) => String::new(),
        })
    }
}

/// The name of an item in messages: its label and its id.
fn name(id: &ItemId, label: &Label) -> String {
    match label {
        Label { place: None, path: None, name: None } => item_name(id, label),
        _ => format!("{} ({})", item_name(id, label), id.short()),
    }
}

/// Whether a prompt is outside the built-in sets. Imported responses may lack theirs.
fn is_own(prompt: &str) -> bool {
    let built_in =
        |name: &&str| PromptSet::built_in(name).is_some_and(|set| set.prompts().iter().any(|text| text == prompt));
    !prompt.is_empty() && !BUILT_IN.iter().any(built_in)
}

/// Gives every pair the rejected response of the next one in a random cycle, so that none keeps its own.
fn shuffle(pairs: &mut [Pair], seed: u64) {
    let mut ring: Vec<_> = (0..pairs.len()).collect();
    ring.sort_by_cached_key(|index| (Draws::new(seed, "shuffled", pairs[*index].id.as_str()).next_u64(), *index));
    let mut others: Vec<Option<(String, Origin)>> = vec![None; pairs.len()];
    for (position, index) in ring.iter().enumerate() {
        let next = &pairs[ring[(position + 1) % ring.len()]];
        others[*index] = Some((next.rejected.clone(), next.origin.clone()));
    }
    for (pair, other) in pairs.iter_mut().zip(others) {
        (pair.rejected, pair.origin) = other.expect("every pair is in the ring once");
    }
}

impl WholeWork for PairNode {
    fn run(&self, inputs: &Inputs, context: &dyn Context) -> Result<Output, Failure> {
        let (pairs, counts) = self.pairs(inputs, context)?;
        let (mut pairs, labels): (Vec<Pair>, Vec<Label>) = pairs.into_iter().unzip();
        if pairs.is_empty() {
            return Err(Failure::node("no picture has both a preferred and a rejected response")
                .help("describe the same pictures on both sides, with shares on the rejected side that cover them"));
        }
        if self.rejected_from == RejectedFrom::Shuffled {
            shuffle(&mut pairs, context.seed());
        }
        if counts.without_preferred > 0 {
            context.note(&format!(
                "left out {} without a preferred one",
                counted(counts.without_preferred, "rejected response")
            ));
        }
        if counts.identical > 0 && !self.drop_identical {
            let have = if counts.identical == 1 { "has" } else { "have" };
            let pairs = counted(counts.identical, "pair");
            context.note(&format!("{pairs} {have} equal responses; `drop_identical = true` drops them"));
        }
        if counts.empty_chosen > 0 {
            context.note(&format!(
                "{} of {} {} an empty `chosen`: training prefers an empty response there",
                counts.empty_chosen,
                counted(pairs.len(), "pair"),
                if counts.empty_chosen == 1 { "has" } else { "have" },
            ));
        }
        let instructions = self.reported_instructions(&counts)?;
        let objects = context.objects();
        // The altered pictures of imported responses may not be available.
        let altered = pairs.iter().filter_map(|pair| pair.origin.altered.as_ref().map(|altered| altered.picture));
        let altered = altered.filter(|picture| objects.path(picture).is_ok()).collect();
        let shown = (0..3.min(pairs.len())).map(|n| n * pairs.len() / 3.min(pairs.len()));
        let samples = shown.map(|index| sample(&pairs[index], &counts.describing)).collect();
        Ok(Output {
            identity: vec![part("pairs.jsonl", &write_lines(&pairs), objects)?],
            side: vec![part(LABELS, &write_lines(&labels), objects)?],
            objects: altered,
            summary: Summary {
                line: line(&pairs, &counts, self.drop_identical) + &instructions,
                blocks: samples,
                ..Summary::default()
            },
        })
    }
}

/// How the rejected response was made, in a word. `describing` are prompts that ask for no more than a description.
fn origin<'a>(pair: &'a Pair, describing: &HashSet<String>) -> &'a str {
    match (&pair.origin.altered, pair.origin.kind) {
        (Some(altered), _) => &altered.operation,
        (None, OriginKind::Corrupted) => "corrupted",
        // A pair only says that the picture was not altered. Imported responses need not say what they answer.
        (None, OriginKind::Misled) if describing.contains(&pair.origin.prompt) => "described",
        (None, OriginKind::Misled) if pair.origin.prompt.is_empty() => "imported",
        (None, OriginKind::Misled) => "misled",
        (None, OriginKind::Imported) => "imported",
    }
}

fn line(pairs: &[Pair], counts: &Counts, dropped: bool) -> String {
    let mut origins: BTreeMap<&str, usize> = BTreeMap::new();
    pairs.iter().for_each(|pair| *origins.entry(origin(pair, &counts.describing)).or_default() += 1);
    let origins: Vec<String> = origins.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let mut line = format!("{}: {}", counted(pairs.len(), "pair"), origins.join(", "));
    if counts.without_rejected > 0 {
        line += &format!("; {} without a rejected response", counted(counts.without_rejected, "picture"));
    }
    if counts.empty_chosen > 0 {
        line += &format!("; {} with an empty `chosen`", counts.empty_chosen);
    }
    if dropped && counts.identical > 0 {
        line += &format!("; {} left out", counted(counts.identical, "identical pair"));
    }
    line
}

/// A pair as text, with long responses cut.
fn sample(pair: &Pair, describing: &HashSet<String>) -> Block {
    let cut = |text: &str| {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.chars().count() <= 240 { words } else { words.chars().take(239).chain(['…']).collect() }
    };
    let fields = vec![
        ("instruction".to_owned(), cut(&pair.instruction)),
        ("chosen".to_owned(), cut(&pair.chosen)),
        (format!("rejected ({})", origin(pair, describing)), cut(&pair.rejected)),
    ];
    Block::Sample(Sample { file: pair.picture, name: None, text: String::new(), fields })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::harness::{TestContext, read};
    use super::*;
    use crate::artifact::{Altered, Finish, read_lines};
    use stic_engine::digest::Digest;
    use stic_engine::node::{Artifact, Objects};

    fn id(n: u8) -> ItemId {
        ItemId::new(Digest::of(&[n]))
    }

    fn response(n: u8, prompt: &str, text: &str) -> Response {
        let (prompt, text) = (prompt.to_owned(), text.to_owned());
        Response { id: id(n), picture: Digest::of(&[n]), altered: None, prompt, text, tokens: 1, finish: Finish::Stop }
    }

    /// x of an item under the harness's seed.
    fn instruction(n: u8) -> String {
        PromptSet::built_in(INSTRUCTIONS).unwrap().draw(7, &id(n)).to_owned()
    }

    fn corrupted(n: u8, prompt: &str, text: &str) -> Response {
        let altered =
            Altered { picture: Digest::of(b"x"), operation: "low_resolution".to_owned(), values: Default::default() };
        Response { altered: Some(altered), ..response(n, prompt, text) }
    }

    fn paired(
        text: &str,
        preferred: &[Response],
        rejected: &[&[Response]],
    ) -> Result<(Vec<Pair>, Output, TestContext), Failure> {
        let harness = TestContext::new();
        let artifact = |(n, rows): (usize, &[Response])| {
            let made = harness.artifact(artifact::RESPONSES, &write_lines(rows));
            Artifact { node: format!("side{n}"), ..made }
        };
        let rejected = rejected.iter().copied().enumerate().map(artifact).collect();
        let ports = [("preferred", vec![artifact((9, preferred))]), ("rejected", rejected)].into();
        let node = read(&PairKind, text, &["preferred", "rejected"], Path::new("m")).unwrap();
        let output = harness.run(node.as_ref(), ports)?;
        let pairs = read_lines(&harness.objects.read(&output.identity[0].digest).unwrap()).unwrap();
        Ok((pairs, output, harness))
    }

    #[test]
    fn other_prompts_for_altered_pictures_are_a_mistake_before_anything_runs() {
        let asked = |set: &[String]| vec![Parameter::selection(ALTERED_PROMPTS, set.to_vec())];
        let check = |text: &str, rejected: Vec<Parameter>| -> Vec<String> {
            let node = read(&PairKind, text, &["preferred", "rejected"], Path::new("m")).unwrap();
            let above = |port: &str| if port == "rejected" { rejected.clone() } else { Vec::new() };
            let problems = node.check_inputs(&above).into_iter();
            problems.map(|problem| format!("{}: {}", problem.parameter, problem.help.unwrap_or_default())).collect()
        };
        let (captions, own) = (PromptSet::built_in(INSTRUCTIONS).unwrap(), ["Tell me.".to_owned()]);
        assert!(check("", asked(captions.prompts())).is_empty() && check("", Vec::new()).is_empty());
        assert!(check("instructions = [\"Tell me.\"]", asked(&own)).is_empty());
        assert!(check("", asked(&own))[0].starts_with("inputs.rejected: both responses of a pair answer"));
        let reported = check("instructions = [\"Tell me.\"]", asked(captions.prompts()));
        assert!(reported[0].ends_with("write `instructions = \"stic:captions\"`"), "{reported:?}");
    }

    #[test]
    fn pairs_follow_the_preferred_side_under_the_drawn_instruction() {
        let preferred = [response(3, "x_g", "good 3"), response(1, "x_g", "good 1"), response(2, "x_g", "good 2")];
        let misled = [response(1, "Imagine.", "bad 1")];
        let from_corrupted = [corrupted(3, &instruction(3), "bad 3")];
        let (pairs, output, _) = paired("", &preferred, &[&from_corrupted, &misled]).unwrap();
        assert_eq!(pairs.iter().map(|pair| pair.chosen.as_str()).collect::<Vec<_>>(), ["good 3", "good 1"]);
        assert_eq!(pairs[1].instruction, instruction(1));
        assert_eq!((pairs[1].origin.kind, pairs[1].origin.prompt.as_str()), (OriginKind::Misled, "Imagine."));
        assert_eq!(pairs[0].picture, Digest::of(&[3]));
        assert!(output.objects.is_empty(), "the altered picture lies elsewhere, as one of imported responses may");
        assert_eq!(
            output.summary.line,
            "2 pairs: 1 low_resolution, 1 misled; 1 picture without a rejected response; instructions: `stic:captions` (8 prompts)"
        );
        assert_eq!(output.summary.blocks.len(), 2);
        let Block::Sample(Sample { fields, .. }) = &output.summary.blocks[0] else { panic!("not a sample") };
        let field = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(fields[1..], [field("chosen", "good 3"), field("rejected (low_resolution)", "bad 3")]);
    }

    #[test]
    fn two_rejected_responses_fail_and_name_the_nodes() {
        let error =
            paired("", &[response(1, "g", "a")], &[&[response(1, "h", "b")], &[response(1, "i", "c")]]).err().unwrap();
        assert!(error.to_string().ends_with("has two rejected responses, of `side0` and `side1`"), "{error}");
    }

    #[test]
    fn an_altered_picture_must_have_been_described_under_the_very_instruction() {
        let error = paired("", &[response(1, "g", "a")], &[&[corrupted(1, "Another prompt.", "b")]]).err().unwrap();
        assert!(error.to_string().contains(&id(1).short()) && error.to_string().contains("Another prompt."), "{error}");
    }

    #[test]
    fn identical_responses_stay_unless_told_otherwise() {
        let preferred = [response(1, "g", "same"), response(2, "g", "a")];
        let rejected = [response(1, "h", "same"), response(2, "h", "b")];
        let (pairs, _, harness) = paired("", &preferred, &[&rejected]).unwrap();
        assert_eq!((pairs.len(), harness.notes.lock().unwrap().len()), (2, 1));
        let (pairs, output, _) = paired("drop_identical = true", &preferred, &[&rejected]).unwrap();
        assert_eq!(pairs.len(), 1);
        assert!(output.summary.line.contains("; 1 identical pair left out"), "{}", output.summary.line);
    }

    #[test]
    fn plain_descriptions_of_unaltered_pictures_are_not_called_misled() {
        let word = |preferred: &str, rejected: &str| {
            let made = paired("", &[response(1, preferred, "a")], &[&[response(1, rejected, "b")]]).unwrap();
            assert_eq!(made.0[0].origin.kind, OriginKind::Misled, "what is kept stays what it is");
            made.1.summary.line.split([' ', ';']).nth(3).unwrap().to_owned()
        };
        let prompts = |name: &str| PromptSet::built_in(name).unwrap().prompts()[0].clone();
        assert_eq!(word("x", &prompts("stic:captions")), "described");
        assert_eq!(word("x", &prompts("stic:preferred")), "described");
        assert_eq!(word("Tell me.", "Tell me."), "described");
        assert_eq!(word("Tell me.", "Lie to me."), "misled");
        assert_eq!(word("Tell me.", &prompts("stic:hallucination")), "misled");
    }

    #[test]
    fn the_instructions_are_named_where_prompts_are_not_the_papers() {
        let line = |text: &str, prompt: &str| {
            let made = paired(text, &[response(1, prompt, "a")], &[&[response(1, "stic", "b")]]);
            made.unwrap().1.summary.line.strip_prefix("1 pair: 1 misled").unwrap().to_owned()
        };
        assert_eq!(line("instructions = [\"Say.\"]", "x"), "; instruction: \"Say.\"");
        assert_eq!(
            line("instructions = [\"Say.\", \"Tell.\"]", "x"),
            "; instructions: \"Say.\" and 1 more custom prompts"
        );
        assert_eq!(line("instructions = \"stic:preferred\"", "x"), "; instructions: `stic:preferred` (1 prompt)");
        let [preferred, misleading] = ["stic:preferred", "stic:hallucination"]
            .map(|name| PromptSet::built_in(name).unwrap().prompts()[0].clone());
        let made = paired("", &[response(1, &preferred, "a")], &[&[response(1, &misleading, "b")]]).unwrap();
        assert_eq!(made.1.summary.line, "1 pair: 1 misled", "the recipe's own prompts are what everybody expects");
    }

    #[test]
    fn pairs_that_prefer_saying_nothing_are_counted() {
        let preferred = [response(1, "", " "), response(2, "", "a")];
        let (_, output, harness) = paired("", &preferred, &[&[response(1, "", "b"), response(2, "", "c")]]).unwrap();
        assert_eq!(output.summary.line, "2 pairs: 2 imported; 1 with an empty `chosen`");
        assert_eq!(
            *harness.notes.lock().unwrap(),
            ["1 of 2 pairs has an empty `chosen`: training prefers an empty response there"]
        );
    }

    #[test]
    fn the_control_gives_every_pair_the_rejected_response_of_another() {
        let side =
            |name: &str| -> Vec<Response> { (0..20).map(|n| response(n, "p", &format!("{name} {n}"))).collect() };
        let (pairs, ..) = paired("rejected_from = \"shuffled\"", &side("good"), &[&side("bad")]).unwrap();
        let number = |text: &str| text.split(' ').nth(1).unwrap().to_owned();
        assert!(pairs.iter().all(|pair| number(&pair.chosen) != number(&pair.rejected)));
        let all: HashSet<_> = pairs.iter().map(|pair| &pair.rejected).collect();
        assert_eq!(all.len(), 20);
    }

    #[test]
    fn no_pair_is_a_failure() {
        assert!(paired("", &[response(1, "g", "a")], &[&[response(2, "h", "b")]]).is_err());
    }

    #[test]
    fn an_unknown_prompt_set_is_reported_with_the_nearest() {
        let reported = read(&PairKind, "instructions = \"stic:caption\"", &[], Path::new("m")).err().unwrap();
        assert!(reported[0].starts_with("unknown prompt set `stic:caption`"), "{reported:?}");
    }

    #[test]
    fn the_default_instructions_stay_out_of_the_key() {
        let key = |text: &str| {
            let node = read(&PairKind, text, &[], Path::new("m")).unwrap();
            node.sources(&TestContext::new()).unwrap().len() + node.parameters().len()
        };
        assert_eq!(
            (key(""), key("instructions = \"stic:captions\""), key("instructions = [\"Describe.\"]")),
            (0, 0, 1)
        );
    }
}
