package serve

import (
	"bytes"
	"encoding/json"
	"image"
	_ "image/jpeg"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestPage reads the files of the page: their types and policies, and what is sent for a file
// that the browser has.
func TestPage(t *testing.T) {
	url, _, _ := start(t, func(o *Options) { o.Keys = []string{"secret"} }) // the page needs none
	kinds := map[string]string{"/": "text/html; charset=utf-8", "/page/style.css": "text/css; charset=utf-8", "/page/app.js": "text/javascript; charset=utf-8",
		"/page/icon.svg": "image/svg+xml", "/page/samples/1.jpg": "image/jpeg", "/page/samples/list.json": "application/json"}
	tags := map[string]string{}
	for path, kind := range kinds {
		answer, text := get(t, url+path)
		h := answer.Header
		if answer.StatusCode != http.StatusOK || h.Get("Content-Type") != kind || text == "" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %s, %v", path, answer.Status, h)
		}
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src 'self'", "form-action 'none'", "base-uri 'none'", "frame-ancestors 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy %q has no %s", path, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") {
			t.Error(csp)
		}
		tag := h.Get("ETag")
		if other, ok := tags[tag]; ok || !regexp.MustCompile(`^"[0-9a-f]{32,}"$`).MatchString(tag) {
			t.Errorf("%s: tag %s, also of %q", path, tag, other)
		}
		tags[tag] = path
		if answer, text := get(t, url+path, "If-None-Match", tag); answer.StatusCode != http.StatusNotModified || text != "" {
			t.Errorf("%s: %s with the tag", path, answer.Status)
		}
		if answer, _ := get(t, url+path, "If-None-Match", `"0"`); answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %s with another tag", path, answer.Status)
		}
	}
	for _, path := range []string{"/page/", "/page/none.js", "/page/index.html", "/page/samples/7.jpg", "/page/samples/..%2fapp.js", "/other"} {
		if answer, _ := get(t, url+path); answer.StatusCode == http.StatusOK {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
	if answer, _ := get(t, url+"/models"); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("/models without a key: %s", answer.Status)
	}
}

// The page loads nothing from elsewhere and has no script or style of its own, which the policy
// would refuse.
func TestPageIsSelfContained(t *testing.T) {
	list, err := pageFiles.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		data, err := pageFiles.ReadFile("page/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "http://www.w3.org/2000/svg", "")
		for _, not := range []string{"http:", "https:", "style=\"", "<style", "onclick", "innerHTML", "eval("} {
			if strings.Contains(text, not) {
				t.Errorf("%s has %s", e.Name(), not)
			}
		}
	}
}

// TestSamples decodes the photos to try and captions one.
func TestSamples(t *testing.T) {
	url, _, _ := start(t, nil)
	_, text := get(t, url+"/page/samples/list.json")
	var list []struct{ File, Text string }
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 6 {
		t.Fatal(text, err)
	}
	for _, s := range list {
		_, file := get(t, url+"/page/samples/"+s.File)
		c, format, err := image.DecodeConfig(strings.NewReader(file))
		if err != nil || format != "jpeg" || c.Width != 320 || c.Height != 320 || len(file) > 40e3 || len(s.Text) < 10 {
			t.Errorf("%+v: %v, %s, %+v, %d bytes", s, err, format, c, len(file))
		}
	}
	_, file := get(t, url+"/page/samples/1.jpg")
	if answer, text := post(t, url+"/caption", "image/jpeg", bytes.NewReader([]byte(file))); answer.StatusCode != http.StatusOK || !strings.Contains(text, "red balloon") {
		t.Errorf("the red balloon: %s %s", answer.Status, text)
	}
}
