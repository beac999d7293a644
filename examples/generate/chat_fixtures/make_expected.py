"""Writes expected.json: what transformers makes of the chat templates beside this file.

The templates are written after the published behaviour of the models that they are named for, and
three of them (documents, generation, zephyr) for what transformers documents. Every text below is that of
`apply_chat_template`, every error its message. Made with transformers 5.24.0 and Jinja2 3.1.6:

    python -m venv venv && venv/bin/pip install transformers==5.24.0 jinja2==3.1.6
    venv/bin/python make_expected.py
"""

import datetime
import json
import pathlib

import transformers
import transformers.utils.chat_template_utils as utils
from tokenizers import Tokenizer, models

HERE = pathlib.Path(__file__).parent
NOW = datetime.datetime(2026, 1, 5, 9, 7, 3)


class Clock(datetime.datetime):
    """A clock that stands, so that dates in a template are the same every day."""

    @classmethod
    def now(cls, tz=None):
        return NOW


utils.datetime = Clock

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_current_temperature",
            "description": "Gets the temperature; of a \"place\", in °C & <b>now</b>.",
            "parameters": {
                "type": "object",
                "properties": {
                    "location": {"type": "string", "description": "City, Country"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                    "days": {"type": "array", "items": {"type": "integer"}, "minItems": 0},
                },
                "required": ["location", "unit"],
            },
        },
    },
    {"type": "function", "function": {"name": "noop", "parameters": {}, "strict": True, "weight": 1.0, "none": None}},
]
CALL = {
    "role": "assistant",
    "tool_calls": [
        {
            "id": "abcdef123",
            "type": "function",
            "function": {
                "name": "get_current_temperature",
                "arguments": {"unit": "celsius", "location": "Zürich\n\"old town\"", "days": [1, 2.5, True, None]},
            },
        }
    ],
}
CONVERSATIONS = {
    "one message": [{"role": "user", "content": "What is a mask?"}],
    "spaces around": [{"role": "user", "content": "\n  What is\ta mask?  \n"}],
    "a system": [
        {"role": "system", "content": "Be brief. "},
        {"role": "user", "content": "What is a mask?"},
    ],
    "several turns": [
        {"role": "user", "content": "Hi é <b>&</b> 'quoted' \"twice\" 🙂"},
        {"role": "assistant", "content": "\n Hello! "},
        {"role": "user", "content": "And?\nstop"},
        {"role": "assistant", "content": "<think>\nlet me see\n</think>\n\nNothing."},
        {"role": "user", "content": "Why?"},
    ],
    "the answer last": [
        {"role": "system", "content": "/no_think Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello"},
    ],
    "roles that do not alternate": [
        {"role": "user", "content": "one"},
        {"role": "user", "content": "two"},
    ],
    "a tool is called": [
        {"role": "user", "content": "How warm is it?"},
        CALL,
        {"role": "tool", "tool_call_id": "abcdef123", "name": "t", "content": "22.0"},
        {"role": "tool", "tool_call_id": "abcdef123", "name": "t", "content": "23.0"},
        {"role": "assistant", "content": "22 °C"},
        {"role": "user", "content": "<tool_response>\nno\n</tool_response>"},
    ],
}
CONTENT_PARTS = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What is it? "}]},
]
DOCUMENTS = [
    {"title": "the mask's own", "text": "first\nsecond\r\nthird"},
    {"title": "éric-o'neill x2", "text": ""},
]
# One expression or statement each, for what the templates above do not reach.
SNIPPETS = r"""
{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'abc'.startswith('b', 1) }}
{{ ' a b  c '.split() }}{{ 'a,b,c'.split(',') }}{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.split(',', maxsplit=1) }}
{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a b  c '.rsplit(None, 1) }}{{ ' a b  c '.split(None, 1) }}{{ ''.split() }}{{ ''.split(',') }}
{{ '--a-'.strip('-') }}|{{ '  a '.lstrip() }}|{{ ' a  '.rstrip() }}|{{ 'xyax'.strip('xy') }}|{{ ' a '.strip(none) }}
{{ 'hello wORLD they\'re x2y'.title() }}|{{ 'hello wORLD'.capitalize() }}|{{ 'aBc'.swapcase() }}|{{ 'ABC'.lower() }}|{{ 'straße'.upper() }}|{{ 'Straße'.casefold() }}
{{ 'aaa'.replace('a', 'b') }}|{{ 'aaa'.replace('a', 'b', 2) }}|{{ ', '.join(['a', 'b']) }}|{{ ''.join([]) }}
{{ 'abcabc'.find('c') }}{{ 'abcabc'.rfind('c') }}{{ 'abc'.find('z') }}{{ 'abcabc'.find('a', 1) }}{{ 'abcabc'.index('b') }}{{ 'ééa'.find('a') }}
{{ 'abcabc'.count('b') }}{{ 'aaa'.count('aa') }}|{{ 'a-b-c'.partition('-') }}|{{ 'a-b-c'.rpartition('-') }}|{{ 'abc'.partition('-') }}
{{ 'prefixed'.removeprefix('pre') }}|{{ 'prefixed'.removesuffix('ed') }}|{{ '7'.zfill(3) }}|{{ '-7'.zfill(4) }}|{{ 'a'.ljust(3, '.') }}|{{ 'a'.rjust(3) }}|{{ 'ab'.center(5, '*') }}|{{ 'ab'.center(4) }}
{{ 'a\nb\r\nc\n'.splitlines() }}{{ 'a\nb'.splitlines(true) }}|{{ '12'.isdigit() }}{{ 'a1'.isalnum() }}{{ 'ab'.isalpha() }}{{ ' '.isspace() }}{{ 'Ab'.istitle() }}{{ 'AB'.isupper() }}{{ 'ab'.islower() }}{{ ''.isalpha() }}
{{ '{} and {}'.format('a', 1) }}|{{ '{0}{1}{0}'.format('a', 'b') }}|{{ '{x}'.format(x=2) }}|{{ '{:>4}|{:.2f}'.format('a', 1.239) }}
{{ '%s and %s'|format('a', 'b') }}
{{ true }} {{ false }} {{ none }} {{ 1.0 }} {{ 0.1 + 0.2 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ -7 % 3 }} {{ -7 // 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 4 / 2 }}
{{ ['a', 1, none, true, 1.5, 'it\'s', 'q"q', 'b\'"\n\t\\'] }} {{ {'a': 1, 'b': ['x']} }} {{ (1, 'a') }} {{ (1,) }} {{ [] }} {{ {} }} {{ () }} {{ 'é' }} {{ ['é', '\x07', '🙂'] }}
{{ [1, 'a', none, true]|join('-') }}|{{ none|string }}|{{ true|string }}|{{ ['a']|string }}|{{ 'a' ~ 1 ~ 'b' }}
{{ 'a' ~ true ~ none ~ 1.0 ~ ['x'] }}
{{ {'b': 1, 'a': [1, 2.0, none, true, 'é<>&\'"\n']}|tojson }}|{{ {'b': 1, 'a': []}|tojson(indent=2) }}|{{ {'b': {}, 'a': {'c': [1, {'d': 2}]}}|tojson(indent=4, sort_keys=true) }}
{{ 'é'|tojson(ensure_ascii=true) }}|{{ '🙂\x7f\x01'|tojson(ensure_ascii=true) }}|{{ '\x7f\x01'|tojson }}|{{ [1, {'a': 2}]|tojson(separators=(',', ':')) }}|{{ 1e20|tojson }}|{{ (1, 2)|tojson }}|{{ {1: 2, none: 3, true: 4}|tojson }}|{{ 'x'|tojson|length }}
{{ [1, [2, 3], {}]|tojson(indent=0) }}|{{ [1, 2]|tojson(indent='--') }}|{{ [1, 2]|tojson(indent=1, separators=(';', '=')) }}
{{ undefined_name }}|{{ undefined_name is defined }}|{{ undefined_name|default('d') }}|{{ ''|default('d') }}|{{ ''|default('d', true) }}|{{ none|default('d') }}|{{ not undefined_name }}|{{ undefined_name|length }}|{{ undefined_name == none }}|{{ 'a' in undefined_name }}
{{ undefined_name.attribute }}
{{ undefined_name + 'a' }}
{{ 'a' + 1 }}
{{ none + 'a' }}
{{ none.strip() }}
{{ 'a'.nothing() }}
{{ messages[0].nothing }}|{{ messages[0]['nothing'] }}|{{ messages[9] }}|{{ messages[0].nothing is none }}|{{ messages[0].get('nothing') }}|{{ messages[0].get('nothing', 'd') }}|{{ 'role' in messages[0] }}
{{ 'abc'[0] }}{{ 'abc'[-1] }}{{ 'abc'[1:] }}{{ 'abc'[:-1] }}{{ 'abc'[::-1] }}{{ [1, 2, 3][::-1] }}{{ [1, 2, 3, 4][::2] }}{{ [1, 2, 3][-2:] }}{{ (1, 2, 3)[1:] }}{{ 'héé'[1:2] }}
{{ 'a' * 3 }}{{ [1, 2] * 2 }}{{ [1] + [2] }}{{ (1,) + (2,) }}{{ 3 * 'ab' }}
{{ 'a' is string }}{{ 1 is number }}{{ true is number }}{{ 1.0 is float }}{{ 1 is integer }}{{ true is integer }}{{ true is boolean }}{{ none is none }}{{ {} is mapping }}{{ [] is sequence }}{{ 'a' is sequence }}{{ {} is sequence }}{{ 1 is sequence }}{{ 'a' is iterable }}{{ {} is iterable }}{{ 1 is iterable }}{{ range is callable }}{{ 'a' is callable }}{{ 1 is true }}{{ true is true }}{{ 1 is sameas 1 }}{{ 'a' is in 'abc' }}{{ 'a' is mapping }}{{ none is iterable }}
{{ 1 == 1.0 }}{{ true == 1 }}{{ '1' == 1 }}{{ [1] == [1] }}{{ {'a': 1} == {'a': 1} }}{{ (1,) == [1] }}{{ 'a' < 'b' }}{{ none == false }}{{ 'a' in ['a'] }}{{ 'a' not in ('b',) }}{{ 1 < 2 < 3 }}
{{ 'x' if false }}|{{ 'x' if true else 'y' }}|{{ 'a' and 'b' }}|{{ '' or 'c' }}|{{ not '' }}|{{ none or 'd' }}
{% for c in 'abc' %}{{ loop.index }}{{ c }}{% endfor %}{% for c in 'abc'|list %}{{ c }}{{ ', ' if not loop.last }}{% endfor %}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'z': 1, 'b': 2} %}{{ k }}{% endfor %}{{ {'z': 1, 'b': 2}.keys()|list }}{{ {'z': 1}.values()|list }}{{ {'z': 1, 'b': 2}|dictsort }}{{ {'z': 1}|items|list }}{{ {'a': 1}.items()|list }}
{% for i in range(5) if i % 2 == 0 %}{{ i }}{{ loop.revindex }}{{ loop.length }}{% else %}none{% endfor %}{% for i in [] %}{% else %}none{% endfor %}
{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}{{ range(2, 9, 3)|list }}
{% for m in [1, 1, 2] %}{{ loop.previtem is defined }}{{ loop.nextitem }}{{ loop.changed(m) }}{{ loop.cycle('a', 'b') }}{{ loop.depth }}{% endfor %}
{% set ns = namespace(found=false, n=0) %}{% for i in [1, 2] %}{% set ns.found = true %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.found }}{{ ns.n }}
{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}{% set a, b = ['c', 'd'] %}{{ a }}{{ b }}{% set (c, d) = (1, 2) %}{{ c + d }}
{% macro m(a, b='x', c=none) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ m('1') }}{{ m('1', c=2) }}{{ m(b='q', a='r') }}{{ m('1')|upper }}{{ m('1') + '!' }}
{% macro wrap() %}[{{ caller() }}]{% endmacro %}{% call wrap() %}inner{% endcall %}{% set block %} kept {% endset %}{{ block|trim }}{% filter upper %}low{% endfilter %}{% with a = 1 %}{{ a }}{% endwith %}{{ a }}
{{ raise_exception('on purpose: é') }}
{% if messages|length == 1 %}{{ raise_exception('from ' + messages[0]['role'] ) }}{% endif %}
{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%Y-%m-%d %H:%M:%S %A %B %j %y %I %p %%') }}|{{ strftime_now('%-d/%-m') }}|{{ strftime_now('plain') }}
{{ [3, 1, 2]|sort }}{{ [3, 1, 2]|sort(reverse=true) }}{{ ['b', 'A', 'c']|sort }}{{ [1, 2, 3]|first }}{{ [1, 2, 3]|last }}{{ [1, 2, 3]|sum }}{{ [1, 2, 3]|max }}{{ [1, 1, 2]|unique|list }}{{ [1, 2, 3]|reverse|list }}{{ 'abc'|reverse }}{{ 'abc'|list }}
{{ messages|map(attribute='role')|list }}{{ messages|selectattr('role', 'equalto', 'user')|list|length }}{{ messages|rejectattr('role', 'eq', 'user')|list }}{{ [1, 2, 3]|select('odd')|list }}{{ [1, '', none]|select|list }}{{ ['a', 'b']|map('upper')|join }}{{ messages|selectattr('name')|list }}{{ messages|selectattr('name', 'defined')|list }}
{{ 'Hello World'|replace('o', '0') }}|{{ 'a b'|title }}|{{ 'HELLO'|capitalize }}|{{ '  a '|trim }}|{{ 'xax'|trim('x') }}|{{ 'a\nb'|indent(2) }}|{{ 'a\nb'|indent(2, true) }}|{{ '12'|int + 1 }}|{{ 'x'|int(5) }}|{{ '1.5'|float }}|{{ 3|float }}|{{ -3|abs }}|{{ 2.567|round(1) }}|{{ 2.5|round }}|{{ 'a b c'|wordcount }}|{{ 'abc'|length }}
{{ '<a> & b'|e }}|{{ '<b>'|safe }}|{{ '<b>' }}|{{ 'a b&c'|urlencode }}|{{ ['a', 'b', 'c']|batch(2)|list }}|{{ 'abc'|upper|lower }}|{{ [[1, 2], [3]]|map('join', '+')|join(' ') }}
{{ dict(a=1, b='x') }}{{ dict({'a': 1}, b=2) }}
{{ [1, 2].index(2) }}{{ [1, 2, 1].count(1) }}{{ (1, 2).count(2) }}{{ {'a': 1}.copy() }}{{ [1].copy() }}
{{ [1, 2].append(3) }}
{{ {'a': 1}.update({'b': 2}) }}
{{ {'a': 1}.pop('a') }}
{{ 'a b'.split(' ')[0].strip().upper().startswith('A') }}{{ ('a' + 'b').upper() }}{{ messages[0].content.split()[-1].rstrip('?') }}{{ messages[0]['content'].strip().lower().title() }}
{{- ' left' -}}   {{ 'middle' }}   {{- ' right ' }}
{%+ if true %} kept {% endif +%}
{# comment #} after {#- tight -#} end
line{{ '\n' }}{{ 'x' }}
""".strip("\n")

# What the example renders otherwise, as minijinja does.
UNLIKE = r"""
{{ '%s is %d' % ('a', 3) }}
{{ 1e20 }} {{ 1e-7 }}
{% for c in 'abc' %}{{ loop.last }}{% endfor %}
{% set a, b = 'cd' %}{{ a }}
{{ range(3) }}
{{ '"'|e }}
{{ dict.fromkeys(['a'], 0) }}
""".strip("\n")


def tokenizer(template):
    tiny = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tiny,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=template,
    )


def rendered(template, messages, **arguments):
    try:
        return {"text": tokenizer(template).apply_chat_template(messages, tokenize=False, **arguments)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    templates = {path.stem: path.read_text() for path in sorted(HERE.glob("*.jinja"))}
    cases = []

    def case(name, what, messages, **arguments):
        got = rendered(templates[name], messages, **arguments)
        cases.append({"template": name, "case": what, "messages": messages, "arguments": arguments, **got})

    for name in templates:
        for what, messages in CONVERSATIONS.items():
            for prompt in [True, False]:
                case(name, what, messages, add_generation_prompt=prompt)
            if what in ["a system", "a tool is called"]:
                case(name, what, messages, add_generation_prompt=True, tools=TOOLS)
        case(name, "parts", CONTENT_PARTS, add_generation_prompt=True)
        case(name, "one message", CONVERSATIONS["one message"], documents=DOCUMENTS, add_generation_prompt=False)
    snippets = [
        {"source": source, **rendered(source, CONVERSATIONS["one message"])} for source in SNIPPETS.split("\n")
    ]
    newlines = "{% if true %}\r\nwindows\r\n  {% endif %}\r\nand mac\rx{{ 'a\r\nb' }}\r\n\r\n"
    for source in [newlines, "  {% if true %}\n  a\n\t{% endif %}  \n b {{ 'c' }}\n\n", "a\n", "a\n\n", "\n{{ 'a' }}\n"]:
        snippets.append({"source": source, **rendered(source, CONVERSATIONS["one message"])})
    unlike = [{"source": source, **rendered(source, CONVERSATIONS["one message"])} for source in UNLIKE.split("\n")]
    expected = {
        "made_by": f"make_expected.py, transformers {transformers.__version__}",
        "now": NOW.isoformat(),
        "special_tokens": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "cases": cases,
        "snippets": snippets,
        "unlike": unlike,
    }
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    (HERE / "expected.json").write_text(text + "\n")
    print(len(cases), "cases,", len(snippets), "snippets,", len(unlike), "unlike")


main()
