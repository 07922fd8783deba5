//! `Escaped`: bytes of a file's name or of a peer, in the form that a terminal or a log may show.
//!
//! Printable UTF-8 stays as it is. These become `\xNN`, byte by byte in lowercase hexadecimal: C0
//! controls (newline and escape among them), DEL, C1 controls, the controls that turn the direction
//! of text, Unicode's line and paragraph separators, and every byte that is not UTF-8. A backslash
//! becomes `\\`. So the original bytes can be had back, and no name can look like another, move
//! the cursor or begin a line of its own.

use std::fmt::{self, Write};

use crate::limits::PEER_TEXT_BYTES_MAX;

/// Shows bytes without harm; see the module.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    /// Spaces, quotes and `=` are escaped as well.
    is_word: bool,
    is_cut: bool,
}

/// A name or a path, in full.
pub fn name(bytes: &[u8]) -> Escaped<'_> {
    Escaped {
        bytes,
        is_word: false,
        is_cut: false,
    }
}

/// A text from a peer: cut after `limits::PEER_TEXT_BYTES_MAX` bytes, which ` [...]` shows.
pub fn text(bytes: &[u8]) -> Escaped<'_> {
    cut(bytes, false)
}

/// A value of a `key=value` line: one word, cut as `text`, `-` where it is empty.
pub fn word(bytes: &[u8]) -> Escaped<'_> {
    cut(if bytes.is_empty() { b"-" } else { bytes }, true)
}

/// A line of JSON: what is harmful and not escaped in it yet becomes `\uNNNN`, which means the same.
pub fn json(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for character in line.chars() {
        if is_harmful(character) {
            write!(escaped, "\\u{:04x}", u32::from(character)).expect("a String takes everything");
        } else {
            escaped.push(character);
        }
    }
    escaped
}

fn cut(bytes: &[u8], is_word: bool) -> Escaped<'_> {
    Escaped {
        bytes: &bytes[..bytes.len().min(PEER_TEXT_BYTES_MAX)],
        is_word,
        is_cut: bytes.len() > PEER_TEXT_BYTES_MAX,
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character == '\\' {
                    f.write_str("\\\\")?;
                } else if is_harmful(character) || (self.is_word && breaks_word(character)) {
                    hex(f, character.encode_utf8(&mut [0; 4]).as_bytes())?;
                } else {
                    f.write_char(character)?;
                }
            }
            hex(f, chunk.invalid())?;
        }
        match (self.is_cut, self.is_word) {
            (false, _) => Ok(()),
            (true, false) => f.write_str(" [...]"),
            (true, true) => f.write_str("[...]"),
        }
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

fn is_harmful(character: char) -> bool {
    // Bidi controls are those of Unicode's UAX #9, section 2.
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

fn breaks_word(character: char) -> bool {
    character.is_whitespace() || matches!(character, '"' | '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_names_stay_as_they_are() {
        for plain in ["a b.txt", "-rf", "größe", "日本", "👩‍👩‍👧", "a=\"b\"'$(x)*"]
        {
            assert_eq!(name(plain.as_bytes()).to_string(), plain);
        }
    }

    #[test]
    fn controls_bad_utf8_bidi_and_backslashes_are_spelled_out() {
        for (bytes, shown) in [
            (&b"a\nb"[..], r"a\x0ab"),
            (b"\x1b[31m", r"\x1b[31m"),
            (b"\x7f\0", r"\x7f\x00"),
            (b"\xff\xfea\xc3", r"\xff\xfea\xc3"),
            ("\u{9b}2J".as_bytes(), r"\xc2\x9b2J"),
            ("a\u{202e}txt.exe".as_bytes(), r"a\xe2\x80\xaetxt.exe"),
            ("\u{2066}\u{2069}".as_bytes(), r"\xe2\x81\xa6\xe2\x81\xa9"),
            ("x\u{2028}y".as_bytes(), r"x\xe2\x80\xa8y"),
            (br"a\x0ab", r"a\\x0ab"),
        ] {
            assert_eq!(name(bytes).to_string(), shown);
        }
    }

    #[test]
    fn a_peers_long_text_is_cut_and_a_long_path_is_not() {
        let long = vec![b'x'; PEER_TEXT_BYTES_MAX + 1];
        let shown = text(&long).to_string();
        assert_eq!(shown.len(), PEER_TEXT_BYTES_MAX + " [...]".len());
        assert!(shown.ends_with("x [...]"));
        assert_eq!(name(&long).to_string().len(), long.len());
        assert!(!text(&long[1..]).to_string().ends_with(']'));
    }

    #[test]
    fn a_word_holds_no_space_and_is_never_empty() {
        assert_eq!(word(b"a b=\"c\"").to_string(), r"a\x20b\x3d\x22c\x22");
        assert_eq!(word("a\u{a0}b".as_bytes()).to_string(), r"a\xc2\xa0b");
        assert_eq!(word(b"").to_string(), "-");
    }
}
