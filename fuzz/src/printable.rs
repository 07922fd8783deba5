//! What people read of words that strangers chose.

/// Whether a terminal and a log may show it: no control, nothing that turns the direction of text or ends a line.
pub fn is_harmless(character: char) -> bool {
    let is_odd = matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    !character.is_control() && !is_odd
}

/// # Panics
/// When a line of it is not harmless.
pub fn assert_lines(text: &str) {
    for line in text.lines() {
        assert!(line.chars().all(is_harmless), "{line:?}");
    }
}
