//! Splits a list of inputs into as few jobs as the fleet's limits allow, of about equal sizes.

/// An input of a job.
pub trait Input {
    /// The most bytes that it takes in a body, besides what stands in front of it.
    fn bytes(&self) -> usize;
}

impl Input for String {
    fn bytes(&self) -> usize {
        self.len()
    }
}

/// Token ids.
impl Input for Vec<u32> {
    fn bytes(&self) -> usize {
        const BYTES_PER_ID: usize = 5;
        self.len() * BYTES_PER_ID
    }
}

/// The limits of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The most texts in a job.
    pub inputs_max: usize,
    /// The most bytes of a job's body.
    pub bytes_max: usize,
}

/// Bytes of a job's body besides its texts: names, id, channel, a tenant of the longest kind.
const BYTES_BESIDE: usize = 2_048;
/// Bytes in front of each text in the body.
const BYTES_PER_TEXT: usize = 5;

/// A text that is too long for any job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong {
    /// Which of the texts.
    pub index: usize,
    /// Its length, in bytes.
    pub bytes: usize,
    /// The longest that there may be, in bytes.
    pub bytes_max: usize,
}

/// The inputs of one job, and the position of the first of them in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<I> {
    /// The position of the first input.
    pub start: usize,
    /// The inputs.
    pub inputs: Vec<I>,
}

/// Splits `inputs` into parts that keep to `sizes`, each of which has `bytes_shared` more, such as a query.
pub fn split<I: Input>(
    inputs: Vec<I>,
    sizes: Sizes,
    bytes_shared: usize,
) -> Result<Vec<Part<I>>, TooLong> {
    let bytes_max = sizes.bytes_max.saturating_sub(BYTES_BESIDE + bytes_shared);
    let cost = |input: &I| input.bytes() + BYTES_PER_TEXT;
    let mut numbered = inputs.iter().enumerate();
    if let Some((index, input)) = numbered.find(|(_, input)| cost(input) > bytes_max) {
        let bytes_max = bytes_max.saturating_sub(BYTES_PER_TEXT);
        return Err(TooLong { index, bytes: input.bytes(), bytes_max });
    }
    // Equal parts: a last job with few texts would take as long as one with many and do less.
    let parts_min = inputs.len().div_ceil(sizes.inputs_max.max(1)).max(1);
    let inputs_max = inputs.len().div_ceil(parts_min);
    let mut parts: Vec<Part<I>> = Vec::with_capacity(parts_min);
    let mut bytes = 0;
    for (index, input) in inputs.into_iter().enumerate() {
        let cost = cost(&input);
        match parts.last_mut() {
            Some(part) if part.inputs.len() < inputs_max && bytes + cost <= bytes_max => {
                part.inputs.push(input);
                bytes += cost;
            }
            _ => {
                parts.push(Part { start: index, inputs: vec![input] });
                bytes = cost;
            }
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes(inputs_max: usize, bytes: usize) -> Sizes {
        Sizes { inputs_max, bytes_max: BYTES_BESIDE + bytes }
    }

    fn lengths(texts: usize, sizes: Sizes) -> Vec<usize> {
        let texts = vec!["text".to_owned(); texts];
        split(texts, sizes, 0).unwrap().iter().map(|part| part.inputs.len()).collect()
    }

    #[test]
    fn parts_are_as_few_as_can_be_and_about_equal() {
        assert_eq!(lengths(2_048, sizes(2_048, 1 << 20)), [2_048]);
        assert_eq!(lengths(2_049, sizes(2_048, 1 << 20)), [1_025, 1_024]);
        assert_eq!(lengths(3_000, sizes(1_000, 1 << 20)), [1_000, 1_000, 1_000]);
        assert_eq!(lengths(5, sizes(10, 18)), [2, 2, 1]);
    }

    #[test]
    fn a_text_that_fits_into_no_job_is_named() {
        let texts = vec!["a".to_owned(), "b".repeat(100)];
        let error = split(texts, sizes(9, 100), 20).unwrap_err();
        assert_eq!(error, TooLong { index: 1, bytes: 100, bytes_max: 75 });
        assert!(split(vec![String::new()], sizes(1, 4), 0).is_err());
    }

    proptest! {
        #[test]
        fn every_text_is_in_one_part_in_order_and_parts_keep_to_their_sizes(
            lengths in proptest::collection::vec(0..60_usize, 1..80),
            inputs_max in 1..20_usize,
            bytes in 70..300_usize,
        ) {
            let texts: Vec<String> = lengths.iter().map(|length| "x".repeat(*length)).collect();
            let parts = split(texts.clone(), sizes(inputs_max, bytes), 0).unwrap();
            let mut joined = Vec::new();
            for part in parts {
                prop_assert_eq!(part.start, joined.len());
                prop_assert!((1..=inputs_max).contains(&part.inputs.len()));
                let cost: usize = part.inputs.iter().map(|text| text.len() + BYTES_PER_TEXT).sum();
                prop_assert!(cost <= bytes);
                joined.extend(part.inputs);
            }
            prop_assert_eq!(joined, texts);
        }
    }
}
