// Every property of every object that can be reached: its attributes and what it is.
const found = {}, seen = new Set();
const walk = (path, value) => {
  if (value === null || typeof value !== 'object' && typeof value !== 'function') return;
  if (seen.has(value)) return;
  seen.add(value);
  for (const key of Reflect.ownKeys(value)) {
    const own = Object.getOwnPropertyDescriptor(value, key), here = `${path}.${String(key)}`;
    const flags = ['writable', 'enumerable', 'configurable'].map(x => own[x] ? x[0] : '-').join('');
    const what = own.value;
    found[here] = `${flags} ` + (own.get || own.set ? `get ${own.get?.name} set ${own.set?.name}`
      : typeof what === 'function' ? `function ${what.name}/${what.length}`
      : typeof what === 'object' || typeof what === 'symbol' ? typeof what : String(what));
    for (const next of [what, own.get, own.set]) walk(here, next);
  }
  walk(`${path}.[[prototype]]`, Object.getPrototypeOf(value));
};
walk('globalThis', globalThis);
for (const [path, value] of Object.entries({
  typed: Object.getPrototypeOf(Uint8Array), generator: (function* () {})(),
  asyncGenerator: (async function* () {})(), async: async () => {}, array: [].values(),
  string: ''[Symbol.iterator](), map: new Map().keys(), set: new Set().keys(),
  regexp: ''.matchAll(/a/g), wrapped: Iterator.from({ next() {} }), helper: [].values().map(x => x),
  concatenated: Iterator.concat(),
})) walk(path, value);
return found;
