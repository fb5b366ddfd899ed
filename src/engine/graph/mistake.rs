//! What can be wrong with how nodes are joined: the mistakes as data, and their prose in one place.

use crate::artifact::ArtifactKind;
use crate::diagnostic::{Diagnostic, Span, did_you_mean, listed, looks_like_path};
use crate::node::{Arity, Port};

/// A mistake in how nodes are joined.
#[derive(Clone, Debug)]
pub(super) enum Mistake {
    /// An unknown kind.
    UnknownKind {
        /// What is written.
        written: String,
        /// The kinds.
        known: Vec<&'static str>,
        /// Where.
        span: Span,
    },
    /// An input that the kind does not have.
    UnknownPort {
        /// What is written.
        written: String,
        /// The kind.
        kind: &'static str,
        /// The inputs that it has.
        ports: &'static [Port],
        /// Where.
        span: Span,
    },
    /// An input that must be there.
    MissingInput {
        /// The node.
        node: String,
        /// Its kind.
        kind: &'static str,
        /// The input.
        port: Port,
        /// Names of nodes that make what it takes.
        makers: Vec<String>,
        /// Kinds of node that make it.
        kinds: Vec<&'static str>,
        /// Where.
        span: Span,
    },
    /// Several where one is taken.
    TooMany {
        /// The input.
        port: &'static str,
        /// The kind.
        kind: &'static str,
        /// How many.
        count: usize,
        /// Where.
        span: Span,
    },
    /// An unknown node.
    UnknownNode {
        /// What is written.
        written: String,
        /// The nodes.
        known: Vec<String>,
        /// Where.
        span: Span,
    },
    /// A node that makes what the input does not take.
    WrongArtifact {
        /// The node that comes in.
        from: String,
        /// What it makes.
        makes: ArtifactKind,
        /// The input.
        port: Port,
        /// The kind that has the input.
        kind: &'static str,
        /// Names of nodes that make what it takes.
        makers: Vec<String>,
        /// Kinds of node that make it.
        kinds: Vec<&'static str>,
        /// Where.
        span: Span,
    },
    /// A file as an input, where nothing imports files.
    NoImports {
        /// Where.
        span: Span,
    },
    /// Nodes that depend on each other.
    Cycle {
        /// The ring, and where each node names the one before it.
        ring: Vec<(String, Span)>,
    },
}

impl Mistake {
    /// Whether it may be there only because a part of the file could not be read.
    pub(super) fn is_about_absence(&self) -> bool {
        matches!(self, Self::UnknownNode { .. } | Self::MissingInput { .. })
    }
}

fn artifacts(accepts: &[ArtifactKind]) -> String {
    accepts.iter().map(|kind| kind.name).collect::<Vec<_>>().join(" or ")
}

fn makers_help(port: &Port, makers: &[String], kinds: &[&str]) -> String {
    let takes = artifacts(port.accepts);
    if makers.is_empty() {
        let kinds = listed(kinds);
        let file = format!("`inputs.{} = {{ file = \"…\" }}`", port.name);
        format!("no node makes {takes}: add one of kind {kinds}, or import a file: {file}")
    } else {
        format!("nodes that make {takes}: {}", listed(makers))
    }
}

impl From<Mistake> for Diagnostic {
    fn from(mistake: Mistake) -> Self {
        match mistake {
            Mistake::UnknownKind { written, known, span } => Self::new(format!("unknown kind of node `{written}`"))
                .label(span, "no kind has this name")
                .help(did_you_mean(&written, "kinds", &known)),
            Mistake::UnknownPort { kind, ports: [], span, .. } => {
                Self::new(format!("`{kind}` takes no inputs")).label(span, "not an input").help("remove it".to_owned())
            }
            Mistake::UnknownPort { written, kind, ports, span } => {
                let names: Vec<&str> = ports.iter().map(|port| port.name).collect();
                Self::new(format!("`{kind}` has no input `{written}`"))
                    .label(span, "no input has this name")
                    .help(did_you_mean(&written, "inputs", &names))
            }
            Mistake::MissingInput { node, kind, port, makers, kinds, span } => {
                Self::new(format!("`inputs.{}` is missing in node `{node}`", port.name))
                    .label(span, format!("`{kind}` needs `inputs.{}`, {}", port.name, artifacts(port.accepts)))
                    .help(makers_help(&port, &makers, &kinds))
            }
            Mistake::TooMany { port, kind, count, span } => {
                Self::new(format!("`inputs.{port}` of `{kind}` takes one input"))
                    .label(span, format!("this is a list of {count}"))
                    .help("name one node or file".to_owned())
            }
            Mistake::UnknownNode { written, known, span } => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                let help = if looks_like_path(&written) {
                    Some(format!("a file is written `{{ file = \"{written}\" }}`"))
                } else if let Some(name) = written.strip_prefix("nodes.").filter(|name| known.contains(name)) {
                    Some(format!("a node is referred to without its table: `{name}`"))
                } else {
                    did_you_mean(&written, "nodes", &known)
                };
                Self::new(format!("unknown node `{written}`")).label(span, "no node has this name").help(help)
            }
            Mistake::WrongArtifact { from, makes, port, kind, makers, kinds, span } => {
                let takes = artifacts(port.accepts);
                Self::new(format!("`inputs.{}` of `{kind}` takes {takes}, but `{from}` makes {makes}", port.name))
                    .label(span, format!("makes {makes}"))
                    .help(makers_help(&port, &makers, &kinds))
            }
            Mistake::NoImports { span } => {
                Self::new("files are not imported here".to_owned()).label(span, "a file").help("name a node".to_owned())
            }
            Mistake::Cycle { ring } => {
                let mut names: Vec<&str> = ring.iter().map(|(name, _)| name.as_str()).collect();
                names.extend(ring.first().map(|(name, _)| name.as_str()));
                // Of a long ring its beginning and its end.
                const SHOWN: usize = 8;
                let reported = if names.len() > 2 * SHOWN {
                    let (first, last) = (&names[..SHOWN], &names[names.len() - SHOWN..]);
                    let more = names.len() - 2 * SHOWN;
                    format!("{} → … ({more} more) … → {}", first.join(" → "), last.join(" → "))
                } else {
                    names.join(" → ")
                };
                let mut diagnostic = Self::new(format!("dependency cycle: {reported}"));
                for (index, (name, span)) in ring.iter().enumerate().take(2 * SHOWN) {
                    let before = &ring[(index + ring.len() - 1) % ring.len()].0;
                    diagnostic = diagnostic.label(span.clone(), format!("`{name}` takes `{before}`"));
                }
                diagnostic.help("take one of these inputs from another node".to_owned())
            }
        }
    }
}

/// How many inputs a port takes, as a check.
pub(super) fn fits(arity: Arity, count: usize) -> bool {
    match arity {
        Arity::One | Arity::Optional => count <= 1,
        Arity::Many => true,
    }
}
