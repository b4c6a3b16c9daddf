//! Seeds for `params`, which may precede the task that says how to read them.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{
    bounded::{
        BoundedList, BoundedText, Flag, Number, OptionalText, Real, SmallNumber, What, empty_list,
    },
    came::{Came, Refuse, refuse_others},
    generate::GenerateParams,
    guide::{BiasSeed, FormatSeed, Id},
    job::InputType,
    json::{Json, JsonSeed},
    key::{Key, Seen, fields},
    limits::{JSON_VALUES_MAX, STOP_CHARS_MAX, STOP_TOKENS_MAX, STOPS_MAX, TOOLS_MAX},
};

/// The `params` of a job, before its task is known.
#[derive(Default)]
pub(crate) struct WireParamsRead {
    pub(crate) normalize: Option<bool>,
    pub(crate) truncate: Option<bool>,
    pub(crate) dimensions: Option<u32>,
    pub(crate) top_n: Option<u32>,
    pub(crate) input_type: Option<InputType>,
    /// How many outputs are asked for; more than one is refused.
    pub(crate) n: Option<u32>,
    /// All others. `top_k` is one of `embed_sparse` too.
    pub(crate) generate: GenerateParams,
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
    InputType = "input_type",
    N = "n",
    MaxTokens = "max_tokens",
    MinTokens = "min_tokens",
    Temperature = "temperature",
    TopP = "top_p",
    TopK = "top_k",
    MinP = "min_p",
    PresencePenalty = "presence_penalty",
    FrequencyPenalty = "frequency_penalty",
    RepetitionPenalty = "repetition_penalty",
    LogitBias = "logit_bias",
    Stop = "stop",
    StopTokenIds = "stop_token_ids",
    IgnoreEos = "ignore_eos",
    Seed = "seed",
    Logprobs = "logprobs",
    ReturnTokenIds = "return_token_ids",
    ResponseFormat = "response_format",
    Tools = "tools",
    Stream = "stream",
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
                ParamsField::InputType => {
                    let text = map.next_value_seed(INPUT_TYPE)?;
                    let parse = |text: String| text.parse().map_err(A::Error::custom);
                    read.input_type = text.map(parse).transpose()?;
                }
                ParamsField::N => read.n = map.next_value_seed(SmallNumber("n"))?,
                ParamsField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
                of_generation => read.generate.take(of_generation, &mut map)?,
            }
        }
        Ok(read)
    }

    refuse_others!(flag, number, text, extension);
}

impl GenerateParams {
    /// Reads the value of one field.
    fn take<'de, A: MapAccess<'de>>(
        &mut self,
        field: ParamsField,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let name = crate::key::Fields::name(field);
        let flag = |map: &mut A| map.next_value_seed(Flag(name)).map(Option::unwrap_or_default);
        match field {
            ParamsField::MaxTokens => self.max_tokens = map.next_value_seed(SmallNumber(name))?,
            ParamsField::MinTokens => self.min_tokens = map.next_value_seed(SmallNumber(name))?,
            ParamsField::Temperature => self.temperature = map.next_value_seed(Real(name))?,
            ParamsField::TopP => self.top_p = map.next_value_seed(Real(name))?,
            ParamsField::TopK => self.top_k = map.next_value_seed(SmallNumber(name))?,
            ParamsField::MinP => self.min_p = map.next_value_seed(Real(name))?,
            ParamsField::PresencePenalty => {
                self.presence_penalty = map.next_value_seed(Real(name))?;
            }
            ParamsField::FrequencyPenalty => {
                self.frequency_penalty = map.next_value_seed(Real(name))?;
            }
            ParamsField::RepetitionPenalty => {
                self.repetition_penalty = map.next_value_seed(Real(name))?;
            }
            ParamsField::LogitBias => self.logit_bias = map.next_value_seed(BiasSeed)?,
            ParamsField::Stop => self.stop = map.next_value_seed(StopSeed)?,
            ParamsField::StopTokenIds => {
                let ids = BoundedList { what: name, len_max: STOP_TOKENS_MAX, element: |_| Id };
                self.stop_token_ids = map.next_value_seed(ids)?.unwrap_or_default();
            }
            ParamsField::IgnoreEos => self.ignore_eos = flag(map)?,
            ParamsField::Seed => self.seed = map.next_value_seed(Number(name))?,
            ParamsField::Logprobs => self.logprobs = map.next_value_seed(SmallNumber(name))?,
            ParamsField::ReturnTokenIds => self.return_token_ids = flag(map)?,
            ParamsField::ResponseFormat => {
                self.response_format = map.next_value_seed(FormatSeed)?;
            }
            ParamsField::Tools => self.tools = map.next_value_seed(ToolsSeed)?,
            ParamsField::Stream => self.stream = flag(map)?,
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The `tools` of a generation: a list of maps, or null.
struct ToolsSeed;

impl<'de> DeserializeSeed<'de> for ToolsSeed {
    type Value = Vec<Json>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<Json>, D::Error> {
        let left = Cell::new(JSON_VALUES_MAX);
        let element = |_| JsonSeed { what: "tools", left: &left };
        let tools = BoundedList { what: "tools", len_max: TOOLS_MAX, element };
        Ok(tools.deserialize(from)?.unwrap_or_default())
    }
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
