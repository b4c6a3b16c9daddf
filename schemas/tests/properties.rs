//! Properties of every job, and of any bytes.
#![allow(clippy::unwrap_used)]

mod common;

use forebay_schemas::{
    ContentType, EmbedOutput, Job, Limits, Outcome, Output, Timing, Usage, decode_job,
};
use proptest::{collection, prelude::*};

const CODECS: [ContentType; 2] = [ContentType::Msgpack, ContentType::Json];

proptest! {
    #[test]
    fn a_valid_job_survives_the_way_there(job in common::any_job()) {
        let limits = Limits::default();
        job.validate(&limits).unwrap();
        for content_type in CODECS {
            let body = job.encode(content_type).unwrap();
            prop_assert_eq!(&decode_job(&body, content_type, &limits).unwrap(), &job);
            prop_assert_eq!(ContentType::guess(&body), content_type);
        }
    }

    #[test]
    fn vectors_survive_to_the_bit(dim in 1_usize..9, rows in 0_usize..9, seed in any::<u32>()) {
        let value = |i: usize| f32::from_bits(seed.wrapping_mul(i as u32 | 1));
        let finite = |i| if value(i).is_finite() { value(i) } else { i as f32 };
        let data = (0..dim * rows).map(finite).collect();
        let job = Job::embed(common::model("m"), vec!["x".into()]);
        let output = Output::Embed(EmbedOutput { dim, data });
        let outcome = Outcome::succeeded(&job, output, Usage::default(), Timing::default());
        for content_type in CODECS {
            let bytes = outcome.encode(content_type).unwrap();
            prop_assert_eq!(&Outcome::decode(&bytes).unwrap(), &outcome);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused_but_never_panic(bytes in collection::vec(any::<u8>(), 0..300)) {
        for content_type in CODECS {
            let _ = decode_job(&bytes, content_type, &Limits::default());
        }
        let _ = Outcome::decode(&bytes);
    }

    #[test]
    fn a_damaged_job_is_read_or_refused_but_never_panics(
        job in common::any_job(),
        damage in collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for content_type in CODECS {
            let mut body = job.encode(content_type).unwrap();
            for (at, byte) in &damage {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            let _ = decode_job(&body, content_type, &Limits::default());
            body.truncate(cut.index(body.len()));
            // A map that is cut short is never a job.
            prop_assert!(decode_job(&body, content_type, &Limits::default()).is_err());
        }
    }
}
