//! A model of how processes that share a cache work on one key: they claim it, take it over from owners that they
//! believe dead, work in a scratch, publish a record, discard a damaged object, and let go of the claim. Each step of
//! the model is one access to the file server; between any two, every other process may do any number of its own. So a
//! process that is suspended, for however long, is one whose next step comes late.
//!
//! No clock is modeled: whenever a process looks at another's claim it may take it for dead, whether it is or not.
//! That covers heartbeats that come late, clocks that are wrong by any amount, and a job that is suspended.
//!
//! Each step names the function of `src/engine/store` that it stands for. [`Fault`] leaves out one precaution at a
//! time.

use std::collections::BTreeMap;

use stateright::{Model, Property};

/// A claim that was ever made; its process works under this name.
pub type Token = u8;

/// What is shared: the directory `work/<key>`, the record and its object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// `claim.<number>`, by whom.
    claims: BTreeMap<u8, Token>,
    /// `publish-<token>`: records that are about to be published.
    staged: BTreeMap<Token, Record>,
    /// `scratch-<token>` and `forced-<token>`: unfinished work.
    scratch: BTreeMap<(Which, Token), Scratch>,
    /// `results/<key>.json`.
    record: Option<Record>,
    /// The object that the record names.
    object: Object,
}

/// Which scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// That of work whose result is missing.
    Ordinary,
    /// That of work that is forced.
    Forced,
}

/// A directory for unfinished work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scratch {
    /// Who works in it, by the one who last took it.
    of: Token,
    /// Whether there is anything in it.
    begun: bool,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Who made it: no two processes make the same.
    content: Token,
    generation: u8,
    /// The scratch that it was made in.
    scratch: (Which, Token),
}

/// An object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    Absent,
    Good,
    Damaged,
}

/// Why a process wants the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// To make the result unless it is there.
    Make,
    /// To make it anew whatever is there.
    Force,
    /// To sweep what is of no use (`Store::prepare`).
    Sweep,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    job: Job,
    at: At,
}

/// What a process holds in memory and what it does next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum At {
    /// `Store::claim`: about to list the claims.
    Begin,
    /// `Store::claim`: about to link `claim.<number>`.
    Link { number: u8 },
    /// `Store::settle_claim`: has linked, about to list the claims again.
    LookAgain { number: u8 },
    /// `Store::settle_claim`: about to read the first of the `dead` claims, and to remove it if it is the one meant.
    ReadDead { number: u8, dead: Vec<(u8, Token)> },
    /// `Store::settle_claim`: about to remove what it has just read.
    RemoveDead { number: u8, dead: Vec<(u8, Token)> },
    /// `Store::settle_claim`: about to list what is staged.
    ListStaged { number: u8 },
    /// `Store::settle_claim`: about to look whether the claim is still there.
    VerifyClean { number: u8, staged: Vec<Token> },
    /// `Store::settle_claim`: about to remove what was staged.
    RemoveStaged { number: u8, staged: Vec<Token> },
    /// Another holds the key: about to let go of the claim that was linked.
    StepBack { number: u8 },
    /// The key is claimed.
    Held { number: u8, doing: Doing },
    /// `Claim::drop`: about to read the claim.
    ReadOwn { number: u8 },
    /// `Claim::drop`: about to remove the claim that was just read.
    RemoveOwn { number: u8 },
    /// Nothing more to do.
    Done,
    /// Killed.
    Dead,
}

/// What the owner of a claim does next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Doing {
    /// `Execution::claim`: about to look whether the result was published meanwhile.
    Find,
    /// `Store::discard_object`: about to digest the object of an incomplete result.
    DigestObject,
    /// `Store::discard_object`: about to move it aside.
    MoveObject,
    /// `Store::discard_object`: about to digest what it moved, and to remove it or put it back.
    DigestMoved { moved: Object },
    /// `Store::sweep`: about to list the scratch and read the record.
    ListSweep,
    /// `Store::sweep`: about to look whether the claim is still there.
    VerifySweep { useless: Vec<(Which, Token)> },
    /// `Store::sweep`: about to remove what is of no use.
    Sweep { useless: Vec<(Which, Token)> },
    /// `Store::scratch`: about to list what was left.
    ListScratch,
    /// `Store::scratch`: about to look whether the claim is still there.
    VerifyScratch { left: Option<Token> },
    /// `Store::scratch`: about to take what was left, or to begin anew.
    TakeScratch { left: Option<Token> },
    /// `WholeWork::run`: about to write a checkpoint into the scratch.
    Checkpoint,
    /// `Store::put_object`.
    PutObject,
    /// `Execution::publish`: about to read the record that is there.
    ReadRecord,
    /// `Store::publish`: about to look whether what is there is complete.
    LookRecord { generation: u8 },
    /// `Claim::stage`.
    Stage { generation: u8, replace: bool },
    /// `Store::place`: about to look whether the claim is still there.
    VerifyPlace { generation: u8, replace: bool },
    /// `Store::place`: about to rename or link.
    Place { generation: u8, replace: bool },
    /// `Store::finish`: about to look whether the claim is still there.
    VerifyFinish,
    /// `Store::finish`: about to remove the scratch.
    Finish,
}

/// A precaution that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A claim is held once it is linked.
    NoSecondLook,
    /// The claim is not looked at between staging a record and giving it its place.
    PublishUnseen,
    /// Who takes over leaves what was staged.
    StagedStays,
    /// Who takes over removes what was staged before the old claim.
    StagedBeforeClaim,
    /// Who takes over works in the scratch under the name that it has.
    ScratchKeepsName,
    /// Scratch is swept once there is a record, whatever that was made in.
    AnyRecordSweeps,
    /// An object is removed by its name once it was seen to be damaged.
    DiscardByName,
}

/// What must never happen, and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// A complete record was replaced by one that did not know of it.
    RecordLost,
    /// Unfinished work was removed.
    WorkLost,
    /// A process wrote into a scratch that another works in.
    WroteIntoAnothers,
    /// An object that was not damaged was removed.
    ObjectLost,
}

/// The world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    server: Server,
    processes: Vec<Process>,
    /// The claim that each process last linked.
    tokens: Vec<Token>,
    next_token: Token,
    suspicions: u8,
    kills: u8,
    damages: u8,
    takeovers: u8,
    /// The record whose object is damaged or was: it may be replaced.
    stale: Option<Token>,
    published: bool,
    wrong: Option<Wrong>,
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A process takes its next step.
    Step(usize),
    /// A process takes its next step, and takes the claims that it sees for dead.
    Suspect(usize),
    /// A process is killed.
    Kill(usize),
    /// The object is damaged on the disk.
    Damage,
}

/// Where it begins, and how much may go wrong.
#[derive(Clone, Debug)]
pub struct World {
    /// What the processes want.
    pub jobs: Vec<Job>,
    /// Whether there is a result, and its object.
    pub result: Option<Object>,
    /// Which scratch an earlier process left unfinished.
    pub left: Vec<Which>,
    /// How often claims of living owners are taken for dead, at most. To take one over, a process has to do so twice.
    pub suspicions: u8,
    /// How many processes are killed, at most; another takes the place of each.
    pub kills: u8,
    /// How often the object is damaged, at most.
    pub damages: u8,
    /// The precaution that is left out.
    pub fault: Option<Fault>,
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        // An earlier process was number 0.
        let record = Record { content: 0, generation: 1, scratch: (Which::Ordinary, 200) };
        let left = |(index, which): (usize, &Which)| ((*which, 100 + index as u8), Scratch { of: 0, begun: true });
        vec![State {
            server: Server {
                claims: BTreeMap::new(),
                staged: BTreeMap::new(),
                scratch: self.left.iter().enumerate().map(left).collect(),
                record: self.result.map(|_| record),
                object: self.result.unwrap_or(Object::Absent),
            },
            processes: self.jobs.iter().map(|job| Process { job: *job, at: At::Begin }).collect(),
            tokens: vec![0; self.jobs.len()],
            next_token: 1,
            suspicions: 0,
            kills: 0,
            damages: 0,
            takeovers: 0,
            stale: self.result.filter(|object| *object != Object::Good).map(|_| 0),
            published: false,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        for (index, process) in state.processes.iter().enumerate() {
            if matches!(process.at, At::Done | At::Dead) {
                continue;
            }
            actions.push(Action::Step(index));
            let looks = matches!(process.at, At::Begin | At::LookAgain { .. });
            if looks && state.sees_living(index) && state.suspicions < self.suspicions {
                actions.push(Action::Suspect(index));
            }
            // Of processes that have not touched anything, it makes no difference.
            if state.kills < self.kills && !matches!(process.at, At::Begin | At::Link { .. }) {
                actions.push(Action::Kill(index));
            }
        }
        if state.damages < self.damages && state.server.object == Object::Good && state.server.record.is_some() {
            actions.push(Action::Damage);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Damage => {
                state.damages += 1;
                state.stale = state.server.record.as_ref().map(|record| record.content);
                state.server.object = Object::Damaged;
            }
            Action::Kill(index) => {
                state.kills += 1;
                let job = state.processes[index].job;
                // Its claim is known to be a dead one's; another process comes for the same.
                state.processes[index].at = At::Dead;
                state.processes.push(Process { job, at: At::Begin });
                state.tokens.push(0);
            }
            Action::Step(index) => self.step(&mut state, index, false),
            Action::Suspect(index) => {
                state.suspicions += 1;
                self.step(&mut state, index, true);
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no complete record, unfinished work or good object is lost", |_, state: &State| {
                state.wrong.is_none()
            }),
            Property::always("two claims that are still there are never both held", |_, state: &State| {
                let held = (0..state.processes.len()).filter(|index| state.is_held(*index));
                held.count() <= 1
            }),
            Property::always("once all is done, there is a complete result", |_, state: &State| {
                let done = state.processes.iter().all(|process| matches!(process.at, At::Done | At::Dead));
                let made = state.processes.iter().any(|process| process.job != Job::Sweep);
                let damaged = state.damages > 0;
                !done || !made || damaged || state.server.record.is_some() && state.server.object == Object::Good
            }),
            Property::sometimes("a result is published", |_, state: &State| state.published),
            Property::sometimes("a living owner's claim is taken over", |world: &World, state: &State| {
                world.suspicions == 0 || state.takeovers > 0
            }),
        ]
    }
}

impl State {
    /// Whether the process works on the key under a claim that is there.
    fn is_held(&self, index: usize) -> bool {
        let At::Held { number, .. } = &self.processes[index].at else { return false };
        self.server.claims.get(number) == Some(&self.tokens[index])
    }

    /// Whether the owner of `token` is known to be gone, by its process number.
    fn is_gone(&self, token: Token) -> bool {
        let owner = self.tokens.iter().position(|of| *of == token);
        owner.is_none_or(|owner| matches!(self.processes[owner].at, At::Dead))
    }

    /// Whether there are claims of other processes that live.
    fn sees_living(&self, index: usize) -> bool {
        let others = self.server.claims.values().filter(|token| **token != self.tokens[index]);
        others.into_iter().any(|token| !self.is_gone(*token))
    }

    fn is_complete(&self) -> bool {
        self.server.record.is_some() && self.server.object == Object::Good
    }
}

impl World {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Which scratch a job works in.
    fn which(&self, job: Job) -> Which {
        if job == Job::Force { Which::Forced } else { Which::Ordinary }
    }

    fn step(&self, state: &mut State, index: usize, suspect: bool) {
        let token = state.tokens[index];
        let job = state.processes[index].job;
        let next = match state.processes[index].at.clone() {
            At::Begin => {
                let living = state.server.claims.values().any(|of| !suspect && !state.is_gone(*of));
                if living {
                    // Waits, and looks again later.
                    At::Begin
                } else {
                    At::Link { number: state.server.claims.keys().max().unwrap_or(&0) + 1 }
                }
            }
            At::Link { number } if state.server.claims.contains_key(&number) => At::Begin,
            At::Link { number } => {
                let token = state.next_token;
                state.next_token += 1;
                state.tokens[index] = token;
                state.server.claims.insert(number, token);
                if self.has(Fault::NoSecondLook) { held(number) } else { At::LookAgain { number } }
            }
            At::LookAgain { number } => {
                let others: Vec<(u8, Token)> =
                    state.server.claims.iter().filter(|(_, of)| **of != token).map(|(at, of)| (*at, *of)).collect();
                if others.iter().any(|(_, of)| !suspect && !state.is_gone(*of)) {
                    At::StepBack { number }
                } else if state.server.claims.get(&number) != Some(&token) {
                    // Another took it for dead.
                    At::Begin
                } else if self.has(Fault::StagedBeforeClaim) {
                    let staged: Vec<Token> = state.server.staged.keys().copied().collect();
                    staged.iter().for_each(|of| drop(state.server.staged.remove(of)));
                    At::ReadDead { number, dead: others }
                } else {
                    At::ReadDead { number, dead: others }
                }
            }
            At::ReadDead { number, mut dead } => match dead.first() {
                None if self.has(Fault::StagedStays) || self.has(Fault::StagedBeforeClaim) => held(number),
                None => At::ListStaged { number },
                Some((at, of)) if state.server.claims.get(at) == Some(of) => At::RemoveDead { number, dead },
                Some(_) => {
                    dead.remove(0);
                    At::ReadDead { number, dead }
                }
            },
            At::RemoveDead { number, mut dead } => {
                // By its name: what has the name by now may be another's.
                let (at, _) = dead.remove(0);
                if let Some(of) = state.server.claims.remove(&at)
                    && !state.is_gone(of)
                {
                    state.takeovers = 1;
                }
                At::ReadDead { number, dead }
            }
            At::ListStaged { number } => {
                At::VerifyClean { number, staged: state.server.staged.keys().copied().collect() }
            }
            At::VerifyClean { number, staged } => {
                if state.server.claims.get(&number) == Some(&token) {
                    At::RemoveStaged { number, staged }
                } else {
                    At::Begin
                }
            }
            At::RemoveStaged { number, staged } => {
                staged.iter().for_each(|of| drop(state.server.staged.remove(of)));
                held(number)
            }
            At::StepBack { number } => {
                if state.server.claims.get(&number) == Some(&token) {
                    state.server.claims.remove(&number);
                }
                At::Begin
            }
            At::Held { number, doing } => self.work(state, index, number, doing),
            At::ReadOwn { number } if state.server.claims.get(&number) == Some(&token) => At::RemoveOwn { number },
            At::ReadOwn { .. } => self.after(state, job),
            At::RemoveOwn { number } => {
                state.server.claims.remove(&number);
                self.after(state, job)
            }
            At::Done => At::Done,
            At::Dead => At::Dead,
        };
        state.processes[index].at = next;
    }

    /// What a process does that has let go of the key.
    fn after(&self, state: &State, job: Job) -> At {
        // `Execution::attempt`: who lost its claim comes again, until the result is there.
        if job == Job::Sweep || state.is_complete() { At::Done } else { At::Begin }
    }

    fn work(&self, state: &mut State, index: usize, number: u8, doing: Doing) -> At {
        let token = state.tokens[index];
        let job = state.processes[index].job;
        let which = self.which(job);
        let verified = state.server.claims.get(&number) == Some(&token);
        let release = At::ReadOwn { number };
        let doing = match doing {
            Doing::Find if job == Job::Sweep => Doing::ListSweep,
            Doing::Find if state.is_complete() && job == Job::Make => return release,
            Doing::Find if state.server.record.is_some() && state.server.object != Object::Good => Doing::DigestObject,
            Doing::Find => Doing::ListSweep,

            Doing::DigestObject if state.server.object == Object::Damaged => Doing::MoveObject,
            Doing::DigestObject => Doing::ListSweep,
            Doing::MoveObject if self.has(Fault::DiscardByName) => {
                if state.server.object == Object::Good {
                    state.wrong = Some(Wrong::ObjectLost);
                }
                state.server.object = Object::Absent;
                Doing::ListSweep
            }
            Doing::MoveObject => match state.server.object {
                Object::Absent => Doing::ListSweep,
                moved => {
                    // Until it is put back, a good object counts as missing, and its record may be replaced.
                    state.stale = state.server.record.as_ref().map(|record| record.content);
                    state.server.object = Object::Absent;
                    Doing::DigestMoved { moved }
                }
            },
            Doing::DigestMoved { moved } => {
                if moved == Object::Good {
                    state.server.object = Object::Good;
                }
                Doing::ListSweep
            }

            Doing::ListSweep => {
                let published = state.server.record.as_ref().map(|record| record.scratch);
                let any = self.has(Fault::AnyRecordSweeps) && published.is_some();
                let useless = state
                    .server
                    .scratch
                    .iter()
                    .filter(|(name, scratch)| any || published == Some(**name) || !scratch.begun);
                Doing::VerifySweep { useless: useless.map(|(name, _)| *name).collect() }
            }
            Doing::VerifySweep { useless } if verified => Doing::Sweep { useless },
            Doing::VerifySweep { .. } => return release,
            Doing::Sweep { useless } => {
                for name in useless {
                    let published = state.server.record.as_ref().is_some_and(|record| record.scratch == name);
                    // A directory that is taken for empty goes only if it is.
                    let any = self.has(Fault::AnyRecordSweeps);
                    if let Some(scratch) = state.server.scratch.get(&name)
                        && (any || published || !scratch.begun)
                    {
                        if scratch.begun && !published {
                            state.wrong = Some(Wrong::WorkLost);
                        }
                        state.server.scratch.remove(&name);
                    }
                }
                if job == Job::Sweep {
                    return release;
                }
                Doing::ListScratch
            }

            Doing::ListScratch => {
                let left = state.server.scratch.keys().filter(|(of, _)| *of == which).map(|(_, name)| *name).max();
                Doing::VerifyScratch { left }
            }
            Doing::VerifyScratch { left } if verified => Doing::TakeScratch { left },
            Doing::VerifyScratch { .. } => return release,
            Doing::TakeScratch { left: None } => {
                state.server.scratch.insert((which, token), Scratch { of: token, begun: false });
                Doing::Checkpoint
            }
            Doing::TakeScratch { left: Some(name) } => {
                let Some(mut scratch) = state.server.scratch.remove(&(which, name)) else { return release };
                scratch.of = token;
                let name = if self.has(Fault::ScratchKeepsName) { name } else { token };
                state.server.scratch.insert((which, name), scratch);
                Doing::Checkpoint
            }
            Doing::Checkpoint => {
                let scratch = if self.has(Fault::ScratchKeepsName) {
                    state.server.scratch.iter_mut().find(|((of, _), _)| *of == which).map(|(_, scratch)| scratch)
                } else {
                    state.server.scratch.get_mut(&(which, token))
                };
                // The directory is gone: another took over.
                let Some(scratch) = scratch else { return release };
                if scratch.of != token {
                    state.wrong = Some(Wrong::WroteIntoAnothers);
                }
                scratch.begun = true;
                Doing::PutObject
            }

            Doing::PutObject => {
                state.server.object = Object::Good;
                Doing::ReadRecord
            }
            Doing::ReadRecord => {
                let generation = state.server.record.as_ref().map_or(0, |record| record.generation);
                if job == Job::Force && generation > 0 {
                    Doing::Stage { generation: generation + 1, replace: true }
                } else {
                    Doing::LookRecord { generation: generation.max(1) }
                }
            }
            Doing::LookRecord { .. } if state.is_complete() => {
                // Another was first: its result stays.
                Doing::VerifyFinish
            }
            Doing::LookRecord { generation } => {
                let replace = state.server.record.is_some();
                Doing::Stage { generation, replace }
            }
            Doing::Stage { generation, replace } => {
                let record = Record { content: token, generation, scratch: (which, token) };
                state.server.staged.insert(token, record);
                let unseen = self.has(Fault::PublishUnseen);
                if unseen { Doing::Place { generation, replace } } else { Doing::VerifyPlace { generation, replace } }
            }
            Doing::VerifyPlace { generation, replace } if verified => Doing::Place { generation, replace },
            Doing::VerifyPlace { .. } => {
                state.server.staged.remove(&token);
                return release;
            }
            Doing::Place { replace, .. } => match (state.server.staged.remove(&token), &state.server.record) {
                // Taken away: looks whether the claim is still there, and if so tries again.
                (None, _) if verified => Doing::ReadRecord,
                (None, _) => return release,
                (Some(_), Some(_)) if !replace => Doing::ReadRecord,
                (Some(record), there) => {
                    if let Some(there) = there {
                        let knew = job == Job::Force && record.generation == there.generation + 1;
                        if !knew && state.stale != Some(there.content) {
                            state.wrong = Some(Wrong::RecordLost);
                        }
                    }
                    state.server.record = Some(record);
                    state.published = true;
                    Doing::VerifyFinish
                }
            },
            Doing::VerifyFinish if verified => Doing::Finish,
            Doing::VerifyFinish => return release,
            Doing::Finish => {
                // Only what bears its own name: what it was made in is published, or another's result stands.
                state.server.scratch.remove(&(which, token));
                return release;
            }
        };
        At::Held { number, doing }
    }
}

fn held(number: u8) -> At {
    At::Held { number, doing: Doing::Find }
}
