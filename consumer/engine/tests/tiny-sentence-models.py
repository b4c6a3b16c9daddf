#!/usr/bin/env python3
"""Makes the small random models that are folders of sentence-transformers, with the values that it computes for them.

    python3 consumer/engine/tests/tiny-sentence-models.py xlm-roberta splade splade-distilbert splade-roberta \
        splade-modernbert colbert colbert-pylate

Needs sentence-transformers 6.2 with torch and transformers 5. The tokenizers and the texts are those of other small
models beside them. Weights are kept in bf16 and computed with in f32.
"""

import argparse
import json
import pathlib
import shutil
import string
import tempfile

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaModel,
)

DATA = pathlib.Path(__file__).resolve().parent / "data/tiny"
VOCABULARY, HIDDEN, INNER, LAYERS, HEADS, POSITIONS = 2000, 64, 128, 2, 4, 130
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
}
# Short and long ones, with punctuation and other scripts among them.
TEXTS = 8


def tokenizer(of="bert", pattern="[{}]"):
    names = ("UNK", "PAD", "CLS", "SEP", "MASK") if of == "bert" else ("unk", "pad", "s", "/s", "mask")
    roles = (f"{role}_token" for role in ("unk", "pad", "cls", "sep", "mask"))
    special = {role: pattern.format(name) for role, name in zip(roles, names)}
    file = str(DATA / of / "tokenizer.json")
    return PreTrainedTokenizerFast(tokenizer_file=file, model_max_length=128, **special)


def randomize(model, seed):
    """Norms near 1 and 0, the rest with the spread that keeps a layer's outputs near its inputs' size, in bf16's steps.

    The bias of a language model's last layer leaves some of its outputs above 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() > 1:
                noise = noise / weight.shape[-1] ** 0.5
            else:
                is_scale = "norm" in name.lower() and name.endswith("weight")
                noise = 0.1 * noise + (1.0 if is_scale else 0.0)
            if weight.shape == (VOCABULARY,):
                noise = noise - 3.0
            weight.copy_(noise.bfloat16().float())
    return model.eval()


def saved(model, vocabulary=None):
    folder = tempfile.mkdtemp()
    model.save_pretrained(folder)
    (vocabulary or tokenizer()).save_pretrained(folder)
    return folder


def texts():
    lines = (DATA / "bert/expected.jsonl").read_text(encoding="utf-8").splitlines()
    every = sorted({json.loads(line)["text"] for line in lines}, key=len)
    return every[:: max(1, len(every) // TEXTS)][:TEXTS]


def keep(model, name, of="bert"):
    """Writes the folder, its weights in bf16, without what no program reads."""
    folder = DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    shutil.copy(DATA / of / "tokenizer.json", folder / "tokenizer.json")
    for file in folder.rglob("*.safetensors"):
        save_file({name: weight.bfloat16() for name, weight in load_file(file).items()}, file)
    return folder


def write(folder, rows):
    with open(folder / "expected.jsonl", "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def rounded(values):
    return [round(value, 6) for value in values]


def xlm_roberta(name):
    """As Snowflake's Arctic Embed l v2 (prompts that no text has by default) and multilingual E5 (instructions)."""
    of = "xlm-roberta-rerank"
    config = XLMRobertaConfig(**BERT, type_vocab_size=1, pad_token_id=1)
    folder = saved(randomize(XLMRobertaModel(config), 27), tokenizer(of, "<{}>"))
    prompts = {"query": "query: ", "task": "Instruct: Find what answers the question\nQuery: "}
    modules = [Transformer(folder), Pooling(HIDDEN, pooling_mode="cls"), Normalize()]
    encoder = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
    folder = keep(encoder, name, of)
    # As the published models have it, which are older.
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling, indent=2) + "\n")
    rows = []
    for text in texts():
        for prompt in ("", *prompts.values()):
            ids = encoder.preprocess([text], prompt=prompt)["input_ids"][0].tolist()
            values = rounded(encoder.encode(text, prompt=prompt or None).tolist())
            rows.append({"text": prompt + text, "token_ids": ids, "cls": values})
    write(folder, rows)


def sparse(name, model, pooling, of="bert", pattern="[{}]"):
    folder = saved(model, tokenizer(of, pattern))
    modules = [Transformer(folder, transformer_task="fill-mask"), pooling]
    encoder = SparseEncoder(modules=modules, device="cpu")
    folder = keep(encoder, name, of)
    rows = []
    for text in texts():
        vector = encoder.encode(text, convert_to_sparse_tensor=False)
        indices = vector.nonzero().flatten()
        rows.append({"text": text, "indices": indices.tolist(), "values": rounded(vector[indices].tolist())})
    write(folder, rows)


def splade(name):
    sparse(name, randomize(BertForMaskedLM(BertConfig(**BERT)), 21), SpladePooling("max"))


def splade_distilbert(name):
    sizes = {"dim": HIDDEN, "hidden_dim": INNER, "n_layers": LAYERS, "n_heads": HEADS}
    config = DistilBertConfig(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, **sizes)
    sparse(name, randomize(DistilBertForMaskedLM(config), 22), SpladePooling("sum", "log1p_relu"))


def splade_roberta(name):
    """The head of RoBERTa, XLM-RoBERTa and CamemBERT, whose classes are copies of one another in transformers."""
    config = RobertaConfig(**BERT | {"max_position_embeddings": POSITIONS + 2}, type_vocab_size=1, pad_token_id=1)
    model = randomize(RobertaForMaskedLM(config), 28)
    sparse(name, model, SpladePooling("max"), "roberta-classify", "<{}>")
    for kind, architecture in (("xlm-roberta", "XLMRobertaForMaskedLM"), ("camembert", "CamembertForMaskedLM")):
        same_in_another_class(DATA / name, kind, architecture)


def same_in_another_class(folder, kind, architecture):
    """Fails unless the folder computes the same as a model of another type."""
    copy = pathlib.Path(tempfile.mkdtemp()) / kind
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": kind, "architectures": [architecture]}
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    options = {"device": "cpu", "model_kwargs": {"dtype": torch.float32}}
    [one, other] = [SparseEncoder(str(path), **options) for path in (folder, copy)]
    assert type(other[0].auto_model).__name__ == architecture
    for text in texts():
        [a, b] = [encoder.encode(text, convert_to_sparse_tensor=False) for encoder in (one, other)]
        assert torch.equal(a, b), (kind, text)


def splade_modernbert(name):
    config = ModernBertConfig(
        **BERT | {"num_hidden_layers": 4},
        local_attention=64,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
    )
    sparse(name, randomize(ModernBertForMaskedLM(config), 29), SpladePooling("max"), "modernbert")


def token_rows(encoder):
    for text in texts():
        row = {"text": text}
        for task, encode in (("query", encoder.encode_query), ("document", encoder.encode_document)):
            features = encoder.preprocess([text], prompt=encoder.prompts.get(task), task=task)
            row[f"{task}_ids"] = features["input_ids"][0].tolist()
            row[task] = [rounded(vector) for vector in encode(text).tolist()]
        yield row


def colbert(name):
    transformer = Transformer(
        saved(randomize(BertModel(BertConfig(**BERT)), 23)),
        document_length=60,
        query_expansion={"strategy": "fixed", "attend": False, "length": 32},
    )
    dense = Dense(HIDDEN, 16, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings")
    mask = MultiVectorMask(skiplist_words=list(string.punctuation))
    modules = [transformer, randomize(dense, 24), mask, Normalize(module_input_name="token_embeddings")]
    prompts = {"query": "search: ", "document": ""}
    encoder = MultiVectorEncoder(modules=modules, prompts=prompts, device="cpu")
    folder = keep(encoder, name)
    write(folder, token_rows(encoder))


def colbert_pylate(name):
    """A folder as PyLate 1 writes it: markers and lengths in the main configuration, and two modules."""
    marked = tokenizer()
    marked.add_tokens(["[Q] ", "[D] "])
    config = ModernBertConfig(
        **BERT | {"vocab_size": len(marked), "num_hidden_layers": 4},
        local_attention=64,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
    )
    folder = DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved(randomize(ModernBertModel(config), 25), marked), folder)
    dense = Dense(HIDDEN, 16, bias=False, activation_function=torch.nn.Identity())
    (folder / "1_Dense").mkdir()
    randomize(dense, 26).save(str(folder / "1_Dense"))
    dense_config = {"in_features": HIDDEN, "out_features": 16, "bias": False}
    dense_config["activation_function"] = "torch.nn.modules.linear.Identity"
    main = {
        "model_type": "ColBERT",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 24,
        "document_length": 100,
        "attend_to_expansion_tokens": False,
        "do_query_expansion": True,
    }
    kinds = [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    lines = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(kinds)]
    for file, value in (
        ("1_Dense/config.json", dense_config),
        ("config_sentence_transformers.json", main),
        ("modules.json", lines),
        ("sentence_bert_config.json", {"max_seq_length": 127, "do_lower_case": False}),
    ):
        (folder / file).write_text(json.dumps(value, indent=2) + "\n")
    for file in folder.rglob("*.safetensors"):
        save_file({name: weight.bfloat16() for name, weight in load_file(file).items()}, file)
    write(folder, token_rows(MultiVectorEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})))


def main():
    models = {
        "xlm-roberta": xlm_roberta,
        "splade": splade,
        "splade-distilbert": splade_distilbert,
        "splade-roberta": splade_roberta,
        "splade-modernbert": splade_modernbert,
        "colbert": colbert,
        "colbert-pylate": colbert_pylate,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=models)
    for name in parser.parse_args().names:
        models[name](name)


if __name__ == "__main__":
    main()
