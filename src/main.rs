//! `stic`: the kinds of node, wired to the command line.

fn main() {}
