"""Embeds two sentences through the gateway with OpenAI's own package. `pip install -r requirements.txt` first."""
import os

import openai

MODEL = os.environ.get("FOREBAY_MODEL", "all-minilm-l6-v2")
TEXTS = ["A forebay is the pool in front of a turbine.", "Water waits there until the gates open."]

# While the fleet has no keys any text will do: the package wants one.
key = os.environ.get("FOREBAY_API_KEY", "none")
client = openai.OpenAI(base_url=os.environ["FOREBAY_GATEWAY_URL"] + "/v1", api_key=key)

packed = client.embeddings.create(model=MODEL, input=TEXTS)  # base64, the package's own default
plain = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
apart = max(abs(a - b) for one, other in zip(packed.data, plain.data, strict=True)
            for a, b in zip(one.embedding, other.embedding, strict=True))
if apart > 1e-6:
    raise SystemExit(f"base64 and floats differ by {apart}")
print(f"{len(packed.data)} vectors of {len(packed.data[0].embedding)} numbers, {packed.usage.total_tokens} tokens")
print("models:", ", ".join(model.id for model in client.models.list()))

try:
    client.embeddings.create(model="text-embedding-3-small", input=TEXTS)
except openai.NotFoundError as error:
    print(f"refused: {error.status_code} {error.code} (request {error.request_id})")
