//! `kill -9` at any moment, and two processes at once. The test binary runs itself again as the process to be killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stic::draw::Draws;

use super::toys::Bench;

const FOLDER: &str = "STIC_TEST_CHILD";

/// Thirty items through every way of running: files made and read, items, wholes, a join.
fn pipeline() -> String {
    let words: Vec<String> = (0..30).map(|number| format!("\"word {number}\"")).collect();
    format!(
        r#"
        [nodes.source]
        kind = "words"
        words = [{}]
        [nodes.described]
        kind = "each"
        inputs.rows = "source"
        suffix = "!"
        pause = 300
        log = "log"
        [nodes.shown]
        kind = "show"
        inputs.rows = "described"
        suffix = "?"
        log = "log"
        [nodes.pair]
        kind = "all"
        inputs.rows = ["shown", "source"]
        [nodes.last]
        kind = "each"
        inputs.rows = "pair"
        log = "log"
        "#,
        words.join(", ")
    )
}

/// Not a test of its own: what the others start as a process.
#[test]
fn child() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let (folder, text) = (Path::new(&folder), pipeline());
        let graph = super::toys::graph(&text, folder);
        let store = std::sync::Arc::new(stic::store::Store::open(&folder.join("cache")).unwrap());
        let machine = super::toys::Machine(Ok(stic::device::Backend::Cpu));
        let memory = super::toys::Memory::default();
        let report =
            stic::run::run(&graph, &store, &machine, &Default::default(), &memory, &Default::default()).unwrap();
        assert!(report.is_complete(), "{report:#?}");
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crashes::child", "--test-threads", "1"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_pipeline_that_is_killed_again_and_again_ends_with_the_same_digests() {
    let clean = Bench::new().run(&pipeline()).contents();
    for round in 0..2 {
        let bench = Bench::new();
        let mut draws = Draws::new(round, "kill", "");
        let (begun, mut kills) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(3) {
            let mut child = start(bench.folder.path());
            std::thread::sleep(Duration::from_micros(draws.between(2_000.0, 60_000.0) as u64));
            let finished = child.try_wait().unwrap().is_some();
            child.kill().unwrap();
            child.wait().unwrap();
            if finished {
                break;
            }
            kills += 1;
        }
        let run = bench.run(&pipeline());
        assert_eq!(run.contents(), clean, "after {kills} kills");
        assert!(run.report.is_complete());
        let again = bench.run(&pipeline());
        assert!(again.what().iter().all(|what| what.starts_with("hit ")));
        // A kill costs the item in flight of each node that was running, and no other.
        let made = bench.logged();
        assert!((90..=90 + 2 * kills).contains(&made), "{made} items made with {kills} kills");
        assert_eq!(bench.store().stats().work.count, 0, "no claim and no scratch is left");
    }
}

#[test]
fn two_processes_share_a_cache_and_do_everything_once() {
    let bench = Bench::new();
    let children: Vec<Child> = (0..3).map(|_| start(bench.folder.path())).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(bench.logged(), 90);
    let run = bench.run(&pipeline());
    assert!(run.what().iter().all(|what| what.starts_with("hit ")));
    assert_eq!(run.contents(), Bench::new().run(&pipeline()).contents());
}
