//! `/log/<ledger>/...`: the ledger's public face, as c2sp.org/tlog-tiles has it.
//!
//! A path is parsed and written anew, never handed to the file system as it came. A partial tile that was replaced by a
//! wider one since the client read its checkpoint is cut out of that, and so are hash tiles that are packed. A bundle that is no file (nodes have none) is made
//! from the ledger's entries. Detached values lie beside the tiles, and `base` where the first entries were pruned.

use super::{Failure, Shared};
use crate::Shard;
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};
use std::{fs, io, os::unix::fs::FileExt as _, path};
use tradewind_ledger::{
    Digest, LedgerId, SignedNote, Version,
    tile::{HASH_BYTES, TILE_WIDTH, TileId, TileKind, decode_bundle, encode_bundle},
};

/// How often a tile is looked for while wider ones take the place of what was found.
const READS: usize = 8;

pub(super) async fn ledgers(State(http): Shared) -> Json<Value> {
    let ledgers = http.service.backend.ledgers();
    let url = |id: &LedgerId| json!({ "ledger": id.to_string(), "checkpoint": format!("/log/{id}/checkpoint") });
    Json(json!({ "ledgers": ledgers.iter().map(url).collect::<Vec<_>>() }))
}

pub(super) async fn file(
    State(http): Shared,
    Path((ledger, path)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let known = ledger.parse::<LedgerId>().ok().and_then(|id| http.service.backend.ledger(&id));
    let Some(shard) = known else {
        let ids = http.service.backend.ledgers();
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        return Err(missing(format!("no ledger {ledger}"), format!("ledgers: {}", ids.join(", "))));
    };
    let directory = shard.directory().to_owned();
    if path == "checkpoint" {
        return newest(directory.join("checkpoint"), "text/plain; charset=utf-8").await;
    }
    if path == "base" {
        return newest(directory.join("base"), "application/octet-stream").await;
    }
    let (tile, value) = (path.parse::<TileId>(), value(&path));
    let reading = tokio::task::spawn_blocking(move || match (tile, value) {
        (Ok(tile), _) => Some(match read_tile(&directory, tile) {
            Ok(None) if tile.kind == TileKind::Entries => bundle(&*shard, tile),
            read => read,
        }),
        (Err(_), Some(value)) => Some(read_file(&directory.join(value))),
        (Err(_), None) => None,
    });
    let reading = reading.await.unwrap_or_else(|error| Some(Err(io::Error::other(error))));
    let Some(read) = reading else {
        return Err(missing(
            format!("no file {path} in a ledger's public face"),
            "checkpoint, base, tile/<level>/<index>[.p/<width>], tile/entries/<index>[.p/<width>], \
             values/<2 hex digits>/<64 hex digits>"
                .into(),
        ));
    };
    let Some(bytes) = read.map_err(|error| failed(&error))? else {
        return Err(missing(
            format!("{path} is not there: not yet, or not any more"),
            "tiles of the size that the checkpoint says, or a smaller one; values of its entries"
                .into(),
        ));
    };
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // What a tile of given width, or a value of given hash, holds never changes.
    let for_ever = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(header::CACHE_CONTROL, for_ever);
    Ok(response)
}

/// The path of a detached value, written anew: `values/<2 hex digits>/<64 hex digits>`.
fn value(path: &str) -> Option<String> {
    let (start, digest) = path.strip_prefix("values/")?.split_once('/')?;
    let digest = digest.parse::<Digest>().ok()?.to_string();
    (start == &digest[..2]).then(|| format!("values/{}/{digest}", &digest[..2]))
}

/// A file that is replaced now and then.
async fn newest(file: path::PathBuf, content_type: &'static str) -> Result<Response, Failure> {
    let is_base = file.ends_with("base");
    let reading = tokio::task::spawn_blocking(move || fs::read(file)).await;
    let bytes = match reading.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_base => {
            return Err(missing("nothing was pruned".into(), "all entries are there".into()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(missing("no checkpoint is signed yet".into(), "later".into()));
        }
        Err(error) => return Err(failed(&error)),
    };
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// The bytes of a tile, from its file or from that of a wider one; `None` if there is neither.
fn read_tile(directory: &path::Path, tile: TileId) -> io::Result<Option<Vec<u8>>> {
    // Again: the file that was there when the directory was read may be replaced by a wider one before it is opened.
    for _ in 0..READS {
        if let Some(bytes) = read_file(&directory.join(tile.to_string()))? {
            return Ok(Some(bytes));
        }
        if let Some((file, offset)) = tile.packed()
            && let Some(bytes) = read_part(&directory.join(file), offset, tile.width.into())?
        {
            return Ok(Some(bytes));
        }
        if !tile.is_partial() {
            return Ok(None);
        }
        for width in wider(directory, tile)? {
            let source = TileId { width, ..tile };
            if let Some(bytes) = read_file(&directory.join(source.to_string()))? {
                return cut(&bytes, source, tile.width).map(Some);
            }
        }
    }
    Ok(None)
}

/// The bytes of a bundle, from the ledger's entries; `None` if the checkpoint does not cover them, or some were pruned.
fn bundle(shard: &dyn Shard, tile: TileId) -> io::Result<Option<Vec<u8>>> {
    let Some(note) = read_file(&shard.directory().join("checkpoint"))? else { return Ok(None) };
    let note = SignedNote::parse(&note).map_err(io::Error::other)?;
    let published = note.checkpoint().map_err(io::Error::other)?.size;
    let versions = tile.first()..tile.first().saturating_add(tile.width.into());
    if versions.end > published.0 {
        return Ok(None);
    }
    let entries = versions.map(|version| shard.entry(Version(version)));
    let entries = match entries.collect::<io::Result<Vec<_>>>() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    encode_bundle(entries.iter().map(Vec::as_slice)).map(Some).map_err(io::Error::other)
}

fn read_file(path: &path::Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Hashes out of the file in which those of a level are packed; `None` if it does not have them all.
fn read_part(path: &path::Path, offset: u64, hashes: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; hashes * HASH_BYTES];
    match fs::File::open(path).and_then(|file| file.read_exact_at(&mut bytes, offset)) {
        Ok(()) => Ok(Some(bytes)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Widths beyond the tile's own that may be there, ascending, the full one last.
fn wider(directory: &path::Path, tile: TileId) -> io::Result<Vec<u16>> {
    let path = directory.join(tile.to_string());
    let mut widths = vec![TILE_WIDTH];
    let partials = path.parent().expect("a partial tile lies in a directory of its own");
    match fs::read_dir(partials) {
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                let width = name.to_str().and_then(|name| name.parse::<u16>().ok());
                widths.extend(width.filter(|width| (tile.width..TILE_WIDTH).contains(width)));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    widths.sort_unstable();
    Ok(widths)
}

/// The first `width` of what a wider tile holds.
fn cut(bytes: &[u8], source: TileId, width: u16) -> io::Result<Vec<u8>> {
    let damaged =
        |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{source}: {what}"));
    let length = match source.kind {
        TileKind::Hashes { .. } => usize::from(width) * HASH_BYTES,
        TileKind::Entries => {
            let entries =
                decode_bundle(bytes, source.width).map_err(|error| damaged(error.to_string()))?;
            entries[..usize::from(width)].iter().map(|entry| 2 + entry.len()).sum()
        }
    };
    let cut = bytes.get(..length).ok_or_else(|| damaged(format!("only {} bytes", bytes.len())))?;
    Ok(cut.to_vec())
}

fn missing(error: String, allowed: String) -> Failure {
    let next_step = "see c2sp.org/tlog-tiles".into();
    Failure { status: StatusCode::NOT_FOUND, error, allowed, next_step }
}

fn failed(error: &io::Error) -> Failure {
    tracing::error!("reading a tile or checkpoint: {error}");
    Failure {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        error: format!("cannot read: {error}"),
        allowed: "this should not happen".into(),
        next_step: "look at the server's disk; verify its ledger with tradewind audit verify"
            .into(),
    }
}
