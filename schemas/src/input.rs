//! Seeds for `input`, which may precede the task that says how to read it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{
    bounded::{BoundedList, BoundedText, OptionalText, What},
    came::{Came, Refuse, refuse_others},
    generate::{Message, ToolCall},
    key::{Key, Seen, fields},
    limits::{CALL_NAME_CHARS_MAX, Limits, TOOL_CALLS_MAX},
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

fields!(MessageField {
    Role = "role",
    Content = "content",
    ToolCalls = "tool_calls",
    ToolCallId = "tool_call_id",
    Name = "name",
});

const TOOL_CALL_ID: OptionalText<'static> = BoundedText::field("tool_call_id", CALL_NAME_CHARS_MAX);
const NAME: OptionalText<'static> = BoundedText::field("name", CALL_NAME_CHARS_MAX);

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
        let mut message = Message::default();
        let mut seen = Seen::default();
        while let Some(field) = map.next_key_seed(Key::<MessageField>::new())? {
            seen.add(field)?;
            match field {
                MessageField::Role => role = map.next_value_seed(BoundedText::field("role", 32))?,
                MessageField::Content => {
                    content = map.next_value_seed(BoundedText::field("content", usize::MAX))?;
                }
                MessageField::ToolCalls => {
                    let calls = BoundedList {
                        what: "tool_calls",
                        len_max: TOOL_CALLS_MAX,
                        element: ToolCallSeed,
                    };
                    message.tool_calls = map.next_value_seed(calls)?.unwrap_or_default();
                }
                MessageField::ToolCallId => {
                    message.tool_call_id = map.next_value_seed(TOOL_CALL_ID)?;
                }
                MessageField::Name => message.name = map.next_value_seed(NAME)?,
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
        // A turn that only calls tools has no text.
        let content = content.or_else(|| (!message.tool_calls.is_empty()).then(String::new));
        Ok(Message {
            role: role.ok_or_else(|| missing("role"))?,
            content: content.ok_or_else(|| missing("content"))?,
            ..message
        })
    }

    refuse_others!(flag, number, text, null, list, extension);
}

/// The n-th tool call of a message.
struct ToolCallSeed(usize);

fields!(ToolCallField { Id = "id", Name = "name", Arguments = "arguments" });

impl Refuse for ToolCallSeed {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        let what = What::Element("tool_calls", self.0);
        came.instead_of(what, "a map with `id`, `name` and `arguments`")
    }
}

impl<'de> DeserializeSeed<'de> for ToolCallSeed {
    type Value = ToolCall;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<ToolCall, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ToolCallSeed {
    type Value = ToolCall;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("each tool call to be a map with `id`, `name` and `arguments`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ToolCall, A::Error> {
        let mut id = None;
        let mut name = None;
        let mut arguments = None;
        let mut seen = Seen::default();
        while let Some(field) = map.next_key_seed(Key::<ToolCallField>::new())? {
            seen.add(field)?;
            match field {
                ToolCallField::Id => {
                    id = map.next_value_seed(BoundedText::field("id", CALL_NAME_CHARS_MAX))?;
                }
                ToolCallField::Name => name = map.next_value_seed(NAME)?,
                ToolCallField::Arguments => {
                    arguments = map.next_value_seed(BoundedText::field("arguments", usize::MAX))?;
                }
                ToolCallField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let missing = |name| {
            A::Error::custom(format_args!(
                "`tool_calls[{}]` has no `{name}`: every call has `id`, `name` and `arguments`",
                self.0
            ))
        };
        Ok(ToolCall {
            id: id.ok_or_else(|| missing("id"))?,
            name: name.ok_or_else(|| missing("name"))?,
            arguments: arguments.ok_or_else(|| missing("arguments"))?,
        })
    }

    refuse_others!(flag, number, text, null, list, extension);
}
