//! Plain data: between JavaScript's values and MessagePack.

use std::fmt;

use rquickjs::{Array, Ctx, Filter, Object, String as Text, Value};

use crate::limits::DATA_DEPTH_MAX;

/// Characters of a value that are shown.
const SHOWN_CHARS_MAX: usize = 200;

/// The integers that a JavaScript number holds exactly lie between this and its negative.
const SAFE_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;

/// Why a value cannot be kept.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is no plain data.
    Odd {
        what: String,
        /// The keys on the way to it, innermost first.
        path: Vec<String>,
    },
    /// JavaScript threw: the exception is in the context.
    Thrown(rquickjs::Error),
}

impl Fault {
    pub(super) fn odd(what: impl Into<String>) -> Self {
        Self::Odd { what: what.into(), path: Vec::new() }
    }

    /// It happened below this key.
    pub(super) fn below(self, key: &str) -> Self {
        match self {
            Self::Odd { what, mut path } => {
                let is_name = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$');
                path.push(if is_name { format!(".{key}") } else { format!("[{key:?}]") });
                Self::Odd { what, path }
            }
            thrown @ Self::Thrown(_) => thrown,
        }
    }

    fn below_index(self, index: usize) -> Self {
        match self {
            Self::Odd { what, mut path } => {
                path.push(format!("[{index}]"));
                Self::Odd { what, path }
            }
            thrown @ Self::Thrown(_) => thrown,
        }
    }

    /// The exception that it is, for a value that is called `root`.
    pub(super) fn throw(self, ctx: &Ctx<'_>, root: &str) -> rquickjs::Error {
        match self {
            Self::Odd { what, path } => {
                let path: String = path.iter().rev().map(String::as_str).collect();
                rquickjs::Exception::throw_type(ctx, &format!("{root}{path}: {what}"))
            }
            Self::Thrown(error) => error,
        }
    }
}

impl From<rquickjs::Error> for Fault {
    fn from(error: rquickjs::Error) -> Self {
        match error {
            rquickjs::Error::Utf8(_) => Self::odd("text with half of a surrogate pair: it is no Unicode"),
            error => Self::Thrown(error),
        }
    }
}

/// Writing into a `Vec` has no error to return.
const INFALLIBLE: &str = "writing into memory cannot fail";

/// Writes values of one context.
pub(super) struct Encoder<'js> {
    /// What plain objects inherit from.
    pub(super) plain: Object<'js>,
    pub(super) bytes: Vec<u8>,
    /// The most bytes.
    pub(super) most: usize,
    /// Values and keys that were looked at, also those that take no byte: nothing interrupts that.
    looks: usize,
}

impl<'js> Encoder<'js> {
    pub(super) fn new(plain: Object<'js>, most: usize) -> Self {
        Self { plain, bytes: Vec::new(), most, looks: 0 }
    }

    fn look(&mut self) -> Result<(), Fault> {
        self.looks += 1;
        if self.looks > self.most {
            Err(Fault::odd(format!("too large: more than {} values and keys", self.most)))
        } else {
            Ok(())
        }
    }

    /// Appends a value.
    pub(super) fn value(&mut self, value: &Value<'js>) -> Result<(), Fault> {
        self.write(value, &mut Vec::new())
    }

    /// `inside` are the objects that the value is in.
    fn write(&mut self, value: &Value<'js>, inside: &mut Vec<Value<'js>>) -> Result<(), Fault> {
        self.look()?;
        if let Some(text) = value.as_string() {
            // Not as rquickjs::CString, which takes half surrogates for UTF-8.
            let text = text.to_string()?;
            rmp::encode::write_str(&mut self.bytes, &text).expect(INFALLIBLE);
        } else if let Some(int) = value.as_int() {
            rmp::encode::write_sint(&mut self.bytes, int.into()).expect(INFALLIBLE);
        } else if let Some(number) = value.as_float() {
            self.number(number)?;
        } else if let Some(is) = value.as_bool() {
            rmp::encode::write_bool(&mut self.bytes, is).expect(INFALLIBLE);
        } else if value.is_null() {
            rmp::encode::write_nil(&mut self.bytes).expect(INFALLIBLE);
        } else if let Some(object) = value.as_object() {
            if inside.len() >= DATA_DEPTH_MAX {
                let is_cycle = inside.contains(value);
                return Err(Fault::odd(if is_cycle {
                    "a cycle: it contains itself".to_owned()
                } else {
                    format!("nested more than {DATA_DEPTH_MAX} levels deep")
                }));
            }
            inside.push(value.clone());
            if let Some(array) = value.as_array() {
                self.array(array, inside)?;
            } else {
                self.object(object, inside)?;
            }
            inside.pop();
        } else if value.is_undefined() {
            return Err(Fault::odd("undefined: use null"));
        } else if value.is_symbol() {
            return Err(Fault::odd("a symbol: use text"));
        } else if value.is_big_int() {
            return Err(Fault::odd("a BigInt: use a number, or text"));
        } else {
            return Err(Fault::odd("no plain data"));
        }
        if self.bytes.len() > self.most {
            return Err(Fault::odd(format!("too large: more than {} bytes", self.most)));
        }
        Ok(())
    }

    fn number(&mut self, number: f64) -> Result<(), Fault> {
        if !number.is_finite() {
            return Err(Fault::odd(format!("{}: it is no finite number", if number.is_nan() { "NaN" } else { "Infinity" })));
        }
        let is_integer =
            number.fract() == 0.0 && number.abs() <= SAFE_INTEGER_MAX && !(number == 0.0 && number.is_sign_negative());
        if is_integer {
            #[expect(clippy::cast_possible_truncation, reason = "it is an integer that fits")]
            let integer = number as i64;
            rmp::encode::write_sint(&mut self.bytes, integer).expect(INFALLIBLE);
        } else {
            rmp::encode::write_f64(&mut self.bytes, number).expect(INFALLIBLE);
        }
        Ok(())
    }

    fn array(&mut self, array: &Array<'js>, inside: &mut Vec<Value<'js>>) -> Result<(), Fault> {
        // Not as rquickjs::Array, which panics on a length that is no small number.
        let len: f64 = array.as_object().get("length")?;
        // Each element takes a byte: it is refused before its elements are looked at.
        #[expect(clippy::cast_precision_loss, reason = "a bound")]
        if !(0.0..=self.most as f64).contains(&len) {
            return Err(Fault::odd(format!("too large: {len} elements")));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was compared")]
        let len = len as usize;
        rmp::encode::write_array_len(&mut self.bytes, u32::try_from(len).unwrap_or(u32::MAX)).expect(INFALLIBLE);
        for index in 0..len {
            let value: Value<'js> = array.get(index)?;
            self.write(&value, inside).map_err(|fault| fault.below_index(index))?;
        }
        Ok(())
    }

    fn object(&mut self, object: &Object<'js>, inside: &mut Vec<Value<'js>>) -> Result<(), Fault> {
        self.check_plain(object)?;
        let start = self.bytes.len();
        self.bytes.push(0x80);
        let mut len = 0_u32;
        for prop in object.own_props::<Text<'js>, Value<'js>>(Filter::default()) {
            let (key, value) = prop?;
            if value.is_undefined() {
                self.look()?;
                continue;
            }
            let key = key.to_string()?;
            rmp::encode::write_str(&mut self.bytes, &key).expect(INFALLIBLE);
            self.write(&value, inside).map_err(|fault| fault.below(&key))?;
            len += 1;
        }
        self.map_len(start, len);
        Ok(())
    }

    /// Writes the length of the map that begins with a place of one byte at `start`.
    fn map_len(&mut self, start: usize, len: u32) {
        match u8::try_from(len) {
            Ok(len @ 0..=15) => self.bytes[start] = 0x80 | len,
            _ => {
                let mut header = Vec::with_capacity(5);
                rmp::encode::write_map_len(&mut header, len).expect(INFALLIBLE);
                self.bytes.splice(start..=start, header);
            }
        }
    }

    /// Refuses whatever is no plain object.
    pub(super) fn check_plain(&self, object: &Object<'js>) -> Result<(), Fault> {
        if object.is_function() {
            return Err(Fault::odd("a function: keep data only"));
        }
        if object.is_promise() {
            return Err(Fault::odd("a promise: a handler answers at once: remove async and await"));
        }
        match object.get_prototype() {
            None => {}
            Some(prototype) if prototype == self.plain => {}
            Some(_) => {
                if object.ctx().has_exception() {
                    return Err(Fault::Thrown(rquickjs::Error::Exception));
                }
                let class = object.get::<_, Object<'js>>("constructor").and_then(|class| class.get::<_, String>("name"));
                let class = class.unwrap_or_else(|_| {
                    object.ctx().catch();
                    "class".to_owned()
                });
                let instead = match class.as_str() {
                    "Map" => "a plain object",
                    "Set" => "an array",
                    "Date" => "its getTime()",
                    _ if class.ends_with("Array") => "an array",
                    _ => "a plain object",
                };
                return Err(Fault::odd(format!("an instance of {class}: use {instead}")));
            }
        }
        if let Some(symbol) = object.own_keys::<rquickjs::Atom<'js>>(Filter::new().symbol().enum_only()).next() {
            symbol?;
            return Err(Fault::odd("a key that is a symbol: use text"));
        }
        Ok(())
    }
}

/// Why bytes are no plain data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged(&'static str);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What plain data is made of.
enum Piece<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    /// Above the integers that fit.
    Big(u64),
    Float(f64),
    Text(&'a str),
    Array(usize),
    Map(usize),
}

/// Takes the next piece. A length never exceeds the bytes that are left.
fn piece<'a>(rest: &mut &'a [u8]) -> Result<Piece<'a>, Damaged> {
    use rmp::Marker as M;
    let ends = Damaged("it ends early");
    let (first, after) = rest.split_first().ok_or(Damaged("it ends early"))?;
    *rest = after;
    let mut number = |bytes: usize| -> Result<u64, Damaged> {
        let (taken, after) = rest.split_at_checked(bytes).ok_or(Damaged("it ends early"))?;
        *rest = after;
        Ok(taken.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let signed = |number: u64, bits: u32| (number << (64 - bits)).cast_signed() >> (64 - bits);
    let len = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let (text, array, map) = match M::from_u8(*first) {
        M::Null => return Ok(Piece::Nil),
        M::True => return Ok(Piece::Bool(true)),
        M::False => return Ok(Piece::Bool(false)),
        M::FixPos(int) => return Ok(Piece::Int(int.into())),
        M::FixNeg(int) => return Ok(Piece::Int(int.into())),
        M::U8 => return Ok(Piece::Int(signed(number(1)?, 63))),
        M::U16 => return Ok(Piece::Int(signed(number(2)?, 63))),
        M::U32 => return Ok(Piece::Int(signed(number(4)?, 63))),
        M::U64 => {
            let number = number(8)?;
            return Ok(i64::try_from(number).map_or(Piece::Big(number), Piece::Int));
        }
        M::I8 => return Ok(Piece::Int(signed(number(1)?, 8))),
        M::I16 => return Ok(Piece::Int(signed(number(2)?, 16))),
        M::I32 => return Ok(Piece::Int(signed(number(4)?, 32))),
        M::I64 => return Ok(Piece::Int(signed(number(8)?, 64))),
        M::F32 => {
            let bits = u32::try_from(number(4)?).map_err(|_| ends)?;
            return Ok(Piece::Float(f32::from_bits(bits).into()));
        }
        M::F64 => return Ok(Piece::Float(f64::from_bits(number(8)?))),
        M::FixStr(bytes) => (Some(bytes.into()), None, None),
        M::Str8 => (Some(len(number(1)?)), None, None),
        M::Str16 => (Some(len(number(2)?)), None, None),
        M::Str32 => (Some(len(number(4)?)), None, None),
        M::FixArray(count) => (None, Some(count.into()), None),
        M::Array16 => (None, Some(len(number(2)?)), None),
        M::Array32 => (None, Some(len(number(4)?)), None),
        M::FixMap(count) => (None, None, Some(count.into())),
        M::Map16 => (None, None, Some(len(number(2)?))),
        M::Map32 => (None, None, Some(len(number(4)?))),
        _ => return Err(Damaged("it has a value that is no plain data")),
    };
    let left = rest.len();
    match (text, array, map) {
        (Some(bytes), ..) => {
            let (text, after) = rest.split_at_checked(bytes).ok_or(ends)?;
            *rest = after;
            std::str::from_utf8(text).map(Piece::Text).map_err(|_| Damaged("it has text that is not UTF-8"))
        }
        (_, Some(count), _) if count <= left => Ok(Piece::Array(count)),
        (_, _, Some(count)) if count <= left / 2 => Ok(Piece::Map(count)),
        _ => Err(ends),
    }
}

/// Checks that the bytes are one value of plain data, as [`Encoder`] writes it.
pub(super) fn check(mut bytes: &[u8]) -> Result<(), Damaged> {
    skip(&mut bytes, 0)?;
    if bytes.is_empty() { Ok(()) } else { Err(Damaged("it has trailing bytes")) }
}

fn skip(rest: &mut &[u8], depth: usize) -> Result<(), Damaged> {
    if depth > DATA_DEPTH_MAX {
        return Err(Damaged("it is nested too deeply"));
    }
    match piece(rest)? {
        Piece::Array(len) => (0..len).try_for_each(|_| skip(rest, depth + 1)),
        Piece::Map(len) => (0..len).try_for_each(|_| match piece(rest)? {
            Piece::Text(_) => skip(rest, depth + 1),
            _ => Err(Damaged("it has a key that is no text")),
        }),
        Piece::Float(number) if !number.is_finite() => Err(Damaged("it has a number that is not finite")),
        _ => Ok(()),
    }
}

/// Makes a value of bytes. Binary data and extensions do not occur in actions, nor in what [`Encoder`] writes.
pub(super) fn decode<'js>(ctx: &Ctx<'js>, bytes: &[u8]) -> rquickjs::Result<Value<'js>> {
    read(ctx, &mut &bytes[..], 0)
}

fn damaged(ctx: &Ctx<'_>, damaged: &Damaged) -> rquickjs::Error {
    rquickjs::Exception::throw_internal(ctx, &format!("damaged data: {damaged}"))
}

fn read<'js>(ctx: &Ctx<'js>, rest: &mut &[u8], depth: usize) -> rquickjs::Result<Value<'js>> {
    if depth > DATA_DEPTH_MAX {
        return Err(damaged(ctx, &Damaged("it is nested too deeply")));
    }
    #[expect(clippy::cast_precision_loss, reason = "as JavaScript reads such a number")]
    Ok(match piece(rest).map_err(|why| damaged(ctx, &why))? {
        Piece::Nil => Value::new_null(ctx.clone()),
        Piece::Bool(is) => Value::new_bool(ctx.clone(), is),
        Piece::Int(int) => match i32::try_from(int) {
            Ok(int) => Value::new_int(ctx.clone(), int),
            Err(_) => Value::new_float(ctx.clone(), int as f64),
        },
        Piece::Big(number) => Value::new_float(ctx.clone(), number as f64),
        Piece::Float(number) => Value::new_float(ctx.clone(), number),
        Piece::Text(text) => Text::from_str(ctx.clone(), text)?.into_value(),
        Piece::Array(len) => {
            let array = Array::new(ctx.clone())?;
            for index in 0..len {
                array.set(index, read(ctx, rest, depth + 1)?)?;
            }
            array.into_value()
        }
        Piece::Map(len) => {
            let object = Object::new(ctx.clone())?;
            for _ in 0..len {
                let Piece::Text(key) = piece(rest).map_err(|why| damaged(ctx, &why))? else {
                    return Err(damaged(ctx, &Damaged("it has a key that is no text")));
                };
                object.set(key, read(ctx, rest, depth + 1)?)?;
            }
            object.into_value()
        }
    })
}

/// A value in words, shortened.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = rmp_serde::from_slice::<rmpv::Value>(bytes).map_or_else(|_| "damaged".to_owned(), |value| value.to_string());
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
