//! Runs a node item by item: finished items come out of the journals, the others are made and journalled as they are
//! finished, bad ones are counted.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

use serde::Serialize;

use super::context::NodeContext;
use crate::artifact::{ItemId, write_lines};
use crate::diagnostic::counted;
use crate::digest::Digest;
use crate::event::ItemCounts;
use crate::node::{BadItem, Context, Failure, Inputs, Item, ItemWork, OnBadItem, Output, Part};
use crate::plan::Accepted;
use crate::store::{Claim, Items, Store, StoreError};

/// The side part that lists the items that were left out.
pub const SKIPPED: &str = "skipped.jsonl";

/// How many bad items a message names.
const NAMED: usize = 3;

/// A run of a node that maps items.
pub struct ItemRun<'a> {
    /// The node's work.
    pub work: &'a dyn ItemWork,
    /// What it reads.
    pub inputs: &'a Inputs,
    /// Its context.
    pub context: &'a NodeContext<'a>,
    /// The store of the journals.
    pub store: &'a Store,
    /// The key of the node's own journals.
    pub function_key: Digest,
    /// Other numerics classes, whose items are used where the own journals have none.
    pub accepted: &'a [Accepted],
    /// Claims the function: no other node makes its items meanwhile.
    pub alone: &'a (dyn Fn() -> Result<Claim, Failure> + 'a),
    /// What to do with bad items.
    pub on_bad_item: OnBadItem,
    /// The first generation whose items count.
    pub from_generation: u32,
}

/// The outcome of mapping a shard.
pub struct MapReport {
    /// How many items it has, and how many were found, made and bad.
    pub counts: ItemCounts,
    /// The bad ones, by index.
    pub bad: Vec<(usize, BadItem)>,
}

/// A line of [`SKIPPED`].
#[derive(Serialize)]
struct Skipped<'a> {
    id: &'a ItemId,
    what: &'a str,
    cause: &'a str,
}

impl ItemRun<'_> {
    /// The items, in the order of the result.
    ///
    /// # Errors
    /// When they cannot be determined, or two are one.
    pub fn items(&self) -> Result<Vec<Item>, Failure> {
        let items = self.work.items(self.inputs, self.context.pipeline_seed(), self.context.files())?;
        check_ids(&items)?;
        Ok(items)
    }

    /// Makes the items of `shard`, indices into `items`, that no journal has, and journals them. Calls `begin` with the
    /// number of cached items and of all, before the first is made.
    ///
    /// # Errors
    /// See [`Failure`]; in any case, finished items stay finished.
    pub fn map(
        &self,
        items: &[Item],
        shard: Range<usize>,
        begin: impl FnOnce(usize, usize),
    ) -> Result<MapReport, Failure> {
        let total = shard.len();
        let (mut pending, mut broken) = self.pending(items, shard.clone())?;
        let mut claim = None;
        if !pending.is_empty() {
            claim = Some((self.alone)()?);
            // The last owner of the claim may have made some.
            (pending, broken) = self.pending(items, shard)?;
        }
        if broken > 0 && !pending.is_empty() {
            let dropped = if broken == 1 { "line was" } else { "lines were" };
            self.context.note(&format!(
                "{broken} torn {dropped} dropped: their items are recomputed unless another line has them"
            ));
        }
        let cached = total - pending.len();
        begin(cached, total);
        self.context.count(cached, total);
        let bad = if pending.is_empty() { Vec::new() } else { self.make(items, &pending, total)? };
        drop(claim);
        let counts = ItemCounts { total, cached, done: pending.len() - bad.len(), skipped: bad.len() };
        Ok(MapReport { counts, bad })
    }

    /// Makes the result out of the values that the journals have of `items`, all of which were mapped.
    ///
    /// # Errors
    /// When too many items are bad, or a value is gone.
    pub fn collect(&self, items: &[Item], bad: &[(usize, BadItem)]) -> Result<Output, Failure> {
        if let Some(failure) = self.too_bad(bad, items.len()) {
            return Err(failure);
        }
        let finished = self.finished()?;
        let bad_ones: HashSet<usize> = bad.iter().map(|(index, _)| *index).collect();
        let mut places = Vec::with_capacity(items.len());
        for index in (0..items.len()).filter(|index| !bad_ones.contains(index)) {
            let Some(journal) = self.journal_of(&finished, &items[index], Store::has_objects)? else {
                let gone = "an item that was just finished is gone from the cache";
                return Err(Failure::environment(gone).help("run again to recompute what is missing"));
            };
            places.push((index, journal));
        }
        let mut objects = Vec::new();
        let mut values = places.iter().filter_map(|(index, journal)| {
            let value = journal.get(&items[*index])?;
            objects.extend_from_slice(&value.objects);
            Some((*index, value))
        });
        let mut output = self.work.collect(self.inputs, &mut values, self.context)?;
        output.objects.append(&mut objects);
        if !bad.is_empty() {
            self.report(items, bad, &mut output)?;
        }
        Ok(output)
    }

    /// The journals whose items count: the own one, then those of accepted numerics classes.
    fn finished(&self) -> Result<Vec<Items>, Failure> {
        let keys = [&self.function_key].into_iter().chain(self.accepted.iter().map(|other| &other.function_key));
        keys.map(|key| Ok(self.store.settled_items(key)?)).collect()
    }

    /// The first of `journals` that has a value of `item`, when `are_there` says so of what it names.
    fn journal_of<'a>(
        &self,
        journals: &'a [Items],
        item: &Item,
        are_there: fn(&Store, &[Digest]) -> Result<bool, StoreError>,
    ) -> Result<Option<&'a Items>, Failure> {
        for journal in journals {
            let counts = journal.generation_of(item).is_some_and(|generation| generation >= self.from_generation);
            if counts && journal.is_usable(item, |objects| are_there(self.store, objects))? {
                return Ok(Some(journal));
            }
        }
        Ok(None)
    }

    /// Those of `shard` that no journal has, and how many lines of the own journals are torn.
    fn pending(&self, items: &[Item], shard: Range<usize>) -> Result<(Vec<usize>, usize), Failure> {
        let finished = self.finished()?;
        let mut pending = Vec::new();
        for index in shard {
            // Objects are read, not believed: the result will name them.
            if self.journal_of(&finished, &items[index], Store::verify_objects)?.is_none() {
                pending.push(index);
            }
        }
        Ok((pending, finished.first().map_or(0, Items::broken)))
    }

    /// Makes the items `pending`, of `total`, and journals them; returns the bad ones.
    fn make(&self, items: &[Item], pending: &[usize], total: usize) -> Result<Vec<(usize, BadItem)>, Failure> {
        let generation = self.from_generation.max(1);
        let mut journal = self.store.journal(&self.function_key, generation);
        let mut unfinished: HashSet<usize> = pending.iter().copied().collect();
        let mut bad = Vec::new();
        let mut failed = None;
        let mapped = self.work.map(self.inputs, pending, self.context, &mut |index, made| {
            if failed.is_some() || self.context.unavailable().is_some() {
                return ControlFlow::Break(());
            }
            if !unfinished.remove(&index) {
                failed = Some(Failure::node(format!("item {index} was finished without being pending")));
                return ControlFlow::Break(());
            }
            match made {
                Ok(value) => {
                    if let Err(error) = journal.append(&items[index], &value) {
                        failed = Some(error.into());
                        return ControlFlow::Break(());
                    }
                }
                // All of them are reported at once: each would cost another run.
                Err(item) => bad.push((index, item)),
            }
            self.context.count(total - unfinished.len(), total);
            if self.context.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        journal.sync()?;
        if let Some(failure) = failed.or_else(|| self.context.unavailable()) {
            return Err(failure);
        }
        mapped?;
        if unfinished.is_empty() {
            bad.sort_by_key(|(index, _)| *index);
            // Another process may have finished some of them first: from here on everybody uses the same values.
            journal.finish()?;
            Ok(bad)
        } else if self.context.interrupted() {
            Err(Failure::Interrupted)
        } else {
            Err(Failure::node(format!("{} items were left unfinished", unfinished.len())))
        }
    }

    /// The failure of a node with too many bad items.
    fn too_bad(&self, bad: &[(usize, BadItem)], total: usize) -> Option<Failure> {
        const AGAIN: &str = "fix or remove the named files, then run again; finished items are cached";
        if self.on_bad_item.allows(bad.len(), total) {
            return None;
        }
        let (count, node, named) = (bad.len(), self.context.node, named(bad));
        let are = if count == 1 { "is" } else { "are" };
        let items = counted(total, "item");
        Some(match self.on_bad_item {
            // Skipping all of them would leave nothing.
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
                let limit = self.on_bad_item.reported();
                let help = format!("{AGAIN}; `on_bad_item = \"skip\"` in [nodes.{node}] skips any number");
                Failure::node(format!("{count} of {items} {are} bad, and {limit}: {named}")).help(help)
            }
        })
    }

    /// Lists the items that were left out in the side part, counts them in the summary, and reports them.
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
            .help("remove it from one of the inputs that contain it")),
        None => Ok(()),
    }
}
