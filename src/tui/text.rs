//! The one boundary between text from outside and the terminal. Whatever could move the cursor, reorder the
//! line, hide, or change the width of its neighbours is shown as a picture; nothing is dropped.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthChar;

/// Combining marks drawn on one base; further ones are spelled out.
const MARKS: usize = 3;

/// How one character is shown: as itself, or by a picture.
fn picture(c: char) -> Option<String> {
    let code = c as u32;
    match c {
        '\0'..='\x1f' => char::from_u32(0x2400 + code).map(String::from),
        '\x7f' => Some("␡".into()),
        '\u{a0}' => Some("⍽".into()),
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2000}'..='\u{200f}'
        | '\u{2028}'..='\u{202f}'
        | '\u{205f}'..='\u{206f}'
        | '\u{2800}'
        | '\u{3000}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e000}'..='\u{f8ff}'
        | '\u{e0000}'..='\u{e0fff}'
        | '\u{f0000}'..='\u{10ffff}' => Some(format!("⟨U+{code:04X}⟩")),
        _ => None,
    }
}

/// One line of text that is safe to draw: control, bidirectional, zero-width and private characters as pictures,
/// a combining mark without a base on a dotted circle.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for cluster in text.graphemes(true) {
        let mut marks = 0;
        let mut base = false;
        for c in cluster.chars() {
            if let Some(shown) = picture(c) {
                out.push_str(&shown);
                base = false;
            } else if c.width() == Some(0) {
                if !base {
                    out.push('◌');
                    base = true;
                }
                marks += 1;
                if marks <= MARKS {
                    out.push(c);
                } else {
                    out.push_str(&format!("⟨U+{:04X}⟩", c as u32));
                }
            } else {
                out.push(c);
                base = true;
                marks = 0;
            }
        }
    }
    out
}

/// A token as shown: like [`line`], with every space visible as `·`; an empty token is `∅`.
pub fn token(text: &str) -> String {
    if text.is_empty() {
        return "∅".into();
    }
    line(text).replace(' ', "·")
}

/// Columns that safe text takes on the screen.
pub fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// Safe text cut to `columns`, with `…` where something is missing.
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.into();
    }
    let mut out = String::new();
    let mut used = 0;
    for cluster in text.graphemes(true) {
        let w = width(cluster);
        if used + w + 1 > columns {
            break;
        }
        out.push_str(cluster);
        used += w;
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// Safe text broken into lines of at most `columns` at spaces where possible.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        if used > 0 && used + width(word.trim_end()) > columns {
            lines.push(String::new());
            used = 0;
        }
        for cluster in word.graphemes(true) {
            let w = width(cluster);
            if used + w > columns && cluster != " " {
                lines.push(String::new());
                used = 0;
            }
            if let Some(last) = lines.last_mut() {
                last.push_str(cluster);
            }
            used += w;
        }
    }
    lines
}

/// True where `line` would leave the text as it is: what may stand in a terminal cell.
pub fn is_safe(text: &str) -> bool {
    !text.chars().any(|c| picture(c).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_and_bidi_become_pictures() {
        assert_eq!(line("\x1b[31mred\r\n"), "␛[31mred␍␊");
        assert_eq!(line("a\u{202e}b\u{200b}c\u{feff}"), "a⟨U+202E⟩b⟨U+200B⟩c⟨U+FEFF⟩");
        assert_eq!(line("\u{9b}2J\u{7f}"), "⟨U+009B⟩2J␡");
        assert_eq!(line("\u{e0041}"), "⟨U+E0041⟩");
    }

    #[test]
    fn a_lone_mark_gets_a_base_and_a_pile_of_marks_is_spelled_out() {
        assert_eq!(line("\u{301}"), "◌\u{301}");
        assert_eq!(line("e\u{301}"), "e\u{301}");
        assert!(line(&format!("e{}", "\u{301}".repeat(50))).contains("⟨U+0301⟩"));
    }

    #[test]
    fn tokens_show_their_spaces() {
        assert_eq!(token(" Paris"), "·Paris");
        assert_eq!(token(""), "∅");
        assert_eq!(token("\n\n"), "␊␊");
    }

    #[test]
    fn fitting_counts_columns_not_characters() {
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("日本語", 6), "日本語");
        assert_eq!(fit("abc", 0), "");
    }

    #[test]
    fn wrapping_keeps_every_character() {
        let text = "one two threeeeeeeeeee four";
        let lines = wrap(text, 7);
        assert_eq!(lines.concat(), text);
        assert!(lines.iter().all(|l| width(l.trim_end()) <= 7));
    }

    proptest! {
        #[test]
        fn whatever_comes_in_is_safe_and_nothing_is_lost(text in "\\PC*|.*") {
            let shown = line(&text);
            prop_assert!(is_safe(&shown));
            prop_assert!(shown.chars().count() >= text.chars().count());
        }

        #[test]
        fn fitted_text_never_exceeds_its_columns(text in ".*", columns in 0usize..40) {
            prop_assert!(width(&fit(&line(&text), columns)) <= columns);
        }
    }
}
