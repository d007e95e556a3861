// Texts as inputs of the graphs, one at a time.

import { WordPiece } from './wordpiece.js';

export class Texts {
  // `tokenizer` is the content of tokenizer.json, `options` the entry `texts` of export.json.
  constructor(tokenizer, options) {
    this.wordPiece = new WordPiece(tokenizer);
    this.options = options;
  }

  // `input_ids` and `attention_mask` (1, L) of a text, which is cut to `maxLength` tokens.
  encode(text, maxLength) {
    const { cls_token_id, sep_token_id, add_sep_token, max_length } = this.options;
    const words = this.wordPiece.ids(text);
    if (!words.length) throw new Error('Write at least one word.');
    const end = add_sep_token ? [sep_token_id] : [];
    const room = Math.min(maxLength, max_length) - 1 - end.length;
    return idsAndMask([cls_token_id, ...words.slice(0, room), ...end]);
  }

  // Whether the tokenizer knows nothing of a text, so that the model cannot tell it from others like it.
  isUnknown(text) {
    return this.wordPiece.ids(text).every((id) => id === this.wordPiece.unknown);
  }

  // An empty text, as models see it that learned from captions that were left out.
  empty() {
    return idsAndMask([this.options.answer_start_token_id, this.options.answer_end_token_id]);
  }
}

function idsAndMask(ids) {
  const dims = [1, ids.length];
  return {
    input_ids: { type: 'int64', data: BigInt64Array.from(ids, BigInt), dims },
    attention_mask: { type: 'int64', data: new BigInt64Array(ids.length).fill(1n), dims },
  };
}
