"""Hostile jobs: what each tries, and the one documented way in which it ends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hostile:
    """A job, the reason of its ending, and a part of the message its author sees."""

    code: str
    reason: str
    message: str = ""
    flags: tuple[str, ...] = ()


_FOREVER = "while (true) {}"

ENDLESS_LOOPS = {
    "while": _FOREVER,
    "for with a body": "for (let i = 0; ; i++) { Math.sqrt(i) }",
    "do": "do {} while (true)",
    "labelled continue": "outer: for (;;) { for (;;) continue outer }",
    "finally": "for (;;) { try { throw 1 } catch { continue } finally { continue } }",
    "generator": "function* all() { for (;;) yield 1 }\nfor (const one of all()) ;",
    "spread of a generator": "Math.max(...{ *[Symbol.iterator]() { for (;;) ; } })",
    "iterator that is never done": "const [...all] = { [Symbol.iterator]: () => ({"
    " next: () => { for (;;) ; } }) }",
    "iterator that will not return": "for (const x of { [Symbol.iterator]: () => ({"
    " next: () => ({}), return: () => { for (;;) ; } }) }) break",
    "own getter of the result": "return { get x() { for (;;) ; } }",
    "inherited toJSON": "Object.prototype.toJSON = () => { for (;;) ; }\nreturn [1]",
    "toJSON of the result": "return { toJSON() { for (;;) ; } }",
    "toJSON of a deep part": "return [[[{ toJSON() { for (;;) ; } }]]]",
    "toString of a key": "return { [{ toString() { for (;;) ; } }]: 1 }",
    "valueOf": "return 1 + { valueOf() { for (;;) ; } }",
    "toPrimitive": "return `${{ [Symbol.toPrimitive]() { for (;;) ; } }}`",
    "proxy get": "return new Proxy({}, { get() { for (;;) ; } })",
    "proxy ownKeys": "return new Proxy({}, { ownKeys() { for (;;) ; } })",
    "proxy descriptor": "return new Proxy({ a: 1 }, { getOwnPropertyDescriptor() { for (;;) ; } })",
    "proxy array": "return new Proxy([1], { get: (t, k) => { for (;;) ; } })",
    "proxy has": "return 'x' in new Proxy({}, { has() { for (;;) ; } })",
    "proxy getPrototypeOf": "return new Proxy({}, {"
    " getPrototypeOf() { for (;;) ; } }) instanceof Map",
    "comparator": "[2, 1].sort(() => { for (;;) ; })",
    "mapping": "[1].map(() => { for (;;) ; })",
    "replace callback": "'x'.replace(/x/, () => { for (;;) ; })",
    "reviver": "JSON.parse('[1]', () => { for (;;) ; })",
    "replacer": "JSON.stringify([1], () => { for (;;) ; })",
    "RegExp exec": "const r = /x/\nr.exec = () => { for (;;) ; }\n'x'.match(r)",
    "species": "class A extends Array { static get [Symbol.species]() { for (;;) ; } }\n"
    "new A(1).map(x => x)",
    "setter": "Object.defineProperty({}, 'x', { set() { for (;;) ; } }).x = 1",
    "class static block": "class A { static { for (;;) ; } }",
    "default value": "((x = (() => { for (;;) ; })()) => x)()",
    "console argument": "console.log(Object.assign(() => 0, { toString() { for (;;) ; } }))",
    "console toJSON": "console.log({ toJSON() { for (;;) ; } })",
    "console getter": "console.log({ get x() { for (;;) ; } })",
    "console error getter": "const e = new Error('x')\n"
    "Object.defineProperty(e, 'stack', { get() { for (;;) ; } })\nconsole.log(e)",
    "thrown function's toString": "throw Object.assign(() => 0, { toString() { for (;;) ; } })",
    "thrown object's toJSON": "throw { toJSON() { for (;;) ; } }",
    "thrown error's message": "const e = new Error()\n"
    "Object.defineProperty(e, 'message', { get() { for (;;) ; } })\nthrow e",
    "thrown error's name": "const e = new Error('x')\n"
    "Object.defineProperty(e, 'name', { get() { for (;;) ; } })\nthrow e",
    "thrown error's stack": "const e = new Error('x')\n"
    "Object.defineProperty(e, 'stack', { get() { for (;;) ; } })\nthrow e",
    "thrown proxy": "throw new Proxy({}, { get() { for (;;) ; } })",
    "prepareStackTrace": "Error.prepareStackTrace = () => { for (;;) ; }\n"
    "return new Error('x').stack",
    "thenable result": "return { then() { for (;;) ; } }",
    "then getter": "return { get then() { for (;;) ; } }",
    "inherited then getter": "Object.defineProperty(Object.prototype, 'then', {"
    " get() { for (;;) ; } })\nreturn {}",
    "promise constructor": "new Promise(() => { for (;;) ; })",
    "reaction": "await Promise.resolve().then(() => { for (;;) ; })",
    "microtask": "queueMicrotask(() => { for (;;) ; })\nawait new Promise(() => {})",
    "microtasks without end": "const again = () => queueMicrotask(again)\nagain()",
    "promises without end": "const again = () => { Promise.resolve().then(again) }\nagain()",
    "awaits without end": "for (;;) await 0",
    "thenables without end": "const t = { then(done) { done(t) } }\nreturn t",
    "async generator": "for await (const x of (async function* () { for (;;) yield 1 })()) ;",
    "microtasks after the result": "const again = () => queueMicrotask(again)\nagain()\nreturn 1",
    "finalizer": "new FinalizationRegistry(() => {}).register({}, 1)\nfor (;;) ({})",
}

SLOW_NATIVE_CODE = {
    "regular expression (a+)+": "return /^(a+)+$/.test('a'.repeat(40) + 'b')",
    "regular expression (a|a)*": "return /^(a|a)*$/.test('a'.repeat(40) + 'b')",
    "regular expression back reference": "return /(.*)(.*)(.*)(.*)(.*)\\1\\2\\3\\4\\5x/"
    ".test('ab'.repeat(200))",
    "regular expression look-ahead": "return /(?=(a+)+c)b/.test('a'.repeat(60))",
    "regular expression split": "return 'a'.repeat(40).split(/^(a+)+$b/).length",
    "BigInt power": "for (;;) 3n ** 60000n % 7n",
    "BigInt squared": "let x = 3n\nfor (;;) x *= x",
    "BigInt to text": "let x = 3n ** 60000n\nfor (;;) String(x)",
    "BigInt division": "let x = 7n ** 20000n\nfor (;;) x / 3n ** 9000n",
    "sorting": "const a = Array.from({ length: 20000 }, (_, i) => i * 7919 % 20011)\n"
    "for (;;) a.sort((x, y) => y - x)",
    "array holes": "const a = []\na[4294967290] = 1\nfor (;;) a.indexOf(2)",
    "array-like of 2**53": "return Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1)",
    "reversing nothing": "return Array.prototype.reverse.call({ length: 2 ** 53 - 1 }).length",
    "joining nothing": "for (;;) new Array(10000).join()",
    "searching text": "const s = 'a'.repeat(50000)\nfor (;;) s.indexOf('a'.repeat(9000) + 'b')",
    "normalising text": "for (;;) '\\u0344'.repeat(3000).normalize('NFD')",
    "parsing JSON": "const s = '[' + '1,'.repeat(5000) + '1]'\nfor (;;) JSON.parse(s)",
    "typed array fill": "const a = new Uint8Array(100000)\nfor (;;) a.fill(1)",
    "dates": "for (;;) new Date('Tue Mar 01 2022 00:00:00 GMT+0100')",
}

_GROW = "const all = []\nfor (;;) all.push({})"
MEMORY = {
    "objects": _GROW,
    "array": "const all = []\nfor (;;) all.push(all.length)",
    "one long array": "return new Array(5_000_000).fill(1)",
    "doubling text": "let s = 'x'\nfor (;;) { s += s + s.length\n s.charCodeAt(1) }",
    "repeat": "return 'x'.repeat(3_000_000).length",
    "padStart": "return ''.padStart(3_000_000, 'ab').length",
    "wide text": "return '\\u20ac'.repeat(1_500_000).length",
    "join": "return new Array(2_000_000).join('xy').length",
    "replaceAll": "return 'x'.repeat(2000).replaceAll('x', 'y'.repeat(2000)).length",
    "typed array": "return new Uint8Array(4_000_000).length",
    "ArrayBuffer resize": "const b = new ArrayBuffer(1, { maxByteLength: 1 << 24 })\n"
    "b.resize(1 << 24)",
    "ArrayBuffer transfer": "return new ArrayBuffer(1).transfer(1 << 24).byteLength",
    "shared buffer": "return new SharedArrayBuffer(1 << 24).byteLength",
    "map": "const all = new Map()\nfor (let i = 0; ; i++) all.set(i, i)",
    "set": "const all = new Set()\nfor (let i = 0; ; i++) all.add({})",
    "closures": "let f = () => 0\nfor (;;) { const g = f\n f = () => g }",
    "prototype chain": "let o = null\nfor (;;) o = Object.create(o)",
    "property names": "const o = {}\nfor (let i = 0; ; i++) o['k' + i] = 1",
    "symbols": "const all = []\nfor (;;) all.push(Symbol('x'.repeat(100)))",
    "BigInts": "const all = []\nfor (let x = 1n; ; x++) all.push(x << 5000n)",
    "regular expressions": "const all = []\nfor (let i = 0; ; i++) all.push(new RegExp('x' + i))",
    "regular expression repeat": "const all = []\n"
    "for (let i = 0; ; i++) all.push(new RegExp('(?:' + 'a{1,9}'.repeat(200) + ')' + i))",
    "promises": "const all = []\nfor (;;) all.push(new Promise(() => {}))",
    "pending microtasks": "for (;;) queueMicrotask(() => {})",
    "generators": "function* g() { yield 1 }\nconst all = []\nfor (;;) { const i = g()\n i.next()\n"
    " all.push(i) }",
    "errors": "const all = []\nfor (;;) all.push(new Error('x'.repeat(99)))",
    "cause chain": "let e = new Error('x')\nfor (;;) e = new Error('y', { cause: e })",
    "proxies": "let p = {}\nfor (;;) p = new Proxy(p, {})",
    "bound functions": "let f = () => 0\nfor (;;) f = f.bind(null, 1, 2, 3)",
    "matches": "return [...'x'.repeat(200_000).matchAll(/x/g)].length",
    "split": "return 'x'.repeat(500_000).split('').length",
    "caught and tried again": "const all = []\n"
    "for (;;) { try { for (;;) all.push(new Uint8Array(9999)) } catch { all.push(0) } }",
    "spread": "let a = [1, 2]\nfor (;;) a = [...a, ...a]",
    "flat": "return new Array(2000).fill(new Array(2000).fill(1)).flat().length",
    "structure from JSON": "return JSON.parse('[' + '{},'.repeat(60_000) + '{}]').length",
    "big result": "return new Array(300_000).fill('xxxxxxxx')",
}

STACK = {
    "function": "const f = () => f() + 1\nreturn f()",
    "mutual": "const f = n => g(n) + 1, g = n => f(n) + 1\nreturn f(1)",
    "getter": "const o = { get x() { return this.x + 1 } }\nreturn o.x",
    "toString": "const o = { toString() { return `${this}!` } }\nreturn `${o}`",
    "constructor": "class A { constructor() { this.a = new A() } }\nreturn new A()",
    "proxy of itself": "const p = new Proxy({}, {})\nObject.setPrototypeOf(p, p)\nreturn p.x",
    "apply": "const f = () => f.apply(null, []) + 1\nreturn f()",
    "map": "const f = () => [1].map(f)[0] + 1\nreturn f()",
    "sort": "const f = () => [2, 1].sort(f)\nreturn f()",
    "toJSON": "const o = { toJSON() { return JSON.stringify(o) } }\nreturn o",
    "spread": "const f = () => [...{ *[Symbol.iterator]() { yield f() } }]\nreturn f()",
    "nested JSON parsed": "return JSON.parse('['.repeat(20000) + ']'.repeat(20000)).length",
    "replace": "const f = () => 'x'.replace('x', f)\nreturn f()",
    "nested source": "return " + "(" * 20000 + "1" + ")" * 20000,
    "nested array source": "return " + "[" * 20000 + "]" * 20000,
}

THROWN = {
    "caught loop rethrown": Hostile("throw new Error('no')", "thrown", "Error: no"),
    "text": Hostile("throw 'no'", "thrown", "no"),
    "nothing": Hostile("throw undefined", "thrown", "undefined"),
    "null": Hostile("throw null", "thrown", "null"),
    "symbol": Hostile("throw Symbol('s')", "thrown", "Symbol(s)"),
    "object without prototype": Hostile("throw Object.create(null)", "thrown", "{}"),
    "function": Hostile("throw () => 1", "thrown", "() => 1"),
    "object whose toString throws": Hostile(
        "throw { toString() { throw 1 }, toJSON() { throw 2 } }", "thrown"
    ),
    "revoked proxy": Hostile(
        "const { proxy, revoke } = Proxy.revocable({}, {})\nrevoke()\nthrow proxy", "thrown"
    ),
    "error with a long message": Hostile("throw new Error('x'.repeat(200_000))", "thrown", "xxxx"),
    "error with a long name": Hostile(
        "const e = new Error('m')\ne.name = 'n'.repeat(50_000)\nthrow e", "thrown", "nnnn"
    ),
    "error with a long stack": Hostile(
        "const e = new Error('m')\ne.stack = 's'.repeat(100_000)\nthrow e", "thrown", "Error: m"
    ),
    "error whose name is an object": Hostile(
        "const e = new Error('m')\ne.name = { toString() { throw 1 } }\nthrow e", "thrown", "m"
    ),
    "fake stack": Hostile(
        "const e = new Error('m')\ne.stack = 'at job.js:999999999999:1'\nthrow e", "thrown", "m"
    ),
    "stack is a getter that throws": Hostile(
        "const e = new Error('m')\n"
        "Object.defineProperty(e, 'stack', { get() { throw 1 } })\nthrow e",
        "thrown",
        "m",
    ),
    "error that looks like out of memory": Hostile(
        "const e = new InternalError('out of memory')\nthrow e", "thrown", "out of memory"
    ),
    "error that looks like stack overflow": Hostile(
        "throw new RangeError('Maximum call stack size exceeded')", "thrown", "call stack"
    ),
    "error that looks like an interrupt": Hostile(
        "throw new InternalError('interrupted')", "thrown", "interrupted"
    ),
    "rejected later": Hostile(
        "await Promise.reject(new TypeError('later'))", "thrown", "TypeError: later"
    ),
    "thrown in toJSON": Hostile("return { toJSON() { throw new Error('in') } }", "thrown", "in"),
    "thrown in a getter": Hostile("return { get x() { throw new Error('in') } }", "thrown", "in"),
    "unhandled rejection": Hostile(
        "Promise.reject(new Error('x'))\nreturn 1",
        "unhandled",
        "nobody handled the error: Error: x",
    ),
    "forgotten await": Hostile(
        "const f = async () => { await 1; throw new TypeError('y') }\nf()\nreturn 1",
        "unhandled",
        "TypeError: y",
    ),
    "microtask that throws": Hostile(
        "queueMicrotask(() => { throw new RangeError('z') })\nreturn 1",
        "unhandled",
        "nobody handled the error: RangeError: z",
    ),
    "aggregate": Hostile("await Promise.any([Promise.reject(1)])", "thrown", "AggregateError"),
    "control characters": Hostile("throw new Error('\\x1b[2J\\x07\\x00\\u202e')", "thrown"),
    "lone surrogate message": Hostile("throw new Error('\\ud800')", "thrown"),
    "longest text": Hostile("let s = 'x'\nfor (;;) s += s", "thrown", "string too long"),
    "longest BigInt": Hostile("return 1n << 100_000_000n", "thrown", "BigInt is too large"),
    "nested regular expression": Hostile(
        "return new RegExp('(?:'.repeat(9000) + ')'.repeat(9000))", "thrown", "stack overflow"
    ),
    "too many captures": Hostile(
        "return new RegExp('('.repeat(20000) + ')'.repeat(20000))", "thrown", "too many captures"
    ),
    "thrown object with a toString that loops": Hostile(
        "throw { toString() { for (;;) ; } }", "thrown", "{}"
    ),
    "broken array length": Hostile("new Array(-1)", "thrown", "RangeError"),
    "uses a name that is not there": Hostile("return process.env", "thrown", "process"),
    "writes to a frozen name": Hostile("undefined = 1", "thrown", "read-only"),
}

SYNTAX = {
    "nothing closes": Hostile("return (", "syntax"),
    "closes too much": Hostile("return 1 }", "syntax"),
    "await as a name": Hostile("let await = 1", "syntax"),
    "with": Hostile("with ({}) ;", "syntax"),
    "octal": Hostile("return 010", "syntax"),
    "unfinished text": Hostile("return 'x", "syntax"),
    "unfinished template": Hostile("return `x", "syntax"),
    "unfinished comment": Hostile("return 1 /*", "syntax"),
    "regular expression": Hostile("return /(/", "syntax"),
    "NUL": Hostile("return 1\x00+1", "syntax"),
    "huge regular expression count": Hostile("return /a{1,99999999999999}{2}/", "syntax"),
    "bad escape": Hostile("return '\\u{110000}'", "syntax"),
    "import": Hostile("import 'x'", "syntax"),
}

NOT_JSON = {
    "function": Hostile("return () => 1", "not-json", "function"),
    "symbol": Hostile("return Symbol()", "not-json", "symbol"),
    "BigInt": Hostile("return 1n", "not-json", "BigInt"),
    "BigInt inside": Hostile("return { a: [1n] }", "not-json", "BigInt"),
    "circle": Hostile("const a = []\na.push(a)\nreturn a", "not-json", "circular"),
    "toJSON gives nothing": Hostile("return { toJSON() {} }", "not-json", "toJSON"),
    "toJSON gives a function": Hostile("return { toJSON: () => () => 1 }", "not-json"),
    "class": Hostile("return class {}", "not-json", "function"),
    "nested too deeply": Hostile(
        "let a = []\nfor (let i = 0; i < 300; i++) a = [a]\nreturn a", "not-json", "nested deeper"
    ),
    "nested as deeply as the guest can": Hostile(
        "let a = []\nfor (let i = 0; i < 2000; i++) a = { a }\nreturn a", "not-json", "nested"
    ),
}

UNSETTLED = {
    "never settles": Hostile("await new Promise(() => {})", "unsettled", "promise"),
    "never settles as result": Hostile("return new Promise(() => {})", "unsettled"),
    "thenable that never calls": Hostile("return { then() {} }", "unsettled"),
    "waits for itself": Hostile(
        "let p\np = (async () => { await 0\n await p })()\nawait p", "unsettled"
    ),
    "race of nothing": Hostile("await Promise.race([])", "unsettled"),
    "async iterator that waits": Hostile(
        "for await (const x of { [Symbol.asyncIterator]: () => ({"
        " next: () => new Promise(() => {}) }) }) ;",
        "unsettled",
    ),
}

OUTPUT = {
    "long text": Hostile("return 'x'.repeat(300_000)", "output", "256KiB"),
    "many numbers": Hostile("return new Array(80_000).fill(12345)", "output"),
    "escapes grow": Hostile("return '\\x01'.repeat(60_000)", "output"),
    "console flood, then output": Hostile(
        "for (let i = 0; i < 3000; i++) console.log('line', i)\nreturn 'x'.repeat(300_000)",
        "output",
    ),
    "repeated reference": Hostile("return new Array(200).fill('x'.repeat(2000))", "output"),
}

# These end well: what they do to the guest's own world must not matter outside of it.
HARMLESS = {
    "console flood": Hostile("for (let i = 0; i < 20_000; i++) console.log('x'.repeat(50))", "ok"),
    "console of a huge line": Hostile("console.log('x'.repeat(500_000))", "ok"),
    "console of nothing, often": Hostile("for (let i = 0; i < 20_000; i++) console.log()", "ok"),
    "console of control characters": Hostile(
        "console.log('\\x1b[2J\\r\\n\\x00\\u202e\\u2028')", "ok"
    ),
    "console is replaced": Hostile("console.log = 1\nconsole = null", "ok"),
    "JSON is replaced": Hostile("JSON = { stringify: () => { for (;;) ; } }\nreturn 1", "ok"),
    "JSON.stringify is replaced": Hostile("JSON.stringify = () => 'no'\nreturn 1", "ok"),
    "Promise is replaced": Hostile("Promise = null\nreturn 1", "ok"),
    "then is replaced": Hostile("Promise.prototype.then = () => { for (;;) ; }\nreturn 1", "ok"),
    "Array.prototype is changed": Hostile(
        "Array.prototype[0] = 'x'\nArray.prototype.toString = null\nreturn [1]", "ok"
    ),
    "Object.prototype is changed": Hostile(
        "Object.defineProperty(Object.prototype, 'status', { set() { throw 1 } })\nreturn {}", "ok"
    ),
    "globalThis is emptied": Hostile(
        "for (const k of Object.getOwnPropertyNames(globalThis)) { try { delete globalThis[k] }"
        " catch {} }\nreturn 1",
        "ok",
    ),
    "globalThis is frozen": Hostile("Object.freeze(globalThis)\nreturn 1", "ok"),
    "undefined result": Hostile("", "ok"),
    "lone surrogates": Hostile("return ['\\ud800', { '\\udc00': '\\udfff' }]", "ok"),
    "NUL": Hostile("return '\\0a\\0'", "ok"),
    "numbers at the edge": Hostile(
        "return [1e308, -0, 5e-324, 2 ** 53, 1e21, 12345678901234567890, NaN, Infinity]", "ok"
    ),
    "odd keys": Hostile(
        "return { __proto__: null, ['__proto__']: 1, constructor: 2, '': 3, '\\n': 4 }", "ok"
    ),
    "rejection that is handled late": Hostile(
        "const p = Promise.reject(new Error('x'))\nawait 1\ntry { await p } catch {}\nreturn 1",
        "ok",
    ),
    "many rejections that are handled": Hostile(
        "for (let i = 0; i < 20000; i++) await (async () => { throw i })().catch(() => 0)\n"
        "return 1",
        "ok",
    ),
    "memory error that is caught": Hostile(
        "try { new Uint8Array(1e8) } catch (e) { return e.name }", "ok"
    ),
    "stack error that is caught": Hostile(
        "const f = () => f() + 1\ntry { f() } catch (e) { return e.name }", "ok"
    ),
    "many microtasks": Hostile(
        "let n = 0\nfor (let i = 0; i < 500; i++) queueMicrotask(() => n++)\nawait 0\nreturn n",
        "ok",
    ),
    "nested as deep as it gets": Hostile(
        "let a = []\nfor (let i = 0; i < 200; i++) a = [a]\nreturn a", "ok"
    ),
}

FUEL = {
    "loop": Hostile(_FOREVER, "fuel", "fuel limit", ("--fuel", "1000000")),
    "regular expression": Hostile(
        SLOW_NATIVE_CODE["regular expression (a+)+"], "fuel", "", ("--fuel", "1000000")
    ),
    "start": Hostile("return 1", "fuel", "", ("--fuel", "1")),
}


def hostile_jobs() -> dict[str, Hostile]:
    """Give every job by a name that says what it attacks."""
    groups: dict[str, dict[str, Hostile]] = {
        "endless": {name: Hostile(code, "wall") for name, code in ENDLESS_LOOPS.items()},
        "slow": {name: Hostile(code, "wall") for name, code in SLOW_NATIVE_CODE.items()},
        "memory": {name: Hostile(code, "memory") for name, code in MEMORY.items()},
        "stack": {name: Hostile(code, "stack") for name, code in STACK.items()},
        "thrown": THROWN,
        "syntax": SYNTAX,
        "not-json": NOT_JSON,
        "unsettled": UNSETTLED,
        "output": OUTPUT,
        "harmless": HARMLESS,
        "fuel": FUEL,
    }
    return {f"{group}: {name}": job for group, jobs in groups.items() for name, job in jobs.items()}
