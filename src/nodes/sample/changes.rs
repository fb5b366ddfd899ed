//! What changed in a source since an earlier sample of it, in words.

use std::collections::HashSet;
use std::path::Path;

use super::super::labels::label;
use super::super::listing::{Listed, Listing};
use crate::artifact::{ItemId, LABELS, Label, Record, read_lines};
use stic_engine::diagnostic::counted;
use stic_engine::digest::{Digest, Value};
use stic_engine::node::{Artifact, Objects};

/// What changed in what `from` names since the sample `earlier`, when its entries were `old`; `None` where that is not
/// known any more.
pub fn since(earlier: &Artifact, old: &Value, listing: &Listing, from: &Path, objects: &dyn Objects) -> Option<String> {
    let Value::Table(old) = old else { return None };
    let before = Before::read(earlier, objects)?;
    // Of a choice it is known how many there were, not which.
    let whole = old.get("items") == Some(&Value::from(before.entries.len()));
    Some(match (whole, old.get("items")) {
        (false, Some(Value::Integer(count))) => match candidates_before(earlier, objects) {
            Some(known) => before.reported_of_choice(&known, listing, from),
            None => changed_entries(*count as usize, listing.items.len()),
        },
        _ => before.reported(listing, from),
    })
}

const REORDERED: &str = "the order of the entries, or their other fields, changed";

/// Side part of a choice: what it was made from, a fingerprint a line, so that `why` can name what was added since.
pub const CANDIDATES: &str = "candidates.txt";

/// A summary of the candidates of a choice: enough of each id to tell the entries of one source apart.
pub fn candidates(listing: &Listing) -> String {
    listing.items.iter().map(|item| fingerprint(&item.id) + "\n").collect()
}

fn fingerprint(id: &ItemId) -> String {
    const LENGTH: usize = 16;
    Digest::of(id.as_str().as_bytes()).to_string()[..LENGTH].to_owned()
}

/// The fingerprints that the choice `earlier` kept; one of an older version kept none.
fn candidates_before(earlier: &Artifact, objects: &dyn Objects) -> Option<HashSet<String>> {
    let text = String::from_utf8(objects.read(&earlier.part(CANDIDATES)?).ok()?).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

/// The items of an earlier result: ids, and their names.
struct Before {
    entries: Vec<(ItemId, Label)>,
    /// Whether they are instruction records.
    records: bool,
}

impl Before {
    fn read(earlier: &Artifact, objects: &dyn Objects) -> Option<Self> {
        let rows = objects.read(&earlier.part(earlier.kind.rows?.part)?).ok()?;
        let labels = objects.read(&earlier.part(LABELS)?).ok()?;
        let (rows, labels) = (read_lines::<Record>(&rows).ok()?, read_lines::<Label>(&labels).ok()?);
        let records = rows.iter().any(|row| row.conversations.is_some());
        Some(Self { entries: rows.into_iter().map(|row| row.id).zip(labels).collect(), records })
    }

    /// What came and went among what there was to choose from, of which only fingerprints are `known`.
    fn reported_of_choice(&self, known: &HashSet<String>, listing: &Listing, from: &Path) -> String {
        let (old, added): (Vec<&Listed>, Vec<&Listed>) =
            listing.items.iter().partition(|item| known.contains(&fingerprint(&item.id)));
        let added: Vec<Label> = added.into_iter().map(|item| label(&item.entry, from)).collect();
        let chosen = old.len() + added.len();
        let mut reported = Vec::new();
        if !added.is_empty() {
            let named = named(&added.iter().collect::<Vec<_>>());
            reported.push(format!("{} added: {named}", self.counted(added.len())));
        }
        if old.len() < known.len() {
            reported.push(format!("{} removed", self.counted(known.len() - old.len())));
        }
        if reported.is_empty() {
            return REORDERED.to_owned();
        }
        if chosen != known.len() {
            reported.push(format!("{chosen} to choose from in place of {}", known.len()));
        }
        reported.join("; ")
    }

    fn counted(&self, count: usize) -> String {
        counted(count, if self.records { "record" } else { "picture" })
    }

    /// What came, went and changed, by name.
    fn reported(&self, listing: &Listing, from: &Path) -> String {
        let now: Vec<(&ItemId, Label)> =
            listing.items.iter().map(|item| (&item.id, label(&item.entry, from))).collect();
        let (old_ids, new_ids): (HashSet<&ItemId>, HashSet<&ItemId>) =
            (self.entries.iter().map(|(id, _)| id).collect(), now.iter().map(|(id, _)| *id).collect());
        let added: Vec<&Label> = now.iter().filter(|(id, _)| !old_ids.contains(id)).map(|(_, label)| label).collect();
        let removed: Vec<&Label> =
            self.entries.iter().filter(|(id, _)| !new_ids.contains(id)).map(|(_, label)| label).collect();
        // The same place with another content is a change.
        let (changed, added): (Vec<&Label>, Vec<&Label>) =
            added.into_iter().partition(|label| label.path.is_some() && removed.iter().any(|old| old == label));
        let removed: Vec<&Label> = removed.into_iter().filter(|label| !changed.contains(label)).collect();
        let parts = [(added, "added"), (removed, "removed"), (changed, "changed")];
        let reported: Vec<String> = parts
            .into_iter()
            .filter(|(labels, _)| !labels.is_empty())
            .map(|(labels, word)| format!("{} {word}: {}", self.counted(labels.len()), named(&labels)))
            .collect();
        if reported.is_empty() { REORDERED.to_owned() } else { reported.join("; ") }
    }
}

fn changed_entries(old: usize, new: usize) -> String {
    match new.cmp(&old) {
        std::cmp::Ordering::Greater => format!("{} more entries to choose from: {new} in place of {old}", new - old),
        std::cmp::Ordering::Less => format!("{} fewer entries to choose from: {new} in place of {old}", old - new),
        std::cmp::Ordering::Equal => format!("some of the {new} entries to choose from changed"),
    }
}

/// The first few names.
fn named(labels: &[&Label]) -> String {
    const SHOWN: usize = 3;
    let name = |label: &&Label| {
        let file = label
            .path
            .as_deref()
            .map(|path| Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned());
        label.name.clone().or(file).unwrap_or_else(|| "one without a name".to_owned())
    };
    let shown: Vec<String> = labels.iter().take(SHOWN).map(name).collect();
    let more = labels.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}
