//! How a group of options is written down: once, as a struct whose fields carry type, default,
//! rules and, as their documentation, the description that users read.

use super::key::Schema;

/// A group of options.
pub(super) trait Group {
    /// Adds the group's keys and the groups in it; `prefix` is its path and a dot, or empty.
    fn describe(prefix: &str, schema: &mut Schema);
}

/// The lines of a documentation comment as one text.
pub(super) fn text(lines: &[&str]) -> String {
    lines.iter().map(|l| l.trim()).collect::<Vec<_>>().join(" ")
}

/// Defines a group of options.
///
/// ```text
/// group! {
///     /// What the group is.
///     Etcd {
///         /// What the option means, as users read it.
///         count: u32 = 3, [one_of(&[1, 3, 5]), fixed()];
///     } + {
///         /// A group in the group.
///         backup: Backup,
///     }
/// }
/// ```
///
/// The names in brackets are methods of [`super::key::Key`].
macro_rules! group {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident : $ty:ty = $default:expr, [$($rule:ident($($arg:expr),*)),*];
            )*
        }
        $( + { $( $(#[doc = $inner_doc:literal])+ $inner:ident : $inner_ty:ty, )+ } )?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $ty, )*
            $( $( $(#[doc = $inner_doc])+ pub $inner: $inner_ty, )+ )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $field: $default, )*
                    $( $( $inner: <$inner_ty>::default(), )+ )?
                }
            }
        }

        impl $crate::options::group::Group for $name {
            fn describe(prefix: &str, schema: &mut $crate::options::key::Schema) {
                $(
                    schema.keys.push(
                        $crate::options::key::Key::new(
                            format!("{prefix}{}", stringify!($field)),
                            <$ty as $crate::options::key::Typed>::KIND,
                            {
                                let default: $ty = $default;
                                serde_json::json!(default)
                            },
                            $crate::options::group::text(&[$($doc),+]),
                        )
                        $(.$rule($($arg),*))*
                    );
                )*
                $( $(
                    let path = format!("{prefix}{}", stringify!($inner));
                    let inner_prefix = format!("{path}.");
                    schema.groups.push((path, $crate::options::group::text(&[$($inner_doc),+])));
                    <$inner_ty as $crate::options::group::Group>::describe(&inner_prefix, schema);
                )+ )?
            }
        }
    };
}

pub(super) use group;
