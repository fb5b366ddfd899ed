//! Runs a node item by item: finished items come out of the journals, the others are made and journalled as they are
//! finished, bad ones are counted. It does not know what an item is.

use std::collections::HashSet;
use std::ops::ControlFlow;

use serde::Serialize;

use super::context::NodeContext;
use crate::artifact::{ItemId, write_lines};
use crate::diagnostic::counted;
use crate::digest::Digest;
use crate::event::ItemCounts;
use crate::node::{BadItem, Context, Failure, Inputs, Item, ItemValue, ItemWork, OnBadItem, Output, Part};
use crate::plan::Accepted;
use crate::store::{Claim, Items, Store};

/// The side part that lists the items that were left out.
pub const SKIPPED: &str = "skipped.jsonl";

/// How many bad items a message names.
const NAMED: usize = 3;

/// What is done item by item.
pub struct ItemRun<'a> {
    /// The node's work.
    pub work: &'a dyn ItemWork,
    /// What it reads.
    pub inputs: &'a Inputs,
    /// What it is offered.
    pub context: &'a NodeContext<'a>,
    /// Where the journals are.
    pub store: &'a Store,
    /// Which of them.
    pub function_key: Digest,
    /// Journals of other numerics classes, whose items are taken where there is none of this one's.
    pub accepted: &'a [Accepted],
    /// Waits until no other node makes items of this function: what they have in common is made once.
    pub alone: &'a (dyn Fn() -> Result<Claim, Failure> + 'a),
    /// What to do with bad items.
    pub on_bad_item: OnBadItem,
    /// Items of an earlier generation are made again.
    pub from_generation: u32,
}

/// What came of it.
pub struct ItemsMade {
    /// The node's result.
    pub output: Output,
    /// How many items there are, were found in journals, were made and were bad.
    pub counts: ItemCounts,
}

/// A line of [`SKIPPED`].
#[derive(Serialize)]
struct Skipped<'a> {
    id: &'a ItemId,
    what: &'a str,
    cause: &'a str,
}

impl ItemRun<'_> {
    /// Makes what is not there yet, and the result. `begin` is told how many items are cached, and of how many, before
    /// the first is made.
    ///
    /// # Errors
    /// See [`Failure`]; whatever it is, items that were finished stay finished.
    pub fn run(&self, begin: impl FnOnce(usize, usize)) -> Result<ItemsMade, Failure> {
        let items = self.work.items(self.inputs, self.context.pipeline_seed(), self.context.files())?;
        check_ids(&items)?;
        let (mut values, mut broken) = self.recall(&items)?;
        let mut claim = None;
        if values.iter().any(Option::is_none) {
            claim = Some((self.alone)()?);
            // Whoever had it may have made some.
            (values, broken) = self.recall(&items)?;
        }
        let pending: Vec<usize> = (0..items.len()).filter(|index| values[*index].is_none()).collect();
        if broken > 0 && !pending.is_empty() {
            let dropped = if broken == 1 { "line was" } else { "lines were" };
            self.context.note(&format!("{broken} torn {dropped} dropped: items that no other line has are made again"));
        }
        let cached = items.len() - pending.len();
        begin(cached, items.len());
        self.context.count(cached, items.len());

        let bad = if pending.is_empty() { Vec::new() } else { self.make(&items, &pending, &mut values)? };
        drop(claim);
        if let Some(failure) = self.too_bad(&bad, items.len()) {
            return Err(failure);
        }
        let values: Vec<(usize, ItemValue)> =
            values.into_iter().enumerate().filter_map(|(index, value)| Some((index, value?))).collect();
        let mut output = self.work.collect(self.inputs, &values, self.context)?;
        output.objects.extend(values.iter().flat_map(|(_, value)| &value.objects));
        if !bad.is_empty() {
            self.report(&items, &bad, &mut output)?;
        }
        let counts = ItemCounts { total: items.len(), cached, done: values.len() - cached, skipped: bad.len() };
        Ok(ItemsMade { output, counts })
    }

    /// The values of the items that were finished earlier, if all that they name is there, and how many lines of the
    /// journals are torn.
    fn recall(&self, items: &[Item]) -> Result<(Vec<Option<ItemValue>>, usize), Failure> {
        let own = self.store.settled_items(&self.function_key)?;
        let mut values: Vec<Option<ItemValue>> = vec![None; items.len()];
        self.fill_in(&own, items, &mut values)?;
        for other in self.accepted {
            self.fill_in(&self.store.settled_items(&other.function_key)?, items, &mut values)?;
        }
        Ok((values, own.broken()))
    }

    /// Puts the values that `finished` has into the places that are empty.
    fn fill_in(&self, finished: &Items, items: &[Item], values: &mut [Option<ItemValue>]) -> Result<(), Failure> {
        // Read, not believed: the result will name them.
        let there = |objects: &[Digest]| self.store.has_objects(objects);
        for (item, value) in items.iter().zip(values).filter(|(_, value)| value.is_none()) {
            let counts = finished.generation_of(item).is_some_and(|generation| generation >= self.from_generation);
            if counts && finished.is_usable(item, there)? {
                *value = finished.get(item);
            }
        }
        Ok(())
    }

    /// Makes the items `pending` and puts them into `values`; returns the bad ones.
    fn make(
        &self,
        items: &[Item],
        pending: &[usize],
        values: &mut [Option<ItemValue>],
    ) -> Result<Vec<(usize, BadItem)>, Failure> {
        let generation = self.from_generation.max(1);
        let mut journal = self.store.journal(&self.function_key, generation);
        let mut unfinished: HashSet<usize> = pending.iter().copied().collect();
        let mut bad = Vec::new();
        let mut trouble = None;
        let total = items.len();
        let mapped = self.work.map(self.inputs, pending, self.context, &mut |index, made| {
            if trouble.is_some() || self.context.unavailable().is_some() {
                return ControlFlow::Break(());
            }
            if !unfinished.remove(&index) {
                trouble = Some(Failure::node(format!("item {index} was finished without being pending")));
                return ControlFlow::Break(());
            }
            match made {
                Ok(value) => {
                    if let Err(error) = journal.append(&items[index], &value) {
                        trouble = Some(error.into());
                        return ControlFlow::Break(());
                    }
                    values[index] = Some(value);
                }
                // All of them are told at once: each would cost another run.
                Err(item) => bad.push((index, item)),
            }
            self.context.count(total - unfinished.len(), total);
            if trouble.is_some() || self.context.interrupted() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        journal.sync()?;
        if let Some(failure) = trouble.or_else(|| self.context.unavailable()) {
            return Err(failure);
        }
        mapped?;
        if unfinished.is_empty() {
            bad.sort_by_key(|(index, _)| *index);
            // Another process may have finished some of them first: everybody uses the same values.
            let finished = journal.finish()?;
            let made: Vec<usize> = pending.iter().copied().filter(|index| values[*index].is_some()).collect();
            made.iter().for_each(|index| values[*index] = None);
            self.fill_in(&finished, items, values)?;
            if made.iter().any(|index| values[*index].is_none()) {
                let gone = "an item that was just finished is gone from the cache";
                return Err(Failure::environment(gone).help("run again: what is missing is made again"));
            }
            Ok(bad)
        } else if self.context.interrupted() {
            Err(Failure::Interrupted)
        } else {
            Err(Failure::node(format!("{} items were left unfinished", unfinished.len())))
        }
    }

    /// Whether there are more bad items than are put up with.
    fn too_bad(&self, bad: &[(usize, BadItem)], total: usize) -> Option<Failure> {
        const AGAIN: &str = "mend or remove what is named, and run again; finished items are kept";
        if self.on_bad_item.allows(bad.len(), total) {
            return None;
        }
        let (count, node, named) = (bad.len(), self.context.node, named(bad));
        let are = if count == 1 { "is" } else { "are" };
        let items = counted(total, "item");
        Some(match self.on_bad_item {
            // Nothing would be left, whatever may be skipped.
            _ if count == total => {
                let all = if total == 1 { "the only item is".to_owned() } else { format!("all {total} items are") };
                Failure::node(format!("{all} bad: {named}")).help(AGAIN)
            }
            OnBadItem::Fail => {
                let help = format!("{AGAIN}; without `on_bad_item = \"fail\"` in [nodes.{node}] a few are skipped");
                Failure::node(format!("{count} of {items} {are} bad: {named}")).help(help)
            }
            OnBadItem::Skip { at_most: 1.0 } => {
                Failure::node(format!("{count} of {items} {are} bad: {named}")).help(AGAIN)
            }
            OnBadItem::Skip { .. } => {
                let limit = self.on_bad_item.told();
                let help = format!("{AGAIN}; `on_bad_item = \"skip\"` in [nodes.{node}] skips any number");
                Failure::node(format!("{count} of {items} {are} bad, and {limit}: {named}")).help(help)
            }
        })
    }

    /// Lists the items that were left out in the side part, counts them in the summary, and says so.
    fn report(&self, items: &[Item], bad: &[(usize, BadItem)], output: &mut Output) -> Result<(), Failure> {
        let lines: Vec<_> = bad
            .iter()
            .map(|(index, bad)| Skipped { id: &items[*index].id, what: &bad.what, cause: &bad.cause })
            .collect();
        let digest = self.store.put_object(&write_lines(&lines))?;
        output.side.push(Part { name: SKIPPED.to_owned(), digest });
        let count = format!("{} of {} skipped", bad.len(), counted(items.len(), "item"));
        let line = &mut output.summary.line;
        *line = if line.is_empty() { count.clone() } else { format!("{line}, {count}") };
        self.context.note(&format!("{count}: {}", named(bad)));
        Ok(())
    }
}

fn named(bad: &[(usize, BadItem)]) -> String {
    let mut text =
        bad.iter()
            .take(NAMED)
            .map(|(_, bad)| {
                if bad.cause.contains(&bad.what) { bad.cause.clone() } else { format!("`{}`: {}", bad.what, bad.cause) }
            })
            .collect::<Vec<_>>()
            .join("; ");
    if bad.len() > NAMED {
        text.push_str(&format!("; and {} more", bad.len() - NAMED));
    }
    text
}

fn check_ids(items: &[Item]) -> Result<(), Failure> {
    let mut seen = HashSet::with_capacity(items.len());
    match items.iter().find(|item| !seen.insert(&item.id)) {
        Some(item) => Err(Failure::node(format!("two items have the id {}", item.id.short()))
            .help("an item may come in once: leave out one of the inputs that bring it")),
        None => Ok(()),
    }
}
