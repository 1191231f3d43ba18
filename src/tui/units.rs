//! Numbers with their units, short and of steady width.

/// Bytes in binary units: `512 B`, `12.3 MiB`.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{n} B") } else { format!("{} {unit}", three(value)) }
}

/// Nanoseconds: `850 ns`, `1.23 ms`.
pub fn nanos(ns: f64) -> String {
    match ns {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{} µs", three(n / 1e3)),
        n if n < 1e9 => format!("{} ms", three(n / 1e6)),
        n => format!("{} s", three(n / 1e9)),
    }
}

/// Three significant digits without an exponent, for 0 ≤ value < 10⁴.
fn three(value: f64) -> String {
    match value.abs() {
        v if v < 9.995 => format!("{value:.2}"),
        v if v < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A measured number in at most 7 columns; `–` where there is none.
pub fn number(value: f32) -> String {
    let v = value.abs();
    match v {
        _ if value.is_nan() => "–".into(),
        _ if value.is_infinite() => if value > 0.0 { "∞" } else { "-∞" }.into(),
        0.0 => "0".into(),
        v if v < 0.001 => format!("{value:.0e}"),
        v if v < 1.0 => format!("{value:.3}"),
        v if v < 10_000.0 => three(value as f64),
        v if v < 1e6 => format!("{:.1}k", value / 1e3),
        _ => format!("{value:.0e}"),
    }
}

/// A count with a narrow gap every three digits.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(d);
    }
    out
}

/// Parameters, operations: `135 M`, `4.2 G`.
pub fn si(value: f64) -> String {
    match value {
        v if v < 1e3 => three(v),
        v if v < 1e6 => format!("{} k", three(v / 1e3)),
        v if v < 1e9 => format!("{} M", three(v / 1e6)),
        v if v < 1e12 => format!("{} G", three(v / 1e9)),
        v => format!("{} T", three(v / 1e12)),
    }
}

pub fn percent(share: f64) -> String {
    // a little below zero is no negative zero
    if share.is_finite() { format!("{:.0} %", (share * 100.0).round_ties_even() + 0.0) } else { "–".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_change_where_they_should() {
        assert_eq!([bytes(0), bytes(999), bytes(98 << 20)], ["0 B", "999 B", "98.0 MiB"]);
        assert_eq!([nanos(850.0), nanos(1_230_000.0), nanos(2.5e9)], ["850 ns", "1.23 ms", "2.50 s"]);
        assert_eq!([count(7), count(1234), count(134_515_008)], ["7", "1 234", "134 515 008"]);
        assert_eq!([si(134_515_008.0), si(4.2e9)], ["135 M", "4.20 G"]);
    }

    #[test]
    fn every_float_has_a_short_spelling() {
        for v in [0.0, 1e-9, 0.0004, 0.25, 3.25, 47.0, 1432.5, 94_232.0, 7e8, -0.25, f32::NAN, f32::INFINITY] {
            assert!(number(v).chars().count() <= 7, "{v}: {}", number(v));
        }
        assert_eq!([number(0.25), number(1432.4), number(94_232.0)], ["0.250", "1432", "94.2k"]);
    }
}
