//! The date that some templates put into the system prompt, in UTC.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Error, ErrorKind};

const MONTHS: [&str; 12] = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// `format` with the directives of C's strftime that dates and times need; `-` before one drops its leading zero.
pub(super) fn utc(format: &str, now: SystemTime) -> Result<String, Error> {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let month_name = MONTHS[month as usize - 1];
    let day_name = DAYS[(days % 7) as usize];

    let mut out = String::with_capacity(format.len() + 16);
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut directive = letters.next();
        let padded = directive != Some('-');
        if !padded {
            directive = letters.next();
        }
        let number = match directive {
            Some('Y') => Ok(year),
            Some('m') => Ok(month),
            Some('d') => Ok(day),
            Some('H') => Ok(hour),
            Some('I') => Ok((hour + 11) % 12 + 1),
            Some('M') => Ok(minute),
            Some('S') => Ok(second),
            Some('y') => Ok(year % 100),
            Some('B') => Err(month_name),
            Some('b') => Err(&month_name[..3]),
            Some('A') => Err(day_name),
            Some('a') => Err(&day_name[..3]),
            Some('p') => Err(if hour < 12 { "AM" } else { "PM" }),
            Some('%') => Err("%"),
            other => {
                let shown = other.map_or_else(|| "a lone %".to_owned(), |letter| format!("%{letter}"));
                return Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know {shown}")));
            }
        };
        // Writing to a String cannot fail.
        let _ = match number {
            Ok(number) if padded => write!(out, "{number:02}"),
            Ok(number) => write!(out, "{number}"),
            Err(text) => out.write_str(text),
        };
    }
    Ok(out)
}

/// (year, month, day) of a day counted from 1970-01-01. Years begin in March here, so that the leap day comes last
/// and month lengths follow one formula; 719,468 days lie between 0000-03-01 and 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(19_783), (2024, 3, 1));
        assert_eq!(civil(20_453), (2025, 12, 31));
    }

    #[test]
    fn directives() {
        let at = UNIX_EPOCH + Duration::from_secs(1_722_004_205);
        assert_eq!(utc("%d %b %Y", at).unwrap(), "26 Jul 2024");
        assert_eq!(utc("%A, %B %-d %y, %H:%M:%S %I %p 100%%", at).unwrap(), "Friday, July 26 24, 14:30:05 02 PM 100%");
        assert!(utc("%Q", at).is_err());
        assert!(utc("%", at).is_err());
    }
}
