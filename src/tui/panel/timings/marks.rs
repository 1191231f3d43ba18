//! A letter and a colour for each operation: what the table and the timeline have in common.

use std::collections::BTreeMap;

use ratatui::style::{Color, Style};

use crate::tui::theme::{Depth, Theme};

/// By name, so that they stay whatever the order of the rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Marks(BTreeMap<String, (char, usize)>);

impl Marks {
    /// The first letter of each name that no name before it in the alphabet has taken.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut marks = BTreeMap::new();
        let sorted: std::collections::BTreeSet<&str> = names.collect();
        for (i, name) in sorted.into_iter().enumerate() {
            let taken = |letter: &char| !marks.values().any(|(other, _)| other == letter);
            let letters = name.chars().filter(|c| c.is_ascii_alphanumeric());
            let letter = letters.chain('A'..='Z').find(taken).unwrap_or('?');
            marks.insert(name.to_owned(), (letter, i));
        }
        Self(marks)
    }

    fn place(&self, name: &str) -> (char, usize) {
        self.0.get(name).copied().unwrap_or(('?', 0))
    }

    fn colour(&self, name: &str, theme: &Theme) -> Color {
        theme.lane(self.place(name).1 + 1)
    }

    /// The letter in its colour.
    pub fn of(&self, name: &str, theme: &Theme) -> (char, Style) {
        (self.place(name).0, Style::new().fg(self.colour(name, theme)))
    }

    /// The letter, and the colour to stand on.
    pub fn block(&self, name: &str, theme: &Theme) -> (char, Style) {
        let style = match theme.depth {
            Depth::Mono => Style::new(),
            Depth::Ansi16 => Style::new().fg(Color::Black).bg(self.colour(name, theme)),
            _ => Style::new().fg(theme.ground).bg(self.colour(name, theme)),
        };
        (self.place(name).0, style)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_letter_of_its_own() {
        let names = ["scores", "softmax", "down", "norm", "values", "s", "so"];
        let marks = Marks::new(names.into_iter());
        let letter = |name| marks.place(name).0;
        assert_eq!(
            [letter("down"), letter("s"), letter("scores"), letter("so"), letter("softmax")],
            ['d', 's', 'c', 'o', 'f']
        );
        assert_eq!(Marks::new(names.into_iter().rev()), marks);
        assert_eq!(letter("unheard of"), '?');
    }
}
