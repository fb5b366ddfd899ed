//! `kill -9` at any moment, and two processes at once. The test binary runs itself again as the process to be killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stic_engine::draw::Draws;
use stic_engine::store::{Eviction, Store};
use walkdir::WalkDir;

use super::toys::Bench;

const FOLDER: &str = "STIC_TEST_CHILD";

/// Set for a process that makes everything below the source anew by force.
const FORCE: &str = "STIC_TEST_FORCE";

/// Set for a process that evicts all that it may, again and again.
const EVICT: &str = "STIC_TEST_EVICT";

/// How many processes are killed while two at a time work on one cache; CI has a few, and who wants to know 500.
const KILLS: &str = "STIC_TEST_KILLS";

/// The steps of the training.
const STEPS: usize = 25;

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
        [nodes.trained]
        kind = "all"
        inputs.rows = ["shown", "source"]
        keep = 20
        trouble = "steps:{STEPS}"
        pause = 300
        log = "steps"
        "#,
        words.join(", ")
    )
}

/// Not a test of its own: what the others start as a process.
#[test]
fn child() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let (folder, text) = (Path::new(&folder), pipeline());
        if let Some(kept) = std::env::var_os(EVICT) {
            let keep_runs = kept.to_str().unwrap().parse().unwrap();
            let eviction = Eviction { max_size: Some(0), keep_runs, ..Eviction::default() };
            loop {
                Store::open(&folder.join("cache")).unwrap().evict(&eviction).unwrap();
            }
        }
        let graph = super::toys::graph(&text, folder);
        let store = std::sync::Arc::new(Store::open(&folder.join("cache")).unwrap());
        let machine = super::toys::Machine(Ok("cpu-f32"));
        let memory = super::toys::Memory::default();
        let mut options = stic_engine::run::Options::default();
        if std::env::var_os(FORCE).is_some() {
            let forced = ["described", "trained"].into_iter().map(|name| graph.find(name).unwrap());
            options.plan.force = forced.collect();
        }
        let report = stic_engine::run::run(
            &graph,
            &store,
            &super::toys::open(&graph, &options.plan, &machine),
            &options,
            &memory,
            &Default::default(),
        )
        .unwrap();
        assert!(report.is_complete(), "{report:#?}");
    }
}

fn start(folder: &Path, force: bool) -> Child {
    start_with(folder, force.then_some((FORCE, "1")))
}

fn start_with(folder: &Path, variable: Option<(&str, &str)>) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crashes::child", "--test-threads", "1"])
        .env(FOLDER, folder)
        .envs(variable)
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
            let mut child = start(bench.folder.path(), false);
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
        assert_eq!(bench.store().stats().unwrap().work.count, 0, "no claim and no scratch is left");
    }
}

#[test]
fn two_processes_share_a_cache_and_do_everything_once() {
    let bench = Bench::new();
    let children: Vec<Child> = (0..3).map(|_| start(bench.folder.path(), false)).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(bench.logged(), 90);
    let run = bench.run(&pipeline());
    assert!(run.what().iter().all(|what| what.starts_with("hit ")));
    assert_eq!(run.contents(), Bench::new().run(&pipeline()).contents());
}

/// Kills processes that work two at a time on one cache, some of them by force; what comes out is what a single process
/// makes, and a kill costs a training the step in flight and no other.
#[test]
fn processes_that_are_killed_in_pairs_and_by_force_lose_no_scratch_and_end_with_the_same_digests() {
    let wanted: usize = std::env::var(KILLS).map_or(12, |text| text.parse().expect("a number of kills"));
    let clean = Bench::new().run(&pipeline()).contents();
    let bench = Bench::new();
    let mut draws = Draws::new(0, "kill two", "");
    let (mut kills, mut finished, mut starts) = (0, 0, 0);
    let mut start_one = || {
        starts += 1;
        start(bench.folder.path(), starts % 3 == 0)
    };
    let mut running = [start_one(), start_one()];
    while kills < wanted {
        std::thread::sleep(Duration::from_micros(draws.between(1_000.0, 150_000.0) as u64));
        let victim = &mut running[draws.between(0.0, 2.0) as usize];
        match victim.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "a process failed");
                finished += 1;
            }
            None => {
                victim.kill().unwrap();
                victim.wait().unwrap();
                kills += 1;
            }
        }
        *victim = start_one();
    }
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    let run = bench.run(&pipeline());
    assert_eq!(run.contents(), clean, "after {kills} kills");
    let store = bench.store();
    let trained = store.last("toy", "trained").unwrap().unwrap();
    for node in ["source", "described", "shown", "pair", "last", "trained"] {
        let record = store.last("toy", node).unwrap().unwrap();
        assert!(record.provenance.superseded.iter().all(|content| *content == record.content));
        record.objects.iter().for_each(|object| store.verify_object(&object.digest).unwrap());
    }

    let logged = std::fs::read_to_string(bench.path("steps")).unwrap();
    let taken = logged.lines().filter(|line| *line == "step").count();
    let unfinished = WalkDir::new(bench.path("cache").join("work")).into_iter().map(Result::unwrap);
    let unfinished = unfinished.filter(|entry| entry.file_name() == "steps");
    let kept: usize =
        unfinished.map(|entry| std::fs::read_to_string(entry.path()).unwrap().parse::<usize>().unwrap()).sum();
    let published = STEPS * trained.generation as usize;
    println!(
        "{kills} kills, {finished} processes ended by themselves; trained {} times, {taken} steps taken, {kept} of them \
         in unfinished scratch, {} lost",
        trained.generation,
        taken as isize - (published + kept) as isize,
    );
    assert!((published + kept..=published + kept + kills).contains(&taken), "{taken} steps, {published} and {kept}");
}

/// One process evicts all that it may while others run the pipeline, and any of them is killed at any moment.
#[test]
fn runs_and_evictions_that_race_and_are_killed_lose_nothing_that_is_kept() {
    let wanted: usize = std::env::var(KILLS).map_or(12, |text| text.parse().expect("a number of kills"));
    let clean = Bench::new().run(&pipeline()).contents();
    for kept in ["1", "0"] {
        let bench = Bench::new();
        bench.run(&pipeline());
        let mut draws = Draws::new(0, "evict", kept);
        let starts = [Some((EVICT, kept)), None, Some((FORCE, "1"))];
        let mut running = starts.map(|variable| start_with(bench.folder.path(), variable));
        let (mut kills, mut finished) = (0, 0);
        while kills < wanted {
            std::thread::sleep(Duration::from_micros(draws.between(1_000.0, 100_000.0) as u64));
            let place = draws.between(0.0, 3.0) as usize;
            let victim = &mut running[place];
            match victim.try_wait().unwrap() {
                Some(status) => {
                    assert!(status.success(), "a process failed");
                    finished += 1;
                }
                None => {
                    victim.kill().unwrap();
                    victim.wait().unwrap();
                    kills += 1;
                }
            }
            *victim = start_with(bench.folder.path(), starts[place]);
        }
        let [mut evicting, ran, forced] = running;
        for mut child in [ran, forced] {
            assert!(child.wait().unwrap().success());
        }
        evicting.kill().unwrap();
        evicting.wait().unwrap();
        println!("{kills} kills, {finished} processes ended by themselves, runs kept: {kept}");
        let run = bench.run(&pipeline());
        assert_eq!(run.contents(), clean);
        let store = bench.store();
        store.evict(&Eviction { max_size: Some(0), keep_runs: 1, ..Eviction::default() }).unwrap();
        let null = bench.run(&pipeline());
        assert!(null.what().iter().all(|what| what.starts_with("hit ")), "{:?}", null.what());
        for node in &null.report.nodes {
            let record = store.record(&node.key.as_ref().unwrap().parse().unwrap()).unwrap().unwrap();
            record.objects.iter().for_each(|object| store.verify_object(&object.digest).unwrap());
        }
    }
}
