package ptb

import (
	_ "embed"
	"fmt"
	"strings"
)

// What is special about a word, as words.txt has it.
const (
	always       = 1 << iota // keeps its period whatever follows
	twoFollow                // the same where two characters follow, more than a word that goes on does
	beforeNumber             // only before a digit, with or without a space between
	capital                  // only with a capital first letter
	small0                   // only with a small first, second, third, fourth letter
	small1
	small2
	small3
)

var (
	// abbreviations are in small letters; whatever is in no flag may be a capital.
	abbreviations = map[string]uint8{}
	// extensions are those of file names.
	extensions = map[string]bool{}
	// openers are words that begin a sentence: a single letter with a period
	// before one of them ends the sentence before it.
	openers = map[string]bool{}
	// assimilations are words that are two tokens, and the length of the first.
	assimilations = map[string]int{}
	contractions  []contraction
	// entities are the likes of &ht; that stay what they are.
	entities []string
	// acronymPairs are the likes of non-u.s: elsewhere
	// a hyphen and letters with a period between them are no token.
	acronymPairs []string
)

// contraction is a word with an apostrophe, any that (*scanner).apostrophe knows or only '.
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
