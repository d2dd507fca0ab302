//! Keys and values in files: what `import` reads and `export` writes.
//!
//! | format | a record is | key | value |
//! |---|---|---|---|
//! | NDJSON | a line | its `"key"` | its `"value"` |
//! | NDJSON with a key column | a line | the field of that name | the whole line |
//! | CSV | a row | the column of that name | a JSON object: column to cell, in the order of the columns |
//! | directory | a file | its path below the directory | its bytes |
//!
//! What is exported in a format and imported again is the same, byte for byte.

mod csv_file;
mod directory;
mod ndjson;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

/// How records lie in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecordFormat {
    Ndjson,
    Csv,
    Dir,
}

/// A record, and where it was read.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// `file:line` or a path, for messages.
    pub(crate) place: String,
    /// Bytes of the source up to here.
    pub(crate) position: u64,
}

/// Takes records as they are read; an error ends the reading.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(Record) -> anyhow::Result<()>;

/// Where records come from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    path: PathBuf,
    format: RecordFormat,
    key_column: Option<String>,
}

impl Source {
    /// `path` is `-` for stdin.
    ///
    /// # Errors
    /// If the path does not exist, or its format cannot be guessed and is not given.
    pub(crate) fn new(
        path: &Path,
        format: Option<RecordFormat>,
        key_column: Option<String>,
    ) -> anyhow::Result<Self> {
        let format = match format {
            Some(format) => format,
            None => guess(path)?,
        };
        if format == RecordFormat::Dir && key_column.is_some() {
            bail!("--key-column: files in a directory have no columns, their paths are the keys");
        }
        Ok(Self { path: path.to_owned(), format, key_column })
    }

    /// Bytes to read, if that can be told beforehand.
    pub(crate) fn length(&self) -> Option<u64> {
        let metadata = std::fs::metadata(&self.path).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Reads all records in order.
    ///
    /// # Errors
    /// The first record that cannot be read, with its place; or the first error of `visit`.
    pub(crate) fn read(&self, visit: Visit<'_>) -> anyhow::Result<()> {
        let key_column = self.key_column.as_deref();
        if self.format == RecordFormat::Dir {
            return directory::read(&self.path, visit);
        }
        let name = self.path.display().to_string();
        let input: Box<dyn Read> = if self.path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(&self.path).with_context(|| name.clone())?)
        };
        let input = BufReader::with_capacity(1 << 16, input);
        match self.format {
            RecordFormat::Csv => csv_file::read(input, &name, key_column, visit),
            _ => ndjson::read(input, &name, key_column, visit),
        }
    }
}

fn guess(path: &Path) -> anyhow::Result<RecordFormat> {
    if path.is_dir() {
        return Ok(RecordFormat::Dir);
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ndjson" | "jsonl") => Ok(RecordFormat::Ndjson),
        Some("csv") => Ok(RecordFormat::Csv),
        _ => bail!(
            "{}: neither a directory, nor .ndjson, .jsonl or .csv: give --format",
            path.display()
        ),
    }
}

/// Where records go.
pub(crate) trait Sink {
    /// Writes the next record; keys come in ascending order.
    ///
    /// # Errors
    /// If the format cannot hold it, or the file system refuses.
    fn write(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()>;

    /// Makes what was written final.
    ///
    /// # Errors
    /// If the file system refuses.
    fn finish(self: Box<Self>) -> anyhow::Result<()>;
}

/// How to write records.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) path: Option<PathBuf>,
    pub(crate) format: Option<RecordFormat>,
    pub(crate) key_column: Option<String>,
    pub(crate) values_only: bool,
}

impl Target {
    /// Opens it; files appear under their name when they are finished, stdout is written at once.
    ///
    /// # Errors
    /// If the format cannot be guessed and is not given, or nothing can be written there.
    pub(crate) fn open(self) -> anyhow::Result<Box<dyn Sink>> {
        let Self { path, format, key_column, values_only } = self;
        let format = match (format, &path) {
            (Some(format), _) => format,
            (None, None) => RecordFormat::Ndjson,
            (None, Some(path)) => guess(path)?,
        };
        if values_only && format != RecordFormat::Ndjson {
            bail!("--values-only is for NDJSON: CSV and directories hold nothing but values");
        }
        match (format, path) {
            (RecordFormat::Dir, Some(path)) => Ok(Box::new(directory::Writer::new(path)?)),
            (RecordFormat::Dir, None) => bail!("a directory needs a path: give --out"),
            (format, path) => {
                let output = Output::open(path)?;
                Ok(match format {
                    RecordFormat::Csv => Box::new(csv_file::Writer::new(output, key_column)),
                    _ => Box::new(ndjson::Writer::new(output, values_only)),
                })
            }
        }
    }
}

/// Stdout, or a file that gets its name when it is complete.
#[derive(Debug)]
enum Output {
    Stdout(BufWriter<io::Stdout>),
    File { file: BufWriter<File>, partial: PathBuf, path: PathBuf },
}

impl Output {
    fn open(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Stdout(BufWriter::with_capacity(1 << 16, io::stdout())));
        };
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).with_context(|| partial.display().to_string())?;
        Ok(Self::File { file: BufWriter::with_capacity(1 << 16, file), partial, path })
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Stdout(mut stdout) => stdout.flush().context("stdout"),
            Self::File { file, partial, path } => {
                let finish = || -> io::Result<()> {
                    file.into_inner()?.sync_all()?;
                    std::fs::rename(&partial, &path)
                };
                finish().with_context(|| path.display().to_string())
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(path: &Path, key_column: Option<&str>) -> anyhow::Result<Pairs> {
        let mut pairs = Vec::new();
        Source::new(path, None, key_column.map(str::to_owned))?.read(&mut |record| {
            pairs.push((record.key, record.value));
            Ok(())
        })?;
        pairs.sort();
        Ok(pairs)
    }

    fn write(path: &Path, format: RecordFormat, pairs: &Pairs) -> anyhow::Result<()> {
        let (key_column, values_only) = (None, false);
        let target =
            Target { path: Some(path.into()), format: Some(format), key_column, values_only };
        let mut sink = target.open()?;
        pairs.iter().try_for_each(|(key, value)| sink.write(key, value))?;
        sink.finish()
    }

    fn pairs(texts: &[(&str, &str)]) -> Pairs {
        texts
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn ndjson_holds_any_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.ndjson");
        let mut records = pairs(&[("a", "1"), ("b\n\"", ""), ("ä", "{\"x\": 1}\n")]);
        records.push((vec![0xff, 0], vec![0xfe, 10]));
        write(&file, RecordFormat::Ndjson, &records).unwrap();
        records.sort();
        assert_eq!(read(&file, None).unwrap(), records);
    }

    #[test]
    fn ndjson_lines_can_be_values_as_they_stand() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.jsonl");
        std::fs::write(&file, "{\"z\":1, \"id\": \"k1\"}\r\n\n{\"id\": 7}").unwrap();
        let records = read(&file, Some("id")).unwrap();
        assert_eq!(records, pairs(&[("7", "{\"id\": 7}"), ("k1", "{\"z\":1, \"id\": \"k1\"}")]));
        let error = read(&file, Some("z")).unwrap_err().to_string();
        assert!(error.contains("a.jsonl:3"), "{error}");
    }

    #[test]
    fn csv_keeps_columns_and_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.csv");
        let text = "zone,icao,name\nEU,EHAM,\"Schiphol, \"\"AMS\"\"\"\nEU,LFPG,Rösy\n";
        std::fs::write(&file, text).unwrap();
        let records = read(&file, Some("icao")).unwrap();
        let object = r#"{"zone":"EU","icao":"EHAM","name":"Schiphol, \"AMS\""}"#;
        assert_eq!(records[0], (b"EHAM".to_vec(), object.as_bytes().to_vec()));
        let again = directory.path().join("b.csv");
        write(&again, RecordFormat::Csv, &records).unwrap();
        assert_eq!(std::fs::read_to_string(&again).unwrap(), text);
        let error = read(&file, Some("iata")).unwrap_err().to_string();
        assert!(error.contains("zone, icao, name"), "{error}");
    }

    #[test]
    fn csv_refuses_what_does_not_fit_into_a_table() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.csv");
        for (first, second) in [
            ("{\"id\":\"a\"}", "not JSON"),
            ("{\"id\":\"a\"}", "{\"id\":\"b\",\"more\":\"x\"}"),
            ("{\"id\":\"a\"}", "{\"id\":\"c\"}"),
            ("{\"id\":\"a\"}", "{\"id\":[\"b\"]}"),
            ("{\"no\":\"key\"}", "{\"no\":\"key\"}"),
        ] {
            let error = write(&file, RecordFormat::Csv, &pairs(&[("a", first), ("b", second)]));
            assert!(error.unwrap_err().to_string().contains("ndjson"), "{second}");
            assert!(!file.exists(), "an unfinished file has no name");
        }
    }

    #[test]
    fn directories_hold_values_under_their_keys() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("out");
        let records = pairs(&[("a", "1"), ("b/c/d.txt", ""), ("b/e", "\0\n")]);
        write(&root, RecordFormat::Dir, &records).unwrap();
        assert_eq!(read(&root, None).unwrap(), records);
        let error = write(&root, RecordFormat::Dir, &records).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
    }

    #[test]
    fn no_key_leads_out_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        for key in ["../x", "/etc/x", "a/../../x", "a//b", ".", "a/", "", "a\0b"] {
            let root = directory.path().join("out");
            let error = write(&root, RecordFormat::Dir, &pairs(&[(key, "1")])).unwrap_err();
            assert!(error.to_string().contains("no path"), "{key}: {error}");
            std::fs::remove_dir(&root).unwrap();
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
