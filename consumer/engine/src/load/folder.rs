//! A model folder as sentence-transformers lays it out: its files, and the settings in the smaller ones.
//!
//! `modules.json` lists the modules: a transformer (whose files lie in the folder itself or below it), a pooling with
//! its own `config.json`, and perhaps linear layers and normalisations of the pooled vector. A folder without
//! `modules.json` is a bare transformer: mean pooling, as sentence-transformers does.

use std::path::{Path, PathBuf};

use crate::error::EngineError;
use crate::load::fields::{Fields, Ignored};
use crate::load::files::read;
use crate::load::logit_score::{self, LogitScore};
use crate::load::modules::{Modules, RowsOf};
use crate::load::per_token::PerToken;
use crate::load::pooling::{self, After, Dense, OF_TEXT, Pooling};
use crate::load::prompts::Prompts;
use crate::load::sentence_config::{Messages, SentenceConfig};
use crate::load::token_reading::TokenReading;
use crate::load::tokenizer_config::TokenizerConfig;

/// The files of one model.
pub(crate) struct ModelFolder {
    root: PathBuf,
    transformer: PathBuf,
    of_text: OfText,
    /// The output for every token, where the modules make no vector of a whole text.
    per_token: Option<PerToken>,
    sentence: SentenceConfig,
    tokenizer: TokenizerConfig,
    prompts: Prompts,
    has_modules: bool,
    ignored: Vec<Ignored>,
}

/// The modules that make a vector of a whole text, or a score.
#[derive(Default)]
struct OfText {
    /// `None` where `modules.json` has no pooling.
    pooling: Option<Vec<Pooling>>,
    after: Vec<After>,
    logit_score: Option<LogitScore>,
}

impl OfText {
    /// Reads the modules' files, and refuses a module that the engine has no counterpart for.
    fn read(
        modules: &Modules,
        has_prompt: bool,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Self, EngineError> {
        let mut these = Self::default();
        for module in modules.rest() {
            let path = module.folder.join("config.json");
            match module.class() {
                logit_score::CLASS if modules.rest().len() == 1 => {
                    these.logit_score = Some(LogitScore::read(&module.folder, ignored)?);
                }
                "Pooling" if these.pooling.is_none() => {
                    let fields = Fields::parse(&path, &read(&path)?)?;
                    let (modes, more) = pooling::parse(fields, has_prompt)?;
                    these.pooling = Some(modes);
                    ignored.extend(more);
                }
                "Dense" if these.pooling.is_some() => {
                    let dense = Dense::read(&module.folder, OF_TEXT, ignored)?;
                    these.after.push(After::Dense(dense));
                }
                "Normalize" if these.pooling.is_some() => {
                    let mut fields = Fields::parse_if_there(&path)?;
                    fields.only("module_input_name", &OF_TEXT.to_owned())?;
                    fields.only("module_output_name", &OF_TEXT.to_owned())?;
                    ignored.extend(fields.ignored());
                    these.after.push(After::Normalize);
                }
                _ => {
                    let supported =
                        "Transformer, then Pooling, then Dense and Normalize; or then LogitScore";
                    return Err(modules.refused(module, supported));
                }
            }
        }
        // The last normalisation is the callers' choice: their jobs say whether vectors are normalised.
        while matches!(these.after.last(), Some(After::Normalize)) {
            these.after.pop();
        }
        Ok(these)
    }
}

impl ModelFolder {
    /// Finds the model's files and reads the smaller ones.
    pub(crate) fn open(folder: &Path) -> Result<Self, EngineError> {
        let mut ignored = Vec::new();
        let modules = Modules::read(folder)?;
        let mut per_token = PerToken::find(folder, modules.as_ref(), &mut ignored)?;
        let rows = match (&per_token, &modules) {
            (Some(per_token), _) => per_token.rows_of(),
            (None, Some(modules)) if modules.has(logit_score::CLASS) => RowsOf::Logits,
            (None, Some(modules)) if modules.is_transformer_alone() => RowsOf::Scores,
            (None, _) => RowsOf::Texts,
        };
        let prompts = Prompts::read(folder, rows, &mut ignored)?;
        if let (Some(PerToken::Sparse(pooling)), Some(most)) =
            (&mut per_token, prompts.sparse_values_max)
        {
            pooling.values_max = pooling.values_max.min(most);
        }
        let of_text = match &modules {
            Some(modules) if per_token.is_none() => {
                OfText::read(modules, prompts.default.is_some(), &mut ignored)?
            }
            _ => OfText::default(),
        };
        let transformer = modules.as_ref().map_or(folder, Modules::transformer).to_owned();
        let sentence = SentenceConfig::read(&transformer, rows, &mut ignored)?;
        let tokenizer = TokenizerConfig::read(&transformer)?;
        Ok(Self {
            root: folder.to_owned(),
            transformer,
            of_text,
            per_token,
            sentence,
            tokenizer,
            prompts,
            has_modules: modules.is_some(),
            ignored,
        })
    }

    /// The prompts that the model knows.
    pub(crate) fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// The fields of the smaller files that are ignored.
    pub(crate) fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// The output for every token, where the modules make no vector of a whole text.
    pub(crate) fn per_token(&self) -> Option<&PerToken> {
        self.per_token.as_ref()
    }

    /// How a model of token vectors reads queries and documents.
    pub(crate) fn token_reading(&self) -> Result<TokenReading, EngineError> {
        match &self.per_token {
            Some(PerToken::Tokens(modules)) if modules.reading.is_some() => {
                Ok(modules.reading.clone().unwrap_or_default())
            }
            _ => TokenReading::read(&self.root, &self.transformer),
        }
    }

    /// Where the model lies, with the files that are no module's.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The model's configuration.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.transformer.join("config.json")
    }

    /// The most tokens a text may have: what the model was trained for, never more than it has positions.
    pub(crate) fn tokens_max(&self, positions: usize) -> usize {
        let asked = self.sentence.tokens_max.or(self.tokenizer.tokens_max);
        asked.unwrap_or(positions).min(positions)
    }

    /// Whether `modules.json` makes a vector of each text.
    pub(crate) fn has_pooling(&self) -> bool {
        self.of_text.pooling.is_some()
    }

    /// How the model pools; the vectors of several ways stand side by side.
    pub(crate) fn pooling(&self) -> Vec<Pooling> {
        self.of_text.pooling.clone().unwrap_or_else(|| vec![Pooling::Mean])
    }

    /// The modules after the pooling, in order.
    pub(crate) fn after(&self) -> &[After] {
        &self.of_text.after
    }

    /// True when texts are lower-cased before tokenization.
    pub(crate) fn lower_cases(&self) -> bool {
        self.sentence.lower_cases
    }

    /// How scores are made of a language model's logits, where `modules.json` says so.
    pub(crate) fn logit_score(&self) -> Option<LogitScore> {
        self.of_text.logit_score
    }

    /// How pairs are put into the model's chat template, where the folder says so.
    pub(crate) fn messages(&self) -> Option<&Messages> {
        self.sentence.messages.as_ref()
    }

    /// Whether there is a `modules.json`.
    pub(crate) fn has_modules(&self) -> bool {
        self.has_modules
    }

    /// The transformer's folder.
    pub(crate) fn transformer(&self) -> &Path {
        &self.transformer
    }

    /// The settings of the tokenizer's configuration.
    pub(crate) fn tokenizer_config(&self) -> &TokenizerConfig {
        &self.tokenizer
    }

    /// The tokenizer's file.
    pub(crate) fn tokenizer_path(&self) -> PathBuf {
        self.transformer.join("tokenizer.json")
    }

    /// The weights' file.
    pub(crate) fn weights_path(&self) -> PathBuf {
        self.transformer.join("model.safetensors")
    }
}
