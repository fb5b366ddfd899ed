//! Tables that fit the terminal: cells wrap between words, never inside one, and if even the longest words do not fit
//! side by side, the cells of a row are printed below each other.

use unicode_width::UnicodeWidthStr;

/// Spaces between columns.
const GAP: usize = 2;

/// The lines of a table at most `width` wide. The last column is not padded. With `head`, the first row names the
/// columns.
pub fn table(rows: &[Vec<String>], head: bool, width: usize) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |of: &dyn Fn(&str) -> usize, column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| of(cell)).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..columns).map(|column| widest(&visible, column)).collect();
    let least: Vec<usize> = (0..columns).map(|column| widest(&longest_word, column)).collect();
    let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * columns.saturating_sub(1);
    while total(&widths) > width {
        // Shrink the widest column that can wrap.
        let gives = (0..columns).filter(|column| widths[*column] > least[*column]).max_by_key(|column| widths[*column]);
        match gives {
            Some(column) => widths[column] -= 1,
            None => return below(rows, head, width),
        }
    }
    rows.iter().flat_map(|row| beside(row, &widths)).collect()
}

/// The width of `rows` without wrapping.
pub fn natural_width(rows: &[Vec<String>]) -> usize {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| visible(cell)).max();
    (0..columns).filter_map(widest).sum::<usize>() + GAP * columns.saturating_sub(1)
}

/// The lines of one row.
fn beside(row: &[String], widths: &[usize]) -> Vec<String> {
    let cells: Vec<Vec<String>> = row.iter().zip(widths).map(|(cell, width)| wrapped(cell, *width)).collect();
    let count = cells.iter().map(Vec::len).max().unwrap_or(0);
    let line = |index: usize| {
        let mut line = String::new();
        for (lines, width) in cells.iter().zip(widths) {
            let part = lines.get(index).map_or("", String::as_str);
            line.push_str(part);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(visible(part)) + GAP));
        }
        line.trim_end().to_owned()
    };
    (0..count).map(line).collect()
}

/// Rows as paragraphs, with one line per cell. With a head, each cell is labeled with its column's name.
fn below(rows: &[Vec<String>], head: bool, width: usize) -> Vec<String> {
    let names = if head { rows.first().map_or(&[][..], Vec::as_slice) } else { &[] };
    let mut lines = Vec::new();
    for row in rows.iter().skip(usize::from(head)) {
        let mut first = true;
        for (column, cell) in row.iter().enumerate().filter(|(_, cell)| visible(cell) > 0) {
            let name = names.get(column).filter(|_| column > 0).map(|name| format!("{name}: ")).unwrap_or_default();
            let fits = |line: &String| visible(line) + GAP + visible(cell) <= width;
            if let Some(last) = lines.last_mut().filter(|line| !head && !first && fits(line)) {
                last.push_str(&format!("{}{cell}", " ".repeat(GAP)));
                continue;
            }
            let indent = if first { 0 } else { GAP };
            for (index, line) in
                wrapped(&format!("{name}{cell}"), width.saturating_sub(2 * GAP).max(1)).into_iter().enumerate()
            {
                lines.push(format!("{}{line}", " ".repeat(if index == 0 { indent } else { indent + GAP })));
            }
            first = false;
        }
    }
    lines
}

/// `text` wrapped to `width` between words; a longer word gets a line of its own. Colors are repeated on every line.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    flowing(text, width, width)
}

/// `text` after `before`, wrapped as by [`wrapped`], with all lines but the first indented.
pub fn hanging(before: &str, text: &str, width: usize, indent: usize) -> Vec<String> {
    // No indent if hardly anything would fit after it.
    let indent = indent.min(width / 3);
    let lines = text.split('\n').enumerate().flat_map(|(index, line)| {
        let taken = if index == 0 { visible(before) } else { indent };
        flowing(line, width.saturating_sub(taken), width - indent)
    });
    let start = |index| if index == 0 { before.to_owned() } else { " ".repeat(indent) };
    lines.enumerate().map(|(index, line)| format!("{}{line}", start(index)).trim_end().to_owned()).collect()
}

/// `text` wrapped to `width`, the first line to `first`.
fn flowing(text: &str, first: usize, width: usize) -> Vec<String> {
    let (before, inner, after) = match text.strip_prefix('\x1b').and_then(|rest| rest.split_once('m')) {
        Some((code, rest)) if rest.ends_with("\x1b[0m") => (format!("\x1b{code}m"), &rest[..rest.len() - 4], "\x1b[0m"),
        _ => (String::new(), text, ""),
    };
    let mut lines = vec![String::new()];
    for word in inner.split(' ') {
        let room = if lines.len() == 1 { first } else { width };
        let last = lines.last_mut().expect("there is a line");
        if last.is_empty() && (visible(word) <= room || room >= width) {
            last.push_str(word);
        } else if visible(last) + 1 + visible(word) <= room {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.into_iter().map(|line| format!("{before}{line}{after}")).collect()
}

fn longest_word(text: &str) -> usize {
    text.split(' ').map(visible).max().unwrap_or(0)
}

/// The width of `text` in terminal columns, without color sequences.
fn visible(text: &str) -> usize {
    let mut seen = String::new();
    let mut hidden = false;
    for character in text.chars() {
        match character {
            '\x1b' => hidden = true,
            'm' if hidden => hidden = false,
            _ if !hidden => seen.push(character),
            _ => {}
        }
    }
    seen.width()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_line_up_regardless_of_color() {
        let lines = table(&rows(&[&["\x1b[32mhit\x1b[0m", "a"], &["awaits", ""]]), false, 80);
        assert_eq!(lines, ["\x1b[32mhit\x1b[0m     a", "awaits"]);
        let lines = table(&rows(&[&["\u{732b}", "a"], &["cat", "b"]]), false, 80);
        assert_eq!(lines, ["\u{732b}   a", "cat  b"], "some characters take two columns");
    }

    #[test]
    fn no_word_is_broken_at_any_width() {
        let reported = rows(&[
            &["RUN", "from_corrupted", "describe", "24 items; temperature: 0.2 (the default) → 0.7"],
            &["awaits", "self_descriptions", "describe", "`stage1`"],
        ]);
        let words = |text: &str| -> Vec<String> {
            let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            words.sort();
            words
        };
        let all = words(&reported.concat().join(" "));
        for width in [1, 10, 20, 40, 60, 80, 200] {
            let lines = table(&reported, false, width);
            assert_eq!(words(&lines.join(" ")), all, "{width}");
            let longest = "self_descriptions".len() + 4;
            assert!(lines.iter().all(|line| visible(line) <= width.max(longest)), "{width}: {lines:#?}");
        }
        insta::assert_snapshot!([60, 40].map(|width| table(&reported, false, width).join("\n")).join("\n\n"));
    }

    #[test]
    fn colors_are_repeated_on_every_line() {
        assert_eq!(wrapped("\x1b[2mone two\x1b[0m", 4), ["\x1b[2mone\x1b[0m", "\x1b[2mtwo\x1b[0m"]);
    }

    #[test]
    fn a_long_line_hangs_behind_its_beginning() {
        let lines = hanging("\x1b[32mdone\x1b[0m    pairs  ", "300 pairs: 73 color_jitter, 88 low_resolution", 42, 8);
        assert_eq!(lines, ["\x1b[32mdone\x1b[0m    pairs  300 pairs: 73 color_jitter,", "        88 low_resolution"]);
        let lines = hanging("done    self_descriptions_of_all  ", "responses\nhelp: none", 40, 8);
        assert_eq!(lines, ["done    self_descriptions_of_all", "        responses", "        help: none"]);
        assert_eq!(hanging("  ", "chosen: one two", usize::MAX, 4), ["  chosen: one two"]);
    }
}
