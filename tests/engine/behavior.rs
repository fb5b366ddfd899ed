//! What runs, what hits, what is said; one behavior a test.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use stic_engine::event::{Event, State};
use stic_engine::run::Interrupt;
use stic_engine::store::Claiming;

use super::toys::{Bench, Machine, Memory, PIPELINE, interrupt_after};

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    names.into_iter().collect()
}

#[test]
fn a_second_run_hits_and_a_changed_parameter_runs_only_what_is_below_it() {
    let bench = Bench::new();
    let first = bench.run(PIPELINE);
    assert_eq!(first.what(), ["run source", "run described", "run pair"]);
    assert_eq!(first.items("described"), (3, 0, 0));
    let second = bench.run(PIPELINE);
    assert_eq!(second.what(), ["hit source", "hit described", "hit pair"]);
    assert_eq!(second.contents(), first.contents());
    assert_eq!(second.items("described"), (0, 3, 0));

    let changed = PIPELINE.replace('!', "?");
    let why: Vec<_> = bench.plan(&changed).into_iter().map(|node| (node.state, node.why)).collect();
    assert_eq!(why[1], (State::Run, vec![r#"suffix: "!" → "?""#.to_owned()]));
    assert_eq!(why[2], (State::Awaits, vec!["awaits `described`".to_owned()]));
    assert_eq!(bench.run(&changed).what(), ["hit source", "run described", "run pair"]);
    assert_eq!(bench.run(PIPELINE).what(), ["hit source", "hit described", "hit pair"], "and back");
    // Compared with what the file last came to, not with what was made last.
    let why = bench.plan(&PIPELINE.replace('!', "."))[1].why.clone();
    assert_eq!(why, [r#"suffix: "!" → ".""#]);
}

#[test]
fn one_more_item_costs_one_item_a_node() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let more = PIPELINE.replace(r#""c""#, r#""c", "d""#);
    let run = bench.run(&more);
    assert_eq!(run.what(), ["run source", "run described", "run pair"]);
    assert_eq!(run.items("described"), (1, 3, 0));
    let started = run.events.iter().find_map(|event| match event {
        Event::Started { node, why, .. } if node == "described" => Some(why.clone()),
        _ => None,
    });
    let why = started.unwrap();
    assert_eq!(why, ["`source` changed", "3/4 items cached"]);
}

#[test]
fn a_plan_counts_items_and_says_what_a_run_then_does() {
    let bench = Bench::new();
    let states = |nodes: &[stic_engine::plan::NodePlan]| nodes.iter().map(|node| node.state).collect::<Vec<_>>();
    let plan = bench.plan(PIPELINE);
    assert_eq!(states(&plan), [State::Run, State::Awaits, State::Awaits]);
    assert_eq!(plan[0].why, ["new"]);
    bench.run(PIPELINE);
    let fewer = PIPELINE.replace("suffix", "keep = 2\nsuffix");
    let plan = bench.plan(&fewer);
    assert_eq!(states(&plan), [State::Hit, State::Run, State::Awaits]);
    let items = plan[1].items.unwrap();
    assert_eq!((items.total, items.cached), (2, 2));
    assert_eq!(plan[1].why, ["keep: the default → 2", "2/2 items cached"]);
    let json = serde_json::to_value(&plan[1]).unwrap();
    assert_eq!(json["state"], "run");
    assert_eq!(json["items"], serde_json::json!({ "total": 2, "cached": 2, "done": 0, "skipped": 0 }));
    assert_eq!(bench.run(&fewer).items("described"), (0, 2, 0));
}

#[test]
fn a_node_that_comes_out_as_it_was_stops_the_rebuild() {
    let bench = Bench::new();
    let text = |words: &str| {
        format!(
            "[nodes.source]\nkind = \"words\"\nwords = [{words}]\n[nodes.top]\nkind = \"first\"\ninputs.rows = \"source\"\nkeep = 1\n\
             [nodes.described]\nkind = \"each\"\ninputs.rows = \"top\"\n"
        )
    };
    bench.run(&text(r#""a", "b""#));
    let run = bench.run(&text(r#""a", "c""#));
    assert_eq!(run.what(), ["run source", "run top", "hit described"]);
}

#[test]
fn a_renamed_node_or_pipeline_hits_and_a_change_then_says_against_what_it_compares() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let renamed = PIPELINE.replace("described", "misled");
    assert_eq!(bench.run(&renamed).what(), ["hit source", "hit misled", "hit pair"]);
    let changed = |text: &str| bench.plan_thoroughly(&text.replace('!', "?"))[1].why.clone();
    assert_eq!(changed(&renamed), [r#"suffix: "!" → "?""#], "with what the node last came to under its new name");
    let again = PIPELINE.replace("described", "asked");
    assert_eq!(changed(&again), ["new; compared with `described`, which was removed", r#"suffix: "!" → "?""#]);
    let elsewhere = format!("[pipeline]\nname = \"other\"\n{PIPELINE}");
    assert_eq!(changed(&elsewhere), ["new; compared with `described` of the pipeline `toy`", r#"suffix: "!" → "?""#]);
    assert_eq!(bench.plan(&elsewhere.replace('!', "?"))[1].why, ["new"], "unless that is asked for, it is simply new");
    assert_eq!(bench.run(&elsewhere).what(), ["hit source", "hit described", "hit pair"]);
}

#[test]
fn only_targets_and_what_they_need_run() {
    let bench = Bench::new();
    let run = bench.run_with(PIPELINE, |graph, options| options.plan.targets = vec![graph.find("described").unwrap()]);
    assert_eq!(run.what(), ["run source", "run described"]);
}

const THREE: &str = r#"
[nodes.source]
kind = "words"
words = ["a"]
[nodes.broken]
kind = "all"
inputs.rows = "source"
trouble = "node:no such model"
[nodes.below]
kind = "all"
inputs.rows = "broken"
keep = 3
[nodes.lower]
kind = "all"
inputs.rows = "below"
keep = 4
[nodes.beside]
kind = "first"
inputs.rows = "source"
pause = 20000
[nodes.after]
kind = "first"
inputs.rows = "beside"
keep = 5
"#;

#[test]
fn a_failure_ends_the_run_and_with_keep_going_only_what_is_below() {
    let run = Bench::new().run(THREE);
    let what = run.what();
    assert!(what.contains(&"failed broken".to_owned()) && what.contains(&"skipped lower".to_owned()), "{what:?}");
    assert!(what.contains(&"skipped after".to_owned()), "nothing new is begun: {what:?}");
    assert_eq!(run.error("broken"), "no such model");
    let report = run.report.nodes.iter().find(|node| node.node == "broken").unwrap();
    assert_eq!(report.help.as_deref(), Some("do it otherwise"));

    let bench = Bench::new();
    let run = bench.run_with(THREE, |_, options| options.keep_going = true);
    let expected = ["run source", "failed broken", "skipped below", "skipped lower", "run beside", "run after"];
    assert_eq!(set(run.what().iter().map(String::as_str)), set(expected));
    let again = bench.run_with(&THREE.replace("node:no such model", ""), |_, options| options.keep_going = true);
    let expected = ["hit source", "run broken", "run below", "run lower", "hit beside", "hit after"];
    assert_eq!(set(again.what().iter().map(String::as_str)), set(expected), "a failure is not cached");
}

#[test]
fn a_panic_in_a_node_is_a_failure_of_that_node() {
    let text = THREE.replace("node:no such model", "panic");
    let run = Bench::new().run_with(&text, |_, options| options.keep_going = true);
    assert_eq!(run.error("broken"), "panicked: out of cheese");
    assert!(run.what().contains(&"run after".to_owned()));
}

#[test]
fn failures_of_the_environment_are_tried_again_and_never_kept() {
    let text = |count: u32| THREE.replace("node:no such model", &format!("environment:{count}"));
    let run = Bench::new().run_with(&text(2), |_, options| options.retries = 2);
    assert!(run.what().contains(&"run broken".to_owned()));
    let notes = run.notes("broken");
    assert_eq!(notes.len(), 2);
    assert!(notes[0].starts_with("attempt 1 of 3 failed") && notes[0].ends_with("no memory"), "{notes:?}");

    let bench = Bench::new();
    let run = bench.run_with(&text(2), |_, options| options.retries = 1);
    assert_eq!(run.error("broken"), "no memory");
    assert!(bench.run(&text(2)).what().contains(&"run broken".to_owned()), "the next run goes on");
}

#[test]
fn bad_items_are_skipped_counted_and_listed_up_to_the_limit() {
    let words: Vec<String> = (0..200).map(|number| format!("\"{number:03}\"")).collect();
    let text = |trouble: &str, more: &str| {
        format!(
            "[nodes.source]\nkind = \"words\"\nwords = [{}]\n[nodes.described]\nkind = \"each\"\ninputs.rows = \"source\"\n\
             trouble = \"{trouble}\"\n{more}",
            words.join(", ")
        )
    };
    let bench = Bench::new();
    let run = bench.run(&text("bad:19", ""));
    assert_eq!(
        run.error("described"),
        "10 of 200 items are bad, and at most 1 % of the items may be skipped: `190`: not a word; `191`: not a word; `192`: not a word; \
         and 7 more",
        "all are reported at once"
    );
    let help = run.report.nodes[1].help.clone().unwrap();
    assert!(help.ends_with("; `on_bad_item = \"skip\"` in [nodes.described] skips any number"), "{help}");
    let run = bench.run(&text("bad:199", ""));
    assert_eq!(run.items("described"), (9, 190, 1), "what was finished in the run that failed is kept");
    assert_eq!(run.notes("described"), ["1 of 200 items skipped: `199`: not a word"]);
    let record = bench.store().last("toy", "described").unwrap().unwrap();
    assert_eq!(record.summary.line, "199 rows, 1 of 200 items skipped");
    let skipped = record.side.iter().find(|part| part.name == "skipped.jsonl").unwrap();
    let listed = String::from_utf8(bench.store().object(&skipped.digest).unwrap()).unwrap();
    assert!(listed.contains(r#""what":"199","cause":"not a word""#), "{listed}");
    assert_eq!(bench.run(&text("bad:199", "")).items("described"), (0, 199, 1), "a hit remembers them");

    let run = Bench::new().run(&text("bad:199", "on_bad_item = \"fail\"\n"));
    assert_eq!(run.error("described"), "1 of 200 items is bad: `199`: not a word");
    let run = Bench::new().run(&text("bad:19", "on_bad_item = \"skip\"\n"));
    assert_eq!(run.items("described"), (190, 0, 10), "whoever writes `skip` means any number");
    let run = Bench::new().run(&text("bad:", "on_bad_item = \"skip\"\n"));
    let error = run.error("described");
    assert!(error.starts_with("all 200 items are bad: `000`: not a word"), "{error}");
}

#[test]
fn an_interrupt_keeps_finished_items_and_the_next_run_goes_on() {
    let text = PIPELINE.replace("suffix", "pause = 60000\nsuffix").replace(r#""c""#, r#""c", "d", "e", "f""#);
    let (bench, interrupt) = (Bench::new(), Arc::new(Interrupt::default()));
    let memory = interrupt_after("described", 2, &interrupt);
    let run = bench.run_all(&text, |_, _| {}, Machine(Ok("cpu-f32")), memory, &interrupt);
    assert!(run.report.interrupted);
    assert_eq!(run.what(), ["run source", "skipped described", "skipped pair"]);
    let run = bench.run(&text);
    let (done, cached, _) = run.items("described");
    assert!(cached >= 2 && done >= 1 && done + cached == 6, "{done} {cached}");
}

#[test]
fn force_makes_a_new_generation_and_says_what_differs() {
    let bench = Bench::new();
    let force = |text: &str| {
        bench.run_with(text, |graph, options| {
            options.plan.force = [graph.find("source").unwrap(), graph.find("described").unwrap()].into();
        })
    };
    bench.run(PIPELINE);
    let run = force(PIPELINE);
    assert_eq!(run.what(), ["run source", "run described", "hit pair"]);
    assert_eq!(run.items("described"), (3, 0, 0), "items are recomputed, too");
    assert_eq!(run.notes("source"), ["recomputed by `--force`, with the same result"]);
    let run = force(&PIPELINE.replace("words = [", "trouble = \"random\"\nwords = ["));
    assert!(run.notes("source")[0].contains("with a different result: content "), "{:?}", run.notes("source"));
    let record = bench.store().last("toy", "source").unwrap().unwrap();
    assert_eq!((record.generation, record.provenance.superseded.len()), (3, 2));
}

#[test]
fn two_outputs_of_one_key_are_reported_as_non_determinism() {
    let bench = Bench::new();
    let text = PIPELINE.replace("words = [", "trouble = \"random\"\nwords = [");
    bench.run(&text);
    let record = bench.store().last("toy", "source").unwrap().unwrap();
    fs::remove_file(bench.store().object_path(&record.identity[0].digest)).unwrap();
    let plan = bench.plan(&text);
    assert_eq!(plan[0].why, ["1 object of its result is missing from the cache"]);
    let run = bench.run(&text);
    assert!(run.notes("source")[0].starts_with("not deterministic: an earlier result"), "{:?}", run.notes("source"));
}

#[test]
fn a_damaged_object_is_noticed_when_it_is_read_and_made_again_in_the_same_run() {
    let bench = Bench::new();
    let first = bench.run(PIPELINE);
    let store = bench.store();
    let damage = |digest: &stic_engine::digest::Digest| {
        let path = store.object_path(digest);
        let length = fs::metadata(&path).unwrap().len() as usize;
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![b'#'; length]).unwrap();
    };
    damage(&store.last("toy", "source").unwrap().unwrap().identity[0].digest);
    damage(&store.last("toy", "described").unwrap().unwrap().identity[0].digest);
    assert_eq!(bench.run(PIPELINE).what(), ["hit source", "hit described", "hit pair"], "nothing reads them");
    let run = bench.run(&PIPELINE.replace("\"all\"", "\"first\""));
    assert_eq!(run.what(), ["run source", "run described", "run pair"]);
    assert!(run.notes("source")[0].starts_with("recomputing its result: "), "{:?}", run.notes("source"));
    assert_eq!(run.contents()[..2], first.contents()[..2]);
}

#[test]
fn a_plan_notices_objects_that_are_missing_or_cut_short_and_a_run_mends_them() {
    let bench = Bench::new();
    let first = bench.run(PIPELINE);
    let store = bench.store();
    let record = store.last("toy", "described").unwrap().unwrap();
    let items: Vec<_> = record.objects[record.identity.len()..].iter().map(|object| object.digest).collect();
    let cut = |digest: &stic_engine::digest::Digest, length: usize| {
        let path = store.object_path(digest);
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, &content[..length]).unwrap();
    };
    cut(&record.identity[0].digest, 10);
    cut(&items[0], 0);
    fs::remove_file(store.object_path(&items[1])).unwrap();
    let plan = bench.plan(PIPELINE);
    assert_eq!((plan[0].state, plan[1].state, plan[2].state), (State::Hit, State::Run, State::Awaits));
    let why = "1 object of its result is missing from the cache, and 2 damaged";
    assert_eq!(plan[1].why, [why, "1/3 items cached"]);
    let run = bench.run(PIPELINE);
    assert_eq!(run.what(), ["hit source", "run described", "hit pair"]);
    assert_eq!(run.items("described"), (2, 1, 0));
    assert_eq!(run.contents(), first.contents());
    for object in &record.objects {
        store.verify_object(&object.digest).unwrap();
    }
}

#[test]
fn a_plan_that_finds_what_it_reads_damaged_says_who_makes_it_again() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let store = bench.store();
    let path = store.object_path(&store.last("toy", "source").unwrap().unwrap().identity[0].digest);
    let length = fs::metadata(&path).unwrap().len() as usize;
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![b'#'; length]).unwrap();
    let plan = bench.plan(&PIPELINE.replace('!', "?"));
    assert_eq!((plan[0].state, plan[1].state), (State::Run, State::Awaits));
    assert_eq!(plan[0].why, ["1 object of its result is damaged in the cache"]);
}

#[test]
fn a_run_whose_summary_cannot_be_kept_has_its_results_all_the_same() {
    let bench = Bench::new();
    let runs = bench.path("cache").join("runs");
    let memory = Memory::calling(move |event| {
        if matches!(event, Event::RunFinished { .. }) {
            fs::remove_dir_all(&runs).unwrap();
            fs::write(&runs, "").unwrap();
        }
    });
    let run = bench.run_all(PIPELINE, |_, _| {}, Machine(Ok("cpu-f32")), memory, &Interrupt::default());
    assert!(run.report.is_complete());
    assert!(run.report.not_kept.unwrap().starts_with("cannot make `"));
}

#[test]
fn pictures_come_from_files_and_a_change_under_the_run_is_an_error_that_names_the_file() {
    let bench = Bench::new();
    let photos = bench.path("photos");
    fs::create_dir(&photos).unwrap();
    let picture = photos.join("b.txt");
    fs::write(photos.join("a.txt"), "first").unwrap();
    fs::write(&picture, "second").unwrap();
    let text = "[nodes.images]\nkind = \"files\"\nfolder = \"photos\"\n[nodes.shown]\nkind = \"show\"\ninputs.rows = \"images\"\nsuffix = \"~\"\n";
    let run = bench.run(text);
    assert_eq!(run.what(), ["run images", "run shown"]);
    let record = bench.store().last("toy", "shown").unwrap().unwrap();
    let rows = bench.store().object(&record.identity[0].digest).unwrap();
    assert!(String::from_utf8(rows).unwrap().contains("second"));

    fs::write(&picture, "third").unwrap();
    let run = bench.run(text);
    assert_eq!(run.what(), ["run images", "run shown"]);
    assert_eq!(run.items("shown"), (1, 1, 0));

    let touching =
        text.replace("suffix = \"~\"", &format!("trouble = \"touch:{}\"\nsuffix = \"?\"", picture.display()));
    let run = bench.run(&touching);
    assert_eq!(run.what(), ["hit images", "failed shown"]);
    assert_eq!(run.error("shown"), format!("`{}` changed during the run", picture.display()));

    // A file that a parameter names and that changes while the node runs.
    let touching = text.replace("folder", &format!("trouble = \"touch:{}\"\nfolder", photos.join("a.txt").display()));
    let run = bench.run(&touching);
    assert_eq!(run.error("images"), format!("`{}` changed while the node was running", photos.join("a.txt").display()));
    assert_eq!(bench.run(text).what(), ["run images", "run shown"], "nothing of it was kept");
}

#[test]
fn numerics_classes_are_kept_apart_unless_the_pipeline_accepts_another() {
    let bench = Bench::new();
    let text = PIPELINE.replace("\"each\"", "\"compute\"");
    let on = |backend, text: &str| {
        bench.run_all(text, |_, _| {}, Machine(Ok(backend)), Memory::default(), &Interrupt::default())
    };
    on("cuda-f32", &text);
    assert_eq!(on("cuda-f32", &text).what(), ["hit source", "hit described", "hit pair"]);
    let why = bench.plan_on(&text, "cpu-f32")[1].why.clone();
    assert_eq!(why.len(), 1);
    assert!(why[0].starts_with("only the numerics class differs: cuda-f32 → cpu-f32"), "{why:?}");
    let accepting = format!("[device]\naccept_numerics = [\"cuda-f32\"]\n{text}");
    let run = on("cpu-f32", &accepting);
    assert_eq!(run.what(), ["hit source", "hit described", "hit pair"]);
    assert_eq!(run.notes("described"), ["a result of cuda-f32, accepted in place of cpu-f32"]);
    assert_eq!(on("cpu-f32", &text).what(), ["hit source", "run described", "hit pair"]);
}

#[test]
fn a_device_is_asked_for_only_when_something_wanted_computes() {
    let bench = Bench::new();
    let none = || Machine(Err("no device".to_owned()));
    let run = bench.run_all(PIPELINE, |_, _| {}, none(), Memory::default(), &Interrupt::default());
    assert!(run.report.is_complete());
    let graph = bench.graph(&PIPELINE.replace("\"each\"", "\"compute\""));
    let pools = stic_engine::plan::open(&graph, &[], &none());
    let errors = pools.unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].unmet.message.as_str(), errors[0].node), ("no device", None));
}

/// Two nodes that compute, with these lines in their tables.
fn two_that_compute(one: &str, other: &str) -> String {
    let source = "[nodes.source]\nkind = \"words\"\nwords = [\"a\"]\n";
    let node = |name: &str, lines: &str| {
        format!("[nodes.{name}]\nkind = \"compute\"\ninputs.rows = \"source\"\nsuffix = \"{name}\"\n{lines}\n")
    };
    format!("{source}{}{}", node("one", one), node("other", other))
}

#[test]
fn nodes_on_two_devices_run_at_once_and_those_on_one_never() {
    let bench = Bench::new();
    let path = |name: &str| bench.path(name).display().to_string();
    let meet = |mine: &str, other: &str| format!("trouble = \"meet:{},{}\"", path(mine), path(other));
    let (one, other) = (meet("one", "other"), meet("other", "one"));
    let run = bench.run(&two_that_compute(&one, &format!("{other}\ndevice = \"there cpu-f32\"")));
    assert!(run.report.is_complete(), "{:?}", run.what());

    // One of them is the pipeline's device: the place counts, not how it was asked for.
    let pause = "pause = 20000";
    let run = bench.run(&two_that_compute(
        &format!("{pause}\nkeep = 1"),
        &format!("{pause}\nkeep = 1\ndevice = \"here cpu-f32\""),
    ));
    let order: Vec<&str> = run
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Started { node, .. } if node != "source" => Some("start"),
            Event::Finished(report) if report.node != "source" => Some("end"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["start", "end", "start", "end"]);
}

#[test]
fn the_class_of_a_node_s_own_device_is_in_its_key_and_the_request_is_not() {
    let bench = Bench::new();
    let text = two_that_compute("", "");
    bench.run(&text);
    let moved = two_that_compute("", "device = \"there cpu-f32\"");
    assert_eq!(bench.run(&moved).report.count(State::Hit), 3, "another device of one class");
    let faster = two_that_compute("", "device = \"there cuda-f32\"");
    let why = |text: &str| bench.plan(text).into_iter().map(|node| node.why).collect::<Vec<_>>();
    assert_eq!(why(&faster)[..2], [vec![], Vec::<String>::new()]);
    assert!(
        why(&faster)[2][0].starts_with("only the numerics class differs: cpu-f32 → cuda-f32"),
        "{:?}",
        why(&faster)
    );
    let run = bench.run(&faster);
    assert_eq!(run.what(), ["hit source", "hit one", "run other"]);
    assert_eq!(bench.run(&text).report.count(State::Hit), 3);
}

#[test]
fn every_request_that_cannot_be_met_is_reported_with_the_node_that_made_it() {
    let bench = Bench::new();
    let graph = bench.graph(&two_that_compute("device = \"a\"", "device = \"b\""));
    let errors = stic_engine::plan::open(&graph, &[], &Machine(Ok("cpu-f32"))).unwrap_err();
    let said: Vec<_> = errors
        .iter()
        .map(|error| graph.pool_mistake(error.pool, error.node, error.unmet.message.clone(), error.unmet.help.clone()))
        .map(|mistake| (mistake.message, mistake.labels.len(), mistake.help))
        .collect();
    let help = Some("name another".to_owned());
    assert_eq!(said, [("no device \"a\"".to_owned(), 1, help.clone()), ("no device \"b\"".to_owned(), 1, help)]);
}

#[test]
fn a_plan_tells_which_other_numerics_classes_the_cache_has_a_result_or_items_of() {
    let bench = Bench::new();
    let text = PIPELINE.replace("\"each\"", "\"compute\"");
    let on = |backend, text: &str| {
        bench.run_all(text, |_, _| {}, Machine(Ok(backend)), Memory::default(), &Interrupt::default())
    };
    on("cuda-f32", &text);
    // The last run was of something else.
    on("cpu-f32", &text.replace('!', "?"));
    let why = bench.plan_on(&text, "cpu-f32")[1].why.clone();
    let accept = "used with `accept_numerics = [\"cuda-f32\"]` under `[device]`";
    assert_eq!(
        why,
        [
            format!("only the numerics class differs: cuda-f32 → cpu-f32 (the earlier result is {accept})"),
            "3 items".to_owned()
        ][..1]
    );
    let more = text.replace(r#""c""#, r#""c", "d""#);
    let sources = |graph: &stic_engine::graph::Graph, options: &mut stic_engine::run::Options| {
        options.plan.targets = vec![graph.find("source").unwrap()];
    };
    bench.run_with(&more, sources);
    let why = bench.plan_on(&more, "cpu-f32")[1].why.clone();
    assert!(why.contains(&format!("3 items of cuda-f32 are finished, and {accept}")), "{why:?}");
    let accepting = format!("[device]\naccept_numerics = [\"cuda-f32\"]\n{more}");
    let why = bench.plan_on(&accepting, "cpu-f32")[1].why.clone();
    assert!(why.contains(&"3 items of cuda-f32 accepted in place of cpu-f32".to_owned()), "{why:?}");
    assert!(!why.iter().any(|why| why.contains("are finished")), "{why:?}");
}

#[test]
fn equal_nodes_are_done_once() {
    let bench = Bench::new();
    let text = format!("{PIPELINE}[nodes.same]\nkind = \"each\"\ninputs.rows = \"source\"\nsuffix = \"!\"\nlog = \"log\"\npause = 20000\n")
        .replace("suffix = \"!\"\n\n", "suffix = \"!\"\nlog = \"log\"\npause = 20000\n\n");
    let run = bench.run(&text);
    assert_eq!((run.report.count(State::Run), run.report.count(State::Hit)), (3, 1), "{:?}", run.what());
    assert_eq!(bench.logged(), 3);
    let waits = |run: &super::toys::Outcome| run.events.iter().any(|event| matches!(event, Event::Waiting { .. }));
    assert!(!waits(&run), "nobody waits for itself");
    let both = ["described", "same"];
    let forced = bench.run_with(&text, |graph, options| {
        options.plan.force = both.into_iter().map(|name| graph.find(name).unwrap()).collect();
    });
    assert_eq!((bench.logged(), waits(&forced)), (6, false), "what is forced twice is made once");
}

#[test]
fn a_node_whose_key_is_claimed_waits_and_then_hits() {
    let bench = Bench::new();
    let key = bench.plan(PIPELINE)[0].key.unwrap();
    let store = bench.store();
    let Claiming::Held(claim) = store.claim(&key).unwrap() else { panic!("taken") };
    let (sender, receiver) = std::sync::mpsc::channel();
    let memory = Memory::calling(move |event| {
        if let Event::Waiting { node, owner, items: false } = event {
            sender.send((node.clone(), owner.clone())).unwrap();
        }
    });
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| bench.run_all(PIPELINE, |_, _| {}, Machine(Ok("cpu-f32")), memory, &Interrupt::default()));
        let (node, owner) = receiver.recv().unwrap();
        assert_eq!(node, "source");
        assert!(owner.starts_with(&format!("process {}", std::process::id())), "{owner}");
        drop(claim);
        assert_eq!(waiting.join().unwrap().what(), ["run source", "run described", "run pair"]);
    });
}

#[test]
fn a_run_leaves_its_events_and_its_summary_behind() {
    let bench = Bench::new();
    let run = bench.run(PIPELINE);
    let folder = bench.path("cache").join("runs").join(&run.report.run);
    let events = fs::read_to_string(folder.join("events.jsonl")).unwrap();
    let events: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.first().unwrap()["event"], "run_started");
    assert_eq!(events.last().unwrap()["event"], "run_finished");
    let finished: Vec<_> = events.iter().filter(|event| event["event"] == "finished").collect();
    assert_eq!(finished.len(), 3);
    assert!(
        finished.iter().all(|event| event["how"] == "run" && event["seconds"].is_number() && event["time"].is_string())
    );
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["nodes"][2]["summary"]["line"], "3 rows");
    let stats = bench.store().stats().unwrap();
    assert_eq!((stats.results.count, stats.items.count, stats.runs.count, stats.work.count), (3, 1, 1, 0));
}

#[test]
fn a_result_that_left_out_more_than_a_node_allows_is_no_hit() {
    let bench = Bench::new();
    let text = |more: &str| PIPELINE.replace("suffix = \"!\"", &format!("suffix = \"!\"\ntrouble = \"bad:b\"\n{more}"));
    let skipping = text("on_bad_item = \"skip\"");
    assert_eq!(bench.run(&skipping).items("described"), (2, 0, 1));
    assert_eq!(bench.run(&skipping).what(), ["hit source", "hit described", "hit pair"]);
    for (on_bad_item, limit) in
        [("on_bad_item = \"fail\"", "`on_bad_item` is \"fail\""), ("", "at most 1 % of the items may be skipped")]
    {
        let plan = &bench.plan(&text(on_bad_item))[1];
        assert_eq!(plan.state, State::Run);
        assert_eq!(plan.why[0], format!("1 of 3 items was left out of its result, and {limit}"));
        let run = bench.run(&text(on_bad_item));
        assert_eq!(run.what(), ["hit source", "failed described", "skipped pair"]);
        assert!(run.error("described").starts_with("1 of 3 items is bad"), "{}", run.error("described"));
    }
    assert_eq!(bench.run(&skipping).what(), ["hit source", "hit described", "hit pair"]);
    // Mended, as the toy sees it: the whole takes the place of the part.
    let mended = text("on_bad_item = \"fail\"").replace("bad:b", "");
    assert_eq!(bench.run(&mended).items("described"), (1, 2, 0));
    assert_eq!(bench.run(&skipping).items("described"), (0, 3, 0));
}

/// Two nodes of one function, whose items are those of `first` and of `second`.
fn overlapping(kind: &str, first: &str, second: &str) -> String {
    format!(
        "[nodes.one]\nkind = \"words\"\nwords = [{first}]\n[nodes.two]\nkind = \"words\"\nwords = [{second}]\n\
         [nodes.left]\nkind = \"{kind}\"\ninputs.rows = \"one\"\nlog = \"log\"\npause = 5000\n\
         [nodes.right]\nkind = \"{kind}\"\ninputs.rows = \"two\"\nlog = \"log\"\npause = 5000\n"
    )
}

#[test]
fn nodes_that_have_items_in_common_make_them_once() {
    for kind in ["each", "compute"] {
        let bench = Bench::new();
        let text = overlapping(kind, r#""a", "b", "c""#, r#""b", "c", "d", "e""#);
        let run = bench.run(&text);
        assert_eq!(run.report.count(State::Run), 4);
        assert_eq!(bench.logged(), 5);
        assert!(!run.events.iter().any(|event| matches!(event, Event::Waiting { .. })), "nobody waits for itself");
        let both = ["left", "right"];
        bench.run_with(&text, |graph, options| {
            options.plan.force = both.into_iter().map(|name| graph.find(name).unwrap()).collect();
        });
        assert_eq!(bench.logged(), 10, "what is forced twice is made once");
    }
}

#[test]
fn runs_that_have_items_in_common_make_them_once() {
    let bench = Bench::new();
    let words = |range: std::ops::Range<usize>| range.map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
    let text = |range| overlapping("each", &words(range), "\"x\"");
    let texts = [text(0..30), text(10..40), text(20..50)];
    std::thread::scope(|scope| {
        for text in &texts {
            scope.spawn(|| assert!(bench.run(text).report.is_complete()));
        }
    });
    assert_eq!(bench.logged(), 51, "fifty, and the one of `right`");
    for text in texts {
        assert_eq!(bench.run(&text).report.count(State::Hit), 4);
    }
}

#[test]
fn finished_items_of_an_accepted_numerics_class_are_taken_and_the_result_is_one_of_its_own() {
    let bench = Bench::new();
    let text = PIPELINE.replace("\"each\"", "\"compute\"").replace("suffix", "log = \"log\"\nsuffix");
    let on = |backend, text: &str| {
        bench.run_all(text, |_, _| {}, Machine(Ok(backend)), Memory::default(), &Interrupt::default())
    };
    on("cuda-f32", &text);
    let more = text.replace(r#""c""#, r#""c", "d""#);
    let accepting = format!("[device]\naccept_numerics = [\"cuda-f32\"]\n{more}");
    on("cpu-f32", &text.replace(r#""b", "a", "c""#, r#""a""#));
    assert_eq!(bench.logged(), 4);
    let sources = |graph: &stic_engine::graph::Graph, options: &mut stic_engine::run::Options| {
        options.plan.targets = vec![graph.find("source").unwrap()];
    };
    bench.run_with(&accepting, sources);
    let plan = bench.plan_on(&accepting, "cpu-f32")[1].clone();
    let why = &plan.why[plan.why.len() - 2..];
    assert_eq!(why, ["2 items of cuda-f32 accepted in place of cpu-f32", "3/4 items cached"]);
    let run = on("cpu-f32", &accepting);
    assert_eq!((run.items("described"), bench.logged()), ((1, 3, 0), 5));
    let again = on("cpu-f32", &accepting);
    assert_eq!(again.what(), ["hit source", "hit described", "hit pair"]);
    assert_eq!(again.notes("described"), ["with items of cuda-f32, accepted in place of cpu-f32"]);
    // Whoever does not accept the other class makes its items, and those alone.
    let run = on("cpu-f32", &more);
    assert_eq!((run.what()[1].as_str(), run.items("described"), bench.logged()), ("run described", (2, 2, 0), 7));
}

#[cfg(unix)]
#[test]
fn a_file_whose_mode_or_place_on_the_disk_changes_under_a_node_is_what_it_was() {
    let bench = Bench::new();
    fs::create_dir(bench.path("photos")).unwrap();
    fs::write(bench.path("photos/a.txt"), "first").unwrap();
    let text = "[nodes.images]\nkind = \"files\"\nfolder = \"photos\"\ntrouble = \"copy:photos/a.txt\"\n";
    let text = text.replace("copy:photos", &format!("copy:{}", bench.path("photos").display()));
    assert_eq!(bench.run(&text).what(), ["run images"]);
}

#[test]
fn an_edit_of_a_file_under_a_node_ends_it_then_and_keeps_what_is_finished() {
    let bench = Bench::new();
    fs::create_dir(bench.path("model")).unwrap();
    let weights = bench.path("model/weights");
    fs::write(&weights, "first").unwrap();
    let words: Vec<String> = (0..60).map(|number| format!("\"{number}\"")).collect();
    let text = format!(
        "[nodes.source]\nkind = \"words\"\nwords = [{}]\n[nodes.described]\nkind = \"each\"\ninputs.rows = \"source\"\n\
         folder = \"model\"\nlog = \"log\"\npause = 200000\ntrouble = \"touch:{}\"\n",
        words.join(", "),
        weights.display()
    );
    let run = bench.run(&text);
    assert_eq!(run.error("described"), format!("`{}` changed while the node was running", weights.display()));
    let made = bench.logged();
    assert!(made < 60, "noticed only when all was done");
    // The directory only selects in this toy, so its finished items are good for the next.
    let run = bench.run(&text.replace("touch:", "none:").replace("pause = 200000\n", ""));
    assert!(run.items("described").1 + 1 >= made, "the item in flight alone is lost");
}

#[test]
fn any_number_of_retries_can_be_asked_for() {
    let text = THREE.replace("node:no such model", "environment:1");
    let run = Bench::new().run_with(&text, |_, options| options.retries = u32::MAX);
    assert!(run.notes("broken")[0].starts_with("attempt 1 of 4294967296 failed"), "{:?}", run.notes("broken"));
}

#[test]
fn a_lost_object_of_many_readers_is_made_again_once_whatever_they_do_meanwhile() {
    for jobs in [1, 2, 8] {
        let bench = Bench::new();
        let readers = |kind: &str| -> String {
            (0..6)
                .map(|n| {
                    format!(
                        "[nodes.reader{n}]\nkind = \"{kind}\"\ninputs.rows = [\"described\", \"source\"]\nkeep = {n}\n"
                    )
                })
                .collect()
        };
        let text = |kind: &str| format!("{}{}", PIPELINE.replace("suffix", "log = \"log\"\nsuffix"), readers(kind));
        let first = bench.run(&text("all"));
        let store = bench.store();
        for node in ["described", "source"] {
            let path = store.object_path(&store.last("toy", node).unwrap().unwrap().identity[0].digest);
            let length = fs::metadata(&path).unwrap().len() as usize;
            fs::remove_file(&path).unwrap();
            fs::write(&path, vec![b'#'; length]).unwrap();
        }
        let jobs = std::num::NonZeroUsize::new(jobs).unwrap();
        let run = bench.run_with(&text("first"), |_, options| options.jobs = jobs);
        assert!(run.report.is_complete(), "{:?}", run.what());
        assert_eq!(run.contents()[..2], first.contents()[..2]);
        let remade = |node| run.notes(node).iter().filter(|note| note.starts_with("recomputing its result")).count();
        assert_eq!((remade("source"), remade("described")), (1, 1));
        assert_eq!(bench.logged(), 3, "the items of `described` are there still");
    }
}
