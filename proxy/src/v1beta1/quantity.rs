//! Quantities: v1 writes `100m` and `128Mi`, v1beta1 plain numbers of cores and bytes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::types::Number;
use super::{Refused, types::Resources};

/// Largest number of thousandths that is read: what a signed 64-bit number holds of units.
const MAX_MILLI: i128 = i64::MAX as i128 * 1000;

/// A quantity in thousandths of its unit, rounded up as Kubernetes rounds. `None`: not a quantity.
pub fn milli(text: &str) -> Option<i128> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c)))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (factor, divisor): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let ten = |n: u32| 10i128.checked_pow(n);
            match u32::try_from(power) {
                Ok(power) if power <= 18 => (ten(power)?, 1),
                Err(_) if power >= -18 => (1, ten(power.unsigned_abs())?),
                _ => return None,
            }
        }
    };
    let (sign, digits) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 || whole.len() > 19 {
        return None;
    }
    let all = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !all(whole) || !all(fraction) {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let above = mantissa.checked_mul(factor)?.checked_mul(1000)?;
    let below = scale.checked_mul(divisor)?;
    let milli = (above + below - 1).checked_div(below)?;
    (milli <= MAX_MILLI).then_some(sign * milli)
}

/// A whole number of units, rounded up.
pub fn units(text: &str) -> Option<i64> {
    let milli = milli(text)?;
    i64::try_from(-(-milli).div_euclid(1000)).ok()
}

/// A list of v1beta1 as v1.
pub fn to_v1(
    path: &str,
    list: &BTreeMap<String, Number>,
) -> Result<BTreeMap<String, Quantity>, Refused> {
    list.iter()
        .map(|(name, number)| {
            let text = match number {
                Number::Number(number) => number.to_string(),
                Number::Text(text) => text.trim().to_owned(),
            };
            let plain = text
                .bytes()
                .all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
            let milli = milli(&text).filter(|m| plain && *m >= 0).ok_or_else(|| {
                Refused::at(
                    format!("{path}.{name}"),
                    format!(
                        "{text:?} is not a plain number, of cores for cpu, of bytes for memory"
                    ),
                )
            })?;
            Ok((name.clone(), Quantity(from_milli(milli))))
        })
        .collect()
}

/// The shortest text without loss.
pub fn from_milli(milli: i128) -> String {
    if milli % 1000 == 0 {
        (milli / 1000).to_string()
    } else {
        format!("{milli}m")
    }
}

/// A list of v1 as v1beta1: cores as text, everything else as whole numbers. A value that is no
/// quantity is left out.
pub fn from_v1(list: &BTreeMap<String, Quantity>) -> BTreeMap<String, Number> {
    list.iter()
        .filter_map(|(name, quantity)| {
            let number = if name == "cpu" {
                Number::Text(cores(milli(&quantity.0)?))
            } else {
                Number::Number(units(&quantity.0)?.into())
            };
            Some((name.clone(), number))
        })
        .collect()
}

fn cores(milli: i128) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Both lists of a container as v1beta1, none when there is nothing in them.
pub fn resources(
    limits: Option<&BTreeMap<String, Quantity>>,
    requests: Option<&BTreeMap<String, Quantity>>,
) -> Option<Resources> {
    let convert = |list: Option<&BTreeMap<String, Quantity>>| {
        list.map(from_v1).filter(|list| !list.is_empty())
    };
    let (limits, requests) = (convert(limits), convert(requests));
    (limits.is_some() || requests.is_some()).then_some(Resources { limits, requests })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1000),
            ("100m", 100),
            ("0.25", 250),
            (".5", 500),
            ("1.", 1000),
            ("+2", 2000),
            ("-1", -1000),
            ("1u", 1),
            ("1n", 1),
            ("64Mi", 64 << 20 << 10),
            ("1e3", 1_000_000),
            ("1E-3", 1),
            ("1E", 1_000_000_000_000_000_000_000),
        ] {
            let expected = if text == "64Mi" {
                64 * (1 << 20) * 1000
            } else {
                expected
            };
            assert_eq!(milli(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            ".",
            "m",
            "1x",
            "1Zi",
            "--1",
            "1e99",
            "abc",
            "9999999999999999999Ei",
        ] {
            assert_eq!(milli(bad), None, "{bad}");
        }
        assert_eq!(units("1500m"), Some(2));
        assert_eq!(units("64Mi"), Some(67_108_864));
    }

    #[test]
    fn cores_are_text_and_bytes_are_numbers() {
        let list = BTreeMap::from([
            ("cpu".to_owned(), Quantity("250m".to_owned())),
            ("memory".to_owned(), Quantity("64Mi".to_owned())),
            ("odd".to_owned(), Quantity("many".to_owned())),
        ]);
        let out = serde_json::to_value(from_v1(&list)).unwrap();
        assert_eq!(
            out,
            serde_json::json!({"cpu": "0.25", "memory": 67_108_864})
        );
        let back: BTreeMap<String, Number> = serde_json::from_value(out).unwrap();
        let v1 = to_v1("limits", &back).unwrap();
        assert_eq!(v1["cpu"].0, "250m");
        assert_eq!(v1["memory"].0, "67108864");
    }

    #[test]
    fn suffixes_are_not_v1beta1() {
        let list = BTreeMap::from([("cpu".to_owned(), Number::Text("100m".to_owned()))]);
        let error = to_v1("limits", &list).unwrap_err();
        assert_eq!(error.path, "limits.cpu");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_thousandths_survive(text in "[-+.0-9a-zA-Z]{0,24}", n in 0i64..i64::MAX / 2) {
            let _ = (milli(&text), units(&text));
            let written = from_milli(i128::from(n));
            proptest::prop_assert_eq!(milli(&written), Some(i128::from(n)));
        }
    }
}
