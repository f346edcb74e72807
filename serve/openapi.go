package serve

import (
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// openapi has a description for each protocol; server.json has what they share.
//
//go:embed openapi/*.json
var openapi embed.FS

// describe returns the description of all routes in OpenAPI 3.1. locked says whether clients
// need a key.
func describe(o Options, locked bool) map[string]any {
	api := map[string]any{}
	entries, err := openapi.ReadDir("openapi")
	for _, e := range entries {
		var part map[string]any
		b, readErr := openapi.ReadFile("openapi/" + e.Name())
		if err = readErr; err == nil {
			err = json.Unmarshal(b, &part)
		}
		if err != nil {
			break
		}
		merge(api, part, e.Name())
	}
	if err != nil {
		panic(fmt.Sprintf("openapi: %v", err)) // the files are part of the program
	}
	api["info"].(map[string]any)["version"] = o.Version
	schemes := api["components"].(map[string]any)["securitySchemes"].(map[string]any)
	if !locked {
		delete(api["components"].(map[string]any), "securitySchemes")
		return api
	}
	var security []any
	for _, name := range slices.Sorted(maps.Keys(schemes)) {
		security = append(security, map[string]any{name: []string{}})
	}
	for path, item := range api["paths"].(map[string]any) {
		if slices.Contains(o.Public, kind("GET "+path)) {
			continue
		}
		for _, operation := range item.(map[string]any) {
			operation := operation.(map[string]any)
			operation["security"] = security
			// The host of each can be wrong (403), which has the form of the protocol.
			answers := operation["responses"].(map[string]any)
			form := answers["403"].(map[string]any)["$ref"].(string)
			answers["401"] = map[string]any{"$ref": strings.Replace(form, "403", "401", 1)}
		}
	}
	return api
}

// merge adds a part to an object. Nothing may be there twice.
func merge(to, part map[string]any, name string) {
	for key, value := range part {
		have, ok := to[key]
		if !ok {
			to[key] = value
			continue
		}
		a, isObject := have.(map[string]any)
		b, isToo := value.(map[string]any)
		if !isObject || !isToo {
			panic(fmt.Sprintf("openapi: %s has %s, which another file has", name, key))
		}
		merge(a, b, name)
	}
}
