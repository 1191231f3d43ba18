//! A drawn screen as text, with or without colours: for tests, demos and pictures.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr;

/// Lines of the screen without colours, trailing blanks cut.
pub fn plain(buf: &Buffer) -> String {
    lines(buf, |_, _| {}).lines().map(|l| l.trim_end().to_string() + "\n").collect()
}

/// Lines of the screen with ANSI colours.
pub fn ansi(buf: &Buffer) -> String {
    let mut last: Option<(Color, Color, Modifier)> = None;
    let mut out = lines(buf, |out, cell| {
        let style = (cell.fg, cell.bg, cell.modifier);
        if last != Some(style) {
            out.push_str("\x1b[0");
            for (modifier, code) in [
                (Modifier::BOLD, 1),
                (Modifier::DIM, 2),
                (Modifier::ITALIC, 3),
                (Modifier::UNDERLINED, 4),
                (Modifier::REVERSED, 7),
                (Modifier::CROSSED_OUT, 9),
            ] {
                if cell.modifier.contains(modifier) {
                    let _ = write!(out, ";{code}");
                }
            }
            colour(out, cell.fg, 30);
            colour(out, cell.bg, 40);
            out.push('m');
            last = Some(style);
        }
    });
    out.push_str("\x1b[0m");
    out
}

fn colour(out: &mut String, colour: Color, base: u8) {
    let plain = |n: u8| if n < 8 { base + n } else { base + 60 + n - 8 };
    let code = match colour {
        Color::Reset => return,
        Color::Rgb(r, g, b) => {
            let _ = write!(out, ";{};2;{r};{g};{b}", base + 8);
            return;
        }
        Color::Indexed(i) => {
            let _ = write!(out, ";{};5;{i}", base + 8);
            return;
        }
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 8,
        Color::LightRed => 9,
        Color::LightGreen => 10,
        Color::LightYellow => 11,
        Color::LightBlue => 12,
        Color::LightMagenta => 13,
        Color::LightCyan => 14,
        Color::White => 15,
    };
    let _ = write!(out, ";{}", plain(code));
}

fn lines(buf: &Buffer, mut before: impl FnMut(&mut String, &Cell)) -> String {
    let mut out = String::new();
    for y in buf.area.top()..buf.area.bottom() {
        let mut x = buf.area.left();
        while x < buf.area.right() {
            let cell = &buf[(x, y)];
            before(&mut out, cell);
            out.push_str(cell.symbol());
            // The cell after a wide character belongs to it.
            x += (cell.symbol().width() as u16).max(1);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    #[test]
    fn colours_are_written_once_and_wide_characters_take_two_cells() {
        let mut buf = Buffer::empty(Rect::new(0, 0, 4, 1));
        buf.set_string(0, 0, "日a", Style::new().fg(Color::Rgb(1, 2, 3)));
        assert_eq!(plain(&buf), "日a\n");
        assert_eq!(ansi(&buf), "\x1b[0;38;2;1;2;3m日a\x1b[0m \n\x1b[0m");
    }
}
