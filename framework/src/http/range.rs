//! The `Range` header: one range of bytes, as RFC 9110 has it.

/// Which bytes to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slice {
    /// All.
    Whole,
    /// From `first` to `last`, both included.
    Part {
        /// The first byte.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// None of the bytes that are asked for exist.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `size` bytes. What is no range of bytes, and several
/// ranges at once, are answered with everything, which the RFC allows.
pub(super) fn parse(header: &str, size: u64) -> Slice {
    let Some(spec) = header.trim().strip_prefix("bytes=") else {
        return Slice::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Slice::Whole;
    };
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // More digits than a number holds are more bytes than a file has.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Slice::Whole,
        (Some(first), _) if first >= size && (last.is_empty() || number(last).is_some()) => {
            Slice::Unsatisfiable
        }
        (Some(first), Some(last)) => Slice::Part {
            first,
            last: last.min(size - 1),
        },
        (Some(first), None) if last.is_empty() => Slice::Part {
            first,
            last: size - 1,
        },
        (None, Some(tail)) if first.is_empty() => match tail.min(size) {
            0 => Slice::Unsatisfiable,
            tail => Slice::Part {
                first: size - tail,
                last: size - 1,
            },
        },
        _ => Slice::Whole,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(first: u64, last: u64) -> Slice {
        Slice::Part { first, last }
    }

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        for (header, expected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-5", part(2, 5)),
            ("bytes=5-", part(5, 9)),
            ("bytes=5-100", part(5, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-100", part(0, 9)),
            ("bytes=10-", Slice::Unsatisfiable),
            ("bytes=10-20", Slice::Unsatisfiable),
            ("bytes=99999999999999999999999-", Slice::Unsatisfiable),
            ("bytes=-0", Slice::Unsatisfiable),
            ("bytes=5-2", Slice::Whole),
            ("bytes=0-1,3-4", Slice::Whole),
            ("bytes=a-b", Slice::Whole),
            ("bytes=-", Slice::Whole),
            ("lines=1-2", Slice::Whole),
            ("", Slice::Whole),
        ] {
            assert_eq!(parse(header, 10), expected, "{header}");
        }
        assert_eq!(parse("bytes=0-", 0), Slice::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_lies_in_the_file(header in "bytes=[0-9]{0,22}-[0-9]{0,22}", size in 0u64..100) {
            if let Slice::Part { first, last } = parse(&header, size) {
                prop_assert!(first <= last && last < size);
            }
        }
    }
}
