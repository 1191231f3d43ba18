//! How a vocabulary writes bytes down.

use std::borrow::Cow;

/// The spelling of pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// GPT-2's: every byte is a printable character (`Ġ` is the space).
    ByteLevel,
    /// SentencePiece's: `▁` is the space, `<0x0A>` a single byte.
    Metaspace,
}

pub(super) const SPACE: char = '\u{2581}';

impl Alphabet {
    /// The bytes that a piece stands for.
    pub fn bytes(self, piece: &str) -> Cow<'_, [u8]> {
        match self {
            Alphabet::ByteLevel => {
                let mut bytes = Vec::with_capacity(piece.len());
                for letter in piece.chars() {
                    match byte_of(letter) {
                        Some(byte) => bytes.push(byte),
                        None => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
                Cow::Owned(bytes)
            }
            Alphabet::Metaspace => match byte_piece(piece) {
                Some(byte) => Cow::Owned(vec![byte]),
                None if piece.contains(SPACE) => Cow::Owned(piece.replace(SPACE, " ").into_bytes()),
                None => Cow::Borrowed(piece.as_bytes()),
            },
        }
    }
}

/// Whether GPT-2's alphabet writes this byte as the character of the same number.
const fn is_own_letter(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The letters of all bytes: printable ones are themselves, the others follow from U+0100 on in order.
pub(super) fn letters() -> [char; 256] {
    let mut next = 0x100u32;
    let mut letters = ['\0'; 256];
    for byte in 0..=255u8 {
        letters[byte as usize] = if is_own_letter(byte) {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or_default()
        };
    }
    letters
}

fn byte_of(letter: char) -> Option<u8> {
    match u8::try_from(letter) {
        Ok(byte) => is_own_letter(byte).then_some(byte),
        Err(_) => {
            let index = (letter as u32).checked_sub(0x100)? as usize;
            (0..=255u8).filter(|byte| !is_own_letter(*byte)).nth(index)
        }
    }
}

/// The byte that `<0x0A>` and its like stand for.
pub(super) fn byte_piece(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2 && !digits.starts_with('+')).then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_letter() {
        let letters = letters();
        for byte in 0..=255u8 {
            assert_eq!(byte_of(letters[byte as usize]), Some(byte));
        }
        assert_eq!((letters[b' ' as usize], letters[b'\n' as usize], letters[0xAD]), ('Ġ', 'Ċ', 'Ń'));
    }

    #[test]
    fn byte_pieces_are_exact() {
        assert_eq!(byte_piece("<0x0A>"), Some(10));
        assert_eq!(byte_piece("<0xfF>"), Some(255));
        for other in ["<0x0>", "<0x+A>", "<0x0AA>", "0x0A", "<0xé>", "<0x>"] {
            assert_eq!(byte_piece(other), None, "{other}");
        }
    }
}
