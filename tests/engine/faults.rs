//! Errors of the file system, one kind of access at a time: the node that meets one fails, and nothing is taken for
//! absent, made again or removed because of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use stic_engine::event::{Event, State};
use stic_engine::run::Options;
use stic_engine::store::{Access, Disk, Store};
use walkdir::WalkDir;

use super::toys::{Bench, Machine, Memory, Outcome, PIPELINE};

/// What errors are called, by their numbers on Linux: no permission, a failing device, a handle that a network file
/// system no longer knows, too many open files.
const ERRORS: [(&str, i32); 4] = [("EACCES", 13), ("EIO", 5), ("ESTALE", 116), ("EMFILE", 24)];

/// What a cache holds that must outlive an error.
fn kept(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders = ["results", "objects", "items"].map(|name| bench.path("cache").join(name));
    let entries = folders.into_iter().flat_map(|folder| WalkDir::new(folder).into_iter().map(Result::unwrap));
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.map(|entry| (entry.path().to_owned(), fs::read(entry.path()).unwrap())).collect()
}

/// Runs `text`; as soon as the run has begun, `access` to what lies in `folder` fails with the error `code`. Returns
/// how often it did.
fn run_with_fault(bench: &Bench, text: &str, access: Access, folder: &str, code: i32) -> (Outcome, usize) {
    let (on, met) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (fails, counts, inside) = (Arc::clone(&on), Arc::clone(&met), bench.path("cache").join(folder));
    let disk = Disk::failing(move |of, path: &Path| {
        let hit = fails.load(Ordering::SeqCst) && of == access && path.starts_with(&inside);
        hit.then(|| {
            counts.fetch_add(1, Ordering::SeqCst);
            io::Error::from_raw_os_error(code)
        })
    });
    let store = Arc::new(Store::open_on(disk, &bench.path("cache")).unwrap());
    let memory = Memory::calling(move |event| match event {
        Event::RunStarted { .. } => on.store(true, Ordering::SeqCst),
        Event::RunFinished { .. } => on.store(false, Ordering::SeqCst),
        _ => {}
    });
    let options = Options { keep_going: true, retries: 0, ..Options::default() };
    let machine = Machine(Ok("cpu-f32"));
    let graph = bench.graph(text);
    let pools = super::toys::open(&graph, &options.plan, &machine);
    let report = stic_engine::run::run(&graph, &store, &pools, &options, &memory, &Default::default()).unwrap();
    (Outcome { report, events: memory.events.into_inner().unwrap() }, met.load(Ordering::SeqCst))
}

#[test]
fn an_error_of_the_file_system_is_never_taken_for_absence() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let before = kept(&bench);
    let mut met = 0;
    for (name, code) in ERRORS {
        for folder in ["results", "objects", "items", "index", "work"] {
            for access in [Access::Read, Access::Look, Access::List] {
                let (run, times) = run_with_fault(&bench, PIPELINE, access, folder, code);
                let what = format!("{name} at {access:?} in {folder}: {:?}", run.what());
                assert_eq!(run.report.count(State::Run), 0, "nothing is made again: {what}");
                assert_eq!(times > 0, run.report.count(State::Failed) > 0, "{what}");
                for node in run.report.nodes.iter().filter(|node| node.how == State::Failed) {
                    let error = node.error.as_ref().unwrap();
                    assert!(error.starts_with("cannot read `"), "{what}: {error}");
                }
                met += times;
                assert_eq!(kept(&bench), before, "{what}");
            }
        }
    }
    assert!(met > 0);
    assert_eq!(bench.run(PIPELINE).what(), ["hit source", "hit described", "hit pair"]);
}

#[test]
fn a_node_that_meets_an_error_while_it_runs_fails_as_by_its_environment_and_the_next_run_goes_on() {
    let more = PIPELINE.replace("\"c\"", "\"c\", \"d\"");
    let clean = Bench::new().run(&more).contents();
    let accesses = [Access::Read, Access::Look, Access::List, Access::Write, Access::Name, Access::Sync];
    let mut errors = ERRORS.iter().cycle();
    for folder in ["results", "objects", "items", "work"] {
        // So that an access meets another error in each directory.
        errors.next();
        for (access, (name, code)) in accesses.into_iter().zip(&mut errors) {
            let bench = Bench::new();
            let first = bench.run(PIPELINE);
            let before = kept(&bench);
            let (run, times) = run_with_fault(&bench, &more, access, folder, *code);
            let what = format!("{name} at {access:?} in {folder}: {:?}", run.what());
            // What costs only time (the index) may fail unnoticed.
            assert!(times > 0 || run.report.is_complete(), "{what}");
            for node in run.report.nodes.iter().filter(|node| node.how == State::Failed) {
                let error = node.error.as_ref().unwrap();
                assert!(error.starts_with("cannot "), "{what}: {error}");
            }
            let after = kept(&bench);
            assert!(before.iter().all(|(path, content)| after.get(path) == Some(content)), "{what}");
            assert_eq!(bench.run(&more).contents(), clean, "{what}");
            assert_eq!(bench.run(PIPELINE).contents(), first.contents(), "{what}");
        }
    }
}
