//! The wire format of protobuf: numbered fields of four shapes.

use super::schema::{Scalar, Type};

/// The value of a field, not yet understood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A variable-length integer.
    Number(u64),
    /// Eight bytes.
    Fixed(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
}

impl Token<'_> {
    /// The value of a field of this type that is left out.
    pub(super) fn zero(type_: &Type) -> Token<'static> {
        match type_ {
            Type::Scalar(Scalar::Integer | Scalar::Boolean) => Token::Number(0),
            Type::Scalar(Scalar::Double) => Token::Fixed(0),
            _ => Token::Bytes(&[]),
        }
    }
}

/// The bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads the fields of a message.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next field; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Token<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
        let token = match tag & 7 {
            0 => Token::Number(self.varint()?),
            1 => Token::Fixed(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Malformed)?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Token::Bytes(self.take(length)?)
            }
            5 => {
                let bits = u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Malformed)?);
                Token::Number(bits.into())
            }
            _ => return Err(Malformed),
        };
        Ok(Some((number, token)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}
