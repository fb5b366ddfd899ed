//! Recognizes files that are not what their name says: Git LFS pointers, HTML pages, archives, interrupted downloads.
//!
//! Readers check this before they report parse errors. Only the beginning of a file is read.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The actual kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongContent {
    /// What it is, for messages of the form `name: what`.
    pub what: &'static str,
    /// How to fix it.
    pub help: &'static str,
}

impl fmt::Display for WrongContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

const fn found(what: &'static str, help: &'static str) -> WrongContent {
    WrongContent { what, help }
}

const EMPTY: WrongContent =
    found("an empty file", "copy or download it again; interrupted downloads and full disks leave such files");
const ZEROS: WrongContent = found("nothing but zero bytes", EMPTY.help);
const POINTER: WrongContent =
    found("a Git LFS pointer instead of the file", "run `git lfs pull` in the directory, or download the file itself");
const ANNEX: WrongContent =
    found("a git-annex pointer instead of the file", "run `git annex get` in the directory, or copy the file itself");
const LINK: WrongContent = found(
    "the text of a symbolic link instead of its target",
    "copy the directory with links followed (`cp -rL`), or download the file again",
);
const HTML: WrongContent = found(
    "an HTML page instead of the file",
    "a server sent a page instead (a login, an error, a preview): download the file itself, for example with `hf download`",
);
const XML: WrongContent = found("XML, such as a server sends instead of a file", HTML.help);
const REFUSED: WrongContent = found(
    "a server's error message instead of the file",
    "check the URL and your access, then download it again, for example with `hf download`",
);
const UTF_16: WrongContent = found("text in UTF-16", "save it as UTF-8, for example with `iconv -f UTF-16 -t UTF-8`");
const UTF_32: WrongContent = found("text in UTF-32", "save it as UTF-8, for example with `iconv -f UTF-32 -t UTF-8`");
/// A text in an encoding of one byte a letter.
pub const NOT_UTF_8: WrongContent = found(
    "text that is not UTF-8",
    "save it as UTF-8; files from Windows are often in `windows-1252`: `iconv -f WINDOWS-1252 -t UTF-8`",
);
const BINARY: WrongContent = found("binary data, not text", "name a text file, or copy it again");
const TEXT: WrongContent = found("text, not tensors", "copy or download the file again");
const SAFETENSORS: WrongContent = found("a file of tensors (safetensors), not text", "name the text file");
const PICKLED: WrongContent = found(
    "a PyTorch pickle, not safetensors",
    "pickles can run code and are not supported: in Python, `safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW)`",
);

/// Formats that begin with a mark of their own.
const MARKS: [(&[u8], WrongContent); 12] = [
    (b"version https://git-lfs", POINTER),
    (b"/annex/objects/", ANNEX),
    (b"\x1f\x8b", found("a gzip archive", "unpack it first, for example with `gunzip` or `tar xzf`")),
    (b"\x28\xb5\x2f\xfd", found("a zstd archive", "unpack it first, for example with `zstd -d`")),
    (b"\xfd7zXZ\0", found("an xz archive", "unpack it first, for example with `unxz`")),
    (b"BZh", found("a bzip2 archive", "unpack it first, for example with `bunzip2`")),
    (b"7z\xbc\xaf\x27\x1c", found("a 7-Zip archive", "unpack it first")),
    (
        b"PAR1",
        found(
            "a Parquet file",
            "convert it to JSON Lines: in Python, `pandas.read_parquet(FILE).to_json(NEW, orient=\"records\", lines=True)`",
        ),
    ),
    (
        b"ARROW1",
        found("an Arrow file", "convert it to JSON Lines: in Python, `datasets.Dataset.from_file(FILE).to_json(NEW)`"),
    ),
    (b"\x89HDF\r\n", found("an HDF5 file", "convert it first")),
    (b"GGUF", found("a GGUF file (for llama.cpp)", "use the checkpoint's safetensors files")),
    (b"%PDF-", found("a PDF document", "copy or download the file again")),
];

/// How servers of model files begin a refusal. The whole answer is one short line.
const REFUSALS: [&str; 6] = [
    "Access to ",
    "Entry not found",
    "Invalid credentials",
    "Invalid username or password",
    "Not Found",
    "Repository not found",
];

/// Records as other programs write them, in a file of one object a line.
const SPREAD: WrongContent =
    found("records that span several lines; each must be on one line", "convert it: `jq -c . FILE > NEW`");
const RETURNS: WrongContent =
    found("lines that end with a bare carriage return", "convert it: `tr '\\r' '\\n' < FILE > NEW`");
const PYTHON: WrongContent = found(
    "Python object syntax, not JSON",
    "write records with `json.dumps(record)`, not with `str(record)` or `print`",
);
const WRAPPED: WrongContent = found(
    "one object with the records under a key, not an array of records",
    "extract the array: `jq .KEY FILE > NEW`, with its key",
);
/// A table where records or a list of paths are expected.
pub const TABLE: WrongContent = found(
    "a table, not records or a list of paths",
    "convert it to JSON Lines: in Python, `pandas.read_csv(FILE).to_json(NEW, orient=\"records\", lines=True)`, with `sep=\"\\t\"` for tabs",
);

/// How much of a file is looked at.
const HEAD: usize = 4096;

impl WrongContent {
    /// What `bytes`, a file or its beginning, are when a text was expected; `None` when they may be that text.
    pub fn instead_of_text(bytes: &[u8]) -> Option<Self> {
        let head = &bytes[..bytes.len().min(HEAD)];
        Self::in_any(head).or_else(|| {
            if is_safetensors(head) {
                return Some(SAFETENSORS);
            }
            let broken = std::str::from_utf8(head).is_err_and(|error| error.error_len().is_some());
            match (head.contains(&0), broken) {
                (true, _) => Some(BINARY),
                (false, true) => Some(NOT_UTF_8),
                (false, false) => None,
            }
        })
    }

    /// What `bytes`, a file or its beginning, are when a safetensors file was expected; `None` when they may be one
    /// that is broken.
    pub fn instead_of_tensors(bytes: &[u8]) -> Option<Self> {
        let head = &bytes[..bytes.len().min(HEAD)];
        if is_safetensors(head) {
            return None;
        }
        let is_text = |text: &str| text.chars().all(|c| !c.is_control() || c.is_whitespace());
        Self::in_any(head).or_else(|| {
            let cut = std::str::from_utf8(head).err().filter(|error| error.error_len().is_none());
            let head = cut.map_or(head, |error| &head[..error.valid_up_to()]);
            std::str::from_utf8(head).ok().filter(|text| text.len() > 8 && is_text(text)).map(|_| TEXT)
        })
    }

    /// What `bytes`, a file or its beginning, are when something else was expected: only what is never
    /// meant.
    pub fn in_any(bytes: &[u8]) -> Option<Self> {
        let head = &bytes[..bytes.len().min(HEAD)];
        if head.is_empty() {
            return Some(EMPTY);
        }
        if head.iter().all(|byte| *byte == 0) {
            return Some(ZEROS);
        }
        if let Some((_, found)) = MARKS.iter().find(|(mark, _)| head.starts_with(mark)) {
            return Some(*found);
        }
        if head.starts_with(b"PK\x03\x04") {
            let is_torch = head.windows(9).any(|window| window == b"/data.pkl");
            return Some(if is_torch { PICKLED } else { found("a ZIP archive", "unpack it first") });
        }
        if head.get(257..262) == Some(b"ustar") {
            return Some(found("a tar archive", "unpack it first, for example with `tar xf`"));
        }
        if matches!(head, [0x80, 2..=5, ..]) && !is_safetensors(head) {
            return Some(PICKLED);
        }
        if head.starts_with(b"\xff\xfe\0\0") || head.starts_with(b"\0\0\xfe\xff") {
            return Some(UTF_32);
        }
        if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") || is_unmarked_utf_16(head) {
            return Some(UTF_16);
        }
        let text = behind_mark(head).trim_ascii_start();
        let begins = |beginning: &str| {
            text.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning.as_bytes()))
        };
        if ["<!doctype html", "<html", "<head", "<body"].into_iter().any(begins) {
            return Some(HTML);
        }
        if begins("<?xml") || begins("<error>") {
            return Some(XML);
        }
        let line = text.trim_ascii_end();
        if !line.contains(&b'\n') && line.len() < 400 {
            if REFUSALS.into_iter().any(begins) {
                return Some(REFUSED);
            }
            // What a checkout or a copy without links leaves of those of the hub's cache.
            if line.starts_with(b"../") && line.windows(7).any(|window| window == b"/blobs/") {
                return Some(LINK);
            }
        }
        None
    }

    /// What `bytes`, the beginning of a file of records, are when one slip makes every line of it a mistake.
    pub fn instead_of_records(bytes: &[u8], is_lines: bool) -> Option<Self> {
        let text = behind_mark(bytes).trim_ascii_start();
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let inner = text.strip_prefix(b"{").or_else(|| text.strip_prefix(b"[")).unwrap_or_default().trim_ascii_start();
        if inner.starts_with(b"'") || inner.starts_with(b"{'") {
            return Some(PYTHON);
        }
        if is_lines && line.trim_ascii() == b"{" {
            return Some(SPREAD);
        }
        if is_lines && line.windows(2).any(|pair| pair == b"\r{") {
            return Some(RETURNS);
        }
        let keys = [&b"\"data\""[..], b"\"train\"", b"\"records\"", b"\"rows\"", b"\"items\"", b"\"annotations\""];
        let wrapped = keys.into_iter().filter(|_| text.starts_with(b"{")).find_map(|key| inner.strip_prefix(key));
        let array = wrapped.and_then(|rest| rest.trim_ascii_start().strip_prefix(b":"));
        array.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"[")).then_some(WRAPPED)
    }

    /// Whether `bytes`, a file or its beginning, are a pickle of PyTorch.
    pub fn is_pickle(bytes: &[u8]) -> bool {
        Self::in_any(bytes) == Some(PICKLED)
    }

    /// [`WrongContent::instead_of_text`] of the file `path`; `None` also when it cannot be read.
    pub fn in_text_file(path: &Path) -> Option<Self> {
        head_of(path).and_then(|head| Self::instead_of_text(&head))
    }
}

/// `text` behind the byte-order mark that editors on Windows add.
pub fn behind_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

/// Eight bytes of length, of which the last ones are zero, then the header's brace.
fn is_safetensors(head: &[u8]) -> bool {
    head.get(8) == Some(&b'{') && head[4..8] == [0; 4]
}

/// Text of mostly Latin letters in two bytes each, without a mark in front.
fn is_unmarked_utf_16(head: &[u8]) -> bool {
    let pairs = head.len() / 2;
    let zeros = |offset: usize| head.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    pairs >= 8 && (even == 0 || odd == 0) && even.max(odd) * 10 >= pairs * 9
}

fn head_of(path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(HEAD as u64).read_to_end(&mut head).ok()?;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0f4a\nsize 4932308800\n";

    fn utf_16(text: &str, mark: bool) -> Vec<u8> {
        let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect()
    }

    fn safetensors() -> Vec<u8> {
        [&2u64.to_le_bytes()[..], b"{}"].concat()
    }

    #[test]
    fn what_takes_the_place_of_a_file_is_named_whatever_was_expected() {
        let torch = b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\x12\0archive/data.pklFB\x0e\0ZZ";
        for (bytes, what) in [
            (&b""[..], "an empty file"),
            (&[0; 100], "nothing but zero bytes"),
            (LFS, "a Git LFS pointer instead of the file"),
            (b"/annex/objects/SHA256E-s1--00.safetensors\n", "a git-annex pointer instead of the file"),
            (b"../../blobs/0f4a", "the text of a symbolic link instead of its target"),
            (b"\n<!DOCTYPE html><html lang=\"en\">", "an HTML page instead of the file"),
            ("\u{feff}<HTML>".as_bytes(), "an HTML page instead of the file"),
            (
                b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>",
                "XML, such as a server sends instead of a file",
            ),
            (b"Entry not found", "a server's error message instead of the file"),
            (&utf_16("{\"a\": \"bcdefghi\"}", true), "text in UTF-16"),
            (&utf_16("{\"a\": \"bcdefghi\"}", false), "text in UTF-16"),
            (b"\xff\xfe\0\0{\0\0\0", "text in UTF-32"),
            (b"\x1f\x8b\x08\0", "a gzip archive"),
            (b"PK\x03\x04\x14\0\0\0model/", "a ZIP archive"),
            (torch, "a PyTorch pickle, not safetensors"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch pickle, not safetensors"),
            (b"PAR1\x15\x04\x15", "a Parquet file"),
        ] {
            for found in [WrongContent::instead_of_text(bytes), WrongContent::instead_of_tensors(bytes)] {
                assert_eq!(found.map(|found| found.what), Some(what), "{}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn what_may_be_what_it_should_be_is_left_to_its_parser() {
        for text in ["{\"a\": 1", "[", "a/b.png\n../c.png\n", "\u{feff}{}", "Entry not found\nin the list\n", "é"] {
            assert_eq!(WrongContent::instead_of_text(text.as_bytes()), None, "{text}");
        }
        // Cut in the middle of a letter by the end of what is looked at.
        let long = [vec![b' '; HEAD - 1], "é{}".as_bytes().to_vec()].concat();
        assert_eq!(WrongContent::instead_of_text(&long), None);
        for bytes in [safetensors(), vec![0x80, 2, 0, 0, 0, 0, 0, 0, b'{', b'"'], vec![1, 2, 3]] {
            assert_eq!(WrongContent::instead_of_tensors(&bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn text_and_tensors_are_distinguished() {
        let text = |bytes: &[u8]| WrongContent::instead_of_text(bytes).map(|found| found.what);
        assert_eq!(text(&safetensors()), Some("a file of tensors (safetensors), not text"));
        assert_eq!(text(b"{\"name\": \"caf\xe9\"}"), Some("text that is not UTF-8"));
        assert_eq!(text(b"\x7fELF\x02\x01\x01\0\0"), Some("binary data, not text"));
        let tensors = WrongContent::instead_of_tensors(b"{\"error\": \"rate limited\"}");
        assert_eq!(tensors.map(|found| found.what), Some("text, not tensors"));
    }

    #[test]
    fn a_file_is_looked_at_by_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        assert_eq!(WrongContent::in_text_file(&path), None);
        std::fs::write(&path, LFS).unwrap();
        assert_eq!(WrongContent::in_text_file(&path), Some(POINTER));
    }
}
