//! The public face before a verifier that nobody here wrote: `tests/interop/verify.go`, which knows only the
//! C2SP specifications and a vkey, over HTTP. It needs Go and golang.org/x/mod (Debian: `golang-go` and
//! `golang-golang-x-mod-dev`); `.ci/run` installs both.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;
use tradewind_ledger::note::KeyKind;
use tradewind_ledger::*;
use tradewind_ledger_disk as disk;

/// Builds the verifier once; Go's build cache is kept between runs.
fn verifier() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let binary = target.join("interop-verify");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/verify.go");
        let built = Command::new("go")
            .args(["build", "-o"])
            .args([&binary, &source])
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOFLAGS", "-trimpath")
            .env("GOCACHE", target.join("go-cache"))
            .output();
        let built = built.unwrap_or_else(|error| {
            panic!("Go does not start ({error}): install golang-go and golang-golang-x-mod-dev")
        });
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "go build (is golang-golang-x-mod-dev there?): {said}");
        binary
    })
}

/// Serves the files of a directory under `/log/flights.0/`, one request a connection, until the test ends.
fn serve(dir: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/log/flights.0", listener.local_addr().unwrap());
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A verifier that gives up half-way is its own business.
            let _ = answer(stream.unwrap(), &dir);
        }
    });
    url
}

fn answer(mut stream: TcpStream, dir: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).and_then(|path| path.strip_prefix("/log/flights.0/"));
    let plain =
        |path: &&str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let body = path.filter(plain).and_then(|path| fs::read(dir.join(path)).ok());
    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
    let body = body.unwrap_or_default();
    let len = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

fn signers() -> [Ed25519Signer; 3] {
    [1, 2, 3].map(|rank| Ed25519Signer::from_seed(&[rank; 32]))
}

fn genesis() -> Genesis {
    let member = |signer: &Ed25519Signer| {
        let public_key = signer.public_key();
        Member { name: format!("a{}", public_key[0]), public_key }
    };
    Genesis {
        deployment: "atlas".into(),
        site: "ams".into(),
        ledger: "flights.0".parse().unwrap(),
        members: signers().iter().map(member).collect(),
    }
}

/// A ledger on disk that is published as its size grows.
struct Ledger {
    _temp: TempDir,
    dir: PathBuf,
    opened: disk::Opened,
    replay: Replay,
}

impl Ledger {
    fn create() -> Self {
        let temp = TempDir::new().unwrap();
        let dir = temp.path().join("flights.0");
        let opened = disk::open(&dir, &disk::Options::default(), |_, _| Ok(())).unwrap();
        Self { _temp: temp, dir, opened, replay: Replay::new() }
    }

    /// Grows to `size` entries and publishes that; returns the checkpoint.
    fn grow(&mut self, size: u64) -> SignedNote {
        let mut entries = Vec::new();
        while self.replay.size().0 < size {
            let entry = self.next();
            let bytes = entry.to_bytes().unwrap();
            self.replay.observe(&bytes, &entry).unwrap();
            entries.push(bytes);
        }
        self.opened.writer.append(&entries).unwrap();
        self.opened.writer.sync().unwrap();
        let origin = genesis().origin();
        let checkpoint = Checkpoint { origin, size: Version(size), root: self.replay.root() };
        let lines = signers().iter().map(|signer| checkpoint.sign(signer)).collect();
        let note = checkpoint.with_signatures(lines).unwrap();
        self.opened.publisher.publish(&note).unwrap();
        note
    }

    fn next(&self) -> Entry {
        let at = self.replay.size();
        if at == Version::ZERO {
            return genesis().into_entry();
        }
        let (hlc, view) = (Hlc::from_micros(1_700_000_000_000_000 + at.0), ViewId(0));
        if self.replay.segment().count() == 10_000 {
            return self.replay.segment().make_seal(hlc, view);
        }
        let update = Update {
            key: format!("key {at}").into_bytes(),
            key_version: KeyVersion(1),
            prev_version: None,
            value: Some(Value::Inline(vec![b'v'; (at.0 % 50) as usize])),
        };
        let request = RequestId { session: SessionId(1), number: RequestNumber(at.0) };
        Entry { hlc, view, body: Body::Put(Write { request, update }) }
    }

    /// Runs the verifier over HTTP with the vkey of one node.
    fn verify(&self, signer: &Ed25519Signer, old: Option<&SignedNote>) -> Output {
        let vkey = VerifierKey::new(&genesis().origin(), KeyKind::Ed25519, signer.public_key());
        let mut command = Command::new(verifier());
        if let Some(old) = old {
            let file = self.dir.with_extension("old");
            fs::write(&file, old.to_string()).unwrap();
            command.arg("-old").arg(file);
        }
        command.arg(serve(&self.dir)).arg(vkey.unwrap().to_string()).output().unwrap()
    }
}

fn accepts(output: &Output, size: u64) {
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "size {size}: {complaint}");
    assert!(said.contains(&format!("ok: atlas/ams/flights/0, {size} entries")), "{said}");
}

fn refuses(output: &Output, why: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it accepted what it should refuse: {why}");
    assert!(complaint.contains(why), "it refused for another reason than `{why}`: {complaint}");
}

#[test]
fn an_independent_verifier_accepts_ledgers_of_all_shapes_by_any_nodes_key() {
    let mut ledger = Ledger::create();
    let mut old: Option<SignedNote> = None;
    for (size, signer) in
        [1, 2, 255, 256, 257, 1_000, 65_536, 66_100].into_iter().zip(signers().iter().cycle())
    {
        let note = ledger.grow(size);
        accepts(&ledger.verify(signer, old.as_ref()), size);
        old = Some(note);
    }
}

#[test]
fn an_independent_verifier_refuses_what_was_changed() {
    let mut ledger = Ledger::create();
    let old = ledger.grow(300);
    ledger.grow(700);
    let [signer, ..] = signers();
    accepts(&ledger.verify(&signer, Some(&old)), 700);
    refuses(&ledger.verify(&Ed25519Signer::from_seed(&[9; 32]), None), "no verifiable signatures");
    let lie = Checkpoint { root: Digest([7; 32]), ..old.checkpoint().unwrap() };
    let lie = lie.with_signatures(vec![lie.sign(&signer)]).unwrap();
    refuses(&ledger.verify(&signer, Some(&lie)), "consistency of 300 with 700");
    for (path, why) in [
        ("checkpoint", "the checkpoint"),
        ("tile/0/000", "the leaves give root"),
        ("tile/1/000.p/2", "the tiles give root"),
        ("tile/entries/001", "does not have its leaf hash"),
    ] {
        let path = ledger.dir.join(path);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[25] ^= 1;
        fs::write(&path, bytes).unwrap();
        refuses(&ledger.verify(&signer, None), why);
        fs::write(&path, whole).unwrap();
    }
    accepts(&ledger.verify(&signer, None), 700);
}
