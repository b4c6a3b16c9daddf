//! [`TraceContext`]: the position of a job in a distributed trace, as W3C Trace Context writes it in the headers
//! `traceparent` and `tracestate`. What comes from outside is checked against every rule before it is passed on.

use std::fmt::{self, Write as _};

/// The header of trace, span and flags: `00-<trace id>-<span id>-<flags>`.
pub const TRACEPARENT: &str = "traceparent";
/// The header of what vendors keep of their own beside it.
pub const TRACESTATE: &str = "tracestate";

/// The longest `tracestate` that is passed on, in bytes: what the recommendation asks to be propagated. A longer one is
/// left out.
pub const TRACESTATE_BYTES_MAX: usize = 512;
/// The most members of a `tracestate`.
const MEMBERS_MAX: usize = 32;
/// The longest key, and the longest value, of a member.
const MEMBER_CHARS_MAX: usize = 256;
/// The longest `traceparent` that is read: versions to come may have more fields behind the four that are known.
const TRACEPARENT_BYTES_MAX: usize = 256;
/// The length of version 00.
const TRACEPARENT_BYTES: usize = 55;
/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;
/// The flags that are known, which are passed on: sampled, and the random trace id of level 2.
const FLAGS_KNOWN: u8 = 3;

/// A span of a trace, as one program names it to the next.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    state: Option<Box<str>>,
}

impl TraceContext {
    /// The context of a span. `None` where an id is all zeros, which stands for none.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], is_sampled: bool) -> Option<Self> {
        if trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        Some(Self { trace_id, span_id, flags: u8::from(is_sampled), state: None })
    }

    /// Reads the two headers. `None` if `traceparent` breaks a rule: then a trace that is begun has nothing to do with
    /// it. A `tracestate` that breaks one is left out, and the rest holds.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let bytes = traceparent.as_bytes();
        if !(TRACEPARENT_BYTES..=TRACEPARENT_BYTES_MAX).contains(&bytes.len()) {
            return None;
        }
        let (known, more) = bytes.split_at(TRACEPARENT_BYTES);
        let [version] = hex(&known[..2])?;
        let is_whole = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.first().is_none_or(|&byte| byte == b'-'),
        };
        if !is_whole || [2, 35, 52].iter().any(|&at| known[at] != b'-') {
            return None;
        }
        let [flags] = hex(&known[53..])?;
        let context = Self::new(hex(&known[3..35])?, hex(&known[36..52])?, false)?;
        let state = tracestate.map(str::trim).filter(|state| is_tracestate(state)).map(Into::into);
        Some(Self { flags: flags & FLAGS_KNOWN, state, ..context })
    }

    /// The context of another span of the same trace.
    #[must_use]
    pub fn child(&self, span_id: [u8; 8]) -> Self {
        Self { span_id, ..self.clone() }
    }

    /// The trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether the trace is recorded, as the program that began it decided.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace's id as log lines have it.
    pub fn trace_id_text(&self) -> String {
        written(&self.trace_id)
    }

    /// The value of [`TRACEPARENT`].
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id_text(), written(&self.span_id), self.flags)
    }

    /// The value of [`TRACESTATE`], if there is one.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({})", self.traceparent())
    }
}

/// Bytes of lower-case hexadecimal digits, twice as many.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let mut bytes = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn is_tracestate(text: &str) -> bool {
    let mut members = 0;
    !text.is_empty()
        && text.len() <= TRACESTATE_BYTES_MAX
        && text.split(',').map(|member| member.trim_matches([' ', '\t'])).all(|member| {
            members += 1;
            // An empty member is allowed, and says nothing.
            members <= MEMBERS_MAX && (member.is_empty() || is_member(member))
        })
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let lengths = 1..=MEMBER_CHARS_MAX;
    let of_key =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    lengths.contains(&key.len())
        && lengths.contains(&value.len())
        && key.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && key.bytes().all(of_key)
        && value.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=')
}

fn written(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_passed_on_as_it_came() {
        let context =
            TraceContext::parse(GOOD, Some("rojo=00f067aa0ba902b7, congo=t61r@x")).unwrap();
        assert_eq!(context.traceparent(), GOOD);
        assert_eq!(context.tracestate(), Some("rojo=00f067aa0ba902b7, congo=t61r@x"));
        assert_eq!(context.trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled());
        let child = context.child([1; 8]);
        assert_eq!((child.trace_id(), child.span_id()), (context.trace_id(), [1; 8]));
        assert_eq!(child.tracestate(), context.tracestate());
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for later in [GOOD.replacen("00", "cc", 1), GOOD.replacen("00", "01", 1) + "-what-ever"] {
            assert_eq!(TraceContext::parse(&later, None).unwrap().traceparent(), GOOD, "{later}");
        }
        let flags = GOOD[..53].to_owned() + "ff";
        assert!(TraceContext::parse(&flags, None).unwrap().traceparent().ends_with("-03"));
    }

    #[test]
    fn what_breaks_a_rule_begins_no_trace() {
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_span = format!("{}{}-01", &GOOD[..36], "0".repeat(16));
        let of_version_0 = format!("{GOOD}-more");
        let long = GOOD.replacen("00", "01", 1) + "-" + &"x".repeat(300);
        for wrong in [
            "",
            "00",
            &GOOD[..54],
            &GOOD.to_ascii_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replacen("4b", "4é", 1),
            &zero_trace,
            &zero_span,
            &of_version_0,
            &long,
        ] {
            assert_eq!(TraceContext::parse(wrong, None), None, "{wrong}");
        }
    }

    #[test]
    fn a_state_that_breaks_a_rule_is_left_out_and_the_rest_holds() {
        let many = vec!["a=b"; 33].join(",");
        let long = format!("a={}", "x".repeat(511));
        for wrong in ["", "a", "=b", "a=", "A=b", "a=b=c", "a=\u{7f}", "a=é", &many, &long] {
            let context = TraceContext::parse(GOOD, Some(wrong)).unwrap();
            assert_eq!((context.tracestate(), context.is_sampled()), (None, true), "{wrong}");
        }
        let context = TraceContext::parse(GOOD, Some("a=b,,1@c=d ")).unwrap();
        assert_eq!(context.tracestate(), Some("a=b,,1@c=d"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_is_read_again_alike(
            parent in "(\\PC{0,70})|(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})",
            state in "\\PC{0,60}|([a-z]{1,3}=[ -~]{1,5},){0,40}",
        ) {
            if let Some(context) = TraceContext::parse(&parent, Some(&state)) {
                let again = TraceContext::parse(&context.traceparent(), context.tracestate());
                prop_assert_eq!(again, Some(context));
            }
        }
    }
}
