//! The three kinds of quantities that a resource can have, with Mesos' arithmetic: scalars in
//! thousandths, sets of whole numbers as ranges, sets of names.

use std::collections::BTreeSet;
use std::fmt;

use mesos::pb;

/// A scalar quantity in thousandths. Mesos keeps exactly three decimal digits, so that what
/// clients add up and subtract comes out even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Scalar(i64);

impl Scalar {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From thousandths.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Rounded to the nearest thousandth. Infinite and huge values become the greatest one
    /// that can be kept, NaN becomes zero.
    pub fn from_f64(value: f64) -> Self {
        Self((value * 1000.0).round() as i64)
    }

    /// Thousandths.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// As Mesos converts back: the whole part and the rest are converted apart.
    pub fn to_f64(self) -> f64 {
        (self.0 / 1000) as f64 + (self.0 % 1000) as f64 / 1000.0
    }

    /// Whether there is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, at most the greatest value.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, never below zero.
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).max(0))
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1000, (self.0 % 1000).unsigned_abs());
        if self.0 < 0 && whole == 0 {
            f.write_str("-")?;
        }
        write!(f, "{whole}")?;
        if rest != 0 {
            let digits = format!("{rest:03}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

/// Whole numbers as inclusive ranges: sorted, disjoint, not adjacent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Normalises ranges in any order. Inverted ones count as empty.
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut all: Vec<_> = ranges.into_iter().filter(|(b, e)| b <= e).collect();
        all.sort_unstable();
        let mut out: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (begin, end) in all {
            match out.last_mut() {
                Some(last) if begin <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                _ => out.push((begin, end)),
            }
        }
        Self(out)
    }

    /// The ranges in ascending order.
    pub fn as_slice(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are, at most `u64::MAX`.
    pub fn count(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |n, (b, e)| n.saturating_add((e - b).saturating_add(1)))
    }

    /// Whether every number of `other` is here.
    pub fn contains(&self, other: &Self) -> bool {
        other
            .0
            .iter()
            .all(|(begin, end)| self.0.iter().any(|(b, e)| b <= begin && end <= e))
    }

    /// Both together.
    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).copied())
    }

    /// What is here and not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        let mut out = Vec::with_capacity(self.0.len() + other.0.len());
        for &(begin, end) in &self.0 {
            let mut from = Some(begin);
            for &(b, e) in &other.0 {
                let Some(start) = from else { break };
                if e < start || b > end {
                    continue;
                }
                if b > start {
                    out.push((start, b - 1));
                }
                from = e.checked_add(1).filter(|next| *next <= end);
            }
            if let Some(start) = from {
                out.push((start, end));
            }
        }
        Self(out)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, (begin, end)) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{begin}-{end}")?;
        }
        f.write_str("]")
    }
}

/// How much of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// cpus, mem, disk, gpus.
    Scalar(Scalar),
    /// ports.
    Ranges(Ranges),
    /// Named things.
    Set(BTreeSet<String>),
}

impl Value {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Scalar(s) => s.is_zero(),
            Self::Ranges(r) => r.is_empty(),
            Self::Set(s) => s.is_empty(),
        }
    }

    /// The kind as the protocol numbers it.
    pub const fn kind(&self) -> pb::value::Type {
        match self {
            Self::Scalar(_) => pb::value::Type::Scalar,
            Self::Ranges(_) => pb::value::Type::Ranges,
            Self::Set(_) => pb::value::Type::Set,
        }
    }

    /// Whether `other` is of the same kind and wholly here.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => b <= a,
            (Self::Ranges(a), Self::Ranges(b)) => a.contains(b),
            (Self::Set(a), Self::Set(b)) => b.is_subset(a),
            _ => false,
        }
    }

    /// Adds a value of the same kind; of another kind nothing happens.
    pub(super) fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => *a = a.plus(*b),
            (Self::Ranges(a), Self::Ranges(b)) => *a = a.union(b),
            (Self::Set(a), Self::Set(b)) => a.extend(b.iter().cloned()),
            _ => {}
        }
    }

    /// Takes away what is here of `other`.
    pub(super) fn subtract(&mut self, other: &Self) {
        match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => *a = a.minus(*b),
            (Self::Ranges(a), Self::Ranges(b)) => *a = a.difference(b),
            (Self::Set(a), Self::Set(b)) => a.retain(|item| !b.contains(item)),
            _ => {}
        }
    }

    /// Reads `2.5`, `[1-5, 7-8]` or `{a,b}`; anything else is text, which no resource can be.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner
                .strip_suffix(']')
                .ok_or("expecting ']' at the end of ranges")?;
            let mut ranges = Vec::new();
            for part in inner.split(',').map(str::trim).filter(|p| !p.is_empty()) {
                let bad = || format!("expecting a range `begin-end`, found `{part}`");
                let (begin, end) = part.split_once('-').ok_or_else(bad)?;
                let begin = begin.trim().parse().map_err(|_| bad())?;
                let end = end.trim().parse().map_err(|_| bad())?;
                if begin > end {
                    return Err(format!("range `{part}` ends before it begins"));
                }
                ranges.push((begin, end));
            }
            Ok(Self::Ranges(Ranges::new(ranges)))
        } else if let Some(inner) = text.strip_prefix('{') {
            let inner = inner
                .strip_suffix('}')
                .ok_or("expecting '}' at the end of a set")?;
            let items = inner.split(',').map(str::trim).filter(|i| !i.is_empty());
            Ok(Self::Set(items.map(str::to_owned).collect()))
        } else {
            match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Self::Scalar(Scalar::from_f64(value))),
                _ => Err(format!(
                    "expecting a number, [ranges] or {{a set}}, found `{text}`"
                )),
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(s) => s.fmt(f),
            Self::Ranges(r) => r.fmt(f),
            Self::Set(s) => {
                f.write_str("{")?;
                for (i, item) in s.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{item}")?;
                }
                f.write_str("}")
            }
        }
    }
}
