//! Kubernetes quantities (`100m`, `1.5Gi`, `2e3`), exactly, in billionths.
//!
//! The grammar is `<sign><number><suffix>`; a suffix is binary (`Ki` to `Ei`), decimal (`n`, `u`,
//! `m`, none, `k` to `E`) or a decimal exponent (`e3`, `E-2`). As upstream does, what is finer
//! than a billionth is rounded away from zero and what exceeds 2^63-1 is cut there.

use std::cmp::Ordering;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// Billionths in one.
const NANOS: i128 = 1_000_000_000;
/// The largest number a quantity may hold, in billionths.
const MAX: i128 = (i64::MAX as i128) * NANOS;
/// Digits behind the decimal point that are kept exactly before rounding.
const FRACTION_DIGITS: usize = 18;
/// Longest text that is read. The API server writes at most some thirty characters.
const MAX_TEXT: usize = 256;

/// An exact number with nine decimal places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nanos: i128,
}

/// A text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text has no digits, or characters where none belong.
    #[error(
        "`{0}` is no quantity: expected a number with an optional suffix such as 100m, 1.5Gi or 2e3"
    )]
    Number(String),
    /// The number is followed by something that is no suffix.
    #[error(
        "`{text}` is no quantity: unknown suffix `{suffix}`, expected n u m k M G T P E, Ki Mi Gi Ti Pi Ei or an exponent"
    )]
    Suffix {
        /// The whole text.
        text: String,
        /// What stands behind the number.
        suffix: String,
    },
}

/// A suffix, taken apart.
enum Scale {
    Decimal(i64),
    Binary(u32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "" => Self::Decimal(0),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E'])?;
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                // Beyond some hundred every number is zero or too large anyway.
                let value = digits.parse::<i64>().unwrap_or(i64::MAX).min(1_000);
                Self::Decimal(if exponent.starts_with('-') {
                    -value
                } else {
                    value
                })
            }
        })
    }
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0 };

    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError::Number(text.chars().take(64).collect());
        if text.len() > MAX_TEXT {
            return Err(bad());
        }
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest
            .bytes()
            .position(|b| !b.is_ascii_digit() && b != b'.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (int, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (int.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(bad());
        }
        let scale = Scale::parse(suffix).ok_or_else(|| QuantityError::Suffix {
            text: text.to_owned(),
            suffix: suffix.to_owned(),
        })?;
        let magnitude = magnitude(int.as_bytes(), fraction.as_bytes(), &scale);
        Ok(Self {
            nanos: if negative { -magnitude } else { magnitude },
        })
    }

    /// A whole number.
    pub fn from_units(units: u64) -> Self {
        Self {
            nanos: (i128::from(units) * NANOS).min(MAX),
        }
    }

    /// Thousandths.
    pub fn from_millis(millis: u64) -> Self {
        Self {
            nanos: (i128::from(millis) * (NANOS / 1_000)).min(MAX),
        }
    }

    /// The number, rounded up; nothing for negative ones.
    pub fn units(self) -> u64 {
        self.in_steps_of(NANOS)
    }

    /// The number in thousandths, rounded up; nothing for negative ones.
    pub fn millis(self) -> u64 {
        self.in_steps_of(NANOS / 1_000)
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The number if it is whole and not negative.
    pub fn whole(self) -> Option<u64> {
        (self.nanos >= 0 && self.nanos % NANOS == 0).then(|| self.units())
    }

    /// The sum, cut at 2^63-1.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            nanos: (self.nanos + other.nanos).clamp(-MAX, MAX),
        }
    }

    fn in_steps_of(self, step: i128) -> u64 {
        let steps = self.nanos.max(0).div_euclid(step) + i128::from(self.nanos.max(0) % step != 0);
        u64::try_from(steps).unwrap_or(u64::MAX)
    }
}

/// `int.fraction * scale` in billionths, rounded up and cut at [`MAX`].
fn magnitude(int: &[u8], fraction: &[u8], scale: &Scale) -> i128 {
    let digits: Vec<u8> = int.iter().chain(fraction).map(|b| b - b'0').collect();
    let shift = match scale {
        Scale::Decimal(exponent) => *exponent,
        Scale::Binary(_) => 0,
    };
    let factor: i128 = match scale {
        Scale::Decimal(_) => 1,
        Scale::Binary(power) => 1 << power,
    };
    // Where the decimal point stands, counted in digits from the left.
    let point = int.len() as i64 + shift;
    let at = |position: i64| -> u8 {
        usize::try_from(position)
            .ok()
            .and_then(|p| digits.get(p))
            .copied()
            .unwrap_or(0)
    };

    let mut whole: i128 = 0;
    for position in 0..point {
        whole = whole * 10 + i128::from(at(position));
        if whole > MAX {
            return MAX;
        }
    }
    let mut part: i128 = 0;
    for position in point..point + FRACTION_DIGITS as i64 {
        part = part * 10 + i128::from(at(position));
    }
    let rest = usize::try_from(point + FRACTION_DIGITS as i64).unwrap_or(0);
    let more = digits.iter().skip(rest).any(|d| *d != 0);

    // part < 10^18, factor <= 2^60: the product stays below 2^120.
    let unit: i128 = 10_i128.pow(FRACTION_DIGITS as u32 - 9);
    let scaled = part * factor;
    let round_up = i128::from(scaled % unit != 0 || more);
    whole
        .checked_mul(factor)
        .and_then(|w| w.checked_mul(NANOS))
        .and_then(|w| w.checked_add(scaled / unit + round_up))
        .map_or(MAX, |nanos| match nanos.cmp(&MAX) {
            Ordering::Greater => MAX,
            _ => nanos,
        })
}

impl TryFrom<&ApiQuantity> for Quantity {
    type Error = QuantityError;
    fn try_from(value: &ApiQuantity) -> Result<Self, QuantityError> {
        Self::parse(&value.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(text: &str) -> i128 {
        Quantity::parse(text).unwrap().nanos
    }

    #[test]
    fn every_suffix_has_its_value() {
        for (text, expected) in [
            ("0", 0),
            ("1", NANOS),
            ("+1", NANOS),
            ("-1", -NANOS),
            ("1.", NANOS),
            (".5", NANOS / 2),
            ("007", 7 * NANOS),
            ("1n", 1),
            ("1u", 1_000),
            ("1m", 1_000_000),
            ("1k", 1_000 * NANOS),
            ("1M", 1_000_000 * NANOS),
            ("1G", NANOS * NANOS),
            ("1T", 1_000 * NANOS * NANOS),
            ("1P", 1_000_000 * NANOS * NANOS),
            ("1E", NANOS * NANOS * NANOS),
            ("1Ki", 1024 * NANOS),
            ("1Mi", (1 << 20) * NANOS),
            ("1.5Gi", 3 * (1 << 29) * NANOS),
            ("1Ti", (1 << 40) * NANOS),
            ("1Pi", (1 << 50) * NANOS),
            ("1Ei", (1 << 60) * NANOS),
            ("1e3", 1_000 * NANOS),
            ("1E3", 1_000 * NANOS),
            ("1e+3", 1_000 * NANOS),
            ("12e-1", 1_200_000_000),
            ("1e-40", 1),
            ("0e99999999999999999999", 0),
            ("0.0000000001", 1),
            ("0.1n", 1),
            ("-0.1n", -1),
            ("9223372036854775807", MAX),
            ("9223372036854775808", MAX),
            ("8Ei", MAX),
            ("1e500", MAX),
        ] {
            assert_eq!(nanos(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "+", ".", "-.", "1.2.3", "Ki", "x1", "1 ", " 1", "m"] {
            assert!(
                matches!(
                    Quantity::parse(text),
                    Err(QuantityError::Number(_)) | Err(QuantityError::Suffix { .. })
                ),
                "{text}"
            );
        }
        for text in [
            "1K", "1ki", "1e", "1e+", "1ee3", "1m5", "1Kii", "1e3.5", "1١",
        ] {
            assert!(
                matches!(Quantity::parse(text), Err(QuantityError::Suffix { .. })),
                "{text}"
            );
        }
        assert!(Quantity::parse(&"9".repeat(1_000)).is_err());
    }

    #[test]
    fn units_and_thousandths_round_up() {
        assert_eq!(Quantity::parse("1.0001").unwrap().millis(), 1_001);
        assert_eq!(Quantity::parse("1n").unwrap().millis(), 1);
        assert_eq!(Quantity::parse("0.5").unwrap().units(), 1);
        assert_eq!(Quantity::parse("-3").unwrap().units(), 0);
        assert_eq!(Quantity::parse("0.1Ki").unwrap().units(), 103);
        assert_eq!(Quantity::parse("2.0").unwrap().whole(), Some(2));
        assert_eq!(Quantity::parse("2.5").unwrap().whole(), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn numbers_with_a_decimal_suffix_are_exact(n in 0u64..1_000_000_000, which in 0usize..10) {
            let (suffix, factor) = [
                ("n", 1_i128), ("u", 1_000), ("m", 1_000_000), ("", NANOS), ("k", 1_000 * NANOS),
                ("M", 1_000_000 * NANOS), ("Ki", 1024 * NANOS), ("Mi", (1 << 20) * NANOS),
                ("e2", 100 * NANOS), ("E-2", NANOS / 100),
            ][which];
            let expected = (i128::from(n) * factor).min(MAX);
            prop_assert_eq!(nanos(&format!("{n}{suffix}")), expected);
        }

        #[test]
        fn leading_and_trailing_zeros_change_nothing(n in 0u32.., f in 0u32.., zeros in 0usize..20) {
            let z = "0".repeat(zeros);
            prop_assert_eq!(nanos(&format!("{n}.{f}Mi")), nanos(&format!("{z}{n}.{f}{z}Mi")));
        }

        #[test]
        fn a_larger_number_is_never_a_smaller_quantity(a in 0u64.., b in 0u64.., digits in 0usize..25) {
            let (low, high) = (a.min(b), a.max(b));
            let tail = "9".repeat(digits);
            let (low, high) = (format!("{low}.{tail}"), format!("{high}.{tail}"));
            prop_assert!(nanos(&low) <= nanos(&high));
        }
    }
}
