//! The command line as types.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgMatches, Args, Command as Parsed, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::device::{DeviceName, DtypeName, is_numerics_class};
use crate::model::families;
use crate::nodes::device::{Misnamed, named, named_dtype};
use stic_engine::store::is_cache;

/// STIC: self-training on image comprehension, as a cached pipeline.
#[derive(Parser, Debug)]
#[command(name = "stic", version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Cache directory [default: the nearest `cache` created by stic in or above the pipeline file's directory,
    /// otherwise `cache` in the working directory]
    #[arg(
        long,
        value_name = "DIR",
        env = "STIC_CACHE",
        hide_env_values = true,
        value_parser = OsStringValueParser::new().try_map(plain_path),
        global = true,
        help_heading = "Global"
    )]
    pub cache: Option<PathBuf>,

    /// Print only errors and warnings
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global")]
    pub quiet: bool,

    /// Print more detail
    #[arg(short, long, global = true, help_heading = "Global")]
    pub verbose: bool,

    /// When to use colors; `auto` follows the terminal and NO_COLOR
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, global = true, help_heading = "Global")]
    pub color: Color,
}

/// When to use colors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a pipeline, reusing every result that is in the cache
    Run(Run),
    /// Report every mistake in a pipeline file; a device that this machine lacks is only noted
    Check(Check),
    /// Show what would run and why; exits with 0 if nothing would, with 2 otherwise
    Plan(Plan),
    /// Explain why a node would run: what changed, old → new
    Why(Why),
    /// Compare what the nodes of a pipeline measured: a row per model and combination of values, seeds pooled
    Table(TableArguments),
    /// Draw a pipeline as a graph, colored by what would run
    Graph(Graph),
    /// Export a node's result from the cache: a PEFT adapter, JSON Lines, pictures or scores
    Export(Export),
    /// Inspect the cache, check it, and remove what is not needed
    Cache(super::cache_args::Cache),
    /// Write the digests of all files that a pipeline reads beside it, for `run --locked`
    Lock(Lock),
    /// List the kinds of node, the keys of the other tables and the data formats, or one kind's inputs and parameters
    Kinds(KindsArguments),
    /// Print the JSON Schema of pipeline files for editors
    Schema,
    /// List backends, devices and the dtypes they support
    Devices(Devices),
    /// Try one device and print what came of it as JSON: `devices` runs this for each, since drivers may crash
    #[command(name = super::device::TRY, hide = true)]
    TryDevice {
        /// The device
        #[arg(value_parser = device)]
        device: DeviceName,
    },
    /// Generate a model's response to a prompt
    Generate(Generate),
    /// Compute the log-probabilities of responses
    Score(Score),
    /// Print a shell completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Values in place of those in the pipeline file.
#[derive(Args, Clone, Debug, Default)]
pub struct Settings {
    /// Set a value in place of the file's: `stage1.beta=0.2`, `stage1.lora.rank=8`, `pipeline.seed=3`, `device.backend=cpu`,
    /// `models.base.source=DIR`, `defaults.describe.top_k=0`. The value is TOML, or a string without quotes
    #[arg(short = 'S', long, value_name = "NODE.KEY=VALUE")]
    pub set: Vec<String>,
}

/// What `run` takes.
#[derive(Args, Debug)]
pub struct Run {
    /// The pipeline file
    #[arg(value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub file: PathBuf,
    /// Values in place of those in the file.
    #[command(flatten)]
    pub settings: Settings,
    /// Nodes to run, along with everything they depend on [default: all]
    #[arg(value_name = "NODE")]
    pub targets: Vec<String>,
    /// Show what would run and why, without running it; exits with 2 if anything would
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// The same as naming the node after the file: runs it and everything it depends on
    #[arg(long, value_name = "NODE")]
    pub until: Vec<String>,
    /// Rerun this node even if its result is in the cache
    #[arg(long, value_name = "NODE")]
    pub force: Vec<String>,
    /// Number of nodes that run at once, not counting those that need a device [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    pub jobs: Option<std::num::NonZeroUsize>,
    /// When a node fails, keep running the nodes that do not depend on it
    #[arg(short, long)]
    pub keep_going: bool,
    /// Number of times to retry a node after a transient failure
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = retries, allow_negative_numbers = true)]
    pub retries: u32,
    /// Also use results that were computed in this numerics class, such as `cuda-bf16`: the backend and dtype of a
    /// result, by default part of its key, as other ones round differently
    #[arg(long, value_name = "CLASS", value_parser = numerics_class)]
    pub accept_numerics: Vec<String>,
    /// The device.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Refuse to run when a file that the pipeline reads is not the one that `stic lock` wrote down
    #[arg(long)]
    pub locked: bool,
    /// Size of the cache above which the least recently used results are removed after the run, such as `20GiB`
    /// [default: what `[cache]` in the pipeline file says, otherwise none]
    #[arg(
        long,
        value_name = "SIZE",
        env = "STIC_CACHE_SIZE",
        hide_env_values = true,
        value_parser = super::cache_args::size
    )]
    pub cache_size: Option<u64>,
    /// Print events to standard output as JSON Lines
    #[arg(long)]
    pub json: bool,
}

/// What `check` takes.
#[derive(Args, Debug)]
pub struct Check {
    /// The pipeline file
    #[arg(value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub file: PathBuf,
    /// Values in place of those in the file.
    #[command(flatten)]
    pub settings: Settings,
    /// Skip checking that data and models exist
    #[arg(long)]
    pub without_data: bool,
    /// The device.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print one JSON object per mistake: `message`, `help`, and `places` with `line`, `column`, `text` and `label`
    #[arg(long)]
    pub json: bool,
}

/// What `plan` takes.
#[derive(Args, Debug)]
pub struct Plan {
    /// The pipeline file
    #[arg(value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub file: PathBuf,
    /// Values in place of those in the file.
    #[command(flatten)]
    pub settings: Settings,
    /// Nodes to plan, along with everything they depend on [default: all]
    #[arg(value_name = "NODE")]
    pub targets: Vec<String>,
    /// Also use results that were computed in this numerics class, such as `cuda-bf16`: the backend and dtype of a
    /// result, by default part of its key, as other ones round differently
    #[arg(long, value_name = "CLASS", value_parser = numerics_class)]
    pub accept_numerics: Vec<String>,
    /// The device.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print one JSON object per node: `node`, `kind`, `state` (`hit`, `run`, `awaits`), `why`, `items`, `key`
    #[arg(long)]
    pub json: bool,
}

/// What `why` takes.
#[derive(Args, Debug)]
pub struct Why {
    /// The pipeline file
    #[arg(value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub file: PathBuf,
    /// Values in place of those in the file.
    #[command(flatten)]
    pub settings: Settings,
    /// The node
    pub node: String,
    /// The device.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print one JSON object per node that has to run first, and this node last: `node`, `kind`, `state` (`hit`, `run`,
    /// `awaits`), `why`, `items`, `key`
    #[arg(long)]
    pub json: bool,
}

/// What `table` takes.
#[derive(Args, Debug)]
pub struct TableArguments {
    /// The pipeline file
    #[arg(value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub file: PathBuf,
    /// Values in place of those in the file.
    #[command(flatten)]
    pub settings: Settings,
    /// Nodes to list [default: all that measure something]
    #[arg(value_name = "NODE")]
    pub targets: Vec<String>,
    /// Sort by a column: a metric from high to low, `node`, an axis or a label from low to high
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Sort the other way
    #[arg(short, long, requires = "sort")]
    pub reverse: bool,
    /// Also show the differences from this row, item by item (and seed by seed)
    #[arg(long, value_name = "NODE")]
    pub against: Option<String>,
    /// The device.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print one JSON object per row: `row`, `node`, `kind`, `axes`, `labels`, `instances`, `metrics`, `difference`
    #[arg(long)]
    pub json: bool,
    /// Print comma-separated values, all rows in one table
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
}

/// What `graph` takes.
#[derive(Args, Debug)]
pub struct Graph {
    /// The pipeline file
    #[arg(value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub file: PathBuf,
    /// Values in place of those in the file.
    #[command(flatten)]
    pub settings: Settings,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The device.
    #[command(flatten)]
    pub device: DeviceOptions,
}

/// Graph formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A Mermaid flowchart.
    #[default]
    Mermaid,
    /// Graphviz DOT.
    Dot,
}

/// What `export` takes.
#[derive(Args, Debug)]
pub struct Export {
    /// The pipeline file
    #[arg(value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub file: PathBuf,
    /// Values in place of those in the file.
    #[command(flatten)]
    pub settings: Settings,
    /// The node
    pub node: String,
    /// The directory to write to
    #[arg(value_name = "DIR", value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub folder: PathBuf,
    /// Write into a non-empty directory, replacing files of the same name
    #[arg(long)]
    pub force: bool,
    /// The device.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print one JSON object: `node`, `kind`, `folder`, `files`, `written` (false if the directory already held this
    /// result)
    #[arg(long)]
    pub json: bool,
}

/// What `lock` takes.
#[derive(Args, Debug)]
pub struct Lock {
    /// The pipeline file
    #[arg(value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub file: PathBuf,
    /// Values in place of those in the file.
    #[command(flatten)]
    pub settings: Settings,
}

/// What `kinds` takes.
#[derive(Args, Debug)]
pub struct KindsArguments {
    /// The kind of node
    pub kind: Option<String>,
    /// Print one JSON object per kind: `kind`, `help`, `takes`, `makes`, `parameters`, `formats`
    #[arg(long)]
    pub json: bool,
}

/// What `devices` takes.
#[derive(Args, Debug)]
pub struct Devices {
    /// Print one JSON object per device, or with `--test` per finding
    #[arg(long)]
    pub json: bool,
    /// Compare what a device computes with the CPU; without DEVICE, every usable one
    #[arg(long, value_name = "DEVICE", num_args = 0..=1, default_missing_value = "auto", value_parser = device)]
    pub test: Option<DeviceName>,
}

/// The device that a command runs on, or plans for.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct DeviceOptions {
    /// The device: `auto`, or a backend with an optional device number, such as `cuda:1` [default: STIC_DEVICE,
    /// otherwise what the pipeline file says, otherwise `auto`]
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    pub device: Option<DeviceName>,
    /// The dtype: `auto`, `f32`, `f16` or `bf16` [default: what the pipeline file says, otherwise `auto`]
    #[arg(long, value_name = "DTYPE", value_parser = dtype)]
    pub dtype: Option<DtypeName>,
}

impl DeviceOptions {
    /// The same options for a command that is printed: ` --device cuda:1`, or nothing.
    pub fn written(&self) -> String {
        let device = self.device.map(|device| format!(" --device {device}"));
        let dtype = self.dtype.map(|dtype| format!(" --dtype {dtype}"));
        device.into_iter().chain(dtype).collect()
    }
}

/// Options shared by `generate` and `score`.
#[derive(Args, Debug)]
pub struct ModelArguments {
    /// The model's directory, as Hugging Face lays it out
    #[arg(long, value_name = "DIR", value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub model: PathBuf,
    /// The directory of a PEFT adapter
    #[arg(long, value_name = "DIR", value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub adapter: Option<PathBuf>,
    /// The device.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// The chat template; `none` if prompts are already rendered
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// How pictures are prepared.
    #[command(flatten)]
    pub images: ImageOptions,
}

/// An option for every image setting that a family of models has: what was written, by the setting's name.
#[derive(Debug)]
pub struct ImageOptions(pub BTreeMap<&'static str, String>);

impl Args for ImageOptions {
    fn augment_args(command: Parsed) -> Parsed {
        command.args(families::image_settings().into_iter().map(|(name, values, help)| {
            // clap keeps names for as long as the program runs.
            let option: &'static str = name.replace('_', "-").leak();
            let values = values.into_iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
            clap::Arg::new(name).long(option).value_name("VALUE").help(format!("{help}: {values}"))
        }))
    }

    fn augment_args_for_update(command: Parsed) -> Parsed {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ImageOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = families::image_settings().into_iter().map(|(name, ..)| name);
        Ok(Self(names.filter_map(|name| Some((name, matches.get_one::<String>(name)?.clone()))).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

/// What `generate` takes.
#[derive(Args, Debug)]
pub struct Generate {
    /// The model and how it is used.
    #[command(flatten)]
    pub model: ModelArguments,
    /// A picture; with several, the prompt is answered for each, and a line with its path precedes each response
    #[arg(long, value_name = "FILE", num_args = 1.., value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub image: Vec<PathBuf>,
    /// The user's message
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// Maximum number of tokens to generate
    #[arg(long, value_name = "N", default_value = "1024", value_parser = positive, allow_negative_numbers = true)]
    pub max_new_tokens: std::num::NonZeroUsize,
    /// Sampling temperature; 0 is greedy decoding
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Sample from the K most likely tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 50)]
    pub top_k: usize,
    /// Sample from the fewest tokens whose probabilities add up to P
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f64,
    /// Random seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object per response
    #[arg(long)]
    pub json: bool,
}

/// What `score` takes.
#[derive(Args, Debug)]
pub struct Score {
    /// The model and how it is used.
    #[command(flatten)]
    pub model: ModelArguments,
    /// A JSON Lines file with `image` (null, or a path relative to this file), `prompt` and `response`
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().try_map(plain_path))]
    pub input: PathBuf,
    /// Print one JSON object per input line
    #[arg(long)]
    pub json: bool,
}

impl Run {
    /// The arguments of `stic` that continue this run: the same, without the options that only change the output, and
    /// without `--force` for the nodes in `done`.
    pub fn resume_command(&self, cache_option: &str, done: &[&str]) -> String {
        let mut command = format!("run {}{}", super::shell::path(&self.file), self.settings.options());
        let mut add = |option: &str, value: &str| command += &format!(" {option}{}", super::shell::word(value));
        self.targets.iter().for_each(|target| add("", target));
        self.until.iter().for_each(|node| add("--until ", node));
        self.force.iter().filter(|node| !done.contains(&node.as_str())).for_each(|node| add("--force ", node));
        self.jobs.iter().for_each(|jobs| add("-j ", &jobs.to_string()));
        if self.retries != 1 {
            add("--retries ", &self.retries.to_string());
        }
        self.accept_numerics.iter().for_each(|class| add("--accept-numerics ", class));
        if self.keep_going {
            command += " -k";
        }
        if self.locked {
            command += " --locked";
        }
        command + &self.device.written() + cache_option
    }
}

impl Settings {
    /// ` -S NODE.KEY=VALUE` for each, for further commands.
    pub fn options(&self) -> String {
        self.set.iter().map(|setting| format!(" -S {}", super::shell::word(setting))).collect()
    }
}

impl Global {
    /// The cache for the pipeline in `file`: the one named on the command line or in the environment, else the nearest
    /// `cache` created by stic in or above the file's directory, else `cache` in the working directory. Without a file
    /// the search starts in the working directory.
    pub fn cache(&self, file: Option<&Path>) -> PathBuf {
        // Scripts unset a variable by emptying it.
        let named = self.cache.clone().filter(|cache| !cache.as_os_str().is_empty());
        named.unwrap_or_else(|| default_cache(file))
    }

    /// ` --cache DIR` if another command on `file` needs it to find this cache, otherwise nothing.
    pub fn cache_option(&self, file: &Path) -> String {
        let environment = std::env::var_os("STIC_CACHE").filter(|name| !name.is_empty()).map(PathBuf::from);
        let implied = environment.unwrap_or_else(|| default_cache(Some(file)));
        let cache = self.cache(Some(file));
        if cache == implied { String::new() } else { format!(" --cache {}", super::shell::path(&cache)) }
    }
}

fn default_cache(file: Option<&Path>) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let folder = file.and_then(Path::parent).map_or(here.clone(), |folder| here.join(folder));
    let nearest = folder.ancestors().map(|folder| folder.join("cache")).find(|cache| is_cache(cache).unwrap_or(false));
    let cache = nearest.unwrap_or_else(|| here.join("cache"));
    cache.strip_prefix(&here).map(Path::to_owned).unwrap_or(cache)
}

/// The command line. Global options are listed only by `stic --help`; the help of each command refers to it.
pub fn command() -> Parsed {
    let mut command = Arguments::command();
    command.build();
    name_global_options(&mut command);
    command
}

fn name_global_options(command: &mut Parsed) {
    let hidden = |argument: clap::Arg| {
        let global = argument.is_global_set();
        if global { argument.hide(true) } else { argument }
    };
    for subcommand in command.get_subcommands_mut().filter(|subcommand| subcommand.get_name() != "help") {
        let shown = std::mem::take(subcommand).mut_args(hidden);
        *subcommand = shown.after_help("Global options (--cache, --quiet, --verbose, --color): `stic --help`");
        name_global_options(subcommand);
    }
}

/// A path. `--cache=~/x` and `'~/x'` reach the program with the tilde in place, and are refused.
fn plain_path(text: OsString) -> Result<PathBuf, String> {
    match shell_path(&text.to_string_lossy()) {
        Some(help) => Err(help),
        None => Ok(PathBuf::from(text)),
    }
}

/// What to write in place of `text`, where the shell left a tilde in it.
fn shell_path(text: &str) -> Option<String> {
    let rest = text.strip_prefix('~')?;
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let whole = (rest.is_empty() || rest.starts_with('/')).then(|| home.map(|home| home.join(rest.trim_matches('/'))));
    let whole = whole.flatten().map_or("the absolute path".to_owned(), |path| format!("`{}`", path.display()));
    Some(format!("the shell did not expand `~`: write {whole}, or `./{text}` for a directory of this name"))
}

fn device(text: &str) -> Result<DeviceName, String> {
    named(text).map_err(in_a_line)
}

fn dtype(text: &str) -> Result<DtypeName, String> {
    named_dtype(text).map_err(in_a_line)
}

fn in_a_line(Misnamed { message, help, .. }: Misnamed) -> String {
    help.map_or(message.clone(), |help| format!("{message}: {help}"))
}

fn positive(text: &str) -> Result<std::num::NonZeroUsize, String> {
    text.parse().map_err(|_| "expected an integer, at least 1".to_owned())
}

fn retries(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|count| *count <= 100).ok_or_else(|| "expected an integer from 0 to 100".to_owned())
}

fn numerics_class(text: &str) -> Result<String, String> {
    if is_numerics_class(text) {
        Ok(text.to_owned())
    } else {
        Err("expected a backend and a dtype, such as cuda-bf16".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
        command().debug_assert();
    }

    #[test]
    fn no_command_s_help_repeats_the_options_of_every_command() {
        fn check(command: &mut Parsed) {
            for subcommand in command.get_subcommands_mut().filter(|subcommand| subcommand.get_name() != "help") {
                let help = subcommand.render_long_help().to_string();
                assert!(!help.contains("--color <WHEN>") && help.contains("`stic --help`"), "{help}");
                check(subcommand);
            }
        }
        check(&mut command());
    }

    #[test]
    fn a_tilde_that_no_shell_replaced_is_refused_wherever_a_path_is_taken() {
        for line in [
            "--cache=~/x plan p.toml",
            "run ~/p.toml",
            "export p.toml node ~/out",
            "export p.toml node ~",
            "generate --prompt x --model ~/m",
            "generate --prompt x --model m --adapter ~me/a",
            "generate --prompt x --model m --image ~/a.png",
            "score --model m --input ~/a",
        ] {
            let words = std::iter::once("stic").chain(line.split(' '));
            let error = Arguments::try_parse_from(words).expect_err(line).to_string();
            assert!(error.contains("the shell did not expand `~`: write "), "{line}: {error}");
        }
        assert!(Arguments::try_parse_from(["stic", "run", "./~/p.toml"]).is_ok());
    }

    #[test]
    fn numbers_out_of_range_are_refused_in_words() {
        for (line, expected) in [
            ("run p.toml --retries 101", "expected an integer from 0 to 100"),
            ("generate --prompt x --model m --max-new-tokens 0", "expected an integer, at least 1"),
        ] {
            let words = std::iter::once("stic").chain(line.split(' '));
            let error = Arguments::try_parse_from(words).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn a_misnamed_device_is_explained_as_in_a_file() {
        for (line, expected) in [
            ("run p.toml --device gpu", "unknown backend `gpu`: name the GPU's: `cuda`, "),
            ("plan p.toml --device cude:1", "unknown backend `cude`: did you mean `cuda`?"),
            ("check p.toml --device cuda:x", "`cuda:x` is not a device: write for example `cuda:1`"),
            ("why p.toml a --dtype fp16", "unknown dtype `fp16`: did you mean `f16`?"),
            ("generate --prompt x --model m --device auto:1", "`auto:1` is not a device"),
        ] {
            let words = std::iter::once("stic").chain(line.split(' '));
            let error = Arguments::try_parse_from(words).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn printed_commands_have_the_device_of_this_one() {
        let words = ["stic", "run", "p.toml", "--device", "cuda:1", "--dtype", "bf16"];
        let Command::Run(run) = Arguments::try_parse_from(words).unwrap().command else { panic!("not run") };
        assert_eq!(run.resume_command("", &[]), "run p.toml --device cuda:1 --dtype bf16");
        assert_eq!(DeviceOptions::default().written(), "");
    }
}
