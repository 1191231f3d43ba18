//! Metadata: typed values under keys. Arrays are only located, not decoded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use memmap2::Mmap;

use super::GgufError;
use super::cursor::Cursor;
use crate::model::error::Quoted;

/// Bytes of the shortest possible entry: empty key, type, one byte.
const SHORTEST_ENTRY: u64 = 8 + 4 + 1;

/// A fixed-size value or the element type of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

impl Scalar {
    const fn from_id(id: u32) -> Option<Scalar> {
        Some(match id {
            0 => Scalar::U8,
            1 => Scalar::I8,
            2 => Scalar::U16,
            3 => Scalar::I16,
            4 => Scalar::U32,
            5 => Scalar::I32,
            6 => Scalar::F32,
            7 => Scalar::Bool,
            10 => Scalar::U64,
            11 => Scalar::I64,
            12 => Scalar::F64,
            _ => return None,
        })
    }

    const fn size(self) -> usize {
        match self {
            Scalar::U8 | Scalar::I8 | Scalar::Bool => 1,
            Scalar::U16 | Scalar::I16 => 2,
            Scalar::U32 | Scalar::I32 | Scalar::F32 => 4,
            Scalar::U64 | Scalar::I64 | Scalar::F64 => 8,
        }
    }
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;

#[derive(Debug, Clone)]
pub(super) enum Value {
    Scalar(Scalar, [u8; 8]),
    Text(Range<usize>),
    Array(Array),
}

/// An array inside the file: `count` elements in `range`; `scalar` is `None` for strings.
#[derive(Debug, Clone)]
pub struct Array {
    pub scalar: Option<Scalar>,
    pub count: usize,
    pub range: Range<usize>,
}

pub(super) fn read_all(cursor: &mut Cursor<'_>, count: u64) -> Result<HashMap<String, Value>, GgufError> {
    cursor.expect(count, SHORTEST_ENTRY, "metadata entries")?;
    let mut values = HashMap::new();
    for _ in 0..count {
        let key = cursor.string("a metadata key")?;
        let id = cursor.u32("a value type")?;
        let value = read(cursor, key, id)?;
        if values.insert(key.to_owned(), value).is_some() {
            return Err(GgufError::DuplicateKey(Quoted::new(key)));
        }
    }
    Ok(values)
}

fn read(cursor: &mut Cursor<'_>, key: &str, id: u32) -> Result<Value, GgufError> {
    match id {
        STRING => {
            let text = cursor.string("a metadata string")?;
            Ok(Value::Text(cursor.at - text.len()..cursor.at))
        }
        ARRAY => {
            let element = cursor.u32("an array's element type")?;
            let count = cursor.u64("an array's length")?;
            Ok(Value::Array(read_array(cursor, key, element, count)?))
        }
        _ => {
            let scalar = Scalar::from_id(id).ok_or_else(|| GgufError::ValueType { key: Quoted::new(key), id })?;
            let mut bytes = [0; 8];
            bytes[..scalar.size()].copy_from_slice(cursor.take(scalar.size() as u64, "a metadata value")?);
            Ok(Value::Scalar(scalar, bytes))
        }
    }
}

fn read_array(cursor: &mut Cursor<'_>, key: &str, element: u32, count: u64) -> Result<Array, GgufError> {
    let scalar = match element {
        STRING => None,
        ARRAY => return Err(GgufError::NestedArray(Quoted::new(key))),
        id => Some(Scalar::from_id(id).ok_or_else(|| GgufError::ValueType { key: Quoted::new(key), id })?),
    };
    let size = scalar.map_or(8, Scalar::size) as u64;
    cursor.expect(count, size, "array elements")?;
    let start = cursor.at;
    match scalar {
        Some(_) => drop(cursor.take(count * size, "an array")?),
        None => {
            for _ in 0..count {
                cursor.string_bytes("a string of an array")?;
            }
        }
    }
    Ok(Array { scalar, count: count as usize, range: start..cursor.at })
}

/// The key-value part of a file. Asking for a key with another type than the file's is an error,
/// an absent key is `None`.
pub struct Metadata {
    map: Arc<Mmap>,
    values: HashMap<String, Value>,
}

impl Metadata {
    pub(super) fn new(map: Arc<Mmap>, values: HashMap<String, Value>) -> Metadata {
        Metadata { map, values }
    }

    /// The mapped file that arrays point into.
    pub fn map(&self) -> &Arc<Mmap> {
        &self.map
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(range)) => std::str::from_utf8(&self.map[range.clone()])
                .map(Some)
                .map_err(|_| GgufError::Utf8 { what: "a metadata string", at: range.start }),
            Some(_) => Err(GgufError::WrongType { key: key.to_owned(), wanted: "a string" }),
        }
    }

    /// Any integer type, as long as it is not negative.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        let wrong = GgufError::WrongType { key: key.to_owned(), wanted: "a non-negative integer" };
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Scalar(scalar, bytes)) => integer(*scalar, *bytes).map(Some).ok_or(wrong),
            Some(_) => Err(wrong),
        }
    }

    pub fn float(&self, key: &str) -> Result<Option<f32>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Scalar(Scalar::F32, [a, b, c, d, ..])) => Ok(Some(f32::from_le_bytes([*a, *b, *c, *d]))),
            Some(Value::Scalar(Scalar::F64, bytes)) => Ok(Some(f64::from_le_bytes(*bytes) as f32)),
            Some(_) => Err(GgufError::WrongType { key: key.to_owned(), wanted: "a floating-point number" }),
        }
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Scalar(Scalar::Bool, [byte, ..])) => Ok(Some(*byte != 0)),
            Some(_) => Err(GgufError::WrongType { key: key.to_owned(), wanted: "a boolean" }),
        }
    }

    pub fn array(&self, key: &str) -> Result<Option<&Array>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => Ok(Some(array)),
            Some(_) => Err(GgufError::WrongType { key: key.to_owned(), wanted: "an array" }),
        }
    }

    /// Where each string of an array lies in the map.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<Range<usize>>>, GgufError> {
        let wrong = GgufError::WrongType { key: key.to_owned(), wanted: "an array of strings" };
        let array = match self.array(key)? {
            None => return Ok(None),
            Some(array) if array.scalar.is_none() => array,
            Some(_) => return Err(wrong),
        };
        let mut cursor = Cursor::new(&self.map);
        cursor.at = array.range.start;
        let mut ranges = Vec::with_capacity(array.count);
        for _ in 0..array.count {
            let len = cursor.string_bytes("a string of an array")?.len();
            ranges.push(cursor.at - len..cursor.at);
        }
        Ok(Some(ranges))
    }

    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        let wanted = "an array of 32-bit floats";
        self.numbers(key, wanted, |scalar, bytes| match (scalar, bytes) {
            (Scalar::F32, [a, b, c, d, ..]) => Some(f32::from_le_bytes([a, b, c, d])),
            _ => None,
        })
    }

    pub fn integers(&self, key: &str) -> Result<Option<Vec<u64>>, GgufError> {
        self.numbers(key, "an array of non-negative integers", integer)
    }

    fn numbers<T>(
        &self,
        key: &str,
        wanted: &'static str,
        decode: impl Fn(Scalar, [u8; 8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, GgufError> {
        let wrong = GgufError::WrongType { key: key.to_owned(), wanted };
        let Some(array) = self.array(key)? else { return Ok(None) };
        let Some(scalar) = array.scalar else { return Err(wrong) };
        let one = |raw: &[u8]| {
            let mut bytes = [0; 8];
            bytes[..raw.len()].copy_from_slice(raw);
            decode(scalar, bytes)
        };
        self.map[array.range.clone()].chunks_exact(scalar.size()).map(one).collect::<Option<Vec<T>>>().map(Some).ok_or(wrong)
    }
}

/// Booleans count as 0 and 1: some writers store per-layer switches that way.
fn integer(scalar: Scalar, bytes: [u8; 8]) -> Option<u64> {
    let raw = u64::from_le_bytes(bytes);
    let signed = match scalar {
        Scalar::U8 | Scalar::U16 | Scalar::U32 | Scalar::U64 | Scalar::Bool => return Some(raw),
        Scalar::I8 => i64::from(raw as i8),
        Scalar::I16 => i64::from(raw as i16),
        Scalar::I32 => i64::from(raw as i32),
        Scalar::I64 => raw as i64,
        Scalar::F32 | Scalar::F64 => return None,
    };
    u64::try_from(signed).ok()
}
