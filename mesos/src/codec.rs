//! The two encodings of the Mesos v1 API: protobuf (used by default) and JSON (for debugging
//! and for peers that speak nothing else).
//!
//! JSON follows what Mesos accepts and prints: field names as in the proto files, numbers as
//! numbers (strings are accepted too), bytes as base64, enumerations by name, unknown members
//! ignored, an unknown enumeration value the same as an unset field.

use prost_reflect::{
    DeserializeOptions, DynamicMessage, MessageDescriptor, ReflectMessage, SerializeOptions,
};

/// How a message is written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `application/x-protobuf`.
    #[default]
    Protobuf,
    /// `application/json`.
    Json,
}

/// Why a message could not be read. Never worth a retry: the same bytes fail again.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not a protobuf message of the expected type.
    #[error("not a protobuf {message}: {source}")]
    Protobuf {
        /// Full name of the expected message.
        message: String,
        /// What prost found.
        source: prost::DecodeError,
    },
    /// The bytes are not JSON of the expected type.
    #[error("not a JSON {message}: {source}")]
    Json {
        /// Full name of the expected message.
        message: String,
        /// What serde found, with line and column.
        source: serde_json::Error,
    },
}

impl Encoding {
    /// The media type, exactly as Mesos wants it (no parameters).
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    /// The encoding of a media type, or `None` for any other than the two exact ones.
    pub fn from_media_type(value: &str) -> Option<Self> {
        match value {
            "application/x-protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Writes a message.
    pub fn encode<M: ReflectMessage + prost::Message>(self, message: &M) -> Vec<u8> {
        match self {
            Self::Protobuf => message.encode_to_vec(),
            Self::Json => to_json(message).to_string().into_bytes(),
        }
    }

    /// Reads a message.
    pub fn decode<M: ReflectMessage + prost::Message + Default>(
        self,
        bytes: &[u8],
    ) -> Result<M, DecodeError> {
        match self {
            Self::Protobuf => M::decode(bytes).map_err(|source| DecodeError::Protobuf {
                message: M::default().descriptor().full_name().to_owned(),
                source,
            }),
            Self::Json => from_json_slice(bytes),
        }
    }
}

/// A message as a JSON value, the way Mesos prints it.
pub fn to_json<M: ReflectMessage + prost::Message>(message: &M) -> serde_json::Value {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(true);
    let mut dynamic = DynamicMessage::new(json_descriptor(message));
    dynamic
        .transcode_from(message)
        .expect("both descriptors are of the same fields");
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("a well-typed message has a JSON form")
}

/// Reads a message from a JSON value.
pub fn from_json<M: ReflectMessage + prost::Message + Default>(
    value: &serde_json::Value,
) -> Result<M, DecodeError> {
    from_deserializer(value)
}

fn from_json_slice<M: ReflectMessage + prost::Message + Default>(
    bytes: &[u8],
) -> Result<M, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let message = from_deserializer(&mut deserializer)?;
    deserializer
        .end()
        .map_err(|source| json_error::<M>(source))?;
    Ok(message)
}

fn from_deserializer<'de, M, D>(deserializer: D) -> Result<M, DecodeError>
where
    M: ReflectMessage + prost::Message + Default,
    D: serde::Deserializer<'de, Error = serde_json::Error>,
{
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let dynamic = DynamicMessage::deserialize_with_options(
        json_descriptor(&M::default()),
        deserializer,
        &options,
    )
    .map_err(|source| json_error::<M>(source))?;
    dynamic
        .transcode_to()
        .map_err(|source| DecodeError::Protobuf {
            message: M::default().descriptor().full_name().to_owned(),
            source,
        })
}

/// The descriptor that JSON goes by.
fn json_descriptor<M: ReflectMessage>(message: &M) -> MessageDescriptor {
    let descriptor = message.descriptor();
    crate::pb::JSON_POOL
        .get_message_by_name(descriptor.full_name())
        .unwrap_or(descriptor)
}

fn json_error<M: ReflectMessage + Default>(source: serde_json::Error) -> DecodeError {
    DecodeError::Json {
        message: M::default().descriptor().full_name().to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
