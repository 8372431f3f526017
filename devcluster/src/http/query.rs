//! Percent encoding of addresses and forms, undone.

/// The pairs of `a=1&b=2`, in order, with percent encoding and plus signs undone.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let decoded = |part: &str| percent_decode(&part.replace('+', " "));
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        })
        .collect()
}

/// Undoes percent encoding; what is none stays as it is.
pub fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes
            .get(i + 1..i + 3)
            .filter(|h| h.iter().all(u8::is_ascii_hexdigit))
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[i], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_in_order() {
        assert_eq!(
            pairs("label=a%3D%3Db&embed=x&embed=y+z&&flag"),
            [
                ("label", "a==b"),
                ("embed", "x"),
                ("embed", "y z"),
                ("flag", "")
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
    }

    #[test]
    fn what_is_no_encoding_stays() {
        assert_eq!(percent_decode("/a%2Fb%zz%+%2"), "/a/b%zz%+%2");
    }
}
