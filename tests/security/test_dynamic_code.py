"""Making code from strings: every way we know, each shown to work where it is allowed.

The `Function` family is cut by a switch, so its control is the same guest with the switch on.
`eval` is never there; its control is a native engine, and that of `import()` is node.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from beddel_cli.profile import load_profile
from tests.support.capabilities import require
from tests.support.cli import Home
from tests.support.many_jobs import Said, Script, run_scripts
from tests.support.native import awaiting, run_in_node, run_natively

THROWN, SYNTAX = 1, 6
DENIED = ("TypeError", "eval is not supported")

# Each is an expression whose awaited value is 42 when code could be made from its strings.
EVAL_FORMS = {
    "direct": "eval('42')",
    "sees locals": "(() => { const x = 42; return eval('x') })()",
    "optional call": "eval?.('42')",
    "comma": "(0, eval)('42')",
    "from globalThis": "globalThis.eval('42')",
    "spelt apart": "globalThis['ev' + 'al']('42')",
    "through an array": "[eval][0]('42')",
    "call": "eval.call(null, '42')",
    "apply": "eval.apply(null, ['42'])",
    "call of call": "Function.prototype.call.call(eval, null, '42')",
    "bind": "eval.bind(null, '42')()",
    "Reflect.apply": "Reflect.apply(eval, undefined, ['42'])",
    "Reflect.get": "Reflect.get(globalThis, 'eval')('42')",
    "descriptor": "Object.getOwnPropertyDescriptor(globalThis, 'eval').value('42')",
    "proxy": "new Proxy(eval, {})('42')",
    "array callback": "['42'].map(eval)[0]",
    "Array.from": "Array.from(['42'], eval)[0]",
    "replace callback": "Number('42'.replace(/.+/, eval))",
    "reviver": "JSON.parse('\"42\"', (key, value) => eval(value))",
    "reaction": "Promise.resolve('42').then(eval)",
    "thenable": "({ then(done) { done(eval('42')) } })",
    "getter": "({ get x() { return eval('42') } }).x",
    "default value": "((x = eval('42')) => x)()",
    "class field": "new (class { x = eval('42') })().x",
    "static block": "(class { static x; static { this.x = eval('42') } }).x",
    "computed key": "Number(Object.keys({ [eval('42')]: 1 })[0])",
    "generator": "[...(function* () { yield eval('42') })()][0]",
    "microtask": "new Promise((done, fail) => queueMicrotask(() => {"
    " try { done(eval('42')) } catch (error) { fail(error) } }))",
    "statements": "eval('var six = 6; six * 7')",
    "function text": "eval('(function () { return 42 })')()",
}

FUNCTION_FORMS = {
    "called": "Function('return 42')()",
    "constructed": "new Function('return 42')()",
    "with parameters": "Function('a', 'b', 'return a * b')(6, 7)",
    "template": "Function`return 42`()",
    "text from an object": "Function({ toString: () => 'return 42' })()",
    "call": "Function.call(null, 'return 42')()",
    "apply": "Function.apply(null, ['return 42'])()",
    "bind": "Function.bind(null, 'return 42')()()",
    "construct a bound one": "new (Function.bind(null, 'return 42'))()()",
    "Reflect.construct": "Reflect.construct(Function, ['return 42'])()",
    "Reflect.construct as another": "Reflect.construct(Function, ['return 42'], class {})()",
    "Reflect.apply": "Reflect.apply(Function, null, ['return 42'])()",
    "proxy called": "new Proxy(Function, {})('return 42')()",
    "proxy constructed": "new (new Proxy(Function, {}))('return 42')()",
    "proxy with a trap": "new (new Proxy(class {}, {"
    " construct: (target, list) => Reflect.construct(Function, list) }))('return 42')()",
    "subclass": "new (class extends Function {})('return 42')()",
    "super call": "new (class extends Function { constructor() { super('return 42') } })()()",
    "subclass of async": "new (class extends (async () => 0).constructor {})('return 42')()",
    "prototype": "Function.prototype.constructor('return 42')()",
    "descriptor": "Object.getOwnPropertyDescriptor(Function.prototype, 'constructor')"
    ".value('return 42')()",
    "Reflect.getPrototypeOf": "Reflect.getPrototypeOf(() => 0).constructor('return 42')()",
    "__proto__": "(() => 0).__proto__.constructor('return 42')()",
    "of an arrow": "(() => 0).constructor('return 42')()",
    "of a function": "(function () {}).constructor('return 42')()",
    "of a class": "(class {}).constructor('return 42')()",
    "of a bound function": "(() => 0).bind().constructor('return 42')()",
    "of an async arrow": "(async () => 0).constructor('return 42')()",
    "of an async function": "Object.getPrototypeOf(async function () {})"
    ".constructor('return 42')()",
    "of an async method": "({ async m() {} }).m.constructor('return await 42')()",
    "of a generator": "(function* () {}).constructor('yield 42')().next().value",
    "of a generator method": "Object.getPrototypeOf(({ *m() {} }).m)"
    ".constructor('yield 42')().next().value",
    "of an async generator": "(async function* () {}).constructor('yield 42')()"
    ".next().then(step => step.value)",
    "of an async generator method": "({ async *m() {} }).m.constructor('yield 42')()"
    ".next().then(step => step.value)",
    "of an array's constructor": "[].constructor.constructor('return 42')()",
    "of a string's": "''.constructor.constructor('return 42')()",
    "of a number's": "(1).constructor.constructor('return 42')()",
    "of a bigint's": "(1n).constructor.constructor('return 42')()",
    "of a boolean's": "true.constructor.constructor('return 42')()",
    "of a symbol's": "Symbol().constructor.constructor('return 42')()",
    "of a regular expression's": "/x/.constructor.constructor('return 42')()",
    "of an object's": "({}).constructor.constructor('return 42')()",
    "of a map's": "new Map().constructor.constructor('return 42')()",
    "of a typed array's": "new Uint8Array().constructor.constructor('return 42')()",
    "of a promise's": "Promise.resolve().constructor.constructor('return 42')()",
    "of Math's": "Math.constructor.constructor('return 42')()",
    "of the input's": "[input].constructor.constructor('return 42')()",
    "of a native method": "console.log.constructor('return 42')()",
    "of an accessor": "Object.getOwnPropertyDescriptor(Map.prototype, 'size')"
    ".get.constructor('return 42')()",
    "of an iterator's next": "[].values().next.constructor('return 42')()",
    "of queueMicrotask": "queueMicrotask.constructor('return 42')()",
    "of a resolving function": "new Promise(done => done(done.constructor('return 42')()))",
    "of arguments": "(function () { return arguments })().constructor.constructor('return 42')()",
    "of a thrown error": "(() => { try { null.x } catch (error) {"
    " return error.constructor.constructor('return 42')() } })()",
    "reaction": "Promise.resolve('return 42').then(Function).then(made => made())",
    "thenable": "({ then(done) { done(Function('return 42')()) } })",
    "reviver": "JSON.parse('\"return 42\"', (key, value) => Function(value)())",
    "species": "(class extends Array { static get [Symbol.species]() {"
    " return Function('return Array')() } }).from([42]).map(x => x)[0]",
    "toPrimitive": "+{ [Symbol.toPrimitive]: () => Function('return 42')() }",
    "spread": "[['return 42']].map(list => Function(...list))[0]()",
    "sloppy this": "Function('return this')().parseInt('42')",
}

# Never work, though the first step of each does under tenant-isolated.
EVAL_INSIDE_FUNCTION = {
    "direct eval in made code": "Function(\"return eval('42')\")()",
    "indirect eval in made code": "Function(\"return (0, eval)('42')\")()",
    "eval of the made global": "Function('return this')().eval('42')",
    "eval in a made default value": "Function(\"x = eval('42')\", 'return x')()",
    "eval in made async code": "(async () => 0).constructor(\"return eval('42')\")()",
    "eval in a made generator": "(function* () {}).constructor(\"yield eval('42')\")()"
    ".next().value",
    "eval while text is read": "Function({ toString: () => `return ${eval('42')}` })()",
    "eval through with": "Function('scope', \"with (scope) return eval('42')\")({})",
    "own name for eval": "Function('run', \"return run('42')\")(eval)",
}

IMPORT_FORMS = {
    "data": "import('data:text/javascript,export default 42').then(module => module.default)",
    "data in base64": "import('data:text/javascript;base64,' + btoa('export default 42'))"
    ".then(module => module.default)",
    "specifier from an object": "import({"
    " toString: () => 'data:text/javascript,export default 42' })"
    ".then(module => module.default)",
}

# Ways of other hosts. A name that is not defined cannot make anything.
ABSENT = (
    *("setTimeout", "setInterval", "setImmediate", "execScript", "ShadowRealm", "WebAssembly"),
    *("Worker", "importScripts", "document", "window", "process", "require", "module", "exports"),
    *("Deno", "Bun", "std", "os", "bjson", "print", "load", "loadScript", "evalScript", "$262"),
    *("__loadScript", "quit", "read", "Realm", "Compartment"),
)

# The body is written into an async function; none of these gets out of it.
CLOSINGS = {
    "closes and reopens": "}); globalThis.answer = 42; (async function (input) {",
    "closes": "}); globalThis.answer = 42; (function () {",
    "calls itself": "})(); globalThis.answer = 42; (async function (input) {",
    "closes an arrow": "}; globalThis.answer = 42; {",
    "closes in a second line": "1;\n}); globalThis.answer = 42; (async function (input) {",
    "closes after a comment": "/* */ }); globalThis.answer = 42; (async function (input) { //",
    "hides the rest": "}); globalThis.answer = 42; //",
    "opens a comment": "}); globalThis.answer = 42; /*",
    "opens an HTML comment": "}); globalThis.answer = 42\n<!--",
    "ends an HTML comment": "}); globalThis.answer = 42\n-->",
    "after a line separator": "//\u2028}); globalThis.answer = 42; (async function (input) {",
    "after a paragraph separator": "//\u2029}); globalThis.answer = 42; (async function (input) {",
    "after a carriage return": "//\r}); globalThis.answer = 42; (async function (input) {",
    "after a template": "`${1}`}); globalThis.answer = 42; (async function (input) {",
    "after a regular expression": "/[/]/}); globalThis.answer = 42; (async function (input) {",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One form under one profile, in the guest that profile asks for."""

    profile: str
    form: str


def _script(profile_name: str, code: str) -> Script:
    profile = load_profile(profile_name)
    assert profile.limits.memory_bytes is not None
    return Script(
        code,
        allow_function=profile.dynamic_code == "function",
        memory_bytes=profile.limits.memory_bytes,
    )


STRICT = ("ultra-secure", "high-security")
ALL = (*STRICT, "tenant-isolated")
FORMS = {
    **{f"eval: {name}": form for name, form in EVAL_FORMS.items()},
    **{f"Function: {name}": form for name, form in FUNCTION_FORMS.items()},
    **{f"eval inside Function: {name}": form for name, form in EVAL_INSIDE_FUNCTION.items()},
    **{f"import: {name}": form for name, form in IMPORT_FORMS.items()},
}


@pytest.fixture(scope="module")
def said() -> dict[Trial, Said]:
    """What the guest says to every form under every profile, each in a fresh isolate."""
    trials = [Trial(profile, form) for profile in ALL for form in FORMS]
    scripts = [_script(trial.profile, f"return await ({FORMS[trial.form]})") for trial in trials]
    return dict(zip(trials, run_scripts(scripts), strict=True))


def _assert_denied(answer: Said, error: tuple[str, str]) -> None:
    assert (answer.status, answer.error_name, answer.error_message) == (THROWN, *error)
    assert answer.output == b""


def test_there_are_enough_forms() -> None:
    assert len(FORMS) >= 100
    assert len(set(FORMS.values())) == len(FORMS)


@pytest.mark.parametrize("name", EVAL_FORMS)
@pytest.mark.parametrize("profile", ALL)
def test_eval_is_never_there(said: dict[Trial, Said], profile: str, name: str) -> None:
    _assert_denied(said[Trial(profile, f"eval: {name}")], DENIED)


@pytest.mark.parametrize("name", FUNCTION_FORMS)
@pytest.mark.parametrize("profile", STRICT)
def test_function_family_is_denied(said: dict[Trial, Said], profile: str, name: str) -> None:
    _assert_denied(said[Trial(profile, f"Function: {name}")], DENIED)


@pytest.mark.parametrize("name", FUNCTION_FORMS)
def test_function_family_works_where_allowed(said: dict[Trial, Said], name: str) -> None:
    answer = said[Trial("tenant-isolated", f"Function: {name}")]
    assert (answer.output, answer.error_name, answer.error_message) == (b"42", "", "")


@pytest.mark.parametrize("name", EVAL_INSIDE_FUNCTION)
@pytest.mark.parametrize("profile", ALL)
def test_eval_is_not_in_made_code_either(said: dict[Trial, Said], profile: str, name: str) -> None:
    _assert_denied(said[Trial(profile, f"eval inside Function: {name}")], DENIED)


@pytest.mark.parametrize("name", IMPORT_FORMS)
@pytest.mark.parametrize("profile", ALL)
def test_import_finds_nothing(said: dict[Trial, Said], profile: str, name: str) -> None:
    answer = said[Trial(profile, f"import: {name}")]
    assert (answer.status, answer.error_name) == (THROWN, "ReferenceError")
    assert answer.error_message.startswith("could not load module 'data:")


def test_eval_forms_work_in_a_native_engine() -> None:
    require("native-engine")
    forms = {**EVAL_FORMS, **EVAL_INSIDE_FUNCTION}
    answers = run_natively([awaiting(form) for form in forms.values()])
    assert dict(zip(forms, answers, strict=True)) == dict.fromkeys(forms, 42)


def test_import_forms_work_in_node() -> None:
    answers = run_in_node([awaiting(form) for form in IMPORT_FORMS.values()])
    assert answers == [42] * len(IMPORT_FORMS)


@pytest.mark.parametrize("profile", ALL)
def test_no_name_of_another_host(profile: str) -> None:
    # The control: one of the names that are there.
    names = json.dumps(["queueMicrotask", *ABSENT])
    code = f"return {names}.filter(name => name in globalThis)"
    plain = ["return typeof queueMicrotask", *(f"return typeof {name}" for name in ABSENT)]
    answers = run_scripts([_script(profile, line) for line in (code, *plain)])
    assert answers[0].output == b'["queueMicrotask"]'
    assert [each.output for each in answers[1:]] == [
        b'"function"',
        *[b'"undefined"'] * len(ABSENT),
    ]


def test_an_async_function_cannot_be_closed_from_inside() -> None:
    for profile in ALL:
        answers = run_scripts([_script(profile, code) for code in CLOSINGS.values()])
        for name, answer in zip(CLOSINGS, answers, strict=True):
            assert (name, answer.status, answer.error_name) == (name, SYNTAX, "SyntaxError")
            assert answer.output == b""


def test_closing_works_where_source_is_pasted_together() -> None:
    require("native-engine")
    for name, code in CLOSINGS.items():
        # Some close one shell, some another: each gets out of at least one.
        shells = (
            f"(async function (input) {{\n{code}\n}})",
            f"(async function (input) {{\n{code}\n*/",
            f"(async function (input) {{\n{code}",
            f"(async (input) => {{\n{code}\n}})",
            f"{{\n{code}\n}}",
        )
        pasted = ["globalThis.answer = undefined; " + shell for shell in shells]
        assert 42 in run_natively(pasted), name


@pytest.mark.parametrize(
    "code",
    ["import x from 'data:text/javascript,export default 42'", "export default 42"],
)
def test_a_job_is_no_module(code: str) -> None:
    (answer,) = run_scripts([_script("tenant-isolated", code)])
    assert (answer.status, answer.error_name) == (SYNTAX, "SyntaxError")


@pytest.mark.parametrize("profile", ALL)
def test_all_forms_in_one_job_through_the_command_line(home: Home, profile: str) -> None:
    thunks = ",\n".join(f"{json.dumps(name)}: async () => ({FORMS[name]})" for name in FORMS)
    code = (
        f"const forms = {{{thunks}}}\nconst said = {{}}\n"
        "for (const name of Object.keys(forms)) {\n"
        "  try { said[name] = await forms[name]() } catch (error) { said[name] = error.name }\n"
        "}\nreturn said"
    )
    result = home.run("run", home.job(code), "--profile", profile, "--json")
    assert result.returncode == 0, result.message
    works = 42 if profile == "tenant-isolated" else "TypeError"
    for name, answer in result.json["output"].items():
        family = name.partition(":")[0]
        expected = {"Function": works, "import": "ReferenceError"}.get(family, "TypeError")
        assert (name, answer) == (name, expected)
    assert result.json["output"].keys() == FORMS.keys()
    assert home.predicate()["plan"]["dynamicCode"] == (
        "function" if profile == "tenant-isolated" else "none"
    )
