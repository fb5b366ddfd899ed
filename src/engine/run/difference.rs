//! In what two results differ that should be one: their parts, and where those are text, their first lines.

use similar::{ChangeTag, TextDiff};

use crate::node::Part;
use crate::store::Store;

/// The largest part that is compared line by line, in bytes.
const LARGEST: u64 = 1 << 20;

/// How many lines are shown of a part, and how much of a line, in characters.
const LINES: usize = 6;
const WIDTH: usize = 160;

/// What differs between the parts `old` and `new`, a line each.
pub fn lines(old: &[Part], new: &[Part], store: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    for part in old {
        match new.iter().find(|other| other.name == part.name) {
            Some(other) if other.digest == part.digest => {}
            Some(other) => {
                lines.push(format!("`{}`:", part.name));
                lines.extend(of_part(part, other, store));
            }
            None => lines.push(format!("`{}` is gone", part.name)),
        }
    }
    let added = new.iter().filter(|part| old.iter().all(|other| other.name != part.name));
    lines.extend(added.map(|part| format!("`{}` is new", part.name)));
    lines
}

fn of_part(old: &Part, new: &Part, store: &Store) -> Vec<String> {
    let size = |part: &Part| store.object_size(&part.digest).ok().flatten();
    let (Some(before), Some(after)) = (size(old), size(new)) else {
        return vec!["  the earlier one is not in the cache any more".to_owned()];
    };
    let text = |part: &Part| String::from_utf8(store.object(&part.digest).ok()?).ok();
    let texts = if before.max(after) <= LARGEST { text(old).zip(text(new)) } else { None };
    let Some((old, new)) = texts else { return vec![format!("  {before} bytes → {after} bytes")] };
    let diff = TextDiff::from_lines(&old, &new);
    let changes = diff.iter_all_changes().filter(|change| change.tag() != ChangeTag::Equal);
    let mut lines: Vec<String> = changes
        .map(|change| {
            let line = change.value().trim_end_matches(['\r', '\n']);
            let mut shown: String = line.chars().take(WIDTH).collect();
            if line.chars().count() > WIDTH {
                shown.push('…');
            }
            format!("  {} {shown}", change.tag())
        })
        .collect();
    if lines.len() > LINES {
        let more = lines.len() - LINES;
        lines.truncate(LINES);
        lines.push(format!("  and {more} more lines"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_that_differ_are_shown_and_what_is_no_text_by_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let part =
            |name: &str, content: &[u8]| Part { name: name.to_owned(), digest: store.put_object(content).unwrap() };
        let same = part("same", b"same");
        let old = [same.clone(), part("rows", b"a\nb\nc\n"), part("bytes", &[0xff, 1]), part("old", b"")];
        let new = [same, part("rows", b"a\nB\nc\n"), part("bytes", &[0xff, 1, 2]), part("new", b"")];
        let expected =
            ["`rows`:", "  - b", "  + B", "`bytes`:", "  2 bytes → 3 bytes", "`old` is gone", "`new` is new"];
        assert_eq!(lines(&old, &new, &store), expected);
        let many = |letter: &str| (0..50).map(|number| format!("{letter}{number}\n")).collect::<String>();
        let long = lines(&[part("rows", many("a").as_bytes())], &[part("rows", many("b").as_bytes())], &store);
        assert_eq!((long.len(), long[7].as_str()), (8, "  and 94 more lines"));
        std::fs::remove_file(store.object_path(&old[1].digest)).unwrap();
        assert_eq!(lines(&old[1..2], &new[1..2], &store)[1], "  the earlier one is not in the cache any more");
    }
}
