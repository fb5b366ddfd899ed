//! The schema of pipeline files: the committed one is what the program prints, and it accepts what the program reads.

use std::path::Path;

use boon::{Compiler, Schemas};
use serde_json::Value;
use stic::nodes::kinds;
use stic_engine::graph::Graph;
use stic_engine::schema::schema;

const COMMITTED: &str = "pipelines/schema.json";

/// Values of all types, sound for some key each; no `1.0`, which boon alone takes for an integer, in draft 4 too.
const VALUES: &[&str] = &[
    "true",
    "false",
    "-1",
    "0",
    "1",
    "8",
    "101",
    "5000000",
    "0.5",
    "1.5",
    "-0.5",
    "''",
    "' '",
    "'x'",
    "'base'",
    "'pad'",
    "'checkpoint'",
    "'vqa'",
    "'paper'",
    "'skip'",
    "'cosine'",
    "'text'",
    "'apply'",
    "'cuda:1'",
    "{ backend = 'cuda:1' }",
    "{ backend = 'auto', dtype = 'f16' }",
    "{ dtype = 'f8' }",
    "'stic:preferred'",
    "[]",
    "[1]",
    "[0.1, 0.2]",
    "[0.1, 0.2, 0.3]",
    "[0.9, 1]",
    "[-0.1, 0.2]",
    "['sigmoid']",
    "['Say.']",
    "['Say.', '']",
    "['q_proj', 'v_proj']",
    "['q_proj', 'q_proj']",
    "[['x']]",
    "{}",
    "{ file = 'x.txt' }",
    "{ file = 'x.txt', more = 1 }",
    "{ image = true, path = ['**/*.jpg'], source = 'a', year = [1999, 2000] }",
    "{ image = 1 }",
    "{ year = {} }",
    "{ rank = 4, alpha = 8, dropout = 0.1, targets = ['q_proj'] }",
    "{ rank = 0 }",
    "{ dropout = 1.0 }",
    "{ rnak = 1 }",
    "[{ op = 'low_resolution', size = 20, weight = 0.5 }]",
    "[{ op = 'low_resolution' }]",
    "[{ op = 'low_resolution', size = 20, sigma = 1 }]",
    "[{ op = 'color_jitter', brightness = 0.5, hue = [-0.1, 0.1] }]",
    "[{ op = 'color_jitter', hue = 0.6 }]",
    "[{ op = 'gaussian_blur', sigma = [1, 2], kernel_size = 3 }]",
    "[{ op = 'gaussian_blur' }]",
    "[{ op = 'noise', sigma = 0.1 }, { op = 'greyscale', weight = 2 }]",
    "[{ op = 'noise', sigma = 0 }]",
    "[{ op = 'crop', scale = 0.5, ratio = [0.5, 2] }]",
    "[{ op = 'rotate' }]",
];

/// Mistakes that are none of key, type or range: what a schema cannot say.
const BEYOND: [&str; 5] =
    ["unknown model", "unknown node", "needs an input adapter", "is for short answers", "is not a glob"];

/// A sound node of `kind`, without header and `kind`.
fn sound(kind: &str) -> &'static str {
    kinds().get(kind).expect("a kind").example()
}

fn file(kind: &str, changed: &[(&str, &str)]) -> String {
    let mut text = format!("[models.base]\nsource = 'm'\n[nodes.n]\nkind = '{kind}'\n");
    for line in sound(kind).lines() {
        let key = line.split([' ', '.']).next();
        if !changed.iter().any(|(other, _)| Some(*other) == key) {
            text += &format!("{line}\n");
        }
    }
    changed.iter().for_each(|(key, value)| text += &format!("{key} = {value}\n"));
    text
}

/// What is wrong with keys, types and ranges of `text`.
fn mistakes(text: &str) -> Vec<String> {
    let read = Graph::read(text, "p", Path::new(""), &kinds());
    let all = read.err().map(|rejected| rejected.mistakes).unwrap_or_default();
    let reported = all.into_iter().map(|mistake| mistake.message);
    reported.filter(|message| !BEYOND.iter().any(|beyond| message.contains(beyond))).collect()
}

fn accepts(compiled: &(Schemas, boon::SchemaIndex), text: &str) -> bool {
    let value: toml::Table = text.parse().unwrap();
    compiled.0.validate(&serde_json::to_value(value).unwrap(), compiled.1).is_ok()
}

fn compiled() -> (Schemas, boon::SchemaIndex) {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("schema.json", schema(&kinds())).unwrap();
    let index = compiler.compile("schema.json", &mut schemas).unwrap();
    (schemas, index)
}

#[test]
fn the_committed_schema_is_what_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(COMMITTED);
    let committed: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(committed == schema(&kinds()), "run `stic schema > {COMMITTED}`");
}

#[test]
fn shipped_pipelines_name_the_schema_and_are_accepted() {
    let compiled = compiled();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("#:schema schema.json\n"), "{}", path.display());
            assert!(accepts(&compiled, &text), "{}", path.display());
        }
    }
}

#[test]
fn the_schema_accepts_exactly_what_is_read() {
    let (compiled, kinds) = (compiled(), kinds());
    let mut wrong = Vec::new();
    let mut compare = |text: String| {
        let (accepted, found) = (accepts(&compiled, &text), mistakes(&text));
        if accepted != found.is_empty() {
            wrong.push(format!(
                "{} by the schema, but {found:?}:\n{text}",
                if accepted { "accepted" } else { "refused" }
            ));
        }
    };
    for kind in kinds.all() {
        let example = file(kind.name(), &[]);
        assert_eq!(mistakes(&example), Vec::<String>::new(), "the example of `{}`:\n{example}", kind.name());
        compare(example);
        let mut keys: Vec<&str> = kind.declared().iter().map(|declaration| declaration.name).collect();
        keys.extend(["seed", "retries", "freeze", "inputs", "unknown"]);
        for key in keys {
            VALUES.iter().for_each(|value| compare(file(kind.name(), &[(key, value)])));
        }
    }
    for (table, keys) in [
        ("pipeline", vec!["name", "language", "seed", "show", "x"]),
        ("device", vec!["backend", "dtype", "accept_numerics", "x"]),
    ] {
        for key in keys {
            let more = ["'cuda:1'", "'cpu'", "'auto'", "'f16'", "['cuda-bf16']", "['cuda']", "'cuda:x'"];
            for value in VALUES.iter().chain(&more) {
                compare(format!("{}[{table}]\n{key} = {value}\n", file("sample", &[])));
            }
        }
    }
    let images = "[nodes.more]\nkind = 'sample'\nfrom = 'y'\n";
    for (fine, text) in [
        (true, "[defaults.sample]\nfrom = 'x'\ncount = 3\n[nodes.n]\nkind = 'sample'\n".to_owned()),
        (true, format!("{images}matrix = {{ count = [1, 2], where.image = [true], exclude = [{{ count = 1 }}] }}\n")),
        (true, format!("pipeline.matrix = {{ seed = [1, 2], more.count = [1, 2] }}\n{images}")),
        (false, format!("[defaults.sample]\ncuont = 3\n{images}")),
        (false, format!("[defaults.smple]\ncount = 3\n{images}")),
        (false, format!("[defaults.sample]\nmatrix.count = [3]\n{images}")),
        (false, format!("{images}matrix = {{ count = [1], exclude = 3 }}\n")),
        (false, format!("include = 'x'\n{images}")),
        (false, "[pipeline]\nname = 'x'\n".to_owned()),
    ] {
        compare(text.clone());
        assert_eq!(accepts(&self::compiled(), &text), fine, "{text}");
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(12)].join("\n"));
}

proptest::proptest! {
    #[test]
    fn several_values_at_once_are_accepted_as_they_are_read(
        kind in 0..kinds().names().len(), picks in proptest::collection::vec((0..64usize, 0..VALUES.len()), 1..4)
    ) {
        let kind = kinds().all()[kind].clone();
        let declared = kind.declared();
        let mut changed: Vec<(&str, &str)> =
            picks.iter().map(|(key, value)| (declared[key % declared.len()].name, VALUES[*value])).collect();
        changed.sort_unstable();
        changed.dedup_by_key(|(key, _)| *key);
        let text = file(kind.name(), &changed);
        let found = mistakes(&text);
        proptest::prop_assert_eq!(accepts(&compiled(), &text), found.is_empty(), "{:?}\n{}", found, text);
    }
}
