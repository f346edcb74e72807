package jsonerror

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestWords(t *testing.T) {
	type inner struct {
		N    *int64             `json:"n"`
		F    float32            `json:"f"`
		List []struct{ A bool } `json:"list"`
		Map  map[string]string  `json:"map"`
	}
	for text, want := range map[string]string{
		`{"in": {"n": "x"}}`:           "in.n: got a string, want an integer",
		`{"in": {"n": 1.5}}`:           "in.n: got number 1.5, want an integer",
		`{"in": {"f": true}}`:          "in.f: got true or false, want a number",
		`{"in": {"list": {}}}`:         "in.list: got an object, want a list",
		`{"in": {"list": [{"A": 1}]}}`: "in.list.A: got a number, want true or false",
		`{"in": {"map": [1]}}`:         "in.map: got a list, want an object",
		`{"in": {"map": {"a": [1]}}}`:  "in.map: got a list, want a string",
		`[1]`:                          "got a list, want an object",
		`{"in": `:                      "broken JSON at byte 7: unexpected end of JSON input",
		`{"in" 1}`:                     "broken JSON at byte 7: invalid character '1' after object key",
	} {
		var v struct {
			In inner `json:"in"`
		}
		if err := Words(json.Unmarshal([]byte(text), &v)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	other := errors.New("other")
	if Words(other) != other || Words(nil) != nil {
		t.Error("another error was changed")
	}
}
