//! Tokens of a prompt with some of its parts in another order.

use std::ops::Range;

/// A prompt whose parts have changed places.
#[derive(Debug, Clone, PartialEq)]
pub struct Arranged {
    pub ids: Vec<u32>,
    /// Where each part is now, by which it was [parts].
    pub parts: Vec<Range<usize>>,
}

/// `parts`: ascending, none reaches into another. Part `order[i]` comes to stand in the place of part i; what is between
/// them stays.
pub fn arrange(ids: &[u32], parts: &[Range<usize>], order: &[usize]) -> Arranged {
    let mut arranged = Arranged { ids: Vec::with_capacity(ids.len()), parts: vec![0..0; parts.len()] };
    let mut read = 0;
    for (place, &part) in parts.iter().zip(order) {
        arranged.ids.extend(&ids[read..place.start]);
        let from = arranged.ids.len();
        arranged.ids.extend(&ids[parts[part].clone()]);
        arranged.parts[part] = from..arranged.ids.len();
        read = place.end;
    }
    arranged.ids.extend(&ids[read..]);
    arranged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_change_places_and_the_rest_stays() {
        let ids: Vec<u32> = (0..12).collect();
        let parts = [1..3, 4..8, 8..9];
        let own = arrange(&ids, &parts, &[0, 1, 2]);
        assert_eq!((own.ids, own.parts), (ids.clone(), parts.to_vec()));
        let other = arrange(&ids, &parts, &[1, 2, 0]);
        assert_eq!(other.ids, [0, 4, 5, 6, 7, 3, 8, 1, 2, 9, 10, 11]);
        assert_eq!(other.parts, [7..9, 1..5, 6..7]);
        for (now, then) in other.parts.iter().zip(&parts) {
            assert_eq!(other.ids[now.clone()], ids[then.clone()]);
        }
    }
}
