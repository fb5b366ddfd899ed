//! Streams the records of a JSON array or a JSON Lines file.
//!
//! An invalid record is reported with its place and the next one is read. Only one record is in memory at a time.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

use super::record_notes::RecordNote;
use super::sniff::{WrongContent, behind_mark};
use super::source::SourceError;

/// The place of a record in its file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A line.
    Line(usize),
    /// An element of an array.
    Record(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Record(record) => write!(f, "record {record}"),
        }
    }
}

/// A parsed record.
#[derive(Clone, Debug, PartialEq)]
pub struct RawRecord {
    /// The JSON value.
    pub value: Value,
    /// RecordNotes on reading it.
    pub remarks: Vec<RecordNote>,
}

/// Takes a record at its place, or its mistake; an error stops the reading.
pub type TakeRecord<'a> = dyn FnMut(Place, Result<RawRecord, String>) -> Result<(), SourceError> + 'a;

/// The longest record in bytes. A longer one has an unclosed quote or bracket, and would fill the memory.
const LONGEST: usize = 64 << 20;

/// Whether the file holds records rather than a list of paths, by its extension.
pub fn is_records(path: &Path) -> bool {
    is_lines(path) || has_extension(path, &["json"])
}

fn is_lines(path: &Path) -> bool {
    has_extension(path, &["jsonl", "ndjson"])
}

pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| extensions.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

/// Calls `take` with every element of a JSON array, or every line of a JSON Lines file.
///
/// # Errors
/// When the file as a whole cannot be read (see [`SourceError`]), and errors of `take`.
pub fn each_record(path: &Path, take: &mut TakeRecord<'_>) -> Result<(), SourceError> {
    let unreadable = |cause| SourceError::Unreadable { path: path.to_owned(), cause };
    let mut reader = open(path)?;
    if let Some(found) = WrongContent::instead_of_records(reader.fill_buf().map_err(unreadable)?, is_lines(path)) {
        return Err(SourceError::Other { path: path.to_owned(), found });
    }
    let first = reader.fill_buf().map_err(unreadable)?.trim_ascii_start().first().copied();
    let array = first.is_none_or(|first| first == b'[');
    let lines = if is_lines(path) { first.is_none() || !array } else { !array && is_lines_inside(reader) };
    if lines {
        return each_line(path, &mut |number, line| {
            let record = line.map_err(str::to_owned).and_then(|line| read_record(line, None));
            take(Place::Line(number), record)
        });
    }
    if !array {
        return Err(SourceError::NoArray(path.to_owned()));
    }
    let mut elements = Elements::new(open(path)?);
    let broken = |cause| match WrongContent::in_text_file(path) {
        Some(found) => SourceError::Other { path: path.to_owned(), found },
        None => SourceError::Json { path: path.to_owned(), cause },
    };
    while let Some(place) = elements.next().map_err(|trouble| match trouble {
        ScanError::Io(cause) => unreadable(cause),
        ScanError::Json(cause) => broken(cause),
    })? {
        take(Place::Record(elements.number), read_record(&elements.text, Some(place)))?;
    }
    Ok(())
}

/// Whether a file without the extension is JSON Lines, as `datasets` writes it: the first line is an object, and
/// another follows.
fn is_lines_inside(mut reader: impl BufRead) -> bool {
    let mut line = Vec::new();
    let whole = reader.by_ref().take(LONGEST as u64).read_until(b'\n', &mut line).is_ok()
        && serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok();
    let next = || reader.bytes().map_while(Result::ok).find(|byte| !byte.is_ascii_whitespace());
    whole && next() == Some(b'{')
}

/// Takes the number of a line and its content, or its mistake.
pub(super) type TakeLine<'a> = dyn FnMut(usize, Result<&[u8], &'static str>) -> Result<(), SourceError> + 'a;

/// Calls `take` with every line that is not empty.
pub(super) fn each_line(path: &Path, take: &mut TakeLine<'_>) -> Result<(), SourceError> {
    let unreadable = |cause| SourceError::Unreadable { path: path.to_owned(), cause };
    let mut reader = open(path)?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.by_ref().take(LONGEST as u64).read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            break;
        }
        if line.len() == LONGEST && line.last() != Some(&b'\n') {
            reader.skip_until(b'\n').map_err(unreadable)?;
            take(number, Err("it is longer than 64 MiB"))?;
        } else if !line.trim_ascii().is_empty() {
            take(number, Ok(line.trim_ascii_end()))?;
        }
    }
    Ok(())
}

/// Opens a text file and skips its byte-order mark, which Windows editors write.
fn open(path: &Path) -> Result<BufReader<File>, SourceError> {
    let unreadable = |cause| SourceError::Unreadable { path: path.to_owned(), cause };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(unreadable)?);
    let head = reader.fill_buf().map_err(unreadable)?;
    // Checked first: parsed as a list of paths, an HTML page would be many missing pictures.
    if let Some(found) = WrongContent::in_any(head).filter(|_| !head.is_empty()) {
        return Err(SourceError::Other { path: path.to_owned(), found });
    }
    let mark = head.len() - behind_mark(head).len();
    reader.consume(mark);
    Ok(reader)
}

/// Line and column, counted from 1; columns are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    line: usize,
    column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why the next element of an array cannot be found.
#[derive(Debug)]
enum ScanError {
    Io(std::io::Error),
    Json(String),
}

/// Splits a JSON array into the texts of its elements by brackets and quotes alone, so that it works for invalid
/// elements.
struct Elements<R> {
    reader: R,
    /// The element that was found last.
    text: Vec<u8>,
    /// Which it is.
    number: usize,
    position: Position,
    begun: bool,
    ended: bool,
}

impl<R: BufRead> Elements<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            text: Vec::new(),
            number: 0,
            position: Position { line: 1, column: 1 },
            begun: false,
            ended: false,
        }
    }

    /// Reads the next element and returns where it begins; `None` after the last.
    fn next(&mut self) -> Result<Option<Position>, ScanError> {
        self.text.clear();
        if !self.begun {
            match self.peek()? {
                Some(b'[') => self.step(),
                _ => return Err(self.ends("the array of records")),
            }
            self.begun = true;
            if self.peek()? == Some(b']') {
                self.close()?;
            }
        }
        if self.ended {
            return Ok(None);
        }
        let Some(first) = self.peek()? else { return Err(self.ends("the array of records")) };
        let begins = self.position;
        if matches!(first, b',' | b']') {
            let (what, after) = (char::from(first), self.number);
            return Err(ScanError::Json(format!("{begins}: expected a record before `{what}`, after record {after}")));
        }
        self.number += 1;
        self.read_element(begins)?;
        match self.peek()? {
            Some(b',') => self.step(),
            _ => self.close()?,
        }
        Ok(Some(begins))
    }

    /// Reads up to the comma or bracket after the element.
    fn read_element(&mut self, begins: Position) -> Result<(), ScanError> {
        let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
        loop {
            let buffer = self.reader.fill_buf().map_err(ScanError::Io)?;
            if buffer.is_empty() {
                return Err(self.ends(&format!("record {}, which begins in {begins},", self.number)));
            }
            let mut end = None;
            for (index, byte) in buffer.iter().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    _ if quoted => {}
                    b'{' | b'[' => depth += 1,
                    b']' | b',' if depth == 0 => {
                        end = Some(index);
                        break;
                    }
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            let taken = end.unwrap_or(buffer.len());
            self.text.extend_from_slice(&buffer[..taken]);
            self.position.pass(&buffer[..taken]);
            self.reader.consume(taken);
            if end.is_some() {
                return Ok(());
            }
            if self.text.len() > LONGEST {
                let number = self.number;
                return Err(ScanError::Json(format!(
                    "record {number}, which begins in {begins}, is longer than 64 MiB: it has an unclosed quote or bracket"
                )));
            }
        }
    }

    /// Checks that nothing follows the array.
    fn close(&mut self) -> Result<(), ScanError> {
        self.step();
        self.ended = true;
        match self.peek()? {
            None => Ok(()),
            Some(_) => {
                Err(ScanError::Json(format!("{}: unexpected content after the array of records", self.position)))
            }
        }
    }

    /// The next byte that is not white space, without consuming it.
    fn peek(&mut self) -> Result<Option<u8>, ScanError> {
        loop {
            let buffer = self.reader.fill_buf().map_err(ScanError::Io)?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let found = buffer.get(blanks).copied();
            self.position.pass(&buffer[..blanks]);
            self.reader.consume(blanks);
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    fn step(&mut self) {
        self.position.column += 1;
        self.reader.consume(1);
    }

    fn ends(&self, what: &str) -> ScanError {
        ScanError::Json(format!("unexpected end of file in {}: {what} is not closed", self.position))
    }
}

impl Position {
    /// Advances past `text`.
    fn pass(&mut self, text: &[u8]) {
        match text.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => {
                self.line += text.iter().filter(|byte| **byte == b'\n').count();
                self.column = text.len() - last;
            }
            None => self.column += text.len(),
        }
    }
}

/// A line that holds one record.
///
/// # Errors
/// Its mistake, with the column.
pub fn read_line(line: &[u8]) -> Result<RawRecord, String> {
    read_record(line.trim_ascii_end(), None)
}

/// Parses one record; `begins` is its position in the file, unless it is a line.
fn read_record(text: &[u8], begins: Option<Position>) -> Result<RawRecord, String> {
    let error = match serde_json::from_slice(text) {
        Ok(value) => return Ok(RawRecord { value, remarks: Vec::new() }),
        Err(error) => error,
    };
    if let Some(value) = without_halves(text).and_then(|text| serde_json::from_slice(&text).ok()) {
        return Ok(RawRecord { value, remarks: vec![RecordNote::UnpairedSurrogate] });
    }
    let place = |line: usize, column: usize| match begins {
        None => format!("column {column}"),
        Some(begins) if line <= 1 => Position { line: begins.line, column: begins.column + column - 1 }.to_string(),
        Some(begins) => Position { line: begins.line + line - 1, column }.to_string(),
    };
    if let Err(error) = std::str::from_utf8(text) {
        let at = error.valid_up_to();
        let mut position = Position { line: 1, column: 1 };
        position.pass(&text[..at]);
        let (byte, place) = (text[at], place(position.line, position.column));
        return Err(format!("not UTF-8: the byte {byte:#04x} ({place}); save the file as UTF-8"));
    }
    if let Some(number) = python_number(text) {
        return Err(format!("`{number}` is not valid JSON, though Python writes it: use `null`, or omit the field"));
    }
    let (line, column) = (error.line(), error.column().max(1));
    let reported = error.to_string();
    let cause = reported.strip_suffix(&format!(" at line {line} column {}", error.column())).unwrap_or(&reported);
    Err(format!("not valid JSON: {cause} ({})", place(line, column)))
}

/// `text` with unpaired surrogates, which Python writes for half an emoji, replaced by U+FFFD; `None` if there are
/// none.
fn without_halves(text: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| -> Option<u16> {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?, 16).ok()
    };
    let mut mended: Option<Vec<u8>> = None;
    let mut at = 0;
    while at < text.len() {
        let length = match (text[at], unit(at)) {
            (b'\\', Some(0xD800..=0xDBFF)) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => 12,
            (b'\\', Some(0xD800..=0xDFFF)) => {
                let mended = mended.get_or_insert_with(|| text[..at].to_vec());
                mended.extend_from_slice(b"\\ufffd");
                at += 6;
                continue;
            }
            (b'\\', _) => 2,
            _ => 1,
        };
        let end = (at + length).min(text.len());
        if let Some(mended) = &mut mended {
            mended.extend_from_slice(&text[at..end]);
        }
        at = end;
    }
    mended
}

/// The first number outside quotes that Python's `json` writes but JSON does not allow.
fn python_number(text: &[u8]) -> Option<&'static str> {
    let (mut quoted, mut at) = (false, 0);
    while at < text.len() {
        match text[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            _ => {
                let found =
                    ["NaN", "-Infinity", "Infinity"].into_iter().find(|name| text[at..].starts_with(name.as_bytes()));
                if found.is_some() {
                    return found;
                }
            }
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    type Reported = Vec<(String, Result<Value, String>)>;

    /// The records of a file called `name`, by place, and what ended the reading early.
    fn records(name: &str, content: impl AsRef<[u8]>) -> (Reported, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mut reported = Vec::new();
        let read = each_record(&path, &mut |place, record| {
            reported.push((place.to_string(), record.map(|record| record.value)));
            Ok(())
        });
        let prefix = format!("`{}` ", path.display());
        (reported, read.err().map(|error| error.to_string().replacen(&prefix, "", 1)))
    }

    #[test]
    fn one_bad_record_does_not_affect_others() {
        let good = json!({ "image": "a.png" });
        for (bad, cause) in [
            ("{\"a\": }", "not valid JSON: expected value (line 2, column 7)"),
            ("{\"a\": NaN}", "`NaN` is not valid JSON, though Python writes it: use `null`, or omit the field"),
            (
                "{\"a\": [1, -Infinity]}",
                "`-Infinity` is not valid JSON, though Python writes it: use `null`, or omit the field",
            ),
            (
                "{\"a\": \"x\ty\"}",
                "not valid JSON: control character (\\u0000-\\u001F) found while parsing a string (line 2, column 9)",
            ),
            ("oops", "not valid JSON: expected value (line 2, column 1)"),
            ("{\"a\": 1} {\"b\": 2}", "not valid JSON: trailing characters (line 2, column 10)"),
        ] {
            let (reported, end) = records("a.json", format!("[{good},\n{bad},\n{good}]"));
            assert_eq!(end, None, "{bad}");
            let places: Vec<&str> = reported.iter().map(|(place, _)| place.as_str()).collect();
            assert_eq!(places, ["record 1", "record 2", "record 3"], "{bad}");
            assert_eq!((&reported[0].1, &reported[2].1), (&Ok(good.clone()), &Ok(good.clone())));
            assert_eq!(reported[1].1.as_ref().unwrap_err(), cause);
            let (reported, end) = records("a.jsonl", format!("{good}\n{bad}\n{good}\n"));
            assert_eq!((reported.len(), end), (3, None));
            assert_eq!(*reported[1].1.as_ref().unwrap_err(), cause.replace("line 2, ", ""), "{bad}");
        }
    }

    #[test]
    fn invalid_utf_8_fails_only_its_record() {
        let bytes = [b"[{\"a\": 1}, {\"a\": \"caf\xe9\"}, {\"a\": 3}]".as_slice()].concat();
        let (reported, end) = records("a.json", bytes);
        assert_eq!((reported.len(), end), (3, None));
        assert_eq!(
            reported[1].1.as_ref().unwrap_err(),
            "not UTF-8: the byte 0xe9 (line 1, column 22); save the file as UTF-8"
        );
        let (reported, _) = records("a.jsonl", b"{\"a\": \"caf\xe9\"}\n{\"a\": 3}\n");
        assert_eq!(reported[0].1.as_ref().unwrap_err(), "not UTF-8: the byte 0xe9 (column 11); save the file as UTF-8");
        assert!(reported[1].1.is_ok());
    }

    #[test]
    fn half_an_emoji_reads_as_the_replacement_character() {
        let read = |text: &str| read_record(text.as_bytes(), None).map(|record| (record.value, record.remarks.len()));
        assert_eq!(read(r#"["a\ud83d"]"#), Ok((json!(["a\u{fffd}"]), 1)));
        assert_eq!(read(r#"["\ude00\ud83d\ude00\ud83d b"]"#), Ok((json!(["\u{fffd}😀\u{fffd} b"]), 1)));
        assert_eq!(read(r#"["\ud83d\ud83d\ude00"]"#), Ok((json!(["\u{fffd}😀"]), 1)));
        assert_eq!(read(r#"["\\ud83d"]"#), Ok((json!(["\\ud83d"]), 0)), "an escaped backslash is no escape");
        assert_eq!(read(r#"["\ud83d\ude00"]"#), Ok((json!(["😀"]), 0)));
        assert!(read(r#"["\ud83d", ]"#).is_err());
    }

    #[test]
    fn brackets_and_commas_in_strings_do_not_split_records() {
        let values = json!([{"a": "]},{[\"\\"}, "b,]", 3, null, [], [[1, 2], {"c": ["d"]}]]);
        for text in [values.to_string(), format!(" \n{}\n", serde_json::to_string_pretty(&values).unwrap())] {
            let (reported, end) = records("a.json", text);
            let read: Vec<Value> = reported.into_iter().map(|(_, value)| value.unwrap()).collect();
            assert_eq!((json!(read), end), (values.clone(), None));
        }
        assert_eq!(records("a.json", "[]"), (vec![], None));
        assert_eq!(records("a.json", " [ ]\n"), (vec![], None));
    }

    #[test]
    fn an_array_that_is_none_is_reported_by_line_and_column() {
        let end = |text: &str| records("a.json", text).1.unwrap();
        assert_eq!(
            end("[1,\n"),
            "is not valid JSON: unexpected end of file in line 2, column 1: the array of records is not closed"
        );
        assert_eq!(
            end("[1,\n {\"a\": \"b"),
            "is not valid JSON: unexpected end of file in line 2, column 10: record 2, which begins in line 2, column 2, is not closed"
        );
        assert_eq!(end("[1,]"), "is not valid JSON: line 1, column 4: expected a record before `]`, after record 1");
        assert_eq!(
            end("[1]\n[2]"),
            "is not valid JSON: line 2, column 1: unexpected content after the array of records"
        );
        assert_eq!(end("[] x"), "is not valid JSON: line 1, column 4: unexpected content after the array of records");
        assert!(end("{\"a\": 1}").starts_with("is not a JSON array of records"));
    }

    #[test]
    fn lines_of_objects_are_read_whatever_the_file_is_called() {
        let (reported, end) = records("a.json", "{\"a\": 1}\n\n{\"a\": 2}\n{\"a\": \n");
        let places: Vec<&str> = reported.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!((places, end), (vec!["line 1", "line 3", "line 4"], None));
        assert!(reported[0].1.is_ok() && reported[1].1.is_ok() && reported[2].1.is_err());
        assert!(records("a.json", "{\n\"a\": 1}\n").1.unwrap().starts_with("is not a JSON array of records"));
    }

    #[test]
    fn a_deep_record_is_refused_and_the_next_is_read() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let (reported, end) = records("a.json", format!("[{deep}, 2]"));
        assert!(reported[0].1.as_ref().unwrap_err().contains("recursion limit"));
        assert_eq!((&reported[1].1, end), (&Ok(json!(2)), None));
    }

    fn json_values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_elements_of_any_array_come_out_as_they_are(values in prop::collection::vec(json_values(), 0..5), pretty: bool) {
            let all = Value::from(values.clone());
            let text = if pretty { serde_json::to_string_pretty(&all).unwrap() } else { all.to_string() };
            let (reported, end) = records("a.json", text);
            prop_assert_eq!(end, None);
            prop_assert_eq!(reported.into_iter().map(|(_, value)| value.unwrap()).collect::<Vec<_>>(), values);
        }

        #[test]
        fn any_bytes_are_records_or_an_error(name in prop::sample::select(vec!["a.json", "a.jsonl"]), bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            r#"[\[\]{}",:\\a-z0-9 uUdD8]{0,80}"#.prop_map(String::into_bytes),
        ]) {
            let _ = records(name, [b"[".as_slice(), &bytes].concat());
            let _ = records(name, &bytes);
        }
    }
}
