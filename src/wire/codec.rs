//! Reads and writes the journal's forms by hand. Each is bounded and versioned, and trailing bytes are refused.
//!
//! The forms that are stored for every event (entries, actions, verdict batches) are packed: numbers have seven bits a byte,
//! lengths precede text, and types are not marked. The other forms are MessagePack.

use bytes::Bytes;

use crate::types::{Incarnation, PlayerId, RoomId};

/// Why stored bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another version of lasthit wrote them.
    #[error("{what} has version {found}, this lasthit reads version {known}: upgrade all processes")]
    Version {
        /// What was read.
        what: &'static str,
        /// The version in the bytes.
        found: u64,
        /// The version that this code writes.
        known: u64,
    },
    /// They are not such a form.
    #[error("{what} is damaged at byte {at}: {why}")]
    Damaged {
        /// What was read.
        what: &'static str,
        /// The position of the fault.
        at: usize,
        /// What was wrong there.
        why: String,
    },
}

/// Appends to a buffer, MessagePack or packed. Writing to memory cannot fail.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

/// Writing into a `Vec` has no error to return.
const INFALLIBLE: &str = "writing into memory cannot fail";

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn finish(self) -> Bytes {
        Bytes::from(self.0)
    }

    pub(crate) fn array(&mut self, len: usize) -> &mut Self {
        rmp::encode::write_array_len(&mut self.0, u32::try_from(len).unwrap_or(u32::MAX)).expect(INFALLIBLE);
        self
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        rmp::encode::write_uint(&mut self.0, value).expect(INFALLIBLE);
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
}

/// The packed forms.
impl Writer {
    pub(crate) fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// A number, its lowest seven bits first. Every byte but the last has its highest bit set.
    pub(crate) fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.byte(value.to_le_bytes()[0])
    }

    /// The length of the bytes, then the bytes.
    pub(crate) fn sized(&mut self, value: &[u8]) -> &mut Self {
        self.varint(value.len() as u64).tail(value)
    }

    /// Bytes whose length the reader knows.
    pub(crate) fn tail(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(value);
        self
    }
}

/// The first byte of a MessagePack array, as version 1 of the packed forms was.
const ARRAYS: std::ops::RangeInclusive<u8> = 0x90..=0x9f;

/// Reads what [`Writer`] wrote. Every error names the position.
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

    /// Opens packed `bytes`, whose first byte is the version: one of several, which it returns.
    pub(crate) fn packed_of(
        what: &'static str,
        bytes: &'a [u8],
        known: std::ops::RangeInclusive<u8>,
    ) -> Result<(Self, u8), DecodeError> {
        let mut reader = Self::bare(what, bytes);
        match reader.byte()? {
            found if known.contains(&found) => Ok((reader, found)),
            found => {
                let found = if ARRAYS.contains(&found) { 1 } else { found.into() };
                Err(DecodeError::Version { what, found, known: (*known.end()).into() })
            }
        }
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
            None => Err(self.damaged(format!("{len} bytes announced, {} left", self.rest.len()))),
        }
    }

    /// The length of an array. It never exceeds the bytes that are left, so that it may size an allocation.
    pub(crate) fn array(&mut self) -> Result<usize, DecodeError> {
        let len = rmp::decode::read_array_len(&mut self.rest).map_err(|e| self.damaged(e))? as usize;
        if len > self.rest.len() {
            return Err(self.damaged(format!("{len} elements announced, {} bytes left", self.rest.len())));
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

    /// The bytes of a string or of a binary. Scripts write either.
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
}

/// The packed forms.
impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (byte, rest) = self.rest.split_first().ok_or_else(|| self.damaged("ends early"))?;
        self.rest = rest;
        Ok(*byte)
    }

    /// Only the shortest form of a number is accepted.
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            value |= bits << shift;
            if byte < 0x80 {
                let is_shortest = (byte > 0 || shift == 0) && bits << shift >> shift == bits;
                return if is_shortest { Ok(value) } else { Err(self.damaged("a number that is too long")) };
            }
        }
        Err(self.damaged("a number that is too long"))
    }

    /// A number that must fit.
    pub(crate) fn narrow<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        let value = self.varint()?;
        T::try_from(value).map_err(|_| self.damaged(format!("{value} is out of range")))
    }

    /// The number of elements that follow, of at least `bytes_min` bytes each. It never exceeds what the bytes that are left can
    /// hold, so that it may size an allocation.
    pub(crate) fn count(&mut self, bytes_min: usize) -> Result<usize, DecodeError> {
        let count: usize = self.narrow()?;
        if count > self.rest.len() / bytes_min {
            return Err(self.damaged(format!("{count} elements announced, {} bytes left", self.rest.len())));
        }
        Ok(count)
    }

    pub(crate) fn sized(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.narrow()?;
        self.take(len)
    }

    /// Bytes after their length plus one. None for a 0 instead, which stands for the bytes that were read before.
    pub(crate) fn sized_or_before(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.narrow::<usize>()?.checked_sub(1) {
            Some(len) => self.take(len).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn sized_text(&mut self) -> Result<&'a str, DecodeError> {
        let raw = self.sized()?;
        std::str::from_utf8(raw).map_err(|e| self.damaged(e))
    }

    pub(crate) fn sized_player(&mut self) -> Result<PlayerId, DecodeError> {
        let text = self.sized_text()?;
        PlayerId::new(text).map_err(|e| self.damaged(e))
    }

    pub(crate) fn identity(&mut self) -> Result<Incarnation, DecodeError> {
        Ok(Incarnation(u128::from_be_bytes(self.chunk()?)))
    }

    pub(crate) fn hash(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.chunk()?))
    }

    pub(crate) fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.damaged("ends early"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// All bytes that are left.
    pub(crate) fn tail(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged(format!("{} trailing bytes", self.rest.len()))) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_packed_number_has_one_form(bits in 0..=64u32, any: u64, bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let value = any.checked_shr(64 - bits).unwrap_or(0);
            let mut writer = Writer::default();
            writer.varint(value);
            prop_assert_eq!(writer.0.len(), (64 - value.leading_zeros()).div_ceil(7).max(1) as usize);
            let mut reader = Reader::bare("number", &writer.0);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.end(), Ok(()));
            let mut reader = Reader::bare("number", &bytes);
            if let Ok(value) = reader.varint() {
                let mut again = Writer::default();
                again.varint(value).tail(reader.tail());
                prop_assert_eq!(again.0, bytes);
            }
        }
    }

    #[test]
    fn the_form_before_it_was_packed_is_version_1() {
        let error = |bytes| Reader::packed_of("entry", bytes, 2..=2).expect_err("another version");
        assert_eq!(error(&[0x97, 1, 0]), DecodeError::Version { what: "entry", found: 1, known: 2 });
        assert_eq!(error(&[3]), DecodeError::Version { what: "entry", found: 3, known: 2 });
        assert!(matches!(error(&[]), DecodeError::Damaged { at: 0, .. }));
    }
}
