//! `stic table`: what a sweep measured, as rows, with seeds pooled and differences from a row.

use serde_json::Value;

use crate::workspace::{Said, Workspace};

/// Answers to questions, greedy and drawn at two temperatures with three seeds; and how well a training fits.
const PIPELINE: &str = r#"[pipeline]
name = "tables"
matrix.seed = [1, 2, 3]

[models.base]
source = "model"

[defaults.evaluate]
model = "base"
benchmark = "vqa"
data = "test"
max_new_tokens = 2

[nodes.greedy]
kind = "evaluate"

[nodes.drawn]
kind = "evaluate"
matrix.temperature = [0.1, 1.0]
"#;

/// Questions about six pictures; the model's own answers to the first three are the right ones.
fn workspace() -> Workspace {
    let workspace = Workspace::with_pipeline(PIPELINE);
    workspace.copy("tests/reference/llava", "model");
    workspace.pictures("pictures", 6);
    let questions = |answers: &[String]| -> String {
        let question = |(index, answer): (usize, &String)| {
            let image = format!("../pictures/{index}.png");
            serde_json::json!({ "image": image, "question": "what", "answer": answer }).to_string() + "\n"
        };
        answers.iter().enumerate().map(question).collect()
    };
    workspace.write("test/questions.jsonl", questions(&["x", "x", "x", "x", "x", "x"].map(str::to_owned)));
    succeed(&workspace.stic(&["run", "-q", "p.toml", "greedy"]));
    succeed(&workspace.stic(&["export", "-q", "p.toml", "greedy", "out"]));
    let rows = std::fs::read_dir(workspace.path("out")).unwrap().flatten().map(|file| file.path());
    let rows = rows.filter(|path| path.extension().is_some_and(|it| it == "jsonl"));
    let text: String = rows.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let texts =
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["text"].as_str().map(str::to_owned));
    let mut answers: Vec<String> = texts.collect();
    assert!(answers.len() >= 6, "{text}");
    answers.truncate(6);
    answers[3..].fill("something else".to_owned());
    workspace.write("test/questions.jsonl", questions(&answers));
    workspace
}

fn succeed(said: &Said) {
    assert_eq!(said.code, Some(0), "{said}");
}

#[test]
fn a_sweep_is_a_table_with_seeds_pooled_and_differences_from_a_row() {
    let workspace = workspace();
    let before = workspace.stic(&["table", "p.toml"]);
    assert_eq!(before.code, Some(64), "{before}");
    assert!(
        before.err.contains("there are no results with metrics yet") && before.err.contains("stic run p.toml"),
        "{before}"
    );
    succeed(&workspace.stic(&["run", "-q", "p.toml", "greedy", "drawn[temperature=0.1]"]));
    let part = workspace.stic(&["table", "p.toml"]);
    succeed(&part);
    assert!(part.err.contains("`drawn[temperature=1,seed=1]`") && part.err.contains("have not run yet"), "{part}");
    succeed(&workspace.stic(&["run", "-q", "p.toml"]));

    let json = workspace.stic(&["table", "p.toml", "--json", "--against", "greedy", "--sort", "temperature"]);
    succeed(&json);
    let rows: Vec<Value> = json.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row["row"].as_str().unwrap()).collect();
    assert_eq!(names, ["greedy", "drawn[temperature=0.1]", "drawn[temperature=1]"]);
    assert_eq!(rows[1]["instances"].as_array().unwrap().len(), 3);
    assert_eq!(rows[1]["axes"], serde_json::json!({ "temperature": "0.1" }));
    let (greedy, drawn) = (&rows[0]["metrics"]["accuracy"], &rows[2]["metrics"]["accuracy"]);
    assert_eq!((greedy["seeds"].as_u64(), drawn["seeds"].as_u64()), (Some(1), Some(3)));
    assert!(rows[0]["difference"].is_null(), "{json}");
    // The mean of the differences is the difference of the means: all answered the same questions.
    let value = |it: &Value| it["value"].as_f64().unwrap();
    let difference = &rows[2]["difference"];
    assert_eq!((difference["items"].as_u64(), difference["from"].as_str()), (Some(6), Some("greedy")));
    assert!((value(&difference["metrics"]["accuracy"]) - (value(drawn) - value(greedy))).abs() < 1e-9, "{json}");
    assert!(value(greedy) >= 0.5, "{json}");

    let text = workspace.stic(&["table", "p.toml", "--sort", "accuracy", "--against", "greedy"]);
    succeed(&text);
    let lines: Vec<&str> = text.out.lines().collect();
    assert!(lines[1].starts_with("node") && lines[1].contains("temperature") && lines[1].contains("seeds"), "{text}");
    assert!(text.out.contains(" \u{b1} ") && text.out.contains("difference from greedy on the same 6 items"), "{text}");

    let csv = workspace.stic(&["table", "p.toml", "drawn", "--csv"]);
    succeed(&csv);
    let lines: Vec<&str> = csv.out.lines().collect();
    assert!(
        lines[0].starts_with("row,node,temperature,")
            && lines[0].contains(",seeds,accuracy,accuracy_low,accuracy_high"),
        "{csv}"
    );
    assert!(lines.len() == 3 && lines[1].starts_with("drawn[temperature=0.1],drawn,0.1,"), "{csv}");
    let columns = lines[0].split(',').count();
    assert!(lines.iter().all(|line| line.split(',').count() == columns), "{csv}");
}

#[test]
fn rows_and_columns_that_there_are_not_are_refused_by_name() {
    let workspace = workspace();
    succeed(&workspace.stic(&["run", "-q", "p.toml", "greedy", "drawn[seed=1]"]));
    let all = [
        ["table", "p.toml", "--sort", "acuracy"],
        ["table", "p.toml", "--against", "drawn"],
        ["table", "p.toml", "--against", "greed"],
        ["table", "p.toml", "--against", "drawn[temperature=2]"],
    ];
    let said = all.map(|arguments| workspace.stic(&arguments).to_string());
    insta::assert_snapshot!(said.join("\n"));
}
