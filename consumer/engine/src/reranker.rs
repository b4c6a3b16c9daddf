//! Rerankers that are language models: a query and a document with words around them, from the folder's chat template
//! or as Qwen3-Reranker was trained with them, and the part of the head that reads the answer.

use serde_json::{Value, json};

use crate::encode::head::Scores;
use crate::error::EngineError;
use crate::families::architecture::Architecture;
use crate::families::classifier::ClassifierConfig;
use crate::families::logit_head;
use crate::generate::template::{ChatInput, ChatTemplate};
use crate::info::ModelTask;
use crate::load::folder::ModelFolder;
use crate::load::generation::{self, GenerationInfo};
use crate::load::logit_score::LogitScore;
use crate::load::options::LoadOptions;
use crate::load::safetensors::Weights;
use crate::load::sentence_config::Messages;
use crate::tokenizer::{Tokenizer, WritePrompt};

/// The architecture that [`QWEN3`] is the prompt of.
const QWEN3_MODEL: &str = "qwen3";
/// The prompt of Qwen3-Reranker, by its makers: before the instruction, the query and the document, and after them.
const QWEN3: [&str; 4] = [
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct \
     provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n<Instruct>: ",
    "\n<Query>: ",
    "\n<Document>: ",
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
];
/// The instruction that is meant where there is none, by its makers too.
const QWEN3_INSTRUCTION: &str =
    "Given a web search query, retrieve relevant passages that answer the query";
/// Pairs that sentence-transformers tries a template with: another query or document has to give another prompt.
const PROBES: [[&str; 2]; 3] = [["alpha", "bravo"], ["charlie", "bravo"], ["alpha", "foxtrot"]];

/// The answers that a model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// It isn't: it has another head than a language model's.
    Nothing,
    AsModulesSay(LogitScore),
    /// Nothing says which, so they are these.
    YesOrNo,
}

/// The answers that the model in `folder` is asked for.
pub(crate) fn asks(
    folder: &ModelFolder,
    architecture: &Architecture,
    classifier: &ClassifierConfig,
    options: &LoadOptions,
) -> Asks {
    let is_decoder = matches!(architecture, Architecture::Decoder(_));
    let is_open = !folder.has_modules() && classifier.task() == ModelTask::Embed;
    match folder.logit_score() {
        Some(score) => Asks::AsModulesSay(score),
        None if options.reranks && is_decoder && is_open => Asks::YesOrNo,
        None => Asks::Nothing,
    }
}

/// The answers that the model is asked for, if any.
pub(crate) fn answers(
    folder: &ModelFolder,
    tokenizer: &Tokenizer,
    asks: Asks,
) -> Result<Option<LogitScore>, EngineError> {
    match asks {
        Asks::Nothing => Ok(None),
        Asks::AsModulesSay(answers) => Ok(Some(answers)),
        Asks::YesOrNo => {
            let words = ["yes", "no"].map(|word| tokenizer.token_id(word));
            if let [Some(yes), no @ Some(_)] = words {
                return Ok(Some(LogitScore { yes, no }));
            }
            let value = "rerank, of a model whose vocabulary lacks `yes` or `no`";
            Err(refused(folder, "task", value, "a modules.json with LogitScore"))
        }
    }
}

/// Loads the head that reads the answers.
pub(crate) fn head(
    folder: &ModelFolder,
    architecture: &Architecture,
    weights: &Weights,
    answers: LogitScore,
) -> Result<Scores, EngineError> {
    let path = folder.config_path();
    match architecture {
        Architecture::Decoder(config) => logit_head::load(&path, config, weights, answers),
        other => Err(refused(folder, "type", other.name(), "LogitScore behind a decoder")),
    }
}

/// Gives the tokenizer of a reranker the prompt of pairs, where there is one. What `sentence_bert_config.json` says
/// counts; where there are no modules, a decoder's template that both texts of a pair get into.
pub(crate) fn with_prompt(
    tokenizer: Tokenizer,
    folder: &ModelFolder,
    architecture: &Architecture,
    task: ModelTask,
    asks: Asks,
) -> Result<Tokenizer, EngineError> {
    if folder.messages().is_some() && task != ModelTask::Rerank {
        let value = format!("messages to a model that does {task:?}");
        return Err(refused(folder, "modality_config", &value, "messages to a reranker"));
    }
    let prompt = folder.prompts().default.as_deref().unwrap_or_default();
    if let Some(messages) = folder.messages() {
        let template = Template::read(folder, messages.clone(), prompt)?;
        let Some(template) = template.filter(Template::has_both_texts) else {
            let supported = "a template of messages whose roles are query and document";
            let value = "none that a query and a document get into";
            return Err(refused(folder, "chat_template", value, supported));
        };
        return tokenizer.with_pair_prompt(template.writer(), messages.keeps_closing);
    }
    let is_decoder = matches!(architecture, Architecture::Decoder(_));
    if folder.has_modules() || !is_decoder || task != ModelTask::Rerank {
        return Ok(tokenizer);
    }
    let template = Template::read(folder, Messages::default(), prompt)?;
    if let Some(template) = template.filter(Template::has_both_texts) {
        return tokenizer.with_pair_prompt(template.writer(), true);
    }
    match asks {
        Asks::YesOrNo if architecture.name() == QWEN3_MODEL => {
            let instruction = if prompt.is_empty() { QWEN3_INSTRUCTION } else { prompt }.to_owned();
            let write = move |query: &str, document: &str| {
                let [opening, before_query, before_document, closing] = QWEN3;
                let before = [opening, instruction.as_str(), before_query, query, before_document];
                Ok(before.concat() + document + closing)
            };
            tokenizer.with_pair_prompt(Box::new(write), true)
        }
        Asks::YesOrNo => {
            let value = format!("no prompt of pairs, for {}", architecture.name());
            let supported =
                "a template of messages whose roles are query and document, or qwen3's own prompt";
            Err(refused(folder, "chat_template", &value, supported))
        }
        // It was trained to read them as they are.
        Asks::Nothing | Asks::AsModulesSay(_) => Ok(tokenizer),
    }
}

fn refused(folder: &ModelFolder, field: &'static str, value: &str, supported: &str) -> EngineError {
    EngineError::NotSupported {
        path: folder.transformer().to_owned(),
        field,
        value: value.to_owned(),
        supported: supported.to_owned(),
    }
}

/// A chat template with what is put into it beside a query and a document.
struct Template {
    chat: ChatTemplate,
    messages: Messages,
    /// The instruction.
    system: String,
}

impl Template {
    /// Reads the folder's template, if there is one.
    fn read(
        folder: &ModelFolder,
        messages: Messages,
        system: &str,
    ) -> Result<Option<Self>, EngineError> {
        let GenerationInfo { chat_template, special_tokens, .. } =
            generation::of_folder(folder.transformer())?;
        let Some(source) = chat_template else { return Ok(None) };
        let chat = ChatTemplate::new(&source, special_tokens)
            .map_err(|error| EngineError::Tokenizer { problem: error.to_string() })?;
        Ok(Some(Self { chat, messages, system: system.to_owned() }))
    }

    fn render(&self, query: &str, document: &str) -> Result<String, EngineError> {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let system = (!self.system.is_empty()).then(|| message("system", &self.system));
        let pair = [message("query", query), message("document", document)];
        let messages: Value = system.into_iter().chain(pair).collect();
        let input = ChatInput {
            messages: &messages,
            tools: &Value::Null,
            add_generation_prompt: self.messages.add_generation_prompt,
            arguments: &self.messages.arguments,
            // A score that changed with the time of day would be of no use.
            now_ms: 0,
        };
        self.chat
            .render(&input)
            .map_err(|error| EngineError::Tokenizer { problem: error.to_string() })
    }

    /// Whether each text of a pair gets into the prompt.
    fn has_both_texts(&self) -> bool {
        let [base, other_query, other_document] =
            PROBES.map(|[query, document]| self.render(query, document).ok());
        base.is_some()
            && other_query.is_some_and(|prompt| Some(prompt) != base)
            && other_document.is_some_and(|prompt| Some(prompt) != base)
    }

    fn writer(self) -> Box<WritePrompt> {
        Box::new(move |query, document| self.render(query, document))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn template(source: &str) -> Template {
        let chat = ChatTemplate::new(source, Vec::new()).unwrap();
        Template { chat, messages: Messages::default(), system: String::new() }
    }

    #[test]
    fn a_template_is_one_of_pairs_if_both_texts_get_into_it() {
        let both =
            "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}";
        assert!(template(both).has_both_texts());
        for source in [
            "{{ messages[0].content }}",
            "{{ messages[1].content }}",
            "{{ raise_exception('no such role') }}",
            "{% for message in messages %}{% if message.role == 'user' %}{{ message.content }}{% endif %}{% endfor %}",
        ] {
            assert!(!template(source).has_both_texts(), "{source}");
        }
        assert_eq!(template(both).render("q", "d").unwrap(), "query: q\ndocument: d\n");
    }
}
