package serve

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzOwn sends any body of any type to the server's own routes: no panic, nothing but answers
// and errors of the client.
func FuzzOwn(f *testing.F) {
	routes := []string{"/caption", "/features", "/similarity"}
	_, s, _ := start(f, func(o *Options) { o.MaxItems, o.MaxPixels, o.MaxBody = 4, 1e6, 1<<20 })
	const asJSON, asForm = "application/json", "multipart/form-data; boundary=x"
	form := "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n" + small + "\r\n" +
		"--x\r\nContent-Disposition: form-data; name=\"beam\"\r\n\r\n3\r\n--x\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\na cup\r\n--x--\r\n"
	f.Add(0, asJSON, []byte(`{"images": ["`+small+`"], "decode": "beam", "beam": 2, "max_tokens": 3, "gap": true}`))
	f.Add(0, asJSON, []byte(`{"images": ["`+small+`"], "decode": "sample", "temperature": 0.5, "top_k": 3, "top_p": 0.5, "seed": 1}`))
	f.Add(1, asJSON, []byte(`{"images": ["`+small+`"], "texts": ["a", "b"], "normalize": true, "textualise": true}`))
	f.Add(2, asJSON, []byte(`{"images": ["https://example.org/a.jpg"], "texts": ["a"]}`))
	f.Add(0, asForm, []byte(form))
	f.Add(2, asForm, []byte(strings.Replace(form, "beam", "model", 1)))
	f.Add(0, "image/jpeg", []byte("\xff\xd8\xff\xe0"))
	f.Add(0, "text/plain", []byte("a"))
	f.Fuzz(func(t *testing.T, route int, kind string, body []byte) {
		path := routes[uint(route)%uint(len(routes))]
		r := httptest.NewRequest(http.MethodPost, "http://localhost"+path, bytes.NewReader(body))
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code == http.StatusTooManyRequests {
			t.Errorf("%s: %d: %s", path, w.Code, w.Body)
		}
		if w.Code != http.StatusOK && decode[struct{ Error errorJSON }](t, w.Body.String()).Error.Message == "" {
			t.Errorf("%s: no error in %s", path, w.Body)
		}
	})
}
