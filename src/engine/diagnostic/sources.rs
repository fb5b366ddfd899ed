//! The texts that mistakes are about, one behind the other: a place is one number, and it says which text it is in.

use std::ops::Range;

use super::Span;

/// A text and what to call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's path as the user wrote it.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// Texts whose places are numbered throughout. Between two of them is a place that belongs to the first, for what is
/// missing at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    starts: Vec<usize>,
    texts: Vec<Source>,
}

/// A place for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The text's name.
    pub name: &'a str,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl Sources {
    /// One text.
    pub fn of(name: impl Into<String>, text: impl Into<String>) -> Self {
        let mut sources = Self::default();
        sources.add(Source { name: name.into(), text: text.into() });
        sources
    }

    /// Adds a text. Returns the place of its beginning.
    pub fn add(&mut self, source: Source) -> usize {
        let start = self.end();
        self.starts.push(start);
        self.texts.push(source);
        start
    }

    /// Where the next text begins.
    fn end(&self) -> usize {
        self.starts.last().map_or(0, |start| start + self.texts[self.texts.len() - 1].text.len() + 1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The texts.
    pub fn texts(&self) -> &[Source] {
        &self.texts
    }

    /// The number of the text that `place` is in. What is beyond all texts counts as the last one's.
    pub fn index(&self, place: usize) -> usize {
        self.starts.partition_point(|start| *start <= place).saturating_sub(1)
    }

    /// The text that `span` begins in, and the span within it, cut to where the text ends.
    pub fn local(&self, span: &Span) -> Option<(&Source, Range<usize>)> {
        let index = self.index(span.start);
        let (start, source) = (self.starts.get(index)?, &self.texts[index]);
        let first = span.start.saturating_sub(*start).min(source.text.len());
        let last = span.end.saturating_sub(*start).clamp(first, source.text.len());
        Some((source, first..last))
    }

    /// The line and column of a place.
    pub fn place(&self, place: usize) -> Option<Place<'_>> {
        let (source, span) = self.local(&(place..place))?;
        let before = source.text.get(..span.start).unwrap_or_default();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some(Place { name: &source.name, line: before.matches('\n').count() + 1, column })
    }

    /// What is written at `span`.
    pub fn written(&self, span: &Span) -> &str {
        self.local(span).and_then(|(source, span)| source.text.get(span)).unwrap_or_default()
    }

    /// The same texts, changed by `change`, which keeps their lengths.
    pub(super) fn map(&self, change: impl Fn(&str) -> String) -> Self {
        let changed = |source: &Source| Source { name: source.name.clone(), text: change(&source.text) };
        Self { starts: self.starts.clone(), texts: self.texts.iter().map(changed).collect() }
    }

    /// Where the text number `index` begins.
    pub(super) fn start(&self, index: usize) -> usize {
        self.starts.get(index).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_knows_its_text_line_and_column() {
        let mut sources = Sources::of("a", "one\ntwo");
        assert_eq!(sources.add(Source { name: "b".into(), text: "\u{e9}x\n".into() }), 8);
        let place = |at: usize| sources.place(at).map(|place| (place.name.to_owned(), place.line, place.column));
        assert_eq!(place(5), Some(("a".to_owned(), 2, 2)));
        // The end of the first, the beginning of the second, and beyond.
        assert_eq!(place(7), Some(("a".to_owned(), 2, 4)));
        assert_eq!(place(8), Some(("b".to_owned(), 1, 1)));
        assert_eq!(place(10), Some(("b".to_owned(), 1, 2)));
        assert_eq!(place(99), Some(("b".to_owned(), 2, 1)));
        assert_eq!(sources.written(&(4..7)), "two");
        assert_eq!(sources.written(&(10..11)), "x");
        assert_eq!(Sources::default().place(0), None);
    }
}
