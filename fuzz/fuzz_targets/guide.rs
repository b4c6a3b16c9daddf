//! Any schema, expression or list of choices makes a guide that allows what it said it would, or is refused by an
//! error.
//!
//! The first byte says which of them it is, the second is the seed of the tokens that are picked.
#![no_main]

#[path = "../common/vocabulary.rs"]
mod vocabulary;

use std::sync::OnceLock;

use forebay_engine::{Guided, Guides};
use libfuzzer_sys::fuzz_target;

const TOKENS_MAX: usize = 48;

fn guides() -> &'static Guides {
    static GUIDES: OnceLock<Guides> = OnceLock::new();
    GUIDES.get_or_init(|| {
        let tokenize = |text: &str| text.bytes().map(u32::from).collect();
        Guides::new(&vocabulary::byte_level(), &[vocabulary::END], Box::new(tokenize))
            .expect("a small vocabulary")
    })
}

fuzz_target!(|bytes: &[u8]| {
    let [kind, seed, rest @ ..] = bytes else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let guided = match kind % 3 {
        0 => match serde_json::from_str(text) {
            Ok(schema) => Guided::JsonSchema(schema),
            Err(_) => return,
        },
        1 => Guided::Regex(text.to_owned()),
        _ => Guided::Choice(text.split('\n').map(str::to_owned).collect()),
    };
    let Ok(mut guide) = guides().guide(&guided) else { return };
    let mut taken = Vec::new();
    let mut state = u32::from(*seed);
    while taken.len() < TOKENS_MAX {
        let Ok(mask) = guide.mask() else { return };
        let allowed: Vec<u32> =
            (0..vocabulary::COUNT).filter(|&token| mask.allows(token)).collect();
        let Some(&token) = allowed.get(state as usize % allowed.len().max(1)) else { break };
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) >> 3;
        if guide.take(&[token]).is_err() {
            return; // its grammar grew too large on the way
        }
        taken.push(token);
        if token == vocabulary::END {
            break;
        }
    }
    let mut again = guides().guide(&guided).expect("it was made before");
    if again.take(&taken).is_ok() {
        assert_eq!(again.is_finished(), guide.is_finished());
    }
});
