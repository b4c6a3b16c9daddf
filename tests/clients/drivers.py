"""Drives one client of another interface against the gateway, as its users do: by its defaults, or by the one setting
that docs/gateway.md names. Reads texts, a query and documents from standard input, and prints the vectors and the
ranking that the client returned; those whose names end in `_text` print the texts that a model wrote, by the name of
the way that they came. The tests `clients` and `clients_text` compare them with the worker's own."""
import json
import os
import sys
from importlib.metadata import version

URL = os.environ["FOREBAY_GATEWAY_URL"]
KEY = os.environ["FOREBAY_API_KEY"]
MODEL = os.environ["FOREBAY_MODEL"]
RERANKER = os.environ.get("FOREBAY_RERANKER")

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


TOOL = {"name": "weather", "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}


def openai_text(asked):
    from openai import OpenAI
    said = [{"role": "user", "content": asked["message"]}]
    came = {}
    with OpenAI(base_url=URL + "/v1", api_key=KEY) as client:
        answer = client.chat.completions.create(model=MODEL, messages=said, max_completion_tokens=32, temperature=0)
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer.usage
        assert answer.object == "chat.completion" and answer.choices[0].finish_reason == "stop", answer
        came["chat"] = answer.choices[0].message.content
        chunks = list(client.chat.completions.create(model=MODEL, messages=said, max_tokens=32, temperature=0,
                                                     stream=True, stream_options={"include_usage": True}))
        assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices == [], chunks
        assert chunks[-1].usage.total_tokens > 0 and chunks[-2].choices[0].finish_reason == "stop", chunks
        came["chat stream"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
        tools = [{"type": "function", "function": TOOL}]
        called = client.chat.completions.create(model=MODEL, messages=said, tools=tools)
        came["call"] = called.choices[0].message.tool_calls[0].function.arguments
        assert called.choices[0].finish_reason == "tool_calls", called
        chunks = client.chat.completions.create(model=MODEL, messages=said, tools=tools, stream=True)
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
        came["call stream"] = "".join(call.function.arguments for call in calls)
        forced = client.chat.completions.create(model=MODEL, messages=said, tools=tools,
                                                tool_choice={"type": "function", "function": {"name": "weather"}})
        came["forced call"] = forced.choices[0].message.tool_calls[0].function.arguments
        formatted = {"type": "json_schema", "json_schema": {"name": "city", "schema": TOOL["parameters"]}}
        answer = client.chat.completions.create(model=MODEL, messages=said, response_format=formatted)
        came["format"] = answer.choices[0].message.content
        came["completion"] = client.completions.create(model=MODEL, prompt=asked["message"]).choices[0].text
        chunks = client.completions.create(model=MODEL, prompt=asked["message"], stream=True)
        came["completion stream"] = "".join(chunk.choices[0].text for chunk in chunks)
        response = client.responses.create(model=MODEL, input=asked["message"], instructions="Be kind.")
        assert response.status == "completed" and response.usage.total_tokens > 0, response
        came["response"] = response.output_text
        events = list(client.responses.create(model=MODEL, input=said, stream=True))
        came["response stream"] = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        assert events[0].type == "response.created" and events[-1].type == "response.completed", events
        assert events[-1].response.output_text == came["response stream"], events[-1]
        with client.responses.stream(model=MODEL, input=said) as stream:
            assert stream.get_final_response().output_text == came["response stream"]
        flat = {"type": "function", **TOOL, "strict": False}
        called = client.responses.create(model=MODEL, input=said, tools=[flat])
        came["response call"] = called.output[0].arguments
        events = list(client.responses.create(model=MODEL, input=said, tools=[flat], stream=True))
        done = [event for event in events if event.type == "response.function_call_arguments.done"]
        came["response call stream"] = done[0].arguments
    return came


def openai_async_text(asked):
    import asyncio
    from openai import AsyncOpenAI

    async def ask():
        said = [{"role": "user", "content": asked["message"]}]
        async with AsyncOpenAI(base_url=URL + "/v1", api_key=KEY) as client:
            stream = await client.chat.completions.create(model=MODEL, messages=said, stream=True)
            return {"chat stream": "".join([chunk.choices[0].delta.content or "" async for chunk in stream])}

    return asyncio.run(ask())


def langchain_text(asked):
    from langchain_openai import ChatOpenAI, OpenAI
    from pydantic import BaseModel

    class City(BaseModel):
        """A city."""
        city: str

    chat = ChatOpenAI(model=MODEL, base_url=URL + "/v1", api_key=KEY, temperature=0)
    answer = chat.invoke(asked["message"])
    assert answer.usage_metadata["total_tokens"] > 0, answer
    came = {"chat": answer.content, "chat stream": "".join(chunk.content for chunk in chat.stream(asked["message"]))}
    came["call"] = json.dumps(chat.bind_tools([City]).invoke(asked["message"]).tool_calls[0]["args"])
    came["format"] = json.dumps(chat.with_structured_output(City).invoke(asked["message"]).model_dump())
    responses = ChatOpenAI(model=MODEL, base_url=URL + "/v1", api_key=KEY, use_responses_api=True)
    came["response"] = responses.invoke(asked["message"]).text
    came["completion"] = OpenAI(model=MODEL, base_url=URL + "/v1", api_key=KEY).invoke(asked["message"])
    return came


def litellm_text(asked):
    import litellm
    said = [{"role": "user", "content": asked["message"]}]
    to = {"model": "openai/" + MODEL, "api_base": URL + "/v1", "api_key": KEY}
    answer = litellm.completion(messages=said, **to)
    assert answer.usage.total_tokens > 0, answer
    chunks = list(litellm.completion(messages=said, stream=True, **to))
    assert chunks[-1].choices[0].finish_reason == "stop", chunks[-1]
    called = litellm.completion(messages=said, tools=[{"type": "function", "function": TOOL}], **to)
    return {"chat": answer.choices[0].message.content,
            "chat stream": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
            "call": called.choices[0].message.tool_calls[0].function.arguments,
            "response": litellm.responses(input=asked["message"], **to).output[0].content[0].text}


# Whose version is printed.
PACKAGES = {"openai_async": "openai", "langchain": "langchain-openai", "haystack": "haystack-ai", "cohere_v1": "cohere",
            "llama_index": "llama-index-embeddings-openai-like", "openai_text": "openai", "openai_async_text": "openai",
            "langchain_text": "langchain-openai", "litellm_text": "litellm"}

if __name__ == "__main__":
    name = sys.argv[1]
    came = globals()[name](json.load(sys.stdin))
    answer = {"texts": came} if name.endswith("_text") else {"vectors": came[0], "ranking": came[1]}
    print(json.dumps({"version": version(PACKAGES.get(name, name)), **answer}))
