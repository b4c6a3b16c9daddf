//! Seeds for the parameters of a generation that are maps: `response_format` and `logit_bias`.

use std::{cell::Cell, collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{
    bounded::{BoundedList, BoundedText, Real, What, empty_list},
    came::{Came, Refuse, refuse_others},
    generate::ResponseFormat,
    json::{Json, JsonSeed},
    key::{Key, Seen, fields, twice},
    limits::{CHOICES_MAX, GUIDE_CHARS_MAX, JSON_VALUES_MAX, LOGIT_BIAS_MAX},
};

/// A `response_format`, or null.
pub(crate) struct FormatSeed;

fields!(FormatField { JsonSchema = "json_schema", Regex = "regex", Choice = "choice" });

const FORMAT: &str = "a map with one of `json_schema`, `regex` and `choice`";

impl Refuse for FormatSeed {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of("response_format", FORMAT)
    }
}

impl<'de> DeserializeSeed<'de> for FormatSeed {
    type Value = Option<ResponseFormat>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FormatSeed {
    type Value = Option<ResponseFormat>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`response_format` to be {FORMAT}")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut formats = Vec::new();
        let mut seen = Seen::default();
        while let Some(field) = map.next_key_seed(Key::<FormatField>::new())? {
            seen.add(field)?;
            match field {
                FormatField::JsonSchema => {
                    let left = Cell::new(JSON_VALUES_MAX);
                    let schema =
                        map.next_value_seed(JsonSeed { what: "json_schema", left: &left })?;
                    formats.extend(
                        (schema != Json::Null).then_some(ResponseFormat::JsonSchema(schema)),
                    );
                }
                FormatField::Regex => {
                    let regex =
                        map.next_value_seed(BoundedText::field("regex", GUIDE_CHARS_MAX))?;
                    formats.extend(regex.map(ResponseFormat::Regex));
                }
                FormatField::Choice => {
                    let element =
                        |index| BoundedText::new(What::Element("choice", index), GUIDE_CHARS_MAX);
                    let choice = BoundedList { what: "choice", len_max: CHOICES_MAX, element };
                    formats.extend(map.next_value_seed(choice)?.map(ResponseFormat::Choice));
                }
                FormatField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let format = formats.pop().filter(|_| formats.is_empty());
        format.map(Some).ok_or_else(|| {
            A::Error::custom(format_args!(
                "`response_format` must be {FORMAT}, and no more of them"
            ))
        })
    }

    refuse_others!(flag, number, text, list, extension);
}

/// A token id.
pub(crate) struct Id;

impl<'de> DeserializeSeed<'de> for Id {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<u32, D::Error> {
        let came = Came::deserialize(from)?;
        let id = if let Came::Number(number) = came { u32::try_from(number).ok() } else { None };
        id.ok_or_else(|| came.instead_of("stop_token_ids", "token ids, whole numbers below 2^32"))
    }
}

/// A `logit_bias`: a map of token ids to numbers, or null. The ids are texts in JSON, and numbers where the encoder
/// has them.
pub(crate) struct BiasSeed;

const BIAS: &str = "a map of token ids to numbers";

impl Refuse for BiasSeed {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of("logit_bias", BIAS)
    }
}

impl<'de> DeserializeSeed<'de> for BiasSeed {
    type Value = BTreeMap<u32, f32>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BiasSeed {
    type Value = BTreeMap<u32, f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`logit_bias` to be {BIAS}")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        empty_list(seq)?.then(BTreeMap::new).ok_or_else(|| self.refuse(&Came::List))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut biases = BTreeMap::new();
        while let Some(key) = map.next_key::<Came>()? {
            let id = match &key {
                Came::Text(text) => text.parse::<u32>().ok(),
                Came::Number(number) => u32::try_from(*number).ok(),
                _ => None,
            };
            let id = id.ok_or_else(|| key.instead_of("logit_bias", BIAS))?;
            let Some(bias) = map.next_value_seed(Real("logit_bias"))? else { continue };
            if biases.len() == LOGIT_BIAS_MAX {
                return Err(A::Error::custom(format_args!(
                    "`logit_bias` has more than {LOGIT_BIAS_MAX} pairs: send fewer"
                )));
            }
            if biases.insert(id, bias).is_some() {
                return Err(twice(What::Entry("logit_bias", &id.to_string())));
            }
        }
        Ok(biases)
    }

    refuse_others!(flag, number, text, extension);
}
