const log = console.log;
let steps = 0, puts = 0, room = 0;
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
  if (Error.isError(x) || x instanceof DOMException) tag = `${x.name}: ${x.message}`;
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
  if (++puts <= 200) log(text);
};
const probe = f => { try { put(f()) } catch (error) { put('threw', error) } };
class List extends Array {
  constructor(...all) { super(...(all.length === 1 && all[0] > 99 ? [9] : all)) }
}
class Bytes extends Uint8Array { constructor(x, ...all) { super(x > 99 ? 9 : x, ...all) } }
const later = async f => { try { put(await f()) } catch (error) { put('threw', error) } };
