package config

import (
	"slices"
	"strings"

	"cyclecap/internal/nearest"
)

// nearestPaths gives what is meant by a path: the known ones that are alike in
// each element, from the last one on ("cyclegan.epoch" is like
// "train.cyclegan.epochs"); else those with the same last element. Those of the
// same length come first; of several equally good ones all are given.
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

// suggest says what may be meant by an unknown key or table.
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
	// Nothing is like it: what is there, in the nearest table that exists.
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
		where := "there are "
		if n > 0 {
			where = "[" + t.String() + "] has "
		}
		return where + strings.Join(names, ", ")
	}
	return ""
}
