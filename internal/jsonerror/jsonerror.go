// Package jsonerror puts the errors of encoding/json into words for people who do not
// know Go.
package jsonerror

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Words returns err in words: "metadata.step: got a string, want an integer", or "broken
// JSON at byte 17: …". It returns other errors as they are.
func Words(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("broken JSON at byte %d: %s", syntax.Offset, syntax.Error())
	case errors.As(err, &kind):
		return errors.New(Type(kind))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("broken JSON: unexpected end")
	}
	return err
}

// Type returns in words what was found, what is wanted, and the key.
func Type(e *json.UnmarshalTypeError) string {
	s := fmt.Sprintf("got %s, want %s", found(e.Value), wanted(e.Type))
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	return s
}

func found(value string) string {
	what, rest, _ := strings.Cut(value, " ")
	switch {
	case what == "number" && rest != "":
		return value
	case what == "array":
		return "a list"
	case what == "object":
		return "an object"
	case what == "bool":
		return "true or false"
	}
	return "a " + what
}

func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "an integer"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	}
	return "an object"
}
