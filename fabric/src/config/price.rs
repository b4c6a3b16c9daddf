//! [`Price`]: what a model's tokens cost.
//!
//! Money is counted in whole units of 1e-9 of a currency unit, so that sums are exact. The currency is the operator's:
//! one for the whole file.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The units of 1e-9 in one currency unit.
pub const NANOS: u64 = 1_000_000_000;

/// Digits before the point: as many as fit into 64 bits in units of 1e-9.
const WHOLE_DIGITS_MAX: usize = 9;
/// Digits after the point: a unit is 1e-9.
const FRACTION_DIGITS_MAX: usize = 9;

/// The price of a model: for a million tokens, in units of 1e-9 of a currency unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// A million tokens of input.
    #[serde(with = "decimal")]
    pub input_per_million: u64,
    /// A million tokens of output. Models that generate no text have none.
    #[serde(default, with = "decimal")]
    pub output_per_million: u64,
}

/// A decimal that is no amount of money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no price: {why}; write currency units, such as \"0.02\"")]
pub struct NotDecimal {
    text: String,
    why: &'static str,
}

/// The units of 1e-9 of a decimal such as `0.02`, exactly.
pub fn parse_decimal(text: &str) -> Result<u64, NotDecimal> {
    let wrong = |why| NotDecimal { text: text.chars().take(40).collect(), why };
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return Err(wrong("it ends with a point")),
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(wrong("it is not made of digits with at most one point between them"));
    }
    let whole = whole.trim_start_matches('0');
    if whole.len() > WHOLE_DIGITS_MAX {
        return Err(wrong("it has more than 9 digits before the point"));
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > FRACTION_DIGITS_MAX {
        return Err(wrong("it has more than 9 digits after the point"));
    }
    // Both have at most nine digits now, so nothing overflows.
    let number = |part: &str| part.bytes().fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'));
    let missing = (FRACTION_DIGITS_MAX - fraction.len()) as u32;
    Ok(number(whole) * NANOS + number(fraction) * 10_u64.pow(missing))
}

/// The decimal of so many units of 1e-9, without digits that say nothing.
pub fn format_decimal(nanos: u64) -> String {
    let whole = nanos / NANOS;
    let fraction = nanos % NANOS;
    if fraction == 0 {
        return whole.to_string();
    }
    let fraction = format!("{fraction:09}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

/// Amounts in a file: a decimal in quotes, or a number.
mod decimal {
    use super::{Amount, Deserializer, Serializer, format_decimal};

    // Serde asks for a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(nanos: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format_decimal(*nanos))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        from.deserialize_any(Amount)
    }
}

struct Amount;

impl de::Visitor<'_> for Amount {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a price in currency units, such as 0.02 or \"0.02\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse_decimal(text.trim()).map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<u64, E> {
        // The shortest decimal that reads as this number: the one that was written, up to 15 digits.
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        self.visit_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_price_is_read_exactly_from_a_number_or_a_text() {
        for (written, nanos) in [
            ("0", 0),
            ("2", 2 * NANOS),
            ("0.02", 20_000_000),
            ("\"0.02\"", 20_000_000),
            ("\"0.000000001\"", 1),
            ("1e-7", 100),
            ("0.1", 100_000_000),
            ("\"999999999.999999999\"", 999_999_999_999_999_999),
            ("\"007.50\"", 7_500_000_000),
        ] {
            let price: Price = toml::from_str(&format!("input_per_million = {written}")).unwrap();
            assert_eq!(price, Price { input_per_million: nanos, output_per_million: 0 });
        }
    }

    #[test]
    fn what_is_no_price_is_refused_with_what_to_write() {
        for written in [
            "-1",
            "-0.5",
            "nan",
            "inf",
            "1e12",
            "\"\"",
            "\"1,5\"",
            "\"1.\"",
            "\".5\"",
            "\"$1\"",
            "\"0.0000000001\"",
            "true",
        ] {
            let text = format!("input_per_million = {written}");
            let error = toml::from_str::<Price>(&text).unwrap_err().to_string();
            assert!(error.contains("0.02"), "{written}: {error}");
        }
        let error = toml::from_str::<Price>("output_per_million = 1").unwrap_err().to_string();
        assert!(error.contains("input_per_million"), "{error}");
    }

    proptest! {
        #[test]
        fn an_amount_survives_writing_and_reading(nanos in 0..1_000_000_000_000_000_000_u64) {
            prop_assert_eq!(parse_decimal(&format_decimal(nanos)), Ok(nanos));
        }

        #[test]
        fn no_text_panics(text in ".{0,30}") {
            let _ = parse_decimal(&text);
        }
    }
}
