// Package fixtext mends text that was damaged on its way: text decoded with the
// wrong character set ("mojibake": "sÃ³" for "só"), HTML entities, curly quotes,
// ligatures, full-width letters, terminal escapes, control characters, line
// breaks of other systems. CLIP was trained on captions mended so, by the
// Python package ftfy; [Fix] follows the rules of its version 6.3.1
// (https://ftfy.readthedocs.io) and is held to its output by tests.
//
// What differs from it, all of it about characters that Unicode added since
// version 14 (ftfy uses its Python's tables, Go has its own): a combining mark
// added in Unicode 15 is put in canonical order; a letter added in Unicode 15
// counts as a letter.
//
// Beside it are the string operations of Python that CLIP's cleaning needs and
// that Go's standard library does otherwise: [UnescapeHTML], [Lower], [Strip].
package fixtext
