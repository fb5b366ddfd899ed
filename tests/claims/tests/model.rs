//! Every way in which a few processes' steps can interleave is gone through; then once more without each precaution,
//! which has to be noticed.

use claims::{Fault, Job, Object, Which, World};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

fn world(jobs: &[Job]) -> World {
    World { jobs: jobs.to_vec(), result: None, left: vec![], suspicions: 2, kills: 1, damages: 0, fault: None }
}

/// Three make a result, and one goes on from what an earlier process left.
fn making() -> World {
    World { left: vec![Which::Ordinary], kills: 0, ..world(&[Job::Make; 3]) }
}

/// Two make again what was damaged, and may be killed.
fn making_again() -> World {
    World { result: Some(Object::Damaged), left: vec![Which::Ordinary], ..world(&[Job::Make; 2]) }
}

/// Two make anew by force what is there, and a third sweeps.
fn forcing() -> World {
    let left = vec![Which::Ordinary, Which::Forced];
    World { result: Some(Object::Good), left, kills: 0, ..world(&[Job::Force, Job::Force, Job::Sweep]) }
}

/// How many states there are, and what fails of what must hold always, or is never reached of what must be.
fn check(world: World) -> (usize, Vec<&'static str>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let faulty = world.fault.is_some();
    let until = if faulty { HasDiscoveries::AnyFailures } else { HasDiscoveries::All };
    let checker = world.checker().threads(threads).finish_when(until).spawn_bfs().join();
    let properties = checker.model().properties().into_iter();
    let failed = properties.filter(|property| {
        let found = checker.discovery(property.name);
        match property.expectation {
            Expectation::Sometimes => found.is_none() && !faulty,
            _ => {
                if let Some(path) = &found
                    && !faulty
                {
                    println!("{}:\n{:?}", property.name, path.clone().into_actions());
                }
                found.is_some()
            }
        }
    });
    (checker.unique_state_count(), failed.map(|property| property.name).collect())
}

#[test]
fn whatever_the_order_nothing_is_lost_and_no_two_hold_a_key() {
    let worlds = [
        ("three make a result", making()),
        ("two make a result, and may be killed", World { left: vec![Which::Ordinary], ..world(&[Job::Make; 2]) }),
        ("two make a result, and lose it twice", World { suspicions: 4, kills: 0, ..world(&[Job::Make; 2]) }),
        ("two make again what was damaged", making_again()),
        ("and it is damaged once more", World { damages: 1, kills: 0, ..making_again() }),
        ("two make anew by force, and a third sweeps", forcing()),
        ("one forces, one makes, and may be killed", World { kills: 1, ..of_forcing(&[Job::Force, Job::Make]) }),
    ];
    let mut total = 0;
    for (about, world) in worlds {
        let (states, failed) = check(world);
        println!("{states:>9} states: {about}");
        assert!(failed.is_empty(), "{about}: {failed:?}");
        total += states;
    }
    println!("{total:>9} states in all");
}

fn of_forcing(jobs: &[Job]) -> World {
    World { jobs: jobs.to_vec(), ..forcing() }
}

#[test]
fn each_precaution_that_is_left_out_is_noticed() {
    for (fault, world) in [
        (Fault::NoSecondLook, making()),
        (Fault::PublishUnseen, forcing()),
        (Fault::StagedStays, forcing()),
        (Fault::StagedBeforeClaim, forcing()),
        (Fault::ScratchKeepsName, making()),
        (Fault::AnyRecordSweeps, making_again()),
        (Fault::DiscardByName, making_again()),
    ] {
        let (states, failed) = check(World { fault: Some(fault), ..world });
        println!("{fault:?}: {failed:?} does not hold, found among {states} states");
        assert!(!failed.is_empty(), "{fault:?} goes unnoticed");
    }
}
