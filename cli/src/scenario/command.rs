//! The language: which commands there are, and how each is written. docs/scenarios.md shows them with examples.

use std::time::Duration;

use tradewind_local::network::{CLIENTS, LinkFault};
use tradewind_local::{Addresses, MirrorPlan, Plan, PoolPlan, SitePlan};
use tradewind_topology::FabricKind;

use super::request::{self, Request};
use super::words::{SyntaxError, Words};

/// The pool of a scenario that declares none.
pub(crate) const POOL: &str = "store";
/// Size of a disk whose size is not told: room for the ledgers of a few shards.
const DISK_MIB: u32 = 64;
/// `errno` of a device that does not work, and of a full one.
const EIO: i64 = 5;
const ENOSPC: i64 = 28;

/// What a scenario does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// The parser has put it into the plan.
    Declared,
    /// Start, stop, kill, ... processes.
    Process { verb: Verb, names: Vec<String> },
    /// Wait for the end of a process that ends by itself.
    Exit { name: String },
    /// Let something happen to packets, each way that is named.
    Link { ways: Vec<(String, String)>, fault: Option<LinkFault> },
    /// Cut the links between these groups.
    Partition { groups: Vec<Vec<String>> },
    /// Heal every link.
    HealLinks,
    /// Cut a link both ways and heal it, again and again.
    Flap { one: String, other: String, times: u32 },
    /// Let a running process get no more memory from the system.
    RefuseMemory { name: String },
    /// Change a disk or clock.
    Disk { name: String, change: DiskChange },
    /// Change the files of processes that do not run.
    Files(FileChange),
    /// Ask for something as a client.
    Request(Request),
    /// Call the command line.
    Tradewind(Vec<String>),
    /// Start clients that write.
    Writers(u32),
    /// Stop them.
    StopWriters,
    /// Start clients that contend for a few keys.
    Contenders(u32),
    /// Stop them, and hold what they were told against a single copy.
    CheckHistory,
    /// How many views each of these has installed since its start.
    CheckViews { names: Vec<String>, most: u32 },
    /// Hold what the writers were told against what these processes have; all nodes and mirrors if none is named.
    CheckWrites { names: Vec<String> },
    /// Tell what processes say of themselves.
    Status { names: Vec<String> },
    /// Verify ledgers as an auditor does.
    Audit { names: Vec<String> },
    /// Hold the records and sealed segments of processes against each other.
    Compare { names: Vec<String> },
    /// Wait until something holds.
    Wait { until: Condition, limit: Duration },
}

/// What to do with a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Launch,
    Stop,
    Kill,
    Pause,
    Resume,
    Restart,
}

/// What to do with a disk or a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskChange {
    Fill,
    Free,
    ReadOnly(bool),
    FailSyncs(i64),
    StallSyncs { ms: i64 },
    FailWrites(i64),
    Heal,
    ClockOffset { s: i64 },
    ClockFrozen,
    ClockRight,
}

/// What to do with files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileChange {
    /// Flip a bit in the middle of each file.
    Flip { name: String, files: String },
    /// Shorten each file to so many bytes.
    Truncate { name: String, files: String, bytes: u32 },
    /// Delete files.
    Delete { name: String, files: String },
    /// Delete everything a process has.
    Wipe { name: String },
    /// Give each the data of the other.
    Swap { one: String, other: String },
    /// Put a copy of the data of one in the place of that of another.
    Copy { from: String, to: String },
    /// Keep a copy of the data.
    Save { name: String, label: String },
    /// Put such a copy in the place of the data.
    Restore { name: String, label: String },
}

/// What can be waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Ready { names: Vec<String> },
    State { name: String, state: String },
    Says { name: String, text: String },
    Parent { name: String, parent: String },
    Value { key: String, value: Option<String>, name: String },
    Writes { more: u32 },
    Calls { more: u32 },
    Sealed { name: String },
}

/// What the commands so far have declared and named.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) plan: Plan,
    /// Disks of their own: whose, and how many MiB.
    pub(crate) disks: Vec<(String, u32)>,
    /// Limits of open files.
    pub(crate) limits: Vec<(String, u32)>,
    /// Whether links are cut, or disks full.
    pub(crate) wants_container: bool,
    /// Whether disks or clocks misbehave.
    pub(crate) wants_faults: bool,
    /// Names of answers.
    pub(crate) answers: Vec<String>,
    labels: Vec<String>,
    timeouts: Vec<String>,
    /// Whether the first command came that is no declaration.
    begun: bool,
}

impl Default for Scope {
    fn default() -> Self {
        let plan = Plan {
            name: "scenario".into(),
            sites: Vec::new(),
            mirrors: Vec::new(),
            pools: Vec::new(),
            extra: String::new(),
            addresses: Addresses::Loopback,
        };
        let (disks, limits, answers, labels, timeouts) = Default::default();
        let (wants_container, wants_faults, begun) = (false, false, false);
        Self {
            plan,
            disks,
            limits,
            wants_container,
            wants_faults,
            answers,
            labels,
            timeouts,
            begun,
        }
    }
}

const ALLOWED: &str = "a declaration (`site`, `mirror`, `pool`, `timeout`, `disk`, `limit`), \
     `start`, `launch`, `stop`, `kill`, `pause`, `resume`, `restart`, `exit of`, \
     `cut`, `lose`, `flap`, `partition`, `heal`, `refuse memory to`, `fill disk of`, `free disk of`, `fail`, `stall`, `clock of`, \
     `flip a bit in`, `truncate`, `delete files`, `wipe`, `swap`, `copy`, `save`, `bring back`, \
     `put`, `get`, `delete`, `txn`, `list`, `retry`, `tradewind`, `writers`, `stop writers`, `check writes`, \
     `contenders`, `check history`, `check views of`, \
     `status`, `audit`, `compare`, `wait until`";

/// A line that is neither prose nor a command nor below one.
pub(crate) fn stray(line: usize, text: &str) -> SyntaxError {
    match Words::split(line, text) {
        Ok(words) => words.wrong("a command after `> `, or prose after `#`"),
        Err(error) => error,
    }
}

/// Reads a command.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(line: usize, text: &str, scope: &mut Scope) -> Result<Command, SyntaxError> {
    let mut words = Words::split(line, text)?;
    if let Some(declared) = declaration(&mut words, scope)? {
        words.end()?;
        return Ok(declared);
    }
    if scope.plan.sites.is_empty() {
        return Err(words.wrong("`site NAME with N nodes` before anything else"));
    }
    if !scope.begun {
        scope.begin();
    }
    let command = action(&mut words, scope)?;
    words.end()?;
    Ok(command)
}

impl Scope {
    /// Declarations are over.
    fn begin(&mut self) {
        self.begun = true;
        let first = &self.plan.sites[0];
        if self.plan.pools.is_empty() {
            let replicas = replicas(first.nodes);
            let (name, home) = (POOL.into(), first.name.clone());
            self.plan.pools.push(PoolPlan { name, home, shards: 1, replicas });
        }
        let pools: Vec<String> = self.plan.pools.iter().map(|pool| pool.name.clone()).collect();
        for mirror in &mut self.plan.mirrors {
            mirror.pools.clone_from(&pools);
        }
        if !self.timeouts.is_empty() {
            self.plan.extra = format!("[timeouts]\n{}\n", self.timeouts.join("\n"));
        }
    }

    /// The name of a process, known or not.
    pub(crate) fn process(&self, words: &mut Words) -> Result<String, SyntaxError> {
        self.one_of(words, "a process", &self.plan.process_names())
    }

    fn one_of(
        &self,
        words: &mut Words,
        what: &str,
        known: &[String],
    ) -> Result<String, SyntaxError> {
        let allowed = format!("{what}: {}", known.join(", "));
        let found = words.text(&allowed)?;
        if known.contains(&found) { Ok(found) } else { Err(words.unknown(&found, allowed)) }
    }

    /// `all`, `nodes`, `mirrors`, or names.
    fn processes(&self, words: &mut Words) -> Result<Vec<String>, SyntaxError> {
        let names = self.plan.process_names();
        let nodes = self.plan.sites.iter().map(|site| site.nodes).sum::<usize>();
        if words.take("all") {
            return Ok(names);
        }
        if words.take("nodes") {
            return Ok(names[..nodes].to_vec());
        }
        if words.take("mirrors") {
            return Ok(names[nodes..].to_vec());
        }
        let mut list = vec![self.process(words)?];
        while words.take(",") {
            list.push(self.process(words)?);
        }
        Ok(list)
    }

    /// A pool by name, or the first.
    pub(crate) fn pool(&self, words: &mut Words) -> Result<String, SyntaxError> {
        let known: Vec<String> = self.plan.pools.iter().map(|pool| pool.name.clone()).collect();
        self.one_of(words, "a pool", &known)
    }

    /// The name of an answer that an earlier command kept, `$NAME`.
    pub(crate) fn answer(&self, words: &mut Words) -> Result<String, SyntaxError> {
        self.one_of(words, "an answer that was named by `--as`", &self.answers)
    }

    fn member(&self, words: &mut Words) -> Result<String, SyntaxError> {
        let mut known = self.plan.process_names();
        known.push(CLIENTS.into());
        self.one_of(words, "a member of the network", &known)
    }
}

fn replicas(nodes: usize) -> u32 {
    u32::try_from(nodes).expect("a few nodes")
}

fn declaration(words: &mut Words, scope: &mut Scope) -> Result<Option<Command>, SyntaxError> {
    const WORDS: [&str; 6] = ["site", "mirror", "pool", "timeout", "disk of", "limit"];
    let Some(word) = WORDS.into_iter().find(|word| words.take(word)) else { return Ok(None) };
    if scope.begun {
        return Err(words.unknown(word, "declarations only before the first other command"));
    }
    match word {
        "site" => site(words, scope)?,
        "mirror" => {
            let name = words.text("the mirror's name")?;
            words.expect("follows")?;
            let parents = words.list("a parent")?;
            let region = "far".into();
            scope.plan.mirrors.push(MirrorPlan { name, region, parents, pools: Vec::new() });
        }
        "pool" => pool(words, scope)?,
        "timeout" => {
            let key = words.choice(
                &["heartbeat_ms", "suspect_ms", "slow_ms", "connect_ms", "request_ms", "stall_ms"]
                    .map(|key| (key, key)),
            )?;
            let ms = words.number("milliseconds")?;
            scope.timeouts.push(format!("{key} = {ms}"));
        }
        "disk of" => {
            let name = scope.process(words)?;
            words.expect("has")?;
            let mib = words.number("a size")?;
            words.expect("MiB")?;
            scope.disks.push((name, mib));
            scope.wants_container = true;
        }
        _ => {
            let names = scope.processes(words)?;
            words.expect("to")?;
            let files = words.number("a number of open files")?;
            words.expect("files")?;
            scope.limits.extend(names.into_iter().map(|name| (name, files)));
        }
    }
    Ok(Some(Command::Declared))
}

fn site(words: &mut Words, scope: &mut Scope) -> Result<(), SyntaxError> {
    let name = words.text("the site's name")?;
    words.expect("with")?;
    let nodes = words.number("a number of nodes")?;
    if !(1..=9).contains(&nodes) {
        return Err(words.unknown(&nodes.to_string(), "1 to 9 nodes"));
    }
    let _ = words.take("nodes") || words.take("node");
    // As between machines, unless told otherwise: memory that is shared has no links to cut.
    let fabric = match words.take("over") {
        true => words.choice(&[("shm", FabricKind::Shm), ("tcp", FabricKind::Tcp)])?,
        false => FabricKind::Tcp,
    };
    let (region, nodes) = ("near".into(), nodes as usize);
    scope.plan.sites.push(SitePlan { name, region, nodes, fabric, fabric_tls: true });
    Ok(())
}

fn pool(words: &mut Words, scope: &mut Scope) -> Result<(), SyntaxError> {
    let name = words.text("the pool's name")?;
    words.expect("at")?;
    let sites: Vec<String> = scope.plan.sites.iter().map(|site| site.name.clone()).collect();
    let home = scope.one_of(words, "a site", &sites)?;
    let nodes = scope.plan.sites.iter().find(|site| site.name == home).map_or(0, |site| site.nodes);
    let mut pool = PoolPlan { name, home, shards: 1, replicas: replicas(nodes) };
    if words.take("with") {
        pool.shards = words.number("a number of shards")?;
        let _ = words.take("shards") || words.take("shard");
    }
    if words.take("on") {
        pool.replicas = words.number("a number of replicas")?;
        let _ = words.take("nodes") || words.take("node");
    }
    scope.plan.pools.push(pool);
    Ok(())
}

fn action(words: &mut Words, scope: &mut Scope) -> Result<Command, SyntaxError> {
    const VERBS: [(&str, Verb); 7] = [
        ("start", Verb::Start),
        ("launch", Verb::Launch),
        ("stop", Verb::Stop),
        ("kill", Verb::Kill),
        ("pause", Verb::Pause),
        ("resume", Verb::Resume),
        ("restart", Verb::Restart),
    ];
    if words.take("stop writers") {
        return Ok(Command::StopWriters);
    }
    if let Some((_, verb)) = VERBS.into_iter().find(|(word, _)| words.take(word)) {
        return Ok(Command::Process { verb, names: scope.processes(words)? });
    }
    if words.take("exit of") {
        return Ok(Command::Exit { name: scope.process(words)? });
    }
    if words.take("refuse memory to") {
        return Ok(Command::RefuseMemory { name: scope.process(words)? });
    }
    if let Some(command) = network(words, scope)? {
        scope.wants_container = true;
        scope.plan.addresses = Addresses::Namespaces;
        return Ok(command);
    }
    if let Some(command) = disk(words, scope)? {
        return Ok(command);
    }
    if let Some(change) = files(words, scope)? {
        return Ok(Command::Files(change));
    }
    if let Some(request) = request::parse(words, scope)? {
        return Ok(Command::Request(request));
    }
    checks(words, scope)
}

fn checks(words: &mut Words, scope: &Scope) -> Result<Command, SyntaxError> {
    let all = |words: &mut Words| match words.is_empty() {
        true => Ok(scope.plan.process_names()),
        false => scope.processes(words),
    };
    if words.take("tradewind") {
        Ok(Command::Tradewind(words.rest()))
    } else if words.take("writers") {
        Ok(Command::Writers(words.number("a number of writers")?))
    } else if words.take("contenders") {
        Ok(Command::Contenders(words.number("a number of clients")?))
    } else if words.take("check history") {
        Ok(Command::CheckHistory)
    } else if words.take("check views of") {
        let names = scope.processes(words)?;
        words.expect("at most")?;
        Ok(Command::CheckViews { names, most: words.number("a number of views")? })
    } else if words.take("check writes") {
        let names = if words.take("at") { scope.processes(words)? } else { all(words)? };
        Ok(Command::CheckWrites { names })
    } else if words.take("status") {
        Ok(Command::Status { names: all(words)? })
    } else if words.take("audit") {
        Ok(Command::Audit { names: all(words)? })
    } else if words.take("compare") {
        Ok(Command::Compare { names: all(words)? })
    } else if words.take("wait until") {
        let until = condition(words, scope)?;
        let limit = match words.take("within") {
            true => seconds(words)?,
            false => LIMIT,
        };
        Ok(Command::Wait { until, limit })
    } else {
        Err(words.wrong(ALLOWED))
    }
}

/// How long is waited for what is not told otherwise. Generous: the machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

/// `N s`.
pub(crate) fn seconds(words: &mut Words) -> Result<Duration, SyntaxError> {
    let number = words.number("seconds")?;
    words.expect("s")?;
    Ok(Duration::from_secs(number.into()))
}

fn condition(words: &mut Words, scope: &Scope) -> Result<Condition, SyntaxError> {
    const ALLOWED: &str = "`NAMES ready`, `NAME is STATE`, `NAME says TEXT`, `NAME follows PARENT`, \
         `NAME has sealed`, `KEY is VALUE at NAME`, `KEY is absent at NAME`, `N more writes`, `N more calls`";
    if let Ok(more) = words.number("a number") {
        let kinds = [("more writes", false), ("more calls", true)];
        return Ok(match words.choice(&kinds)? {
            true => Condition::Calls { more },
            false => Condition::Writes { more },
        });
    }
    if words.is_empty() {
        return Err(words.wrong(ALLOWED));
    }
    let names = scope.plan.process_names();
    let group = ["all", "nodes", "mirrors"];
    let is_process = |word: &str| names.iter().any(|name| name == word) || group.contains(&word);
    if words.next_text().is_some_and(is_process) {
        let names = scope.processes(words)?;
        if words.take("ready") {
            return Ok(Condition::Ready { names });
        }
        let name = names[0].clone();
        return if words.take("is") {
            Ok(Condition::State { name, state: words.text("a state")? })
        } else if words.take("says") {
            Ok(Condition::Says { name, text: words.text("a text")? })
        } else if words.take("follows") {
            Ok(Condition::Parent { name, parent: scope.process(words)? })
        } else if words.take("has sealed") {
            Ok(Condition::Sealed { name })
        } else {
            Err(words.wrong("`ready`, `is STATE`, `says TEXT`, `follows PARENT`, `has sealed`"))
        };
    }
    let key = words.text(ALLOWED)?;
    words.expect("is")?;
    let value = if words.take("absent") { None } else { Some(words.text("a value, or `absent`")?) };
    words.expect("at")?;
    Ok(Condition::Value { key, value, name: scope.process(words)? })
}

fn network(words: &mut Words, scope: &Scope) -> Result<Option<Command>, SyntaxError> {
    if words.take("partition") {
        let mut groups = vec![group(words, scope)?];
        while words.take("|") {
            groups.push(group(words, scope)?);
        }
        return Ok(Some(Command::Partition { groups }));
    }
    if words.take("flap") {
        let one = scope.member(words)?;
        words.expect("--")?;
        let other = scope.member(words)?;
        let times = words.number("how often")?;
        words.expect("times")?;
        return Ok(Some(Command::Flap { one, other, times }));
    }
    let fault = if words.take("cut") {
        Some(LinkFault::Cut)
    } else if words.take("lose large packets") {
        Some(LinkFault::LargeLost)
    } else if words.take("lose") {
        let percent = words.number("percent of the packets")?;
        words.expect("percent")?;
        let lossy = u8::try_from(percent).ok().filter(|percent| *percent <= 100);
        let lossy = lossy.ok_or_else(|| words.unknown(&percent.to_string(), "0 to 100"))?;
        Some(LinkFault::Lossy(lossy))
    } else if words.take("heal links") {
        return Ok(Some(Command::HealLinks));
    } else if words.take("heal link") {
        None
    } else {
        return Ok(None);
    };
    let from = scope.member(words)?;
    let both = words.choice(&[("->", false), ("--", true)])?;
    let to = scope.member(words)?;
    let mut ways = vec![(from.clone(), to.clone())];
    if both {
        ways.push((to, from));
    }
    Ok(Some(Command::Link { ways, fault }))
}

fn group(words: &mut Words, scope: &Scope) -> Result<Vec<String>, SyntaxError> {
    words.expect("{")?;
    let mut group = vec![scope.member(words)?];
    while words.take(",") {
        group.push(scope.member(words)?);
    }
    words.expect("}")?;
    Ok(group)
}

fn disk(words: &mut Words, scope: &mut Scope) -> Result<Option<Command>, SyntaxError> {
    const SMALL: [(&str, DiskChange); 4] = [
        ("fill disk of", DiskChange::Fill),
        ("free disk of", DiskChange::Free),
        ("make read-only the disk of", DiskChange::ReadOnly(true)),
        ("make writable the disk of", DiskChange::ReadOnly(false)),
    ];
    const FAULTY: [(&str, DiskChange); 4] = [
        ("fail syncs of", DiskChange::FailSyncs(EIO)),
        ("fail writes of", DiskChange::FailWrites(EIO)),
        ("find no space for writes of", DiskChange::FailWrites(ENOSPC)),
        ("heal disk of", DiskChange::Heal),
    ];
    if let Some((_, change)) = SMALL.into_iter().find(|(word, _)| words.take(word)) {
        let name = scope.process(words)?;
        scope.wants_container = true;
        if !scope.disks.iter().any(|(disk, _)| *disk == name) {
            scope.disks.push((name.clone(), DISK_MIB));
        }
        return Ok(Some(Command::Disk { name, change }));
    }
    let (name, change) =
        if let Some((_, change)) = FAULTY.into_iter().find(|(word, _)| words.take(word)) {
            (scope.process(words)?, change)
        } else if words.take("stall syncs of") {
            let name = scope.process(words)?;
            words.expect("for")?;
            let ms = i64::try_from(seconds(words)?.as_millis()).expect("fewer than 2^32 s");
            (name, DiskChange::StallSyncs { ms })
        } else if words.take("clock of") {
            (scope.process(words)?, clock(words)?)
        } else {
            return Ok(None);
        };
    scope.wants_faults = true;
    Ok(Some(Command::Disk { name, change }))
}

fn clock(words: &mut Words) -> Result<DiskChange, SyntaxError> {
    let sign = words.choice(&[
        ("ahead by", 1),
        ("behind by", -1),
        ("stands still", 0),
        ("is right", 2),
    ])?;
    match sign {
        0 => Ok(DiskChange::ClockFrozen),
        2 => Ok(DiskChange::ClockRight),
        sign => {
            let number = i64::from(words.number("a time")?);
            let unit = words.choice(&[("s", 1), ("days", 86_400)])?;
            Ok(DiskChange::ClockOffset { s: sign * number * unit })
        }
    }
}

fn files(words: &mut Words, scope: &mut Scope) -> Result<Option<FileChange>, SyntaxError> {
    const PATTERN: &str = "files below the data directory, * for any part of a name";
    let of = |words: &mut Words, scope: &Scope| {
        let files = words.text(PATTERN)?;
        words.expect("of")?;
        Ok((scope.process(words)?, files))
    };
    Ok(Some(if words.take("flip a bit in") {
        let (name, files) = of(words, scope)?;
        FileChange::Flip { name, files }
    } else if words.take("truncate") {
        let (name, files) = of(words, scope)?;
        words.expect("to")?;
        let bytes = words.number("a length")?;
        words.expect("bytes")?;
        FileChange::Truncate { name, files, bytes }
    } else if words.take("delete files") {
        let (name, files) = of(words, scope)?;
        FileChange::Delete { name, files }
    } else if words.take("wipe") {
        FileChange::Wipe { name: scope.process(words)? }
    } else if words.take("swap") {
        let one = scope.process(words)?;
        words.expect("and")?;
        FileChange::Swap { one, other: scope.process(words)? }
    } else if words.take("copy") {
        let from = scope.process(words)?;
        words.expect("to")?;
        FileChange::Copy { from, to: scope.process(words)? }
    } else if words.take("save") {
        let name = scope.process(words)?;
        words.expect("as")?;
        let label = words.text("a label")?;
        scope.labels.push(label.clone());
        FileChange::Save { name, label }
    } else if words.take("bring back") {
        let name = scope.process(words)?;
        words.expect("from")?;
        let label = scope.one_of(words, "a label of `save`", &scope.labels)?;
        FileChange::Restore { name, label }
    } else {
        return Ok(None);
    }))
}
