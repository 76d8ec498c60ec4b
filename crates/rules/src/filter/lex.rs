//! Words of the filter language. The grammar is contextual (a bare word may be a macro, a field, a constant or an
//! operator), so there is no token stream: the parser asks the [`Cursor`] for what it expects.

/// A position in a filter's text.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// Why a quoted text can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapeError {
    /// The closing quote is missing.
    Unterminated,
    /// A backslash before something that can't be escaped; the offset of the backslash.
    Invalid(usize),
}

pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x08 | b'\n' | b'\r')
}

fn is_bare(byte: u8) -> bool {
    !is_blank(byte) && !matches!(byte, b'(' | b')' | b'"' | b'\'' | b'=' | b',')
}

fn is_bare_arg(byte: u8) -> bool {
    !is_blank(byte) && !matches!(byte, b'[' | b']' | b'"' | b'\'')
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_end(&self) -> bool {
        self.at >= self.text.len()
    }

    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn byte_behind(&self, length: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + length).copied()
    }

    /// Steps over `length` bytes, which the caller has seen to end on a character boundary.
    pub(super) fn skip(&mut self, length: usize) {
        self.at += length;
    }

    pub(super) fn back_to(&mut self, at: usize) {
        self.at = at;
    }

    pub(super) fn blanks(&mut self) {
        while self.byte().is_some_and(is_blank) {
            self.at += 1;
        }
    }

    /// Takes a fixed word.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Takes the bytes while `wanted`; all classes of bytes used here keep characters whole.
    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> Option<&'a str> {
        let rest = self.rest();
        let length = rest.bytes().position(|byte| !wanted(byte)).unwrap_or(rest.len());
        self.at += length;
        (length > 0).then(|| &rest[..length])
    }

    /// Takes `[a-zA-Z]+[a-zA-Z0-9_]*`.
    pub(super) fn identifier(&mut self) -> Option<&'a str> {
        if !self.byte()?.is_ascii_alphabetic() {
            return None;
        }
        self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    }

    /// Takes at least two identifiers with dots between them.
    pub(super) fn field_name(&mut self) -> Option<&'a str> {
        let (start, text) = (self.at, self.text);
        self.identifier()?;
        let mut end = None;
        while self.take(".") && self.identifier().is_some() {
            end = Some(self.at);
        }
        self.at = end.unwrap_or(start);
        end.map(|end| &text[start..end])
    }

    /// Takes a number: hexadecimal, or decimal with optional sign, fraction and (signed) exponent.
    pub(super) fn number(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let digits = |from: usize| bytes[from.min(bytes.len())..].iter().take_while(|b| b.is_ascii_digit()).count();
        if bytes.first() == Some(&b'0') && matches!(bytes.get(1), Some(b'x' | b'X')) {
            let hex = bytes[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            if hex > 0 {
                self.at += 2 + hex;
                return Some(&rest[..2 + hex]);
            }
        }
        let sign = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
        let whole = digits(sign);
        if whole == 0 {
            return None;
        }
        let mut length = sign + whole;
        if bytes.get(length) == Some(&b'.') {
            length += 1 + digits(length + 1);
        }
        if matches!(bytes.get(length), Some(b'e' | b'E')) && matches!(bytes.get(length + 1), Some(b'+' | b'-')) {
            let exponent = digits(length + 2);
            length += if exponent > 0 { 2 + exponent } else { 0 };
        }
        self.at += length;
        Some(&rest[..length])
    }

    /// Takes a constant without quotes.
    pub(super) fn bare(&mut self) -> Option<&'a str> {
        self.take_while(is_bare)
    }

    /// Takes the inside of brackets without quotes.
    pub(super) fn bare_arg(&mut self) -> Option<&'a str> {
        self.take_while(is_bare_arg)
    }

    /// Takes a constant in quotes, if one begins here.
    pub(super) fn quoted(&mut self) -> Option<Result<Box<[u8]>, EscapeError>> {
        let quote = self.byte().filter(|byte| matches!(byte, b'"' | b'\''))?;
        let bytes = self.rest().as_bytes();
        // A quote ends the text unless the byte before it is a backslash, however many stand before that one.
        let end = (1..bytes.len()).find(|at| bytes[*at] == quote && bytes[at - 1] != b'\\');
        let Some(end) = end else { return Some(Err(EscapeError::Unterminated)) };
        let value = unescape(&bytes[..=end]);
        if value.is_ok() {
            self.at += end + 1;
        }
        Some(value)
    }
}

/// Resolves the escapes of a quoted text; the quotes are part of the argument.
pub fn unescape(quoted: &[u8]) -> Result<Box<[u8]>, EscapeError> {
    let [quote, inside @ .., _] = quoted else { return Err(EscapeError::Unterminated) };
    let mut value = Vec::with_capacity(inside.len());
    let mut at = 0;
    while let Some(&byte) = inside.get(at) {
        at += 1;
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        let invalid = EscapeError::Invalid(at);
        let Some(&escaped) = inside.get(at) else { return Err(invalid) };
        at += 1;
        value.push(match escaped {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'/' => b'/',
            // Rules with Windows-like paths relied on a lone backslash; Falco reads the pair as one.
            b'\\' | b' ' => b'\\',
            b'"' | b'\'' if escaped == *quote => escaped,
            b'x' => {
                let hex = inside.get(at..at + 2).and_then(|pair| Some(hex(pair[0])? << 4 | hex(pair[1])?));
                at += 2;
                hex.ok_or(invalid)?
            }
            _ => return Err(invalid),
        });
    }
    Ok(value.into())
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}
