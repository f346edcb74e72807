// Package tokenizer converts text to token ids and back, exactly as for the two
// models that cyclecap builds on: CLIP's text encoder ([CLIP]) and GPT-2
// ([GPT2]). It is plain Go and needs no files, no network and no libtorch. [Load]
// reads the files of a GPT-2 with a vocabulary of its own.
//
// # Byte-pair encoding
//
// Both tokenizers work alike. A fixed pattern splits text into words. The UTF-8
// bytes of a word are its first tokens. Then neighbouring tokens are merged, one
// pair after another, always the pair that comes earliest in a list of merges
// learned in training. The ids are those of the remaining tokens. Because every
// byte is a token, any text can be encoded.
//
// They differ in the steps around this:
//
//   - GPT-2 keeps text as it is. A space belongs to the word after it, and
//     decoding returns the original text, byte for byte.
//   - CLIP first cleans text: it repairs damage (text decoded with the wrong
//     character set, curly quotes, HTML entities, …, by the rules of the Python
//     package ftfy), collapses white space and converts to lower case. The last
//     token of a word marks its end, so decoding returns the cleaned text with a
//     space after every word.
//
// # Special tokens
//
// Both vocabularies have tokens that no text merges into: <|endoftext|>, and
// for CLIP also <|startoftext|>. When a text spells out a special token, there is
// a choice, so there are three methods:
//
//   - EncodeSpecial treats it as the special token, as OpenAI's CLIP and Hugging Face
//     do. Encode is the same.
//   - EncodePlain treats it as plain text. Use it for text from strangers, who could
//     otherwise end a text early or begin another one.
//
// None of them adds a start or end token. [CLIPTokenizer.Context] does: it
// returns the 77 ids that CLIP's text encoder takes.
//
// # Invalid UTF-8
//
// Invalid bytes are decoded like Python's errors="replace": each longest
// sequence that could start a character becomes U+FFFD. Surrogates that were
// encoded one by one (as in CESU-8) are joined in pairs.
package tokenizer
