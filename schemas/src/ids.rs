//! Seeds for `input_ids`: the token ids of one sequence, or a list of such sequences.

use std::{cell::Cell, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor},
};

use crate::{
    bounded::What,
    came::{Came, Refuse, refuse_others},
    limits::{Limits, TOKEN_IDS_MAX},
};

const FIELD: &str = "input_ids";

/// The `input_ids` of a job, or null. Each sequence is a list; a list of numbers is one sequence.
pub(crate) struct IdsSeed<'a> {
    pub(crate) limits: &'a Limits,
}

impl Refuse for IdsSeed<'_> {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of(FIELD, "a list of lists of token ids")
    }
}

impl<'de> DeserializeSeed<'de> for IdsSeed<'_> {
    type Value = Option<Vec<Vec<u32>>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for IdsSeed<'_> {
    type Value = Option<Vec<Vec<u32>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{FIELD}` to be a list of lists of token ids")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let left = Cell::new(TOKEN_IDS_MAX);
        let first = match seq.next_element_seed(First(&left))? {
            None => return Ok(Some(Vec::new())),
            Some(Element::Sequence(ids)) => ids,
            Some(Element::Id(id)) => {
                let mut ids = vec![id];
                while let Some(id) = seq.next_element_seed(Id { at: None, left: &left })? {
                    ids.push(id);
                }
                return Ok(Some(vec![ids]));
            }
        };
        let mut sequences = vec![first];
        while let Some(ids) =
            seq.next_element_seed(Sequence { at: sequences.len(), left: &left })?
        {
            let len_max = self.limits.inputs_max;
            if sequences.len() == len_max {
                let words = format_args!("`{FIELD}` has more than {len_max} elements: send fewer");
                return Err(A::Error::custom(words));
            }
            sequences.push(ids);
        }
        Ok(Some(sequences))
    }

    refuse_others!(flag, number, text, map, extension);
}

/// The first element says of which kind all of them are.
enum Element {
    Id(u32),
    Sequence(Vec<u32>),
}

/// The first element, with the number of ids that there may still be.
struct First<'a>(&'a Cell<usize>);

impl First<'_> {
    fn id<E: Error>(&self, came: &Came) -> Result<Element, E> {
        Id { at: None, left: self.0 }.of(came).map(Element::Id)
    }
}

impl Refuse for First<'_> {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of(What::Element(FIELD, 0), "a list of token ids")
    }
}

impl<'de> DeserializeSeed<'de> for First<'_> {
    type Value = Element;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Element, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for First<'_> {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of token ids")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Element, E> {
        self.id(&Came::Number(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Element, E> {
        self.id(&Came::signed(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Element, E> {
        self.id(&Came::real(number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Element, A::Error> {
        Sequence { at: 0, left: self.0 }.visit_seq(seq).map(Element::Sequence)
    }

    refuse_others!(flag, text, null, map, extension);
}

/// The n-th sequence.
struct Sequence<'a> {
    at: usize,
    left: &'a Cell<usize>,
}

impl Refuse for Sequence<'_> {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of(What::Element(FIELD, self.at), "a list of token ids")
    }
}

impl<'de> DeserializeSeed<'de> for Sequence<'_> {
    type Value = Vec<u32>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<u32>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sequence<'_> {
    type Value = Vec<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of token ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u32>, A::Error> {
        let Self { at, left } = self;
        // An announced length is not yet data: a short body must not allocate a long list.
        let mut ids = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(64));
        while let Some(id) = seq.next_element_seed(Id { at: Some(at), left })? {
            ids.push(id);
        }
        Ok(ids)
    }

    refuse_others!(flag, number, text, null, map, extension);
}

/// One id, of the n-th sequence or of the only one.
struct Id<'a> {
    at: Option<usize>,
    left: &'a Cell<usize>,
}

impl Id<'_> {
    fn of<E: Error>(&self, came: &Came) -> Result<u32, E> {
        let id = match came {
            Came::Number(number) => u32::try_from(*number).ok(),
            _ => None,
        };
        let what = self.at.map_or(What::Field(FIELD), |at| What::Element(FIELD, at));
        let id = id.ok_or_else(|| came.instead_of(what, "token ids, whole numbers below 2^32"))?;
        let left = self.left.get().checked_sub(1).ok_or_else(|| {
            E::custom(format_args!(
                "`{FIELD}` has more than {TOKEN_IDS_MAX} token ids: split it into several jobs"
            ))
        })?;
        self.left.set(left);
        Ok(id)
    }
}

impl<'de> DeserializeSeed<'de> for Id<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<u32, D::Error> {
        self.of(&Came::deserialize(from)?)
    }
}
