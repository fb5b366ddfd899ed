//! `stic`: the kinds of node, wired to the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    stic::cli::main(std::env::args_os(), &stic::nodes::kinds())
}
