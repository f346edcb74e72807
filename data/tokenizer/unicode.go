package tokenizer

import (
	"unicode"
)

// A class is the class of a character in the splitting patterns: \s, \p{L},
// \p{N} or anything else.
type class uint8

const (
	other class = iota
	space
	letter
	number
)

func classOf(r rune) class {
	if r < 0x80 {
		return asciiClass[r]
	}
	switch {
	case unicode.Is(unicode.L, r) || unicode.Is(newLetters, r):
		return letter
	case unicode.Is(unicode.N, r) || unicode.Is(newNumbers, r):
		return number
	case unicode.IsSpace(r):
		return space
	}
	return other
}

var asciiClass = func() (c [0x80]class) {
	for r := range rune(0x80) {
		switch {
		case unicode.IsLetter(r):
			c[r] = letter
		case unicode.IsDigit(r):
			c[r] = number
		case unicode.IsSpace(r):
			c[r] = space
		}
	}
	return c
}()
