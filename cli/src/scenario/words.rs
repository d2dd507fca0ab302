//! The words of one command, taken one after the other; what does not fit is told with its line and what is allowed.

use std::fmt::Display;

use thiserror::Error;

/// A command that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: found {found}; allowed: {allowed}")]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    found: String,
    allowed: String,
}

/// A word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    /// Quoted words are never keywords.
    quoted: bool,
}

/// The words that are left of a command.
#[derive(Debug)]
pub(crate) struct Words {
    line: usize,
    words: std::vec::IntoIter<Word>,
}

/// Words of their own, wherever they stand outside quotes.
const MARKS: [char; 4] = ['{', '}', '|', ','];

impl Words {
    /// Splits a command at blanks. `"..."` is one word, in which `\"`, `\\` and `\n` stand for a quote, a backslash
    /// and a new line; braces, bars and commas are words.
    ///
    /// # Errors
    /// A quote that is not closed, an unknown escape.
    pub(crate) fn split(line: usize, text: &str) -> Result<Self, SyntaxError> {
        let wrong = |found: &str, allowed: &str| {
            Err(SyntaxError { line, found: found.into(), allowed: allowed.into() })
        };
        let mut words: Vec<Word> = Vec::new();
        let mut open: Option<String> = None;
        let mut chars = text.chars();
        let end = |open: &mut Option<String>, words: &mut Vec<Word>| {
            words.extend(open.take().map(|text| Word { text, quoted: false }));
        };
        while let Some(char) = chars.next() {
            match char {
                '"' if open.is_none() => {
                    let mut text = String::new();
                    loop {
                        match chars.next() {
                            Some('"') => break,
                            Some('\\') => match chars.next() {
                                Some(escaped @ ('"' | '\\')) => text.push(escaped),
                                Some('n') => text.push('\n'),
                                other => {
                                    let found = format!("\\{}", other.unwrap_or(' '));
                                    return wrong(&found, r#"\", \\ or \n within quotes"#);
                                }
                            },
                            Some(other) => text.push(other),
                            None => return wrong("the end of the line", "a closing quote"),
                        }
                    }
                    words.push(Word { text, quoted: true });
                }
                blank if blank.is_whitespace() => end(&mut open, &mut words),
                mark if MARKS.contains(&mark) => {
                    end(&mut open, &mut words);
                    words.push(Word { text: mark.into(), quoted: false });
                }
                other => open.get_or_insert_default().push(other),
            }
        }
        end(&mut open, &mut words);
        Ok(Self { line, words: words.into_iter() })
    }

    fn peek(&self) -> Option<&Word> {
        self.words.as_slice().first()
    }

    /// The error that the next word is not what is allowed.
    pub(crate) fn wrong(&self, allowed: impl Display) -> SyntaxError {
        let found = self.peek().map_or("the end of the line".into(), |word| {
            if word.quoted { format!("{:?}", word.text) } else { format!("`{}`", word.text) }
        });
        SyntaxError { line: self.line, found, allowed: allowed.to_string() }
    }

    /// The error that a word which was taken is none of those allowed.
    pub(crate) fn unknown(&self, found: &str, allowed: impl Display) -> SyntaxError {
        let (found, allowed) = (format!("`{found}`"), allowed.to_string());
        SyntaxError { line: self.line, found, allowed }
    }

    /// Takes these keywords, several separated by blanks, if they come next.
    pub(crate) fn take(&mut self, keywords: &str) -> bool {
        let mut ahead = self.words.as_slice().iter();
        let all = keywords
            .split(' ')
            .all(|keyword| ahead.next().is_some_and(|word| !word.quoted && word.text == keyword));
        if all {
            self.words.nth(keywords.split(' ').count() - 1);
        }
        all
    }

    /// Takes these keywords.
    pub(crate) fn expect(&mut self, keywords: &str) -> Result<(), SyntaxError> {
        match self.take(keywords) {
            true => Ok(()),
            false => Err(self.wrong(format_args!("`{keywords}`"))),
        }
    }

    /// Takes one of these words, which mean what stands beside them.
    pub(crate) fn choice<T: Copy>(&mut self, choices: &[(&str, T)]) -> Result<T, SyntaxError> {
        for (keywords, meaning) in choices {
            if self.take(keywords) {
                return Ok(*meaning);
            }
        }
        let allowed: Vec<String> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
        Err(self.wrong(allowed.join(", ")))
    }

    /// Takes a word, quoted or not.
    pub(crate) fn text(&mut self, what: &str) -> Result<String, SyntaxError> {
        match self.peek() {
            Some(word)
                if word.quoted || !MARKS.iter().any(|mark| word.text == mark.to_string()) =>
            {
                Ok(self.words.next().expect("just seen").text)
            }
            _ => Err(self.wrong(what)),
        }
    }

    /// Takes a whole number.
    pub(crate) fn number(&mut self, what: &str) -> Result<u32, SyntaxError> {
        let number = self.peek().and_then(|word| word.text.parse().ok());
        let number = number.ok_or_else(|| self.wrong(format_args!("{what}, a whole number")))?;
        self.words.next();
        Ok(number)
    }

    /// Takes a list of words separated by commas.
    pub(crate) fn list(&mut self, what: &str) -> Result<Vec<String>, SyntaxError> {
        let mut list = vec![self.text(what)?];
        while self.take(",") {
            list.push(self.text(what)?);
        }
        Ok(list)
    }

    /// Everything that is left, as words.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        self.words.by_ref().map(|word| word.text).collect()
    }

    /// The next word, if it is not quoted.
    pub(crate) fn next_text(&self) -> Option<&str> {
        self.peek().filter(|word| !word.quoted).map(|word| word.text.as_str())
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.peek().is_none()
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), SyntaxError> {
        if self.is_empty() { Ok(()) } else { Err(self.wrong("the end of the line")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_separated_by_blanks_and_marks_and_quotes_keep_them_together() {
        let mut words = Words::split(1, r#"put "a \"b\", {c}" {x,y}"#).unwrap();
        assert_eq!(words.rest(), ["put", r#"a "b", {c}"#, "{", "x", ",", "y", "}"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_what_is_allowed() {
        let mut words = Words::split(7, "start \"all\"").unwrap();
        assert!(words.take("start"));
        let error = words.choice(&[("all", 1), ("nodes", 2)]).unwrap_err();
        assert_eq!(error.to_string(), "line 7: found \"all\"; allowed: `all`, `nodes`");
        let error = Words::split(2, "put \"a").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: found the end of the line; allowed: a closing quote"
        );
    }
}
