//! Leases: every short history of two holders against a model of what a lease should be.

use core::time::Duration;
use tradewind_ledger::{Hlc, RequestId, RequestNumber, SessionId, Version, ViewId};
use tradewind_store::{
    Command, Compare, Context, GRACE, Holding, LeaseError, LeaseName, LeaseOutcome, Reply, Store,
    TxnOp,
};

const TTL: Duration = Duration::from_secs(10);
const HOLDERS: [&[u8]; 2] = [b"tower a", b"tower b"];

/// A shard, and what it should be.
#[derive(Clone)]
struct World {
    store: Store,
    requests: u64,
    now: Duration,
    /// Who holds the lease, under which token, and when that was renewed last.
    model: Option<(usize, Version, Duration)>,
    /// The tokens that the holders were given last, though perhaps no longer valid.
    tokens: [Option<Version>; 2],
    /// The last token of all.
    last: Option<Version>,
}

impl World {
    fn new() -> Self {
        let store = Store::new();
        let now = Duration::from_secs(1_000_000);
        Self { store, requests: 0, now, model: None, tokens: [None; 2], last: None }
    }

    fn execute(&mut self, command: Command) -> Reply {
        self.requests += 1;
        let request = RequestId { session: SessionId(7), number: RequestNumber(self.requests) };
        let hlc = Hlc(Hlc::from_micros(self.now.as_micros() as u64).0 + self.requests);
        let context = Context { version: self.store.next(), hlc, view: ViewId(1), request };
        self.store.execute(context, command).reply
    }

    fn ask(&mut self, name: &LeaseName, command: Command) -> LeaseOutcome {
        let reply = self.execute(command);
        name.outcome(&reply).expect("a lease")
    }

    /// Asks for the lease, and takes it over if that may be.
    fn acquire(&mut self, name: &LeaseName, holder: usize) {
        let free = self.model.is_none();
        let over = self.model.is_some_and(|(.., renewed)| self.now - renewed >= TTL + GRACE);
        let mut outcome = self.ask(name, name.acquire(HOLDERS[holder], TTL).expect("in bounds"));
        if let LeaseOutcome::Held(other) = &outcome {
            let (by, token, renewed) = self.model.expect("held");
            assert_eq!((&other.holder[..], other.token, other.ttl), (HOLDERS[by], token, TTL));
            assert_eq!(other.renewed.micros(), renewed.as_micros() as u64);
            let take_over = name.take_over(other, HOLDERS[holder], TTL).expect("in bounds");
            outcome = self.ask(name, take_over);
        }
        match outcome {
            LeaseOutcome::Done(token) => {
                assert!(free || over, "granted while another holds it");
                assert!(self.last < Some(token), "tokens grow");
                self.last = Some(token);
                self.tokens[holder] = Some(token);
                self.model = Some((holder, token, self.now));
            }
            LeaseOutcome::Held(_) => assert!(!free && !over, "not granted though free"),
            LeaseOutcome::Free => panic!("free, and not granted"),
        }
    }

    fn renew(&mut self, name: &LeaseName, holder: usize) {
        let Some(token) = self.tokens[holder] else { return };
        let valid = self.model.filter(|(_, t, renewed)| *t == token && self.now - *renewed < TTL);
        let done = matches!(self.ask(name, name.renew(token, TTL)), LeaseOutcome::Done(_));
        assert_eq!(done, valid.is_some(), "renewed while it is one's own and its time is not over");
        if let (true, Some((.., renewed))) = (done, &mut self.model) {
            *renewed = self.now;
        }
    }

    fn release(&mut self, name: &LeaseName, holder: usize) {
        let Some(token) = self.tokens[holder] else { return };
        let own = self.model.is_some_and(|(_, t, _)| t == token);
        let done = matches!(self.ask(name, name.release(token)), LeaseOutcome::Done(_));
        assert_eq!(done, own);
        if done {
            self.model = None;
        }
    }

    /// An act under the token, however late it comes.
    fn act(&mut self, name: &LeaseName, holder: usize) {
        let Some(token) = self.tokens[holder] else { return };
        let own = self.model.is_some_and(|(_, t, _)| t == token);
        let then = vec![TxnOp::Put { key: b"clearance{27}".to_vec(), value: b"KL601".to_vec() }];
        let compare: Vec<Compare> = vec![name.fence(token)];
        let reply = self.execute(Command::Txn { compare, then, otherwise: vec![] });
        let Reply::Txn { succeeded, .. } = reply else { panic!("{reply:?}") };
        assert_eq!(succeeded, own, "an act counts under the newest token only");
    }
}

/// Every history of so many further steps.
fn explore(world: &World, name: &LeaseName, depth: usize) -> u64 {
    if depth == 0 {
        return 1;
    }
    let tick = Duration::from_micros(1);
    let mut histories = 0;
    for pass in [Duration::ZERO, TTL - tick, TTL, TTL + GRACE - tick, TTL + GRACE] {
        for holder in 0..HOLDERS.len() {
            for step in [World::acquire, World::renew, World::release, World::act] {
                let mut next = world.clone();
                next.now += pass;
                step(&mut next, name, holder);
                histories += explore(&next, name, depth - 1);
            }
        }
    }
    histories
}

#[test]
fn in_every_short_history_there_is_one_holder_and_only_its_acts_count() {
    let name = LeaseName::new(b"runway/{27}").expect("a name");
    let mut world = World::new();
    assert_eq!(explore(&world, &name, 3), 40_u64.pow(3));
    // And from where one holds it, which most of the above never reach.
    world.acquire(&name, 0);
    explore(&world, &name, 3);
}

#[test]
fn names_without_a_neighbour_in_their_shard_are_refused() {
    for name in [&b""[..], b"a}b", b"{}x", &[b'x'; 4096]] {
        assert!(
            matches!(LeaseName::new(name), Err(LeaseError::Name(_))),
            "{}",
            name.escape_ascii()
        );
    }
    for name in [&b"runway"[..], b"a{b", b"runway/{27}", b"{27}"] {
        LeaseName::new(name).expect("a name");
    }
}

#[test]
fn what_is_no_lease_is_told() {
    let mut world = World::new();
    let name = LeaseName::new(b"k").expect("a name");
    let condition = Default::default();
    world.execute(Command::Put { key: b"k".to_vec(), value: b"TWL".to_vec(), condition });
    let reply = world.execute(name.acquire(b"a", TTL).expect("in bounds"));
    assert!(matches!(name.outcome(&reply), Err(LeaseError::NotALease(_))));
    assert!(matches!(name.acquire(b"a", Duration::ZERO), Err(LeaseError::Ttl(_))));
    assert!(matches!(name.acquire(&[0; 2000], TTL), Err(LeaseError::Holder(2000))));
}

#[test]
fn a_repeated_acquisition_is_told_its_token_again() {
    let mut world = World::new();
    let name = LeaseName::new(b"k").expect("a name");
    let command = name.acquire(b"a", TTL).expect("in bounds");
    let first = world.execute(command.clone());
    world.requests -= 1;
    world.now += TTL * 3;
    let version = world.store.next();
    let hlc = Hlc::from_micros(world.now.as_micros() as u64);
    let request = RequestId { session: SessionId(7), number: RequestNumber(1) };
    let context = Context { version, hlc, view: ViewId(1), request };
    let again = world.store.execute(context, command);
    assert!(again.entry.is_none());
    assert_eq!(again.reply, first);
    let LeaseOutcome::Done(token) = name.outcome(&first).expect("a lease") else { panic!() };
    let LeaseOutcome::Held(Holding { token: shown, .. }) = ({
        world.requests = 1;
        world.ask(&name, name.show())
    }) else {
        panic!()
    };
    assert_eq!(shown, token);
}
