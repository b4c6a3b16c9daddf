"""Drives one client of another interface against the gateway, as its users do: by its defaults, or by the one setting
that docs/gateway.md names. Reads texts, a query and documents from standard input, and prints the vectors and the
ranking that the client returned. The test `clients` compares them with the worker's own."""
import json
import os
import sys
from importlib.metadata import version

URL = os.environ["FOREBAY_GATEWAY_URL"]
KEY = os.environ["FOREBAY_API_KEY"]
MODEL = os.environ["FOREBAY_MODEL"]
RERANKER = os.environ["FOREBAY_RERANKER"]

# No client shall ask anybody but the gateway: not for the prices of other models, nor with telemetry.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
os.environ["ANONYMIZED_TELEMETRY"] = "False"


def openai(asked):
    from openai import OpenAI
    with OpenAI(base_url=URL + "/v1", api_key=KEY) as client:
        answer = client.embeddings.create(model=MODEL, input=asked["texts"])
        assert [row.index for row in answer.data] == list(range(len(asked["texts"]))), answer.data
        assert answer.usage.total_tokens == answer.usage.prompt_tokens > 0, answer.usage
        assert {model.id for model in client.models.list()} == {MODEL, RERANKER}
        assert client.models.retrieve(MODEL).id == MODEL
        return [row.embedding for row in answer.data], None


def openai_async(asked):
    import asyncio
    from openai import AsyncOpenAI

    async def ask():
        async with AsyncOpenAI(base_url=URL + "/v1", api_key=KEY) as client:
            each = [client.embeddings.create(model=MODEL, input=text) for text in asked["texts"]]
            return [answer.data[0].embedding for answer in await asyncio.gather(*each)]

    return asyncio.run(ask()), None


def langchain(asked):
    from langchain_openai import OpenAIEmbeddings
    embeddings = OpenAIEmbeddings(model=MODEL, base_url=URL + "/v1", api_key=KEY, check_embedding_ctx_length=False)
    vectors = embeddings.embed_documents(asked["texts"])
    assert embeddings.embed_query(asked["texts"][0]) == vectors[0]
    return vectors, None


def llama_index(asked):
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding
    embedding = OpenAILikeEmbedding(model_name=MODEL, api_base=URL + "/v1", api_key=KEY)
    return embedding.get_text_embedding_batch(asked["texts"]), None


def haystack(asked):
    from haystack import Document
    from haystack.components.embedders import OpenAIDocumentEmbedder
    from haystack.utils import Secret
    embedder = OpenAIDocumentEmbedder(model=MODEL, api_base_url=URL + "/v1", api_key=Secret.from_token(KEY))
    documents = embedder.run([Document(id=str(n), content=text) for n, text in enumerate(asked["texts"])])
    return [document.embedding for document in documents["documents"]], None


def litellm(asked):
    import litellm
    answer = litellm.embedding(model="openai/" + MODEL, input=asked["texts"], api_base=URL + "/v1", api_key=KEY)
    ranked = litellm.rerank(model="cohere/" + RERANKER, query=asked["query"], documents=asked["documents"],
                            api_base=URL, api_key=KEY)
    ranking = [[row["index"], row["relevance_score"]] for row in ranked.results]
    return [row["embedding"] for row in answer.data], ranking


def cohere(asked):
    from cohere import ClientV2
    client = ClientV2(base_url=URL, api_key=KEY)
    vectors = client.embed(model=MODEL, texts=asked["texts"], input_type="search_document", embedding_types=["float"])
    ranked = client.rerank(model=RERANKER, query=asked["query"], documents=asked["documents"])
    return vectors.embeddings.float_, [[row.index, row.relevance_score] for row in ranked.results]


def cohere_v1(asked):
    from cohere import Client
    client = Client(base_url=URL, api_key=KEY)
    vectors = client.embed(model=MODEL, texts=asked["texts"]).embeddings
    ranked = client.rerank(model=RERANKER, query=asked["query"], documents=asked["documents"])
    return vectors, [[row.index, row.relevance_score] for row in ranked.results]


def voyageai(asked):
    from voyageai import Client
    client = Client(base_url=URL + "/v1", api_key=KEY)
    vectors = client.embed(asked["texts"], model=MODEL, input_type="document").embeddings
    ranked = client.rerank(asked["query"], asked["documents"], model=RERANKER)
    return vectors, [[row.index, row.relevance_score] for row in ranked.results]


def huggingface_hub(asked):
    from huggingface_hub import InferenceClient
    client = InferenceClient(model=URL, token=KEY)
    return [client.feature_extraction(text)[0].tolist() for text in asked["texts"]], None


def chromadb(asked):
    from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction
    embed = OpenAIEmbeddingFunction(model_name=MODEL, api_base=URL + "/v1", api_key=KEY)
    return [vector.tolist() for vector in embed(asked["texts"])], None


# Whose version is printed.
PACKAGES = {"openai_async": "openai", "langchain": "langchain-openai", "haystack": "haystack-ai", "cohere_v1": "cohere",
            "llama_index": "llama-index-embeddings-openai-like"}

if __name__ == "__main__":
    name = sys.argv[1]
    vectors, ranking = globals()[name](json.load(sys.stdin))
    print(json.dumps({"version": version(PACKAGES.get(name, name)), "vectors": vectors, "ranking": ranking}))
