//! How tokens are sampled, as chat, completions and responses ask for it alike.

use std::collections::BTreeMap;

use forebay_schemas::{
    GenerateParams,
    limits::{LOGIT_BIAS_ABS_MAX, LOGIT_BIAS_MAX, STOP_CHARS_MAX, STOP_TOKENS_MAX, STOPS_MAX},
};
use schemars::JsonSchema;
use serde_json::value::RawValue;

use crate::{
    error::ApiError,
    fields::{Fields, Kind, each, kind, text, unexpected},
};

/// The fields of sampling, as the document has them. Those that OpenAI's API lacks are vLLM's.
#[derive(JsonSchema)]
pub struct SamplingBody {
    /// 0 always takes the likeliest token.
    #[schemars(range(min = 0, max = 2))]
    pub temperature: Option<f64>,
    /// Sample from the likeliest tokens that together have this probability.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub top_p: Option<f64>,
    /// Sample from this many of the likeliest tokens; 0 and -1 are all of them.
    #[schemars(range(min = -1, max = u32::MAX))]
    pub top_k: Option<i64>,
    /// Sample from tokens that have at least this share of the likeliest token's probability.
    #[schemars(range(min = 0, max = 1))]
    pub min_p: Option<f64>,
    /// Taken off the logit of each token that the answer has.
    #[schemars(range(min = -2, max = 2))]
    pub presence_penalty: Option<f64>,
    /// Taken off the logit of each token for each time that the answer has it.
    #[schemars(range(min = -2, max = 2))]
    pub frequency_penalty: Option<f64>,
    /// Makes tokens less likely that prompt or answer have.
    #[schemars(range(max = 2), extend("exclusiveMinimum" = 0))]
    pub repetition_penalty: Option<f64>,
    /// Added to the logits of these token ids: from -100 to 100.
    #[schemars(extend("propertyNames" = {"pattern": "^[0-9]{1,9}$"}, "maxProperties" = LOGIT_BIAS_MAX))]
    pub logit_bias: Option<BTreeMap<String, Bias>>,
    /// Makes sampling repeatable.
    #[schemars(range(min = i64::MIN, max = i64::MAX))]
    pub seed: Option<i64>,
    /// The answer ends where one of these begins.
    pub stop: Option<Stop>,
    /// The answer ends at one of these token ids, beside the model's own ends.
    #[schemars(length(max = STOP_TOKENS_MAX))]
    pub stop_token_ids: Option<Vec<StopToken>>,
    /// The answer does not end before this many tokens.
    #[schemars(range(min = 0, max = u32::MAX))]
    pub min_tokens: Option<u32>,
    /// Go on past the model's own ends.
    pub ignore_eos: Option<bool>,
}

/// A number that is added to a logit.
#[derive(JsonSchema)]
pub struct Bias(#[schemars(range(min = -100, max = 100))] pub f64);

/// A token id.
#[derive(JsonSchema)]
pub struct StopToken(#[schemars(range(min = 0, max = u32::MAX))] pub u32);

/// One text, or a list of them.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Stop {
    /// One text.
    One(StopText),
    /// A list, which may be empty.
    Many(#[schemars(length(max = STOPS_MAX))] Vec<StopText>),
}

/// A text at which an answer ends.
#[derive(JsonSchema)]
pub struct StopText(#[schemars(length(min = 1, max = STOP_CHARS_MAX))] pub String);

/// The fields that [`read`] reads.
pub const NAMES: [&str; 13] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
    "stop",
    "stop_token_ids",
    "min_tokens",
    "ignore_eos",
];

/// The parameters of sampling; all others are at their defaults.
pub fn read(fields: &Fields<'_>) -> Result<GenerateParams, ApiError> {
    let penalty =
        |name| number(fields, name, |n| (-2.0..=2.0).contains(&n), "a number from -2 to 2");
    let share = |n: f64| (0.0..=1.0).contains(&n);
    let top_k = whole(fields, "top_k", -1, i64::from(u32::MAX))?;
    let factor = |n: f64| n > 0.0 && n <= 2.0;
    Ok(GenerateParams {
        temperature: number(
            fields,
            "temperature",
            |n| (0.0..=2.0).contains(&n),
            "a number from 0 to 2",
        )?,
        top_p: number(fields, "top_p", |n| n > 0.0 && n <= 1.0, "a number above 0, up to 1")?,
        top_k: top_k.filter(|k| *k > 0).and_then(|k| u32::try_from(k).ok()),
        min_p: number(fields, "min_p", share, "a number from 0 to 1")?,
        presence_penalty: penalty("presence_penalty")?,
        frequency_penalty: penalty("frequency_penalty")?,
        repetition_penalty: number(
            fields,
            "repetition_penalty",
            factor,
            "a number above 0, up to 2",
        )?,
        logit_bias: fields.raw("logit_bias").map_or(Ok(BTreeMap::new()), biases)?,
        // A negative seed is as good as any other.
        seed: whole(fields, "seed", i64::MIN, i64::MAX)?.map(i64::cast_unsigned),
        stop: fields.raw("stop").map_or(Ok(Vec::new()), stops)?,
        stop_token_ids: fields.raw("stop_token_ids").map_or(Ok(Vec::new()), token_ids)?,
        min_tokens: whole(fields, "min_tokens", 0, i64::from(u32::MAX))?
            .and_then(|count| u32::try_from(count).ok()),
        ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
        ..GenerateParams::default()
    })
}

/// A number within bounds.
fn number(
    fields: &Fields<'_>,
    name: &'static str,
    is_within: impl Fn(f64) -> bool,
    expected: &str,
) -> Result<Option<f32>, ApiError> {
    let read = |raw: &RawValue| {
        let number = numeric(name, raw, expected)?;
        if !is_within(number) {
            return Err(beyond(name, raw, expected));
        }
        Ok(number as f32)
    };
    fields.raw(name).map(read).transpose()
}

/// A whole number within bounds. Whole floats are whole numbers.
pub fn whole(
    fields: &Fields<'_>,
    name: &'static str,
    min: i64,
    max: i64,
) -> Result<Option<i64>, ApiError> {
    let expected = format!("a whole number from {min} to {max}");
    let read = |raw: &RawValue| {
        let float = numeric(name, raw, &expected)?;
        let exact: Option<i64> = serde_json::from_str(raw.get()).ok();
        // From 2^63 on the conversion would saturate.
        let is_whole = float.fract() == 0.0 && (-9.3e18..9.2e18).contains(&float);
        let number = exact.or(is_whole.then_some(float as i64));
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| beyond(name, raw, &expected))
    };
    fields.raw(name).map(read).transpose()
}

fn numeric(name: &str, raw: &RawValue, expected: &str) -> Result<f64, ApiError> {
    if kind(raw) != Kind::Number {
        return Err(unexpected(name, raw, expected));
    }
    Ok(serde_json::from_str(raw.get()).unwrap_or(f64::NAN))
}

fn beyond(name: &str, raw: &RawValue, expected: &str) -> ApiError {
    let came: String = raw.get().chars().take(40).collect();
    let top = crate::fields::top(name);
    ApiError::invalid(top, format!("`{name}` is {came}: send {expected}"))
}

fn biases(raw: &RawValue) -> Result<BTreeMap<u32, f32>, ApiError> {
    const NAME: &str = "logit_bias";
    if kind(raw) != Kind::Object {
        return Err(unexpected(NAME, raw, "an object of token ids and numbers"));
    }
    let wrong = |message: String| ApiError::invalid(NAME, message);
    let written: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get())
        .map_err(|error| wrong(format!("`{NAME}` can't be read: {error}")))?;
    if written.len() > LOGIT_BIAS_MAX {
        return Err(wrong(format!(
            "`{NAME}` has {} token ids: send at most {LOGIT_BIAS_MAX}",
            written.len()
        )));
    }
    let mut biases = BTreeMap::new();
    for (id, raw) in written {
        let is_id = (1..=9).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
        let id = id.parse().ok().filter(|_| is_id).ok_or_else(|| {
            let shown: String = id.chars().take(40).collect();
            wrong(format!("`{NAME}` has the key `{shown}`: expected token ids"))
        })?;
        let name = format!("{NAME}.{id}");
        let expected = "a number from -100 to 100";
        let number = numeric(&name, raw, expected)?;
        if number.is_nan() || number.abs() > f64::from(LOGIT_BIAS_ABS_MAX) {
            return Err(beyond(&name, raw, expected));
        }
        biases.insert(id, number as f32);
    }
    Ok(biases)
}

fn stops(raw: &RawValue) -> Result<Vec<String>, ApiError> {
    const NAME: &str = "stop";
    let mut stops = Vec::new();
    let mut take = |name: &str, raw: &RawValue| {
        let stop = text(name, raw)?;
        if stop.is_empty() || stop.chars().count() > STOP_CHARS_MAX {
            let message = format!("`{name}` must have 1 to {STOP_CHARS_MAX} characters");
            return Err(ApiError::invalid(NAME, message));
        }
        stops.push(stop);
        Ok(())
    };
    match kind(raw) {
        Kind::Text => take(NAME, raw)?,
        Kind::List if is_empty(raw) => {}
        Kind::List => {
            each(NAME, raw, STOPS_MAX, |index, raw| take(&format!("{NAME}[{index}]"), raw))?;
        }
        _ => return Err(unexpected(NAME, raw, "a string or a list of strings")),
    }
    Ok(stops)
}

fn token_ids(raw: &RawValue) -> Result<Vec<u32>, ApiError> {
    const NAME: &str = "stop_token_ids";
    let mut ids = Vec::new();
    if kind(raw) == Kind::List && is_empty(raw) {
        return Ok(ids);
    }
    each(NAME, raw, STOP_TOKENS_MAX, |index, raw| {
        let name = format!("{NAME}[{index}]");
        let expected = "a token id";
        let number = numeric(&name, raw, expected)?;
        if number.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&number) {
            return Err(beyond(&name, raw, expected));
        }
        ids.push(number as u32);
        Ok(())
    })?;
    Ok(ids)
}

/// Whether a list has nothing in it.
pub fn is_empty(list: &RawValue) -> bool {
    let inner = list.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(body: &Value) -> Result<GenerateParams, ApiError> {
        read(&Fields::scan(body.to_string().as_bytes(), &NAMES)?)
    }

    #[test]
    fn what_clients_send_is_read() {
        let body = json!({"temperature": 0, "top_p": 1.0, "top_k": -1, "min_p": 0.05, "presence_penalty": -2,
            "frequency_penalty": 0.5, "repetition_penalty": 1.1, "logit_bias": {"50256": -100, "7": 2.5}, "seed": -1,
            "stop": ["\n", "END"], "stop_token_ids": [2], "min_tokens": 0, "ignore_eos": true});
        let expected = GenerateParams {
            temperature: Some(0.0),
            top_p: Some(1.0),
            top_k: None,
            min_p: Some(0.05),
            presence_penalty: Some(-2.0),
            frequency_penalty: Some(0.5),
            repetition_penalty: Some(1.1),
            logit_bias: [(50_256, -100.0), (7, 2.5)].into(),
            seed: Some(u64::MAX),
            stop: vec!["\n".into(), "END".into()],
            stop_token_ids: vec![2],
            min_tokens: Some(0),
            ignore_eos: true,
            ..GenerateParams::default()
        };
        assert_eq!(parsed(&body).unwrap(), expected);
        let nulls: serde_json::Map<String, Value> =
            NAMES.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
        assert_eq!(parsed(&nulls.into()).unwrap(), GenerateParams::default());
        assert_eq!(parsed(&json!({"stop": "x"})).unwrap().stop, ["x"]);
        assert_eq!(parsed(&json!({"stop": [ ]})).unwrap().stop, Vec::<String>::new());
    }

    #[test]
    fn a_number_out_of_bounds_is_refused_by_its_name() {
        for (name, wrong) in [
            ("temperature", json!(2.1)),
            ("temperature", json!("hot")),
            ("top_p", json!(0)),
            ("top_k", json!(1.5)),
            ("min_p", json!(-0.1)),
            ("presence_penalty", json!(3)),
            ("repetition_penalty", json!(0)),
            ("logit_bias", json!({"x": 1})),
            ("logit_bias", json!({"1": 101})),
            ("logit_bias", json!([1])),
            ("seed", json!(0.5)),
            ("stop", json!("")),
            ("stop", json!(["a", 1])),
            ("stop_token_ids", json!([-1])),
            ("min_tokens", json!(-1)),
            ("ignore_eos", json!(1)),
        ] {
            let error = parsed(&json!({name: wrong})).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name), "{error}");
            assert_eq!(error.status.as_u16(), 400);
        }
    }
}
