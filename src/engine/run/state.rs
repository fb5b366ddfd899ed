//! The states of a run's nodes, and the one function that changes them. It does no input or output, so that a test can
//! walk through every state that small graphs can reach.
//!
//! A node waits until all results that it reads are available; when the last one arrives it must be
//! looked up. Objects of a result may turn out to be lost long after it was found: whoever made it starts over, and
//! those below that have not begun wait again. One that is being looked up meanwhile is looked up again, since what it
//! was looked up with is gone; one that is running continues, since it has read its inputs.

use std::collections::{BTreeSet, VecDeque};

use crate::event::State;

/// The state of a node in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not all of its inputs are available.
    Waiting,
    /// Its inputs are available; it must be looked up.
    Undecided,
    /// It is being looked up. `outdated`: an input was lost meanwhile, so the outcome does not count.
    Deciding {
        /// Whether an input was lost meanwhile.
        outdated: bool,
    },
    /// Its result is not in the cache: it is to run.
    Ready,
    /// It runs.
    Running,
    /// Its result is cached.
    Done(State),
    /// It failed.
    Failed,
    /// It is not reached in this run.
    Skipped,
}

impl Phase {
    /// Whether nothing more happens to the node unless an object is lost.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done(_) | Self::Failed | Self::Skipped)
    }
}

/// What happens to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It is being looked up.
    Given,
    /// What it was looked up with is gone.
    Outdated,
    /// It was looked up and is not in the cache.
    Missing,
    /// It was looked up, or waited for, and is in the cache.
    Found,
    /// A worker took it.
    Taken,
    /// Its result was made.
    Made,
    /// Its worker could not begin, or go on, since objects that it reads are lost; the results of these nodes have
    /// them.
    Lost(BTreeSet<usize>),
    /// It failed.
    Fail,
    /// The run ends without it.
    Stop,
}

/// For every node, some others, each once and in order. Two numbers a node and one an edge, so that large graphs fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Edges {
    /// Where the others of each node end in `others`.
    ends: Vec<usize>,
    others: Vec<usize>,
}

impl Edges {
    fn new(all: impl IntoIterator<Item = Vec<usize>>) -> Self {
        let mut edges = Self::default();
        for mut others in all {
            others.sort_unstable();
            others.dedup();
            edges.others.extend(others);
            edges.ends.push(edges.others.len());
        }
        edges
    }

    /// The edges from `wanted` nodes in the other direction.
    fn reversed(&self, wanted: &[usize]) -> Self {
        let mut ends = vec![0; self.ends.len()];
        wanted.iter().flat_map(|index| self.of(*index)).for_each(|other| ends[*other] += 1);
        let mut sum = 0;
        // Each begins where those before it end; it reaches its own end as it is filled.
        for end in &mut ends {
            sum += std::mem::replace(end, sum);
        }
        let mut others = vec![0; sum];
        for index in wanted {
            for other in self.of(*index) {
                others[ends[*other]] = *index;
                ends[*other] += 1;
            }
        }
        Self { ends, others }
    }

    fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[index]
    }

    fn of(&self, index: usize) -> &[usize] {
        &self.others[self.range(index)]
    }
}

/// The states of all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Board {
    above: Edges,
    below: Edges,
    /// By node; `None` for those that are not wanted.
    states: Vec<Option<Phase>>,
    /// By node: how many of its inputs are not there.
    missing: Vec<usize>,
    undecided: BTreeSet<usize>,
}

impl Board {
    /// The board of a graph, given by the nodes above each, before anything has happened. What is wanted needs to be
    /// closed: everything above a wanted node is wanted.
    pub fn new(above: impl IntoIterator<Item = Vec<usize>>, wanted: impl IntoIterator<Item = usize>) -> Self {
        let (above, mut wanted) = (Edges::new(above), wanted.into_iter().collect::<Vec<_>>());
        wanted.sort_unstable();
        let count = above.ends.len();
        let mut board = Self {
            below: above.reversed(&wanted),
            states: vec![None; count],
            missing: (0..count).map(|index| above.of(index).len()).collect(),
            undecided: BTreeSet::new(),
            above,
        };
        for index in wanted {
            board.put(index, if board.missing[index] == 0 { Phase::Undecided } else { Phase::Waiting });
        }
        board
    }

    /// Where `index` is.
    ///
    /// # Panics
    /// When the node is not wanted.
    pub fn state(&self, index: usize) -> Phase {
        self.states[index].expect("only wanted nodes are looked at")
    }

    /// The nodes that must be looked up.
    pub fn undecided(&self) -> &BTreeSet<usize> {
        &self.undecided
    }

    /// The nodes that `index` reads, in order.
    pub fn above(&self, index: usize) -> &[usize] {
        self.above.of(index)
    }

    /// All nodes above `index`, each once, the nearest first.
    pub fn ancestors(&self, index: usize) -> Vec<usize> {
        let mut seen = vec![false; self.states.len()];
        let mut waiting: VecDeque<usize> = self.above.of(index).iter().copied().collect();
        let mut found = Vec::new();
        while let Some(next) = waiting.pop_front() {
            if !std::mem::replace(&mut seen[next], true) {
                found.push(next);
                waiting.extend(self.above.of(next));
            }
        }
        found
    }

    /// Applies `signal` to `index`. Returns the nodes that will not be reached because of it.
    ///
    /// # Panics
    /// When that cannot happen to a node in this state: the scheduler is wrong then.
    pub fn apply(&mut self, index: usize, signal: Signal) -> Vec<usize> {
        use Phase::{Deciding, Failed, Ready, Running, Skipped, Undecided};
        match (self.state(index), signal) {
            (Undecided, Signal::Given) => self.put(index, Deciding { outdated: false }),
            (Deciding { outdated: true }, Signal::Outdated) => return self.settle(index),
            (Deciding { outdated: false }, Signal::Missing) => self.put(index, Ready),
            (Deciding { outdated: false } | Running, Signal::Found) => self.done(index, State::Hit),
            (Ready, Signal::Taken) => self.put(index, Running),
            (Running, Signal::Made) => self.done(index, State::Run),
            (Running, Signal::Lost(makers)) => {
                makers.iter().for_each(|maker| self.lose(*maker));
                // In the order of the graph: one that cannot start over takes those below it along.
                let mut skipped: Vec<usize> = makers.into_iter().flat_map(|maker| self.settle(maker)).collect();
                skipped.extend(self.settle(index));
                return skipped;
            }
            (Deciding { outdated: false } | Running, Signal::Fail) => {
                self.put(index, Failed);
                return self.skip_below(index);
            }
            (state, Signal::Stop) if !state.is_final() => self.put(index, Skipped),
            (state, signal) => unreachable!("{signal:?} cannot happen to a node that is {state:?}"),
        }
        Vec::new()
    }

    /// The result of `index` is available: nodes below wait for one less.
    fn done(&mut self, index: usize, how: State) {
        self.put(index, Phase::Done(how));
        for place in self.below.range(index) {
            let below = self.below.others[place];
            self.missing[below] -= 1;
            if self.state(below) == Phase::Waiting && self.missing[below] == 0 {
                self.put(below, Phase::Undecided);
            }
        }
    }

    /// The result of `maker` is lost: what has not begun below it waits again.
    fn lose(&mut self, maker: usize) {
        let Phase::Done(_) = self.state(maker) else { unreachable!("only a result that is there can be lost") };
        self.put(maker, Phase::Waiting);
        for place in self.below.range(maker) {
            let below = self.below.others[place];
            self.missing[below] += 1;
            match self.state(below) {
                Phase::Undecided | Phase::Ready => self.put(below, Phase::Waiting),
                Phase::Deciding { .. } => self.put(below, Phase::Deciding { outdated: true }),
                _ => {}
            }
        }
    }

    /// Where `index` goes when it starts over.
    fn settle(&mut self, index: usize) -> Vec<usize> {
        if self.state(index) == Phase::Skipped {
            return Vec::new();
        }
        let unreachable = |above: &usize| matches!(self.state(*above), Phase::Failed | Phase::Skipped);
        if self.above.of(index).iter().any(unreachable) {
            self.put(index, Phase::Skipped);
            let mut skipped = self.skip_below(index);
            skipped.push(index);
            return skipped;
        }
        self.put(index, if self.missing[index] == 0 { Phase::Undecided } else { Phase::Waiting });
        Vec::new()
    }

    /// Skips what waits for `index`, which will never be there. What is being looked up or runs shows for itself.
    fn skip_below(&mut self, index: usize) -> Vec<usize> {
        let mut skipped = Vec::new();
        let mut unreachable: Vec<usize> = self.below.of(index).to_vec();
        while let Some(below) = unreachable.pop() {
            if self.state(below) == Phase::Waiting {
                self.put(below, Phase::Skipped);
                skipped.push(below);
                unreachable.extend(self.below.of(below));
            }
        }
        skipped
    }

    fn put(&mut self, index: usize, state: Phase) {
        if self.states[index].replace(state) == Some(Phase::Undecided) {
            self.undecided.remove(&index);
        }
        if state == Phase::Undecided {
            self.undecided.insert(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Every graph of `count` nodes, each reading some of those before it.
    fn graphs(count: usize) -> Vec<Vec<Vec<usize>>> {
        let mut graphs: Vec<Vec<Vec<usize>>> = vec![Vec::new()];
        for index in 0..count {
            let with = |graph: &Vec<Vec<usize>>, bits: usize| {
                let above = (0..index).filter(|above| bits >> above & 1 == 1).collect();
                graph.iter().cloned().chain([above]).collect()
            };
            graphs = graphs.iter().flat_map(|graph| (0..1 << index).map(move |bits| with(graph, bits))).collect();
        }
        graphs
    }

    /// The nodes in a state.
    fn those(board: &Board, wanted: impl Fn(Phase) -> bool) -> Vec<usize> {
        (0..board.states.len()).filter(|index| wanted(board.state(*index))).collect()
    }

    /// Every set that some of `nodes` make.
    fn subsets(nodes: &[usize]) -> impl Iterator<Item = BTreeSet<usize>> + '_ {
        (0..1usize << nodes.len()).map(|bits| {
            nodes.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1).map(|(_, node)| *node).collect()
        })
    }

    /// All that can happen next, with so many lookups and so many nodes at once.
    fn possible(board: &Board, jobs: usize) -> Vec<(usize, Signal)> {
        let deciding = those(board, |state| matches!(state, Phase::Deciding { .. }));
        let running = those(board, |state| state == Phase::Running);
        let mut possible = Vec::new();
        if deciding.len() < jobs {
            possible.extend(board.undecided().iter().map(|index| (*index, Signal::Given)));
        }
        if running.len() < jobs {
            possible
                .extend(those(board, |state| state == Phase::Ready).into_iter().map(|index| (index, Signal::Taken)));
        }
        for index in deciding {
            if board.state(index) == (Phase::Deciding { outdated: true }) {
                possible.push((index, Signal::Outdated));
            } else {
                possible.extend([Signal::Found, Signal::Missing, Signal::Fail].map(|signal| (index, signal)));
            }
        }
        for index in running {
            possible.extend([Signal::Made, Signal::Found, Signal::Fail].map(|signal| (index, signal)));
            let ancestors = board.ancestors(index);
            let there: Vec<usize> =
                ancestors.into_iter().filter(|above| matches!(board.state(*above), Phase::Done(_))).collect();
            possible.extend(subsets(&there).map(|makers| (index, Signal::Lost(makers))));
        }
        possible
    }

    /// What holds in every state, and that a run that cannot go on is at its end.
    fn check(board: &Board, next: &[(usize, Signal)]) {
        for index in 0..board.states.len() {
            let above = board.above(index);
            let there = above.iter().all(|above| matches!(board.state(*above), Phase::Done(_)));
            let state = board.state(index);
            assert_eq!(board.missing[index] == 0, there, "{board:?}");
            assert!(there || !matches!(state, Phase::Undecided | Phase::Ready), "given without inputs: {board:?}");
            assert!(there || state != (Phase::Deciding { outdated: false }), "looked up without inputs: {board:?}");
            assert!(!there || state != Phase::Waiting, "waits for nothing: {board:?}");
            assert_eq!(board.undecided.contains(&index), state == Phase::Undecided);
            let hopeless = above.iter().any(|above| matches!(board.state(*above), Phase::Failed | Phase::Skipped));
            assert!(!hopeless || state != Phase::Waiting, "waits for what will not come: {board:?}");
        }
        assert!(!next.is_empty() || (0..board.states.len()).all(|index| board.state(index).is_final()), "{board:?}");
    }

    /// Walks through all states that can be reached, and tells how many there are.
    fn walk(graph: &[Vec<usize>], jobs: usize) -> usize {
        let start = Board::new(graph.to_vec(), 0..graph.len());
        let (mut seen, mut waiting) = (HashSet::from([start.clone()]), vec![start]);
        while let Some(board) = waiting.pop() {
            let next = possible(&board, jobs);
            check(&board, &next);
            for (index, signal) in next {
                let mut after = board.clone();
                for skipped in after.apply(index, signal) {
                    assert_eq!(after.state(skipped), Phase::Skipped);
                }
                if seen.insert(after.clone()) {
                    waiting.push(after);
                }
            }
        }
        seen.len()
    }

    #[test]
    fn no_order_of_events_breaks_a_run_of_up_to_four_nodes_lost_objects_and_one_job_included() {
        let mut states = 0;
        for count in 1..=4 {
            for graph in graphs(count) {
                states += walk(&graph, 1) + walk(&graph, 2);
            }
        }
        assert!(states > 10_000, "{states}");
    }

    #[test]
    fn a_consumer_that_is_to_be_looked_up_waits_again_when_its_input_is_lost() {
        // 1 and 2 read 0; 1 has found an object of 0 lost while 2 has not been looked up.
        let mut board = Board::new([vec![], vec![0], vec![0]], 0..3);
        for (index, signal) in [(0, Signal::Given), (0, Signal::Found), (1, Signal::Given), (1, Signal::Missing)] {
            board.apply(index, signal);
        }
        board.apply(1, Signal::Taken);
        board.apply(1, Signal::Lost([0].into()));
        assert_eq!([0, 1, 2].map(|index| board.state(index)), [Phase::Undecided, Phase::Waiting, Phase::Waiting]);
    }

    #[test]
    fn ancestors_are_visited_once_however_many_ways_lead_to_them() {
        // Forty diamonds one below the other: 2^40 ways lead from the last to the first.
        let above = (0..=80).map(|index: usize| match index % 2 {
            _ if index == 0 => Vec::new(),
            _ if index < 3 => vec![index - 1],
            _ => vec![index - 1, index - 2, index - 3],
        });
        let board = Board::new(above, 0..=80);
        assert_eq!(board.ancestors(80).len(), 80);
    }

    #[test]
    #[should_panic(expected = "cannot happen")]
    fn a_failed_node_stays_failed() {
        let mut board = Board::new([Vec::new()], [0]);
        board.apply(0, Signal::Given);
        board.apply(0, Signal::Fail);
        board.apply(0, Signal::Made);
    }
}
