//! `[defaults.KIND]`: what every node of a kind has unless its own table has it.
//!
//! A key of the node wins; where both are tables, so do the keys in them, one by one. This module does not know which
//! kinds there are, nor their keys: `graph` checks these.

use super::mistake::{Mistake, Mistakes};
use super::reader::Reader;
use super::syntax::{Entry, Located, Syntax, Table};
use crate::diagnostic::Span;

/// The defaults of one kind.
#[derive(Clone, Debug)]
pub struct KindDefaults {
    /// The kind.
    pub kind: String,
    /// Where it is named.
    pub span: Span,
    /// The keys that its nodes may leave out.
    pub table: Table,
}

/// Keys that are each node's own.
const OWN: [&str; 3] = ["kind", "inputs", "matrix"];

/// Reads `[defaults]` of `file`.
pub(super) fn read(file: &mut Reader<'_>, mistakes: &Mistakes) -> Vec<KindDefaults> {
    let Some(mut defaults) = file.named_table("defaults", "`[defaults]`") else { return Vec::new() };
    let table = |entry: &Entry| match &entry.value.value {
        Syntax::Table(table) => {
            let (own, entries): (Vec<Entry>, Vec<Entry>) =
                table.entries.iter().cloned().partition(|entry| OWN.contains(&entry.key.as_str()));
            for Entry { key, key_span, .. } in own {
                let message = format!("`{key}` cannot have a default");
                let (label, help) = ("each node has its own".to_owned(), Some("write it in the nodes".to_owned()));
                mistakes.add(Mistake::Other { message, label, help }, key_span);
            }
            let table = Table { span: table.span.clone(), entries };
            Some(KindDefaults { kind: entry.key.clone(), span: entry.key_span.clone(), table })
        }
        Syntax::Broken => None,
        other => {
            let message = format!("`{}` in `[defaults]` must be a table", entry.key);
            let (label, key) = (format!("this is {}", other.name()), &entry.key);
            let help = Some(format!("write a default of all nodes of a kind as `[defaults.KIND]` with `{key} = …`"));
            mistakes.add(Mistake::Other { message, label, help }, entry.value.span.clone());
            None
        }
    };
    defaults.rest().into_iter().filter_map(table).collect()
}

/// The table `own`, with what it leaves out.
pub(super) fn filled(own: &Table, defaults: &Table) -> Table {
    let mut filled = own.clone();
    for entry in &defaults.entries {
        match filled.entries.iter_mut().find(|known| known.key == entry.key) {
            None => filled.entries.push(entry.clone()),
            Some(Entry { value: Located { value: Syntax::Table(known), .. }, .. }) => {
                if let Syntax::Table(below) = &entry.value.value {
                    *known = self::filled(known, below);
                }
            }
            Some(_) => {}
        }
    }
    filled
}
