//! A scenario file: prose, commands, and below each command what it is expected to print.
//!
//! ```text
//! # A line that begins with a number sign, or is empty, is prose.
//! > put runway/27L open
//! written: value 1 of runway/27L
//! ```
//!
//! What is expected ends at the next prose or command. `[..]` in it stands for anything.

use super::command::{self, Command, Scope};
use super::words::SyntaxError;

/// What a command line begins with.
const PROMPT: &str = "> ";
/// Stands for anything in an expected line.
const ANYTHING: &str = "[..]";

/// A scenario.
#[derive(Debug)]
pub(crate) struct Script {
    lines: Vec<String>,
    pub(crate) steps: Vec<Step>,
    /// Everything that the commands declare and name.
    pub(crate) scope: Scope,
}

/// A command of a scenario.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Its line, counted from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) command: Command,
    /// What it is expected to print.
    pub(crate) expected: Vec<String>,
}

impl Script {
    /// Reads a file's text.
    ///
    /// # Errors
    /// All faults of all lines.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<SyntaxError>> {
        let lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
        let (mut steps, mut faults, mut scope) = (Vec::<Step>::new(), Vec::new(), Scope::default());
        let mut expecting = false;
        for (index, line) in lines.iter().enumerate() {
            let number = index + 1;
            if let Some(text) = line.strip_prefix(PROMPT) {
                expecting = true;
                match command::parse(number, text, &mut scope) {
                    Ok(command) => steps.push(Step {
                        line: number,
                        text: text.into(),
                        command,
                        expected: Vec::new(),
                    }),
                    Err(fault) => faults.push(fault),
                }
            } else if is_prose(line) {
                expecting = false;
            } else if !expecting {
                faults.push(command::stray(number, line));
            } else if let Some(step) = steps.last_mut() {
                step.expected.push(line.clone());
            }
        }
        if faults.is_empty() { Ok(Self { lines, steps, scope }) } else { Err(faults) }
    }

    /// The file's text with what was really printed; expectations that hold stay as they are, `[..]` and all.
    pub(crate) fn blessed(&self, found: &[Vec<String>]) -> String {
        let mut text = String::new();
        let mut at = 0;
        for (step, found) in self.steps.iter().zip(found) {
            for line in &self.lines[at..step.line] {
                text += line;
                text.push('\n');
            }
            let lines = if matches(&step.expected, found) { &step.expected } else { found };
            for line in lines {
                text += line;
                text.push('\n');
            }
            at = step.line + step.expected.len();
        }
        for line in &self.lines[at..] {
            text += line;
            text.push('\n');
        }
        text
    }
}

fn is_prose(line: &str) -> bool {
    line.is_empty() || line.starts_with('#')
}

/// Lines as they may stand below a command: no empty ones, none that looks like prose or a command.
pub(crate) fn presentable(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let indent = |line: &str| {
        let disguised = line.starts_with('#') || line.starts_with('>');
        if disguised { format!(" {line}") } else { line.to_owned() }
    };
    lines.map(indent).collect()
}

/// Whether what was printed is what was expected.
pub(crate) fn matches(expected: &[String], found: &[String]) -> bool {
    expected.len() == found.len()
        && expected.iter().zip(found).all(|(expected, found)| line_matches(expected, found))
}

fn line_matches(expected: &str, found: &str) -> bool {
    let mut parts = expected.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = found.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The lines of both, marked: `-` expected only, `+` found only.
pub(crate) fn diff(expected: &[String], found: &[String]) -> String {
    let (mut text, mut at) = (String::new(), 0);
    for line in expected {
        match found[at..].iter().position(|found| line_matches(line, found)) {
            Some(ahead) => {
                found[at..at + ahead].iter().for_each(|line| text += &format!("  + {line}\n"));
                text += &format!("    {line}\n");
                at += ahead + 1;
            }
            None => text += &format!("  - {line}\n"),
        }
    }
    found[at..].iter().for_each(|line| text += &format!("  + {line}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# Prose.\n> site ams with 3 nodes\n\n> put k v\nold\n> get k\nold [..]\n\n# End.\n";

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_was_printed_takes_the_place_of_what_was_expected_unless_that_holds() {
        let script = Script::parse(TEXT).unwrap();
        assert_eq!(script.steps.len(), 3);
        let blessed = script.blessed(&[vec![], lines("new\nlines"), lines("old thing")]);
        let want = "# Prose.\n> site ams with 3 nodes\n\n> put k v\nnew\nlines\n> get k\nold [..]\n\n# End.\n";
        assert_eq!(blessed, want);
    }

    #[test]
    fn all_faults_are_told() {
        let faults = Script::parse("stray\n> sit ams\n> start all\n").unwrap_err();
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(told[0].starts_with("line 1: found `stray`; allowed: "), "{told:?}");
        assert!(told[1].starts_with("line 2: found `sit`; allowed: "), "{told:?}");
        assert!(told[2].contains("line 3") && told[2].contains("site"), "{told:?}");
    }

    #[test]
    fn anything_matches_anything_and_a_diff_shows_both_sides() {
        let found = lines("a is 17 big\nb");
        assert!(matches(&lines("a is [..] big\nb"), &found));
        assert!(!matches(&lines("a is [..] small\nb"), &found));
        assert!(!matches(&lines("a is [..]"), &found));
        assert_eq!(diff(&lines("c\nb"), &found), "  - c\n  + a is 17 big\n    b\n");
    }
}
