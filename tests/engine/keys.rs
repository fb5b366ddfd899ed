//! Keys that must not change: people's caches depend on them.

use super::toys::Bench;

/// Change this only together with the name of the walk in `src/engine/plan/key.rs`: every cache is lost with it.
#[test]
fn the_key_of_a_node_is_what_it_was() {
    let bench = Bench::new();
    let text = r#"
        [pipeline]
        seed = 7
        [nodes.source]
        kind = "words"
        words = ["a", "b"]
        draws = true
        [nodes.described]
        kind = "compute"
        inputs.rows = "source"
        suffix = "!"
        keep = 1
    "#;
    bench.run(text);
    let keys: Vec<String> = bench.plan(text).iter().map(|node| node.key.unwrap().to_string()).collect();
    let record = bench.store().last("toy", "described").unwrap().unwrap();
    let expected = [
        "437b8ed3b8ca3cf10b613ef2a8c5ddc8e83f53e682575271f1c07da778e0d35d",
        "68dcd51000c66ecd020e45e4b84e995608dac6f1d6d53be2b79649cda6241731",
    ];
    assert_eq!(keys, expected);
    assert_eq!(
        record.function_key.unwrap().to_string(),
        "d9c9fbd80c53aac024bd33a8a444997e65f0f356814fb096ca54bacc0402470a"
    );
    assert_eq!(record.content.to_string(), "70e391a88f52404e75b31561a3db24680b380358e0d95b40375a4e1d84ff84da");
    let fields: Vec<String> = record.fields.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    assert_eq!(
        fields,
        [
            "kind = \"compute\"",
            "kind version = 1",
            "keep = 1",
            "suffix = \"!\"",
            "inputs.rows = [e53880675ffc]",
            "numerics class = \"cpu-f32\""
        ]
    );
}

#[test]
fn names_seeds_that_are_not_used_and_parameters_of_execution_are_no_part_of_a_key() {
    let bench = Bench::new();
    let text = "[nodes.source]\nkind = \"words\"\nwords = [\"a\"]\n";
    let key = |text: &str| bench.plan(text)[0].key.unwrap();
    let first = key(text);
    assert_eq!(first, key(&text.replace("source", "other")));
    assert_eq!(first, key(&format!("[pipeline]\nseed = 3\nname = \"x\"\n{text}")));
    assert_eq!(first, key(&format!("{text}pause = 5\nseed = 4\nretries = 3\n")));
    assert_ne!(key(&format!("{text}draws = true\n")), key(&format!("{text}draws = true\nseed = 4\n")));
    assert_ne!(first, key(&format!("{text}keep = 1\n")));
}
