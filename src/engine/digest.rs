//! Content digests, and the one walk over the fields that name a result.
//!
//! [`Fields`] visits named values once. Two sinks read that walk: [`Hasher`] turns it into a key, a list of names and
//! values keeps what `stic why` compares. Because both read the same walk, an explanation cannot drift from a key.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much of a stream is read before it is hashed: enough for all threads to have something to do.
const PIECE: u64 = 8 << 20;

/// A BLAKE3 digest of 256 bits, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of what `reader` yields, hashed on all threads as it comes.
    ///
    /// # Errors
    /// Whatever `reader` reports.
    pub fn of_reader(reader: impl Read) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let (mut reader, mut piece) = (reader.take(PIECE), Vec::new());
        while reader.read_to_end(&mut piece)? > 0 {
            hasher.update_rayon(&piece);
            piece.clear();
            reader.set_limit(PIECE);
        }
        Ok(Self(*hasher.finalize().as_bytes()))
    }

    /// The digest of a file's content. The file is read, not mapped into memory: were a mapped file cut short by
    /// whoever it belongs to, the process would die of it.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Self::of_reader(File::open(path)?)
    }

    /// The digest of `fields` under `context`, a name that keeps unlike things apart.
    pub fn of_fields(context: &str, fields: &impl Fields) -> Self {
        let mut hasher = Hasher::new(context);
        fields.walk(&mut hasher);
        hasher.finish()
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve hexadecimal digits: enough for messages.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    /// A message.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash =
            blake3::Hash::from_hex(text).map_err(|_| format!("`{text}` is not a digest of 64 hexadecimal digits"))?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A value that can be part of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A boolean.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// A number; hashed by its bits, so `0.1` and `0.10` are one value.
    Float(f64),
    /// A content digest.
    Digest(Digest),
    /// A text.
    String(String),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Table(BTreeMap<String, Value>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Digest(value) => f.write_str(&value.short()),
            Self::String(value) => write!(f, "{value:?}"),
            Self::List(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Table(values) => {
                f.write_str("{")?;
                for (index, (name, value)) in values.iter().enumerate() {
                    write!(f, "{} {name} = {value}", if index > 0 { "," } else { "" })?;
                }
                f.write_str(" }")
            }
        }
    }
}

macro_rules! value_from {
    ($($source:ty => |$value:ident| $made:expr;)*) => {
        $(impl From<$source> for Value {
            fn from($value: $source) -> Self {
                $made
            }
        })*
    };
}

value_from! {
    bool => |value| Self::Bool(value);
    i64 => |value| Self::Integer(value);
    u32 => |value| Self::Integer(i64::from(value));
    usize => |value| Self::Integer(value as i64);
    u64 => |value| Self::Integer(value as i64);
    f64 => |value| Self::Float(value);
    Digest => |value| Self::Digest(value);
    &str => |value| Self::String(value.to_owned());
    String => |value| Self::String(value);
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

/// Something whose named fields determine a result.
pub trait Fields {
    /// Visits every field once, in a fixed order.
    fn walk(&self, sink: &mut dyn Sink);
}

/// What reads a walk.
pub trait Sink {
    /// One field: its dotted name and its value.
    fn field(&mut self, name: &str, value: &Value);
}

impl Fields for Vec<(String, Value)> {
    fn walk(&self, sink: &mut dyn Sink) {
        for (name, value) in self {
            sink.field(name, value);
        }
    }
}

/// The sink that hashes: every part is preceded by its type and length, so no two walks share an encoding.
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// A hasher for one kind of thing, named by `context`.
    pub fn new(context: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    /// The digest of all fields seen.
    pub fn finish(self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }

    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.0.update(&[tag]);
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.bytes(b'b', &[u8::from(*value)]),
            Value::Integer(value) => self.bytes(b'i', &value.to_le_bytes()),
            // One zero: `-0.0` and `0.0` are equal wherever a parameter is used.
            Value::Float(value) => self.bytes(b'f', &(value + 0.0).to_bits().to_le_bytes()),
            Value::Digest(value) => self.bytes(b'd', value.as_bytes()),
            Value::String(value) => self.bytes(b't', value.as_bytes()),
            Value::List(values) => {
                self.bytes(b'l', &(values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| self.value(value));
            }
            Value::Table(values) => {
                self.bytes(b'm', &(values.len() as u64).to_le_bytes());
                for (name, value) in values {
                    self.bytes(b'n', name.as_bytes());
                    self.value(value);
                }
            }
        }
    }
}

impl Sink for Hasher {
    fn field(&mut self, name: &str, value: &Value) {
        self.bytes(b'n', name.as_bytes());
        self.value(value);
    }
}

/// Fields by name, in the order of the walk.
impl Sink for Vec<(String, Value)> {
    fn field(&mut self, name: &str, value: &Value) {
        self.push((name.to_owned(), value.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fields: &[(&str, Value)]) -> Digest {
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Digest::of_fields("test", &fields)
    }

    #[test]
    fn values_cannot_run_into_each_other() {
        assert_ne!(key(&[("a", "bc".into())]), key(&[("ab", "c".into())]));
        assert_ne!(key(&[("a", vec!["b", "c"].into())]), key(&[("a", vec!["bc"].into())]));
        assert_ne!(key(&[("a", 1i64.into())]), key(&[("a", 1.0.into())]));
        assert_ne!(key(&[("a", "1".into())]), key(&[("a", 1i64.into())]));
    }

    #[test]
    fn a_digest_reads_back_what_it_writes() {
        let digest = Digest::of(b"stic");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!("zz".parse::<Digest>().is_err());
    }

    #[test]
    fn a_stream_has_the_digest_of_its_bytes_however_long_it_is() {
        for length in [0, 1, PIECE as usize - 1, PIECE as usize, PIECE as usize + 1, 2 * PIECE as usize + 5] {
            let bytes: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
            assert_eq!(Digest::of_reader(bytes.as_slice()).unwrap(), Digest::of(&bytes), "{length} bytes");
        }
    }

    #[test]
    fn negative_zero_is_zero() {
        assert_eq!(key(&[("a", 0.0.into())]), key(&[("a", (-0.0).into())]));
    }
}
