//! The order of nodes, and the rings that have none.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use petgraph::Direction::{Incoming, Outgoing};
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

/// An order in which every node comes after those `above` it, smaller numbers first where there is a choice.
///
/// # Errors
/// When there is none: one shortest ring of each group of nodes that wait for each other, each node before the one that
/// takes it.
pub(super) fn order(above: &[Vec<usize>]) -> Result<Vec<usize>, Vec<Vec<usize>>> {
    let mut graph = DiGraph::<(), (), usize>::with_capacity(above.len(), above.iter().map(Vec::len).sum());
    let nodes: Vec<NodeIndex<usize>> = above.iter().map(|_| graph.add_node(())).collect();
    for (below, above) in above.iter().enumerate() {
        for above in above {
            graph.add_edge(nodes[*above], nodes[below], ());
        }
    }

    let mut missing: Vec<usize> = nodes.iter().map(|node| graph.neighbors_directed(*node, Incoming).count()).collect();
    let mut ready: BinaryHeap<Reverse<usize>> = (0..nodes.len()).filter(|n| missing[*n] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(next)) = ready.pop() {
        order.push(next);
        for below in graph.neighbors_directed(nodes[next], Outgoing) {
            missing[below.index()] -= 1;
            if missing[below.index()] == 0 {
                ready.push(Reverse(below.index()));
            }
        }
    }
    if order.len() == nodes.len() {
        return Ok(order);
    }

    let mut rings: Vec<Vec<usize>> = tarjan_scc(&graph)
        .into_iter()
        .map(|group| group.into_iter().map(NodeIndex::index).collect::<Vec<_>>())
        .filter(|group| group.len() > 1 || above[group[0]].contains(&group[0]))
        .filter_map(|group| ring(&group, &graph))
        .collect();
    rings.sort();
    Err(rings)
}

/// A shortest ring through the smallest node of `group`.
fn ring(group: &[usize], graph: &DiGraph<(), (), usize>) -> Option<Vec<usize>> {
    let start = *group.iter().min()?;
    let mut came_from: Vec<Option<usize>> = vec![None; graph.node_count()];
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for below in graph.neighbors_directed(NodeIndex::new(node), Outgoing).map(NodeIndex::index) {
            if below == start {
                let mut ring = vec![node];
                while let Some(before) = came_from[*ring.last()?].filter(|_| ring.last() != Some(&start)) {
                    ring.push(before);
                }
                ring.reverse();
                return Some(ring);
            }
            if came_from[below].is_none() {
                came_from[below] = Some(node);
                queue.push_back(below);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_after_what_they_take_and_otherwise_in_their_own_order() {
        assert_eq!(order(&[vec![], vec![3], vec![], vec![]]), Ok(vec![0, 2, 3, 1]));
        assert_eq!(order(&[vec![1], vec![2, 2], vec![]]), Ok(vec![2, 1, 0]));
        assert_eq!(order(&[]), Ok(vec![]));
    }

    #[test]
    fn every_group_of_waiting_nodes_gives_one_ring() {
        assert_eq!(order(&[vec![0]]), Err(vec![vec![0]]));
        assert_eq!(
            order(&[vec![2], vec![0], vec![1], vec![4], vec![3], vec![4]]),
            Err(vec![vec![0, 1, 2], vec![3, 4]])
        );
    }

    #[test]
    fn a_ring_is_a_shortest_one() {
        // 0 → 1 → 2 → 3 → 0 and 1 → 0.
        assert_eq!(order(&[vec![3, 1], vec![0], vec![1], vec![2]]), Err(vec![vec![0, 1]]));
    }

    #[test]
    fn a_hundred_thousand_nodes_in_a_row_are_ordered() {
        let above: Vec<Vec<usize>> =
            (0..100_000).map(|node: usize| node.checked_sub(1).into_iter().collect()).collect();
        assert_eq!(order(&above), Ok((0..100_000).collect()));
    }
}
