//! The commands: exit codes, what goes where, and what is left behind.

use std::fs;

use crate::workspace::Workspace;

/// A pipeline without a model: pictures, sampled and corrupted.
const PICTURES: &str = r#"[pipeline]
name = "pictures"
seed = 3

[nodes.images]
kind = "sample"
from = "pictures"

[nodes.corrupted]
kind = "corrupt"
inputs.images = "images"
operations = [{ op = "low_resolution", size = 4 }]
"#;

fn pictures() -> Workspace {
    let workspace = Workspace::with_pipeline(PICTURES);
    workspace.pictures("pictures", 4);
    workspace
}

#[test]
fn usage_has_an_exit_code_of_its_own_and_help_has_none() {
    let workspace = Workspace::new();
    assert_eq!(workspace.stic(&["--help"]).code, Some(0));
    assert_eq!(workspace.stic(&["--version"]).code, Some(0));
    for wrong in [
        &["banana"][..],
        &["run"],
        &["run", "p.toml", "--jobs", "0"],
        &[],
        &["run", "-q", "-v", "p.toml"],
        &["plan", "p.toml", "--accept-numerics", "bogus"],
    ] {
        let said = workspace.stic(wrong);
        assert_eq!((said.code, said.out.as_str()), (Some(64), ""), "{wrong:?}: {said}");
    }
}

#[test]
fn a_run_makes_results_and_the_next_one_finds_them() {
    let workspace = pictures();
    let first = workspace.stic(&["run", "p.toml"]);
    assert_eq!(first.code, Some(0), "{first}");
    insta::assert_snapshot!("first_run", first);
    let second = workspace.stic(&["run", "p.toml"]);
    assert_eq!(second.code, Some(0), "{second}");
    insta::assert_snapshot!("second_run", second);
}

#[test]
fn a_plan_says_what_is_pending_and_exits_with_it() {
    let workspace = pictures();
    let before = workspace.stic(&["plan", "p.toml"]);
    assert_eq!(before.code, Some(2), "{before}");
    insta::assert_snapshot!("plan_before", before);
    let dry = workspace.stic(&["run", "-n", "p.toml"]);
    assert_eq!((dry.code, dry.out), (Some(2), before.out), "a dry run says what a plan says");
    assert_eq!(workspace.stic(&["run", "-q", "p.toml"]).code, Some(0));
    let after = workspace.stic(&["plan", "p.toml"]);
    assert_eq!(after.code, Some(0), "{after}");
    insta::assert_snapshot!("plan_after", after);
}

#[test]
fn plans_and_events_are_json_lines_with_the_fields_that_are_promised() {
    let workspace = pictures();
    let objects = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    };
    let plan = objects(&workspace.stic(&["plan", "p.toml", "--json"]).out);
    assert_eq!(plan[0]["node"], "images");
    assert_eq!((&plan[0]["kind"], &plan[0]["state"]), (&"sample".into(), &"run".into()));
    assert!(plan[0]["why"].is_array());
    assert_eq!(plan[1]["state"], "awaits");

    let events = objects(&workspace.stic(&["run", "p.toml", "--json", "-q"]).out);
    let finished: Vec<_> = events.iter().filter(|event| event["event"] == "finished").collect();
    assert_eq!(finished.len(), 2);
    assert_eq!((&finished[0]["node"], &finished[0]["how"]), (&"images".into(), &"run".into()));
    assert_eq!(finished[1]["items"]["done"], 4);
    assert!(finished[1]["seconds"].is_number());
    let again = objects(&workspace.stic(&["run", "p.toml", "--json", "-q"]).out);
    assert!(again.iter().filter(|event| event["event"] == "finished").all(|event| event["how"] == "hit"));
}

#[test]
fn an_edit_runs_what_it_touches_and_why_names_the_field() {
    let workspace = pictures();
    workspace.stic(&["run", "-q", "p.toml"]);
    workspace.edit("p.toml", "size = 4", "size = 3");
    let why = workspace.stic(&["why", "p.toml", "corrupted"]);
    assert_eq!(why.code, Some(0));
    insta::assert_snapshot!("why_corrupted", why);
    insta::assert_snapshot!("why_images", workspace.stic(&["why", "p.toml", "images"]));
    let run = workspace.stic(&["run", "p.toml", "--json", "-q"]).out;
    let how: Vec<String> = run
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON"))
        .filter(|event| event["event"] == "finished")
        .map(|event| format!("{} {}", event["how"].as_str().unwrap_or(""), event["node"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(how, ["hit images", "run corrupted"]);
}

#[test]
fn why_says_what_a_default_is_whichever_side_it_is_on() {
    let workspace = pictures();
    workspace.stic(&["run", "-q", "p.toml"]);
    let sized = "operations = [{ op = \"low_resolution\", size = 4 }]";
    workspace.edit("p.toml", sized, &format!("{sized}\nfraction = [0.0, 0.9]"));
    let there = workspace.stic(&["why", "p.toml", "corrupted"]).out;
    assert!(there.contains("fraction: [0.0, 1.0] (the default) → [0.0, 0.9]"), "{there}");
    fs::remove_dir_all(workspace.path("cache")).expect("the cache is there");
    workspace.stic(&["run", "-q", "p.toml"]);
    workspace.edit("p.toml", "\nfraction = [0.0, 0.9]", "");
    let back = workspace.stic(&["why", "p.toml", "corrupted"]).out;
    assert!(back.contains("fraction: [0.0, 0.9] → [0.0, 1.0] (the default)"), "{back}");
}

#[test]
fn comments_order_and_names_of_files_change_nothing() {
    let workspace = pictures();
    workspace.stic(&["run", "-q", "p.toml"]);
    let (head, nodes) = PICTURES.split_once("[nodes.images]").expect("a node");
    let (first, second) = nodes.split_once("[nodes.corrupted]").expect("a node");
    workspace.write("q.toml", format!("# another\n[nodes.corrupted]{second}\n[nodes.images]{first}\n{head}"));
    let said = workspace.stic(&["plan", "q.toml"]);
    assert_eq!(said.code, Some(0), "{said}");
}

#[test]
fn targets_and_until_leave_the_rest_alone() {
    let workspace = pictures();
    assert_eq!(workspace.stic(&["run", "-q", "p.toml", "images"]).code, Some(0));
    assert_eq!(workspace.stic(&["plan", "p.toml", "images"]).code, Some(0));
    assert_eq!(workspace.stic(&["plan", "p.toml"]).code, Some(2));
    assert_eq!(workspace.stic(&["run", "-q", "p.toml", "--until", "corrupted"]).code, Some(0));
    assert_eq!(workspace.stic(&["plan", "p.toml"]).code, Some(0));
    let unknown = workspace.stic(&["run", "p.toml", "image", "corupted", "--force", "imags"]);
    assert_eq!(unknown.code, Some(64));
    insta::assert_snapshot!(unknown);
}

#[test]
fn graphs_are_drawn_in_the_colors_of_the_plan() {
    let workspace = pictures();
    insta::assert_snapshot!("mermaid_before", workspace.stic(&["graph", "p.toml"]));
    workspace.stic(&["run", "-q", "p.toml", "images"]);
    insta::assert_snapshot!("dot_between", workspace.stic(&["graph", "p.toml", "--format", "dot"]));
    fs::remove_dir_all(workspace.path("pictures")).expect("the pictures are there");
    insta::assert_snapshot!("mermaid_without_data", workspace.stic(&["graph", "p.toml", "--format", "mermaid"]));
}

#[test]
fn an_export_writes_rows_and_pictures_and_replaces_nothing_unasked() {
    let workspace = pictures();
    let early = workspace.stic(&["export", "p.toml", "corrupted", "out"]);
    assert_eq!(early.code, Some(64));
    insta::assert_snapshot!("export_before_a_run", early);
    workspace.stic(&["run", "-q", "p.toml"]);
    let first = workspace.stic(&["export", "p.toml", "corrupted", "out/corrupted"]);
    assert_eq!(first.code, Some(0), "{first}");
    let rows = fs::read_to_string(workspace.path("out/corrupted/records.jsonl")).expect("rows");
    for row in rows.lines() {
        let row: serde_json::Value = serde_json::from_str(row).expect("a row is JSON");
        let name = format!("out/corrupted/pictures/{}.png", row["altered"]["picture"].as_str().expect("a digest"));
        assert!(image::open(workspace.path(&name)).is_ok(), "{name}");
    }
    assert_eq!(rows.lines().count(), 4);
    let again = workspace.stic(&["export", "p.toml", "corrupted", "out/corrupted"]);
    assert_eq!(again.code, Some(0), "{again}");
    let other = workspace.stic(&["export", "p.toml", "images", "out/corrupted"]);
    assert_eq!(other.code, Some(64));
    insta::assert_snapshot!("export_over_something_else", other);
    assert_eq!(workspace.stic(&["export", "p.toml", "images", "out/corrupted", "--force"]).code, Some(0));
    let left: Vec<_> = fs::read_dir(workspace.path("out")).expect("a directory").flatten().collect();
    assert_eq!(left.len(), 1, "nothing is left beside the directory");
}

#[test]
fn a_cache_that_is_no_folder_is_reported() {
    let workspace = pictures();
    workspace.write("cache", "not a directory");
    for arguments in [&["run", "p.toml"][..], &["plan", "p.toml"], &["cache", "stats"]] {
        let said = workspace.stic(arguments);
        assert_eq!(said.code, Some(64), "{said}");
    }
    insta::assert_snapshot!(workspace.stic(&["run", "p.toml"]));
}

#[cfg(unix)]
#[test]
fn what_stands_in_the_way_of_a_cache_is_named() {
    let workspace = pictures();
    workspace.write("filed/layout", "1\n");
    workspace.write("filed/work", "not a directory");
    std::os::unix::fs::symlink("looped", workspace.path("looped")).expect("a link");
    std::os::unix::fs::symlink("nowhere", workspace.path("dangling")).expect("a link");
    let said = ["filed", "looped", "dangling"].map(|cache| {
        let said = workspace.stic(&["run", "p.toml", "--cache", cache]);
        assert_eq!(said.code, Some(64), "{said}");
        said.to_string()
    });
    insta::assert_snapshot!(said.join("\n"));
}

#[cfg(unix)]
#[test]
fn a_write_that_fails_in_the_middle_fails_the_node_and_the_next_run_goes_on() {
    let workspace = Workspace::with_pipeline(PICTURES);
    workspace.pictures("pictures", 12);
    assert_eq!(workspace.stic(&["run", "-q", "p.toml", "--cache", "other"]).code, Some(0));
    // As on a full disk, files end after one block.
    let limited = "ulimit -f 1; trap '' XFSZ; exec \"$0\" run p.toml";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_stic")]).current_dir(workspace.path(""));
    let output = command.output().expect("a shell");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("failed  images  cannot write `cache/work/tmp/"), "{err}");
    let digests = |cache: &str| {
        let said = workspace.stic(&["run", "-q", "--json", "p.toml", "--cache", cache]);
        assert_eq!(said.code, Some(0), "{said}");
        let finished = said.out.lines().filter_map(|line| line.split_once("\"content\":")?.1.get(..66));
        finished.map(str::to_owned).collect::<Vec<_>>()
    };
    let found = digests("cache");
    assert_eq!(found.len(), 2);
    assert_eq!(found, digests("other"));
}

#[test]
fn what_to_type_next_names_a_cache_that_was_named() {
    let workspace = pictures();
    let said = workspace.stic(&["run", "p.toml", "--cache", "other"]);
    assert!(said.err.contains("DIR --cache other   (writes this result"), "{said}");
    let missing = workspace.stic(&["export", "p.toml", "images", "out", "--cache", "third"]);
    assert!(missing.err.contains("run it first: stic run p.toml images --cache third"), "{missing}");
}

#[test]
fn a_pipeline_is_not_read_from_standard_input() {
    insta::assert_snapshot!(pictures().stic(&["run", "-"]));
}

#[test]
fn the_cache_is_where_the_option_or_the_environment_says() {
    let workspace = pictures();
    assert_eq!(workspace.stic(&["run", "-q", "p.toml", "--cache", "one"]).code, Some(0));
    assert!(workspace.path("one/results").is_dir() && !workspace.path("cache").exists());
    let mut command = workspace.command(&["run", "-q", "p.toml"]);
    assert!(command.env("STIC_CACHE", "two").status().expect("the program begins").success());
    assert!(workspace.path("two/results").is_dir() && !workspace.path("cache").exists());
    let stats = workspace.stic(&["cache", "stats", "--json", "--cache", "two"]).out;
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!(stats["results"]["count"], 2);
    let mut command = workspace.command(&["run", "-q", "p.toml"]);
    assert!(command.env("STIC_CACHE", "").status().expect("the program begins").success());
    assert!(workspace.path("cache/results").is_dir(), "an empty name is none");
}

#[test]
fn data_that_has_gone_is_reported_before_anything_runs() {
    let workspace = Workspace::with_pipeline(PICTURES);
    let said = workspace.stic(&["run", "p.toml"]);
    assert_eq!(said.code, Some(64));
    insta::assert_snapshot!(said);
    assert!(!workspace.path("cache").exists());
}

#[test]
fn quiet_is_silent_when_all_is_well() {
    let workspace = pictures();
    let said = workspace.stic(&["run", "-q", "p.toml"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "", ""));
}

#[test]
fn devices_always_has_the_processor() {
    let out = Workspace::new().stic(&["devices", "--json"]).out;
    let devices: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let processor = devices.iter().find(|device| device["backend"] == "cpu").expect("the processor");
    assert_eq!(processor["problem"], serde_json::Value::Null);
    assert!(processor["dtypes"].as_array().expect("a list").contains(&"f32".into()));
}

#[test]
fn help_is_a_command_too_and_names_the_options_of_all_commands_once() {
    let workspace = Workspace::new();
    for command in ["run", "check", "plan", "why", "table", "graph", "export", "devices", "generate", "score"] {
        let asked = workspace.stic(&["help", command]);
        assert_eq!(asked.code, Some(0), "{asked}");
        assert_eq!(asked.out, workspace.stic(&[command, "--help"]).out, "{command}");
        assert!(!asked.out.contains("When to use colors"), "{asked}");
        assert!(asked.out.contains("--cache, --quiet, --verbose, --color"), "{asked}");
    }
    assert_eq!(workspace.stic(&["help"]).out, workspace.stic(&["--help"]).out);
    assert!(workspace.stic(&["help"]).out.contains("When to use colors"));
    assert!(workspace.stic(&["help", "cache", "stats"]).out.contains("--json"));
    insta::assert_snapshot!(workspace.stic(&["help", "plan"]));
}

#[test]
fn statistics_are_those_of_a_cache_that_exists() {
    let workspace = pictures();
    let said = workspace.stic(&["cache", "stats", "--cache", "mistyped"]);
    assert!(said.code == Some(64) && said.err.contains("no cache at `mistyped`"), "{said}");
    workspace.stic(&["run", "-q", "p.toml"]);
    let said = workspace.stic(&["cache", "stats"]);
    assert!(said.code == Some(0) && said.out.contains("`stic cache gc` removes them"), "{said}");
}

#[test]
fn a_number_of_retries_that_is_none_is_said_to_be_no_integer() {
    for written in ["x", "-1"] {
        let said = pictures().stic(&["run", "p.toml", "--retries", written]);
        assert!(said.code == Some(64) && said.err.contains("expected an integer from 0 to 100"), "{said}");
    }
}

#[test]
fn mistakes_are_listed_for_programs_in_the_order_of_the_file() {
    let workspace = pictures();
    workspace.edit("p.toml", "size = 4", "size = 0");
    let text = fs::read_to_string(workspace.path("p.toml")).expect("the pipeline");
    workspace.write("p.toml", text + "\n[nodes.last]\nkind = \"corupt\"\n[nodes.more]\nkin = 1\n");
    let said = workspace.stic(&["check", "p.toml", "--json"]);
    let line = |text: &str| {
        let mistake: serde_json::Value = serde_json::from_str(text).expect("JSON");
        mistake["places"][0]["line"].as_u64().expect("a number")
    };
    let lines: Vec<u64> = said.out.lines().map(line).collect();
    assert!(lines.len() > 2 && lines.is_sorted(), "{said}");
}

#[test]
fn answers_go_to_standard_output_and_nothing_else_does() {
    let workspace = pictures();
    workspace.stic(&["run", "-q", "p.toml"]);
    let commands: [&[&str]; 6] = [
        &["plan", "p.toml"],
        &["why", "p.toml", "corrupted"],
        &["check", "p.toml"],
        &["graph", "p.toml"],
        &["cache", "stats"],
        &["devices"],
    ];
    for arguments in commands {
        let said = workspace.stic(arguments);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said}");
        assert!(!said.out.is_empty(), "{arguments:?}");
    }
    let said = workspace.stic(&["run", "p.toml"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "what a run tells is no answer: {said}");
}

#[test]
fn answers_for_programs_have_the_fields_that_are_promised() {
    let workspace = pictures();
    let objects = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    };
    let sound = workspace.stic(&["check", "p.toml", "--json"]);
    assert_eq!((sound.code, sound.out.as_str(), sound.err.as_str()), (Some(0), "", ""));
    workspace.stic(&["run", "-q", "p.toml"]);
    let hit = objects(&workspace.stic(&["why", "p.toml", "corrupted", "--json"]).out);
    assert_eq!((&hit[0]["node"], &hit[0]["state"]), (&"corrupted".into(), &"hit".into()));
    let exported = workspace.stic(&["export", "p.toml", "images", "out", "--json"]);
    let row = &objects(&exported.out)[0];
    assert_eq!((&row["node"], &row["folder"], &row["written"]), (&"images".into(), &"out".into(), &true.into()));
    assert!(row["files"].as_array().expect("a list").contains(&"records.jsonl".into()), "{row}");
    assert_eq!(objects(&workspace.stic(&["export", "p.toml", "images", "out", "--json"]).out)[0]["written"], false);
    workspace.edit("p.toml", "size = 4", "size = 3");
    let why = objects(&workspace.stic(&["why", "p.toml", "corrupted", "--json"]).out);
    assert_eq!(why[0]["why"][0], "operations[0].size: 4 \u{2192} 3");
    workspace.edit("p.toml", "from =", "frm =");
    let said = workspace.stic(&["check", "p.toml", "--json"]);
    assert_eq!((said.code, said.err.as_str()), (Some(64), ""));
    let mistake = &objects(&said.out)[0];
    assert_eq!(mistake["message"], "unknown key `frm` in node `images`");
    assert_eq!(mistake["help"], "did you mean `from`?");
    assert_eq!((&mistake["places"][0]["line"], &mistake["places"][0]["column"]), (&7.into(), &1.into()));
    assert_eq!((&mistake["places"][0]["text"], &mistake["file"]), (&"frm".into(), &"p.toml".into()));
}

#[test]
fn the_nearest_cache_at_or_above_the_pipeline_file_is_used() {
    let workspace = Workspace::new();
    workspace.write("project/pipelines/p.toml", PICTURES);
    workspace.pictures("project/pipelines/pictures", 2);
    let file = "project/pipelines/p.toml";
    // Without one, where the command is run.
    assert_eq!(workspace.stic(&["run", "-q", file]).code, Some(0));
    assert!(workspace.path("cache/results").is_dir());
    fs::remove_dir_all(workspace.path("cache")).expect("the cache is there");
    // A directory of that name that is no cache is none; one that a source tree keeps for it is.
    workspace.write("project/pipelines/cache/notes.txt", "mine");
    let tag = fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cache/CACHEDIR.TAG")).expect("the tag");
    workspace.write("project/cache/CACHEDIR.TAG", tag);
    let said = workspace.stic(&["run", file]);
    assert!(said.err.contains("results in project/cache"), "{said}");
    assert!(workspace.path("project/cache/results").is_dir() && !workspace.path("cache").exists());
    assert_eq!(fs::read_dir(workspace.path("project/pipelines/cache")).expect("a directory").count(), 1);
    // Wherever the command is run.
    let mut command = workspace.command(&["plan", "p.toml"]);
    let output = command.current_dir(workspace.path("project/pipelines")).output().expect("the program begins");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    // What is named wins, and where nothing is found the cache is named.
    let said = workspace.stic(&["plan", file, "--cache", "other"]);
    assert!(said.out.contains("the cache `other` has no results of this pipeline"), "{said}");
}

#[test]
fn a_new_pipeline_is_new_whatever_others_call_their_nodes() {
    let workspace = pictures();
    workspace.stic(&["run", "-q", "p.toml"]);
    let other = PICTURES.replace("name = \"pictures\"", "name = \"other\"").replace("size = 4", "size = 2");
    workspace.write("q.toml", other);
    let plan = workspace.stic(&["plan", "q.toml", "corrupted"]);
    assert!(plan.out.contains("RUN  corrupted  corrupt  4 items; new\n"), "{plan}");
    let why = workspace.stic(&["why", "q.toml", "corrupted"]);
    assert_eq!(why.out, "`corrupted` would run:\n  new\n", "{why}");
    let compared = workspace.stic(&["why", "-v", "q.toml", "corrupted"]);
    assert!(compared.out.contains("new; compared with `corrupted` of the pipeline `pictures`"), "{compared}");
    assert!(compared.out.contains("operations[0].size: 4 \u{2192} 2"), "{compared}");
}

#[test]
fn pictures_that_came_went_and_changed_are_reported_by_name() {
    let workspace = pictures();
    workspace.stic(&["run", "-q", "p.toml"]);
    workspace.pictures("more", 6);
    fs::rename(workspace.path("more/5.png"), workspace.path("pictures/new.png")).expect("a picture");
    let why = || workspace.stic(&["why", "p.toml", "images"]).out;
    assert_eq!(why(), "`images` would run:\n  1 picture added: new.png\n");
    assert!(workspace.stic(&["plan", "p.toml"]).out.contains("1 picture added: new.png"));
    fs::remove_file(workspace.path("pictures/0.png")).expect("a picture");
    fs::rename(workspace.path("more/4.png"), workspace.path("pictures/1.png")).expect("a picture");
    let all = why();
    assert!(all.contains("1 picture added: new.png; 1 picture removed: 0.png; 1 picture changed: 1.png"), "{all}");
    let mut command = workspace.command(&["why", "p.toml", "images"]);
    let output = command.env("COLUMNS", "40").output().expect("the program begins");
    let narrow = String::from_utf8(output.stdout).expect("text");
    assert!(narrow.lines().all(|line| line.len() <= 40), "{narrow}");
    assert_eq!(narrow.split_whitespace().collect::<Vec<_>>(), all.split_whitespace().collect::<Vec<_>>());
    workspace.stic(&["run", "-q", "p.toml", "images"]);
    assert_eq!(
        workspace.stic(&["why", "p.toml", "corrupted"]).out,
        "`corrupted` would run:\n  `images` changed\n  2/4 items cached\n"
    );
}

#[test]
fn pictures_that_came_and_went_are_reported_of_a_choice_too() {
    let workspace = pictures();
    workspace.write("p.toml", PICTURES.replace("from = \"pictures\"", "from = \"pictures\"\ncount = 2"));
    workspace.stic(&["run", "-q", "p.toml"]);
    workspace.pictures("more", 6);
    fs::rename(workspace.path("more/5.png"), workspace.path("pictures/new.png")).expect("a picture");
    let why = || workspace.stic(&["why", "p.toml", "images"]).out;
    assert_eq!(why(), "`images` would run:\n  1 picture added: new.png; 5 to choose from in place of 4\n");
    fs::remove_file(workspace.path("pictures/0.png")).expect("a picture");
    let both = "`images` would run:\n  1 picture added: new.png; 1 picture removed\n";
    assert_eq!(why(), both);
    workspace.stic(&["run", "-q", "p.toml", "images"]);
    workspace.stic(&["export", "p.toml", "images", "out"]);
    assert!(workspace.path("out/records.jsonl").is_file() && !workspace.path("out/candidates.txt").exists());
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let said = Workspace::new().stic(&["completions", shell]);
        assert!(said.code == Some(0) && said.out.contains("stic"), "{shell}: {said}");
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_reason_to_panic() {
    use std::process::Stdio;

    let workspace = pictures();
    for arguments in [&["graph", "p.toml"][..], &["plan", "p.toml", "--json"], &["completions", "bash"]] {
        let mut child = workspace
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program begins");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!err.contains("panicked"), "{arguments:?}: {err}");
    }
}

#[test]
fn a_backend_that_this_build_does_not_have_is_reported_where_the_file_asks_for_it() {
    let workspace = Workspace::with_pipeline(
        r#"[device]
backend = "rocm"

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
"#,
    );
    workspace.copy("tests/reference/llava", "model");
    workspace.pictures("pictures", 1);
    if cfg!(feature = "rocm") {
        return;
    }
    let said = workspace.stic(&["run", "p.toml"]);
    assert_eq!(said.code, Some(64), "{said}");
    insta::assert_snapshot!(said);
    assert_eq!(workspace.stic(&["check", "p.toml"]).code, Some(0), "a file for another machine is sound");
    assert_eq!(workspace.stic(&["run", "-q", "p.toml", "images"]).code, Some(0), "pictures need no device");
}

#[test]
fn an_export_is_written_inside_the_folder_that_is_named() {
    let workspace = Workspace::with_pipeline("[nodes.images]\nkind = \"sample\"\nfrom = \"pictures\"\n");
    workspace.pictures("pictures", 3);
    assert_eq!(workspace.stic(&["run", "-q", "p.toml"]).code, Some(0));
    let export =
        |folder: &str, more: &[&str]| workspace.stic(&[&["export", "p.toml", "images", folder], more].concat()).code;
    // As the directory that a container has mounted: another file system, with what that puts into its root.
    let shared = std::path::Path::new("/dev/shm");
    let mounted = tempfile::tempdir_in(if shared.is_dir() { shared } else { std::path::Path::new("/tmp") }).unwrap();
    fs::create_dir(mounted.path().join("lost+found")).unwrap();
    std::os::unix::fs::symlink(mounted.path(), workspace.path("out")).unwrap();
    assert_eq!(export("out", &[]), Some(0));
    let names = |folder: &std::path::Path| {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lost+found")
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(mounted.path()), ["records.jsonl"], "nothing unfinished stays");
    assert_eq!(export("out", &[]), Some(0), "the very same is there");

    workspace.write("taken/records.jsonl", "mine\n");
    workspace.write("taken/notes.txt", "mine\n");
    assert_eq!(export("taken", &[]), Some(64));
    assert_eq!(fs::read_to_string(workspace.path("taken/records.jsonl")).unwrap(), "mine\n");
    assert_eq!(names(&workspace.path("taken")), ["notes.txt", "records.jsonl"]);
    assert_eq!(export("taken", &["--force"]), Some(0));
    assert_eq!(fs::read_to_string(workspace.path("taken/notes.txt")).unwrap(), "mine\n");
    assert_eq!(fs::read_to_string(workspace.path("taken/records.jsonl")).unwrap().lines().count(), 3);
    assert_eq!(export("new/deep", &[]), Some(0));
}

#[test]
fn the_command_that_goes_on_is_the_one_that_was_given() {
    let workspace = Workspace::new();
    workspace.pictures("pictures", 1);
    let whole = fs::read(workspace.path("pictures/0.png")).expect("a picture");
    workspace.write("pictures/broken.png", &whole[..whole.len() / 2]);
    let corrupted = "[nodes.b]\nkind = \"corrupt\"\ninputs.images = \"a\"\noperations = [{ op = \"greyscale\" }]\n";
    workspace.write("my p's.toml", format!("[nodes.a]\nkind = \"sample\"\nfrom = \"pictures\"\n{corrupted}"));
    let said =
        workspace.stic(&["run", "my p's.toml", "b", "-k", "-j2", "--force", "a", "--cache", "c d", "--retries=0"]);
    assert_eq!(said.code, Some(1), "{said}");
    let again = r"stic run 'my p'\''s.toml' b -j 2 --retries 0 -k --cache 'c d'";
    assert!(said.err.trim_end().ends_with(again), "{said}");
}

#[test]
fn a_part_of_the_cache_that_is_in_the_way_is_named_with_what_to_do() {
    let workspace = pictures();
    assert_eq!(workspace.stic(&["run", "p.toml"]).code, Some(0));
    fs::remove_file(workspace.path("cache/index.added")).unwrap();
    fs::create_dir(workspace.path("cache/index.added")).unwrap();
    let said = workspace.stic(&["run", "p.toml"]);
    assert!(said.err.contains("move the directory away: the cache expects a file there"), "{said}");
}

#[test]
fn completions_offer_nothing_that_is_refused() {
    let workspace = Workspace::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = workspace.stic(&["completions", shell]);
        assert!(said.code == Some(0) && said.out.contains("set") && !said.out.contains("override"), "{said}");
    }
}

#[test]
fn numbers_of_jobs_that_are_none_are_refused_by_what_is_expected() {
    let workspace = Workspace::new();
    for jobs in ["0", "-1", "many"] {
        let said = workspace.stic(&["run", "p.toml", "-j", jobs]);
        assert!(said.code == Some(64) && said.err.contains("expected an integer, at least 1"), "{said}");
    }
}

#[test]
fn names_do_not_write_to_the_terminal_what_they_like() {
    let workspace = Workspace::new();
    workspace.pictures("pictures", 1);
    workspace
        .write("p.toml", "[pipeline]\nname = \"x\\u001b[2J\"\n[nodes.a]\nkind = \"sample\"\nfrom = \"pictures\"\n");
    let said = workspace.stic(&["run", "p.toml"]);
    assert!(said.code == Some(0) && !said.err.contains('\u{1b}') && said.err.contains("x\u{fffd}[2J: 1 ran"), "{said}");
}
