package fixtext

import "unicode"

// Mojibake consists of about 400 characters, those that the bytes 80 to FF
// represent in the character sets that UTF-8 is mistaken for. What gives it away
// is not the characters themselves but their neighbours: "é" is a letter and "€"
// a sign, but "Ã©" and "â‚¬" occur in no language. So the characters are sorted
// into kinds, and a table lists which kinds do not follow each other in sound
// text. Kinds, table and exceptions are those of ftfy's heuristic.
const (
	bad         = 1 << iota // rarely used outside mojibake
	control                 // C1 controls
	common                  // used in many contexts, no evidence on its own
	law                     // legal texts
	currency                //
	opening                 // punctuation before a word
	closing                 // punctuation after a word
	numeric                 // arithmetic
	face                    // letters that are also used in emoticons: "[ò_ó]", "┻━┻ ︵ヽ(°□°"
	upperAccent             //
	lowerAccent             //
	upperOther              // Greek, Cyrillic, …
	lowerOther              //
	box                     // box drawing

	accent = upperAccent | lowerAccent
)

var kindMembers = []struct {
	kind    uint16
	members string
	ranges  [][2]rune
}{
	{bad, "¤¦¨ª¬¯¸ºƒˆˇ˘˛˜†‡‰⌐◊\uFFFD", nil},
	{control, "", [][2]rune{{0x80, 0x9F}}},
	{common, "\u00A0\u00AD·´–—―…’", nil},
	{law, "§¶", nil},
	{currency, "¢£¥₧€", nil},
	{opening, "¡«¿©΄΅‘‚“„•‹\uF8FF", nil},
	{closing, "®»˝”›™", nil},
	{numeric, "±²³µ¹¼½¾×÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№", nil},
	{face, "°ŌŐŪŲ", [][2]rune{{'Ò', 'Ö'}, {'Ù', 'Ü'}, {'ò', 'ö'}, {'ø', 'ü'}}},
	{upperAccent, "ØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢİĪĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ", [][2]rune{{'À', 'Ñ'}}},
	{lowerAccent, "ßüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґﬁﬂ", [][2]rune{{'à', 'ñ'}}},
	{upperOther, "ÞΆΈΉΊΌΎΏΪΫ", [][2]rune{{'Α', 'Ω'}, {'Ё', 'Я'}}},
	{lowerOther, "άέήίΰ", [][2]rune{{'α', 'ω'}, {'а', 'џ'}}},
	{box, "│┌┐┘├┤┬┼▀▄█▌▐░▒▓", [][2]rune{{'═', '╬'}}},
}

// kinds holds the kinds of all characters below its length; the few above it are
// in kindOf.
var kinds = func() (k [0x25CB]uint16) {
	for _, set := range kindMembers {
		for _, r := range set.members {
			if int(r) < len(k) {
				k[r] |= set.kind
			}
		}
		for _, pair := range set.ranges {
			for r := pair[0]; r <= pair[1]; r++ {
				k[r] |= set.kind
			}
		}
	}
	return k
}()

func kindOf(r rune) uint16 {
	if int(r) < len(kinds) {
		return kinds[r]
	}
	switch r {
	case 0xFFFD:
		return bad
	case 0xF8FF:
		return opening
	case 'ﬁ', 'ﬂ':
		return lowerAccent
	}
	return 0
}

// clashes lists, for a kind, the kinds that do not follow it in sound text.
var clashes = []struct{ kind, next uint16 }{
	{bad, accent | box | opening | closing | currency | numeric | law | bad},
	{upperAccent, bad | numeric | law | box},
	{lowerAccent, bad | upperAccent | currency | box},
	{lowerOther, upperAccent},
	{opening, bad | box},
	{closing, bad | accent | currency | box},
	{currency, bad | accent | opening | box},
	{numeric, bad | accent | opening | box},
	{law, bad | box},
	{box, bad | accent | currency | numeric | law | opening | closing | face},
}

// isBad reports whether text looks as if it contains mojibake.
func isBad(text []rune) bool {
	for i, r := range text {
		if r < 0x80 && !(isASCIILetter(r) || isSpace(r) || r == '.' || r == ',' || r == '?' || r == '!') {
			continue
		}
		if isBadAt(text, i) {
			return true
		}
	}
	return false
}

// isBadAt reports whether a sequence that occurs in no sound text starts at text[i].
func isBadAt(text []rune, i int) bool {
	// The characters starting at i, 0 after the end.
	var c [6]rune
	copy(c[:], text[i:])
	rest := len(text) - i
	a, b, d := kindOf(c[0]), kindOf(c[1]), kindOf(c[2])

	if a&control != 0 {
		return true
	}
	for _, clash := range clashes {
		if a&clash.kind != 0 && b&clash.next != 0 {
			return true
		}
	}

	// Three kinds in a row.
	latin := isASCIILetter(c[0])
	small := latin && c[0] >= 'a'
	switch {
	case latin && b&(lowerOther|upperOther) != 0 && d&bad != 0,
		small && b&upperAccent != 0 && d&(opening|currency) != 0,
		isSpace(c[0]) && b&upperAccent != 0 && d&currency != 0,
		a&(accent|box|currency|closing) != 0 && b&opening != 0 && d&numeric != 0,
		a&(accent|currency|numeric|box|law) != 0 && b&closing != 0 && d&opening != 0,
		a&accent != 0 && b&(opening|closing) != 0 && rest > 2 && isWord(c[2]):
		return true
	}

	// "Ã" and "Â" before a space that was a no-break space.
	blanked := func(i int) bool {
		return i+1 < len(text) && (text[i] == 'Ã' || text[i] == 'Â') && text[i+1] == ' '
	}
	switch {
	case i == 0 && blanked(i),
		small && (blanked(i+1) || isSpace(c[1]) && blanked(i+2)):
		return true
	}
	if (small || a&closing != 0 || c[0] == '.' || c[0] == ',' || c[0] == '?' || c[0] == '!') &&
		c[1] == 'Â' && (c[2] == ' ' || d&(opening|closing) != 0) {
		return true
	}
	if c[0] < 0x80 {
		return false
	}

	// What certain characters mean in certain character sets.
	switch c[0] {
	case 'Œ', 'œ': // a ligature before anything but a Latin letter
		return rest > 1 && !isASCIILetter(c[1])
	case 'Ø', 'Ù': // Windows-1252 for Arabic: two pairs, because a single one may be sound
		if arabicTail(c[1]) && (c[2] == 'Ø' || c[2] == 'Ù') && arabicTail(c[3]) {
			return true
		}
	case 'Â', 'Ã', 'Î', 'Ð': // Windows-1252 for Latin, Greek and Cyrillic
		return b&(opening|closing) != 0 || oneOf(c[1], "€œŠš¢£Ÿž\u00A0\u00AD®©°·»–—´")
	case '×':
		return c[1] == '²' || c[1] == '³'
	case 'à': // Windows-1252 for scripts of South Asia
		return oneOf(c[1], "²µ¹¼½¾")
	case '√': // MacRoman from here on
		return oneOf(c[1], "±∂†≠®™´≤≥¥µø")
	case '≈':
		return c[1] == '°' || c[1] == '¢'
	case '‚':
		return c[1] == 'Ä' && oneOf(c[2], "ìîïòôúùû†°¢π") ||
			(c[1] == 'â' || c[1] == 'ó') && oneOf(c[2], "àä°ê")
	case 'ā': // Windows-1257 for U+2000 and up, like the next two
		return c[1] == '€'
	case 'в':
		return c[1] == 'Ђ'
	case 'β':
		return c[1] == '€' && oneOf(c[2], "™\u00A0Ά\u00AD®°")
	case 'В', 'Г', 'Р', 'С': // Windows-1251 for Latin-1 or Cyrillic
		if c[0] == 'Г' && c[1] == 'ў' && c[2] == 'В' && c[3] == 'Ђ' && c[4] == 'В' {
			// Windows-1251 on top of Latin-1; the next character may be anything,
			// and something Latin follows it.
			return rest > 6 && c[5] != '\n' && (isASCIILetter(text[i+6]) || text[i+6] == ' ')
		}
		return (b&(control|bad|opening|closing|currency) != 0 || c[1] == '°' || c[1] == 'µ') && oneOf(c[2], "ВГРС")
	case 'Β', 'Γ', 'Ξ', 'Ο': // Windows-1253 for Latin-1 or Greek
		return (b&(control|bad|opening|closing|currency) != 0 || c[1] == '°') && oneOf(c[2], "ΒΓΞΟ")
	}
	return a&upperAccent != 0 && c[1] == '°'
}

// arabicTail reports whether r is the second character of an Arabic letter that
// was decoded as Windows-1252.
func arabicTail(r rune) bool {
	return kindOf(r)&(common|currency|bad|numeric|opening) != 0 || oneOf(r, "ŸŠ®°µ»")
}

func oneOf(r rune, set string) bool {
	if r == 0 {
		return false
	}
	for _, m := range set {
		if r == m {
			return true
		}
	}
	return false
}

// isWord reports whether \w in Python's re matches r.
func isWord(r rune) bool { return r == '_' || unicode.In(r, unicode.L, unicode.N) }
