//! The document of a prompt in pieces: its paragraphs, or its lines.

use std::ops::Range;

use super::{PromptSpan, PromptText};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Paragraph,
    Line,
}

impl PromptText {
    /// Pieces of the span `document`, none of them blank; blank lines belong to what stands before them. None where the
    /// prompt has no document.
    pub fn document_parts(&self, unit: Unit) -> Vec<PromptSpan> {
        let Some(document) = self.spans().into_iter().find(|span| &*span.name == "document") else { return Vec::new() };
        let at = |token: u32| self.starts.get(token as usize).copied().unwrap_or(self.bytes.len());
        let range = self.trimmed(at(document.from)..at(document.to));
        let begins = self.begins(range.clone(), unit);
        let ends = begins.iter().skip(1).copied().chain([range.end]);
        let name = match unit {
            Unit::Paragraph => "paragraph",
            Unit::Line => "line",
        };
        let pieces = begins.iter().zip(ends).enumerate();
        pieces.filter_map(|(i, (&from, to))| self.span(&format!("{name} {i}"), from, to)).collect()
    }

    /// Where pieces begin: behind line breaks, where something follows and, of paragraphs, a blank line lies between.
    fn begins(&self, range: Range<usize>, unit: Unit) -> Vec<usize> {
        let mut begins = Vec::new();
        // Line breaks since the last character that is no blank; a document begins as behind a blank line.
        let mut breaks = 2;
        let mut line = range.start;
        for at in range {
            match self.bytes[at] {
                b'\n' => (breaks, line) = (breaks + 1, at + 1),
                byte if byte.is_ascii_whitespace() => {}
                _ => {
                    if breaks >= if unit == Unit::Line { 1 } else { 2 } {
                        begins.push(line);
                    }
                    breaks = 0;
                }
            }
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(tokens: &[&str], unit: Unit) -> Vec<(u32, u32)> {
        let text = PromptText::new(tokens.iter().map(|t| (t.as_bytes(), t.starts_with('<'))));
        text.document_parts(unit).iter().map(|span| (span.from, span.to)).collect()
    }

    #[test]
    fn paragraphs_and_lines_cover_the_document() {
        let tokens = ["<bos>", "A", " b", "\n", "  c", "\n", "\n", "D", "\n", " \n", "E", "\n\n", "Why", "?"];
        assert_eq!(pieces(&tokens, Unit::Paragraph), [(1, 7), (7, 10), (10, 12)]);
        assert_eq!(pieces(&tokens, Unit::Line), [(1, 4), (4, 7), (7, 10), (10, 12)]);
        assert!(pieces(&["A", " b"], Unit::Line).is_empty());
    }
}
