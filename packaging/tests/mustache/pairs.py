"""Prints the pairs of templates and values that mustache.java is asked about."""

import json

pairs = []


def pair(template, /, **value):
    pairs.append({"template": template, "value": value})


# Every kind of value in every kind of tag.
values = [
    None, True, False, 0, 1, -7, 2147483648, 12345678901234567890, 1.0, 0.5, -0.25, 1.5e3, 0.001,
    0.00099, 1e-5, 1.25e-7, 9999999.5, 12345678.5, 1e21, 123456789012345.678, 3.14, 100.0,
    "", "a", "two words", 'quote " and \\ and /', "line\nline\ttab\r", "\u0007\u007f\u0085", "\u00fc\u20ac",
    "<b>&'`=</b>", "{{x}}", "null",
    [], ["a"], ["a", "b"], [1, 2.5, 0], [True, None], [["hostname", "UNIQUE"]], [["a", "b"], ["c"]],
    ['q"q', "n\nn"], [{"k": "v"}], [[]], [""],
    {}, {"k": "v"}, {"k": "v", "n": 1, "l": ["x"], "z": None}, {"x": {"x": "deep"}},
]
for value in values:
    for template in ["{{x}}", "[{{{x}}}]", "{{&x}}", "{{#x}}<{{.}}>{{/x}}", "{{^x}}none{{/x}}"]:
        pair(template, x=value)

# Names.
tree = {"a": {"b": {"c": 1, "s": "text"}, "n": None, "l": ["p", "q"]}, "a.b": "whole", "d": 5, "e": "s"}
for name in [
    "a.b", "a.b.c", "a.b.s", "a.n", "a.n.x", "a.l", "a.x", "a.b.x", "x", "x.y", "d", "d.e", "e.f", "a", ".",
    " a.b.c ", "a-b", "a .b", "A", "a.b.c.d", ".a", "a.",
]:
    for form in ["{{%s}}", "{{{%s}}}", "({{#%s}}yes{{/%s}}{{^%s}}no{{/%s}})"]:
        pair(form.replace("%s", name), **tree)

# Scopes.
deep = {
    "name": "outer", "only": "o", "nul": None,
    "list": [{"name": "first", "nul": "n"}, {"name": None}, {}, None, "text", 3, ["x", "y"]],
    "object": {"name": "inner", "object": {"name": "innermost"}, "nul": None},
    "pairs": [["a", "b"], ["c", "d"]], "empty": {}, "zero": 0, "no": False, "yes": True,
}
for template in [
    "{{#list}}[{{name}}|{{only}}]{{/list}}",
    "{{#list}}{{#name}}({{.}}){{/name}}{{/list}}",
    "{{#list}}{{^name}}-{{/name}}{{/list}}",
    "{{#list}}{{.}};{{/list}}",
    "{{#list}}{{nul}},{{/list}}",
    "{{#object}}{{name}}{{#object}}{{name}}{{/object}}{{/object}}{{name}}",
    "{{#object}}{{only}}{{/object}}",
    "{{#object}}{{nul}}|{{list}}{{/object}}",
    "{{#object}}{{object.name}} {{object.only}}{{/object}}",
    "{{#object.object}}{{name}} {{only}}{{/object.object}}",
    "{{#pairs}}{{.}},{{/pairs}}",
    "{{#pairs}}{{#.}}{{.}} {{/.}}; {{/pairs}}",
    "{{#pairs}}{{^.}}e{{/.}}{{/pairs}}",
    "{{#empty}}yes{{/empty}}{{^empty}}no{{/empty}}",
    "{{#zero}}{{name}}{{.}}{{/zero}}",
    "{{#no}}{{name}}{{/no}}{{^no}}{{name}}{{/no}}",
    "{{#yes}}{{name}}{{.}}{{/yes}}",
    "{{#name}}{{.}} {{only}}{{/name}}",
    "{{^missing}}{{name}}{{/missing}}",
    "{{^missing}}{{.}}{{/missing}}".replace("{{.}}", "{{only}}"),
    "{{#missing}}{{name}}{{/missing}}",
    "{{#yes}}{{#yes}}{{#no}}x{{/no}}{{^no}}y{{/no}}{{/yes}}{{/yes}}",
    "{{#object}}{{#list}}{{name}}{{/list}}{{/object}}",
    '{"a": [{{#pairs}}{{{.}}}, {{/pairs}}"end"]}',
    '"args": [{{#pairs}}"--row", {{#.}}"--item", {{{.}}}, {{/.}}{{/pairs}}"--end"]',
]:
    pair(template, **deep)

# Lines and blanks.
lines = {"x": "X", "t": True, "f": False, "l": ["a", "b"], "o": {"k": "v"}}
for template in [
    "a\n{{#t}}\nb\n{{/t}}\nc\n", "a\n  {{#t}}\n  b\n  {{/t}}\nc", "a {{#t}}\nb\n{{/t}} c\n",
    "{{#t}}b{{/t}}\n", "  {{#t}}b{{/t}}  \n", "{{#t}}\nb{{/t}}\n", "{{#t}}b\n{{/t}}\nc",
    "a\r\n{{#t}}\r\nb\r\n{{/t}}\r\nc\r\n", "a\rb", "\r\n\n\r\n", "{{#f}}\nb\n{{/f}}\nc\n",
    "{{^f}}\nb\n{{/f}}\nc\n", "x\n{{#l}}\n- {{.}}\n{{/l}}\ny\n", "{{#l}}\n\n{{.}}\n\n{{/l}}\n\n",
    "  {{x}}\n", "\t{{x}}\t\n", "{{! comment }}\nx\n", "a {{! comment }} b\n", "a\n  {{! c }}\nb\n",
    "{{! many\nlines }}\nx", "{{\nx\n}}", "{{{\nx\n}}}", "{{#\nt\n}}y{{/\nt\n}}", "{{#t}} {{#t}}\n{{/t}} {{/t}}\n",
    "{{#t}}\n{{#t}}\na\n{{/t}}\n{{/t}}\nb\n", "{{#o}}\n{{k}}\n{{/o}}\n{{#l}}\n{{/l}}\nend",
    "{\n  \"a\": 1{{#t}},\n  \"b\": 2{{/t}}{{#f}},\n  \"c\": 3{{/f}}\n}\n",
    "{{#t}}\n{{/t}}", "{{#t}}{{/t}}", "\n", "", " ", "{{x}}{{x}}", "{ {x} }", "{{x}", "{x}}", "{{{x}}} }", "a{b",
]:
    pair(template, **lines)

# Tags that are none, delimiters, blocks, comments.
for template in [
    "{{}}", "{{ }}", "{{x", "{{{x}}", "{{{x", "{{&x", "{{#x}}", "{{/x}}", "{{#x}}{{/y}}", "{{#x}}{{#y}}{{/x}}{{/y}}",
    "{{^x}}", "{{! never closed", "{{!}}", "{{!x}}a{{!y}}", "{{% implicit-iterator }}a", "{{%unknown}}b", "{{>partial}}",
    "{{<parent}}{{/parent}}", "{{$block}}text {{x}}{{/block}}", "{{$block}}{{/other}}",
    "{{=<% %>=}}<%x%> {{x}}", "{{=<% %>=}}<%#t%>a<%/t%><%={{ }}=%>{{x}}", "{{=| |=}}|x|", "{{= [ ] =}}[x] {{x}}",
    "{{=<% %>=}}<%{x}%>", "{{=<% %>=}}<%&x%>", "{{=<< =}}x", "{{=<<< >>>=}}x", "{{=a=}}",
    "{{=<% %>=}}{{x}}<%! c %>", "{{ #t }}", "{{#t }}a{{/ t}}", "{{# t }}a{{/t}}", "{{ x }}", "{{& x }}", "{{{ x }}}",
    "{{x}}}", "{{{x}}}}", "{{{{x}}}}", "{{x}}{{{x}}}{{&x}}", "{{#t}}{{=<% %>=}}<%x%><%/t%>{{x}}",
]:
    pair(template, x="X", t=True)

# asJson.
holds = {
    "doc": '{"a": [1, "two"], "b": null}', "template": "{{x}} and {{{o.k}}}", "x": "X", "n": 5, "nul": None,
    "o": {"k": 'v"', "doc": "inner"}, "list": ["a"], "twice": "{{#asJson}}doc{{/asJson}}", "bad": "{{#x}}",
    "empty": "",
}
for template in [
    "{{#asJson}}doc{{/asJson}}", "{{#asJson}}template{{/asJson}}", "{{#asJson}}n{{/asJson}}", "{{#asJson}}nul{{/asJson}}",
    "{{#asJson}}missing{{/asJson}}", "{{#asJson}} doc {{/asJson}}", "{{#asJson}}o{{/asJson}}", "{{#asJson}}o.doc{{/asJson}}",
    "{{#asJson}}list{{/asJson}}", "{{#asJson}}twice{{/asJson}}", "{{^asJson}}no{{/asJson}}", "{{asJson}}", "{{{asJson}}}",
    "{{#o}}{{#asJson}}doc{{/asJson}}{{/o}}", "{{#asJson}}{{x}}{{/asJson}}", "{{#asJson}}bad{{/asJson}}",
    "{{#asJson}}{{/asJson}}", "{{#asJson}}empty{{/asJson}}", "a {{#asJson}}doc{{/asJson}} b", "{{#asJson}}\ndoc\n{{/asJson}}\n",
    "{{#list}}{{#asJson}}x{{/asJson}}{{/list}}", "{{#asJson}}doc{{/asJson}}{{#asJson}}x{{/asJson}}",
]:
    pair(template, **holds)

json.dump(pairs, fp=__import__("sys").stdout, indent=0)
