//! Mustache as Cosmos renders it: mustache.java over a JSON document that Cosmos has turned into
//! Java's maps, lists, strings and numbers, without HTML escapes.
//!
//! What differs from the Mustache that one expects:
//!
//! | in the template | what becomes of it |
//! |---|---|
//! | a name that is missing or null | nothing, and no error |
//! | `false`, `""`, `[]` and null as a section | left out; 0 and `{}` are not |
//! | a text | escaped as in JSON, without quotes; with quotes inside of a list |
//! | a list | as JSON, `["a", "b"]` |
//! | an object | as Java prints maps, `{k=v}`, which no JSON parser takes |
//! | `1.0`, `0.00001` | `1`, `1.0E-5` |
//! | `{{#asJson}}name{{/asJson}}` | the content of the text `name` of the top level, as a template |
//! | `{{x}}` | the same as `{{{x}}}` |
//! | partials and parents | refused: Cosmos has no files |
//!
//! Names are looked up in maps only. mustache.java would also find Java's methods of lists and
//! texts (`{{list.size}}`), which depends on classes inside of Cosmos: here they are missing.
//!
//! The judge is the collection of templates, values and results in `tests/mustache`, made by
//! mustache.java itself.

mod node;
mod parse;
mod render;
mod value;

pub use node::{Node, Template};
pub use render::Unresolved;

/// Largest template, bytes.
pub const LARGEST_TEMPLATE: usize = 1 << 20;
/// Largest result, bytes: more than Marathon takes for an app.
pub const LARGEST_RESULT: usize = 8 << 20;
/// Deepest nesting of sections, and of templates that `asJson` brings.
pub const DEEPEST: usize = 50;

/// Why a template cannot be used. No retry helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `{{}}`.
    #[error("line {line} of the template: a tag without a name")]
    Empty {
        /// Where.
        line: usize,
    },
    /// `{{#a}}{{/b}}`.
    #[error("line {line} of the template: {{{{/{found}}}}} where {{{{/{wanted}}}}} is wanted")]
    Mismatch {
        /// Where.
        line: usize,
        /// What is open; nothing when it is empty.
        wanted: String,
        /// What is closed.
        found: String,
    },
    /// A section without an end.
    #[error("line {line} of the template: {{{{#{name}}}}} has no end")]
    Open {
        /// Where it begins.
        line: usize,
        /// Its name.
        name: String,
    },
    /// A tag without an end.
    #[error("line {line} of the template: the tag `{tag}` has no end")]
    Unclosed {
        /// Where.
        line: usize,
        /// What is there of it.
        tag: String,
    },
    /// Delimiters that are none.
    #[error(
        "line {line} of the template: `{found}` sets no delimiters; two of one or two characters each are wanted"
    )]
    Delimiters {
        /// Where.
        line: usize,
        /// What is there.
        found: String,
    },
    /// A partial.
    #[error(
        "line {line} of the template: the partial or parent `{name}` cannot be found: Cosmos renders a package's one template"
    )]
    Partial {
        /// Where.
        line: usize,
        /// Its name.
        name: String,
    },
    /// Nested too deeply.
    #[error("the template nests more than {DEEPEST} sections or templates")]
    Deep,
    /// Too long.
    #[error("the template has {0} bytes, where at most {LARGEST_TEMPLATE} are read")]
    Long(usize),
    /// The result is too long.
    #[error("the template makes more than {LARGEST_RESULT} bytes of these values")]
    Result,
}

/// A value as a template prints it.
pub fn printed(value: &serde_json::Value) -> String {
    let mut text = String::new();
    value::print(value, false, &mut text);
    text
}

#[cfg(test)]
mod tests;
