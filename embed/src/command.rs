//! A command as the value of a key: `TWR1`, then the command in postcard (docs/formats/replicated.md).

use serde::{Serialize, de::DeserializeOwned};

const MAGIC: &[u8; 4] = b"TWR1";

/// The value that stands for a command.
pub(crate) fn encode<C: Serialize>(command: &C) -> postcard::Result<Vec<u8>> {
    postcard::to_extend(command, MAGIC.to_vec())
}

/// The command that a value of a state machine's key stands for, for tools that read ledgers; `None` if it is something
/// else, which somebody put there by other means.
///
/// # Errors
/// If it is a command, but not one of these.
pub fn decode_command<C: DeserializeOwned>(value: &[u8]) -> Result<Option<C>, String> {
    let Some(bytes) = value.strip_prefix(MAGIC) else { return Ok(None) };
    match postcard::take_from_bytes(bytes) {
        Ok((command, [])) => Ok(Some(command)),
        Ok((_, rest)) => Err(format!("{} bytes follow it", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_these_bytes_for_ever_and_nothing_else_is_one() {
        let command = (7_u32, String::from("KL601"));
        let bytes = b"TWR1\x07\x05KL601";
        assert_eq!(encode(&command).unwrap(), bytes);
        assert_eq!(decode_command(bytes).unwrap(), Some(command));
        assert_eq!(decode_command::<(u32, String)>(b"TWR2\x07\x05KL601").unwrap(), None);
        assert_eq!(decode_command::<(u32, String)>(b"TWR").unwrap(), None);
        for bad in [&bytes[..10], b"TWR1\x07\x05KL6011"] {
            decode_command::<(u32, String)>(bad).unwrap_err();
        }
    }
}
