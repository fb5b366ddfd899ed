//! Signals: the first lets the items in flight end, the second does not; either way nothing that was finished is lost.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::workspace::Workspace;

/// Forty pictures, described one by one by a small model.
fn slow() -> Workspace {
    let workspace = Workspace::with_pipeline(
        r#"[pipeline]
name = "slow"

[models.base]
source = "model"

[nodes.images]
kind = "sample"
from = "pictures"

[nodes.described]
kind = "describe"
inputs.images = "images"
model = "base"
prompts = ["what"]
max_new_tokens = 100
batch_size = 1
"#,
    );
    workspace.copy("tests/reference/llava", "model");
    workspace.pictures("pictures", 40);
    workspace
}

/// Whether a line of `run --json` says that a few items are finished; which counts are reported is a matter of time.
fn is_under_way(line: &str) -> bool {
    let event: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
    event["event"] == "progress" && event["node"] == "described" && event["done"].as_u64() >= Some(2)
}

/// Begins a run of forty slow items, does `what` after a few of them, and waits for the end.
fn disturbed(workspace: &Workspace, arguments: &[&str], what: impl FnOnce(&Child)) -> (Option<i32>, String) {
    let mut command = workspace.command(arguments);
    let mut child: Child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program begins");
    let out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut lines = out.lines().map_while(Result::ok);
    assert!(lines.any(|line| is_under_way(&line)), "the run ended before it could be disturbed");
    what(&child);
    lines.for_each(drop);
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

/// Begins a run, sends `signals` once a few items are finished, and waits for the end: exit code and what was said.
fn interrupted(workspace: &Workspace, signals: &[Signal]) -> (Option<i32>, String) {
    disturbed(workspace, &["run", "p.toml", "--json"], |child| {
        for signal in signals {
            kill_process(Pid::from_child(child), *signal).expect("a signal can be sent");
        }
    })
}

/// How many items the next run finds, of forty.
fn found(workspace: &Workspace) -> u64 {
    let said = workspace.stic(&["run", "p.toml", "--json", "-q"]);
    assert_eq!(said.code, Some(0), "{said}");
    let events = said.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let mut finished = events.filter(|event| event["event"] == "finished" && event["node"] == "described");
    let items = finished.next_back().expect("it finished")["items"].clone();
    assert_eq!(items["done"].as_u64().zip(items["cached"].as_u64()).map(|(done, cached)| done + cached), Some(40));
    items["cached"].as_u64().expect("a number")
}

#[test]
fn an_interrupted_run_says_how_to_go_on_and_goes_on() {
    let workspace = slow();
    let (code, err) = interrupted(&workspace, &[Signal::INT]);
    assert_eq!(code, Some(130), "{err}");
    assert!(err.contains("interrupt again to stop immediately"), "{err}");
    assert!(err.trim_end().ends_with("To continue, run: stic run p.toml"), "{err}");
    let cached = found(&workspace);
    assert!((2..40).contains(&cached), "{cached} items were kept");
}

#[test]
fn a_terminated_run_ends_as_an_interrupted_one_but_for_its_exit_code() {
    let workspace = slow();
    let (code, err) = interrupted(&workspace, &[Signal::TERM]);
    assert_eq!(code, Some(143), "{err}");
    assert!(found(&workspace) >= 2);
}

#[test]
fn a_second_interrupt_stops_at_once_and_loses_nothing_that_was_finished() {
    let workspace = slow();
    let (code, err) = interrupted(&workspace, &[Signal::INT, Signal::INT]);
    assert_eq!(code, Some(130), "{err}");
    assert!(found(&workspace) >= 2);
}

/// Begins a run of `workspace`, sends SIGINT when an event is `wanted`, and waits for the end.
fn interrupted_at(workspace: &Workspace, wanted: impl Fn(&serde_json::Value) -> bool) -> (Option<i32>, String) {
    let command = || {
        let mut command = workspace.command(&["run", "p.toml", "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut child = command().spawn().expect("the program begins");
    let out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut lines = out.lines().map_while(Result::ok);
    let is_wanted = |line: &String| wanted(&serde_json::from_str(line).expect("a line is JSON"));
    assert!(lines.any(|line| is_wanted(&line)), "the run ended before it could be interrupted");
    kill_process(Pid::from_child(&child), Signal::INT).expect("a signal can be sent");
    lines.for_each(drop);
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn a_batch_of_long_answers_is_let_go_of() {
    let workspace = slow();
    // All forty in a batch, each of them as long as the model can go.
    workspace.edit("p.toml", "max_new_tokens = 100\nbatch_size = 1", "max_new_tokens = 1024\nbatch_size = 40");
    let generating = |event: &serde_json::Value| event["event"] == "progress" && event["tokens"].as_u64() >= Some(1);
    let (code, err) = interrupted_at(&workspace, generating);
    assert_eq!(code, Some(130), "{err}");
    assert!(err.trim_end().ends_with("To continue, run: stic run p.toml"), "{err}");
}

#[test]
fn reading_large_files_is_left_off() {
    let workspace = slow();
    // A hole: as long as a disk is large, and of no size.
    let file = std::fs::File::create(workspace.path("model/large.safetensors")).expect("a file");
    if file.set_len(1 << 43).is_err() {
        return;
    }
    let reading = |event: &serde_json::Value| {
        event["event"] == "note" && event["text"].as_str().is_some_and(|it| it.starts_with("reading"))
    };
    let (code, err) = interrupted_at(&workspace, reading);
    assert_eq!(code, Some(130), "{err}");
    assert!(err.contains("not finished") && err.trim_end().ends_with("To continue, run: stic run p.toml"), "{err}");
}

#[test]
fn a_run_whose_cache_is_moved_away_says_so_and_leaves_nothing_in_its_place() {
    let workspace = slow();
    let (code, err) = disturbed(&workspace, &["run", "p.toml", "--json"], |_| {
        std::fs::rename(workspace.path("cache"), workspace.path("elsewhere")).expect("moved");
    });
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("the cache `cache` was removed"), "{err}");
    assert!(!err.contains("another took the node over") && !err.contains("finished work is in the cache"), "{err}");
    assert!(!workspace.path("cache").exists(), "nothing is made that is no cache");
    std::fs::rename(workspace.path("elsewhere"), workspace.path("cache")).expect("moved back");
    assert!(found(&workspace) >= 2);
}

#[test]
fn a_closed_terminal_ends_a_run_as_an_interrupt_does() {
    // Under `nohup` the tests, and what they begin, are to outlive it.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim).unwrap_or("0");
    if u64::from_str_radix(ignored, 16).is_ok_and(|mask| mask & 1 == 1) {
        return;
    }
    let workspace = slow();
    let (code, err) = interrupted(&workspace, &[Signal::HUP]);
    assert_eq!(code, Some(129), "{err}");
    assert!(found(&workspace) >= 2);
}

#[test]
fn a_run_that_is_to_outlive_its_terminal_does() {
    let workspace = slow();
    let program = env!("CARGO_BIN_EXE_stic");
    let command = format!("trap '' HUP; exec '{program}' run p.toml --json");
    let mut child = std::process::Command::new("sh");
    child.args(["-c", &command]).current_dir(workspace.path("")).env_remove("STIC_CACHE");
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a shell");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(lines.any(|line| is_under_way(&line)));
    kill_process(Pid::from_child(&child), Signal::HUP).expect("a signal can be sent");
    lines.for_each(drop);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_file_that_may_not_grow_fails_a_write_and_does_not_end_the_process() {
    let workspace = slow();
    let program = env!("CARGO_BIN_EXE_stic");
    let output = std::process::Command::new("bash")
        .args(["-c", &format!("ulimit -f 1; exec '{program}' run p.toml images --retries 0")])
        .current_dir(workspace.path(""))
        .env_remove("STIC_CACHE")
        .output()
        .expect("a shell");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("File too large"), "{err}");
}
