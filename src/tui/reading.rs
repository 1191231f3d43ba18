//! What a step read of a cache, in words.

use crate::engine::frame::Reads;
use crate::tui::units;

/// `reads 12 % of 3.2 MiB held (0.1 MiB of it to choose by), covers 97 % of the mass, 61 % at worst`: as much of it as
/// `width` columns hold. Empty before a layer was reached.
pub fn line(reads: &Reads, width: usize) -> String {
    let Some((mean, least)) = reads.covers() else { return String::new() };
    let percent = |share: f64| units::percent(share).trim().to_owned();
    let share = format!("reads {} of {}", percent(reads.share()), units::bytes(reads.bytes_of_all()));
    let metadata = reads.metadata.iter().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
    let chosen_by = match metadata {
        0 => String::new(),
        bytes => format!(" ({} of it to choose by)", units::bytes(bytes)),
    };
    let covers = format!("covers {} of the mass", percent(mean as f64));
    let worst = format!("{} at worst", percent(least as f64));
    let longest_first = [
        format!("{share} held{chosen_by}, {covers}, {worst}"),
        format!("{share} held, {covers}, {worst}"),
        format!("{share} held, {covers}"),
        format!("{share}, {covers}"),
        share,
    ];
    longest_first.into_iter().find(|words| words.chars().count() <= width).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_fits() {
        let mut reads = Reads {
            bytes: vec![100, 50],
            bytes_seen: vec![400, 400],
            metadata: vec![0, 50],
            covered: vec![1.0, 0.5, f32::NAN],
            ..Reads::default()
        };
        let whole = "reads 25 % of 800 B held (50 B of it to choose by), covers 75 % of the mass, 50 % at worst";
        assert_eq!(line(&reads, 100), whole);
        assert_eq!(line(&reads, 50), "reads 25 % of 800 B held, covers 75 % of the mass");
        assert_eq!(line(&reads, 20), "reads 25 % of 800 B");
        assert_eq!(line(&reads, 5), "");
        reads.covered = vec![f32::NAN];
        assert_eq!(line(&reads, 100), "");
    }
}
