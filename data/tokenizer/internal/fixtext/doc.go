// Package fixtext fixes damaged text: text decoded with the wrong character set
// ("mojibake": "sÃ³" for "só"), HTML entities, curly quotes, ligatures,
// full-width letters, terminal escapes, control characters, and line breaks of
// other systems. CLIP was trained on captions fixed in this way by the Python
// package ftfy; [Fix] follows the rules of its version 6.3.1
// (https://ftfy.readthedocs.io) and is tested against its output.
//
// The only differences concern characters that Unicode added after version 14
// (ftfy uses Python's tables, this package uses Go's): a combining mark added in
// Unicode 15 is put in canonical order, and a letter added in Unicode 15 counts as
// a letter.
//
// The package also has the Python string operations that CLIP's cleaning needs
// and that Go's standard library does differently: [UnescapeHTML], [Lower],
// [Strip].
package fixtext
