//! A user's mistakes as data (message, places, remedy), and how they are shown with the text they are about.
//!
//! This module does not know what the text means, nor whose mistake it is: `spec` and `graph` have their own lists of
//! mistakes, and turn each into a [`Diagnostic`] in one place.

mod sources;

use std::fmt;
use std::io;
use std::ops::Range;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, Severity, SourceCode,
    SourceSpan, SpanContents,
};
use textwrap::{WordSeparator, WordSplitter};

pub use sources::{Place, Source, Sources};

/// A range of bytes of source texts, which are numbered throughout: see [`Sources`].
pub type Span = Range<usize>;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong: lower case, names in backticks, no final stop.
    pub message: String,
    /// The places that it is about, the offending one first; none when it is about no text.
    pub labels: Vec<Label>,
    /// What to do.
    pub help: Option<String>,
}

/// A place in the text, and the message there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What.
    pub text: String,
}

impl Diagnostic {
    /// A mistake without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), labels: Vec::new(), help: None }
    }

    /// The same with one more place.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// The same with a remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into();
        self
    }

    /// The same in a text that begins at `start`.
    #[must_use]
    pub fn shifted(mut self, start: usize) -> Self {
        for Label { span, .. } in &mut self.labels {
            *span = span.start + start..span.end + start;
        }
        self
    }

    /// Where it is in the text, for sorting.
    pub fn start(&self) -> usize {
        self.labels.first().map_or(0, |label| label.span.start)
    }
}

/// How diagnostics are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Box-drawing characters; without them ASCII.
    pub unicode: bool,
    /// Colors.
    pub color: bool,
    /// Columns.
    pub width: usize,
}

impl Style {
    /// For output that is not a terminal: the same on every machine.
    pub const PLAIN: Self = Self { unicode: false, color: false, width: 120 };

    fn theme(self) -> GraphicalTheme {
        match (self.unicode, self.color) {
            (true, true) => GraphicalTheme::unicode(),
            (true, false) => GraphicalTheme::unicode_nocolor(),
            (false, true) => GraphicalTheme { styles: miette::ThemeStyles::ansi(), ..GraphicalTheme::none() },
            (false, false) => GraphicalTheme::none(),
        }
    }
}

/// Draws `diagnostics` in the order of the texts, each with file name, line, column and the underlined text.
pub fn render(sources: &Sources, diagnostics: &[Diagnostic], style: Style) -> String {
    let mut diagnostics: Vec<&Diagnostic> = diagnostics.iter().collect();
    diagnostics.sort_by_key(|diagnostic| diagnostic.start());
    let drawable = Drawable(sources.map(drawable));
    let handler = GraphicalReportHandler::new_themed(style.theme())
        .with_width(style.width)
        .with_links(false)
        // Paths and commands stay in one piece.
        .with_break_words(false)
        .with_word_separator(WordSeparator::AsciiSpace)
        .with_word_splitter(WordSplitter::NoHyphenation)
        .with_context_lines(1)
        .without_syntax_highlighting();
    let mut text = String::new();
    for (index, diagnostic) in diagnostics.into_iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let undrawable = unbroken(sources, diagnostic);
        let source = Some(&drawable).filter(|_| undrawable.is_none() && !sources.is_empty());
        let drawn = Drawn { diagnostic: undrawable.as_ref().unwrap_or(diagnostic), source };
        if handler.render_report(&mut text, &drawn).is_err() {
            // Only a span outside the texts could end here; the message still has to reach its reader.
            text.push_str(&format!("  x {}\n", drawn.diagnostic.message));
        }
    }
    // The drawing pads lines; blanks before a line break are noise in logs and snapshots.
    let mut lines = String::with_capacity(text.len());
    for line in text.lines() {
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    lines
}

/// `text` with characters that would move a terminal's cursor replaced by others that take as many bytes.
fn drawable(text: &str) -> String {
    let replaced = |c: char| match c {
        '\n' | '\r' | '\t' => c,
        c if c.is_ascii_control() => '?',
        c if c.is_control() => '\u{bf}',
        c => c,
    };
    text.chars().map(replaced).collect()
}

/// `diagnostic` with its place in words, where a line that would be drawn is too long to be read, or even drawn.
fn unbroken(sources: &Sources, diagnostic: &Diagnostic) -> Option<Diagnostic> {
    const LONGEST: usize = 4096;
    let long = diagnostic.labels.iter().any(|label| {
        let Some((source, span)) = sources.local(&label.span) else { return false };
        let text = source.text.as_str();
        let (Some(before), Some(after)) = (text.get(..span.start), text.get(span.end..)) else { return true };
        // The lines of the span, and one on either side.
        let first = before.rmatch_indices('\n').nth(1).map_or(0, |(at, _)| at + 1);
        let last = after.match_indices('\n').nth(1).map_or(text.len(), |(at, _)| span.end + at);
        text[first..last].lines().any(|line| line.len() > LONGEST)
    });
    long.then(|| {
        let mut words = diagnostic.clone();
        if let Some(Place { name, line, column }) = sources.place(diagnostic.start()) {
            words.message = format!("{name}:{line}:{column}: {}", diagnostic.message);
        }
        if let Some(label) = diagnostic.labels.first().filter(|label| !label.text.is_empty()) {
            words.message += &format!(" ({})", label.text);
        }
        words
    })
}

/// Texts to be drawn. A span of one is read out of it with its name; one across two is not read, so that each is drawn
/// on its own. Columns count characters, as editors do; miette's own count bytes.
struct Drawable(Sources);

impl SourceCode for Drawable {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let index = self.0.index(span.offset());
        let (first, Source { name, text }) = (self.0.start(index), &self.0.texts()[index]);
        let local = SourceSpan::new((span.offset() - first).into(), span.len());
        let found = text.read_span(&local, before, after)?;
        let start = text.get(..found.span().offset()).unwrap_or_default();
        let column = start.rsplit('\n').next().unwrap_or_default().chars().count();
        let place = SourceSpan::new((first + found.span().offset()).into(), found.span().len());
        let (data, lines) = (found.data(), found.line_count());
        Ok(Box::new(MietteSpanContents::new_named(name.clone(), data, place, found.line(), column, lines)))
    }
}

/// A diagnostic with its texts, as miette wants it.
struct Drawn<'a> {
    diagnostic: &'a Diagnostic,
    source: Option<&'a Drawable>,
}

impl fmt::Debug for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostic.fmt(f)
    }
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Drawn<'_> {}

impl miette::Diagnostic for Drawn<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.filter(|_| !self.diagnostic.labels.is_empty()).map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let Drawable(sources) = self.source?;
        Some(Box::new(self.diagnostic.labels.iter().enumerate().map(move |(index, label)| {
            let first = sources.start(sources.index(label.span.start));
            let local = sources.local(&label.span).map_or(0..0, |(_, local)| local);
            let span = first + local.start..first + local.end;
            let text = Some(label.text.clone()).filter(|text| !text.is_empty());
            if index == 0 {
                LabeledSpan::new_primary_with_span(text, span)
            } else {
                LabeledSpan::new_with_span(text, span)
            }
        })))
    }
}

/// The name among `known` that `written` most probably means, if any is near enough.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= written.chars().count().max(name.chars().count()).div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `did you mean …?`, when a known name is near; otherwise the list of `known`.
pub fn did_you_mean(written: &str, what: &str, known: &[&str]) -> Option<String> {
    match (nearest(written, known.iter().copied()), known) {
        (Some(name), _) => Some(format!("did you mean `{name}`?")),
        (None, []) => None,
        (None, known) => Some(format!("known {what}: {}", listed(known))),
    }
}

/// Whether `text`, which must be something else, ends as files do.
pub fn has_file_ending(text: &str) -> bool {
    const ENDINGS: [&str; 12] =
        ["txt", "json", "jsonl", "ndjson", "md", "csv", "tsv", "yaml", "yml", "toml", "safetensors", "parquet"];
    let ending = text.rsplit_once('.').map(|(_, ending)| ending.to_lowercase());
    !text.contains(char::is_whitespace) && ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// Whether `text`, which must be a name, looks like the path of a file or directory.
pub fn looks_like_path(text: &str) -> bool {
    has_file_ending(text) || (!text.contains(' ') && text.contains(['/', '\\']))
}

/// `1 item`, `2,000 items`: `what` is the singular of a noun with a regular plural.
pub fn counted(count: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// `number` with its thousands apart.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// `value` to so many decimals, and never minus zero.
pub fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    let rounded = (value * scale).round() / scale;
    if rounded == 0.0 { 0.0 } else { value }
}

/// Names in backticks, with commas; the rest of a long list is counted.
pub fn listed<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 16;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", name.as_ref())).collect();
    let rest = names.len().saturating_sub(SHOWN);
    if rest == 0 { shown.join(", ") } else { format!("{} and {rest} more", shown.join(", ")) }
}

/// Whether the machine failed (a full disk, no memory, a device that does not answer), not the request: the
/// same may succeed later, and no other name in a file or on the command line would help.
pub fn is_of_the_machine(cause: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, Deadlock, FileTooLarge, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable, OutOfMemory, QuotaExceeded, ResourceBusy, StaleNetworkFileHandle, StorageFull, TimedOut,
        WouldBlock, WriteZero,
    };
    match cause.kind() {
        ConnectionAborted
        | ConnectionReset
        | Deadlock
        | FileTooLarge
        | HostUnreachable
        | Interrupted
        | NetworkDown
        | NetworkUnreachable
        | OutOfMemory
        | QuotaExceeded
        | ResourceBusy
        | StaleNetworkFileHandle
        | StorageFull
        | TimedOut
        | WouldBlock
        | WriteZero => true,
        // The standard library has no names for a failing device and too many open files.
        _ => cfg!(unix) && cause.raw_os_error().is_some_and(|code| matches!(code, 5 | 23 | 24)),
    }
}

/// Whether links lead in a circle, for which the standard library has no stable name.
#[cfg(unix)]
fn is_link_loop(cause: &io::Error) -> bool {
    cause.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(not(unix))]
fn is_link_loop(_: &io::Error) -> bool {
    false
}

/// What to do about a file or directory that cannot be read or written, where the cause tells.
pub fn io_help(cause: &io::Error) -> Option<&'static str> {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space and run again; finished work is cached")
        }
        io::ErrorKind::PermissionDenied => Some("fix its permissions, or name another"),
        io::ErrorKind::IsADirectory => Some("a file is expected, not a directory"),
        _ if is_link_loop(cause) => Some("a symbolic link refers to itself: remove it, or fix its target"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_kept_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_full_disk_is_of_the_machine_and_a_missing_file_is_not() {
        let all = |kinds: &[io::ErrorKind]| kinds.iter().map(|kind| io::Error::from(*kind)).collect::<Vec<_>>();
        assert!(all(&[io::ErrorKind::StorageFull, io::ErrorKind::OutOfMemory]).iter().all(is_of_the_machine));
        let named = all(&[io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied, io::ErrorKind::InvalidData]);
        assert!(!named.iter().any(is_of_the_machine));
        assert_eq!(is_of_the_machine(&io::Error::from_raw_os_error(5)), cfg!(unix));
    }

    #[test]
    fn columns_count_characters_and_control_characters_are_not_drawn() {
        let text = "a = \"\u{65e5}\u{672c}\u{1b}[31m\", b = 1\r\n\tc = 2\r\n";
        let source = Sources::of("p.toml", text);
        let at = |what: &str| text.find(what).map(|start| start..start + 1).expect("it is there");
        let mistakes = [Diagnostic::new("first").label(at("b"), ""), Diagnostic::new("second").label(at("2"), "")];
        let drawn = render(&source, &mistakes, Style::PLAIN);
        assert!(drawn.contains("[p.toml:1:16]") && drawn.contains("[p.toml:2:6]"), "{drawn}");
        assert!(!drawn.contains('\u{1b}'), "{drawn}");
    }

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("temprature", ["top_k", "temperature"]), Some("temperature"));
        assert_eq!(nearest("DPO", ["dpo", "sft"]), Some("dpo"));
        assert_eq!(nearest("banana", ["dpo", "sft"]), None);
    }

    #[test]
    fn a_mistake_is_shown_with_file_line_column_and_underlined_text() {
        let source = Sources::of("p.toml", "a = 1\nbeta = -1\n");
        let mistake =
            Diagnostic::new("`beta` is out of range").label(13..15, "here").help("a number above 0".to_owned());
        insta::assert_snapshot!(render(&source, &[mistake], Style::PLAIN), @r"
          x `beta` is out of range
           ,-[p.toml:2:8]
         1 | a = 1
         2 | beta = -1
           :        ^|
           :         `-- here
           `----
          help: a number above 0
        ");
    }

    #[test]
    fn a_mistake_about_two_texts_shows_both() {
        let mut sources = Sources::of("p.toml", "[nodes.a]\nkind = 'x'");
        let start = sources.add(Source { name: "more.toml".into(), text: "\n[nodes.a]\n".into() });
        let mistake = Diagnostic::new("`nodes.a` is defined twice")
            .label(start + 8..start + 9, "defined again here")
            .label(7..8, "first defined here");
        insta::assert_snapshot!(render(&sources, &[mistake], Style::PLAIN), @r"
          x `nodes.a` is defined twice
           ,-[p.toml:1:8]
         1 | [nodes.a]
           :        |
           :        `-- first defined here
         2 | kind = 'x'
           `----
           ,-[more.toml:2:8]
         1 |
         2 | [nodes.a]
           :        |
           :        `-- defined again here
           `----
        ");
    }

    #[test]
    fn a_mistake_on_an_endless_line_is_placed_in_words() {
        let text = format!("a = 1\nb = \"{}\"\n", "x".repeat(100_000));
        let source = Sources::of("p.toml", text);
        let mistake =
            Diagnostic::new("unknown key `b`").label(10..100_012, "not recognized").help("remove it".to_owned());
        insta::assert_snapshot!(render(&source, &[mistake], Style::PLAIN), @r"
          x p.toml:2:5: unknown key `b` (not recognized)
          help: remove it
        ");
    }

    #[test]
    fn a_span_outside_the_text_is_still_reported() {
        let source = Sources::of("p.toml", "é");
        for span in [0..0, 0..99, 2..2, 50..60, 1..2] {
            let text = render(&source, &[Diagnostic::new("wrong").label(span, "here")], Style::PLAIN);
            assert!(text.contains("wrong"), "{text}");
        }
    }
}
