package serve

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"cyclecap/data/world"
)

// pageFiles are the page: index.html, its styles and its modules.
//
//go:embed page
var pageFiles embed.FS

// pagePolicy lets the page load nothing but its own files, and nobody frame it. blob: is for
// the photos that are chosen.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// A pageFile is a file of the page.
type pageFile struct {
	kind, tag string
	data      []byte
}

func newPageFile(name string, data []byte) pageFile {
	// The types that package mime knows depend on the machine.
	kind := map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
		".svg": "image/svg+xml", ".jpg": "image/jpeg", ".json": "application/json"}[path.Ext(name)]
	return pageFile{kind, fmt.Sprintf(`"%.16x"`, sha256.Sum256(data)), data}
}

// send sends a file. Browsers ask each time whether it has changed, which costs little: a new
// program must not meet old modules.
func (f pageFile) send(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Type", f.kind)
	h.Set("ETag", f.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
}

// pageRoutes are the routes of the page.
func pageRoutes(mux *http.ServeMux) {
	list, _ := pageFiles.ReadDir("page") // what is embedded can be read
	for _, e := range list {
		name := "page/" + e.Name()
		data, _ := pageFiles.ReadFile(name)
		route := "GET /" + name
		if e.Name() == "index.html" {
			route = "GET /{$}"
		}
		mux.HandleFunc(route, newPageFile(name, data).send)
	}
	mux.HandleFunc("GET /page/samples/{name}", sendSample)
}

// sampleScenes are the numbers of the scenes to try: different places, with one thing or more.
var sampleScenes = []int{3, 30, 25, 17, 34, 1}

// samples draws the photos to try, with a true caption of each: N.jpg and list.json.
var samples = sync.OnceValues(func() (map[string]pageFile, error) {
	type sample struct {
		File string `json:"file"`
		Text string `json:"text"`
	}
	var list []sample
	files := map[string]pageFile{}
	set := world.Config{Seed: 12, Size: 320, Val: 36}.Drawn(world.Val)
	for k, i := range sampleScenes {
		name := fmt.Sprintf("%d.jpg", k+1)
		err := set.Photo(i, func(file []byte) error {
			files[name] = newPageFile(name, bytes.Clone(file))
			return nil
		})
		if err != nil {
			return nil, err
		}
		list = append(list, sample{name, strings.TrimSuffix(set.Captions(i)[0], ".")})
	}
	b, err := json.Marshal(list)
	files["list.json"] = newPageFile("list.json", b)
	return files, err
})

func sendSample(w http.ResponseWriter, r *http.Request) {
	files, err := samples()
	f, ok := files[r.PathValue("name")]
	if err != nil || !ok {
		http.NotFound(w, r)
		return
	}
	f.send(w, r)
}
