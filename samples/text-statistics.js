const words = input.toLowerCase().match(/[a-z]+/g) ?? []
console.log('characters', input.length)
console.info('words', words.length)

const counts = new Map()
for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1)

const ranked = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
return {
  words: words.length,
  different: counts.size,
  longest: words.reduce((best, word) => (word.length > best.length ? word : best), ''),
  top: Object.fromEntries(ranked.slice(0, 3)),
}
