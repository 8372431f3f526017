//! What can be wrong with options. All problems of a set are reported together.

use std::fmt;

/// Everything that is wrong. None of it is mended by a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The option; empty for the document as a whole.
    pub path: String,
    /// What is wrong.
    pub what: What,
}

/// What is wrong with an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The text is no YAML or JSON, or its root is no object.
    Document(String),
    /// There is no such option.
    Unknown {
        /// An option with a similar name.
        similar: Option<String>,
    },
    /// The value is not what the option takes.
    Value {
        /// The value, shortened.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The value contradicts another option.
    Contradiction {
        /// The value, shortened.
        value: String,
        /// What it contradicts, and what to do.
        why: String,
    },
}

impl Problem {
    pub(super) fn document(text: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            what: What::Document(text.into()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.what {
            What::Document(why) => write!(f, "the options cannot be read: {why}"),
            What::Unknown { similar: None } => write!(
                f,
                "{path}: there is no such option; `k8sm options` lists all"
            ),
            What::Unknown {
                similar: Some(similar),
            } => write!(
                f,
                "{path}: there is no such option; did you mean {similar}?"
            ),
            What::Value { value, allowed } => {
                write!(f, "{path}: {value} is not allowed; allowed: {allowed}")
            }
            What::Contradiction { value, why } => write!(f, "{path}: {value} {why}"),
        }
    }
}
