//! Reads a long file piece by piece: the parser's tree of a whole file of 100,000 tables takes many times the memory of
//! the file.
//!
//! A piece ends before a line that begins with a header such as `[nodes.a]`. When the pieces before it parse without a
//! mistake, that line is no part of a string, and what follows it is read as it would be in the whole. What a file may
//! not have in two pieces, the same table or key twice, is looked for here; whenever anything is not plain, the whole
//! file is read at once, which finds and places every mistake.

use toml::de::DeTable;

use super::syntax::{Entry, Syntax, Table, table};
use crate::diagnostic::Span;

/// How long a piece is, in bytes, at least.
const PIECE: usize = 1 << 16;

/// The root table of `text`; `None` when it has a mistake, or is long and not plain enough.
pub(super) fn parse(text: &str) -> Option<Table> {
    let mut root = Table::default();
    let mut start = 0;
    while start < text.len() {
        let end = end_of_piece(text, start);
        let (piece, errors) = DeTable::parse_recoverable(&text[start..end]);
        if !errors.is_empty() {
            return None;
        }
        let read = table(0..0, piece.into_inner(), &|span| span.start + start..span.end + start);
        if start == 0 {
            root = read
        } else {
            join(&mut root, read, text)?
        }
        start = end;
    }
    let nodes = root.entries.iter().find_map(|entry| nested(entry, NODES));
    nodes.is_none_or(|table| are_unique(&table.entries)).then_some(root)
}

/// The table whose tables are many.
const NODES: &str = "nodes";

/// Where the piece that begins at `start` ends: before a header of a node.
fn end_of_piece(text: &str, start: usize) -> usize {
    let from = start + PIECE;
    let rest = text.as_bytes().get(from..).map_or("", |_| &text[ceil(text, from)..]);
    rest.find("\n[nodes.").map_or(text.len(), |place| text.len() - rest.len() + place + 1)
}

/// The first end of a character at or after `place`.
fn ceil(text: &str, place: usize) -> usize {
    (place..=text.len()).find(|place| text.is_char_boundary(*place)).unwrap_or(text.len())
}

/// Adds what is in `piece` to `root`. Only nodes may be in both, and only under headers of their own.
fn join(root: &mut Table, piece: Table, text: &str) -> Option<()> {
    for entry in piece.entries {
        let Some(known) = root.entries.iter_mut().find(|known| known.key == entry.key) else {
            root.entries.push(entry);
            continue;
        };
        if !under_header(known, text) || !under_header(&entry, text) {
            return None;
        }
        match (&mut known.value.value, entry.value.value) {
            (Syntax::Table(known), Syntax::Table(more)) => known.entries.extend(more.entries),
            _ => return None,
        }
    }
    Some(())
}

/// Whether `entry` is called nodes and is there by a header of a table below it.
fn under_header(entry: &Entry, text: &str) -> bool {
    let Span { start, end } = entry.key_span;
    entry.key == NODES && text[..start].ends_with("\n[") | (text[..start] == *"[") && text[end..].starts_with('.')
}

fn nested<'a>(entry: &'a Entry, name: &str) -> Option<&'a Table> {
    match &entry.value.value {
        Syntax::Table(table) if entry.key == name => Some(table),
        _ => None,
    }
}

fn are_unique(entries: &[Entry]) -> bool {
    let mut seen = std::collections::HashSet::with_capacity(entries.len());
    entries.iter().all(|entry| seen.insert(entry.key.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::syntax::parse as parse_any;
    use super::*;

    fn whole(text: &str) -> Table {
        let (root, errors) = DeTable::parse_recoverable(text);
        assert!(errors.is_empty());
        table(0..0, root.into_inner(), &|span| span)
    }

    /// Nodes enough for several pieces.
    fn nodes() -> String {
        let node = |number: usize| {
            format!(
                "[nodes.n{number}]\nkind = \"é\" # [nodes.x]\nlist = [1,\n  2]\ninputs.of = [\"n{number}\"]\nlora = {{ rank = 2 }}\n"
            )
        };
        (0..6000).map(node).collect()
    }

    #[test]
    fn pieces_are_read_as_the_whole_is() {
        for head in ["", "[pipeline]\nseed = 3\n", "top = 1\r\n"] {
            for tail in ["", "[device]\nbackend = 'cpu'\n", "[nodes.last.deep]\na = 1\n"] {
                let text = format!("{head}{}{tail}", nodes());
                assert_eq!(parse(&text), Some(whole(&text)), "{head:?} {tail:?}");
                assert_eq!(parse_any(&text).root, whole(&text));
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_whole() {
        let all = nodes();
        for (head, tail) in [
            ("", "[nodes.n0]\nkind = 'again'\n"),
            ("", "[nodes.n0.deeper]\na = 1\n"),
            ("nodes.a.kind = 'x'\n", ""),
            ("[nodes]\na.kind = 'x'\n", ""),
            ("nodes = 1\n", ""),
            ("", "[[nodes.x]]\na = 1\n"),
            ("", "[pipeline]\n[pipeline]\n"),
            ("text = '''\n", "'''\n"),
            ("", "a =\n"),
            ("[ nodes . first ]\nkind = 'a'\n", ""),
        ] {
            let text = format!("{head}{all}{tail}");
            let of_pieces = parse(&text);
            let (root, errors) = DeTable::parse_recoverable(&text);
            let of_whole = table(0..0, root.into_inner(), &|span| span);
            assert!(of_pieces.is_none() || errors.is_empty() && of_pieces == Some(of_whole), "{head:?} {tail:?}");
        }
    }
}
