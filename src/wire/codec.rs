//! Reading and writing MessagePack by hand: every journal form is bounded, versioned and refuses trailing bytes.

use bytes::Bytes;

use crate::types::{Incarnation, PlayerId, RoomId};

/// Why stored bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version of lasthit.
    #[error("{what} has version {found}, this lasthit reads version {known}: upgrade all processes")]
    Version {
        /// What was read.
        what: &'static str,
        /// The version in the bytes.
        found: u64,
        /// The version that this code writes.
        known: u64,
    },
    /// Not such a thing at all.
    #[error("{what} is damaged at byte {at}: {why}")]
    Damaged {
        /// What was read.
        what: &'static str,
        /// Bytes read before the fault showed.
        at: usize,
        /// What was wrong there.
        why: String,
    },
}

/// Appends MessagePack to a buffer. Writing to memory cannot fail.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

/// Writing into a `Vec` has no error to return.
const INFALLIBLE: &str = "writing into memory cannot fail";

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn array(&mut self, len: usize) -> &mut Self {
        rmp::encode::write_array_len(&mut self.0, u32::try_from(len).unwrap_or(u32::MAX)).expect(INFALLIBLE);
        self
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        rmp::encode::write_uint(&mut self.0, value).expect(INFALLIBLE);
        self
    }

    pub(crate) fn nil(&mut self) -> &mut Self {
        rmp::encode::write_nil(&mut self.0).expect(INFALLIBLE);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        rmp::encode::write_str(&mut self.0, value).expect(INFALLIBLE);
        self
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        rmp::encode::write_bin(&mut self.0, value).expect(INFALLIBLE);
        self
    }

    pub(crate) fn incarnation(&mut self, value: Incarnation) -> &mut Self {
        self.bytes(&value.0.to_be_bytes())
    }

    pub(crate) fn text_or_nil(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(text) => self.text(text),
            None => self.nil(),
        }
    }

    pub(crate) fn bytes_or_nil(&mut self, value: Option<&[u8]>) -> &mut Self {
        match value {
            Some(bytes) => self.bytes(bytes),
            None => self.nil(),
        }
    }

    pub(crate) fn uint_or_nil(&mut self, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.uint(value),
            None => self.nil(),
        }
    }

    pub(crate) fn finish(self) -> Bytes {
        Bytes::from(self.0)
    }
}

/// Reads what [`Writer`] wrote; every error says where.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    whole: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Opens `bytes` as an array whose first element is the version.
    pub(crate) fn versioned(what: &'static str, bytes: &'a [u8], known: u64, fields: usize) -> Result<Self, DecodeError> {
        let mut reader = Self::bare(what, bytes);
        let len = reader.array()?;
        let found = if len == 0 { 0 } else { reader.uint()? };
        if found != known {
            return Err(DecodeError::Version { what, found, known });
        }
        if len != fields + 1 {
            return Err(reader.damaged(format!("{len} fields instead of {}", fields + 1)));
        }
        Ok(reader)
    }

    pub(crate) fn bare(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, whole: bytes, rest: bytes }
    }

    pub(crate) fn damaged(&self, why: impl ToString) -> DecodeError {
        DecodeError::Damaged { what: self.what, at: self.whole.len() - self.rest.len(), why: why.to_string() }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.damaged(format!("{len} bytes announced, {} there", self.rest.len()))),
        }
    }

    /// The length of an array; never more than the bytes that are left, so that it may size an allocation.
    pub(crate) fn array(&mut self) -> Result<usize, DecodeError> {
        let len = rmp::decode::read_array_len(&mut self.rest).map_err(|e| self.damaged(e))? as usize;
        if len > self.rest.len() {
            return Err(self.damaged(format!("{len} elements announced, {} bytes there", self.rest.len())));
        }
        Ok(len)
    }

    pub(crate) fn array_of(&mut self, expected: usize) -> Result<(), DecodeError> {
        match self.array()? {
            len if len == expected => Ok(()),
            len => Err(self.damaged(format!("{len} fields instead of {expected}"))),
        }
    }

    pub(crate) fn uint(&mut self) -> Result<u64, DecodeError> {
        rmp::decode::read_int(&mut self.rest).map_err(|e| self.damaged(e))
    }

    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        let value = self.uint()?;
        T::try_from(value).map_err(|_| self.damaged(format!("{value} is out of range")))
    }

    fn is_nil(&mut self) -> bool {
        match self.rest.split_first() {
            Some((0xc0, rest)) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// A string's or binary's bytes, whichever it is: scripts write either.
    pub(crate) fn raw(&mut self) -> Result<&'a [u8], DecodeError> {
        let marker = self.rest.first().copied().ok_or_else(|| self.damaged("ends early"))?;
        let len = match marker {
            0xc4..=0xc6 => rmp::decode::read_bin_len(&mut self.rest).map_err(|e| self.damaged(e))?,
            _ => rmp::decode::read_str_len(&mut self.rest).map_err(|e| self.damaged(e))?,
        };
        self.take(len as usize)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let raw = self.raw()?;
        std::str::from_utf8(raw).map_err(|e| self.damaged(e))
    }

    pub(crate) fn incarnation(&mut self) -> Result<Incarnation, DecodeError> {
        let raw = self.raw()?;
        let bytes: [u8; 16] = raw.try_into().map_err(|_| self.damaged(format!("incarnation of {} bytes", raw.len())))?;
        Ok(Incarnation(u128::from_be_bytes(bytes)))
    }

    pub(crate) fn player(&mut self) -> Result<PlayerId, DecodeError> {
        let text = self.text()?;
        PlayerId::new(text).map_err(|e| self.damaged(e))
    }

    pub(crate) fn room(&mut self) -> Result<RoomId, DecodeError> {
        let text = self.text()?;
        RoomId::new(text).map_err(|e| self.damaged(e))
    }

    pub(crate) fn or_nil<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, DecodeError>) -> Result<Option<T>, DecodeError> {
        if self.is_nil() { Ok(None) } else { read(self).map(Some) }
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged(format!("{} trailing bytes", self.rest.len()))) }
    }
}
