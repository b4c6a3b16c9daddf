//! Seeds for `input` and `params`, which may precede the task that says how to read them.

use std::fmt;

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{
    bounded::{BoundedList, BoundedText, Flag, Number, Real, SmallNumber},
    job::Message,
    limits::{Limits, STOP_CHARS_MAX, STOPS_MAX},
};

/// The `input` of a job, before its task is known.
pub(crate) enum WireInputs {
    Texts(Vec<String>),
    Map {
        query: Option<String>,
        documents: Option<Vec<String>>,
        prompt: Option<String>,
        messages: Option<Vec<Message>>,
    },
}

pub(crate) struct InputSeed<'a> {
    pub(crate) limits: &'a Limits,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum InputField {
    Query,
    Documents,
    Prompt,
    Messages,
    #[serde(other)]
    Other,
}

impl InputSeed<'_> {
    fn list<S>(&self, what: &'static str, element: S) -> BoundedList<S> {
        BoundedList { what, len_max: self.limits.inputs_max, element }
    }
}

impl<'de> DeserializeSeed<'de> for InputSeed<'_> {
    type Value = WireInputs;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<WireInputs, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for InputSeed<'_> {
    type Value = WireInputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`input` to be a string, a list of strings or a map")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<WireInputs, E> {
        Ok(WireInputs::Texts(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<WireInputs, A::Error> {
        let list = self.list("input", BoundedText::free("each input"));
        list.visit_seq(seq).map(WireInputs::Texts)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireInputs, A::Error> {
        let mut query = None;
        let mut documents = None;
        let mut prompt = None;
        let mut messages = None;
        while let Some(field) = map.next_key::<InputField>()? {
            match field {
                InputField::Query => query = Some(map.next_value_seed(BoundedText::free("query"))?),
                InputField::Prompt => {
                    prompt = Some(map.next_value_seed(BoundedText::free("prompt"))?);
                }
                InputField::Documents => {
                    let list = self.list("documents", BoundedText::free("each document"));
                    documents = Some(map.next_value_seed(list)?);
                }
                InputField::Messages => {
                    messages = Some(map.next_value_seed(self.list("messages", MessageSeed))?);
                }
                InputField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(WireInputs::Map { query, documents, prompt, messages })
    }
}

#[derive(Clone, Copy)]
struct MessageSeed;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum MessageField {
    Role,
    Content,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for MessageSeed {
    type Value = Message;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Message, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed {
    type Value = Message;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("each message to be a map with `role` and `content`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message, A::Error> {
        let mut role = None;
        let mut content = None;
        while let Some(field) = map.next_key::<MessageField>()? {
            match field {
                MessageField::Role => {
                    role = Some(map.next_value_seed(BoundedText::new("role", 32))?);
                }
                MessageField::Content => {
                    content = Some(map.next_value_seed(BoundedText::free("content"))?);
                }
                MessageField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let role = role.ok_or_else(|| A::Error::missing_field("role"))?;
        let content = content.ok_or_else(|| A::Error::missing_field("content"))?;
        Ok(Message { role, content })
    }
}

/// The `params` of a job, before its task is known.
#[derive(Default)]
pub(crate) struct WireParamsRead {
    pub(crate) normalize: Option<bool>,
    pub(crate) truncate: Option<bool>,
    pub(crate) dimensions: Option<u32>,
    pub(crate) top_n: Option<u32>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<u32>,
    pub(crate) stop: Vec<String>,
    pub(crate) seed: Option<u64>,
}

/// `params`, or null.
pub(crate) struct ParamsSeed;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum ParamsField {
    Normalize,
    Truncate,
    Dimensions,
    TopN,
    MaxTokens,
    Temperature,
    TopP,
    TopK,
    Stop,
    Seed,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for ParamsSeed {
    type Value = WireParamsRead;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<WireParamsRead, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ParamsSeed {
    type Value = WireParamsRead;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`params` to be a map")
    }

    fn visit_unit<E: Error>(self) -> Result<WireParamsRead, E> {
        Ok(WireParamsRead::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireParamsRead, A::Error> {
        const STOPS: BoundedList<BoundedText> = BoundedList {
            what: "stop",
            len_max: STOPS_MAX,
            element: BoundedText::new("stop", STOP_CHARS_MAX),
        };
        let mut read = WireParamsRead::default();
        while let Some(field) = map.next_key::<ParamsField>()? {
            match field {
                ParamsField::Normalize => {
                    read.normalize = map.next_value_seed(Flag("normalize"))?;
                }
                ParamsField::Truncate => read.truncate = map.next_value_seed(Flag("truncate"))?,
                ParamsField::Dimensions => {
                    read.dimensions = map.next_value_seed(SmallNumber("dimensions"))?;
                }
                ParamsField::TopN => read.top_n = map.next_value_seed(SmallNumber("top_n"))?,
                ParamsField::MaxTokens => {
                    read.max_tokens = map.next_value_seed(SmallNumber("max_tokens"))?;
                }
                ParamsField::Temperature => {
                    read.temperature = map.next_value_seed(Real("temperature"))?;
                }
                ParamsField::TopP => read.top_p = map.next_value_seed(Real("top_p"))?,
                ParamsField::TopK => read.top_k = map.next_value_seed(SmallNumber("top_k"))?,
                ParamsField::Stop => read.stop = map.next_value_seed(STOPS)?,
                ParamsField::Seed => read.seed = map.next_value_seed(Number("seed"))?,
                ParamsField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(read)
    }
}
