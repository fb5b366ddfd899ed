//! A graph as text for drawing programs, colored by what would run. Whoever calls knows the states.

use std::fmt::Write;

use super::Graph;
use crate::event::State;

const STATES: [(State, &str, &str, &str); 3] = [
    (State::Hit, "hit", "#c8e6c9", "#2e7d32"),
    (State::Run, "run", "#ffe0b2", "#e65100"),
    (State::Awaits, "awaits", "#eceff1", "#546e7a"),
];

/// The graph as a Mermaid flow chart. `states` is by node, and may be empty.
pub fn mermaid(graph: &Graph, states: &[State]) -> String {
    let mut text = String::from("flowchart TD\n");
    for (index, node) in graph.nodes.iter().enumerate() {
        let (open, close) = if node.imported { ("[/\"", "\"/]") } else { ("[\"", "\"]") };
        let class = states.get(index).map_or(String::new(), |state| format!(":::{}", style(*state).1));
        // Values in the names of instances may be quoted.
        let name = node.name.replace('"', "#quot;");
        let _ = writeln!(text, "  n{index}{open}{name}<br/><small>{}</small>{close}{class}", node.kind);
    }
    for (index, above, port) in edges(graph) {
        let _ = writeln!(text, "  n{above} -->|{port}| n{index}");
    }
    if !states.is_empty() {
        for (_, name, fill, line) in STATES {
            let _ = writeln!(text, "  classDef {name} fill:{fill},stroke:{line}");
        }
    }
    text
}

/// The graph in Graphviz's language. `states` is by node, and may be empty.
pub fn dot(graph: &Graph, states: &[State]) -> String {
    let mut text = format!("digraph {} {{\n  node [shape=box, style=filled, fillcolor=white];\n", quoted(&graph.name));
    for (index, node) in graph.nodes.iter().enumerate() {
        let shape = if node.imported { ", shape=note" } else { "" };
        let color = states.get(index).map_or(String::new(), |state| {
            let (_, _, fill, line) = style(*state);
            format!(", fillcolor=\"{fill}\", color=\"{line}\"")
        });
        let name = quoted(&node.name);
        let _ = writeln!(text, "  {name} [label={}{shape}{color}];", quoted(&format!("{}\n{}", node.name, node.kind)));
    }
    for (index, above, port) in edges(graph) {
        let (from, to) = (quoted(&graph.nodes[above].name), quoted(&graph.nodes[index].name));
        let _ = writeln!(text, "  {from} -> {to} [label={}];", quoted(port));
    }
    text.push_str("}\n");
    text
}

fn style(state: State) -> (State, &'static str, &'static str, &'static str) {
    STATES.into_iter().find(|(known, ..)| *known == state).unwrap_or(STATES[0])
}

fn edges(graph: &Graph) -> impl Iterator<Item = (usize, usize, &'static str)> {
    graph.nodes.iter().enumerate().flat_map(|(index, node)| {
        let by_port = node.ports.iter().zip(&node.inputs);
        by_port.flat_map(move |(port, above)| above.iter().map(move |above| (index, *above, port.name)))
    })
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
