// Package tokenizer turns text into token ids and back, exactly as the two
// models that cyclecap stands on were trained: CLIP's text encoder ([CLIP]) and
// GPT-2 ([GPT2]). It is plain Go: no files to find, no network, no libtorch.
//
// # Byte-pair encoding
//
// Both tokenizers work alike. Text is split into words by a fixed pattern; a
// word is taken as UTF-8 bytes, each of which is a token; then neighbouring
// tokens are merged, again and again, always the pair that comes earliest in a
// list of merges learnt in training. What is left are the ids. Because every
// byte is a token, there is no text that cannot be encoded.
//
// They differ in what surrounds that:
//
//   - GPT-2 keeps text as it is. A space belongs to the word after it, and
//     decoding gives the text back, byte for byte.
//   - CLIP first cleans text: it mends what went wrong in storing it (text
//     decoded with the wrong character set, curly quotes, HTML entities, …: the
//     rules of the Python package ftfy), collapses white space and lowers the
//     case. The last token of a word says that the word ends there, so decoding
//     gives cleaned text with a space after every word.
//
// # Special tokens
//
// Both vocabularies have tokens that no text merges into: <|endoftext|>, and
// for CLIP also <|startoftext|>. What should happen where a text spells one out
// is a choice, so it has three names:
//
//   - Encode does what OpenAI's own code for the model does: GPT-2 reads the
//     letters as plain text, CLIP reads the special token.
//   - EncodeSpecial reads the special token (what Hugging Face does for both).
//   - EncodePlain reads plain text. Use it on text from strangers.
//
// None of them adds a start or end token. [CLIPTokenizer.Context] does: it
// gives the 77 ids that CLIP's text encoder takes.
//
// # Text that is not UTF-8
//
// Such bytes are read as Python reads them with errors="replace": each longest
// stretch that could have begun a character becomes U+FFFD. Surrogates that were
// encoded one by one (as CESU-8 does) are joined in pairs.
package tokenizer
