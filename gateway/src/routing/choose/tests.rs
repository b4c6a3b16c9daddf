//! The choice by examples, and its properties over any targets, outlooks and callers.

use proptest::prelude::*;

use super::*;

fn target(model: &str, tier: u32, weight: u32) -> Target {
    Target { model: model.parse().unwrap(), tier, weight, price: None }
}

fn priced(model: &str, input_per_million: u64) -> Target {
    let price = Some(Price { input_per_million, output_per_million: 0 });
    Target { price, ..target(model, 1, 1) }
}

const BOUND: Duration = Duration::from_millis(500);
const SOON: Outlook = Outlook::Wait(Duration::from_millis(500));
const LATE: Outlook = Outlook::Wait(Duration::from_millis(501));
const LATER: Outlook = Outlook::Wait(Duration::from_secs(60));

/// The models in order, and the reason.
fn chosen(targets: &[Target], outlooks: &[Outlook]) -> (String, &'static str) {
    let choice = choose(targets, outlooks, BOUND, |_| 0.5);
    let models: Vec<&str> =
        choice.order.iter().map(|index| targets[*index].model.as_str()).collect();
    (models.join(" "), choice.reason.as_str())
}

#[test]
fn a_target_over_the_bound_is_passed_over_and_one_of_unknown_wait_is_not() {
    let targets = [target("a", 1, 1), target("b", 2, 1), target("c", 3, 1)];
    let of = |a, b, c| chosen(&targets, &[a, b, c]);
    let unknown = Outlook::Unknown;
    let owned = |models: &str, reason| (models.to_owned(), reason);
    assert_eq!(of(SOON, SOON, SOON), owned("a b c", "first"));
    assert_eq!(of(unknown, SOON, SOON), owned("a b c", "first"));
    assert_eq!(of(LATE, SOON, SOON), owned("b c a", "predicted_wait"));
    assert_eq!(of(LATE, unknown, SOON), owned("b c a", "predicted_wait"));
    assert_eq!(of(LATE, LATER, SOON), owned("c a b", "predicted_wait"));
    assert_eq!(of(Outlook::Away, SOON, SOON), owned("b c a", "circuit_open"));
}

#[test]
fn where_all_are_over_the_bound_the_shortest_wait_is_first() {
    let targets = [target("a", 1, 1), target("b", 2, 1), target("c", 3, 1)];
    let owned = |models: &str, reason| (models.to_owned(), reason);
    assert_eq!(chosen(&targets, &[LATER, Outlook::Away, LATE]), owned("c a b", "shortest_wait"));
    assert_eq!(chosen(&targets, &[LATE, LATER, LATER]), owned("a b c", "first"));
    assert_eq!(chosen(&targets, &[Outlook::Away; 3]), owned("a b c", "first"));
}

#[test]
fn the_cheapest_of_a_tier_is_first() {
    let targets = [priced("a", 20), priced("b", 10), Target { tier: 2, ..priced("c", 1) }];
    assert_eq!(chosen(&targets, &[Outlook::Unknown; 3]).0, "b a c");
}

#[test]
fn a_caller_s_draw_is_pinned() {
    // A/B tests rest on it: another value would move callers to another variant.
    let model: ModelId = "m".parse().unwrap();
    let draw = sticky_draw("r", "key", &model);
    assert!((draw - PINNED).abs() < 1e-15, "{draw}");
    assert!((sticky_draw("rk", "ey", &model) - draw).abs() > 1e-9, "parts don't run together");
}

/// From Python: `int.from_bytes(sha256(b"".join(len(p).to_bytes(8, "little") + p for p in (b"r", b"key", b"m")))
/// .digest()[:8], "big") >> 12`, and a half, divided by 2^52.
const PINNED: f64 = 0.624_140_452_652_933_4;

fn targets() -> impl Strategy<Value = Vec<Target>> {
    let one = (1..4_u32, 1..100_u32, proptest::option::of(0..3_u64));
    proptest::collection::vec(one, 1..8).prop_map(|all| {
        let named = all.into_iter().enumerate().map(|(n, (tier, weight, price))| {
            let price =
                price.map(|input_per_million| Price { input_per_million, output_per_million: 0 });
            Target { price, ..target(&format!("m{n}"), tier, weight) }
        });
        named.collect()
    })
}

fn outlooks() -> impl Strategy<Value = Vec<Outlook>> {
    let one = prop_oneof![
        Just(Outlook::Unknown),
        Just(Outlook::Away),
        (0..2_000_u64).prop_map(|ms| Outlook::Wait(Duration::from_millis(ms))),
    ];
    proptest::collection::vec(one, 0..10)
}

proptest! {
    #[test]
    fn every_target_is_asked_once_and_no_other(
        targets in targets(), outlooks in outlooks(), caller in ".{0,20}",
    ) {
        let draw = |target: &Target| sticky_draw("r", &caller, &target.model);
        let choice = choose(&targets, &outlooks, BOUND, draw);
        let mut order = choice.order.clone();
        order.sort_unstable();
        prop_assert_eq!(order, (0..targets.len()).collect::<Vec<_>>());
        prop_assert_eq!(choose(&targets, &outlooks, BOUND, draw), choice, "the same caller, the same choice");
    }

    #[test]
    fn none_over_the_bound_is_before_one_that_is_not(
        targets in targets(), outlooks in outlooks(), seed in any::<u64>(),
    ) {
        let draw = |target: &Target| sticky_draw("r", &seed.to_string(), &target.model);
        let choice = choose(&targets, &outlooks, BOUND, draw);
        let is_over = choice.order.iter().map(|index| match outlooks.get(*index) {
            None | Some(Outlook::Unknown) => false,
            Some(Outlook::Wait(wait)) => *wait > BOUND,
            Some(Outlook::Away) => true,
        });
        prop_assert!(is_over.is_sorted(), "{choice:?}");
    }

    #[test]
    fn among_those_within_the_bound_tiers_keep_their_order(
        targets in targets(), seed in any::<u64>(),
    ) {
        let draw = |target: &Target| sticky_draw("r", &seed.to_string(), &target.model);
        let choice = choose(&targets, &[], BOUND, draw);
        prop_assert!(choice.order.iter().map(|index| targets[*index].tier).is_sorted());
        prop_assert_eq!(choice.reason, Reason::First);
    }

    #[test]
    fn a_target_that_goes_moves_only_its_own_callers(targets in targets(), caller in any::<u64>()) {
        let draw = |target: &Target| sticky_draw("r", &caller.to_string(), &target.model);
        let with = choose(&targets, &[], BOUND, draw);
        prop_assume!(targets.len() > 1);
        let gone = *with.order.last().unwrap();
        let mut fewer = targets.clone();
        let gone = fewer.remove(gone);
        let without = choose(&fewer, &[], BOUND, draw);
        let first = |targets: &[Target], choice: &Choice| targets[choice.order[0]].model.clone();
        prop_assert_ne!(first(&targets, &with), gone.model);
        prop_assert_eq!(first(&targets, &with), first(&fewer, &without));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn weights_are_honoured(weights in proptest::collection::vec(1..20_u32, 2..5), seed in any::<u64>()) {
        const CALLERS: u32 = 4_000;
        let targets: Vec<Target> =
            weights.iter().enumerate().map(|(n, weight)| target(&format!("m{n}"), 1, *weight)).collect();
        let mut counts = vec![0_u32; targets.len()];
        for caller in 0..CALLERS {
            let caller = format!("{seed}-{caller}");
            let draw = |target: &Target| sticky_draw("r", &caller, &target.model);
            counts[choose(&targets, &[], BOUND, draw).order[0]] += 1;
        }
        let all: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let share = f64::from(*weight) / f64::from(all);
            // Six standard deviations: about one in 500 million draws is further away by chance.
            let spread = 6.0 * (share * (1.0 - share) / f64::from(CALLERS)).sqrt();
            let found = f64::from(*count) / f64::from(CALLERS);
            prop_assert!((found - share).abs() < spread, "{found} instead of {share}");
        }
    }
}
