//! The parameter `fraction`: which share of the items a node takes, and checks of shares before a run.

use crate::artifact::ItemId;
use stic_engine::diagnostic::counted;
use stic_engine::digest::Value;
use stic_engine::draw::Draws;
use stic_engine::node::{Failure, FileProblem, Parameter};
use stic_engine::parameters;
use stic_engine::spec::parameter::interval;

const WHOLE: [f64; 2] = [0.0, 1.0];

parameters! {
    /// `fraction = [a, b]`: takes the items with a ≤ u < b. The number u in [0, 1) depends only on the pipeline's seed
    /// and the item, so that [0, 0.5] and [0.5, 1] are complementary in any two nodes.
    pub struct Fraction {
        /// `[a, b]` takes the items with a ≤ u < b, where u is a random number in [0, 1) fixed per item; `[0, 0.5]` and `[0.5, 1]` are complementary
        fraction: [f64; 2] = interval(0.0..=1.0).default(WHOLE).selection(),
    }
}

impl Fraction {
    /// Whether `id` is in the share.
    pub fn keeps(&self, pipeline_seed: u64, id: &ItemId) -> bool {
        let [low, high] = self.fraction;
        let share = || Draws::new(pipeline_seed, "share", id.as_str()).uniform();
        !self.draws() || (low..high).contains(&share())
    }

    /// Whether the pipeline's seed matters.
    pub fn draws(&self) -> bool {
        self.fraction != WHOLE
    }

    /// Checks that some of `all` items are taken.
    ///
    /// # Errors
    /// When none is.
    pub fn check_kept(&self, kept: usize, all: usize) -> Result<(), Failure> {
        let [low, high] = self.fraction;
        match (kept, all) {
            (1.., _) => Ok(()),
            (0, 0) => Err(Failure::node("there is nothing to do: the inputs have no pictures")),
            (0, _) => {
                Err(Failure::node(format!("`fraction = [{low}, {high}]` selects none of {}", counted(all, "picture")))
                    .help("widen `fraction`, or sample more pictures: if there are few, all of them may belong to the other share"))
            }
        }
    }

    /// The promises of the shares taken from inputs with the promises `above`.
    pub fn promises(&self, above: &[Parameter]) -> Vec<Parameter> {
        let taken = self.of(above);
        // A duplicate is reported here, not again in the nodes below.
        let first = |n: &usize| taken[..*n].iter().all(|before| before.meets(&taken[*n]).is_none());
        (0..taken.len()).filter(first).map(|n| taken[n].promise()).collect()
    }

    /// The mistake that this takes nothing from `port`, or an item twice, given the promises `above`.
    pub fn check(&self, port: &str, above: &[Parameter]) -> Option<FileProblem> {
        let (all, taken) = (Stream::all(above), self.of(above));
        if taken.is_empty() && !all.is_empty() {
            let shares: Vec<String> = all.iter().map(|stream| stream.described()).collect();
            return Some(FileProblem {
                parameter: "fraction".to_owned(),
                message: format!("`fraction` selects nothing from the inputs: {}", shares.join(", ")),
                help: Some(SAME_EVERYWHERE.to_owned()),
            });
        }
        repeated(port, &taken)
    }

    fn of(&self, above: &[Parameter]) -> Vec<Stream> {
        let narrowed = |stream: Stream| Some(Stream { share: overlap(stream.share, self.fraction)?, ..stream });
        Stream::all(above).into_iter().filter_map(narrowed).collect()
    }
}

/// The promise of the items that come from one source.
const ITEMS: &str = "items";

const SAME_EVERYWHERE: &str = "an item belongs to the same share in every node of a pipeline";

/// A share of the items of a source. Overlapping shares of one source have items in common; nothing is known about
/// those of different sources.
#[derive(Clone, Debug, PartialEq)]
struct Stream {
    /// The number and name of the node the items come from. Names of imported files may repeat.
    source: (i64, String),
    /// The node through which they come.
    node: String,
    share: [f64; 2],
}

impl Stream {
    fn all(promises: &[Parameter]) -> Vec<Self> {
        promises.iter().filter_map(Self::promised).collect()
    }

    fn promised(promise: &Parameter) -> Option<Self> {
        let Value::List(fields) = &promise.value else { return None };
        let [Value::Integer(number), Value::String(name), Value::String(node), Value::Float(low), Value::Float(high)] =
            fields.as_slice()
        else {
            return None;
        };
        (promise.name == ITEMS).then(|| Self {
            source: (*number, name.clone()),
            node: node.clone(),
            share: [*low, *high],
        })
    }

    fn promise(&self) -> Parameter {
        let (number, name) = &self.source;
        let [low, high] = self.share;
        let fields = vec![
            Value::Integer(*number),
            name.as_str().into(),
            self.node.as_str().into(),
            Value::Float(low),
            Value::Float(high),
        ];
        Parameter::selection(ITEMS, Value::List(fields))
    }

    /// `` `misled` has [0, 0.5] of `images` ``.
    fn described(&self) -> String {
        format!("`{}` has {} of `{}`", self.node, shown(self.share), self.source.1)
    }

    /// The overlap, if both are of one source.
    fn meets(&self, other: &Self) -> Option<[f64; 2]> {
        if self.source.0 == other.source.0 { overlap(self.share, other.share) } else { None }
    }
}

fn overlap(one: [f64; 2], other: [f64; 2]) -> Option<[f64; 2]> {
    let both = [one[0].max(other[0]), one[1].min(other[1])];
    (both[0] < both[1]).then_some(both)
}

fn shown(share: [f64; 2]) -> String {
    let [low, high] = share;
    if share == WHOLE { "all".to_owned() } else { format!("the share [{low}, {high}]") }
}

/// Completes the promises `found` of `node` with its name and `number`: with `is_source`, its items come from itself.
pub fn name_items(promises: &mut Vec<Parameter>, number: usize, node: &str, is_source: bool) {
    if is_source {
        promises.push(Stream { source: (number as i64, node.to_owned()), node: String::new(), share: WHOLE }.promise());
    }
    for promise in promises {
        if let Some(stream) = Stream::promised(promise) {
            *promise = Stream { node: node.to_owned(), ..stream }.promise();
        }
    }
}

/// The mistake that `port` gets an item twice, if that is known.
pub fn check_once(port: &str, above: &dyn Fn(&str) -> Vec<Parameter>) -> Option<FileProblem> {
    repeated(port, &Stream::all(&above(port)))
}

fn repeated(port: &str, streams: &[Stream]) -> Option<FileProblem> {
    let mut pairs = streams.iter().enumerate().flat_map(|(n, one)| streams[..n].iter().map(move |other| (other, one)));
    let (one, other, both) = pairs.find_map(|(one, other)| Some((one, other, one.meets(other)?)))?;
    let (message, help) = if one.node == other.node {
        (format!("`inputs.{port}` names `{}` twice", one.node), "name it once".to_owned())
    } else {
        let (source, both) = (&one.source.1, shown(both));
        (
            format!("`{port}` gets the same items from `{}` and `{}`: {both} of `{source}`", one.node, other.node),
            format!(
                "give the two nodes complementary shares, such as `fraction = [0.0, 0.5]` and `[0.5, 1.0]`, \
                 or leave one out; {SAME_EVERYWHERE}"
            ),
        )
    };
    Some(FileProblem { parameter: format!("inputs.{port}"), message, help: Some(help) })
}

/// The mistake that `port` and `other` have no item in common, if that is known.
pub fn check_meeting(port: &str, other: &str, above: &dyn Fn(&str) -> Vec<Parameter>) -> Option<FileProblem> {
    let (ours, theirs) = (Stream::all(&above(port)), Stream::all(&above(other)));
    let meet = |one: &Stream, other: &Stream| one.source.0 != other.source.0 || one.meets(other).is_some();
    // An input without promises may hold any item.
    let apart = !ours.is_empty() && !theirs.is_empty() && !ours.iter().any(|one| theirs.iter().any(|it| meet(one, it)));
    apart.then(|| {
        let described: Vec<String> = theirs.iter().chain(&ours).map(Stream::described).collect();
        FileProblem {
            parameter: format!("inputs.{port}"),
            message: format!("`{port}` and `{other}` have no item in common: {}", described.join(", ")),
            help: Some(format!("choose `fraction`s on one side that cover the other's; {SAME_EVERYWHERE}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stic_engine::digest::Digest;

    #[test]
    fn complements_take_every_item_once() {
        let (first, second) = (Fraction { fraction: [0.0, 0.3] }, Fraction { fraction: [0.3, 1.0] });
        let ids: Vec<ItemId> = (0..2000u32).map(|n| ItemId::new(Digest::of(&n.to_le_bytes()))).collect();
        assert!(ids.iter().all(|id| first.keeps(42, id) != second.keeps(42, id)));
        let kept = ids.iter().filter(|id| first.keeps(42, id)).count();
        assert!((540..660).contains(&kept), "{kept}");
        assert!(ids.iter().all(|id| Fraction { fraction: WHOLE }.keeps(42, id)));
    }

    #[test]
    fn a_share_that_takes_nothing_is_a_failure() {
        let reported = |kept, all| {
            Fraction { fraction: [0.0, 0.01] }.check_kept(kept, all).err().map(|failure| failure.to_string())
        };
        assert_eq!(reported(1, 5), None);
        assert_eq!(reported(0, 5).as_deref(), Some("`fraction = [0, 0.01]` selects none of 5 pictures"));
        assert_eq!(reported(0, 0).as_deref(), Some("there is nothing to do: the inputs have no pictures"));
    }

    /// Promises of shares of the source 0, each of a node of its own.
    fn shares(list: &[(&str, [f64; 2])]) -> Vec<Parameter> {
        let promised = |(node, share): &(&str, [f64; 2])| {
            let mut source = Vec::new();
            name_items(&mut source, 0, "images", true);
            let mut promises = Fraction { fraction: *share }.promises(&source);
            name_items(&mut promises, 1, node, false);
            promises
        };
        list.iter().flat_map(promised).collect()
    }

    #[test]
    fn shares_of_one_source_that_overlap_bring_items_twice() {
        let reported =
            |list: &[(&str, [f64; 2])]| check_once("rejected", &|_| shares(list)).map(|problem| problem.message);
        assert_eq!(reported(&[("a", [0.0, 0.5]), ("b", [0.5, 1.0])]), None);
        assert_eq!(
            reported(&[("a", [0.0, 0.6]), ("b", [0.4, 1.0])]).as_deref(),
            Some("`rejected` gets the same items from `a` and `b`: the share [0.4, 0.6] of `images`")
        );
        assert_eq!(reported(&[("a", WHOLE), ("a", WHOLE)]).as_deref(), Some("`inputs.rejected` names `a` twice"));
        let mut other = Vec::new();
        name_items(&mut other, 7, "images", true);
        assert_eq!(check_once("rejected", &|_| [shares(&[("a", WHOLE)]), other.clone()].concat()), None);
    }

    #[test]
    fn shares_that_never_meet_are_reported_and_a_narrowing_that_leaves_nothing() {
        let reported = |preferred: [f64; 2], rejected: &[(&str, [f64; 2])]| {
            let above = |port: &str| match port {
                "rejected" => shares(rejected),
                _ => shares(&[("good", preferred)]),
            };
            check_meeting("rejected", "preferred", &above).map(|problem| problem.message)
        };
        assert_eq!(reported([0.0, 0.5], &[("a", [0.5, 1.0]), ("b", [0.4, 0.5])]), None);
        assert_eq!(
            reported([0.0, 0.5], &[("bad", [0.5, 1.0])]).as_deref(),
            Some(
                "`rejected` and `preferred` have no item in common: `good` has the share [0, 0.5] of `images`, `bad` has \
                 the share [0.5, 1] of `images`"
            )
        );
        let narrowed = Fraction { fraction: [0.0, 0.5] }.check("images", &shares(&[("a", [0.5, 1.0])])).unwrap();
        assert_eq!(
            (narrowed.parameter.as_str(), narrowed.message.as_str()),
            ("fraction", "`fraction` selects nothing from the inputs: `a` has the share [0.5, 1] of `images`")
        );
        let both = shares(&[("a", [0.0, 0.6]), ("b", [0.4, 1.0])]);
        assert_eq!(Fraction { fraction: [0.0, 0.3] }.check("images", &both), None);
    }

    /// If this changes, cached pipelines get other items: raise the versions of the kinds that take shares.
    #[test]
    fn shares_are_what_they_were() {
        let share = |n: u8| (Draws::new(42, "share", ItemId::new(Digest::of(&[n])).as_str()).uniform() * 1000.0) as u32;
        assert_eq!([0, 1, 2, 3, 4].map(share), [55, 746, 396, 419, 748]);
    }
}
