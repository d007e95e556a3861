// BERT's WordPiece: a text to the ids of its pieces, as tokenizer.json of the `tokenizers` library says.

const SPACE = /\p{White_Space}/u;
const NOT_SHOWN = /[\p{Cc}\p{Cf}\p{Co}\u0000\ufffd]/u; // tab and line breaks are spaces before this is asked
const PUNCTUATION = /[\p{P}!-/:-@[-`{-~]/u; // in ASCII also what Unicode calls symbols
const ACCENT = /\p{Mn}/gu;
const LINE_SPACE = /[\t\n\r]/;
// The blocks of ideographs whose characters are words of their own (the list of BERT, without later extensions).
const IDEOGRAPHS = [
  [0x4e00, 0x9fff], [0x3400, 0x4dbf], [0x20000, 0x2a6df], [0x2a700, 0x2b73f], [0x2b740, 0x2b81f], [0x2b920, 0x2ceaf],
  [0xf900, 0xfaff], [0x2f800, 0x2fa1f],
];

export class WordPiece {
  // `tokenizer` is the content of a tokenizer.json with BertNormalizer, BertPreTokenizer and WordPiece.
  constructor(tokenizer) {
    const { vocab, unk_token, continuing_subword_prefix, max_input_chars_per_word } = tokenizer.model;
    this.pieces = new Map(Object.entries(vocab));
    this.unknown = this.pieces.get(unk_token);
    this.inside = continuing_subword_prefix;
    this.longestWord = max_input_chars_per_word;
    this.normalizer = tokenizer.normalizer;
    this.special = new Map(tokenizer.added_tokens.map(({ content, id }) => [content, id]));
    const names = [...this.special.keys()].sort((a, b) => b.length - a.length); // the longest first
    this.anySpecial = new RegExp(`(${names.map(escaped).join('|')})`);
  }

  // Ids of the pieces of a text, without those that begin and end it.
  ids(text) {
    const parts = this.special.size ? text.split(this.anySpecial) : [text];
    return parts.flatMap((part) => (this.special.has(part) ? [this.special.get(part)] : this.idsOfWords(part)));
  }

  idsOfWords(text) {
    return words(normalized(text, this.normalizer)).flatMap((word) => this.idsOfWord(word));
  }

  // The longest piece that the word begins with, then the longest one of the rest; unknown if a place has none.
  idsOfWord(word) {
    const letters = [...word];
    if (letters.length > this.longestWord) return [this.unknown];
    const found = [];
    for (let start = 0, end; start < letters.length; start = end) {
      const id = (stop) => this.pieces.get((start ? this.inside : '') + letters.slice(start, stop).join(''));
      for (end = letters.length; end > start && id(end) === undefined; ) end -= 1;
      if (end === start) return [this.unknown];
      found.push(id(end));
    }
    return found;
  }
}

function normalized(text, { clean_text, handle_chinese_chars, strip_accents, lowercase }) {
  let letters = [...text];
  if (clean_text) {
    letters = letters.filter((letter) => LINE_SPACE.test(letter) || !NOT_SHOWN.test(letter));
    letters = letters.map((letter) => (SPACE.test(letter) ? ' ' : letter));
  }
  if (handle_chinese_chars) letters = letters.map((letter) => (isIdeograph(letter) ? ` ${letter} ` : letter));
  let done = letters.join('');
  if (strip_accents ?? lowercase) done = done.normalize('NFD').replace(ACCENT, '');
  // Letter by letter: a capital sigma is the same small letter wherever it stands.
  return lowercase ? Array.from(done, (letter) => letter.toLowerCase()).join('') : done;
}

// Splits at spaces, which are dropped, and around each sign of punctuation.
function words(text) {
  const found = [];
  let word = '';
  for (const letter of text) {
    const isSpace = SPACE.test(letter);
    if (!isSpace && !PUNCTUATION.test(letter)) {
      word += letter;
      continue;
    }
    if (word) found.push(word);
    if (!isSpace) found.push(letter);
    word = '';
  }
  return word ? [...found, word] : found;
}

function isIdeograph(letter) {
  const point = letter.codePointAt(0);
  return IDEOGRAPHS.some(([first, last]) => first <= point && point <= last);
}

function escaped(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
