// Runs one body as the guest would, and says in the guest's words how it went. What it needs of the
// language it takes before the body can touch it. Gives a function that starts the body; that one
// gives a function to ask for the ending once all jobs have run: status, whether the body's own
// promise is fulfilled, two texts, and the lines given to console.log.
(() => {
  const evaluate = eval, stringify = JSON.stringify, text = String, isError = Error.isError;
  const nameOf = Object.getOwnPropertyDescriptor(DOMException.prototype, 'name').get;
  const call = Function.prototype.call.bind(Function.prototype.call);
  const { charCodeAt, padStart } = String.prototype, { toString } = Number.prototype;
  const { join } = Array.prototype, { then } = Promise.prototype;
  const isException = x => { try { call(nameOf, x); return true } catch { return false } };
  // UTF-16 code units in hexadecimal: lone surrogates do not survive the way to Python. Nor does
  // what `+` makes of long strings, so they are joined.
  const units = x => {
    const all = [];
    for (let i = 0; i < x.length; i++)
      all[i] = call(padStart, call(toString, call(charCodeAt, x, i), 16), 4, '0');
    return call(join, all, '');
  };
  const shown = x => {
    if (typeof x === 'object' && x !== null) {
      try { const json = stringify(x); if (json !== undefined) return json } catch {}
    }
    try { return text(x) } catch { return null }
  };
  const property = (x, key) => {
    let value;
    try { value = x[key] } catch { return '' }
    return value === undefined || value === null ? '' : shown(value) ?? '';
  };
  const failed = (status, error) => isError(error) || isException(error)
    ? [status, property(error, 'name'), property(error, 'message')]
    : [status, '', shown(error) ?? 'a value that cannot be shown'];
  const isNotJson = error => isError(error) && (error.message === 'circular reference'
    || error.message === 'BigInt are forbidden in JSON.stringify');
  const lines = [];
  Object.defineProperty(globalThis, 'console', {
    value: { log(line) { lines[lines.length] = line } },
  });
  const fulfilled = value => {
    if (value === undefined) return [0, 'null', ''];
    let json;
    try { json = stringify(value) } catch (error) { return failed(isNotJson(error) ? 5 : 1, error) }
    return json !== undefined ? [0, json, ''] : [5, 'Error',
      typeof value === 'symbol' ? 'a symbol has no JSON form'
      : typeof value === 'function' ? 'a function has no JSON form'
      : 'its toJSON gave no JSON value'];
  };
  return source => {
    let isFulfilled = false, ending = () => [4, 'Error', 'the promise never settles'];
    try {
      const body = evaluate(`(async function (input) {'use strict';\n${source}\n})`);
      call(then, body(null), value => { isFulfilled = true; ending = () => fulfilled(value) },
        error => { ending = () => failed(1, error) });
    } catch (error) {
      ending = () => failed(6, error);
    }
    return () => {
      const [status, one, two] = ending();
      const all = [status, +isFulfilled, units(one), units(two)];
      for (let i = 0; i < lines.length; i++) all[i + 4] = units(lines[i]);
      return call(join, all, ' ');
    };
  };
})()
