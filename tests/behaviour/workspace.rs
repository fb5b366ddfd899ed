//! A directory of its own for a test, and the real program run in it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A directory that is removed when the test ends, unless `STIC_KEEP_WORKSPACES` is set: `tests/regression.py` reads
/// what is kept.
pub struct Workspace {
    folder: TempDir,
}

/// What a command said, and how it ended.
pub struct Said {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Workspace {
    /// An empty directory.
    pub fn new() -> Self {
        let mut folder = tempfile::tempdir().expect("a temporary directory");
        folder.disable_cleanup(std::env::var_os("STIC_KEEP_WORKSPACES").is_some());
        Self { folder }
    }

    /// A directory with `text` as `p.toml`.
    pub fn with_pipeline(text: &str) -> Self {
        let workspace = Self::new();
        workspace.write("p.toml", text);
        workspace
    }

    /// The path of `name` in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and the directories that it needs.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }

    /// Replaces `old` by `new` in the file `name`.
    pub fn edit(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(name)).expect("a file");
        assert!(text.contains(old), "{name} does not have {old:?}");
        self.write(name, text.replacen(old, new, 1));
    }

    /// Copies the files of a directory of the project.
    pub fn copy(&self, from: &str, to: &str) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(from);
        for entry in fs::read_dir(from).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                self.write(&format!("{to}/{name}"), fs::read(&path).expect("a file"));
            }
        }
    }

    /// Puts small pictures, all different, into `folder`.
    pub fn pictures(&self, folder: &str, count: u8) {
        for index in 0..count {
            let pixel = |x: u32, y: u32| image::Rgb([index.wrapping_mul(20), (x * 30) as u8, (y * 30) as u8]);
            let picture = image::RgbImage::from_fn(8, 6, pixel);
            let mut bytes = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut bytes, image::ImageFormat::Png).expect("an encoder");
            self.write(&format!("{folder}/{index}.png"), bytes.into_inner());
        }
    }

    /// The program, in the directory, with `arguments`, not begun.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stic"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["STIC_CACHE", "STIC_DEVICE", "NO_COLOR", "CLICOLOR_FORCE", "COLUMNS"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the program in the directory.
    pub fn stic(&self, arguments: &[&str]) -> Said {
        self.stic_with(arguments, &[])
    }

    /// The same with these variables in the environment.
    pub fn stic_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
        let output = self.command(arguments).envs(variables.iter().copied()).output().expect("the program begins");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("what is said is text");
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl fmt::Display for Said {
    /// All of it, with what differs from run to run left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "exit {}", self.code.map_or("by a signal".to_owned(), |code| code.to_string()))?;
        for (name, text) in [("out", &self.out), ("err", &self.err)] {
            if !text.is_empty() {
                writeln!(f, "--- {name}\n{}", settled(text).trim_end())?;
            }
        }
        Ok(())
    }
}

/// `text` with digests, run ids, times and rates replaced by what they are.
pub fn settled(text: &str) -> String {
    let mut settled = String::new();
    for line in text.split_inclusive('\n') {
        let mut line = words(line);
        // `1.2 s`, `14 s`: a number before a blank and an s.
        while let Some(at) = line.match_indices(" s").map(|(at, _)| at).find(|at| is_time(&line, *at)) {
            let start = line[..at].rfind(|c: char| !(c.is_ascii_digit() || c == '.')).map_or(0, |before| before + 1);
            line.replace_range(start..at + 2, "[time]");
        }
        settled.push_str(&line);
    }
    settled
}

/// `line` with the words that differ replaced; `-`, `:` and `.` are part of a word.
fn words(line: &str) -> String {
    let mut words = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let part = |c: char| c.is_ascii_alphanumeric() || "-:.".contains(c);
        let end = if part(first) { rest.find(|c| !part(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, after) = rest.split_at(end);
        let shape: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        let plain = word.trim_end_matches([':', '.']);
        let digest = plain.len() >= 12 && plain.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
        if shape.starts_with("00000000T000000") {
            words.push_str("[run]");
        } else if shape.starts_with("0000-00-00T00:00:00") {
            words.push_str("[when]");
        } else if digest {
            words.push_str("[digest]");
            words.push_str(&word[plain.len()..]);
        } else {
            words.push_str(word);
        }
        rest = after;
    }
    words
}

fn is_time(line: &str, at: usize) -> bool {
    let digit_before = line[..at].ends_with(|c: char| c.is_ascii_digit());
    let ends_after = line[at + 2..].chars().next().is_none_or(|c| !c.is_alphanumeric());
    digit_before && ends_after
}
