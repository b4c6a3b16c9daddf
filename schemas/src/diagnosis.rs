//! The mistake in a body that is no job, in words by which its sender finds it; and everything that can still be read
//! of the body, so that the sender finds the answer. Whether and where that is does not depend on the order of fields,
//! as far as the body can be read to its end.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{
    came::Came,
    codec::{self, CodecError, ContentType},
    fields::Field,
    job::Task,
    key::Fields as _,
    limits::{Limits, NOTIFY_CHARS_MAX, RESULT_TTL_S_MAX, TENANT_CHARS_MAX},
    names::JobId,
    outcome::{ErrorCode, JobError},
    version::VERSION,
};

/// How deep a body may nest whose head is still read, though it be too deep for a job: as deep as `serde_json` goes by
/// itself, and far from the end of any stack.
const DIAGNOSIS_DEPTH_MAX: usize = 127;

/// The fields that could be read of a body that is no job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The version, if it is a whole number.
    pub v: Option<u64>,
    /// The id, if it is one.
    pub id: Option<JobId>,
    /// The model as it was named.
    pub model: Option<String>,
    /// The task as it was named.
    pub task: Option<String>,
    /// The tenant, if it is within its bounds.
    pub tenant: Option<String>,
    /// How long the result is to be kept, if that is allowed.
    pub result_ttl_s: Option<u64>,
    /// The channel on which the waiting publisher listens.
    pub notify: Option<String>,
    /// The metadata to return, if it is within its bounds.
    pub metadata: BTreeMap<String, String>,
}

/// The mistake in a body in which `error` was found, which may lie behind that error, and what could be read.
pub(crate) fn diagnose(
    error: JobError,
    body: &[u8],
    declared: ContentType,
    limits: &Limits,
) -> (JobError, Head) {
    let depth_max = limits.depth_max.max(DIAGNOSIS_DEPTH_MAX);
    let shape = Shape::of(body, depth_max);
    let written = match shape {
        Shape::Map(content_type) => content_type,
        _ => declared,
    };
    let mut reading = Reading::default();
    // A body that breaks off ends the reading, and what came before it counts. One that nests too deep for the
    // diagnosis too counts as unread whole: its end may well be there, and another order of its fields would have shown
    // others.
    let seed = HeadSeed { reading: &mut reading, wanted: &HEAD };
    match codec::decode_seed(seed, body, written, depth_max) {
        Err(CodecError::Depth(_)) => reading = Reading::default(),
        Err(_) if matches!(shape, Shape::Map(_)) => {
            reading = field_by_field(body, written, depth_max);
        }
        Ok(()) | Err(_) => {}
    }
    let mut head = reading.head;
    if reading.ids_differ {
        head.id = None;
    }
    let error = root_cause(error, &head, shape.mistake(declared), &reading.miswritten);
    (error, head)
}

/// Reads a body that is whole and has a value which can be passed over and not read: half of a surrogate pair, or a
/// number that no type holds. It hides no other field, wherever it stands.
fn field_by_field(body: &[u8], written: ContentType, depth_max: usize) -> Reading {
    HEAD.into_iter().fold(Reading::default(), |before, field| {
        let mut reading = Reading { miswritten: Vec::new(), ..before.clone() };
        let seed = HeadSeed { reading: &mut reading, wanted: &[field] };
        let read = codec::decode_seed(seed, body, written, depth_max);
        if read.is_ok() { reading } else { before }
    })
}

fn root_cause(
    error: JobError,
    head: &Head,
    mistake: Option<String>,
    miswritten: &[String],
) -> JobError {
    if let Some(mistake) = mistake {
        return JobError::invalid(mistake);
    }
    // A job of another version may have another shape: then the version is the fault, not the shape.
    if let Some(v) = head.v.filter(|&v| v != VERSION) {
        let message = format!("version {v} is not supported: send `v`: {VERSION}");
        return JobError::new(ErrorCode::UnsupportedVersion, message);
    }
    if let Some(Err(unknown)) = head.task.as_deref().map(str::parse::<Task>) {
        return JobError::new(ErrorCode::TaskNotSupported, unknown.to_string());
    }
    let is_missing = |name: &&String| {
        error.message.starts_with(&format!("`{}` is missing", name.to_ascii_lowercase()))
    };
    match miswritten.iter().find(is_missing) {
        Some(name) => {
            let hint =
                format!("{} (there is a `{name}`: names are written in lower case)", error.message);
            JobError::invalid(hint)
        }
        None => error,
    }
}

/// The look of a whole body, whatever it is declared to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Empty,
    Compressed(&'static str),
    Map(ContentType),
    CeleryTask,
    List,
    /// A value that is no map.
    Scalar,
    /// Nothing that can be read to its end.
    Unknown,
}

impl Shape {
    fn of(body: &[u8], depth_max: usize) -> Self {
        let content_type = ContentType::guess(body);
        let whole = || codec::decode::<IgnoredAny>(body, content_type, depth_max).is_ok();
        match body {
            [] => Self::Empty,
            _ if body.trim_ascii().is_empty() => Self::Empty,
            [0x1f, 0x8b, ..] => Self::Compressed("gzip"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Compressed("zstd"),
            _ if begins_map(body, content_type) => {
                if whole() {
                    Self::Map(content_type)
                } else {
                    Self::Unknown
                }
            }
            _ if begins_list(body, content_type) => {
                match codec::decode(body, content_type, depth_max) {
                    Ok(Celery(true)) => Self::CeleryTask,
                    Ok(Celery(false)) => Self::List,
                    Err(_) => Self::Unknown,
                }
            }
            _ => Self::Scalar,
        }
    }

    /// Why a body of this shape, declared to be of this type, is no job, where the shape alone says so.
    fn mistake(self, declared: ContentType) -> Option<String> {
        let mistake = match self {
            Self::Empty => "the body is empty: send a job, which is a map".to_owned(),
            Self::Compressed(how) => {
                format!("the body looks like {how}, which is not read here: send it as it is")
            }
            Self::Map(written) if written != declared => {
                let (written, said) = match written {
                    ContentType::Json => ("JSON", "msgpack"),
                    ContentType::Msgpack => ("msgpack", "JSON"),
                };
                format!("this looks like {written}, and its content type says {said}: set the one that it is, or none")
            }
            Self::CeleryTask => {
                "this looks like a Celery task, which no worker of this fleet runs: publish the job itself, a map"
                    .to_owned()
            }
            Self::List => "the body is a list, and a job is a map with the names of its fields (Rust's \
                           rmp_serde::to_vec writes lists, to_vec_named maps; C++'s MSGPACK_DEFINE lists, \
                           MSGPACK_DEFINE_MAP maps)"
                .to_owned(),
            Self::Scalar => "the body is neither a JSON nor a msgpack map: send a job, which is a map".to_owned(),
            Self::Map(_) | Self::Unknown => return None,
        };
        Some(mistake)
    }
}

fn begins_map(body: &[u8], content_type: ContentType) -> bool {
    match content_type {
        ContentType::Json => body.trim_ascii_start().starts_with(b"{"),
        ContentType::Msgpack => matches!(body, [0x80..=0x8f | 0xde | 0xdf, ..]),
    }
}

fn begins_list(body: &[u8], content_type: ContentType) -> bool {
    match content_type {
        ContentType::Json => body.trim_ascii_start().starts_with(b"["),
        ContentType::Msgpack => matches!(body, [0x90..=0x9f | 0xdc | 0xdd, ..]),
    }
}

/// Whether a list is the body of a Celery task: its arguments, its named arguments, and a map of what follows it.
struct Celery(bool);

impl<'de> Deserialize<'de> for Celery {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(CeleryVisitor)
    }
}

struct CeleryVisitor;

impl<'de> Visitor<'de> for CeleryVisitor {
    type Value = Celery;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Celery, A::Error> {
        let mut shape = Vec::with_capacity(4);
        while let Some(came) = seq.next_element::<Came>()? {
            if shape.len() < 4 {
                shape.push(came);
            }
        }
        Ok(Celery(matches!(shape[..], [Came::List, Came::Map(_), Came::Map(_)])))
    }
}

/// How many fields a job has.
const FIELDS: usize = 13;

/// The fields of a [`Head`].
const HEAD: [Field; 8] = [
    Field::V,
    Field::Id,
    Field::Model,
    Field::Task,
    Field::Tenant,
    Field::ResultTtlS,
    Field::Notify,
    Field::Metadata,
];

/// Everything read of a body that is no job.
#[derive(Default, Clone)]
struct Reading {
    head: Head,
    /// There are several ids: none of them is the job's.
    ids_differ: bool,
    /// Keys that would be a field's if their case were another: no more than there are fields.
    miswritten: Vec<String>,
}

/// Reads these fields, and over all others.
struct HeadSeed<'a> {
    reading: &'a mut Reading,
    wanted: &'a [Field],
}

impl<'de> DeserializeSeed<'de> for HeadSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeadSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Reading { head, ids_differ, miswritten } = self.reading;
        while let Some(key) = map.next_key::<Came>()? {
            let Came::Text(name) = key else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let field = Field::named(&name);
            if !self.wanted.contains(&field) {
                map.next_value::<IgnoredAny>()?;
                let lower = name.to_ascii_lowercase();
                if field == Field::Other
                    && miswritten.len() < FIELDS
                    && Field::named(&lower) != Field::Other
                {
                    miswritten.push(name);
                }
                continue;
            }
            match (field, map.next_value::<Came>()?) {
                (Field::V, Came::Number(v)) => head.v = Some(v),
                (Field::Id, came) => {
                    let id = usable_id(&came);
                    *ids_differ |= head.id.is_some() && id.is_some() && head.id != id;
                    head.id = id.or(head.id.take());
                }
                (Field::Model, Came::Text(model)) => head.model = Some(model),
                (Field::Task, Came::Text(task)) => head.task = Some(task),
                (Field::Tenant, Came::Text(tenant))
                    if tenant.chars().count() <= TENANT_CHARS_MAX =>
                {
                    head.tenant = Some(tenant);
                }
                (Field::ResultTtlS, Came::Number(ttl)) if (1..=RESULT_TTL_S_MAX).contains(&ttl) => {
                    head.result_ttl_s = Some(ttl);
                }
                (Field::Notify, Came::Text(channel))
                    if (1..=NOTIFY_CHARS_MAX).contains(&channel.chars().count()) =>
                {
                    head.notify = Some(channel);
                }
                (Field::Metadata, Came::Map(pairs)) => head.metadata = pairs,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The id that came: a UUID in 16 bytes is looked for under its text.
fn usable_id(came: &Came) -> Option<JobId> {
    match came {
        Came::Text(id) => id.parse().ok(),
        Came::Bytes(_, Some(id)) => id.to_string().parse().ok(),
        _ => None,
    }
}
