"""The bare generator beside other engines: the same GGUF file, the same threads, in turns.

    generate.py --model FOLDER --ours PROGRAM [--prompts FILE] [--seconds 4]

PROGRAM is the engine's example `generate`, which stays loaded as the others do, once for each number type of --dtypes.
FOLDER has one .gguf file. Peers are those that are installed: OpenVINO GenAI, llama.cpp (llama-cpp-python), and
transformers in f32, which is the reference of accuracy. Each shape of work is done by every engine in turns until the
time of each is over; the best slice counts, since other work on a machine only ever slows one down. Prints a table for
people and, last, a line of JSON for machines.
"""

import argparse
import ctypes
import glob
import importlib.util
import json
import os
import random
import subprocess
import sys
import time
from importlib.metadata import version

import numpy as np

PREFILL = 512
SHAPES = [(1, 128), (8, 128), (32, 128), (64, 128), (8, 1024), (32, 1024)]
STEPS = 16
GREEDY = 64
WORDS = (
    "the quiet canal carries clear water past an old mill while two engineers measure how fast the gates open and "
    "close before the turbine turns again and the lamps of the valley begin to glow"
).split()


def there(module):
    return importlib.util.find_spec(module) is not None


class Ours:
    """The engine's example `generate`, in one number type."""

    def __init__(self, program, folder, dtype, threads):
        command = [program, folder, dtype, str(threads)]
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


def memory_mb(process):
    with open(f"/proc/{process}/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


class OpenVino:
    """OpenVINO GenAI's continuous batching. It takes texts: a prompt has about the wanted number of tokens."""

    def __init__(self, path, threads):
        import openvino_genai as genai

        self.genai, self.name = genai, f"OpenVINO GenAI {version('openvino-genai')}"
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size, scheduler.max_num_batched_tokens, scheduler.max_num_seqs = 2, 2048, 64
        scheduler.enable_prefix_caching = False
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
        count = sum(len(self.pipeline.get_tokenizer().encode(prompt).input_ids.data[0]) for prompt in prompts)
        started = time.perf_counter()
        self.pipeline.generate(prompts, [config] * sequences)
        return time.perf_counter() - started, count

    def prefill(self, tokens):
        seconds, count = self.run(1, tokens, 1)
        return count / seconds

    def decode(self, sequences, context):
        """What the steps after the first token add."""
        first = min(self.run(sequences, context, 1)[0] for _ in range(2))
        return sequences * STEPS / (self.run(sequences, context, 1 + STEPS)[0] - first)


class LlamaCpp:
    """llama.cpp by its low-level interface, flash attention on, keys and values in f16."""

    def __init__(self, path, threads):
        import llama_cpp as library

        self.library, self.name = library, f"llama.cpp {version('llama-cpp-python')}"
        self.threads = threads
        library.llama_backend_init()
        self.quiet = library.llama_log_callback(lambda level, text, data: None)
        library.llama_log_set(self.quiet, ctypes.c_void_p(0))
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

    def feed(self, context, items):
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
        self.feed(context, items)
        return tokens / (time.perf_counter() - started)

    def decode(self, sequences, tokens):
        context = self.context(sequences, tokens)
        self.library.llama_memory_clear(self.library.llama_get_memory(context), True)
        self.feed(context, [(s, self.token(), at, 0) for s in range(sequences) for at in range(tokens)])
        started = time.perf_counter()
        for step in range(STEPS):
            self.feed(context, [(s, self.token(), tokens + step, 1) for s in range(sequences)])
        return sequences * STEPS / (time.perf_counter() - started)


class Transformers:
    """transformers in f32, from the dequantised file."""

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


def best(engines, work, seconds):
    """The best rate of each engine, in turns."""
    rates = dict.fromkeys(engines, 0.0)
    spent = dict.fromkeys(engines, 0.0)
    for round in range(100):
        for engine in engines[round % len(engines) :] + engines[: round % len(engines)]:
            if spent[engine] < seconds or round < 2:
                started = time.perf_counter()
                rates[engine] = max(rates[engine], work(engine))
                spent[engine] += time.perf_counter() - started
    return rates


def agreement(ours, reference, prompts):
    """For each number type how many of all tokens come before the first that differs, over the prompts."""
    rendered = [
        reference.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        for prompt in prompts
    ]
    expected = [reference.greedy(ids) for ids in rendered]
    shares = {}
    for engine in ours:
        same = 0
        for ids, wanted in zip(rendered, expected):
            found = engine.greedy(ids)
            same += next((at for at, (a, b) in enumerate(zip(found, wanted)) if a != b), len(wanted))
        shares[engine.name] = same / (len(prompts) * GREEDY)
    return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--prompts", help="a file of texts, one a line as JSON strings or objects with a `text`")
    arguments = parser.parse_args()
    path = glob.glob(os.path.join(arguments.model, "*.gguf"))[0]
    ours = [Ours(arguments.ours, arguments.model, dtype, arguments.threads) for dtype in arguments.dtypes.split(",")]
    kinds = {"openvino_genai": OpenVino, "llama_cpp": LlamaCpp, "transformers": Transformers}
    peers = [kind(path, arguments.threads) for module, kind in kinds.items() if there(module)]
    engines = ours + peers
    rows = {}
    print(f"{'tokens/s':<24}" + "".join(f" {engine.name:>26}" for engine in engines), flush=True)
    shapes = [(f"prefill {PREFILL}", lambda engine: engine.prefill(PREFILL))]
    for sequences, context in SHAPES:
        work = lambda engine, s=sequences, c=context: engine.decode(s, c)
        shapes.append((f"decode {sequences} at {context}", work))
    for name, work in shapes:
        rates = best(engines, work, arguments.seconds)
        rows[name] = {engine.name: rates[engine] for engine in engines}
        print(f"{name:<24}" + "".join(f" {rates[engine]:>26.0f}" for engine in engines), flush=True)
    memory = {engine.name: engine.memory_mb() for engine in ours}
    print("memory at most, MB: " + ", ".join(f"{name} {mb:.0f}" for name, mb in memory.items()))
    shares = {}
    reference = next((peer for peer in peers if isinstance(peer, Transformers)), None)
    if reference and arguments.prompts:
        with open(arguments.prompts) as lines:
            texts = [json.loads(line) for line in lines][:20]
        texts = [text if isinstance(text, str) else text["text"] for text in texts]
        shares = agreement(ours, reference, texts)
        for name, share in shares.items():
            print(f"{name}: {share:.1%} of greedy tokens come before the first that transformers picks otherwise")
    print(json.dumps({"rates": rows, "memory_mb": memory, "agreement": shares, "peers": [p.name for p in peers]}))


if __name__ == "__main__":
    sys.exit(main())
