package config

import (
	"slices"
	"strings"

	"cyclecap/internal/nearest"
)

// nearestPaths returns the known paths that an unknown path may stand for: those whose
// elements, counted from the last, are similar ("cyclegan.epoch" is similar to
// "train.cyclegan.epochs"), or else those with the same last element. Paths of the
// same length are preferred. If several are equally good, it returns all of them.
func nearestPaths(path []string, known [][]string) [][]string {
	var best [][]string
	most := 0.0
	add := func(k []string, x float64) {
		if x > most {
			best, most = nil, x
		}
		if x == most {
			best = append(best, k)
		}
	}
	for _, k := range known {
		if len(path) == 0 || len(k) < len(path) {
			continue
		}
		x := 1.0
		for i, word := range k[len(k)-len(path):] {
			if a := nearest.Alike(path[i], word); a > nearest.Enough {
				x *= a
			} else {
				x = 0
			}
		}
		if len(k) == len(path) {
			x *= 2
		}
		if x > 0 {
			add(k, x)
		}
	}
	if best == nil && len(path) > 0 {
		for _, k := range known {
			if len(k) > 0 && k[len(k)-1] == path[len(path)-1] {
				best = append(best, k)
			}
		}
	}
	return best
}

// suggest returns the hint in the error for an unknown key or table.
func suggest(path []string, isTable bool) string {
	var known [][]string
	keys, tables := schema()
	if isTable {
		for _, t := range tables[1:] {
			known = append(known, t.path)
		}
	} else {
		for _, k := range keys {
			known = append(known, k.path)
		}
	}
	if near := nearestPaths(path, known); near != nil {
		var names []string
		for _, p := range near {
			names = append(names, strings.Join(p, "."))
		}
		last := names[len(names)-1]
		if len(names) > 1 {
			last = strings.Join(names[:len(names)-1], ", ") + " or " + last
		}
		return "did you mean " + last + "?"
	}
	// Nothing is similar: list what is valid in the nearest table that exists.
	for n := len(path) - 1; n >= 0; n-- {
		t := tableAt(path[:n])
		if t == nil {
			continue
		}
		var names []string
		for _, k := range t.keys {
			names = append(names, k.path[n])
		}
		for _, inner := range tables[1:] {
			if len(inner.path) == n+1 && slices.Equal(inner.path[:n], path[:n]) {
				names = append(names, "["+inner.String()+"]")
			}
		}
		where := ""
		if n > 0 {
			where = " in [" + t.String() + "]"
		}
		return "valid keys" + where + ": " + strings.Join(names, ", ")
	}
	return ""
}
