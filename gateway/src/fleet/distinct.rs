//! [`Distinct`]: a list in which equal inputs stand once, and the way back to the whole list.

use std::{collections::HashMap, hash::Hash};

/// The distinct inputs of a list, in the order in which they first stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distinct<T> {
    /// Each of them once.
    pub items: Vec<T>,
    /// For each of them, where in the list it first stands.
    pub firsts: Vec<usize>,
    /// For each input of the list, which of the items it is.
    pub order: Vec<usize>,
}

impl<T: Eq + Hash> Distinct<T> {
    /// The distinct ones of `inputs`.
    pub fn of(inputs: Vec<T>) -> Self {
        let mut firsts = Vec::with_capacity(inputs.len());
        let mut order = Vec::with_capacity(inputs.len());
        let mut seen: HashMap<&T, usize> = HashMap::with_capacity(inputs.len());
        for (index, input) in inputs.iter().enumerate() {
            let item = *seen.entry(input).or_insert_with(|| {
                firsts.push(index);
                firsts.len() - 1
            });
            order.push(item);
        }
        drop(seen);
        let mut next = firsts.iter().copied().peekable();
        let numbered = inputs.into_iter().enumerate();
        let first = numbered.filter(|(index, _)| next.next_if_eq(index).is_some());
        let items = first.map(|(_, input)| input).collect();
        Self { items, firsts, order }
    }
}

/// The values of the whole list, from those of its distinct items.
pub fn spread<V: Clone>(order: &[usize], values: Vec<V>) -> Vec<V> {
    if order.len() == values.len() {
        // Nothing was there twice.
        return values;
    }
    order.iter().filter_map(|&item| values.get(item).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_inputs_stand_once_in_the_order_of_their_first() {
        let distinct = Distinct::of(vec!["b", "a", "b", "", "a", ""]);
        assert_eq!(distinct.items, ["b", "a", ""]);
        assert_eq!(distinct.firsts, [0, 1, 3]);
        assert_eq!(spread(&distinct.order, vec![1, 2, 3]), [1, 2, 1, 3, 2, 3]);
    }

    proptest! {
        #[test]
        fn the_list_comes_back_from_its_distinct_items(
            inputs in proptest::collection::vec(0..12_u8, 0..60),
        ) {
            let distinct = Distinct::of(inputs.clone());
            prop_assert_eq!(spread(&distinct.order, distinct.items.clone()), inputs.clone());
            for (item, &first) in distinct.firsts.iter().enumerate() {
                prop_assert_eq!(inputs.iter().position(|input| *input == distinct.items[item]), Some(first));
            }
        }
    }
}
