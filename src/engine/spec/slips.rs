//! What people write where TOML wants something else: each slip by its name and with what to write instead, and mended,
//! so that the rest of the file is read as it was meant and its other mistakes are reported in the same round.
//!
//! A slip is looked for only where the parser found an error. This module does not know which keys there are.

use std::ops::Range;

use toml::de::DeTable;

use crate::diagnostic::{Diagnostic, Span};

/// So many slips are mended, and so long a string, before the rest is left to the parser's own words.
const MOST: usize = 100;
const LONGEST: usize = 1 << 18;

/// A string on its way to TOML.
pub(super) struct Draft {
    /// What is left to read.
    pub text: String,
    /// The slips, reported at their places in the text as it was written.
    pub slips: Vec<Diagnostic>,
    /// Whether something was left out that could not be understood.
    pub lossy: bool,
    /// For every byte of `text` and its end: where it is in the text as it was written.
    origin: Vec<usize>,
}

impl Draft {
    /// The draft of `text`, all known slips mended.
    pub fn of(text: &str) -> Self {
        let origin = (0..=text.len()).collect();
        let mut draft = Self { text: text.to_owned(), slips: Vec::new(), lossy: false, origin };
        let mut reported: Vec<Reported> = Vec::new();
        let mut passed: Vec<usize> = Vec::new();
        while draft.slips.len() < MOST && text.len() <= LONGEST {
            let Some((line, slip)) = draft.next_slip(&mut passed) else { break };
            let place = draft.place(slip.at.clone());
            let edited = slip.edits.first().map_or(line, |(range, _)| line_of(&draft.text, range.start));
            let mended = mended_line(&draft.text, &edited, &slip.edits);
            let number = text[..place.start].matches('\n').count() + 1;
            let help = match (slip.help, mended) {
                (Some(help), Some(mended)) if !slip.lossy => format!("write `{mended}`, {help}"),
                (Some(help), _) => help.to_owned(),
                (None, Some(mended)) => format!("write `{mended}`"),
                (None, None) => String::new(),
            };
            let help = Some(help).filter(|help| !help.is_empty());
            // The same slip all over a file is reported once.
            match reported.iter_mut().find(|reported| reported.message == slip.message && slip.everywhere) {
                Some(reported) if reported.line == number => draft.slips[reported.index].help = help,
                Some(reported) => reported.also.extend((reported.also.last() != Some(&number)).then_some(number)),
                None => {
                    let (message, index) = (slip.message.clone(), draft.slips.len());
                    reported.push(Reported { message, index, line: number, also: Vec::new() });
                    draft.slips.push(Diagnostic::new(slip.message).label(place, slip.label).help(help));
                }
            }
            draft.lossy |= slip.lossy;
            draft.apply(slip.edits);
        }
        for Reported { index, also, .. } in reported.iter().filter(|reported| !reported.also.is_empty()) {
            let lines: Vec<String> = also.iter().map(usize::to_string).collect();
            let noun = if lines.len() == 1 { "line" } else { "lines" };
            draft.slips[*index].labels[0].text += &format!("; also in {noun} {}", lines.join(", "));
        }
        draft
    }

    /// Where a part of the draft is in the text as it was written.
    pub fn place(&self, span: Span) -> Span {
        let at = |index: usize| self.origin[index.min(self.text.len())];
        at(span.start)..at(span.end).max(at(span.start))
    }

    /// The first slip that is not passed yet, and its line.
    fn next_slip(&self, passed: &mut Vec<usize>) -> Option<(Span, Slip)> {
        let (_, errors) = DeTable::parse_recoverable(&self.text);
        let mut errors: Vec<(Span, &str)> = errors
            .iter()
            .filter(|error| error.message() != "duplicate key")
            .map(|error| (error.span().unwrap_or(self.text.len()..self.text.len()), error.message()))
            .collect();
        // A text that is not closed swallows the brackets behind it.
        let unclosed = |message: &str| {
            message.starts_with("invalid basic string") || message.starts_with("invalid literal string")
        };
        errors.sort_by_key(|(span, message)| (span.start, !unclosed(message)));
        for (span, message) in errors {
            let line = line_of(&self.text, span.start);
            if passed.contains(&self.origin[line.start]) {
                continue;
            }
            let slip = understand(&self.text, line.clone(), span, message);
            // What did not help is not done twice.
            let place = |slip: &Slip| self.place(slip.at.clone());
            let tried = |slip: &Slip| {
                let same =
                    |reported: &Diagnostic| reported.message == slip.message && reported.labels[0].span == place(slip);
                self.slips.iter().any(same)
            };
            if let Some(slip) = slip.filter(|slip| !tried(slip)) {
                return Some((line, slip));
            }
            // What follows something that never ends may be wrong because of that alone.
            if message.starts_with("unclosed") || message.starts_with("missing comma") || message.contains("multi-line")
            {
                return None;
            }
            passed.push(self.origin[line.start]);
        }
        None
    }

    fn apply(&mut self, mut edits: Vec<Edit>) {
        edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
        for (range, new) in edits {
            let origin = self.origin[range.start];
            self.text.replace_range(range.clone(), &new);
            self.origin.splice(range, std::iter::repeat_n(origin, new.len()));
        }
    }
}

/// A slip that is reported: its place in the list, its line, and other lines that have it.
struct Reported {
    message: String,
    index: usize,
    line: usize,
    also: Vec<usize>,
}

/// A part of the text and its replacement.
type Edit = (Range<usize>, String);

/// Something that is no TOML, and what was meant.
struct Slip {
    at: Range<usize>,
    message: String,
    label: String,
    /// What to add to the line as it should be.
    help: Option<&'static str>,
    edits: Vec<Edit>,
    /// Whether files that have it have it in many lines.
    everywhere: bool,
    lossy: bool,
}

impl Slip {
    fn new(at: Range<usize>, message: impl Into<String>, label: impl Into<String>, edits: Vec<Edit>) -> Self {
        Self { at, message: message.into(), label: label.into(), help: None, edits, everywhere: false, lossy: false }
    }

    fn help(self, help: &'static str) -> Self {
        Self { help: Some(help), ..self }
    }

    fn everywhere(self) -> Self {
        Self { everywhere: true, ..self }
    }

    fn lossy(self) -> Self {
        Self { lossy: true, ..self }
    }
}

/// A whole file of another format than TOML.
pub(super) fn other_format(text: &str) -> Option<Diagnostic> {
    let start = text.trim_start();
    let at = text.len() - start.len();
    let first = start.lines().next().unwrap_or_default();
    let reported = |format: &str| {
        Diagnostic::new(format!("this is {format}, but a pipeline is TOML"))
            .label(at..at + first.trim_end().floor_char_boundary(80), "the file starts with this")
            .help("a node is a table: `[nodes.NAME]`, then a line `key = value` for each of its keys".to_owned())
    };
    let list = start.starts_with('[') && serde_json::from_str::<serde::de::IgnoredAny>(start).is_ok();
    if start.starts_with('{') || (list && !first.trim_end().ends_with(']')) {
        return Some(reported("JSON"));
    }
    if start.starts_with('<') {
        return Some(reported("a page of HTML or XML"));
    }
    let lines = || text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
    let opens = |line: &str| line.strip_suffix(':').is_some_and(is_name);
    let assigns = |line: &str| line.starts_with('[') || line.contains(" = ");
    (start.starts_with("---") || (lines().any(opens) && !lines().any(assigns))).then(|| reported("YAML"))
}

/// What was meant on `line`, where the parser says `message` of `span`.
fn understand(text: &str, line: Span, span: Span, message: &str) -> Option<Slip> {
    let says = |words: &[&str]| words.iter().any(|word| message.starts_with(word));
    if let Some(slip) = foreign_characters(text, &line).or_else(|| comment_after_value(text, &line)) {
        return Some(slip);
    }
    if message.contains("escape") || message.contains("unicode") {
        return backslash(text, &line, span.start);
    }
    if says(&["key with no value", "invalid unquoted key", "missing assignment", "extra `=`"]) {
        return no_value(text, &line, span.start);
    }
    if says(&["unexpected key or value"]) {
        return too_much(text, &line, span.start);
    }
    if says(&["unclosed table"]) {
        return header(text, &line);
    }
    if says(&["invalid basic string", "invalid literal string"]) {
        return unclosed_text(text, &line, span);
    }
    if says(&["missing comma", "unclosed array", "unclosed inline table"]) {
        return missing_comma(text, &line, span.start);
    }
    let bare = [
        "string values must be quoted",
        "invalid boolean",
        "invalid float",
        "invalid mantissa",
        "invalid fraction",
        "invalid exponent",
        "invalid integer",
        "unexpected leading zero",
        "missing opening quote",
    ];
    if says(&bare) { bare_value(text, &line, span.start) } else { None }
}

/// Quotes, blanks, dashes and signs of another alphabet, as word processors and web pages put them in.
fn foreign_characters(text: &str, line: &Span) -> Option<Slip> {
    let written = &text[line.clone()];
    let has_backslash = written.contains('\\');
    let mut edits: Vec<Edit> = Vec::new();
    let mut first: Option<(usize, &'static str, &'static str)> = None;
    let mut quote: Option<char> = None;
    for (index, c) in written.char_indices() {
        if let Some(open) = quote {
            quote = if c == open { None } else { quote };
            continue;
        }
        let (new, what, label): (&str, _, _) = match c {
            '"' | '\'' => {
                quote = Some(c);
                continue;
            }
            '#' => break,
            '\u{201c}'..='\u{201f}' | '\u{ab}' | '\u{bb}' | '\u{2033}' | '\u{ff02}' => {
                (if has_backslash { "'" } else { "\"" }, "TOML does not read curly quotes", "not a straight quote")
            }
            '\u{2018}'..='\u{201b}' | '\u{2032}' | '\u{ff07}' => {
                ("'", "TOML does not read curly quotes", "not a straight quote")
            }
            '`' => ("\"", "a string is written in quotes, not in backticks", "a backtick"),
            '\u{2010}'..='\u{2015}' | '\u{2212}' => ("-", "a minus is written `-`", "another dash"),
            '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
                (" ", "there is a space that TOML does not read", "a no-break or wide space")
            }
            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => {
                ("", "there is an invisible character", "here, without width")
            }
            '\u{ff1d}' => ("=", WIDE, "full-width"),
            '\u{ff0c}' => (",", WIDE, "full-width"),
            '\u{ff3b}' => ("[", WIDE, "full-width"),
            '\u{ff3d}' => ("]", WIDE, "full-width"),
            '\u{ff5b}' => ("{", WIDE, "full-width"),
            '\u{ff5d}' => ("}", WIDE, "full-width"),
            _ => continue,
        };
        first.get_or_insert((index, what, label));
        let start = line.start + index;
        edits.push((start..start + c.len_utf8(), new.to_owned()));
    }
    let (index, what, label) = first?;
    let start = line.start + index;
    let end = edits[0].0.end;
    Some(Slip::new(start..end, what, label, edits).everywhere())
}

const WIDE: &str = "TOML does not read full-width characters";

/// A path of Windows in double quotes, or another backslash that begins no escape.
fn backslash(text: &str, line: &Span, at: usize) -> Option<Slip> {
    let before = &text[line.start..at];
    // The quote that opens the text around `at`: texts before it on the line are closed.
    let open = line.start + open_quote(before)?;
    if text[open..].starts_with("\"\"\"") {
        return None;
    }
    let rest = &text[open + 1..line.end];
    let ends = rest.match_indices('"').map(|(index, _)| index).find(|index| {
        let escaped = rest[..*index].ends_with('\\');
        let after = rest[index + 1..].trim_start();
        !escaped || after.is_empty() || after.starts_with([',', ']', '}', '#'])
    });
    let (end, closed) = ends.map_or((line.end, false), |index| (open + 1 + index, true));
    let content = &text[open + 1..end];
    let (single, doubled) = (format!("'{content}'"), format!("\"{}\"", content.replace('\\', "\\\\")));
    let new = if content.contains('\'') { doubled } else { single };
    let all = open..end + usize::from(closed);
    let slip = Slip::new(all.clone(), BACKSLASH, "backslashes in double quotes", vec![(all, new)]);
    Some(slip.help("or the path with `/`"))
}

/// The message on backslashes that were meant literally.
pub(super) const BACKSLASH: &str = "in double quotes a backslash begins an escape";

/// Where the quote is in `before` that is still open at its end.
fn open_quote(before: &str) -> Option<usize> {
    let (mut open, mut escaped) = (None, false);
    for (index, c) in before.char_indices() {
        match (open, c) {
            (Some((_, '"')), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some((_, quote)), c) if c == quote && !escaped => open = None,
            (None, '"' | '\'') => open = Some((index, c)),
            _ => {}
        }
        escaped = false;
    }
    open.filter(|(_, quote)| *quote == '"').map(|(index, _)| index)
}

/// A key that the parser finds no value for: comments of other languages, and other signs than `=`.
fn no_value(text: &str, line: &Span, at: usize) -> Option<Slip> {
    let written = &text[line.clone()];
    let indent = written.len() - written.trim_start().len();
    let start = line.start + indent;
    let trimmed = written.trim();
    if let Some(mark) = COMMENT_MARKS.into_iter().chain(["*"]).find(|mark| trimmed.starts_with(mark)) {
        return Some(foreign_comment(start, mark));
    }
    if let Some(name) = trimmed.strip_suffix(']').filter(|name| name.split('.').all(is_name)) {
        let range = start..start + name.len() + 1;
        return Some(Slip::new(
            range,
            "the table's first bracket is missing",
            "a table",
            vec![(start..start, "[".into())],
        ));
    }
    // The assignment: of the line, or of the innermost table in braces.
    let head = text[line.start..at].rfind(['{', ',']).map_or(start, |index| line.start + index + 1);
    let rest = &text[head..line.end];
    for sign in [":=", "=>", "->", "<-", "==", ":"] {
        let Some(found) = rest.find(sign) else { continue };
        let key = rest[..found].trim();
        if !is_name(key.trim_matches(['"', '\''])) && !key.split('.').all(is_name) {
            continue;
        }
        let value = rest[found + sign.len()..].trim();
        if value.is_empty() || value.starts_with('#') {
            return None;
        }
        let sign_at = head + found..head + found + sign.len();
        let mut edits = vec![(sign_at.clone(), if rest[..found].ends_with(' ') { "=" } else { " =" }.to_owned())];
        if head == start
            && let Some(comma) = value.strip_suffix([',', ';'])
        {
            let end = head + rest.trim_end().len();
            if balanced(comma) {
                edits.push((end - 1..end, String::new()));
            }
        }
        return Some(
            Slip::new(sign_at, "a key and its value are joined by `=`", format!("`{sign}`"), edits).everywhere(),
        );
    }
    let (key, value) = trimmed.split_once('=').unwrap_or((trimmed, ""));
    let key = key.trim();
    let looks_like_value = |value: &str| {
        value.starts_with(|c: char| c.is_ascii_digit() || "\"'[{-".contains(c)) || ["true", "false"].contains(&value)
    };
    if let Some((name, rest)) = trimmed
        .split_once([' ', '\t'])
        .filter(|(name, rest)| name.split('.').all(is_name) && looks_like_value(code(rest).trim()) && balanced(rest))
    {
        let gap = start + name.len()..start + trimmed.len() - rest.trim_start().len();
        let message = "a key and its value are joined by `=`";
        return Some(
            Slip::new(gap.start..gap.end, message, "nothing between them", vec![(gap, " = ".into())]).everywhere(),
        );
    }
    if key.contains(char::is_whitespace) && key.split_whitespace().all(is_name) && !value.trim().is_empty() {
        let range = start..start + key.len();
        let joined = key.split_whitespace().collect::<Vec<_>>().join("_");
        return Some(Slip::new(
            range.clone(),
            "a key cannot contain spaces",
            "a key of several words",
            vec![(range, joined)],
        ));
    }
    None
}

/// Something behind a value.
fn too_much(text: &str, line: &Span, at: usize) -> Option<Slip> {
    let rest = text[at..line.end].trim_end();
    let equals = text[line.clone()].find('=').map(|index| line.start + index)?;
    let value = line.end - text[equals + 1..line.end].trim_start().len();
    let end = value + code(&text[value..line.end]).trim_end().len();
    if matches!(code(rest).trim(), "," | ";") {
        let sign = code(rest).trim();
        let range = at..at + rest.find(sign)? + sign.len();
        let message = format!("a line does not end with `{sign}`");
        return Some(Slip::new(range.clone(), message, "one sign too many", vec![(range, String::new())]).everywhere());
    }
    if let Some(next) = rest.strip_prefix([',', ';'])
        && let Some((key, _)) = next.split_once('=')
        && is_name(key.trim())
    {
        let gap = at..at + 1 + (next.len() - next.trim_start().len());
        let key_at = at..gap.end + key.trim().len();
        return Some(Slip::new(
            key_at,
            "each key has a line of its own",
            "the second on this line",
            vec![(gap, "\n".into())],
        ));
    }
    let all = &text[value..end];
    if let Some(number) = number_meant(all) {
        return Some(Slip::new(
            value..end,
            "TOML does not read this number",
            "not how TOML writes it",
            vec![(value..end, number)],
        ));
    }
    if rest.starts_with(',') {
        let new = format!("[{all}]");
        return Some(Slip::new(value..end, "a list is written in brackets", "several values", vec![(value..end, new)]));
    }
    // Quotes inside of quotes of the same form.
    let quote = all.chars().next().filter(|c| ['"', '\''].contains(c) && all.len() > 1 && all.ends_with(*c))?;
    let inner = &all[1..all.len() - 1];
    let other = if quote == '"' { '\'' } else { '"' };
    if inner.contains(other) || inner.contains('\\') || !inner.contains(quote) {
        return None;
    }
    let new = format!("{other}{inner}{other}");
    let message = format!("a string in `{quote}` ends at the next `{quote}`");
    Some(Slip::new(value..end, message, "quotes in a string", vec![(value..end, new)]))
}

/// What begins a comment in other languages.
const COMMENT_MARKS: [&str; 5] = ["//", "--", ";", "%", "/*"];

fn foreign_comment(start: usize, mark: &str) -> Slip {
    let range = start..start + mark.len();
    let edits = vec![(range.clone(), "#".to_owned())];
    Slip::new(range, "a comment begins with `#`", "no comment in TOML", edits).everywhere()
}

/// A comment of another language behind a value that is one.
fn comment_after_value(text: &str, line: &Span) -> Option<Slip> {
    let value = line.start + text[line.clone()].find('=')? + 1;
    let written = &text[value..line.end];
    let marks = COMMENT_MARKS.into_iter().flat_map(|mark| written.match_indices(mark));
    let is_behind_a_value = |(index, mark): &(usize, &str)| {
        let (before, after) = (&written[..*index], &written[index + mark.len()..]);
        let apart = before.ends_with(char::is_whitespace) && !after.trim().is_empty();
        apart && toml::from_str::<toml::Table>(&format!("value ={before}")).is_ok()
    };
    let (index, mark) = marks.filter(is_behind_a_value).min()?;
    Some(foreign_comment(value + index, mark))
}

/// A table's header.
fn header(text: &str, line: &Span) -> Option<Slip> {
    let written = code(&text[line.clone()]).trim();
    let start = line.start + text[line.clone()].find(written)?;
    let name = written.trim_start_matches('[').trim_end_matches(']').trim();
    let range = start..start + written.len();
    if name.split('.').all(is_name) && !written.ends_with(']') {
        let end = range.end..range.end;
        return Some(Slip::new(range, "the table's last bracket is missing", "a table", vec![(end, "]".into())]));
    }
    let words: Vec<&str> = name.split([' ', '/', ':']).filter(|word| !word.is_empty()).collect();
    if words.len() == 2 && words[0].split('.').all(is_name) && words[1].split('.').all(is_name) {
        let new = format!("[{}]", words.join("."));
        return Some(Slip::new(range.clone(), "a table's name is joined by `.`", "a table", vec![(range, new)]));
    }
    None
}

/// A string without its second quote.
fn unclosed_text(text: &str, line: &Span, span: Span) -> Option<Slip> {
    let written = &text[line.clone()];
    let end = line.start + written.trim_end().len();
    if !span.is_empty() || span.start < end {
        return None;
    }
    let quote = written.find(['"', '\'']).and_then(|_| {
        let mut open = None;
        for (index, c) in written.char_indices() {
            match open {
                Some((_, quote)) if c == quote => open = None,
                None if c == '"' || c == '\'' => open = Some((index, c)),
                _ => {}
            }
        }
        open
    });
    let (index, quote) = quote?;
    let start = line.start + index;
    let slip = Slip::new(start..end, "a string has no closing quote", format!("needs a second `{quote}`"), Vec::new());
    let closing = end..end;
    // Brackets behind the text were meant to be brackets.
    let tail = text[start..end].len() - text[start..end].trim_end_matches([']', '}', ',', ' ']).len();
    let opened = text[line.start..start].contains(['[', '{']);
    let closing = if opened { end - tail..end - tail } else { closing };
    Some(Slip { edits: vec![(closing, quote.to_string())], lossy: opened, ..slip })
}

/// Two values of a list, or two keys of a table, with nothing between them; or a bracket that is not closed.
fn missing_comma(text: &str, line: &Span, at: usize) -> Option<Slip> {
    let written = code(&text[line.clone()]).trim();
    let starts_key = written.split_once('=').is_some_and(|(key, _)| key.trim().split('.').all(is_name));
    let starts_table =
        written.starts_with('[') && written.ends_with(']') && written[1..written.len() - 1].split('.').all(is_name);
    let indent = text[line.clone()].len() - text[line.clone()].trim_start().len();
    let at_start = at <= line.start + indent || at >= text.trim_end().len();
    if at_start && (starts_key || starts_table || at >= text.trim_end().len()) {
        let before = if at >= text.trim_end().len() { text } else { &text[..line.start] };
        let (open, sign) = open_bracket(before)?;
        // A line of a table in braces is a line of a table in braces.
        if sign == '{'
            && starts_key
            && !text[line.end..].lines().take_while(|l| !l.starts_with('[')).any(|l| l.contains('}'))
        {
            return close(before, open, '}');
        }
        return if sign == '[' { close(before, open, ']') } else { None };
    }
    if at_start && written.starts_with(['"', '\'', '[', '{']) {
        let before = text[..line.start].trim_end();
        let edits = vec![(before.len()..before.len(), ",".to_owned())];
        let start = line.start + indent;
        return Some(Slip::new(
            start..start + 1,
            "the values of a list are separated by commas",
            "needs a `,` in front",
            edits,
        ));
    }
    let before = text[line.start..at].trim_end();
    let end = line.start + before.len();
    if text[at..line.end].starts_with(['"', '\'', '[', '{']) && before.ends_with(['"', '\'', ']', '}']) {
        let edits = vec![(end..end, ",".to_owned())];
        return Some(Slip::new(
            at..at + 1,
            "the values of a list are separated by commas",
            "needs a `,` in front",
            edits,
        ));
    }
    None
}

fn close(before: &str, open: usize, sign: char) -> Option<Slip> {
    let end = before.trim_end().len();
    let message = "a bracket is not closed";
    Some(Slip::new(open..open + 1, message, format!("needs a `{sign}`"), vec![(end..end, sign.to_string())]))
}

/// The last bracket in `before` that is open at its end.
fn open_bracket(before: &str) -> Option<(usize, char)> {
    let (mut open, mut quote, mut comment) = (Vec::new(), None, false);
    for (index, c) in before.char_indices() {
        match (quote, c) {
            (_, '\n') => (quote, comment) = (None, false),
            _ if comment => {}
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') => comment = true,
            (None, '[' | '{') => open.push((index, c)),
            (None, ']' | '}') => drop(open.pop()),
            _ => {}
        }
    }
    open.pop()
}

/// A value that is no TOML value: a string without quotes, a truth or a number of another language.
fn bare_value(text: &str, line: &Span, at: usize) -> Option<Slip> {
    let written = &text[line.clone()];
    let back =
        text[line.start..at].rfind([' ', '\t', '=', '[', ',', '{']).map_or(line.start, |index| line.start + index + 1);
    let start = back + (text[back..line.end].len() - text[back..line.end].trim_start().len());
    let in_brackets = !balanced(&text[line.start..start]) || !written[..start - line.start].contains('=');
    let rest = code(&text[start..line.end]);
    let end = if in_brackets { rest.find([',', ']', '}']).unwrap_or(rest.len()) } else { rest.len() };
    let token = rest[..end].trim_end();
    let (token, range) = (token, start..start + token.len());
    // Several assignments on one line.
    if let Some((value, key)) = token.split_once(char::is_whitespace)
        && let Some((key, _)) = key.split_once('=')
        && is_name(key.trim())
    {
        let gap = start + value.len()
            ..start + value.len() + (token[value.len()..].len() - token[value.len()..].trim_start().len());
        let key_at = gap.end..gap.end + key.trim_end().len();
        return Some(if in_brackets {
            Slip::new(
                key_at,
                "the keys of a table are separated by commas",
                "needs a `,` in front",
                vec![(gap, ", ".into())],
            )
        } else {
            Slip::new(key_at, "each key has a line of its own", "the second on this line", vec![(gap, "\n".into())])
        });
    }
    if let Some(inner) = rest.trim_end().strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        let all = start..start + rest.trim_end().len();
        let new = format!("[{inner}]");
        return Some(Slip::new(all.clone(), "a list is written in brackets", "parentheses", vec![(all, new)]));
    }
    if let Some(value) = token.strip_suffix([';', ',']).filter(|_| !in_brackets) {
        let sign = &token[value.len()..];
        let range = range.end - 1..range.end;
        let message = format!("a line does not end with `{sign}`");
        return Some(Slip::new(range.clone(), message, "one sign too many", vec![(range, String::new())]).everywhere());
    }
    let truth = match token.to_lowercase().as_str() {
        "true" | "yes" | "on" => Some("true"),
        "false" | "no" | "off" => Some("false"),
        _ => None,
    };
    if let Some(truth) = truth {
        let slip = Slip::new(
            range.clone(),
            "a boolean is written `true` or `false`",
            format!("written `{token}`"),
            vec![(range, truth.into())],
        );
        return Some(slip.everywhere());
    }
    if ["none", "null", "nil", "undefined", "n/a"].contains(&token.to_lowercase().as_str()) {
        let key = text[..start].trim_end().trim_end_matches('=').trim_end();
        let key_start =
            key.rfind(|c: char| !(c.is_alphanumeric() || "_-.\"'".contains(c))).map_or(0, |index| index + 1);
        let key_start = key_start.max(line.start);
        let comma = text[range.end..line.end].trim_start().starts_with(',');
        let comma_end = if comma { range.end + text[range.end..line.end].find(',')? + 1 } else { range.end };
        let name = text[key_start..].split(['=', ' ']).next().unwrap_or_default().to_owned();
        let slip = Slip::new(
            range.clone(),
            format!("TOML has no `{token}`"),
            "no value",
            vec![(key_start..comma_end, String::new())],
        );
        let help = if name.is_empty() { "remove it" } else { "remove the key to use its default" };
        return Some(Slip { help: Some(help), ..slip.lossy() });
    }
    if let Some(number) = number_meant(token) {
        return Some(Slip::new(
            range.clone(),
            "TOML does not read this number",
            "not how TOML writes it",
            vec![(range, number)],
        ));
    }
    // Python's prefixes.
    if let Some(quoted) = token.strip_prefix(['r', 'f', 'b', 'u', 'R']).filter(|rest| rest.starts_with(['"', '\''])) {
        let raw = quoted.len() > 1 && quoted.contains('\\') && !quoted[1..quoted.len() - 1].contains('\'');
        let new = if raw { format!("'{}'", &quoted[1..quoted.len() - 1]) } else { quoted.to_owned() };
        return Some(Slip::new(
            range.clone(),
            "TOML has no letters in front of quotes",
            "a string of another language",
            vec![(range, new)],
        ));
    }
    if token.is_empty() || token.contains(['"', '\'']) {
        return None;
    }
    let new = if token.contains('\\') { format!("'{token}'") } else { format!("\"{token}\"") };
    Some(Slip::new(range.clone(), "a string is written in quotes", "no quotes", vec![(range, new)]))
}

/// The number that `written` means, in TOML's notation.
fn number_meant(written: &str) -> Option<String> {
    let written = written.trim();
    let (sign, digits) = written.strip_prefix('-').map_or(("", written), |digits| ("-", digits));
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let all_digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let reported = |number: f64| number.is_finite().then(|| format!("{sign}{number:?}"));
    for separator in [',', ' ', '\'', '.'] {
        let mut groups = digits.split(separator);
        let first = groups.next().unwrap_or_default();
        let rest: Vec<&str> = groups.collect();
        let grouped =
            all_digits(first) && first.len() <= 3 && rest.iter().all(|group| group.len() == 3 && all_digits(group));
        if grouped && first != "0" && !rest.is_empty() && (separator != '.' || rest.len() > 1) {
            return Some(format!("{sign}{first}{}", rest.concat()));
        }
    }
    // A decimal comma.
    if let Some((whole, part)) = digits.split_once(',').filter(|(whole, part)| all_digits(whole) && all_digits(part)) {
        return Some(format!("{sign}{whole}.{part}"));
    }
    if let Some((above, below)) = digits.split_once('/') {
        let (above, below) = (above.trim().parse::<f64>().ok()?, below.trim().parse::<f64>().ok()?);
        return reported(above / below);
    }
    if let Some(percent) = digits.strip_suffix('%') {
        return reported(percent.trim().parse::<f64>().ok()? / 100.0);
    }
    for (power, separator) in [("**", "**"), ("^", "^")] {
        if let Some((base, exponent)) = digits.split_once(separator).filter(|_| digits.contains(power)) {
            let number = base.trim().parse::<f64>().ok()?.powf(exponent.trim().parse::<f64>().ok()?);
            return if number.fract() == 0.0 && number.abs() < 9e15 {
                Some(format!("{sign}{number:.0}"))
            } else {
                reported(number)
            };
        }
    }
    if let Some(thousands) = digits.strip_suffix(['k', 'K']) {
        let number = thousands.parse::<f64>().ok()? * 1000.0;
        return (number.fract() == 0.0).then(|| format!("{sign}{number:.0}"));
    }
    let plain = digits.trim_end_matches(['f', 'F', 'L', 'l', 'd']);
    if all_digits(plain) {
        let short = plain.trim_start_matches('0');
        return Some(format!("{sign}{}", if short.is_empty() { "0" } else { short }));
    }
    // `.5` and `5.`, which Rust reads and TOML does not.
    plain.parse::<f64>().ok().and_then(reported)
}

/// `line` up to its comment.
fn code(line: &str) -> &str {
    let mut quote = None;
    for (index, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '#' => return &line[..index],
            _ => {}
        }
    }
    line
}

/// Whether all brackets that `text` opens are closed.
fn balanced(text: &str) -> bool {
    let (mut depth, mut quote) = (0i32, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            _ => {}
        }
    }
    depth <= 0
}

/// Whether `text` is a key as TOML writes it without quotes.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn line_of(text: &str, at: usize) -> Span {
    let at = at.min(text.len());
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    start..text[at..].find(['\n', '\r']).map_or(text.len(), |newline| at + newline)
}

/// The line as it should be, where the edits are on it and it is short enough to be shown.
fn mended_line(text: &str, line: &Span, edits: &[Edit]) -> Option<String> {
    const LONGEST: usize = 100;
    let mut mended = text[line.clone()].to_owned();
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    for (range, new) in edits {
        if range.start < line.start || range.end > line.end {
            return None;
        }
        mended.replace_range(range.start - line.start..range.end - line.start, new);
    }
    let mended = code(&mended).trim();
    let fits = !mended.is_empty() && !mended.contains('\n') && mended.chars().count() <= LONGEST;
    fits.then(|| mended.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::syntax::parse;

    /// What is wrong with `text`, and the text as it was understood.
    fn mended(text: &str) -> (Vec<String>, String) {
        let draft = Draft::of(text);
        (draft.slips.iter().map(|slip| slip.message.clone()).collect(), draft.text)
    }

    #[test]
    fn a_slip_is_one_mistake_and_read_as_it_was_meant() {
        let pairs = [
            ("a = \"C:\\Users\\me\"", "a = 'C:\\Users\\me'"),
            ("a = [\"C:\\x\\\"]", "a = ['C:\\x\\']"),
            ("a = \u{201c}x\u{201d}", "a = \"x\""),
            ("a = \u{201c}C:\\x\u{201d}", "a = 'C:\\x'"),
            ("a\u{a0}= 1", "a = 1"),
            ("a = \u{2013}1", "a = -1"),
            ("a = True", "a = true"),
            ("a = no", "a = false"),
            ("a: 1", "a = 1"),
            ("a: 1,", "a = 1"),
            ("a = { b: 1, c: 2 }", "a = { b = 1, c = 2 }"),
            ("a == 1", "a = 1"),
            ("a := 1", "a = 1"),
            ("a 1", "a = 1"),
            ("a = x", "a = \"x\""),
            ("a = x y, z.", "a = \"x y, z.\""),
            ("a = [x, y]", "a = [\"x\", \"y\"]"),
            ("a = 1,", "a = 1"),
            ("a = 1;", "a = 1"),
            ("a = (1, 2)", "a = [1, 2]"),
            ("a = 1, 2", "a = [1, 2]"),
            ("a = 6,000", "a = 6000"),
            ("a = 0,5", "a = 0.5"),
            ("a = .5", "a = 0.5"),
            ("a = 1/4", "a = 0.25"),
            ("a = 10%", "a = 0.1"),
            ("a = 1e\u{2013}4", "a = 1e-4"),
            ("a = 007", "a = 7"),
            ("// c", "# c"),
            ("a = 0.2 // c", "a = 0.2 # c"),
            ("a = 'x' -- c", "a = 'x' # c"),
            ("a = true /* c */", "a = true # c */"),
            ("a = [1, 2] ; c", "a = [1, 2] # c"),
            ("a = 0.5 % c", "a = 0.5 # c"),
            ("[a.b", "[a.b]"),
            ("a.b]", "[a.b]"),
            ("[a b]", "[a.b]"),
            ("a = 'it's'", "a = \"it's\""),
            ("a = \"x", "a = \"x\""),
            ("a = [1, 2\nb = 3", "a = [1, 2]\nb = 3"),
            ("a = 1 b = 2", "a = 1\nb = 2"),
            ("a = 'x', b = 2", "a = 'x'\nb = 2"),
            ("a = [\"x\" \"y\"]", "a = [\"x\", \"y\"]"),
            ("a = { b = 1 c = 2 }", "a = { b = 1, c = 2 }"),
            ("a = r\"C:\\x\"", "a = 'C:\\x'"),
            ("two words = 1", "two_words = 1"),
        ];
        for (written, meant) in pairs {
            let (slips, text) = mended(written);
            let distinct: std::collections::BTreeSet<&String> = slips.iter().collect();
            assert_eq!((text.as_str(), distinct.len()), (meant, 1), "{written}: {slips:?}");
            let parsed = parse(written);
            assert!(!parsed.incomplete && parsed.mistakes.len() == slips.len(), "{written}: {:?}", parsed.mistakes);
        }
    }

    #[test]
    fn toml_is_left_alone() {
        let text = "a = 1\t# it\u{2019}s \u{201c}fine\u{201d}\n\tb = \"\u{201c}\"\n[t]\nc = { d = 1, }\ne = [\n 1,\n]\nf = 'C:\\x'\ng = 1_000\n";
        assert_eq!(mended(text), (Vec::new(), text.to_owned()));
        assert!(other_format(text).is_none() && other_format("").is_none() && other_format("[[a]]\nb = 1").is_none());
    }

    #[test]
    fn places_are_those_of_the_text_as_it_was_written() {
        let text = "a = x\nb = { c: 1 }\nd = 4\n";
        let parsed = parse(text);
        let place = |key: &str| &text[parsed.root.place(key).unwrap()];
        assert_eq!([place("a"), place("b.c"), place("d")], ["x", "1", "4"]);

        let text = "{“None““None“\u{a0}NoneNone0None0None“NoneNone0NoneNone“aa“,“}aNone“";
        let labels: Vec<Span> =
            parse(text).mistakes.into_iter().flat_map(|mistake| mistake.labels).map(|label| label.span).collect();
        assert!(!labels.is_empty() && labels.iter().all(|span| text.get(span.clone()).is_some()), "{labels:?}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd_to_be_read(text in "([a-z]{1,3}|[=:;,.\\[\\]{}()\"'#/\\\\~ \t\n-]|\u{201c}|\u{a0}|[0-9]|None|True){0,40}") {
            let parsed = parse(&text);
            for mistake in parsed.mistakes {
                for label in mistake.labels {
                    proptest::prop_assert!(text.get(label.span.clone()).is_some(), "{:?} of {text:?}", label.span);
                }
            }
        }
    }
}
