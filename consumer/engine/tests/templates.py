#!/usr/bin/env python3
"""Renders chat templates as the transformers library does, for the engine's test `templates`.

    python3 consumer/engine/tests/templates.py consumer/engine/tests/data/templates/*.jinja \
        > consumer/engine/tests/data/templates/rendered.jsonl

Needs transformers 5.24 and jinja2; torch is not needed. Each line has a template's name, what it was given, and the
prompt or the message that it refused with. Cases in which a template fails otherwise are left out: Python stops at
some mistakes, such as a loop over None, that do no harm. To compare with further templates, put them there too for one
run, with their lines in a file of their own.
"""

import json
import pathlib
import sys
from datetime import datetime, timezone

import jinja2
from transformers.utils import chat_template_utils

NOW_MS = 1_782_993_600_000


class Fixed(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.fromtimestamp(NOW_MS / 1000, timezone.utc).replace(tzinfo=None)


chat_template_utils.datetime = Fixed


def function(name, description, **properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, number=1):
    return {"id": f"call{number:05}", "type": "function", "function": {"name": name, "arguments": arguments}}


TOOLS = [
    function(
        "level_of",
        "The level of a pool, in metres.\nIt is measured \"hourly\".",
        pool={"type": "string", "description": "Its name: <é>", "enum": ["upper", "lower"]},
        depth={"type": ["number", "null"], "default": 1e-05},
    ),
    function("open_gate", "Opens a gate.", gate={"type": "integer"}, share={"type": "number", "maximum": 1.0}),
]

USER = message("user", "How high is the water?")
SYSTEM = message("system", "You watch a dam.\n")
ANSWER = message("assistant", "  Three metres.\n")
CALLS = [
    SYSTEM,
    USER,
    message("assistant", "", tool_calls=[call("level_of", {"pool": "upper", "depth": 0.5})]),
    message("tool", '{"level": 3.0}', name="level_of", tool_call_id="call00001"),
    ANSWER,
    message("user", "Open both gates."),
    message(
        "assistant",
        "At once.",
        tool_calls=[
            call("open_gate", {"gate": 1, "share": 1.0}, 2),
            call("open_gate", {"gate": 2, "why": "né\n<\"'>"}, 3),
        ],
    ),
    message("tool", "done", name="open_gate", tool_call_id="call00002"),
    message("tool", "stuck", name="open_gate", tool_call_id="call00003"),
]
THOUGHT = [
    USER,
    message("assistant", "Three metres.", reasoning_content="\nThe upper pool,\n\nsurely.\n"),
    message("user", "And now?"),
    message("assistant", "<think>\nFour, I think.\n</think>\n\nFour mètres 水."),
    message("user", "Thanks </think> & <b>bye</b>\t{{ x }} {% y %}"),
]

CASES = {
    "user": dict(conversation=[USER], add_generation_prompt=True),
    "closed": dict(conversation=[USER, ANSWER], add_generation_prompt=False),
    "turns": dict(conversation=[SYSTEM, USER, ANSWER, message("user", " And\r\nnow? ")], add_generation_prompt=True),
    "tools": dict(conversation=[SYSTEM, USER], tools=TOOLS, add_generation_prompt=True),
    "tools-alone": dict(conversation=[USER], tools=TOOLS[1:], add_generation_prompt=True),
    "calls": dict(conversation=CALLS, tools=TOOLS, add_generation_prompt=True),
    "called": dict(conversation=CALLS[:3], tools=TOOLS, add_generation_prompt=False),
    "calls-without-tools": dict(conversation=CALLS, add_generation_prompt=True),
    "thought": dict(conversation=THOUGHT, add_generation_prompt=True),
    "not-thinking": dict(conversation=THOUGHT, add_generation_prompt=True, enable_thinking=False, thinking=False),
    "thinking": dict(conversation=[SYSTEM, *THOUGHT], add_generation_prompt=True, enable_thinking=True,
                     reasoning_effort="high"),
    "two-users": dict(conversation=[USER, USER], add_generation_prompt=True),
    "no-user": dict(conversation=[ANSWER], add_generation_prompt=True),
    "late-system": dict(conversation=[USER, ANSWER, SYSTEM, USER], add_generation_prompt=True),
    "nothing": dict(conversation=[], add_generation_prompt=True),
    "strange-role": dict(conversation=[message("keeper", "Closed."), USER], add_generation_prompt=False),
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def render(source, case):
    given = dict(case)
    conversation = given.pop("conversation")
    try:
        prompts, _ = chat_template_utils.render_jinja_template(
            [json.loads(json.dumps(conversation))], chat_template=source, **given, **SPECIAL
        )
        return {"prompt": prompts[0]}
    except jinja2.exceptions.TemplateError as error:
        if type(error) is jinja2.exceptions.TemplateError:
            return {"refused": error.message}
        return None
    except Exception:  # whatever Python says of the template
        return None


for path in map(pathlib.Path, sys.argv[1:]):
    text = path.read_text(encoding="utf-8")
    for name, case in CASES.items():
        if rendered := render(text, case):
            print(json.dumps({"template": path.name, "case": name, "given": case, **rendered}, ensure_ascii=False))
