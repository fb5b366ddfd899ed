//! Axes → instances: which values of which axes each instance of a node has, and which instances of other nodes it takes.
//!
//! An instance has the values of its node's own axes and those of all that it takes: the same where these have an axis in
//! common, every combination otherwise. The axis of the pipeline's seed is one of the nodes whose results depend on that
//! seed, and of what takes them. This module knows nodes by number alone.

use std::collections::{BTreeSet, HashMap};

use crate::spec::matrix::{Axis, MOST_INSTANCES, Point};

/// The value of an axis, as an instance has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AxisValue {
    /// The axis, by the shortest name that only it has among those of the node: `beta`.
    pub axis: String,
    /// The same in full: `stage1.beta`.
    pub full: String,
    /// The value in its shortest form.
    pub value: String,
    /// Whether it is a seed.
    pub is_seed: bool,
}

/// An instance on its way into a graph: its values, and what it takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Instance {
    /// The values of its axes.
    pub point: Point,
    /// What comes in, one for each source, as numbers of instances.
    pub above: Vec<usize>,
}

/// An instance that has its number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    /// The values of its axes.
    pub point: Point,
    /// Its number.
    pub number: usize,
}

/// The instances of a node with the values `own` that takes one of each of `sources`. `None` when there are more than
/// [`MOST_INSTANCES`].
pub(super) fn joined(own: &Point, sources: &[&[Placed]]) -> Option<Vec<Instance>> {
    let mut found = vec![Instance { point: own.clone(), above: Vec::with_capacity(sources.len()) }];
    for source in sources {
        found = join(found, source)?;
    }
    Some(found)
}

fn join(instances: Vec<Instance>, source: &[Placed]) -> Option<Vec<Instance>> {
    let mut groups: HashMap<Vec<usize>, Vec<&Placed>> = HashMap::new();
    for placed in source {
        groups.entry(placed.point.iter().map(|(axis, _)| *axis).collect()).or_default().push(placed);
    }
    // By the axes in common, the instances of the source that have the same values there.
    type Alike<'a> = HashMap<Point, Vec<&'a Placed>>;
    let mut alike: HashMap<(&[usize], Vec<usize>), Alike<'_>> = HashMap::new();
    let mut found = Vec::new();
    for Instance { point, above } in instances {
        for (axes, placed) in &groups {
            let common = |point: &Point| -> Point {
                point.iter().filter(|(axis, _)| axes.binary_search(axis).is_ok()).copied().collect()
            };
            let wanted = common(&point);
            let in_common: Vec<usize> = wanted.iter().map(|(axis, _)| *axis).collect();
            let alike = alike.entry((axes, in_common.clone())).or_insert_with(|| {
                let mut alike = Alike::new();
                for placed in placed {
                    let values = placed.point.iter().filter(|(axis, _)| in_common.contains(axis)).copied().collect();
                    alike.entry(values).or_default().push(placed);
                }
                alike
            });
            for placed in alike.get(&wanted).into_iter().flatten() {
                let mut point: BTreeSet<(usize, usize)> = point.iter().copied().collect();
                point.extend(&placed.point);
                let above = above.iter().copied().chain([placed.number]).collect();
                found.push(Instance { point: point.into_iter().collect(), above });
                if found.len() > MOST_INSTANCES {
                    return None;
                }
            }
        }
    }
    Some(found)
}

/// The same instances, each with every value of `axis` that has none yet.
pub(super) fn with_axis(instances: Vec<Instance>, axis: usize, values: usize) -> Option<Vec<Instance>> {
    let mut found = Vec::new();
    for instance in instances {
        if instance.point.iter().any(|(known, _)| *known == axis) {
            found.push(instance);
        } else {
            for value in 0..values {
                let mut instance = instance.clone();
                instance.point.push((axis, value));
                instance.point.sort_unstable();
                found.push(instance);
            }
        }
        if found.len() > MOST_INSTANCES {
            return None;
        }
    }
    Some(found)
}

/// Whether `point` has all values of `other`.
pub(super) fn has(point: &Point, other: &Point) -> bool {
    other.iter().all(|value| point.binary_search(value).is_ok())
}

/// The shortest names that distinguish these `axes` of `all`.
pub(super) fn labels(axes: &BTreeSet<usize>, all: &[Axis]) -> HashMap<usize, String> {
    fn last(name: &str) -> &str {
        name.rsplit('.').next().unwrap_or(name)
    }
    let only = |name: &dyn Fn(&Axis) -> String, axis: usize| {
        let own = name(&all[axis]);
        axes.iter().filter(|other| name(&all[**other]) == own).count() == 1
    };
    let label = |axis: usize| {
        if only(&|axis| last(&axis.parameter).to_owned(), axis) {
            last(&all[axis].parameter).to_owned()
        } else if only(&|axis| axis.parameter.clone(), axis) {
            all[axis].parameter.clone()
        } else {
            all[axis].full_name()
        }
    };
    axes.iter().map(|axis| (*axis, label(*axis))).collect()
}

/// The name of an instance of `node`: `stage1[beta=0.1,rank=8]`.
pub(super) fn name(node: &str, values: &[AxisValue]) -> String {
    if values.is_empty() {
        return node.to_owned();
    }
    let values: Vec<String> = values.iter().map(|AxisValue { axis, value, .. }| format!("{axis}={value}")).collect();
    format!("{node}[{}]", values.join(","))
}

/// What `written` names: a node, and values of axes that its instances are to have.
pub(super) fn selection(written: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let (node, values) = written.strip_suffix(']')?.split_once('[')?;
    let (mut parts, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0usize, false);
    for (at, c) in values.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&values[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&values[start..]);
    let parts = parts.into_iter().map(|part| part.split_once('=').map(|(axis, value)| (axis.trim(), value.trim())));
    Some((node.trim(), parts.collect::<Option<_>>()?))
}

/// Whether an instance with `values` is one of those that have `wanted`.
pub(super) fn matches(values: &[AxisValue], wanted: &[(&str, &str)]) -> bool {
    let same = |value: &str, wanted: &str| {
        value == wanted || value.parse::<f64>().is_ok_and(|value| wanted.parse() == Ok(value))
    };
    wanted.iter().all(|(axis, wanted)| {
        let is_axis = |value: &AxisValue| {
            value.axis == *axis
                || value.full == *axis
                || value.full.strip_suffix(axis).is_some_and(|it| it.ends_with('.'))
        };
        values.iter().any(|value| is_axis(value) && same(&value.value, wanted))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn placed(points: Vec<Point>) -> Vec<Placed> {
        points.into_iter().enumerate().map(|(number, point)| Placed { point, number }).collect()
    }

    /// Every choice of one instance of each source in which no axis has two values.
    fn every_choice(own: &Point, sources: &[Vec<Placed>]) -> BTreeSet<(Point, Vec<usize>)> {
        let mut choices: Vec<Vec<&Placed>> = vec![Vec::new()];
        for source in sources {
            choices = choices
                .iter()
                .flat_map(|choice| source.iter().map(move |placed| choice.iter().copied().chain([placed]).collect()))
                .collect();
        }
        let mut found = BTreeSet::new();
        for choice in choices {
            let values: BTreeSet<(usize, usize)> =
                own.iter().copied().chain(choice.iter().flat_map(|placed| placed.point.iter().copied())).collect();
            let axes: BTreeSet<usize> = values.iter().map(|(axis, _)| *axis).collect();
            if axes.len() == values.len() {
                found.insert((values.into_iter().collect(), choice.iter().map(|placed| placed.number).collect()));
            }
        }
        found
    }

    fn point() -> impl Strategy<Value = Point> {
        proptest::collection::btree_map(0..4usize, 0..3usize, 0..4).prop_map(|point| point.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn joins_are_all_choices_in_which_no_axis_has_two_values(
            own in point(),
            sources in proptest::collection::vec(proptest::collection::btree_set(point(), 1..8), 0..4),
        ) {
            let sources: Vec<Vec<Placed>> = sources.into_iter().map(|points| placed(points.into_iter().collect())).collect();
            let views: Vec<&[Placed]> = sources.iter().map(Vec::as_slice).collect();
            let found = joined(&own, &views).unwrap();
            let set: BTreeSet<(Point, Vec<usize>)> = found.iter().map(|it| (it.point.clone(), it.above.clone())).collect();
            prop_assert_eq!(set.len(), found.len());
            prop_assert_eq!(set, every_choice(&own, &sources));
        }
    }

    #[test]
    fn too_many_instances_are_counted_before_they_are_made() {
        let one = |axis| placed((0..200).map(|value| vec![(axis, value)]).collect());
        let (a, b, c) = (one(0), one(1), one(2));
        assert!(joined(&Point::new(), &[&a, &b, &c]).is_none());
        assert_eq!(joined(&Point::new(), &[&a, &a, &a]).map(|found| found.len()), Some(200));
    }

    #[test]
    fn targets_select_by_some_values_in_any_form() {
        let value = |axis: &str, full: &str, value: &str| AxisValue {
            axis: axis.into(),
            full: full.into(),
            value: value.into(),
            is_seed: false,
        };
        let values = [value("beta", "stage1.beta", "0.1"), value("prompts", "a.prompts", "\"x, y\"")];
        let selects = |written: &str| {
            let (node, wanted) = selection(written).unwrap();
            assert_eq!(node, "n");
            matches(&values, &wanted)
        };
        assert!(
            ["n[beta=0.1]", "n[beta=0.10]", "n[beta=1e-1]", "n[stage1.beta=0.1]", "n[ prompts=\"x, y\" , beta=0.1]"]
                .into_iter()
                .all(selects)
        );
        assert!(!["n[beta=0.2]", "n[eta=0.1]", "n[rank=8]"].into_iter().any(selects));
        assert_eq!(selection("n"), None);
        assert_eq!(selection("n[beta]"), None);
    }
}
