package serve

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// document reads /openapi.json.
func document(t *testing.T, url, key string) map[string]any {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url+"/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Api-Key", key)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, err)
	}
	return decode[map[string]any](t, string(b))
}

// registered finds the routes in the sources.
var registered = regexp.MustCompile(`"(GET|HEAD|POST|PUT|DELETE) (/[^"]+)"`)

// TestOpenAPI checks that the document has the routes in the sources, no others, and that what it refers
// to is there.
func TestOpenAPI(t *testing.T) {
	url, _, _ := start(t, func(o *Options) { o.Version = "v9" })
	api := document(t, url, "")
	if v := api["info"].(map[string]any)["version"]; v != "v9" || api["openapi"] != "3.1.0" {
		t.Error(v, api["openapi"])
	}
	has := map[string]bool{}
	for path, item := range api["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			has[strings.ToUpper(method)+" "+path] = true
		}
	}
	const models = "/v2/models/{name}"
	several := map[string][]string{ // patterns of several routes
		"GET /v1/models/{id...}":    {"/v1/models/{id}"},
		"GET /v2/models/{path...}":  {models, models + "/ready", models + "/versions/{version}", models + "/versions/{version}/ready"},
		"POST /v2/models/{path...}": {models + "/infer", models + "/versions/{version}/infer"},
	}
	want := map[string]bool{}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sources {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range registered.FindAllStringSubmatch(string(b), -1) {
			switch paths := several[m[1]+" "+m[2]]; {
			case strings.HasSuffix(path, "_test.go"), kind(m[1]+" "+m[2]) == "page":
			case paths != nil:
				for _, p := range paths {
					want[m[1]+" "+p] = true
				}
			default:
				want[m[1]+" "+m[2]] = true
			}
		}
	}
	if len(want) < 10 || !maps.Equal(has, want) {
		t.Errorf("the document has %v, the sources %v", slices.Sorted(maps.Keys(has)), slices.Sorted(maps.Keys(want)))
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				at := any(api)
				for _, key := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
					at = at.(map[string]any)[key]
				}
				if at == nil {
					t.Errorf("%s does not exist", ref)
				}
			}
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(api)
	examples := 0
	for path, item := range api["paths"].(map[string]any) {
		operation, _ := item.(map[string]any)["post"].(map[string]any)
		body, _ := operation["requestBody"].(map[string]any)
		content, _ := body["content"].(map[string]any)
		if kind, _ := content["application/json"].(map[string]any); kind["example"] != nil {
			b, err := json.Marshal(kind["example"])
			if err != nil {
				t.Fatal(err)
			}
			path = strings.NewReplacer("{name}", "world", "{version}", "1").Replace(path)
			if answer, text := post(t, url+path, "application/json", bytes.NewReader(b)); answer.StatusCode != http.StatusOK {
				t.Errorf("%s: the example is wrong: %s", path, text)
			}
			examples++
		}
	}
	if examples < 5 {
		t.Errorf("%d examples", examples)
	}
	if _, ok := api["components"].(map[string]any)["securitySchemes"]; ok {
		t.Error("the document asks for keys, which nobody needs")
	}

	url, _, _ = start(t, func(o *Options) { o.Keys = []string{"secret"} })
	api = document(t, url, "secret")
	walk(api)
	for path, needs := range map[string]bool{"/healthz": false, "/v2/health/ready": false, "/metrics": true, "/v2/models/{name}": true} {
		get := api["paths"].(map[string]any)[path].(map[string]any)["get"].(map[string]any)
		_, refused := get["responses"].(map[string]any)["401"]
		if _, locked := get["security"]; locked != needs || refused != needs {
			b, _ := json.Marshal(get)
			t.Errorf("%s: %s", path, b)
		}
	}
}
