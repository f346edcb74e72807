package ptb

import (
	_ "embed"
	"fmt"
	"strings"
)

// The special properties of words in words.txt.
const (
	always       = 1 << iota // keeps its period, whatever follows
	twoFollow                // keeps its period if two characters follow; reaches further than a longer word
	beforeNumber             // only before a digit, with or without a space between
	capital                  // only if its first letter is a capital
	small0                   // only if its first, second, third or fourth letter is lower-case
	small1
	small2
	small3
)

var (
	// abbreviations are in lower case; a letter without a flag may be a capital.
	abbreviations = map[string]uint8{}
	// extensions are file name extensions.
	extensions = map[string]bool{}
	// openers are words that begin a sentence: they end the sentence before them
	// if it ends in a single letter with a period.
	openers = map[string]bool{}
	// assimilations maps words that are two tokens to the length of the first.
	assimilations = map[string]int{}
	contractions  []contraction
	// entities are entities such as &ht; that are kept unchanged.
	entities []string
	// acronymPairs are pairs such as non-u.s; in other words, a hyphen and
	// letters with periods between them are not a token.
	acronymPairs []string
)

// A contraction is a word with an apostrophe: any that (*scanner).apostrophe accepts, or only '.
type contraction struct {
	before, behind string
	any            bool
}

//go:embed words.txt
var wordText string

func init() {
	flags := map[string]uint8{"always": always, "twoFollow": twoFollow, "beforeNumber": beforeNumber,
		"capital": capital, "small0": small0, "small1": small1, "small2": small2, "small3": small3}
	for line := range strings.Lines(wordText) {
		name, list, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" || name == "#" {
			continue
		}
		for word := range strings.FieldsSeq(list) {
			switch name {
			case "extension":
				extensions[word] = true
			case "opener":
				openers[word] = true
			case "split":
				first, rest, _ := strings.Cut(word, "-")
				assimilations[first+rest] = len(first)
			case "apostrophe", "anyApostrophe":
				before, behind, _ := strings.Cut(word, "'")
				contractions = append(contractions, contraction{before, behind, name == "anyApostrophe"})
			case "acronymPair":
				acronymPairs = append(acronymPairs, word)
			case "entity":
				entities = append(entities, "&"+word+";")
			default:
				for flag := range strings.SplitSeq(name, "+") {
					if flags[flag] == 0 {
						panic(fmt.Sprintf("ptb: words.txt: no such behaviour: %q", name)) // a build with a broken file
					}
					abbreviations[word] |= flags[flag]
				}
			}
		}
	}
}
