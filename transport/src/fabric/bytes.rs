//! Taking words of a message apart, for providers that tell each other something.

/// The next `N` bytes.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

/// The next eight bytes, as a number.
pub(super) fn number(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

/// All that is left, as text that can be shown.
pub(super) fn text(rest: &mut &[u8]) -> String {
    let text = String::from_utf8_lossy(std::mem::take(rest));
    text.chars().filter(|c| !c.is_control()).collect()
}
