"""The bare generator beside other engines: the same GGUF file, the same threads, in turns.

    generate.py --model FOLDER --ours PROGRAM [--prompts FILE] [--shapes WORDS] [--seconds 4]

PROGRAM is the engine's example `generate`, which stays loaded as the others do, each in a process of its own, one for
each number type of --dtypes. FOLDER has one .gguf file. Peers are those that are installed: OpenVINO GenAI, llama.cpp
(llama-cpp-python) with that file and with the formats of --formats that it makes of it, and transformers in f32, which
is the reference of accuracy. Each shape of work is done by every engine in turns until the time of each is over; the
best slice counts, since other work on a machine only ever slows one down. Prints a table for people and, last, a line
of JSON for machines.
"""

import argparse
import ctypes
import glob
import importlib.util
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

PREFILL = 512
# Sequences and tokens of each before the steps that are timed.
SHAPES = ["prefill", "1x128", "8x128", "32x128", "64x128", "8x1024", "32x1024"]
STEPS = 16
GREEDY = 64
# GGUF's numbers of the formats that llama.cpp can make.
FORMATS = {"f32": 0, "q4_0": 2, "q8_0": 7, "bf16": 32}
WORDS = (
    "the quiet canal carries clear water past an old mill while two engineers measure how fast the gates open and "
    "close before the turbine turns again and the lamps of the valley begin to glow"
).split()


def there(module):
    return importlib.util.find_spec(module) is not None


def memory_mb(process):
    """The most that a process had in memory."""
    with open(f"/proc/{process}/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


class Ours:
    """The engine's example `generate`, in one number type."""

    sequences_max = 64

    def __init__(self, program, path, dtype, threads):
        command = [program, path, dtype, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if not self.process.stdout.readline():
            raise SystemExit(f"{' '.join(command)} ended with {self.process.wait()}")
        self.name = f"Forebay {dtype}"

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def prefill(self, tokens):
        return tokens / self.ask(f"prefill {tokens}")["seconds"]

    def decode(self, sequences, context):
        return sequences * STEPS / self.ask(f"decode {sequences} {context} {STEPS}")["seconds"]

    def greedy(self, ids):
        return self.ask(f"greedy {GREEDY} {json.dumps(ids)}")["ids"]

    def memory_mb(self):
        return memory_mb(self.process.pid)

    def page_mb(self):
        """What the pages took that were in use at once at most."""
        return self.ask("pages")["bytes"] / 2**20


class OpenVino:
    """OpenVINO GenAI's continuous batching. It takes texts: a prompt has about the wanted number of tokens."""

    def __init__(self, path, threads):
        import openvino_genai as genai

        self.genai, self.name = genai, f"OpenVINO {version('openvino-genai')}"
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size, scheduler.max_num_batched_tokens, scheduler.max_num_seqs = 2, 2048, 64
        scheduler.enable_prefix_caching, scheduler.dynamic_split_fuse = False, True
        settings = {"INFERENCE_NUM_THREADS": threads}
        self.pipeline = genai.ContinuousBatchingPipeline(path, scheduler, "CPU", settings)
        self.seed = 0

    def run(self, sequences, context, tokens):
        config = self.genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
        prompts = []
        for _ in range(sequences):
            self.seed += 1
            draw = random.Random(self.seed)
            prompts.append(" ".join(draw.choice(WORDS) for _ in range(context)))
        count = sum(self.pipeline.get_tokenizer().encode(prompt).input_ids.get_size() for prompt in prompts)
        started = time.perf_counter()
        self.pipeline.generate(prompts, [config] * sequences)
        return time.perf_counter() - started, count

    def prefill(self, tokens):
        seconds, count = self.run(1, tokens, 1)
        return count / seconds

    def decode(self, sequences, context):
        """What the steps after the first token add."""
        first = self.run(sequences, context, 1)[0]
        if context < 1000:
            first = min(first, self.run(sequences, context, 1)[0])
        return sequences * STEPS / (self.run(sequences, context, 1 + STEPS)[0] - first)


class LlamaCpp:
    """llama.cpp by its low-level interface, flash attention on, keys and values in f16."""

    def __init__(self, path, threads):
        import llama_cpp as library
        import numpy as np

        kind = os.path.basename(path).split(".")[-2].lower()
        self.library, self.name = library, f"llama.cpp {kind}"
        self.threads = threads
        silence(library)
        self.model = library.llama_model_load_from_file(path.encode(), library.llama_model_default_params())
        self.words = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self.model))
        self.draw = np.random.default_rng(1)
        self.contexts = {}

    def context(self, sequences, tokens):
        if (sequences, tokens) not in self.contexts:
            for old in self.contexts.values():
                self.library.llama_free(old)
            params = self.library.llama_context_default_params()
            params.n_ctx = max(sequences * (tokens + 64), 256)
            params.n_batch, params.n_ubatch, params.n_seq_max = 2048, 512, sequences
            params.n_threads = params.n_threads_batch = self.threads
            params.flash_attn_type, params.kv_unified, params.no_perf = 1, False, True
            self.contexts = {(sequences, tokens): self.library.llama_init_from_model(self.model, params)}
        return self.contexts[sequences, tokens]

    def decode_all(self, context, items):
        for start in range(0, len(items), 2048):
            part = items[start : start + 2048]
            batch = self.library.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            for at, (sequence, token, position, picks) in enumerate(part):
                batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, position, 1
                batch.seq_id[at][0], batch.logits[at] = sequence, picks
            assert self.library.llama_decode(context, batch) == 0
            self.library.llama_batch_free(batch)
        self.library.llama_synchronize(context)

    def token(self):
        return int(self.draw.integers(100, self.words - 200))

    def prefill(self, tokens):
        context = self.context(1, tokens)
        self.library.llama_memory_clear(self.library.llama_get_memory(context), True)
        items = [(0, self.token(), at, int(at == tokens - 1)) for at in range(tokens)]
        started = time.perf_counter()
        self.decode_all(context, items)
        return tokens / (time.perf_counter() - started)

    def decode(self, sequences, tokens):
        """Every sequence has memory of its own; that of all but the first is copied, which takes hardly any time."""
        context = self.context(sequences, tokens)
        memory = self.library.llama_get_memory(context)
        self.library.llama_memory_clear(memory, True)
        self.decode_all(context, [(0, self.token(), at, 0) for at in range(tokens)])
        for sequence in range(1, sequences):
            self.library.llama_memory_seq_cp(memory, 0, sequence, -1, -1)
        self.decode_all(context, [(s, self.token(), tokens, 1) for s in range(sequences)])
        started = time.perf_counter()
        for step in range(STEPS):
            self.decode_all(context, [(s, self.token(), tokens + 1 + step, 1) for s in range(sequences)])
        return sequences * STEPS / (time.perf_counter() - started)


def silence(library):
    """llama.cpp's log goes nowhere."""
    library.llama_backend_init()
    library.quiet = library.llama_log_callback(lambda level, text, data: None)
    library.llama_log_set(library.quiet, ctypes.c_void_p(0))


def made(source, kind, folder):
    """A file of another format with the same weights, or nearly, named after its format."""
    import llama_cpp as library

    path = os.path.join(folder, f"model.{kind}.gguf")
    if not os.path.exists(path):
        silence(library)
        params = library.llama_model_quantize_default_params()
        params.ftype, params.allow_requantize, params.nthread = FORMATS[kind], True, os.cpu_count()
        assert library.llama_model_quantize(source.encode(), path.encode(), ctypes.byref(params)) == 0
    return path


class Transformers:
    """transformers in f32, from the dequantised file."""

    # It pads nothing here, but takes minutes for more.
    sequences_max = 8

    def __init__(self, path, threads):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(threads)
        folder, file = os.path.split(path)
        self.torch, self.name = torch, f"transformers {version('transformers')} f32"
        self.tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        self.model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
        self.words = self.model.config.vocab_size

    def prompt(self, sequences, tokens):
        return self.torch.randint(100, self.words - 200, (sequences, tokens))

    def prefill(self, tokens):
        with self.torch.inference_mode():
            prompt = self.prompt(1, tokens)
            started = time.perf_counter()
            self.model(prompt, use_cache=True, logits_to_keep=1)
            return tokens / (time.perf_counter() - started)

    def decode(self, sequences, tokens):
        with self.torch.inference_mode():
            answer = self.model(self.prompt(sequences, tokens), use_cache=True, logits_to_keep=1)
            started = time.perf_counter()
            for _ in range(STEPS):
                picked = answer.logits[:, -1:].argmax(-1)
                answer = self.model(picked, past_key_values=answer.past_key_values, use_cache=True)
            return sequences * STEPS / (time.perf_counter() - started)

    def chat(self, text):
        """The ids of a chat that begins with a text."""
        messages = [{"role": "user", "content": text}]
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

    def greedy(self, ids):
        with self.torch.inference_mode():
            prompt = self.torch.tensor([ids])
            answer = self.model.generate(
                prompt,
                attention_mask=self.torch.ones_like(prompt),
                max_new_tokens=GREEDY,
                min_new_tokens=GREEDY,
                do_sample=False,
                eos_token_id=None,
            )
            return answer[0, len(ids) :].tolist()


def serve(kind, path, threads, link):
    engine = kind(path, threads)
    link.send(engine.name)
    while asked := link.recv():
        name, *arguments = asked
        try:
            link.send(getattr(engine, name)(*arguments))
        except Exception as error:  # pylint: disable=broad-except
            link.send(error)


class Apart:
    """A peer in a process of its own, so that its threads and its memory are its own."""

    def __init__(self, kind, path, threads):
        multiprocess = multiprocessing.get_context("spawn")
        self.link, other = multiprocess.Pipe()
        self.process = multiprocess.Process(target=serve, args=(kind, path, threads, other), daemon=True)
        self.process.start()
        other.close()
        self.kind, self.name = kind, self.link.recv()
        self.sequences_max = getattr(kind, "sequences_max", 64)

    def ask(self, *asked):
        self.link.send(asked)
        answer = self.link.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def prefill(self, tokens):
        return self.ask("prefill", tokens)

    def decode(self, sequences, context):
        return self.ask("decode", sequences, context)

    def memory_mb(self):
        return memory_mb(self.process.pid)


def best(engines, sequences, work, seconds):
    """The best rate in turns of each engine that takes so many sequences."""
    engines = [engine for engine in engines if sequences <= engine.sequences_max]
    rates = dict.fromkeys(engines, 0.0)
    spent = dict.fromkeys(engines, 0.0)
    for turn in range(100):
        for engine in engines[turn % len(engines) :] + engines[: turn % len(engines)]:
            if spent[engine] < seconds:
                started = time.perf_counter()
                rates[engine] = max(rates[engine], work(engine))
                spent[engine] += time.perf_counter() - started
    return rates


def agreement(ours, reference, prompts):
    """For each number type how many of all tokens come before the first that differs, over the prompts."""
    rendered = [reference.ask("chat", prompt) for prompt in prompts]
    expected = [reference.ask("greedy", ids) for ids in rendered]
    shares = {}
    for engine in ours:
        same = 0
        for ids, wanted in zip(rendered, expected):
            found = engine.greedy(ids)
            same += next((at for at, (a, b) in enumerate(zip(found, wanted)) if a != b), len(wanted))
        shares[engine.name] = same / (len(prompts) * GREEDY)
    return shares


def work_of(shape):
    """A shape's name, its sequences, and what an engine does of it."""
    if shape == "prefill":
        return f"prefill {PREFILL}", 1, lambda engine: engine.prefill(PREFILL)
    sequences, context = map(int, shape.split("x"))
    return f"decode {sequences} at {context}", sequences, lambda engine: engine.decode(sequences, context)


def peers_of(arguments, path, folder):
    peers = []
    if there("openvino_genai"):
        peers.append(Apart(OpenVino, path, arguments.threads))
    if there("llama_cpp"):
        formats = [kind for kind in arguments.formats.split(",") if kind]
        files = [path] + [made(path, kind, folder) for kind in formats]
        peers.extend(Apart(LlamaCpp, file, arguments.threads) for file in files)
    if there("transformers"):
        peers.append(Apart(Transformers, path, arguments.threads))
    return peers


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--dtypes", default="q4,int8,bf16,f32")
    parser.add_argument("--formats", default="q4_0,bf16")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--prompts", help="a file of texts, one a line as JSON strings or objects with a `text`")
    parser.add_argument("--work", help="a folder for the files of other formats, to keep them")
    parser.add_argument("--begin", help="wait for this file before measuring: when the machine is quiet")
    arguments = parser.parse_args()
    path = glob.glob(os.path.join(arguments.model, "*.gguf"))[0]
    ours = [Ours(arguments.ours, path, dtype, arguments.threads) for dtype in arguments.dtypes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        peers = peers_of(arguments, path, arguments.work or folder)
    engines = ours + peers
    while arguments.begin and not os.path.exists(arguments.begin):
        time.sleep(0.1)
    rows = {}
    print(f"{'tokens/s':<20}" + "".join(f" {engine.name:>24}" for engine in engines), flush=True)
    for name, sequences, work in map(work_of, arguments.shapes.split(",")):
        rates = best(engines, sequences, work, arguments.seconds)
        rows[name] = {engine.name: rate for engine, rate in rates.items()}
        cells = (f"{rates[engine]:.0f}" if engine in rates else "-" for engine in engines)
        print(f"{name:<20}" + "".join(f" {cell:>24}" for cell in cells), flush=True)
    memory = {engine.name: engine.memory_mb() for engine in engines}
    pages = {engine.name: engine.page_mb() for engine in ours}
    print("memory at most, MB: " + ", ".join(f"{name} {mb:.0f}" for name, mb in memory.items()))
    print("pages of it, MB: " + ", ".join(f"{name} {mb:.0f}" for name, mb in pages.items()))
    shares = {}
    reference = next((peer for peer in peers if peer.kind is Transformers), None)
    if reference and arguments.prompts:
        with open(arguments.prompts) as lines:
            texts = [json.loads(line) for line in lines][:20]
        texts = [text if isinstance(text, str) else text["text"] for text in texts]
        shares = agreement(ours, reference, texts)
        for name, share in shares.items():
            print(f"{name}: {share:.1%} of greedy tokens come before the first that transformers picks otherwise")
    print(json.dumps({"rates": rows, "memory_mb": memory, "pages_mb": pages, "agreement": shares}))


if __name__ == "__main__":
    sys.exit(main())
