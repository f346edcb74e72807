package coco

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// An ID identifies an image or an annotation: a number, a string, true or false in JSON.
// COCO's are integers, those of other data sets are often file names. IDs can be compared
// with == and be the keys of maps. Numbers with the same value are the same ID, and are
// written as integers where they are whole: 1.0 is 1. A string of digits is not a number.
// The zero value is no ID.
type ID struct {
	json string // the canonical form in JSON; with a leading '!', what it is instead of an ID
}

// Int returns the ID of an integer.
func Int(n int64) ID { return ID{strconv.FormatInt(n, 10)} }

// Text returns the ID of a string.
func Text(s string) ID {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(s) // a string always has a JSON form
	return ID{strings.TrimSuffix(b.String(), "\n")}
}

// cocoName is the form of the file names of COCO: 000000391895.jpg and
// COCO_val2014_000000391895.jpg.
var cocoName = regexp.MustCompile(`^(?:COCO_[a-z]+[0-9]{4}_)?([0-9]{12})\.(?:jpg|jpeg|png)$`)

// FileID returns the ID of an image that has a file name of COCO.
func FileID(name string) (id ID, ok bool) {
	m := cocoName.FindStringSubmatch(path.Base(strings.ReplaceAll(name, `\`, "/")))
	if m == nil {
		return ID{}, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	return Int(n), err == nil
}

// Int64 returns the value of an integer, and whether the ID is one.
func (id ID) Int64() (int64, bool) {
	n, err := strconv.ParseInt(id.json, 10, 64)
	return n, err == nil
}

// String returns the ID as in JSON: 7, or "7.jpg" with its quotation marks.
func (id ID) String() string { return id.json }

// Equal reports whether two IDs are equal, like ==.
func (id ID) Equal(other ID) bool { return id == other }

// Compare orders numbers by value, and before all other IDs.
func (id ID) Compare(other ID) int {
	a, errA := strconv.ParseFloat(id.json, 64)
	b, errB := strconv.ParseFloat(other.json, 64)
	switch {
	case errA == nil && errB == nil && a != b:
		return cmp.Compare(a, b)
	case (errA == nil) != (errB == nil):
		return map[bool]int{true: -1, false: 1}[errA == nil]
	}
	return cmp.Compare(id.json, other.json)
}

// MarshalJSON implements json.Marshaler.
func (id ID) MarshalJSON() ([]byte, error) {
	if id.json == "" || id.json[0] == '!' {
		return nil, fmt.Errorf("no id")
	}
	return []byte(id.json), nil
}

// UnmarshalJSON implements json.Unmarshaler. Other values than an ID are errors that Check
// returns, where their place is known.
func (id *ID) UnmarshalJSON(data []byte) error {
	switch data[0] {
	case '[':
		id.json = "!a list"
	case '{':
		id.json = "!an object"
	case '"':
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		*id = Text(s)
	case 't', 'f', 'n':
		id.json = string(data)
	default:
		id.json = number(string(data))
	}
	return nil
}

// number returns the canonical form of a number in JSON.
func number(s string) string {
	if !strings.ContainsAny(s, ".eE") {
		if s == "-0" {
			return "0"
		}
		return s // any number of digits
	}
	v, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil:
		return "!the number " + s
	case v == math.Trunc(v) && math.Abs(v) < 1e21:
		return strconv.FormatFloat(v+0, 'f', 0, 64) // +0: not -0
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// Check returns an error if the value in the file was not an ID.
func (id *ID) Check() error {
	if id != nil && strings.HasPrefix(id.json, "!") {
		return fmt.Errorf("is %s, want a number or a string", id.json[1:])
	}
	return nil
}
