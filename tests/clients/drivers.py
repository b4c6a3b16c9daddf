"""Drives one client of another interface against the gateway, as its users do: by its defaults, or by the one setting
that docs/gateway.md names. Reads texts, a query and documents from standard input, and prints the vectors and the
ranking that the client returned; those whose names end in `_text` or `_model` print the texts that a model wrote, by
the name of the way that they came: `_text` asks a script, `_model` a real model. The tests `clients`, `clients_text`
and `clients_text_model` compare them with the worker's own."""
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


def city():
    from typing import Literal
    from pydantic import BaseModel

    class City(BaseModel):
        """A city."""
        city: Literal["Oslo", "Rome"]

    return City


def openai_model(asked):
    from openai import OpenAI
    City = city()
    said = [{"role": "user", "content": asked["message"]}]
    schema = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
              "required": ["city"], "additionalProperties": False}
    tools = [{"type": "function", "function": {**TOOL, "parameters": schema}}]
    to = {"model": MODEL, "temperature": 0}
    chat = {"messages": said, **to}
    came = {}
    with OpenAI(base_url=URL + "/v1", api_key=KEY) as client:
        answer = client.chat.completions.create(**chat, max_completion_tokens=32, logprobs=True, top_logprobs=2)
        came["chat"] = answer.choices[0].message.content
        tokens = answer.choices[0].logprobs.content
        assert b"".join(bytes(token.bytes) for token in tokens).decode().startswith(came["chat"]), tokens
        assert answer.usage.completion_tokens == len(tokens), answer
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(**chat, max_tokens=32, **usage))
        came["chat stream"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
        assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) > 1, chunks
        assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens, chunks[-1]
        assert chunks[-1].usage.prompt_tokens == answer.usage.prompt_tokens, chunks[-1]
        with client.chat.completions.stream(**chat, max_tokens=32) as stream:
            came["chat helper"] = stream.get_final_completion().choices[0].message.content
        called = client.chat.completions.create(**chat, tools=tools, tool_choice="required")
        assert called.choices[0].finish_reason == "tool_calls", called
        came["call"] = called.choices[0].message.tool_calls[0].function.arguments
        with client.chat.completions.stream(**chat, tools=tools, tool_choice="required") as stream:
            came["call helper"] = stream.get_final_completion().choices[0].message.tool_calls[0].function.arguments
        formatted = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
        came["format"] = client.chat.completions.create(**chat, response_format=formatted).choices[0].message.content
        parsed = client.chat.completions.parse(**chat, response_format=City)
        came["format parsed"] = parsed.choices[0].message.parsed.model_dump_json()
        completion = {"prompt": asked["prompt"], "max_tokens": 16, **to}
        came["completion"] = client.completions.create(**completion).choices[0].text
        chunks = client.completions.create(**completion, stream=True)
        came["completion stream"] = "".join(chunk.choices[0].text for chunk in chunks)
        response = client.responses.create(input=said, max_output_tokens=32, **to)
        came["response"] = response.output_text
        assert response.usage.output_tokens == answer.usage.completion_tokens, response
        events = list(client.responses.create(input=said, max_output_tokens=32, stream=True, **to))
        came["response stream"] = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        parsed = client.responses.parse(input=said, text_format=City, **to)
        came["format response"] = parsed.output_parsed.model_dump_json()
        flat = {"type": "function", "name": "weather", "parameters": schema, "strict": True}
        called = client.responses.create(input=said, tools=[flat], tool_choice="required", **to)
        came["call response"] = called.output[0].arguments
    return came


def langchain_model(asked):
    from langchain_openai import ChatOpenAI, OpenAI
    City = city()
    to = {"model": MODEL, "base_url": URL + "/v1", "api_key": KEY, "temperature": 0}
    chat = ChatOpenAI(max_tokens=32, **to)
    answer = chat.invoke(asked["message"])
    chunks = list(chat.stream(asked["message"], stream_usage=True))
    whole = sum(chunks[1:], chunks[0])
    assert whole.usage_metadata["output_tokens"] == answer.usage_metadata["output_tokens"] > 0, whole
    calling = chat.bind_tools([City], tool_choice="required", strict=True)
    return {"chat": answer.content, "chat stream": whole.content,
            "call": json.dumps(calling.invoke(asked["message"]).tool_calls[0]["args"]),
            "format": chat.with_structured_output(City).invoke(asked["message"]).model_dump_json(),
            "response": ChatOpenAI(use_responses_api=True, max_tokens=32, **to).invoke(asked["message"]).text,
            "completion": OpenAI(max_tokens=16, **to).invoke(asked["prompt"])}


def litellm_model(asked):
    import litellm
    said = [{"role": "user", "content": asked["message"]}]
    to = {"model": "openai/" + MODEL, "api_base": URL + "/v1", "api_key": KEY, "temperature": 0}
    answer = litellm.completion(messages=said, max_tokens=32, **to)
    chunks = list(litellm.completion(messages=said, max_tokens=32, stream=True,
                                     stream_options={"include_usage": True}, **to))
    counted = [chunk.usage.completion_tokens for chunk in chunks if getattr(chunk, "usage", None)]
    assert counted == [answer.usage.completion_tokens], chunks
    schema = {**city().model_json_schema(), "additionalProperties": False}
    tool = {"type": "function", "function": {**TOOL, "parameters": schema}}
    called = litellm.completion(messages=said, tools=[tool], tool_choice="required", **to)
    formatted = litellm.completion(messages=said, response_format=city(), **to)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    return {"chat": answer.choices[0].message.content, "chat stream": "".join(texts),
            "call": called.choices[0].message.tool_calls[0].function.arguments,
            "format": formatted.choices[0].message.content,
            "response": litellm.responses(input=said, max_output_tokens=32, **to).output[0].content[0].text}


def llama_index_model(asked):
    from llama_index.core.llms import ChatMessage
    from llama_index.core.prompts import PromptTemplate
    from llama_index.llms.openai_like import OpenAILike
    to = {"model": MODEL, "api_base": URL + "/v1", "api_key": KEY, "temperature": 0}
    chat = OpenAILike(is_chat_model=True, is_function_calling_model=True, max_tokens=32, **to)
    said = [ChatMessage(role="user", content=asked["message"])]
    plain = OpenAILike(max_tokens=16, **to)
    structured = OpenAILike(is_chat_model=True, should_use_structured_outputs=True, **to)
    asks = PromptTemplate(asked["message"])
    return {"chat": chat.chat(said).message.content,
            "chat stream": "".join(part.delta or "" for part in chat.stream_chat(said)),
            "call": chat.structured_predict(city(), asks).model_dump_json(),
            "format": structured.structured_predict(city(), asks).model_dump_json(),
            "completion": plain.complete(asked["prompt"]).text,
            "completion stream": "".join(part.delta for part in plain.stream_complete(asked["prompt"]))}


# Whose version is printed.
PACKAGES = {"openai_async": "openai", "langchain": "langchain-openai", "haystack": "haystack-ai", "cohere_v1": "cohere",
            "llama_index": "llama-index-embeddings-openai-like", "openai_text": "openai", "openai_async_text": "openai",
            "langchain_text": "langchain-openai", "litellm_text": "litellm", "openai_model": "openai",
            "langchain_model": "langchain-openai", "litellm_model": "litellm",
            "llama_index_model": "llama-index-llms-openai-like"}

if __name__ == "__main__":
    name = sys.argv[1]
    came = globals()[name](json.load(sys.stdin))
    answer = {"texts": came} if name.endswith(("_text", "_model")) else {"vectors": came[0], "ranking": came[1]}
    print(json.dumps({"version": version(PACKAGES.get(name, name)), **answer}))
