//! Seeds for `input` and `params`, which may precede the task that says how to read them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{
    bounded::{
        BoundedList, BoundedText, Flag, Number, OptionalText, Real, SmallNumber, What, empty_list,
    },
    came::{Came, Refuse, refuse_others},
    job::{InputType, Message},
    key::{Key, Seen, fields},
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

fields!(InputField {
    Query = "query",
    Documents = "documents",
    Prompt = "prompt",
    Messages = "messages",
});

impl InputSeed<'_> {
    fn list<F>(&self, what: &'static str, element: F) -> BoundedList<F> {
        BoundedList { what, len_max: self.limits.inputs_max, element }
    }
}

impl Refuse for InputSeed<'_> {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of("input", "a string, a list of strings or a map")
    }
}

/// The seed of the n-th of the texts `what`.
fn text(what: &'static str) -> impl Fn(usize) -> BoundedText<'static> {
    move |index| BoundedText::free(What::Element(what, index))
}

impl<'de> DeserializeSeed<'de> for InputSeed<'_> {
    type Value = Option<WireInputs>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for InputSeed<'_> {
    type Value = Option<WireInputs>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`input` to be a string, a list of strings or a map")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(WireInputs::Texts(vec![text.to_owned()])))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let text = std::str::from_utf8(bytes).map_err(|_| self.refuse(&Came::bytes(bytes)))?;
        self.visit_str(text)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        let list = self.list("input", text("input"));
        list.read(seq).map(|texts| Some(WireInputs::Texts(texts)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut query = None;
        let mut documents = None;
        let mut prompt = None;
        let mut messages = None;
        let mut seen = Seen::default();
        while let Some(field) = map.next_key_seed(Key::<InputField>::new())? {
            seen.add(field)?;
            match field {
                InputField::Query => {
                    query = map.next_value_seed(BoundedText::field("query", usize::MAX))?;
                }
                InputField::Prompt => {
                    prompt = map.next_value_seed(BoundedText::field("prompt", usize::MAX))?;
                }
                InputField::Documents => {
                    documents = map.next_value_seed(self.list("documents", text("documents")))?;
                }
                InputField::Messages => {
                    messages = map.next_value_seed(self.list("messages", MessageSeed))?;
                }
                InputField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(WireInputs::Map { query, documents, prompt, messages }))
    }

    refuse_others!(flag, number, extension);
}

/// The n-th message of a conversation.
struct MessageSeed(usize);

fields!(MessageField { Role = "role", Content = "content" });

impl Refuse for MessageSeed {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of(What::Element("messages", self.0), "a map with `role` and `content`")
    }
}

impl<'de> DeserializeSeed<'de> for MessageSeed {
    type Value = Message;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Message, D::Error> {
        from.deserialize_any(self)
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
        let mut seen = Seen::default();
        while let Some(field) = map.next_key_seed(Key::<MessageField>::new())? {
            seen.add(field)?;
            match field {
                MessageField::Role => role = map.next_value_seed(BoundedText::field("role", 32))?,
                MessageField::Content => {
                    content = map.next_value_seed(BoundedText::field("content", usize::MAX))?;
                }
                MessageField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let missing = |name| {
            A::Error::custom(format_args!(
                "`messages[{}]` has no `{name}`: every message has one",
                self.0
            ))
        };
        Ok(Message {
            role: role.ok_or_else(|| missing("role"))?,
            content: content.ok_or_else(|| missing("content"))?,
        })
    }

    refuse_others!(flag, number, text, null, list, extension);
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
    pub(crate) input_type: Option<InputType>,
    pub(crate) stop: Vec<String>,
    pub(crate) seed: Option<u64>,
}

/// No name is longer.
const INPUT_TYPE: OptionalText<'static> = BoundedText::field("input_type", 32);

/// `params`, or null.
pub(crate) struct ParamsSeed;

impl Refuse for ParamsSeed {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of("params", "a map")
    }
}

fields!(ParamsField {
    Normalize = "normalize",
    Truncate = "truncate",
    Dimensions = "dimensions",
    TopN = "top_n",
    MaxTokens = "max_tokens",
    Temperature = "temperature",
    TopP = "top_p",
    TopK = "top_k",
    InputType = "input_type",
    Stop = "stop",
    Seed = "seed",
});

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

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<WireParamsRead, A::Error> {
        empty_list(seq)?.then(WireParamsRead::default).ok_or_else(|| self.refuse(&Came::List))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireParamsRead, A::Error> {
        let mut read = WireParamsRead::default();
        let mut seen = Seen::default();
        while let Some(field) = map.next_key_seed(Key::<ParamsField>::new())? {
            seen.add(field)?;
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
                ParamsField::InputType => {
                    let text = map.next_value_seed(INPUT_TYPE)?;
                    let parse = |text: String| text.parse().map_err(A::Error::custom);
                    read.input_type = text.map(parse).transpose()?;
                }
                ParamsField::Stop => read.stop = map.next_value_seed(StopSeed)?,
                ParamsField::Seed => read.seed = map.next_value_seed(Number("seed"))?,
                ParamsField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(read)
    }

    refuse_others!(flag, number, text, extension);
}

/// The `stop` strings of a generation: a list, a single one, or null.
struct StopSeed;

impl Refuse for StopSeed {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of("stop", "a list of strings")
    }
}

impl<'de> DeserializeSeed<'de> for StopSeed {
    type Value = Vec<String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StopSeed {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`stop` to be a list of strings")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        BoundedText::new(What::Field("stop"), STOP_CHARS_MAX).visit_str(text).map(|stop| vec![stop])
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let text = std::str::from_utf8(bytes).map_err(|_| self.refuse(&Came::bytes(bytes)))?;
        self.visit_str(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        let element = |index| BoundedText::new(What::Element("stop", index), STOP_CHARS_MAX);
        BoundedList { what: "stop", len_max: STOPS_MAX, element }.read(seq)
    }

    refuse_others!(flag, number, map, extension);
}
