//! The hash chain: digests, links and the head of a chain. The only file that knows SHA-256.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::{error::ParseError, segment_name::ChainNumber};

/// A SHA-256 hash, printed and parsed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The hash that the first record of a chain links to.
    pub(crate) const ZERO: Self = Self([0; 32]);

    /// The number of hexadecimal digits of a digest.
    pub(crate) const HEX_LEN: usize = 64;

    /// Returns the 32 bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the hash of a record's body: the RFC 6962 leaf hash, SHA-256 over a zero byte and the body.
    pub(crate) fn of_body(body: &[u8]) -> Self {
        Self::of_split_body(body, b"")
    }

    /// Returns the hash of a body that is held in two slices.
    pub(crate) fn of_split_body(start: &[u8], end: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update([0]);
        hasher.update(start);
        hasher.update(end);
        Self(hasher.finalize().into())
    }

    /// Returns the plain SHA-256 of bytes that are not a record.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the digest as lower-case hexadecimal digits.
    pub(crate) fn hex(&self) -> [u8; Self::HEX_LEN] {
        let mut hex = [0; Self::HEX_LEN];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
        hex
    }

    /// Parses exactly 64 lower-case hexadecimal digits and returns `None` for anything else. If upper
    /// case were accepted too, a single flipped bit could go undetected.
    pub(crate) fn from_hex(hex: &[u8]) -> Option<Self> {
        let hex: &[u8; Self::HEX_LEN] = hex.try_into().ok()?;
        // No early return, and only byte operations: the compiler vectorises such a loop. `bad` is checked at the end.
        let mut values = [0_u8; Self::HEX_LEN];
        let mut bad = 0;
        for (value, byte) in values.iter_mut().zip(hex) {
            let (digit, letter) = (byte.wrapping_sub(b'0'), byte.wrapping_sub(b'a'));
            bad |= digit.saturating_sub(9).min(letter.saturating_sub(5));
            // The digit value where it is one, else the letter value: the wrong one of the two is always larger.
            *value = digit.min(letter.wrapping_add(10));
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(values.as_chunks::<2>().0) {
            // The first digit is the high half of its byte.
            let [low, _] = (u16::from_le_bytes(*pair) << 4 | u16::from_le_bytes(*pair) >> 8).to_le_bytes();
            *byte = low;
        }
        (bad == 0).then_some(Self(bytes))
    }
}

/// A plain SHA-256 over bytes that arrive in several slices.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

const fn hex_digit(nibble: u8) -> u8 {
    nibble + if nibble < 10 { b'0' } else { b'a' - 10 }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::from_hex(text.as_bytes())
            .ok_or_else(|| ParseError::new("digest", text, "64 lower-case hexadecimal digits"))
    }
}

/// The last durable record of a chain: its chain, its sequence number and its hash.
///
/// A head that is kept elsewhere (printed, mailed, stored in another system) makes a truncated or
/// rewritten log detectable: pass it to [`Verifier::expect_head`](crate::Verifier::expect_head).
/// Prints and parses as `<chain>/<sequence number>:<hash>`, e.g. `000/42:9f3c…`.
#[doc(alias = "hash chain")]
#[doc(alias = "checkpoint")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    pub(crate) chain: ChainNumber,
    pub(crate) seq: u64,
    pub(crate) hash: Digest,
}

impl Head {
    /// Returns the number of the chain in its log: `0` for a log written by a single process.
    #[must_use]
    pub fn chain(&self) -> u16 {
        self.chain.get()
    }

    /// Returns the sequence number of the record, counted from 1 over the whole chain.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Returns the hash of the record.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.hash
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.chain, self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (chain, rest) = text.split_once('/')?;
            let (seq, hash) = rest.split_once(':')?;
            let plain = seq.bytes().all(|digit| digit.is_ascii_digit()) && !seq.starts_with('0');
            Some(Self {
                chain: ChainNumber::parse(chain)?,
                seq: if plain { seq.parse().ok()? } else { return None },
                hash: Digest::from_hex(hash.as_bytes())?,
            })
        };
        parse().ok_or_else(|| ParseError::new("head", text, "<chain>/<sequence number>:<hash>"))
    }
}

/// Proof for the caller that an event is durable: its position in the chain and its hash.
///
/// Returned by [`AuditLog::confirm`](crate::AuditLog::confirm). It can be verified later like any
/// other [`Head`], and prints and parses the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt(pub(crate) Head);

impl Receipt {
    /// Returns the number of the chain that holds the record.
    #[must_use]
    pub fn chain(&self) -> u16 {
        self.0.chain()
    }

    /// Returns the sequence number of the record in its chain.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.0.seq
    }

    /// Returns the hash of the record.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.0.hash
    }

    /// Returns the same position as a head, to pass to a [`Verifier`](crate::Verifier).
    #[must_use]
    pub fn head(&self) -> Head {
        self.0
    }
}

impl From<Receipt> for Head {
    fn from(receipt: Receipt) -> Self {
        receipt.0
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Receipt {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The step between tested values: larger under Miri, which runs a thousand times slower.
    const STEP: usize = if cfg!(miri) { 37 } else { 1 };

    #[test]
    fn a_head_prints_and_parses() {
        let head = Head { chain: ChainNumber::FIRST, seq: 42, hash: Digest::of_body(b"{}") };
        let text = head.to_string();
        assert!(text.starts_with("000/42:"), "{text}");
        assert_eq!(text.parse::<Head>().unwrap(), head);
        assert_eq!(text.parse::<Receipt>().unwrap().head(), head);
    }

    #[test]
    fn every_byte_is_read_back_at_every_position() {
        for position in 0..32 {
            for value in 0..=255 {
                let mut bytes = [0x5A; 32];
                bytes[position] = value;
                assert_eq!(Digest::from_hex(&Digest(bytes).hex()), Some(Digest(bytes)));
            }
        }
    }

    #[test]
    fn only_lower_case_hex_is_a_digest() {
        let hex = Digest::of_bytes(b"abc").hex();
        assert_eq!(&hex, b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Digest::from_hex(&hex), Some(Digest::of_bytes(b"abc")));
        assert_eq!(Digest::from_hex(&hex.to_ascii_uppercase()), None);
        for position in 0..hex.len() {
            let others = (0..=255).filter(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            for wrong in others.step_by(STEP) {
                let mut bad = hex;
                bad[position] = wrong;
                assert_eq!(Digest::from_hex(&bad), None, "{wrong} at {position}");
            }
        }
        for bad in ["000/0:x", "000/01:", "0/1:", "000/1", "1:2"] {
            assert!(bad.parse::<Head>().is_err(), "{bad}");
        }
    }
}
