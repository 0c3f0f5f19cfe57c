"""A small grammar of JavaScript, from which a seed makes one program.

A program is the body of a strict async function. It writes what it sees into the list `out` and
nearly always returns it. Whatever the seed, it ends: loops are counted, and every function and
every loop also counts its steps; it reads no clock and no chance; and it asks for little memory.

Each line of the tables is one production. `@kind` stands for an expression of that kind, and

    @new_kind  a name for a value of that kind, in reach of the statements that follow
    @own_kind  the same, in reach of the blocks of its own statement only
    @set_kind  a variable in reach that may be assigned
    @block     statements; @loop, @body, @async, @generator and @asyncgen say what encloses them
    @label     a label of its own

so that `@own_number` written twice in one line is the same name. Statements form a tree, and
`smaller_programs` gives what is left of it when some of them are dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

# How the program shows a value. Cut short, for a result should stay readable.
_PRELUDE = r"""
const out = [];
let steps = 0, room = 0;
const tick = () => { if (++steps > 500) throw new RangeError('too many steps') };
const approx = x => typeof x === 'number' ? Number(x.toPrecision(8)) : x;
const plain = x => x !== x ? NaN : x;
const cut = x => typeof x === 'bigint' ? BigInt.asIntN(200, x)
  : typeof x === 'string' ? x.slice(0, 120) : x;
const show = (x, depth = 0) => {
  if (--room < 0) return '…';
  if (typeof x === 'string') return JSON.stringify(x.length > 300 ? [x.length, x.slice(0, 300)] : x);
  if (typeof x === 'bigint') return `${x}n`;
  if (typeof x === 'function') return `function ${String(x.name)}/${String(x.length)}`;
  if (typeof x !== 'object' || x === null) return Object.is(x, -0) ? '-0' : String(x);
  if (depth > 3) return '{…}';
  const all = [];
  const list = more => { for (const one of more) all.push(show(one, depth + 1)) };
  let tag = Object.prototype.toString.call(x);
  if (Error.isError(x)) tag = `${x.name}: ${x.message}`;
  else if (x instanceof Date) tag = `Date ${Number(x)}`;
  else if (x instanceof RegExp) tag = String(x);
  else if (x instanceof Map || x instanceof Set) list([...x].slice(0, 16));
  else if (x instanceof ArrayBuffer && !x.detached) list(new Uint8Array(x).slice(0, 16));
  for (const key of Reflect.ownKeys(x).slice(0, 18))
    if (key !== 'stack') all.push(`${String(key)}: ${show(x[key], depth + 1)}`);
  return `${tag} {${all.join(', ')}}`;
};
const put = (...values) => {
  let text;
  room = 60;
  try { text = values.map(one => show(one)).join(' ') } catch (error) { text = 'cannot be shown' }
  if (out.length < 200) out.push(text);
};
const probe = f => { try { put(f()) } catch (error) { put('threw', error) } };
class List extends Array {
  constructor(...all) { super(...(all.length === 1 && all[0] > 99 ? [9] : all)) }
}
class Bytes extends Uint8Array { constructor(x, ...all) { super(x > 99 ? 9 : x, ...all) } }
const later = async f => { try { put(await f()) } catch (error) { put('threw', error) } };
"""

_EXACT_MATH = "abs floor ceil round trunc sign sqrt fround f16round clz32".split()
_ROUGH_MATH = (
    "sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh exp expm1 log log1p log2 log10 cbrt"
).split()
_DATE_PARTS = "FullYear Month Date Hours Minutes Seconds Milliseconds Day".split()
_DATE_TEXTS = (
    "toString toUTCString toGMTString toISOString toDateString toTimeString toLocaleString"
    " toLocaleDateString toLocaleTimeString toJSON"
).split()
_VIEW_INTEGERS = "Int8 Uint8 Int16 Uint16 Int32 Uint32".split()
_VIEW_FLOATS = "Float16 Float32 Float64".split()
_VIEW_BIGINTS = "BigInt64 BigUint64".split()
_INTEGER_ARRAYS = (
    "Int8Array Uint8Array Uint8ClampedArray Int16Array Uint16Array Int32Array Uint32Array"
).split()
_FLOAT_ARRAYS = "Float16Array Float32Array Float64Array".split()
_BIGINT_ARRAYS = "BigInt64Array BigUint64Array".split()
_TAGS = "big blink bold fixed italics small strike sub sup".split()
_TAGS_OF = "anchor fontcolor fontsize link".split()
_ERRORS = "Error TypeError RangeError SyntaxError ReferenceError EvalError URIError".split()

# Methods that arrays and typed arrays share: each is tried on both.
_LIST_METHODS = (
    "at(@small)",
    "with(@small, @scalar)",
    "includes(@scalar)",
    "indexOf(@scalar, @small)",
    "lastIndexOf(@scalar)",
    "join()",
    "join(@string)",
    "slice(@small)",
    "slice(@small, @small)",
    "fill(@scalar, @small, @small)",
    "copyWithin(@small, @small, @small)",
    "reverse()",
    "toReversed()",
    "sort()",
    "sort(@comparator)",
    "toSorted()",
    "toSorted(@comparator)",
    "map(@function)",
    "filter(@function)",
    "every(@function)",
    "some(@function)",
    "find(@function)",
    "findIndex(@function)",
    "findLast(@function)",
    "findLastIndex(@function)",
    "forEach(@function)",
    "reduce(@reducer, @scalar)",
    "reduceRight(@reducer)",
    "keys().toArray()",
    "values().toArray()",
    "entries().toArray()",
    "toString()",
    "toLocaleString()",
)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


_EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "any": _lines(
        """
        @number
        @number
        @string
        @string
        @bigint
        @boolean
        @array
        @object
        @map
        @set
        @typed
        @buffer
        @date
        @regexp
        @symbol
        @error
        @function
        @iterator
        @list_result
        @string_result
        @regexp_result
        @object_result
        @json_result
        @map_result
        @sets_result
        @typed_result
        @iterator_result
        @generator_result
        @reflect_result
        @date_result
        @text_function
        @boolean ? @any : @any
        @any ?? @any
        @any || @any
        @any && @any
        (@any, @any)
        @object?.a
        @object?.a?.b.c
        @object?.[@key]
        @object.a?.(@any)
        @array?.[@small]
        @array[@small]
        @string[@small]
        @function(@any, @any)
        @function?.(@any)
        @function.call(@any, @any, @any)
        @function.apply(null, @array)
        @function.bind(@any, @any)(@any)
        (() => { tick(); @body })()
        (function () { tick(); @body }).call(@scalar)
        void @any
        typeof @any
        new Number(@any)
        new String(@any)
        new Boolean(@any)
        Object(@any)
        globalThis.nothing
        undefined
        null
        """
    ),
    "scalar": _lines(
        """
        @number
        @number
        @string
        @string
        @bigint
        @boolean
        @symbol
        undefined
        null
        """
    ),
    "number": _lines(
        """
        @arithmetic
        @arithmetic
        @bitwise
        @mathematics
        @parsed_number
        @string_number
        @list_number
        @date_number
        @view_number
        @boolean ? @number : @number
        @number ?? @number
        @set_number++
        --@set_number
        @set_number += @number
        @set_number ??= @number
        @set_number **= @digit
        @set_number >>>= @small
        """
    ),
    "arithmetic": _lines(
        """
        -@number
        +@any
        @number + @number
        @number - @number
        @number * @number
        @number / @number
        @number % @number
        @digit ** @digit
        (-@digit) ** @digit
        approx(@number ** @number)
        approx(Math.pow(@number, @number))
        Number(@any)
        Number(@bigint)
        -(-@number)
        @number - -@number
        1 / @number
        """
    ),
    "bitwise": _lines(
        """
        ~@number
        @number | @number
        @number & @number
        @number ^ @number
        @number << @number
        @number >> @number
        @number >>> @number
        @number | 0
        @number >>> 0
        Math.imul(@number, @number)
        """
    ),
    "mathematics": (
        *(f"Math.{name}(@number)" for name in _EXACT_MATH),
        *(f"approx(Math.{name}(@number))" for name in _ROUGH_MATH),
        *_lines(
            """
            approx(Math.atan2(@number, @number))
            approx(Math.hypot(@number, @number, @number))
            Math.max(@number, @number)
            Math.min(@number, @number, @any)
            Math.max(...@numbers)
            Math.sumPrecise(@numbers)
            Number.MAX_SAFE_INTEGER - @digit
            Number.EPSILON * @number
            Number.MIN_VALUE * @number
            """
        ),
    ),
    "parsed_number": _lines(
        """
        parseInt(@string)
        parseInt(@string, @radix)
        Number.parseInt(@numeral, @radix)
        parseFloat(@string)
        Number.parseFloat(@numeral)
        Number(@string)
        Number(@numeral)
        +@numeral
        @numeral * 1
        """
    ),
    "string_number": _lines(
        """
        @string.length
        @string.charCodeAt(@small)
        @string.codePointAt(@small)
        @string.indexOf(@string)
        @string.indexOf(@string, @small)
        @string.lastIndexOf(@string)
        @string.lastIndexOf(@string, @small)
        @string.search(@regexp)
        @string.localeCompare(@string)
        @regexp.lastIndex
        """
    ),
    "list_number": _lines(
        """
        @array.length
        @array.push(@scalar)
        @array.unshift(@scalar, @scalar)
        @array.pop()
        @array.shift()
        @array.indexOf(@scalar)
        @numbers.reduce((a, b) => a + b, @number)
        @numbers.at(@small)
        @typed.length
        @typed.byteLength
        @typed.byteOffset
        @typed[@small]
        @map.size
        @set.size
        @function.length
        @buffer.byteLength
        @buffer.maxByteLength
        """
    ),
    "date_number": (
        *(f"@date.get{zone}{part}()" for part in _DATE_PARTS for zone in ("", "UTC")),
        *_lines(
            """
            @date.getTime()
            @date.valueOf()
            @date.getYear()
            @date.getTimezoneOffset()
            Date.UTC(@year, @number, @number)
            Date.UTC(@year, @digit, @small, @small, @small, @small, @small)
            Date.parse(@date_text)
            Date.parse(@string)
            @date - @date
            """
        ),
    ),
    "view_number": (
        *(
            f"@view.get{name}(@small{order})"
            for name in (*_VIEW_INTEGERS, *_VIEW_FLOATS)
            for order in ("", ", true")
        ),
        "@view.byteLength",
        "@view.byteOffset",
    ),
    "numbers": _lines(
        """
        [@number, @number, @number]
        [@number, @number, @number, @number, @number]
        @numbers.map(x => x * @number)
        @numbers.filter(x => x > @number)
        @numbers.toSorted((a, b) => a - b)
        @numbers.toSorted()
        [...@numbers, ...@numbers].slice(0, 20)
        Array.from({ length: @count }, (_, i) => i * @number)
        @string.split('').map(Number)
        [...@typed].map(Number)
        """
    ),
    "bigint": _lines(
        """
        -@bigint
        ~@bigint
        @bigint + @bigint
        @bigint - @bigint
        @bigint * @bigint
        @bigint / @bigint
        @bigint % @bigint
        cut(@bigint ** @few)
        @bigint & @bigint
        @bigint | @bigint
        @bigint ^ @bigint
        cut(@bigint << @bits)
        @bigint >> @bits
        cut(@bigint >> -@bits)
        BigInt(@number)
        BigInt(Math.trunc(@number))
        BigInt(@numeral)
        BigInt(@boolean)
        BigInt.asIntN(@width, @bigint)
        BigInt.asUintN(@width, @bigint)
        BigInt.asUintN(64, @bigint) * BigInt.asIntN(64, @bigint)
        @bigint.valueOf()
        @set_bigint++
        @set_bigint += @bigint
        new BigInt64Array([@bigint])[0]
        new BigUint64Array([@bigint])[0]
        @view.getBigInt64(@small)
        @view.getBigUint64(@small, true)
        """
    ),
    "string": _lines(
        """
        @string + @string
        @string + @any
        @cased_string
        @cut_string
        @number_string
        @template
        @replaced_string
        @encoded_string
        @date_string
        @markup_string
        @set_string += @digit
        String(@any)
        @array.join(@string)
        typeof @any
        JSON.stringify(@any)
        JSON.stringify(@string)
        @symbol.description
        @symbol.toString()
        @function.name
        String(@function)
        @regexp.source
        @regexp.flags
        @boolean ? @string : @string
        """
    ),
    "cased_string": _lines(
        """
        @string.toUpperCase()
        @string.toLowerCase()
        @string.toLocaleUpperCase()
        @string.toLocaleLowerCase()
        @string.normalize()
        @string.normalize(@form)
        @string.toWellFormed()
        @string.toString()
        @string.valueOf()
        """
    ),
    "cut_string": _lines(
        """
        @string.slice(@small)
        @string.slice(@small, @small)
        @string.substring(@small, @small)
        @string.substr(@small, @small)
        @string.charAt(@small)
        @string.at(@small)
        @string.trim()
        @string.trimStart()
        @string.trimEnd()
        @string.trimLeft()
        @string.trimRight()
        cut(@string).repeat(@size)
        cut(@string).padStart(@size, @string)
        cut(@string).padEnd(@size)
        @string.concat(@string, @any)
        String.fromCharCode(@number, @number)
        String.fromCodePoint(@code_point)
        [...@string].reverse().join('')
        """
    ),
    "number_string": _lines(
        """
        @number.toString()
        @number.toString(@radix)
        @number.toFixed(@small)
        @number.toPrecision(@digit)
        @number.toExponential(@digit)
        @number.toExponential()
        @number.toLocaleString()
        String(@number)
        `${@number}`
        @bigint.toString()
        @bigint.toString(@radix)
        @bigint.toLocaleString()
        `${@bigint}`
        @boolean.toString()
        """
    ),
    "template": _lines(
        """
        `a${@any}b`
        `${@string}\\n${@number}\\u{1F600}`
        `${@string}${`${@number}`}`
        String.raw`\\u0041${@string}\\n`
        String.raw({ raw: @array }, @any, @any)
        ((parts, ...values) => parts.raw.join('|') + values.length)`x${@any}\\ty${@any}`
        ((parts, ...values) => String(parts) + values.map(String))`\\xg${@string}${@number}`
        """
    ),
    "replaced_string": _lines(
        """
        @string.replace(@string, @string)
        @string.replace(@regexp, @pattern)
        @string.replace(@regexp, @function)
        @string.replace(@regexp, (...all) => all.map(String).join('/'))
        @string.replaceAll(@string, @pattern)
        @string.replaceAll(@regexp, (all, ...rest) => `<${all}${rest.length}>`)
        @regexp[Symbol.replace](@string, @pattern)
        RegExp.escape(@string)
        """
    ),
    "encoded_string": _lines(
        """
        encodeURIComponent(@string)
        encodeURI(@string)
        decodeURIComponent(@string)
        decodeURI(@string)
        escape(@string)
        unescape(@string)
        btoa(@string)
        atob(@string)
        new Uint8Array(@numbers).toBase64()
        new Uint8Array(@numbers).toHex()
        """
    ),
    "date_string": (
        *(f"@date.{name}()" for name in _DATE_TEXTS),
        "Date.prototype[Symbol.toPrimitive].call(@date, @hint)",
        "`${@date}`",
        "@date + @string",
    ),
    "markup_string": (
        *(f"@string.{name}()" for name in _TAGS),
        *(f"@string.{name}(@string)" for name in _TAGS_OF),
    ),
    "boolean": _lines(
        """
        !@any
        @number < @number
        @number >= @number
        @any == @any
        @any != @any
        @any === @any
        @scalar < @scalar
        @scalar <= @scalar
        @bigint == @number
        @bigint < @number
        @string > @string
        Object.is(@scalar, @scalar)
        Number.isInteger(@any)
        Number.isSafeInteger(@number)
        Number.isNaN(@any)
        Number.isFinite(@number)
        isNaN(@any)
        isFinite(@any)
        @string.includes(@string)
        @string.startsWith(@string, @small)
        @string.endsWith(@string)
        @string.isWellFormed()
        @regexp.test(@string)
        @key in @object
        @any instanceof Object
        @any instanceof @function
        @array.includes(@scalar)
        @map.has(@scalar)
        @set.has(@scalar)
        @map.delete(@scalar)
        @set.delete(@scalar)
        Object.hasOwn(@object, @key)
        delete @object[@key]
        Array.isArray(@any)
        Error.isError(@any)
        ArrayBuffer.isView(@any)
        Reflect.has(@object, @key)
        Boolean(@any)
        @boolean.valueOf()
        """
    ),
    "array": _lines(
        """
        []
        [@any, @any]
        [@scalar, , @scalar, ]
        [@scalar, @scalar, @scalar, @scalar]
        [@array, @scalar]
        [...@string]
        [...@array, @scalar]
        [...@iterator]
        @numbers
        @built_array
        @built_array
        @set_array
        """
    ),
    "built_array": _lines(
        """
        Array(@size)
        new Array(@scalar, @scalar)
        Array.of(@scalar, @any)
        Array.from(@iterator)
        Array.from(@string, @function)
        Array.from({ length: @count, 0: @any })
        @array.map(@function)
        @array.filter(@function)
        @array.slice(@small, @small)
        @array.concat(@any, @array)
        @array.flat()
        @array.flat(@digit)
        @array.flatMap(x => [x, @scalar])
        @array.flatMap(@function)
        @array.toSorted(@comparator)
        @array.toReversed()
        @array.toSpliced(@small, @small, @scalar)
        @array.splice(@small, @small, @scalar)
        @array.with(@small, @scalar)
        @string.split(@string)
        @string.split(@string, @small)
        @string.split(@regexp)
        @string.match(@regexp) ?? []
        [...@string.matchAll(@global_regexp)]
        Object.keys(@object)
        Object.values(@object)
        Object.entries(@object)
        Object.getOwnPropertyNames(@any)
        Object.getOwnPropertySymbols(@object)
        Reflect.ownKeys(@object)
        [...@map]
        [...@set]
        [...@map.keys()]
        [...@typed]
        (function () { return [...arguments].concat(arguments.length) })(@any, @any)
        ((...rest) => rest)(...@array, @scalar)
        """
    ),
    "list_result": (
        *(f"@array.{method}" for method in _LIST_METHODS),
        *_lines(
            """
            @array.flat(Infinity)
            @array.concat(@array).length
            Array.prototype.concat.call(@scalar, @array)
            Array.prototype.map.call(@string, @function)
            Array.prototype.slice.call({ length: @count, 1: @any })
            Array.prototype.push.call({ length: @small }, @scalar)
            Array.prototype.join.call({ length: @count, 0: @scalar }, @string)
            Array.prototype.splice.call({ length: @count, 2: @scalar }, @small, @small)
            Array.prototype.includes.call(@typed, @scalar)
            Array.prototype.constructor.from.call(@class, @array)
            """
        ),
    ),
    "string_result": _lines(
        """
        @string.split(@regexp, @small)
        @string.match(@regexp)
        @string.match(@string)
        @string.matchAll(@regexp)
        @string.codePointAt(@small)
        [...@string].map(x => x.codePointAt(0))
        Object.entries(@string)
        Object.groupBy(@string, x => x.toLowerCase())
        [@string, @string, @string].sort()
        [@string, @string, @string].sort((a, b) => a.localeCompare(b))
        @string[Symbol.iterator]().next()
        """
    ),
    "regexp_result": _lines(
        """
        @regexp.exec(@string)
        @regexp.exec(@string)?.groups
        @regexp.exec(@string)?.indices
        @regexp.toString()
        ((r, s) => [r.test(s), r.lastIndex, r.test(s), r.lastIndex])(@regexp, @string)
        ((r, s) => { r.lastIndex = @small; return [r.exec(s), r.lastIndex] })(@regexp, @string)
        @regexp[Symbol.match](@string)
        @regexp[Symbol.split](@string, @small)
        @regexp[Symbol.search](@string)
        [...@global_regexp[Symbol.matchAll](@string)].map(x => [x.index, ...x])
        [@regexp.global, @regexp.sticky, @regexp.unicode, @regexp.dotAll, @regexp.hasIndices]
        [@regexp.ignoreCase, @regexp.multiline, @regexp.unicodeSets]
        new RegExp(@string)
        new RegExp(@string, @string)
        new RegExp(@regexp, @flags).exec(@string)
        RegExp('[' + RegExp.escape(@string) + ']', @flags).exec(@string)
        RegExp(@broken_regexp, @flags)
        @regexp.compile(@string)
        Object.getOwnPropertyDescriptor(@regexp, 'lastIndex')
        """
    ),
    "object": _lines(
        """
        ({})
        ({ a: @any, b: @scalar })
        ({ a: @scalar, [@key]: @any, 1: @scalar })
        ({ ...@object, c: @scalar })
        ({ ...@array, ...@string })
        ({ get a() { tick(); return @any }, set a(x) { put('set', x) } })
        ({ a: { b: { c: @scalar } }, d: null })
        ({ a(x) { tick(); @body }, *b() { yield @scalar }, async c() { return @scalar } })
        ({ __proto__: @object, e: @scalar })
        ({ __proto__: null, [@symbol]: @scalar, f: @any })
        ({ valueOf() { return @scalar }, toString() { return @string } })
        ({ [Symbol.toPrimitive](hint) { put(hint); return @scalar } })
        ({ toJSON(key) { return [key, @scalar] } })
        ({ *[Symbol.iterator]() { yield @scalar; yield* @array } })
        ({ get [Symbol.toStringTag]() { return @string } })
        Object.create(@object)
        Object.create(null, { g: { value: @scalar, enumerable: @boolean } })
        Object.assign(@object, @object, @scalar)
        Object.fromEntries([[@key, @scalar], ['h', @scalar]])
        Object.fromEntries(@map)
        Object.freeze(@object)
        Object.seal(@object)
        Object.preventExtensions(@object)
        Object.groupBy(@numbers, x => x > @number ? 'more' : 'less')
        new @class(@any)
        new @class(@any)
        @proxy
        JSON.parse(@json)
        """
    ),
    "object_result": _lines(
        """
        Object.getOwnPropertyDescriptor(@object, @key)
        Object.getOwnPropertyDescriptors(@object)
        Object.getOwnPropertyDescriptors(@class)
        Object.getPrototypeOf(@any) === Object.prototype
        Object.setPrototypeOf(@object, @object)
        Object.defineProperty(@object, @key, { value: @scalar, writable: @boolean })
        Object.defineProperty(@object, @key, { get: @function, configurable: @boolean })
        Object.defineProperty(@object, @key, { get: @function, value: @scalar })
        Object.defineProperty(@array, 'length', { value: @small, writable: @boolean })
        Object.defineProperties(@object, { x: { value: @scalar, enumerable: true }, y: @any })
        Object.isFrozen(@object) + Object.isSealed(@object) + Object.isExtensible(@object)
        Object.entries(@any)
        Object.prototype.toString.call(@any)
        @object.hasOwnProperty(@key)
        @object.propertyIsEnumerable(@key)
        @object.isPrototypeOf(@object)
        @object.toLocaleString()
        @object.valueOf()
        @object.toString()
        @object.__defineGetter__(@key, @function)
        @object.__defineSetter__(@key, @function)
        @object.__lookupGetter__(@key)
        @object.__lookupSetter__(@key)
        @object.constructor?.name
        (({ a, ...rest }) => [a, rest])(@object)
        (({ a: { b = @scalar } = {}, [@key]: c = @any }) => [b, c])(@object)
        (([a, , b = @scalar, ...c]) => ({ a, b, c }))(@array)
        (({ length }) => length)(@any)
        Object.keys(@any)
        @object[@key]
        @object[@symbol]
        @object + @scalar
        @object == @scalar
        @object.a = @scalar
        @object.a ??= @scalar
        @object.a ||= @scalar
        @object.a &&= @scalar
        @object[@key] += @scalar
        @object[@key]++
        @object.missing.deeper
        """
    ),
    "json_result": _lines(
        """
        JSON.stringify(@any)
        JSON.stringify(@any, null, @indent)
        JSON.stringify(@object, [@key, 'a', 'b', 1])
        JSON.stringify(@any, (key, value) => typeof value === 'bigint' ? `${value}` : value)
        JSON.stringify(@any, function (key, value) { put(key, this === value); return value })
        JSON.stringify({ a: @any, b: [@any, @symbol, @function] }, @replacer, @indent)
        JSON.stringify({ a: JSON.rawJSON(@numeral) })
        JSON.isRawJSON(@any)
        JSON.parse(@json)
        JSON.parse(@string)
        JSON.parse(@json, (key, value) => typeof value === 'number' ? -value : value)
        JSON.parse(@json, function (key, value) { return key === '' ? this : value })
        JSON.parse(@json, (key, value, context) => context?.source ?? value)
        JSON.parse(@json, @function)
        JSON.parse(JSON.stringify(@string)) === @string
        """
    ),
    "map": _lines(
        """
        new Map()
        new Map([[@scalar, @any], [@scalar, @any]])
        new Map(@map)
        new Map(Object.entries(@object))
        @map.set(@scalar, @scalar)
        Map.groupBy(@array, @function)
        Map.groupBy(@numbers, x => Math.sign(x))
        """
    ),
    "map_result": _lines(
        """
        @map.get(@scalar)
        @map.has(@scalar)
        @map.delete(@scalar)
        @map.clear()
        @map.getOrInsert(@scalar, @scalar)
        @map.getOrInsertComputed(@scalar, @function)
        @map.forEach(@function)
        @map.keys().toArray()
        [...@map.values()]
        [...@map.entries()]
        @map[Symbol.iterator]().next()
        ((m, k) => [m.has(k), m.set(k, @any).get(k), m.delete(k), m.has(k)])(new WeakMap(), @object)
        ((m, k) => [m.getOrInsert(k, @any), m.getOrInsertComputed(k, @function)])(new WeakMap(), @any)
        new WeakMap([[@any, @scalar]])
        ((s, k) => [s.has(k), s.add(k).has(k), s.delete(k), s.has(k)])(new WeakSet(), @any)
        (k => new WeakRef(k).deref() === k)(@object)
        """
    ),
    "set": _lines(
        """
        new Set()
        new Set(@array)
        new Set(@string)
        new Set(@numbers)
        @set.add(@scalar)
        @set.union(@set)
        @set.intersection(@set)
        @set.difference(@map)
        @set.symmetricDifference(@set)
        """
    ),
    "sets_result": _lines(
        """
        @set.has(@scalar)
        @set.delete(@scalar)
        @set.clear()
        @set.forEach(@function)
        @set.isSubsetOf(@set)
        @set.isSupersetOf(@set)
        @set.isDisjointFrom(@map)
        @set.union({ size: @small, has: @function, keys: () => @array.values() })
        @set.difference({ size: @small, has: @function, keys: () => @array.values() })
        [...@set.entries()]
        @set.values().toArray()
        @set.keys().next()
        """
    ),
    "typed": (
        *(f"new {name}(@numbers)" for name in (*_INTEGER_ARRAYS, *_FLOAT_ARRAYS)),
        *(f"new {name}([@bigint, @bigint])" for name in _BIGINT_ARRAYS),
        "@integers",
        "@integers",
        "Float64Array.of(@number, @number)",
        "Float32Array.from(@numbers, x => x / 3)",
        "new Float32Array(@integers)",
    ),
    "integers": (
        *(f"new {name}(@numbers)" for name in _INTEGER_ARRAYS),
        *(f"new {name}(@buffer)" for name in _INTEGER_ARRAYS),
        *_lines(
            """
            new Uint8Array(@size)
            new Uint8Array(@buffer, @small)
            new Uint16Array(@buffer, @small, @small)
            new BigUint64Array(@buffer)
            new Uint8Array(@integers)
            Uint8Array.fromBase64(@base64)
            Uint8Array.fromHex(@hexadecimal)
            @integers.subarray(@small, @small)
            @integers.slice(@small)
            """
        ),
    ),
    "typed_result": (
        *(f"@typed.{method}" for method in _LIST_METHODS),
        *(f"@view.set{name}(@small, @number)" for name in _VIEW_INTEGERS),
        *(f"@view.set{name}(@small, plain(@number), true)" for name in _VIEW_FLOATS),
        *(f"@view.set{name}(@small, @bigint, @boolean)" for name in _VIEW_BIGINTS),
        *_lines(
            """
            @integers.set(@numbers, @small)
            @integers.set(@integers)
            @integers.buffer
            @integers.subarray(@small).byteOffset
            @typed.BYTES_PER_ELEMENT
            @typed[Symbol.toStringTag]
            @integers[@small] = @number
            @typed[@key]
            Object.getOwnPropertyDescriptor(@typed, @small)
            Reflect.set(@integers, @small, @number)
            @integers.setFromHex?.(@hexadecimal)
            new Uint8Array(4).setFromBase64(@base64)
            new Uint8Array(@numbers).toBase64({ alphabet: 'base64url', omitPadding: @boolean })
            Uint8Array.fromBase64(@base64, { lastChunkHandling: 'strict' })
            Object.getPrototypeOf(Uint8Array).of.call(Int16Array, @number, @number)
            Object.getPrototypeOf(Uint8Array).from.call(Float64Array, @array)
            @typed.constructor.name
            """
        ),
    ),
    "buffer": _lines(
        """
        new ArrayBuffer(@size)
        new ArrayBuffer(16)
        new ArrayBuffer(8, { maxByteLength: 24 })
        new Uint8Array(@numbers).buffer
        @integers.buffer
        @buffer.slice(@small, @small)
        @buffer.transfer(@size)
        @buffer.transferToFixedLength()
        @buffer.sliceToImmutable(@small)
        @buffer.transferToImmutable()
        ((b, n) => (b.resize(n), b))(new ArrayBuffer(8, { maxByteLength: 24 }), @size)
        ((b, n) => (b.grow(n), b.slice(@small)))(new SharedArrayBuffer(1, { maxByteLength: 9 }), @size)
        """
    ),
    "view": _lines(
        """
        new DataView(new ArrayBuffer(16))
        new DataView(new Uint8Array([1, 2, 3, 255, 128, 127, 0, 240, 63, 9, 200]).buffer)
        new DataView(@buffer)
        new DataView(@buffer, @small)
        new DataView(@buffer, @small, @small)
        """
    ),
    "date": _lines(
        """
        new Date(@instant)
        new Date(@year, @digit)
        new Date(@year, @number, @small, @small, @small, @small, @small)
        new Date(@date_text)
        new Date(@date)
        new Date(Date.UTC(@year, @digit, @small))
        """
    ),
    "date_result": (
        *(
            f"((d, n) => [d.set{zone}{part}(n), d])(@date, @number)"
            for part in _DATE_PARTS
            if part != "Day"
            for zone in ("", "UTC")
        ),
        *_lines(
            """
            ((d, n) => [d.setTime(n), d])(@date, @instant)
            ((d, n) => [d.setYear(n), d])(@date, @year)
            ((d, n) => [d.setUTCHours(n, n, n, n), d])(@date, @small)
            ((d, n) => [d.setFullYear(n, n, n), d])(@date, @year)
            [@date < @date, @date == @date, +@date]
            Date(@year).length > 9
            JSON.stringify({ d: @date })
            Date.prototype.getTime.call(@any)
            """
        ),
    ),
    "iterator": _lines(
        """
        @array.values()
        @array.entries()
        @array
        @string
        @map
        @set
        @map.entries()
        @typed
        @set.values()
        @string.matchAll(@global_regexp)
        (function* () { tick(); @generator })()
        (function* (a, b = a) { tick(); yield a; yield* @array; return b })(@any)
        Iterator.from(@array)
        @array.values().map(@function)
        @string[Symbol.iterator]().filter(@function)
        Iterator.concat(@array, @array)
        @numbers.values().take(@digit)
        Iterator.zip([@numbers, @string])
        """
    ),
    "iterator_result": _lines(
        """
        @array.values().map(@function).toArray()
        @array.values().filter(@function).toArray()
        @array.values().take(@small).toArray()
        @array.values().drop(@small).toArray()
        @array.values().flatMap(x => [x, @scalar]).toArray()
        @array.values().reduce(@reducer, @scalar)
        @array.values().some(@function)
        @array.values().every(@function)
        @array.values().find(@function)
        @array.values().forEach(@function)
        @array.values().includes(@scalar)
        @array.values().join(@string)
        @array.values().chunks(@small).toArray()
        @array.values().windows(@small).toArray()
        Iterator.concat(@array, @set).toArray()
        Iterator.from(@iterator).toArray()
        Iterator.zip([@array, @numbers], { mode: 'longest', padding: [@scalar] }).toArray()
        Iterator.zip([@array, @numbers], { mode: 'strict' }).toArray()
        Iterator.zipKeyed({ a: @array, b: @string }).toArray()
        Iterator.from({ next: () => ({ done: @boolean, value: @scalar }) }).take(3).toArray()
        [...@iterator]
        Array.from(@iterator, @function)
        Math.max(...@iterator)
        new Set(@iterator).size
        Iterator.prototype[Symbol.toStringTag]
        """
    ),
    "generator_result": _lines(
        """
        ((g) => [g.next(), g.next(@any), g.return(@any), g.next()])((function* () { @generator })())
        ((g) => [g.next(), g.throw(@error), g.next()])((function* () { @generator })())
        (g => [g[Symbol.iterator]() === g, String(g), [...g].length])((function* () { @generator })())
        [...(function* () { try { yield @any } finally { yield @scalar; put('out') } })()]
        (([a, b]) => [a, b])((function* () { try { @generator } finally { put('closed') } })())
        """
    ),
    "reflect_result": _lines(
        """
        Reflect.apply(@function, @any, @array)
        Reflect.construct(@class, @array)
        Reflect.construct(@function, [@any], @class)
        Reflect.construct(Array, [@small], @class)
        Reflect.get(@object, @key, @any)
        Reflect.set(@object, @key, @scalar)
        Reflect.has(@any, @key)
        Reflect.ownKeys(@any).slice(0, 9)
        Reflect.deleteProperty(@object, @key)
        Reflect.defineProperty(@object, @key, { value: @scalar })
        Reflect.getOwnPropertyDescriptor(@any, @key)
        Reflect.getPrototypeOf(@object) === Reflect.getPrototypeOf(@object)
        Reflect.setPrototypeOf(@object, @any)
        Reflect.isExtensible(@object)
        Reflect.preventExtensions(@object)
        (({ proxy, revoke }) => (revoke(), proxy.a))(Proxy.revocable(@object, {}))
        (p => [p.a, 'a' in p, delete p.a, Object.keys(p)])(@proxy)
        (p => { p.a = @scalar; return p.a })(@proxy)
        new (new Proxy(@class, { construct: (of, all) => ({ all }) }))(@any)
        new Proxy(@function, { apply: (f, self, all) => f(...all, @scalar) })(@any)
        """
    ),
    "proxy": _lines(
        """
        new Proxy(@object, {})
        new Proxy(@array, { get: (of, key) => (put('get', key), Reflect.get(of, key)) })
        new Proxy(@object, { get: (of, key, self) => key === 'a' ? @scalar : Reflect.get(of, key) })
        new Proxy(@object, { has: () => @boolean, deleteProperty: () => @boolean })
        new Proxy(@object, { ownKeys: of => [...Reflect.ownKeys(of), 'z'] })
        new Proxy(@object, { set: (of, key, value) => (put('set', key), Reflect.set(of, key, value)) })
        new Proxy(@object, { getOwnPropertyDescriptor: () => ({ value: @scalar, configurable: true }) })
        new Proxy(@object, { defineProperty: () => @boolean, getPrototypeOf: () => null })
        new Proxy(@object, Reflect)
        """
    ),
    "symbol": _lines(
        """
        Symbol(@string)
        Symbol.for(@string)
        Symbol.iterator
        Symbol.asyncIterator
        Symbol.toStringTag
        Symbol.hasInstance
        Symbol.keyFor(@symbol)
        Symbol()
        @symbol.valueOf()
        """
    ),
    "error": (
        *(f"new {name}(@string)" for name in _ERRORS),
        *_lines(
            """
            new Error(@any, { cause: @any })
            new AggregateError([@any, @scalar], @string)
            new SuppressedError(@any, @any, @string)
            new DOMException(@string, 'DataError')
            Object.assign(new Error(@string), { name: @scalar, code: @scalar })
            new (class Custom extends TypeError { get name() { return @string } })(@string)
            (() => { try { @object.nothing.more } catch (error) { return error } })()
            """
        ),
    ),
    "function": _lines(
        """
        x => x
        (x, i) => i
        x => typeof x
        (x, y = @any, ...rest) => [x, y, rest.length]
        () => @any
        x => x > @number
        x => x + @scalar
        x => { tick(); @body }
        function (x) { tick(); return this === undefined ? x : @any }
        function named(x) { tick(); return typeof named + (x === undefined ? 0 : @any) }
        ({ a, b: [c] = [] }) => [a, c]
        String
        Number
        Boolean
        Symbol
        Object
        Math.abs
        parseInt
        async x => { tick(); @async }
        new Function('x', 'y', 'return [typeof x, y, this === globalThis]')
        @function.bind(@any, @scalar)
        @set_function
        @class
        """
    ),
    "text_function": _lines(
        """
        Function('a', 'b', 'return a + b')(@any, @any)
        new Function('a', 'return arguments.length + typeof arguments.callee')(@any, @any)
        new Function('with ({ x: 1 }) { return x + 010 }')()
        Function('a', 'a = 2; return arguments[0]')(@any)
        Function('leak = ' + @digit + '; return delete globalThis.leak')()
        (() => {}).constructor('return typeof this')()
        [...(function* () {}).constructor('yield 1; yield 2')()]
        Function(@string)
        Function(@string, 'return 1')
        """
    ),
    "comparator": _lines(
        """
        (a, b) => a - b
        (a, b) => b - a
        (a, b) => String(a) < String(b) ? -1 : 1
        (a, b) => (a > b) - (a < b)
        () => 0
        () => @number
        (a, b) => (tick(), typeof a === typeof b ? 0 : -1)
        @function
        """
    ),
    # A replacer that answers with something new each time never ends: these do after a while.
    "replacer": _lines(
        """
        (n => (key, value) => ++n > 30 ? value : @function(key, value))(0)
        (n => function (key, value) { return n-- > 0 ? { n, value } : @any })(@digit)
        [@key, @key, @number]
        @scalar
        """
    ),
    "reducer": _lines(
        """
        (all, x) => cut(all + x)
        (all, x, i) => i
        (all, x) => x
        (all, x) => cut(`${all}${String(x)}`)
        """
    ),
    "promise": _lines(
        """
        @any
        Promise.resolve(@any)
        Promise.reject(@error)
        Promise.reject(@scalar)
        (async () => { tick(); @async })()
        (async (x, y = @any) => { await null; return [x, y] })(@scalar)
        new Promise((done, fail) => { done(@any); @body })
        new Promise((done, fail) => (@boolean ? done : fail)(@any))
        ({ then(done, fail) { put('then'); done(@scalar) } })
        ({ get then() { throw @error } })
        Promise.all([@promise, @any])
        Promise.allSettled([@promise, @promise])
        Promise.any([@promise, @promise])
        Promise.race([@promise, @any])
        Promise.try(@function, @any)
        Promise.all(@any)
        @promise_of.then(@function)
        @promise_of.then(@function, error => (put('no', error), @scalar))
        @promise_of.catch(@function)
        @promise_of.finally(() => { put('finally'); @body })
        @promise_of.finally(() => { throw @error })
        (({ promise, resolve }) => (resolve(@promise), promise))(Promise.withResolvers())
        Array.fromAsync([@promise, @any])
        Array.fromAsync(@iterator, @function)
        (async function* () { tick(); @asyncgen })().next()
        """
    ),
    "promise_of": _lines(
        """
        Promise.resolve(@any)
        Promise.reject(@error)
        (async () => { tick(); @async })()
        """
    ),
    "asynchronous": _lines(
        """
        [@promise, @scalar]
        (async function* () { tick(); @asyncgen })()
        @iterator
        ({ async *[Symbol.asyncIterator]() { yield @any; yield* @array } })
        """
    ),
    "class": ("@set_class",),
}

_DECLARATIONS = _lines(
    """
    const @new_number = @number
    let @new_number = @number
    let @new_bigint = cut(@bigint)
    let @new_string = cut(@string)
    const @new_array = @array
    let @new_array = @array
    const @new_object = @object
    const @new_map = @map
    const @new_set = @set
    const @new_integers = @integers
    const @new_buffer = @buffer
    const @new_view = @view
    const @new_date = @date
    const @new_regexp = @regexp
    const @new_symbol = @symbol
    const @new_function = @function
    const @new_class = class { @members }
    const @new_class = class Inner extends @class { @heirs }
    var @new_number = @number
    """
)

_STATEMENTS = _lines(
    """
    put(@any)
    probe(() => @any)
    probe(() => @any)
    probe(() => @list_result)
    probe(() => @string_result)
    probe(() => @regexp_result)
    probe(() => @object_result)
    probe(() => @json_result)
    probe(() => @typed_result)
    probe(() => @iterator_result)
    probe(() => @generator_result)
    probe(() => @reflect_result)
    probe(() => @map_result)
    probe(() => @bigint)
    probe(() => @number)
    probe(() => @string)
    probe(() => @date_result)
    const [@new_any = @any, , ...@new_array] = @array
    const [@new_any, @new2_any = @any] = @iterator
    const { a: @new_any = @any, length: @new2_any, ...@new_object } = @object
    const { [@key]: @new_any, a: { b: @new2_any } = {} } = @object
    [@set_number, @set_string] = [@number, cut(@string)]
    ({ length: @set_number, a: @set_array = [] } = @array)
    @set_number = @number
    @set_number -= @number
    @set_number++
    @set_bigint = cut(@bigint * @bigint)
    @set_string = cut(@string + @string)
    @set_array = @array
    @array.push(@scalar)
    @array[@small] = @scalar
    @array.length = @size
    delete @array[@small]
    @object.a = @scalar
    @object[@key] = @scalar
    @map.set(@scalar, @scalar)
    @set.add(@scalar)
    @integers[@small] = @number
    @regexp.lastIndex = @small
    @date.setUTCMinutes(@number)
    if (@boolean) { @block } else { @block }
    if (@any) { @block }
    { @block }
    for (let @own_number = 0; @own_number < @count; @own_number++) { tick(); @loop }
    for (const @own_any of @iterator) { tick(); @loop }
    for (const [@own_any, @own2_any] of @map) { tick(); @loop }
    for (const @own_string in @object) { tick(); @loop }
    for (let [@own_any, ...@own_array] = @array; @own_array.length; @own_array.pop()) { tick(); @loop }
    { let @own_number = @count; while (@own_number-- && @any) { tick(); @loop } }
    { let @own_number = 0; do { tick(); @loop } while (++@own_number < @count) }
    @label: for (const @own_any of @array) { for (;;) { tick(); @labelled; break @label } }
    @label: { @labelled; put('after') }
    @label: for (let @own_number = 3; @own_number--;) { tick(); try { @labelled } finally { @block } }
    switch (@scalar) { case @scalar: { @case } case @scalar: { @case } break; default: { @case } }
    switch (@digit % 3) { default: { @case } case 0: put(0); case 1: { @case } break; case 2: put(2) }
    switch (@digit % 2) { case 0: let x = @any; case 1: put(typeof x); break; default: x = 1 }
    try { @block } catch (@own_any) { put('caught', @own_any); @block }
    try { @block } catch { put('caught') } finally { put('finally'); @block }
    try { @block; throw @any } catch ({ name: @own_any, message: @own2_any }) { put(@own_any, @own2_any) }
    probe(() => { try { @body } finally { put('finally'); @body } })
    probe(() => { try { return @any } finally { @body } })
    probe(() => { try { throw @any } catch (@own_any) { return @own_any } finally { @body } })
    probe(() => { for (const @own_any of @iterator) { tick(); try { @body } finally { continue } } })
    probe(() => { for (const @own_any of @iterator) { tick(); try { return @own_any } finally { break } } })
    throw @any
    function @new_function(@own_any, @own2_any = @any) { tick(); @body }
    function* @new_generating(@own_any) { tick(); @generator }
    async function @new_asynchronously(@own_any) { tick(); @async }
    const @new_function = ((@own_number) => () => { tick(); @body })(@number)
    put(@new_any); let @new_any = @any
    { const @own_number = @digit; probe(() => (function recur(n) { return n ? n + recur(n - 1) : 0 })(@own_number)) }
    class @new_class { @members }
    class @new_class extends @class { @heirs }
    class @new_class extends @builtin { @heirs }
    class @new_class extends @any { constructor(x) { super(x); this.own = x } }
    class @new_class { constructor(x) { put(new.target.name); return @any } }
    class @new_class extends @class { constructor(x) { @body; super(x) } }
    probe(() => new @class(@any))
    probe(() => { const x = new @class(@any); return [x.method(@any), x.field, x.value, x] })
    probe(() => { const x = new @class(@any); x.value = @scalar; return [x, Object.keys(x)] })
    probe(() => [@class.total, @class.make?.(@any), @class.name, @class.length])
    probe(() => new @class(@any).peek(@any))
    probe(() => { using @own_any = { [Symbol.dispose]() { put('disposed') } }; @body })
    probe(() => { const s = new DisposableStack(); s.defer(@function); s.use(null); s.dispose() })
    probe(() => { using s = new DisposableStack(); s.adopt(@any, put); s.move().dispose(); @body })
    using @new_any = { [Symbol.dispose]() { put('disposed'); @body } }
    probe(() => { "use strict"; undeclared = @any })
    probe(() => { Object.freeze(@set_array).push(@scalar) })
    put(typeof @set_any, @set_any?.a)
    debugger
    ;
    """
)

_MEMBERS = _lines(
    """
    constructor(x) { this.given = x; @body }
    field = @any
    field = () => this.#secret
    [@key] = @scalar
    #method(x) { tick(); return [this.#secret, x] }
    method(x) { tick(); return this.#method(x) }
    method(x) { tick(); @body }
    method(x) { return super.method(x) }
    peek(x) { return #secret in x }
    peek(x) { return x.#secret }
    peek(x) { return this.#secret++ + ++this.#secret }
    get value() { return this.#secret }
    set value(x) { this.#secret = x }
    get #hidden() { return @any }
    get value() { return this.#hidden }
    static total = @scalar
    static #made = 0
    static make(x) { this.#made++; return new this(x) }
    static { put('static', this.name); @block }
    static async make(x) { tick(); @async }
    static get [Symbol.species]() { return @species }
    *[Symbol.iterator]() { tick(); @generator }
    async method(x) { tick(); @async }
    async *method(x) { tick(); @asyncgen }
    toString() { return @string }
    toJSON() { return @any }
    static [Symbol.hasInstance](x) { return @boolean }
    """
)

# Of a class that extends another.
_HEIR_MEMBERS = _lines(
    """
    constructor(...all) { super(...all); this.#secret = all.length }
    constructor(x) { const f = () => super(x); f(); this.own = @any }
    constructor(x) { if (@boolean) super(x); this.own = x }
    constructor(x) { super(x); super(x) }
    constructor(x) { return @any }
    method(x) { return [super.method?.(x), @any] }
    static make(x) { return super.make?.(x) ?? @any }
    get value() { return super.value }
    """
)

# Whether a class can hold two of these, and what there is where none was chosen.
_MEMBER_NAME = re.compile(r"(?<![.\w])(?:#\w+|constructor)(?=\(| =)")
_PRIVATE_MEMBERS = {
    "#method": "#method(x) { return x }",
    "#hidden": "#hidden = 2",
    "#made": "static #made = 1",
}

_LOOP_DECLARATIONS = _lines(
    """
    const @new_number = @number
    let @new_number = @number
    let @new_bigint = cut(@bigint)
    let @new_string = cut(@string)
    const @new_array = @array
    let @new_array = @array
    const @new_object = @object
    const @new_map = @map
    const @new_set = @set
    const @new_integers = @integers
    const @new_buffer = @buffer
    const @new_view = @view
    const @new_date = @date
    const @new_regexp = @regexp
    const @new_symbol = @symbol
    const @new_function = @function
    const @new_class = class { @members }
    const @new_class = class Inner extends @class { @heirs }
    var @new_number = @number
    """
)

_STATEMENTS = _lines(
    """
    break
    continue
    if (@boolean) break
    if (@boolean) continue
    """
)

_FUNCTION_DECLARATIONS = _lines(
    """
    const @new_number = @number
    let @new_number = @number
    let @new_bigint = cut(@bigint)
    let @new_string = cut(@string)
    const @new_array = @array
    let @new_array = @array
    const @new_object = @object
    const @new_map = @map
    const @new_set = @set
    const @new_integers = @integers
    const @new_buffer = @buffer
    const @new_view = @view
    const @new_date = @date
    const @new_regexp = @regexp
    const @new_symbol = @symbol
    const @new_function = @function
    const @new_class = class { @members }
    const @new_class = class Inner extends @class { @heirs }
    var @new_number = @number
    """
)

_STATEMENTS = _lines(
    """
    return @any
    return
    if (@boolean) return @any
    throw @error
    put(arguments.length)
    """
)

_ASYNC_DECLARATIONS = _lines(
    """
    const @new_number = @number
    let @new_number = @number
    let @new_bigint = cut(@bigint)
    let @new_string = cut(@string)
    const @new_array = @array
    let @new_array = @array
    const @new_object = @object
    const @new_map = @map
    const @new_set = @set
    const @new_integers = @integers
    const @new_buffer = @buffer
    const @new_view = @view
    const @new_date = @date
    const @new_regexp = @regexp
    const @new_symbol = @symbol
    const @new_function = @function
    const @new_class = class { @members }
    const @new_class = class Inner extends @class { @heirs }
    var @new_number = @number
    """
)

_STATEMENTS = _lines(
    """
    put(await @promise)
    await later(() => @promise)
    await later(() => @promise)
    await later(async () => { tick(); @async })
    later(() => @promise)
    await null
    const @new_any = await @promise
    queueMicrotask(() => { put('microtask'); @body })
    @promise_of.then(@function).then(put, error => put('no', error))
    for await (const @own_any of @asynchronous) { tick(); @loop }
    try { await @promise; @block } catch (@own_any) { put('caught', @own_any) } finally { await null }
    put(await Promise.all([@promise, @promise].map(async x => { try { return await x } catch (e) { return e } })))
    await later(async () => { try { return await @promise } finally { await null; put('finally') } })
    await later(async () => { await using x = { async [Symbol.asyncDispose]() { put('gone') } }; @async })
    await using @new_any = { [Symbol.asyncDispose]: async () => { await null; put('gone') } }
    await later(async () => { await using s = new AsyncDisposableStack(); s.defer(@function); s.use(null) })
    await later(async () => { const s = new AsyncDisposableStack(); s.adopt(@any, put); await s.move().disposeAsync() })
    await later(async () => { const g = (async function* () { @asyncgen })(); return [await g.next(), await g.return(@any)] })
    await later(async () => { const g = (async function* () { @asyncgen })(); return [g.next(), g.throw(@error)] })
    """
)

_GENERATOR_DECLARATIONS = _lines(
    """
    const @new_number = @number
    let @new_number = @number
    let @new_bigint = cut(@bigint)
    let @new_string = cut(@string)
    const @new_array = @array
    let @new_array = @array
    const @new_object = @object
    const @new_map = @map
    const @new_set = @set
    const @new_integers = @integers
    const @new_buffer = @buffer
    const @new_view = @view
    const @new_date = @date
    const @new_regexp = @regexp
    const @new_symbol = @symbol
    const @new_function = @function
    const @new_class = class { @members }
    const @new_class = class Inner extends @class { @heirs }
    var @new_number = @number
    """
)

_STATEMENTS = _lines(
    """
    yield @any
    yield
    put(yield @any)
    const @new_any = yield @scalar
    yield* @iterator
    try { yield @any; @block } finally { put('finally') }
    """
)

# How a program ends. Mostly with what it saw; now and then with what a result should not be.
_ENDINGS = _lines(
    """
    return { out, value: @any }
    return @any
    return @scalar
    throw @error
    throw @any
    return @promise
    await new Promise(() => {})
    return @function
    return [@array, @bigint]
    { const @own_object = { out }; @own_object.self = @own_object; return @own_object }
    return { toJSON() { throw @error } }
    return { toJSON() { return undefined } }
    return new Proxy([@any, @any], {})
    try { return @any } finally { put('last') }
    """
)

# Statements that cannot be parsed, none of them at the very end of a program.
BROKEN_STATEMENTS = _lines(
    r"""
    let twice; let twice
    let input
    const empty
    0++
    /(/
    /(?<a>.)(?<a>.)/
    /\p{Nothing}/u
    with (out) {}
    delete out
    put(08)
    put("\08")
    put('\u{110000}')
    put(1_)
    put(1__0)
    yield = 1
    await = 1
    let let = 1
    let [same, same] = []
    class Twice { #a; #a }
    class Twice { constructor() {} constructor() {} }
    class Base { constructor() { super() } }
    out.#missing
    break
    continue
    nowhere: for (;;) { break elsewhere }
    again: again: put()
    new.target = 1
    ((a, a) => a)
    (({ a: 1 }) => a)
    (a, b) = 1
    [a, b] + 1 = 2
    ({ set x() {} })
    ({ get x(a) { } })
    ({ a = 1 })
    ({ __proto__: null, __proto__: null })
    import one from 'two'
    export default 1
    super.method()
    if (1) class Inside {}
    while (0) function inside() {}
    for (const x = 1 of []) ;
    for (let x, y of []) ;
    for (let of []) ;
    for (const x in [], y) const z = 1
    function twice(a) { 'use strict'; let a }
    function named(a = 1) { 'use strict' }
    (async () => { (await) => 1 })
    (() => { await null })
    function* inside(a = yield) {}
    arguments = 1
    eval = 1
    put(1 ?? 2 || 3)
    put(-1 ** 2)
    put(out?.a = 1)
    put(new out?.a())
    put(out?.`a`)
    put("line
    put(`${`)
    var public
    switch (1) { default: default: }
    try {}
    throw
    put(3in [])
    put(3n.5)
    put(1.5n)
    put(@)
    """
)

_WORDS = (
    *(
        "",
        "a",
        "ab",
        "abc",
        "aXbXc",
        "hello world",
        "The quick brown fox",
        "a,b,,c",
        "  padded\t\n",
    ),
    *(
        "1",
        "12",
        "-0",
        "007",
        "3.14",
        "1e3",
        "0x1F",
        "0b101",
        "Infinity",
        "NaN",
        "12px",
        "9007199254740993",
    ),
    *(
        "true",
        "null",
        "undefined",
        "length",
        "constructor",
        "__proto__",
        "toString",
        "name",
        "-1",
        "1.5",
    ),
    *("é", "e\u0301", "ß", "İ", "ı", "ſ", "Σ", "ς", "Ὀδυσσεύς", "ﬁ", "ǆ", "한글", "ＡＢ", "½", "٣"),
    *(
        "😀",
        "👩\u200d👧",
        "𝒳y",
        "a\ud83d",
        "\ude00b",
        "\ud800",
        "\udfff\ud800",
        "\x00",
        "a\x00b",
        "\x7f",
    ),
    *(
        "\u2028",
        "\u2029",
        "\ufeff x",
        "\u00a0",
        "\u180e",
        "\r\n",
        '"quoted"',
        "it's",
        "back\\slash",
        "`tick`",
    ),
    *(
        "$&",
        "$1$2",
        "$<word>",
        "$$",
        "%41%zz",
        "%F0%9F%98%80",
        "%u0041",
        "a=b&c=d",
        "</script>",
        "${x}",
    ),
    *("2020-02-29", "12:34:56", "{}", "[1,2]", "x" * 40, "ab" * 30, "ÿ" * 20, "€" * 17),
)
_NUMERALS = (
    *(
        "0",
        "-0",
        "1",
        "42",
        "-17",
        "1e21",
        "1e-7",
        "123456789012345678901234567890",
        "0.1",
        ".5",
        "5.",
    ),
    *(
        "0x10",
        "0o17",
        "0b11",
        "1e1000",
        "-1e-400",
        "1_000",
        "12abc",
        "",
        " \n7 ",
        "+3",
        "--1",
        "1e",
        "0x",
    ),
    *(
        "9007199254740991",
        "9007199254740993",
        "4294967296",
        "-2147483649",
        "179769313486231580793e289",
    ),
    *("4.9406564584124654e-324", "2.2250738585072011e-308", "0.30000000000000004", "1n", "٣", "z9"),
)
_JSON = (
    *(
        '{"a":1,"b":[2,3]}',
        "[]",
        "{}",
        '""',
        "null",
        "[1,[2,[3,[]]]]",
        '{"a":{"a":{"a":null}}}',
        "-0",
        "1E5",
    ),
    *(
        '"\\ud83d\\ude00"',
        '"\\ud800"',
        '{"__proto__":1}',
        '{"a":1,"a":2}',
        "[1e999,-1e-999]",
        "[0.1, 1.50]",
    ),
    *(
        '{"2":1,"1":2,"b":3,"a":4}',
        " [ true , false ] ",
        "[1,]",
        "{a:1}",
        "'a'",
        "01",
        "+1",
        "[1 2]",
        "tru",
    ),
    *(
        '"\\x41"',
        '"\t"',
        "\ufeff1",
        "[1]]",
        '{"a"}',
        '{"a":}',
        "nul",
        "",
        " ",
        "9007199254740993",
        '"\\u12"',
    ),
)
_DATE_TEXTS_IN = (
    *(
        "2020-02-29T12:34:56.789Z",
        "2021-06-15",
        "2021-06",
        "2021",
        "2020-01-01T00:00",
        "1969-12-31T23:59:59Z",
    ),
    *(
        "+275760-09-13T00:00:00.000Z",
        "+275760-09-13T00:00:00.001Z",
        "-271821-04-20T00:00:00Z",
        "-000000-01-01",
    ),
    *(
        "2020-02-30",
        "2019-02-29T00:00:00Z",
        "2020-01-01T24:00:00Z",
        "2020-01-01T24:00:01Z",
        "2020-13-01",
    ),
    *(
        "2020-01-01T10:00:00+05:30",
        "2020-01-01T10:00:00-1200",
        "Tue Mar 01 2022 00:00:00 GMT+0100",
        "1 Jan 70",
    ),
    *(
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Mar 5, 1999 3:04 pm",
        "12/25/1995",
        "1995/12/25 13:30 PST",
        "now",
        "",
    ),
)
_BASE64 = ("", "AQID", "AQ==", "AQ", "AR==", "A", "_-8=", "+/8=", " A Q I D ", "AQID=", "////", "é")
_HEXADECIMAL = ("", "00ff", "0", "DEADBEEF", "zz", "0g", "é0", "0102030405060708090a0b0c0d0e0f10")
_PATTERNS = (
    "",
    "-",
    "$&",
    "[$1]",
    "$2$1",
    "$<word>",
    "$$",
    "$`|$'",
    "$0$10",
    "$<none>",
    "$",
    "é😀",
)
# Sources, and the flags that each can be read with: unicode, legacy or both.
_REGEXPS_ANY = _lines(
    r"""
    a
    [a-z]+
    (\d+)
    (\d+)\D+(\d*)
    (?<word>\w+)\s(?<next>\w+)
    \b\w
    ^.
    .$
    (?:)
    (a)|(b)
    X(?=b)
    (?<!a)b
    (?<=\d)\D
    (?!b)[^a]
    [^\x00-\x7f]
    (.)\1
    a*?b
    a{2,3}
    [\s\S]
    \s+
    \u00e9
    ([a-c])(?:(x)|(.))?
    (z)?((a+)?(b+)?(c))*
    (?:a|ab)(?:c|bcd)?(d*)
    (?i:AB)c
    (?<y>1)|(?<y>2)
    \cJ|\0
    [\b\-\d]
    ,
    \.|\$|\{
    (?=(a+))a*b\1
    """
)
_REGEXPS_UNICODE = _lines(
    r"""
    \p{L}+
    \P{Lu}
    \u{1F600}
    .
    [^a]
    [\u{10000}-\u{10ffff}]
    \p{Script=Greek}
    \p{Emoji}
    (?<=\p{Lu})\p{Ll}
    """
)
_REGEXPS_SETS = _lines(
    r"""
    [\p{L}--[a-z]]
    [[a-z]&&[aeiou]]
    [\q{abc|d}x]
    \p{RGI_Emoji}
    """
)
_REGEXPS_LEGACY = _lines(
    r"""
    a{,2}
    [\ud800-\udbff][\udc00-\udfff]
    \1(a)
    ]
    \07|\8
    \k<a
    (?=a)*
    """
)
_BROKEN_REGEXPS = (
    "(",
    "[z-a]",
    "a**",
    "(?<a",
    r"\p{L",
    "(?<1a>b)",
    "x{2,1}",
    "[",
    "\\",
    ")",
    "(?<=a)+",
    "{1}",
)
_KEYS = (
    "'a'",
    "'b'",
    "'a'",
    "1",
    "'1'",
    "'length'",
    "'constructor'",
    "-1",
    "Symbol.iterator",
    "'é'",
)
_ODD_SIZES = (
    "-1",
    "NaN",
    "1.5",
    "undefined",
    "'3'",
    "-0",
    "2 ** 53",
    "Infinity",
    "null",
    "3n",
    "true",
)
_ODD_SMALL = (
    "NaN",
    "undefined",
    "-0",
    "1.9",
    "'2'",
    "null",
    "Infinity",
    "-Infinity",
    "2 ** 32",
    "2n",
    "true",
)
_EDGES = (
    *(
        "0",
        "-0",
        "NaN",
        "Infinity",
        "-Infinity",
        "0.1",
        "-0.5",
        "1.5",
        "2.5",
        "1e21",
        "1e-7",
        "5e-324",
    ),
    *(
        "2 ** 31",
        "-(2 ** 31)",
        "2 ** 31 - 1",
        "2 ** 32",
        "2 ** 32 - 1",
        "2 ** 30",
        "-(2 ** 30) - 1",
    ),
    *(
        "2 ** 53",
        "2 ** 53 - 1",
        "2 ** 53 + 2",
        "-(2 ** 53)",
        "2 ** 63",
        "2 ** 64",
        "1 / 3",
        "0x7fffffff",
    ),
    *(
        "1.7976931348623157e308",
        "2.2250738585072014e-308",
        "123456.789",
        "0b101",
        "0o17",
        "1_000_000",
    ),
)
_BIG_EDGES = ("0n", "1n", "-1n", "7n", "-10n", "2n ** 100n", "0xffn", "0b11n")
_BITS = (1, 29, 30, 31, 32, 33, 52, 53, 62, 63, 64, 65, 95, 96, 127, 128)
# List and Bytes are Array and Uint8Array that no number makes large.
_BUILTINS = ("List", "Map", "Set", "Error", "RangeError", "Object", "Promise", "Bytes", "String")
_BUILTINS_MORE = ("RegExp", "Date", "Function", "null", "Number", "Boolean", "Iterator")

# What may stand where another kind was asked for. No typed arrays: see NaN in the table of
# differences.
_CONFUSIONS = ("number", "string", "bigint", "boolean", "array", "object", "symbol", "function")
# Kinds of which a program keeps variables.
_VARIABLES = frozenset(
    "number bigint string array object map set integers buffer view date regexp symbol function class"
    " any".split()
)
# Kinds that are what they are called: a number in place of `numbers` could be a huge length.
_EXACT_KINDS = frozenset("class buffer integers typed view numbers".split())
# Expressions in one program: from the first on blocks are short, from the second on nothing nests.
_MUCH, _TOO_MUCH = 600, 1000
_CLASSES = ("members", "heirs")
_PLACEHOLDER = re.compile(r"@([a-z_0-9]+)")


@dataclass(frozen=True, slots=True)
class Statement:
    """Source text, with the blocks of statements inside of it."""

    parts: tuple[str | tuple[Statement, ...], ...]

    def render(self) -> str:
        """Give the text."""
        return "".join(
            part if isinstance(part, str) else _render_block(part) for part in self.parts
        )


Block = tuple[Statement, ...]


def _render_block(block: Block) -> str:
    return "\n".join(("", *(f"{statement.render()};" for statement in block), ""))


@dataclass(frozen=True, slots=True)
class Program:
    """One program: where it comes from, and what it says."""

    seed: int
    statements: Block
    ending: str

    @property
    def source(self) -> str:
        """The whole text."""
        return f"{_PRELUDE.strip()}{_render_block(self.statements)}{self.ending}"


@dataclass(frozen=True, slots=True)
class _Place:
    """What the language allows where a statement stands."""

    awaits: bool = False
    yields: bool = False
    breaks: bool = False
    continues: bool = False
    returns: bool = False
    label: str = ""
    label_loops: bool = False


_PLACES: dict[str, Callable[[_Place], _Place]] = {
    "block": lambda place: place,
    "loop": lambda place: replace(place, breaks=True, continues=True),
    "case": lambda place: replace(place, breaks=True),
    "body": lambda place: _Place(returns=True),
    "async": lambda place: _Place(awaits=True, returns=True),
    "generator": lambda place: _Place(yields=True, returns=True),
    "asyncgen": lambda place: _Place(awaits=True, yields=True, returns=True),
}


@dataclass(frozen=True, slots=True)
class _Name:
    text: str
    kind: str
    assignable: bool


class _NothingFitsError(Exception):
    """A production asks for a variable, and none is in reach."""


class _Writer:
    """Writes one program, choice by choice."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.names: list[_Name] = []
        self.place = _Place(awaits=True)
        self.level = 0
        self.count = 0
        self.size = 0
        self.used: set[str] = set()

    def fresh(self, prefix: str = "v") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def pick(self, choices: tuple[str, ...] | list[str]) -> str:
        return choices[int(self.random.random() * len(choices))]

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def expand(self, template: str, depth: int) -> list[str | Block]:
        """Fill in a production. Names it makes are in reach of what follows in its scope."""
        made: dict[str, _Name] = {}
        parts: list[str | Block] = []
        end = 0
        for found in _PLACEHOLDER.finditer(template):
            parts.append(template[end : found.start()])
            end = found.end()
            parts += self.fill(found[1], template, made, depth)
        parts.append(template[end:])
        self.names += [name for key, name in made.items() if key.startswith("new")]
        return parts

    def fill(
        self, word: str, template: str, made: dict[str, _Name], depth: int
    ) -> list[str | Block]:
        kind = word.partition("_")[2]
        if word.startswith(("new", "own")):
            if word not in made:
                made[word] = self.name(kind, word.startswith("new") and template.startswith("let"))
            return [made[word].text]
        if word.startswith("set_"):
            return [self.variable(kind, assigned=kind not in ("class", "any", "function"))]
        if word == "label":
            if word not in made:
                made[word] = _Name(self.fresh("l"), word, False)
            return [made[word].text]
        if word in _CLASSES:
            return [self.members(_MEMBERS + _HEIR_MEMBERS * (word == "heirs"))]
        if word == "labelled":
            loops = "for (" in template or "while (" in template
            inner = replace(self.place, label=made["label"].text, label_loops=loops)
            return [self.block(inner, made)]
        if word in _PLACES:
            return [self.block(_PLACES[word](self.place), made)]
        return self.expression(word, depth - 1)

    def name(self, kind: str, assignable: bool) -> _Name:
        return _Name(self.fresh(), kind, assignable)

    def variable(self, kind: str, *, assigned: bool) -> str:
        names = [
            name.text
            for name in self.names
            if name.kind == kind and (name.assignable or not assigned or self.chance(0.02))
        ]
        if not names:
            raise _NothingFitsError
        # The latest names are the ones a reader would use.
        return self.pick(names[-6:])

    def block(self, place: _Place, made: dict[str, _Name]) -> Block:
        before, reach = self.place, len(self.names)
        self.names += [name for key, name in made.items() if key.startswith("own")]
        self.place = place
        self.level += 1
        long = self.level < 3 and self.size < _MUCH
        statements = tuple(
            self.statement() for _ in range(self.random.randint(1, 4) if long else 1)
        )
        self.level -= 1
        self.place = before
        del self.names[reach:]
        return statements

    def statement(self) -> Statement:
        """Give one statement that fits this place; a production that does not is passed over."""
        for _ in range(30):
            template = self.pick(self.productions())
            if self.level > 2 and any(f"@{word}" in template for word in (*_PLACES, *_CLASSES)):
                continue
            reach = len(self.names)
            try:
                parts = self.expand(template, self.random.randint(1, 3))
            except _NothingFitsError:
                del self.names[reach:]
                continue
            self.used.add(template)
            return Statement(tuple(parts))
        return Statement(("put(0)",))

    def productions(self) -> tuple[str, ...]:
        place = self.place
        if place.label and self.chance(0.25):
            return (f"break {place.label}", *(("continue " + place.label,) * place.label_loops))
        if place.breaks and self.chance(0.12):
            return _LOOP_STATEMENTS if place.continues else ("break", "if (@boolean) break")
        if place.yields and self.chance(0.4):
            return _GENERATOR_STATEMENTS
        if place.awaits and self.chance(0.3):
            return _ASYNC_STATEMENTS
        if place.returns and self.chance(0.25):
            return _FUNCTION_STATEMENTS
        return _DECLARATIONS if self.chance(0.2) else _STATEMENTS

    def members(self, templates: tuple[str, ...]) -> Block:
        """Give a class's members, each private name once, and those the others use."""
        before = self.place
        self.place = _Place()
        members = {"#secret": Statement(("#secret = 1",))}
        for _ in range(2 + int(self.random.random() * 5)):
            template = self.pick(templates)
            name = _MEMBER_NAME.search(template)
            key = name[0] if name else template
            if key in members:
                continue
            reach = len(self.names)
            try:
                members[key] = Statement(tuple(self.expand(template, 2)))
                self.used.add(template)
            except _NothingFitsError:
                pass
            del self.names[reach:]
        self.place = before
        text = "".join(member.render() for member in members.values())
        for name_, plain in _PRIVATE_MEMBERS.items():
            if f"this.{name_}" in text and name_ not in members:
                members[name_] = Statement((plain,))
        return tuple(members.values())

    def expression(self, kind: str, depth: int) -> list[str | Block]:
        self.size += 1
        literal = _LITERALS.get(kind)
        if literal is not None and kind not in _EXPRESSIONS:
            return [literal(self)]
        if self.chance(0.02) and kind not in _EXACT_KINDS:
            kind = self.pick(_CONFUSIONS)
        if kind in _VARIABLES and self.chance(0.35):
            try:
                return [self.variable(kind, assigned=False)]
            except _NothingFitsError:
                pass
        if depth <= 0 or self.size > _TOO_MUCH:
            return [_LITERALS[kind](self)]
        for _ in range(8):
            template = self.pick(_EXPRESSIONS[kind])
            reach = len(self.names)
            alias = _PLACEHOLDER.fullmatch(template) is not None
            try:
                parts = self.expand(template, depth + alias)
            except _NothingFitsError:
                del self.names[reach:]
                continue
            self.used.add(template)
            return parts if alias else ["(", *parts, ")"]
        return [_LITERALS[kind](self)]


def _number(writer: _Writer) -> str:
    random = writer.random
    choice = random.random()
    if choice < 0.4:
        text = str(random.randint(-9, 20))
    elif choice < 0.75:
        text = writer.pick(_EDGES)
    elif choice < 0.85:
        text = str(random.randint(-(2**33), 2**33))
    elif choice < 0.93:
        text = repr(random.uniform(-1000, 1000))
    else:
        text = f"{random.uniform(-9, 9)!r}e{random.randint(-320, 300)}"
    return text if text.isdigit() else f"({text})"


def _bigint(writer: _Writer) -> str:
    random = writer.random
    choice = random.random()
    if choice < 0.3:
        return f"({writer.pick(_BIG_EDGES)})"
    bits = _BITS[int(random.random() * len(_BITS))]
    if choice < 0.75:
        return f"({random.choice((1, -1)) * 2**bits + random.randint(-2, 2)}n)"
    return f"({random.choice((1, -1)) * random.getrandbits(bits + 40)}n)"


def _quoted(text: str) -> str:
    """Give a literal with everything escaped that is not plain ASCII."""
    return json.dumps(text)


def _string(writer: _Writer) -> str:
    text = writer.pick(_WORDS)
    if writer.chance(0.25):
        text += writer.pick(_WORDS)
    plain = text.isprintable() and not any(mark in text for mark in "'\"`\\${}")
    if plain and writer.chance(0.7):
        quote = writer.pick(("'", '"', "`"))
        return f"{quote}{text}{quote}"
    return _quoted(text)


def _regexp(writer: _Writer, always: str = "") -> str:
    choice = writer.random.random()
    if choice < 0.6:
        source, modes = writer.pick(_REGEXPS_ANY), ("", "", "u", "v")
    elif choice < 0.8:
        source, modes = writer.pick(_REGEXPS_UNICODE), ("u", "v")
    elif choice < 0.9:
        source, modes = writer.pick(_REGEXPS_SETS), ("v",)
    else:
        source, modes = writer.pick(_REGEXPS_LEGACY), ("",)
    mode = writer.pick(modes)
    if mode == "v" and source.startswith("[\\b\\-"):
        mode = "u"
    flags = "".join(flag for flag in "gimsyd" if flag in always or writer.chance(0.25))
    if mode and source in (r"\cJ|\0", "a{,2}"):
        mode = ""
    return f"/{source}/{flags}{mode}"


def _integer(low: int, high: int, odd: tuple[str, ...] = ()) -> Callable[[_Writer], str]:
    def literal(writer: _Writer) -> str:
        if odd and writer.chance(0.12):
            return f"({writer.pick(odd)})"
        value = writer.random.randint(low, high)
        return str(value) if value >= 0 else f"({value})"

    return literal


def _quoted_one(*choices: str) -> Callable[[_Writer], str]:
    return lambda writer: _quoted(writer.pick(choices))


def _one(*choices: str) -> Callable[[_Writer], str]:
    return lambda writer: writer.pick(choices)


def _key(writer: _Writer) -> str:
    return _string(writer) if writer.chance(0.15) else writer.pick(_KEYS)


def _class(writer: _Writer) -> str:
    try:
        return writer.variable("class", assigned=False)
    except _NothingFitsError:
        return "(class Plain { method(x) { return [x] } })"


def _scalar(writer: _Writer) -> str:
    return _LITERALS[writer.pick(("number", "number", "string", "string", "bigint", "boolean"))](
        writer
    )


# The shortest way to a value of each kind; kinds that stand in no other table have only this.
_LITERALS: dict[str, Callable[[_Writer], str]] = {
    "number": _number,
    "arithmetic": _number,
    "bitwise": _number,
    "mathematics": _number,
    "parsed_number": _number,
    "string_number": _number,
    "list_number": _number,
    "date_number": _number,
    "view_number": _number,
    "bigint": _bigint,
    "string": _string,
    "cased_string": _string,
    "cut_string": _string,
    "number_string": _string,
    "template": _string,
    "replaced_string": _string,
    "encoded_string": _string,
    "date_string": _string,
    "markup_string": _string,
    "boolean": _one("true", "false"),
    "scalar": _scalar,
    "any": _scalar,
    "list_result": _scalar,
    "string_result": _scalar,
    "regexp_result": _scalar,
    "object_result": _scalar,
    "json_result": _scalar,
    "map_result": _scalar,
    "sets_result": _scalar,
    "typed_result": _scalar,
    "iterator_result": _scalar,
    "generator_result": _scalar,
    "reflect_result": _scalar,
    "date_result": _scalar,
    "text_function": _scalar,
    "promise": lambda writer: f"Promise.resolve({_scalar(writer)})",
    "promise_of": lambda writer: f"Promise.resolve({_scalar(writer)})",
    "asynchronous": lambda writer: f"[{_scalar(writer)}, Promise.resolve({_scalar(writer)})]",
    "array": lambda writer: f"[{_scalar(writer)}, {_scalar(writer)}, {_scalar(writer)}]",
    "built_array": lambda writer: f"[{_scalar(writer)}, , {_scalar(writer)}]",
    "numbers": lambda writer: f"[{', '.join(_number(writer) for _ in range(4))}]",
    "object": lambda writer: f"({{ a: {_scalar(writer)}, b: {_scalar(writer)} }})",
    "proxy": lambda writer: f"new Proxy({{ a: {_scalar(writer)} }}, {{}})",
    "map": lambda writer: f"new Map([[{_scalar(writer)}, {_scalar(writer)}]])",
    "set": lambda writer: f"new Set([{_scalar(writer)}, {_scalar(writer)}])",
    "typed": lambda writer: f"new Float64Array([{_number(writer)}, {_number(writer)}])",
    "integers": lambda writer: f"new Uint8Array([{_number(writer)}, {_number(writer)}, 3])",
    "buffer": _one("new ArrayBuffer(8)", "new Uint8Array([1, 2, 250, 4, 5, 6, 7, 8]).buffer"),
    "view": _one(
        "new DataView(new ArrayBuffer(9))", "new DataView(new Uint8Array(9).fill(200).buffer)"
    ),
    "iterator": lambda writer: f"[{_scalar(writer)}, {_scalar(writer)}].values()",
    "date": lambda writer: f"new Date({writer.random.randint(-(10**13), 10**13)})",
    "regexp": _regexp,
    "global_regexp": lambda writer: _regexp(writer, "g"),
    "broken_regexp": _quoted_one(*_BROKEN_REGEXPS),
    "symbol": _one("Symbol.iterator", "Symbol('one')", "Symbol.for('two')"),
    "error": lambda writer: f"new {writer.pick(_ERRORS)}({_string(writer)})",
    "function": _one("(x => x)", "((x, i) => i)", "String", "(() => {})", "(x => { throw x })"),
    "comparator": _one("((a, b) => a - b)", "((a, b) => a < b ? 1 : -1)", "undefined"),
    "replacer": _one("null", "['a', 'b']", "((key, value) => value)"),
    "reducer": _one("((all, x) => cut(`${all}${String(x)}`))", "((all, x) => x)"),
    "class": _class,
    "builtin": _one(*_BUILTINS, *_BUILTINS, *_BUILTINS_MORE),
    "species": _one(
        "Array", "Uint8Array", "Promise", "ArrayBuffer", "undefined", "Map", *_BUILTINS_MORE
    ),
    "key": _key,
    "small": _integer(-4, 12, _ODD_SMALL),
    "digit": _integer(0, 9),
    "few": lambda writer: f"{writer.random.randint(0, 5)}n",
    "bits": lambda writer: f"{writer.random.choice((0, 1, 7, 31, 32, 33, 63, 64, 65, 100))}n",
    "width": lambda writer: str(writer.random.choice((0, 1, 8, 31, 32, 33, 53, 63, 64, 65, 100))),
    "count": _integer(0, 6),
    "size": _integer(0, 20, _ODD_SIZES),
    "radix": _integer(2, 36, ("0", "1", "37", "undefined", "'16'", "NaN")),
    "year": _integer(-50, 2400, ("NaN", "275760", "-271821", "99", "1.5", "'2020'")),
    "instant": _integer(
        -(10**14), 10**14, ("8.64e15", "8.64e15 + 1", "NaN", "-0", "0.5", "-8.64e15")
    ),
    "code_point": _integer(0, 0x10FFFF, ("0xd800", "-1", "0x110000", "1.5", "0x1F600")),
    "form": _quoted_one("NFC", "NFD", "NFKC", "NFKD", "nope"),
    "hint": _quoted_one("number", "string", "default", "nope"),
    "indent": _one("0", "2", "' '", "'--'", "12", "undefined", "null", "'\\t'", "new Number(3)"),
    "flags": _quoted_one("", "g", "i", "u", "v", "y", "dgimsy", "gu", "iv", "uv", "gg", "x"),
    "numeral": _quoted_one(*_NUMERALS),
    "json": _quoted_one(*_JSON),
    "date_text": _quoted_one(*_DATE_TEXTS_IN),
    "base64": _quoted_one(*_BASE64),
    "hexadecimal": _quoted_one(*_HEXADECIMAL),
    "pattern": _quoted_one(*_PATTERNS),
}


def make_program(seed: int, used: set[str] | None = None) -> Program:
    """Write the program of a seed, always the same one.

    Args:
        seed: any integer.
        used: gets the productions that were taken.
    """
    # Chance for tests, not for secrets.
    writer = _Writer(Random(seed))  # noqa: S311
    statements: list[Statement] = []
    for _ in range(writer.random.randint(4, 10)):
        statements += _section(writer)
    if writer.chance(0.02):
        place = int(writer.random.random() * len(statements))
        statements.insert(place, Statement((writer.pick(BROKEN_STATEMENTS),)))
    ending = "return out"
    if writer.chance(0.15):
        template = writer.pick(_ENDINGS)
        try:
            ending = Statement(tuple(writer.expand(template, 2))).render()
            writer.used.add(template)
        except _NothingFitsError:
            pass
    if used is not None:
        used |= writer.used
    return Program(seed, tuple(statements), ending)


def _section(writer: _Writer) -> Iterator[Statement]:
    """Give some statements; mostly a failure among them does not end the program."""
    for _ in range(writer.random.randint(0, 2)):
        # In reach of all that follows, and short, so that it seldom fails.
        template = writer.pick(_DECLARATIONS)
        yield Statement(tuple(writer.expand(template, 1)))
    if writer.chance(0.1):
        yield writer.statement()
        return
    block = writer.block(writer.place, {})
    yield Statement(("try { ", block, " } catch (error) { put('caught', error) }"))


def productions() -> frozenset[str]:
    """Give every production of the grammar."""
    statements = (_DECLARATIONS, _STATEMENTS, _MEMBERS, _LOOP_STATEMENTS, _FUNCTION_STATEMENTS)
    more = (_HEIR_MEMBERS, _ASYNC_STATEMENTS, _GENERATOR_STATEMENTS, _ENDINGS)
    tables = (*_EXPRESSIONS.values(), *statements, *more)
    return frozenset(line for table in tables for line in table)


def smaller_programs(program: Program) -> Iterator[Program]:
    """Give what a program becomes when statements are dropped, the largest cuts first."""
    statements = program.statements
    width = len(statements) // 2
    while width > 1:
        for start in range(0, len(statements), width):
            yield replace(program, statements=statements[:start] + statements[start + width :])
        width //= 2
    for block in _smaller_blocks(statements):
        yield replace(program, statements=block)
    if program.ending != "return out":
        yield replace(program, ending="return out")


def _smaller_blocks(block: Block) -> Iterator[Block]:
    for index, statement in enumerate(block):
        before, after = block[:index], block[index + 1 :]
        yield before + after
        for place, part in enumerate(statement.parts):
            if isinstance(part, str):
                continue
            # The statements inside, without what is around them.
            yield before + part + after
            for smaller in _smaller_blocks(part):
                parts = (*statement.parts[:place], smaller, *statement.parts[place + 1 :])
                yield (*before, Statement(parts), *after)
