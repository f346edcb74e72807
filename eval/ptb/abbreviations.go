package ptb

import "strings"

// Abbreviations keep their period. Case matters only where the list has a
// capital after '^': a state's abbreviation that is a common word as well.
const (
	always       = 1 << iota // whatever follows
	twoFollow                // where two characters follow, more than a word that goes on does
	beforeNumber             // only before a digit, with or without a space between
	capital                  // only with a capital first letter
	small1                   // only with a small second, third, fourth letter
	small2
	small3
)

var abbreviations = map[string]uint8{}

func init() {
	for list, flags := range map[string]uint8{
		"jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri " + // dates
			"ala ariz calif colo conn ct dak fla ga ind kan kans ky md mich minn mo mont neb nev okla penn tenn va vt wis wisc wyo " + // states
			"inc co cos corp ltd plc rt bancorp bhd assn univ intl sys " + // companies
			"tel est ext sq jr sr bros esq etc al seq bldg blvd rd ": twoFollow,
		"az ark del ill la mass miss ore pa tex wash ": twoFollow | capital,
		"mr mrs ms dr drs prof profs sen sens rep reps atty attys lt col gen messrs gov govs adm rev maj sgt cpl pvt " + // titles
			"mt capt st ste ave pres lieut hon brig cmdr comdr pfc spc supt supts det " +
			"vs alex wm jos cie cf treas invt elec natl dept ph ft adj adv asst assoc ens insp mlle mme msgr sfc": always,
		"mfg mtg": always | small1, "pty ptys pte ptes": twoFollow | small2, "ppty pptys ppte pptes": twoFollow | small3,
		"ca fig figs prop no nos art pp op": beforeNumber,
	} {
		for word := range strings.FieldsSeq(list) {
			abbreviations[word] |= flags
		}
	}
}

var extensions = map[string]bool{}

func init() {
	for word := range strings.FieldsSeq("bat bmp c class cgi cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov " +
		"mp3 pdf php pl png ppt ps py sql tar txt wav x xml zip") {
		extensions[word] = true
	}
}

// openers are words that begin a sentence: a single letter with a period
// before one of them ends the sentence before it.
var openers = map[string]bool{}

func init() {
	for word := range strings.FieldsSeq("about according additionally after an a as at but earlier he her here however if in it last many " +
		"more mr. ms. now once one other our she since so some such that the their then there these they this we when while what yet you") {
		openers[word] = true
	}
}
