//! The pipelines of the paper's runs carry the recipe's values, each of them.

use toml::{Table, Value};

const FILES: [&str; 2] = ["stic-llava-1.6-mistral-7b", "stic-llava-1.5-7b"];

/// Node, parameter, value as TOML; the same in both files.
const RECIPE: &[(&str, &str, &str)] = &[
    ("images", "count", "6000"),
    ("images", "dedupe", "true"),
    ("preferred", "prompts", "'stic:preferred'"),
    ("corrupted", "fraction", "[0.5, 1.0]"),
    (
        "corrupted",
        "operations",
        "[{ op = 'low_resolution', size = 20, weight = 0.5 }, \
          { op = 'color_jitter', brightness = 0.5, hue = 0.3, weight = 0.5 }]",
    ),
    ("from_corrupted", "prompts", "'stic:captions'"),
    ("misled", "fraction", "[0.0, 0.5]"),
    ("misled", "prompts", "'stic:hallucination'"),
    ("pairs", "instructions", "'stic:captions'"),
    ("pairs", "drop_identical", "false"),
    ("stage1", "lora", "{ rank = 128, alpha = 256, dropout = 0.0 }"),
    ("stage1", "beta", "0.1"),
    ("stage1", "chosen_weight", "0.0009765625"),
    ("stage1", "learning_rate", "1e-7"),
    ("stage1", "batch_size", "8"),
    ("stage1", "max_length", "1024"),
    ("instructions", "count", "5000"),
    ("instructions", "where", "{ image = true, path = ['coco/**', 'textvqa/**', 'vg/**'] }"),
    ("self_descriptions", "prompts", "'stic:captions'"),
    ("infused", "prefix", "\"Image description:\\n\""),
    ("infused", "separator", "\"\\n\\n\""),
    ("stage2", "lora", "{ dropout = 0.05 }"),
    ("stage2", "learning_rate", "2e-5"),
    ("stage2", "batch_size", "64"),
    ("stage2", "max_length", "2048"),
    ("stage2_describing", "describe_and_respond", "true"),
    ("stage2_describing", "describe_prompt", "'Detail the composition and subjects within the frame.'"),
];

/// What holds for every node of these kinds.
const OF_KIND: &[(&[&str], &str, &str)] = &[
    (&["describe", "mislead"], "temperature", "0.2"),
    (&["describe", "mislead"], "top_k", "50"),
    (&["describe", "mislead"], "top_p", "1.0"),
    (&["describe", "mislead", "evaluate"], "max_new_tokens", "1024"),
    (&["dpo", "sft"], "epochs", "1"),
    (&["dpo", "sft"], "schedule", "'cosine'"),
    (&["dpo", "sft"], "warmup_ratio", "0.03"),
    (&["dpo", "sft"], "weight_decay", "0.0"),
    (&["dpo", "sft"], "adam_betas", "[0.9, 0.999]"),
    (&["dpo", "sft"], "adam_epsilon", "1e-8"),
    (&["dpo", "sft"], "max_grad_norm", "1.0"),
    (&["dpo", "sft"], "image_mode", "'pad'"),
    (&["evaluate"], "temperature", "0.0"),
];

/// How the checkpoint of each file looks at pictures when it generates.
const IMAGE_MODES: [&str; 2] = ["'anyres'", "'pad'"];

/// Whose rule tiles those pictures: the checkpoint was made with the original one, though its layout is Hugging Face's.
const ANYRES_RULES: [Option<&str>; 2] = [Some("'original'"), None];

/// A pipeline, whose nodes have the defaults of their kinds.
fn pipeline(name: &str) -> Table {
    let path = format!("{}/pipelines/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut pipeline: Table = text.parse().unwrap();
    let defaults = pipeline["defaults"].as_table().unwrap().clone();
    for (_, node) in pipeline["nodes"].as_table_mut().unwrap() {
        let of_kind = defaults.get(node["kind"].as_str().unwrap()).and_then(Value::as_table);
        for (key, value) in of_kind.into_iter().flatten() {
            node.as_table_mut().unwrap().entry(key).or_insert_with(|| value.clone());
        }
    }
    pipeline
}

fn value(text: &str) -> Value {
    format!("value = {text}").parse::<Table>().unwrap().remove("value").unwrap()
}

fn nodes(pipeline: &Table) -> &Table {
    pipeline["nodes"].as_table().unwrap()
}

#[test]
fn every_hyperparameter_equals_the_recipe() {
    for ((file, image_mode), anyres_rule) in FILES.into_iter().zip(IMAGE_MODES).zip(ANYRES_RULES) {
        let pipeline = pipeline(file);
        for (node, parameter, expected) in RECIPE {
            let found = nodes(&pipeline).get(*node).and_then(|node| node.get(parameter));
            assert_eq!(found, Some(&value(expected)), "{file}: {node}.{parameter}");
        }
        for (name, node) in nodes(&pipeline) {
            let kind = node["kind"].as_str().unwrap();
            for (_, parameter, expected) in OF_KIND.iter().filter(|(kinds, ..)| kinds.contains(&kind)) {
                assert_eq!(node.get(parameter), Some(&value(expected)), "{file}: {name}.{parameter}");
            }
            if ["describe", "mislead", "evaluate"].contains(&kind) {
                assert_eq!(node.get("image_mode"), Some(&value(image_mode)), "{file}: {name}.image_mode");
                assert_eq!(node.get("anyres_rule"), anyres_rule.map(value).as_ref(), "{file}: {name}.anyres_rule");
            }
        }
        assert_eq!(pipeline["pipeline"]["seed"], value("42"), "{file}");
    }
}

#[test]
fn no_hyperparameter_goes_unchecked() {
    let wiring = [
        "kind",
        "inputs",
        "model",
        "from",
        "images",
        "benchmark",
        "data",
        "image_mode",
        "anyres_rule",
        "describe_and_respond",
    ];
    for file in FILES {
        for (name, node) in nodes(&pipeline(file)) {
            for parameter in node.as_table().unwrap().keys().filter(|key| !wiring.contains(&key.as_str())) {
                let checked = RECIPE.iter().any(|(node, known, _)| node == name && known == parameter)
                    || OF_KIND
                        .iter()
                        .any(|(kinds, known, _)| kinds.contains(&node["kind"].as_str().unwrap()) && known == parameter);
                assert!(checked, "{file}: {name}.{parameter} is not in the recipe's table");
            }
        }
    }
}

#[test]
fn every_hyperparameter_names_its_source() {
    for file in FILES {
        let path = format!("{}/pipelines/{file}.toml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let known: Vec<&str> =
            RECIPE.iter().map(|(_, name, _)| *name).chain(OF_KIND.iter().map(|(_, name, _)| *name)).collect();
        let training = text.split("# ---- Evaluation").next().unwrap();
        for line in training.lines() {
            let Some((key, _)) = line.split_once(" = ") else { continue };
            if !known.contains(&key) || key == "operations" {
                continue;
            }
            let sourced = ["[paper]", "[script]", "[default]", "[choice]"].iter().any(|mark| line.contains(mark));
            assert!(sourced, "{file}: no source beside `{line}`");
        }
    }
}

#[test]
fn every_kind_takes_part() {
    for file in FILES {
        let pipeline = pipeline(file);
        for kind in stic::nodes::kinds().names() {
            assert!(nodes(&pipeline).values().any(|node| node["kind"].as_str() == Some(kind)), "{file}: {kind}");
        }
    }
}
