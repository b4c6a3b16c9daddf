//! Pages are conserved, shared by equal prefixes alone, and dealt out again.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A sequence as a generator keeps it.
struct Sequence {
    salt: u64,
    tokens: Vec<u32>,
    pages: Vec<u32>,
    before: Before,
}

/// An allocator with sequences, and what was written to each page.
struct World {
    allocator: PageAllocator,
    open: Vec<Sequence>,
    written: Vec<Vec<(u64, Vec<u32>)>>,
}

impl World {
    fn new(pages: u32) -> Self {
        Self {
            allocator: PageAllocator::new(pages),
            open: Vec::new(),
            written: vec![Vec::new(); pages as usize],
        }
    }

    fn open(&mut self, salt: u64, tokens: &[u32]) -> usize {
        let Prefix { pages, before } = self.allocator.find(salt, tokens);
        let cached = pages.len() * PAGE_TOKENS;
        assert!(cached < tokens.len().max(1));
        let tokens = tokens[..cached].to_vec();
        self.open.push(Sequence { salt, tokens, pages, before });
        cached
    }

    /// Appends tokens while there are pages.
    fn append(&mut self, at: usize, tokens: &[u32]) {
        let sequence = &mut self.open[at];
        for &token in tokens {
            if sequence.tokens.len().is_multiple_of(PAGE_TOKENS) {
                let Some(page) = self.allocator.take() else { return };
                self.written[page as usize].clear();
                sequence.pages.push(page);
            }
            sequence.tokens.push(token);
            let last = *sequence.pages.last().unwrap();
            // Values depend on all tokens before, and on no other sequence of the salt.
            self.written[last as usize].push((sequence.salt, sequence.tokens.clone()));
            if let Some(start) = sequence.tokens.len().checked_sub(PAGE_TOKENS)
                && start.is_multiple_of(PAGE_TOKENS)
            {
                let filled = sequence.tokens[start..].try_into().unwrap();
                let (page, before) = self.allocator.fill(sequence.before, filled, last);
                *sequence.pages.last_mut().unwrap() = page;
                sequence.before = before;
            }
        }
    }

    fn check(&self) {
        let counts = self.allocator.counts();
        let mut holders = vec![0; self.written.len()];
        for sequence in &self.open {
            for &page in &sequence.pages {
                holders[page as usize] += 1;
            }
            for (position, _) in sequence.tokens.iter().enumerate() {
                let page = sequence.pages[position / PAGE_TOKENS] as usize;
                let expected = (sequence.salt, sequence.tokens[..=position].to_vec());
                assert_eq!(self.written[page][position % PAGE_TOKENS], expected);
            }
        }
        assert_eq!(counts.held, holders.iter().filter(|&&holders| holders > 0).count());
        assert_eq!(counts.free + counts.held + counts.cached, self.written.len());
        for (page, holders) in self.allocator.pages.iter().zip(holders) {
            assert_eq!(page.holders, holders);
        }
    }
}

fn tokens(pages: usize, of: u32) -> Vec<u32> {
    (0..pages * PAGE_TOKENS).map(|at| of + at as u32 % 7).collect()
}

#[test]
fn a_kept_prefix_is_found_by_the_same_salt_and_leaves_a_token_to_compute() {
    let mut world = World::new(8);
    let text = tokens(2, 1);
    world.open(5, &text);
    world.append(0, &text);
    // Also while the first sequence is open.
    assert_eq!(world.open(5, &[&text[..], &[9]].concat()), 64);
    for sequence in std::mem::take(&mut world.open) {
        world.allocator.release_all(&sequence.pages, Keep::Prefix);
    }
    assert_eq!(world.allocator.counts(), Counts { free: 6, held: 0, cached: 2 });
    assert_eq!(world.open(6, &text), 0);
    assert_eq!(world.open(5, &text), 32);
    assert_eq!(world.open(5, &[&text[..40], &[9; 24]].concat()), 32);
    world.check();
}

#[test]
fn what_one_sequence_kept_another_one_does_not_drop() {
    let mut world = World::new(4);
    let text = tokens(1, 1);
    world.open(0, &text);
    world.append(0, &text);
    let first = world.open.remove(0);
    world.allocator.release_all(&first.pages, Keep::Prefix);
    world.open(0, &[&text[..], &[1]].concat());
    let second = world.open.remove(0);
    world.allocator.release_all(&second.pages, Keep::Nothing);
    assert_eq!(world.allocator.counts().cached, 1);
}

#[test]
fn two_that_compute_the_same_page_at_once_end_with_one() {
    let mut world = World::new(4);
    let text = tokens(1, 1);
    world.open(0, &text);
    world.open(0, &text);
    world.append(0, &text);
    world.append(1, &text);
    assert_eq!(world.open[0].pages, world.open[1].pages);
    assert_eq!(world.allocator.counts().held, 1);
    world.check();
}

#[test]
fn the_end_of_the_oldest_prefix_makes_room_first() {
    let mut world = World::new(4);
    for salt in 0..2 {
        let text = tokens(2, 1);
        world.open(salt, &text);
        world.append(0, &text);
        let closed = world.open.remove(0);
        world.allocator.release_all(&closed.pages, Keep::Prefix);
    }
    world.open(7, &[1; 40]);
    world.append(0, &[1; 1]);
    let longer = [&tokens(2, 1)[..], &[1]].concat();
    assert_eq!(world.open(0, &longer), 32);
    assert_eq!(world.open(1, &longer), 64);
}

#[derive(Debug, Clone)]
enum Act {
    Open { salt: u64, tokens: Vec<u32> },
    Append { at: usize, tokens: Vec<u32> },
    Close { at: usize, keep: bool },
}

fn act() -> impl Strategy<Value = Act> {
    // Few different tokens, so that prefixes meet.
    let text = || {
        vec(0_u32..2, 0..3).prop_flat_map(|parts| {
            let long: Vec<u32> = parts.iter().flat_map(|&part| [part; PAGE_TOKENS]).collect();
            vec(0_u32..2, 0..5).prop_map(move |more| [&long[..], &more].concat())
        })
    };
    prop_oneof![
        (0_u64..2, text()).prop_map(|(salt, tokens)| Act::Open { salt, tokens }),
        (0_usize..4, text()).prop_map(|(at, tokens)| Act::Append { at, tokens }),
        (0_usize..4, any::<bool>()).prop_map(|(at, keep)| Act::Close { at, keep }),
    ]
}

proptest! {
    #[test]
    fn pages_are_conserved_and_hold_what_their_sequences_wrote(acts in vec(act(), 1..60), pages in 1_u32..12) {
        let mut world = World::new(pages);
        for act in acts {
            match act {
                Act::Open { salt, tokens } => {
                    world.open(salt, &tokens);
                }
                Act::Append { at, tokens } if at < world.open.len() => world.append(at, &tokens),
                Act::Close { at, keep } if at < world.open.len() => {
                    let closed = world.open.swap_remove(at);
                    let keep = if keep { Keep::Prefix } else { Keep::Nothing };
                    world.allocator.release_all(&closed.pages, keep);
                }
                Act::Append { .. } | Act::Close { .. } => {}
            }
            world.check();
        }
        for closed in std::mem::take(&mut world.open) {
            world.allocator.release_all(&closed.pages, Keep::Nothing);
        }
        prop_assert_eq!(world.allocator.left(), pages as usize);
    }
}
