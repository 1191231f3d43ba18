//! How much: a share of a whole, or a number of tokens. Exact: no float decides how many entries stay.

use std::fmt;
use std::str::FromStr;

/// Decimals that a percentage may have.
const DECIMALS: u32 = 6;
/// Steps in one percent.
const STEPS: u32 = 10u32.pow(DECIMALS);

/// `N%` of a whole, or `N` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    Share(Share),
    Tokens(u32),
}

/// Percentage from 0 to 100 in millionths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

impl Amount {
    /// Whole percents; more than 100 counts as 100.
    pub const fn percent(n: u32) -> Self {
        Self::Share(Share((if n > 100 { 100 } else { n }) * STEPS))
    }

    /// ⌊whole · share⌋ tokens, or the number of tokens as it stands.
    pub fn of(self, whole: usize) -> usize {
        match self {
            Self::Share(Share(steps)) => (whole as u128 * steps as u128 / (100 * STEPS) as u128) as usize,
            Self::Tokens(n) => n as usize,
        }
    }

    /// whole · share, or the number of tokens, not rounded.
    pub fn mean(self, whole: usize) -> f64 {
        match self {
            Self::Share(Share(steps)) => whole as f64 * steps as f64 / (100 * STEPS) as f64,
            Self::Tokens(n) => n as f64,
        }
    }

    pub fn is_zero(self) -> bool {
        matches!(self, Self::Share(Share(0)) | Self::Tokens(0))
    }

    /// 100%: everything, however long it grows.
    pub fn is_everything(self) -> bool {
        self == Self::percent(100)
    }
}

impl FromStr for Amount {
    type Err = NotAnAmount;

    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        match text.strip_suffix('%') {
            Some(number) => share(number).map(Self::Share),
            None => digits(text).map(Self::Tokens),
        }
        .ok_or(NotAnAmount)
    }
}

/// Neither `N%` (0 to 100, at most six decimals) nor `N` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnAmount;

fn digits(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn share(number: &str) -> Option<Share> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.len() > DECIMALS as usize {
        return None;
    }
    let fraction = digits(fraction)? * 10u32.pow(DECIMALS - fraction.len() as u32);
    let steps = digits(whole)?.checked_mul(STEPS)?.checked_add(fraction)?;
    (steps <= 100 * STEPS).then_some(Share(steps))
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(n) => write!(f, "{n}"),
            Self::Share(Share(steps)) if steps % STEPS == 0 => write!(f, "{}%", steps / STEPS),
            Self::Share(Share(steps)) => {
                let decimals = format!("{:06}", steps % STEPS);
                write!(f, "{}.{}%", steps / STEPS, decimals.trim_end_matches('0'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str, whole: usize) -> usize {
        text.parse::<Amount>().unwrap().of(whole)
    }

    #[test]
    fn shares_are_floored_exactly() {
        assert_eq!(of("50%", 465), 232);
        assert_eq!(of("12.5%", 1000), 125);
        assert_eq!(of("12.5%", 7), 0);
        // 0.07 · 100 is 7.000000000000001 in f64, 0.29 · 100 is 28.999999999999996
        assert_eq!(of("7%", 100), 7);
        assert_eq!(of("29%", 100), 29);
        assert_eq!(of("100%", usize::MAX), usize::MAX);
        assert_eq!(of("0.000001%", 100_000_000), 1);
        assert_eq!(of("256", 10), 256);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "%", "-1%", "+5", "1e2", "100.1%", "50.%", ".5%", "0.0000001%", "50 %", "4294967296", "½%", "5%%"]
        {
            assert_eq!(text.parse::<Amount>(), Err(NotAnAmount), "{text}");
        }
    }

    proptest! {
        #[test]
        fn display_reads_back(steps in 0..=100 * STEPS, tokens: u32) {
            for amount in [Amount::Share(Share(steps)), Amount::Tokens(tokens)] {
                prop_assert_eq!(amount.to_string().parse(), Ok(amount));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            if let Ok(amount) = text.parse::<Amount>() {
                prop_assert!(amount.of(1000) <= u32::MAX as usize);
            }
        }
    }
}
