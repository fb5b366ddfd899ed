//! JSON with a checksum around it: what a crash, a full disk or a bad sector left incomplete is recognized and passed
//! over, never believed. Records, journals, the index and the memo of file digests share this one form.
//!
//! ```text
//! {"sum":"0123456789abcdef","data":{…}}
//! ```

use serde::Serialize;

use crate::digest::Digest;

const HEAD: &[u8] = b"{\"sum\":\"";
const MIDDLE: &[u8] = b"\",\"data\":";
const SUM: usize = 16;

/// `value` as one line, with its checksum and a line end.
///
/// # Panics
/// When `value` has a map whose keys are not texts, which nothing in the store has.
pub fn seal(value: &impl Serialize) -> Vec<u8> {
    let data = serde_json::to_vec(value).expect("stored values have string keys");
    let mut line = Vec::with_capacity(data.len() + HEAD.len() + SUM + MIDDLE.len() + 2);
    line.extend_from_slice(HEAD);
    line.extend_from_slice(&sum(&data));
    line.extend_from_slice(MIDDLE);
    line.extend_from_slice(&data);
    line.extend_from_slice(b"}\n");
    line
}

/// The JSON inside `line` (without its line end), if it is complete and unchanged.
pub fn unseal(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(HEAD)?;
    let (expected, rest) = rest.split_at_checked(SUM)?;
    let data = rest.strip_prefix(MIDDLE)?.strip_suffix(b"}")?;
    (sum(data) == expected).then_some(data)
}

/// The lines of `text` that are whole, each as its place in `text` and its JSON, and how many are not.
pub fn whole_lines(text: &[u8]) -> (Vec<(usize, &[u8])>, usize) {
    let (mut whole, mut broken, mut start) = (Vec::new(), 0, 0);
    for line in text.split(|byte| *byte == b'\n') {
        match unseal(line) {
            Some(data) => whole.push((start + HEAD.len() + SUM + MIDDLE.len(), data)),
            None if line.is_empty() => {}
            None => broken += 1,
        }
        start += line.len() + 1;
    }
    (whole, broken)
}

fn sum(data: &[u8]) -> [u8; SUM] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = Digest::of(data);
    std::array::from_fn(|index| {
        let byte = digest.as_bytes()[index / 2];
        DIGITS[usize::from(if index % 2 == 0 { byte >> 4 } else { byte & 15 })]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_line_is_json_and_opens_again() {
        let line = seal(&vec!["a", "}\n"]);
        let parsed: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(parsed["data"], serde_json::json!(["a", "}\n"]));
        assert_eq!(unseal(line.trim_ascii_end()), Some(&br#"["a","}\n"]"#[..]));
    }

    #[test]
    fn torn_and_altered_lines_are_counted_and_dropped() {
        let mut text = [seal(&1), seal(&22), seal(&333)].concat();
        let altered = text.windows(2).position(|pair| pair == b"22").unwrap();
        text[altered] = b'3';
        text.extend_from_slice(&seal(&4444)[..20]);
        let (whole, broken) = whole_lines(&text);
        assert_eq!(whole.iter().map(|(_, data)| *data).collect::<Vec<_>>(), [&b"1"[..], &b"333"[..]]);
        assert_eq!(broken, 2);
        let (start, data) = whole[1];
        assert_eq!(&text[start..start + data.len()], b"333");
    }
}
