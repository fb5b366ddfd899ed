//! Rows as JSON lines.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The rows of `text`; empty lines are passed over.
///
/// # Errors
/// The number of the first line that is not a `T`, counted from 1, and what is wrong with it.
pub fn read_lines<T: DeserializeOwned>(text: &[u8]) -> Result<Vec<T>, (usize, serde_json::Error)> {
    text.split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(index, line)| serde_json::from_slice(line).map_err(|cause| (index + 1, cause)))
        .collect()
}

/// `rows`, one JSON object a line.
///
/// # Panics
/// When a row cannot be written as JSON, which none of this project's rows allows.
pub fn write_lines<'a, T: Serialize + 'a>(rows: impl IntoIterator<Item = &'a T>) -> Vec<u8> {
    let mut text = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut text, row).expect("rows have string keys");
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_line_is_named_by_its_number() {
        let (line, _) = read_lines::<u32>(b"1\n\n2\nthree\n").unwrap_err();
        assert_eq!(line, 4);
    }

    #[test]
    fn rows_read_back_as_written() {
        let rows = vec!["a".to_owned(), "b\nc".to_owned()];
        assert_eq!(read_lines::<String>(&write_lines(&rows)).unwrap(), rows);
    }
}
