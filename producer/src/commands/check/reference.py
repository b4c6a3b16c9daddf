"""What PyTorch computes for a model folder: a request as JSON on standard input, rows as JSON on standard output.

Request: {"folder", "task", "texts" or "pairs", "has_prompt", "answered", "tokens_max", "values_max", "pooling"}.
Answer: {"library", "rows"}, or {"missing"} where neither library is installed, or {"error"}. Code that comes with a
model is never run.
"""

import json
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")


def embed_by_sentence_transformers(request):
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(request["folder"], device="cpu").float()
    rows = [model.encode(text, normalize_embeddings=True, show_progress_bar=False) for text in request["texts"]]
    return f"sentence-transformers {sentence_transformers.__version__}", [row.tolist() for row in rows]


def embed_by_transformers(request):
    """Without sentence-transformers: bare transformers and the plain ways of pooling."""
    import torch
    import transformers

    pool = {
        "mean": lambda states: states.mean(0),
        "cls": lambda states: states[0],
        "lasttoken": lambda states: states[-1],
        "max": lambda states: states.max(0).values,
    }[request["pooling"]]
    tokenizer = transformers.AutoTokenizer.from_pretrained(request["folder"])
    model = transformers.AutoModel.from_pretrained(request["folder"]).float().eval()
    rows = []
    for text in request["texts"]:
        tokens = tokenizer(text, truncation=True, max_length=request["tokens_max"], return_tensors="pt")
        with torch.inference_mode():
            vector = pool(model(**tokens).last_hidden_state[0])
        rows.append((vector / vector.norm()).tolist())
    return f"transformers {transformers.__version__} (pooling and length taken as read above)", rows


def embed_sparse(request):
    import sentence_transformers

    model = sentence_transformers.SparseEncoder(request["folder"], device="cpu").float()
    options = {"convert_to_sparse_tensor": False, "show_progress_bar": False, "max_active_dims": request["values_max"]}
    rows = [model.encode(text, **options).tolist() for text in request["texts"]]
    return f"sentence-transformers {sentence_transformers.__version__}", rows


def embed_tokens(request):
    """Each text as a document, then each as a query; the vectors of a text one after the other."""
    import sentence_transformers

    model = sentence_transformers.MultiVectorEncoder(request["folder"], device="cpu").float()
    rows = []
    for encode in (model.encode_document, model.encode_query):
        for text in request["texts"]:
            vectors = encode(text, show_progress_bar=False).tolist()
            rows.append([value for vector in vectors for value in vector])
    return f"sentence-transformers {sentence_transformers.__version__}", rows


def rerank(request):
    """Language models by the library that has their prompts, others by their heads."""
    if request["answered"]:
        return answered(request)
    try:
        with open(os.path.join(request["folder"], "modules.json"), encoding="utf-8") as file:
            is_asked = "LogitScore" in file.read()
    except FileNotFoundError:
        is_asked = False
    if not is_asked and not request["has_prompt"]:
        return score(request)
    import sentence_transformers
    import torch

    options = {"device": "cpu", "model_kwargs": {"dtype": torch.float32}}
    model = sentence_transformers.CrossEncoder(request["folder"], **options)
    plain = {"activation_fn": torch.nn.Identity(), "show_progress_bar": False}
    rows = [model.predict([pair], **plain).tolist() for pair in request["pairs"]]
    return f"sentence-transformers {sentence_transformers.__version__}", rows


def answered(request):
    """The logit of `yes` less that of `no` behind prompts that come as tokens."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(request["folder"])
    model = transformers.AutoModelForCausalLM.from_pretrained(request["folder"]).float().eval()
    [yes, no] = tokenizer.convert_tokens_to_ids(["yes", "no"])
    rows = []
    for ids in request["answered"]:
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1]
        rows.append([float(logits[yes] - logits[no])])
    return f"transformers {transformers.__version__} (prompts taken as made here)", rows


def score(request):
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(request["folder"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(request["folder"]).float().eval()
    rows = []
    for parts in request["pairs"] or [[text] for text in request["texts"]]:
        tokens = tokenizer(*parts, truncation=True, max_length=request["tokens_max"], return_tensors="pt")
        with torch.inference_mode():
            logits = model(**tokens).logits[0]
        kind = model.config.problem_type
        if kind == "multi_label_classification" and len(logits) > 1:
            logits = logits.sigmoid()
        elif kind != "regression" and len(logits) > 1:
            logits = logits.softmax(0)
        rows.append(logits.tolist())
    return f"transformers {transformers.__version__}", rows


def answer(request):
    by_task = {
        "embed": embed_by_sentence_transformers,
        "embed_sparse": embed_sparse,
        "embed_tokens": embed_tokens,
        "rerank": rerank,
    }
    ways = [by_task.get(request["task"], score)]
    if request["task"] == "embed" and request["pooling"]:
        ways.append(embed_by_transformers)
    missing = None
    for way in ways:
        try:
            library, rows = way(request)
            return {"library": library, "rows": rows}
        except ModuleNotFoundError as error:
            missing = error.name
        except Exception as error:  # whatever a library raises about a folder is what the report needs
            return {"error": f"{type(error).__name__}: {str(error)[:500]}"}
    return {"missing": missing}


def main():
    # Libraries print what they like; only the answer goes to standard output.
    out, sys.stdout = sys.stdout, sys.stderr
    json.dump(answer(json.load(sys.stdin)), out)


main()
