//! The parameters and the tokens of a sequence that decide which token is picked.

/// How the tokens of one sequence are picked. [`Sampling::default`] takes the likeliest token each time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token (the one with the lowest id among equals).
    pub temperature: f32,
    /// Only the likeliest tokens of this number are candidates; 0 keeps all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability are candidates; 1 keeps all.
    pub top_p: f32,
    /// Only tokens that are at least this fraction as likely as the likeliest are candidates; 0 keeps all.
    pub min_p: f32,
    /// Subtracted from the logits of tokens that the output has already.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time that the output has it.
    pub frequency_penalty: f32,
    /// Divides positive logits of tokens that prompt or output have, and multiplies negative ones; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Added to the logits of these tokens. Ids outside the vocabulary are ignored.
    pub logit_bias: Vec<(u32, f32)>,
    /// The random numbers of a sequence are a function of this and the position in the output.
    pub seed: u64,
    /// Reports log-probabilities: of the picked token and of the likeliest tokens of this number (which may be 0).
    pub logprobs: Option<usize>,
    /// No token that ends the sequence is picked before the output has this many.
    pub min_tokens: usize,
    /// The model's own end tokens don't end the sequence.
    pub ignore_eos: bool,
    /// Tokens that end the sequence, beside the model's own.
    pub stop_token_ids: Vec<u32>,
    /// The model's own end tokens, such as `<|im_end|>`: they are copied here from the facts of the model.
    pub end_token_ids: Vec<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: 0,
            logprobs: None,
            min_tokens: 0,
            ignore_eos: false,
            stop_token_ids: Vec::new(),
            end_token_ids: Vec::new(),
        }
    }
}

impl Sampling {
    /// Whether picking `token` ends the sequence.
    pub fn ends(&self, token: u32) -> bool {
        self.stop_token_ids.contains(&token)
            || (!self.ignore_eos && self.end_token_ids.contains(&token))
    }
}

/// The tokens of a sequence before the one that is picked.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// The prompt's.
    pub prompt: &'a [u32],
    /// Those that were picked so far; their number is the position that random numbers belong to.
    pub output: &'a [u32],
}
