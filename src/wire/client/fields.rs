//! Writes a message's fields in either encoding.

use std::io::Write;

use super::Encoding;

/// Writing into a `Vec` has no error to return.
pub(super) const INFALLIBLE: &str = "writing into memory cannot fail";

/// The most levels of a body or state that are written. Rules write far fewer.
const SHOWN_DEPTH_MAX: usize = 64;

/// A map with names that is being written.
pub(super) struct Fields {
    encoding: Encoding,
    out: Vec<u8>,
    /// The entries so far of the map that is being written.
    count: usize,
}

impl Fields {
    /// Begins a message.
    pub(super) fn new(encoding: Encoding, kind: &str, capacity: usize) -> Self {
        let mut fields = Self { encoding, out: Vec::with_capacity(capacity), count: 0 };
        if encoding == Encoding::Json {
            fields.out.push(b'{');
        }
        fields.text("t", kind);
        fields
    }

    fn key(&mut self, key: &'static str) {
        match self.encoding {
            Encoding::Json => {
                if self.count > 0 {
                    self.out.push(b',');
                }
                self.out.push(b'"');
                self.out.extend_from_slice(key.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
            Encoding::Msgpack => rmp::encode::write_str(&mut self.out, key).expect(INFALLIBLE),
        }
        self.count += 1;
    }

    pub(super) fn text(&mut self, key: &'static str, value: &str) -> &mut Self {
        self.key(key);
        match self.encoding {
            Encoding::Json => json_text(&mut self.out, value),
            Encoding::Msgpack => rmp::encode::write_str(&mut self.out, value).expect(INFALLIBLE),
        }
        self
    }

    pub(super) fn text_if(&mut self, key: &'static str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.text(key, value);
        }
        self
    }

    /// A count. It stays below 2^53, so every JSON reader can hold it.
    pub(super) fn number(&mut self, key: &'static str, value: u64) -> &mut Self {
        self.key(key);
        match self.encoding {
            Encoding::Json => write!(self.out, "{value}").expect(INFALLIBLE),
            Encoding::Msgpack => drop(rmp::encode::write_uint(&mut self.out, value).expect(INFALLIBLE)),
        }
        self
    }

    /// Nanoseconds. They need 64 bits, so JSON has them as text.
    pub(super) fn nanos(&mut self, key: &'static str, value: u64) -> &mut Self {
        self.key(key);
        match self.encoding {
            Encoding::Json => write!(self.out, "\"{value}\"").expect(INFALLIBLE),
            Encoding::Msgpack => drop(rmp::encode::write_uint(&mut self.out, value).expect(INFALLIBLE)),
        }
        self
    }

    pub(super) fn bool(&mut self, key: &'static str, value: bool) -> &mut Self {
        self.key(key);
        match self.encoding {
            Encoding::Json => self.out.extend_from_slice(if value { b"true" } else { b"false" }),
            Encoding::Msgpack => rmp::encode::write_bool(&mut self.out, value).expect(INFALLIBLE),
        }
        self
    }

    /// A flag. It is left out when it is not set.
    pub(super) fn flag(&mut self, key: &'static str, set: bool) -> &mut Self {
        if set {
            self.bool(key, true);
        }
        self
    }

    /// One MessagePack value. Invalid bytes are written as null, so that no answer of the rules breaks a session.
    pub(super) fn value_if(&mut self, key: &'static str, value: Option<&[u8]>) -> &mut Self {
        let Some(value) = value else { return self };
        self.key(key);
        let mut rest = value;
        let read = rmpv::decode::read_value_ref_with_max_depth(&mut rest, SHOWN_DEPTH_MAX).ok().filter(|_| rest.is_empty());
        match (self.encoding, read) {
            (Encoding::Json, Some(read)) => json_value(&mut self.out, &read),
            (Encoding::Json, None) => self.out.extend_from_slice(b"null"),
            (Encoding::Msgpack, Some(_)) => self.out.extend_from_slice(value),
            (Encoding::Msgpack, None) => self.out.push(0xc0),
        }
        self
    }

    /// A nested map.
    pub(super) fn map(&mut self, key: &'static str, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.key(key);
        let (outer, start) = (std::mem::take(&mut self.count), self.out.len());
        if self.encoding == Encoding::Json {
            self.out.push(b'{');
        }
        write(self);
        match self.encoding {
            Encoding::Json => self.out.push(b'}'),
            Encoding::Msgpack => {
                let (header, len) = map_header(self.count);
                self.out.splice(start..start, header[..len].iter().copied());
            }
        }
        self.count = outer;
        self
    }

    /// The bytes written so far: a position at which a field can be inserted later.
    pub(super) fn position(&self) -> usize {
        self.out.len()
    }

    /// The fields and their number. MessagePack lacks the map's header; JSON is complete.
    pub(super) fn finish(mut self) -> (Vec<u8>, usize) {
        if self.encoding == Encoding::Json {
            self.out.push(b'}');
        }
        (self.out, self.count)
    }
}

/// The header of a MessagePack map, in its shortest form.
pub(super) fn map_header(entries: usize) -> ([u8; 3], usize) {
    match u8::try_from(entries) {
        Ok(few @ 0..=15) => ([0x80 | few, 0, 0], 1),
        _ => {
            let [high, low] = u16::try_from(entries).unwrap_or(u16::MAX).to_be_bytes();
            ([0xde, high, low], 3)
        }
    }
}

fn json_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect(INFALLIBLE);
}

/// Writes a MessagePack value as JSON: binary as an array of bytes, infinite numbers and extensions as null, and keys that are
/// not text as the text of their JSON.
fn json_value(out: &mut Vec<u8>, value: &rmpv::ValueRef<'_>) {
    use rmpv::ValueRef;
    match value {
        ValueRef::Nil | ValueRef::Ext(..) => out.extend_from_slice(b"null"),
        ValueRef::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        ValueRef::Integer(value) => write!(out, "{value}").expect(INFALLIBLE),
        // serde_json writes null for what is not finite.
        ValueRef::F32(value) => serde_json::to_writer(out, value).expect(INFALLIBLE),
        ValueRef::F64(value) => serde_json::to_writer(out, value).expect(INFALLIBLE),
        ValueRef::String(text) => json_text(out, text.as_str().unwrap_or("\u{fffd}")),
        ValueRef::Binary(bytes) => serde_json::to_writer(out, bytes).expect(INFALLIBLE),
        ValueRef::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                json_value(out, item);
            }
            out.push(b']');
        }
        ValueRef::Map(entries) => {
            out.push(b'{');
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                json_key(out, key);
                out.push(b':');
                json_value(out, value);
            }
            out.push(b'}');
        }
    }
}

fn json_key(out: &mut Vec<u8>, key: &rmpv::ValueRef<'_>) {
    if let rmpv::ValueRef::String(_) = key {
        return json_value(out, key);
    }
    let mut text = Vec::new();
    json_value(&mut text, key);
    json_text(out, &String::from_utf8_lossy(&text));
}
