//! Results on standard output, progress and messages on standard error, and exit codes.
//!
//! A closed pipe silences the output; the work continues.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::args::{Color, Global};
use super::table::hanging;
use stic_engine::diagnostic::{Diagnostic, Sources, Style, grouped, io_help, is_of_the_machine, render};

/// How a command ends, as an exit code.
///
/// What the user can fix before anything starts (an argument, a file, missing data, an unusable cache or device) is
/// [`Exit::Usage`]; what fails during a run, or because of the machine (a full disk, no memory), is [`Exit::Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Success = 0,
    /// A node failed.
    Failure = 1,
    /// Work is pending (`plan`, `run -n`), and nothing else.
    Pending = 2,
    /// Usage, an invalid file, missing data, an unusable device, a node that was not run yet.
    Usage = 64,
    /// SIGHUP.
    HungUp = 129,
    /// SIGINT.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong.
    pub mistakes: Vec<Diagnostic>,
    /// The texts that the labels point into.
    pub sources: Sources,
}

impl CliError {
    /// An error that the user can fix.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, mistakes: vec![Diagnostic::new(message)], sources: Sources::default() }
    }

    /// A failure.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failure, ..Self::usage(message) }
    }

    /// A file that cannot be read or written: `message` ends with `cause`.
    pub fn io(message: impl Into<String>, cause: &io::Error) -> Self {
        let exit = if is_of_the_machine(cause) { Exit::Failure } else { Exit::Usage };
        Self { exit, ..Self::usage(message) }.help(io_help(cause).map(str::to_owned))
    }

    /// Mistakes in a file.
    pub fn mistakes(sources: Sources, mistakes: Vec<Diagnostic>) -> Self {
        Self { exit: Exit::Usage, mistakes, sources }
    }

    /// The same with advice on how to fix it.
    #[must_use]
    pub fn help(mut self, help: impl Into<Option<String>>) -> Self {
        if let Some(mistake) = self.mistakes.last_mut() {
            mistake.help = help.into();
        }
        self
    }
}

/// The meaning of a color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Well.
    Good,
    /// Under way.
    Busy,
    /// Wrong.
    Bad,
    /// Of less weight.
    Dim,
    /// Of more weight.
    Bold,
}

/// How to print for people.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    /// Only errors and warnings.
    pub quiet: bool,
    /// More detail.
    pub verbose: bool,
    /// Whether standard error is a terminal that can redraw lines.
    pub terminal: bool,
    /// The width of tables on standard error.
    pub width: usize,
    style: Style,
    answer: Answer,
}

/// The look of standard output.
#[derive(Clone, Copy, Debug)]
struct Answer {
    color: bool,
    width: usize,
}

/// The width of tables without a terminal: lines are never wrapped for a program or an editor.
const WIDTH: usize = usize::MAX;

impl Ui {
    /// The output that `global` asks for.
    pub fn new(global: &Global) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = |terminal: bool| match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !dumb && !set("NO_COLOR"),
        };
        let written = std::env::var("COLUMNS").ok().and_then(|width| width.parse::<usize>().ok());
        let written = written.filter(|width| *width > 0);
        let (terminal, listens) = (io::stderr().is_terminal(), io::stdout().is_terminal());
        let reported = written.or_else(|| columns(io::stderr(), terminal));
        let style = Style {
            unicode: terminal && !dumb,
            color: color(terminal),
            width: reported.filter(|_| terminal).map_or(Style::PLAIN.width, |width| width.clamp(40, 140)),
        };
        let answered = written.or_else(|| columns(io::stdout(), listens));
        Self {
            quiet: global.quiet,
            verbose: global.verbose,
            terminal: terminal && !dumb,
            width: reported.unwrap_or(WIDTH),
            style,
            answer: Answer { color: color(listens), width: answered.unwrap_or(WIDTH) },
        }
    }

    /// The same with the colors and the width of standard output.
    #[must_use]
    pub fn for_stdout(&self) -> Self {
        Self { width: self.answer.width, style: Style { color: self.answer.color, ..self.style }, ..*self }
    }

    /// Prints a line to standard error unless `quiet` is set.
    pub fn say(&self, line: impl fmt::Display) {
        if !self.quiet {
            self.print(line);
        }
    }

    /// Prints `text` after `before`, wrapped to the terminal with later lines indented by `indent`.
    pub fn print_hanging(&self, before: &str, text: &str, indent: usize) {
        self.say(hanging(before, text, self.width, indent).join("\n"));
    }

    /// Prints a line to standard error even if `quiet` is set.
    pub fn print(&self, line: impl fmt::Display) {
        // If standard error is closed there is nowhere to report it.
        let _ = writeln!(io::stderr(), "{}", printable_with_colors(&line.to_string()));
    }

    /// `text` in a color, where colors are enabled.
    pub fn paint(&self, paint: Paint, text: impl fmt::Display) -> String {
        let code = match paint {
            Paint::Good => 32,
            Paint::Busy => 33,
            Paint::Bad => 31,
            Paint::Dim => 2,
            Paint::Bold => 1,
        };
        if self.style.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// Prints all mistakes of `problem`.
    pub fn print_error(&self, problem: &CliError) {
        let mut mistakes: Vec<&Diagnostic> = problem.mistakes.iter().collect();
        mistakes.sort_by_key(|mistake| mistake.start());
        let mut shown = shortened(&mistakes);
        let all = shown.len();
        shown.truncate(MOST_MISTAKES);
        let text = render(&problem.sources, &shown, self.style);
        let _ = io::stderr().write_all(printable_with_colors(&text).as_bytes());
        if let Some(file) = problem.sources.texts().first() {
            let count = problem.mistakes.len();
            let what = if count == 1 { "mistake" } else { "mistakes" };
            let first = if all > shown.len() { format!(", the first {} above", shown.len()) } else { String::new() };
            self.print(format_args!("\n{count} {what} in {}{first}; nothing ran", file.name));
        }
    }
}

/// `mistakes`, of those that differ by the name of a node alone the first few, with a count of the rest.
fn shortened(mistakes: &[&Diagnostic]) -> Vec<Diagnostic> {
    /// How many of a kind are shown, and how many more there may be without being counted.
    const FIRST: usize = 3;
    let mut groups: HashMap<(String, &str, Option<&str>), Vec<usize>> = HashMap::new();
    for (index, mistake) in mistakes.iter().enumerate() {
        let label = mistake.labels.first().map_or("", |label| label.text.as_str());
        groups.entry((without_node(&mistake.message), label, mistake.help.as_deref())).or_default().push(index);
    }
    let mut shown: Vec<Option<Diagnostic>> = mistakes.iter().map(|mistake| Some((*mistake).clone())).collect();
    for ((message, ..), group) in groups.into_iter().filter(|(_, group)| group.len() > 2 * FIRST) {
        group[FIRST..].iter().for_each(|index| shown[*index] = None);
        let more = Diagnostic::new(format!("{} more like this: {message}", grouped(group.len() - FIRST)));
        let next = mistakes[group[FIRST]].labels.first().map(|label| label.span.clone());
        shown[group[FIRST]] = Some(match next {
            Some(span) => more.label(span, "the next one"),
            None => more,
        });
    }
    shown.into_iter().flatten().collect()
}

/// A message with the node left open in which the mistake is.
fn without_node(message: &str) -> String {
    let place =
        ["in node `", "` of node `"].into_iter().find_map(|words| message.split_once(words).map(|it| (it, words)));
    match place.and_then(|((before, rest), words)| Some((before, words, rest.split_once('`')?.1))) {
        Some((before, words, after)) => format!("{before}{words}\u{2026}`{after}"),
        None => message.to_owned(),
    }
}

/// The width of the terminal that `stream` writes to.
#[cfg(unix)]
fn columns(stream: impl std::os::fd::AsFd, terminal: bool) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok().filter(|_| terminal)?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

#[cfg(not(unix))]
fn columns(_: impl Sized, _: bool) -> Option<usize> {
    None
}

/// Writes text for programs to standard output.
///
/// # Errors
/// When it cannot be written. A closed pipe is no error.
pub fn write_out(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::failure(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes lines to standard output.
///
/// # Errors
/// See [`write_out`].
pub fn write_lines(lines: &[String]) -> Result<(), CliError> {
    if lines.is_empty() { Ok(()) } else { write_out(&printable_with_colors(&(lines.join("\n") + "\n"))) }
}

/// Writes one JSON object and a line break to standard output.
///
/// # Errors
/// See [`write_out`].
pub fn write_json(value: &impl Serialize) -> Result<(), CliError> {
    let line = serde_json::to_string(value).map_err(|error| CliError::failure(error.to_string()))?;
    write_out(&format!("{line}\n"))
}

/// A duration: `0.4 s`, `3 min 20 s`, `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `text` with control characters replaced by visible ones, so that a model's output cannot control the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// As [`printable`], but keeps this program's own color sequences: text from files may contain others.
pub fn printable_with_colors(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (index, part) in text.split('\x1b').enumerate() {
        let paint = part.strip_prefix('[').and_then(|rest| rest.find(|c: char| !c.is_ascii_digit() && c != ';'));
        let is_paint = paint.is_some_and(|end| part[1 + end..].starts_with('m'));
        if index > 0 {
            shown.push(if is_paint { '\x1b' } else { char::REPLACEMENT_CHARACTER });
        }
        shown.extend(part.chars().map(|c| if c.is_control() && !"\n\t".contains(c) { '\u{fffd}' } else { c }));
    }
    shown
}

/// How many mistakes are printed at once.
const MOST_MISTAKES: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_other_than_colors_are_replaced() {
        let text = "a\x1b[2J\x1b]0;title\x07 \x1b[31mred\x1b[0m \x1b[1;31mb\x1b[0m\r\n\tc\x1b";
        let shown = "a\u{fffd}[2J\u{fffd}]0;title\u{fffd} \x1b[31mred\x1b[0m \x1b[1;31mb\x1b[0m\u{fffd}\n\tc\u{fffd}";
        assert_eq!(printable_with_colors(text), shown);
    }

    #[test]
    fn durations_have_a_suitable_unit() {
        let reported: Vec<String> = [0.04, 9.94, 9.96, 59.4, 61.0, 3599.0, 7500.0].map(duration).to_vec();
        assert_eq!(reported, ["0.0 s", "9.9 s", "10 s", "59 s", "1 min 01 s", "59 min 59 s", "2 h 05 min"]);
    }
}
