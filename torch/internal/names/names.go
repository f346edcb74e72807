// Package names has the rule by which the fields of Go structs have Python's names.
package names

import (
	"strings"
	"unicode"
)

// Snake returns the Python name of a Go field: ToKeysValues -> to_keys_values.
func Snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		if unicode.IsUpper(r) {
			if i > 0 {
				b.WriteByte('_')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}
