package serve

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// binaryStrings is a tensor of type BYTES as binary data.
func binaryStrings(list ...[]byte) (b []byte) {
	for _, s := range list {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return b
}

// binaryRequest returns a body of JSON and binary data, and the headers for it.
func binaryRequest(head string, after ...[]byte) (io.Reader, []string) {
	return bytes.NewReader(append([]byte(head), bytes.Join(after, nil)...)), []string{kserveHeader, strconv.Itoa(len(head))}
}

// inferred is the answer of infer.
type inferred struct {
	ID           string
	ModelName    string `json:"model_name"`
	ModelVersion string `json:"model_version"`
	Outputs      []struct {
		Name, Datatype string
		Shape          []int
		Parameters     struct {
			Size int `json:"binary_data_size"`
		}
		Data json.RawMessage
	}
}

// outputs returns the outputs of an answer in either form: []float32, []float64 or []string.
func outputs(t *testing.T, answer *http.Response, text string) (a inferred, values map[string]any) {
	t.Helper()
	if answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, text)
	}
	rest := ""
	if n, err := strconv.Atoi(answer.Header.Get(kserveHeader)); err == nil {
		text, rest = text[:n], text[n:]
	}
	a, values = decode[inferred](t, text), map[string]any{}
	for _, o := range a.Outputs {
		data := []byte(rest[:o.Parameters.Size])
		rest = rest[o.Parameters.Size:]
		switch {
		case o.Datatype == "BYTES" && o.Data != nil:
			values[o.Name] = decode[[]string](t, string(o.Data))
		case o.Datatype == "BYTES":
			list := []string{}
			for len(data) > 0 {
				n := binary.LittleEndian.Uint32(data)
				list, data = append(list, string(data[4:4+n])), data[4+n:]
			}
			values[o.Name] = list
		case o.Datatype == "FP32" && o.Data != nil:
			values[o.Name] = decode[[]float32](t, string(o.Data))
		case o.Datatype == "FP32":
			list := make([]float32, len(data)/4)
			binary.Read(bytes.NewReader(data), binary.LittleEndian, list)
			values[o.Name] = list
		case o.Data != nil:
			values[o.Name] = decode[[]float64](t, string(o.Data))
		default:
			list := make([]float64, len(data)/8)
			binary.Read(bytes.NewReader(data), binary.LittleEndian, list)
			values[o.Name] = list
		}
	}
	if rest != "" {
		t.Fatalf("%d bytes follow the outputs", len(rest))
	}
	return a, values
}

// wantedOutputs are the outputs that the server's own routes give for photos and texts.
func wantedOutputs(t *testing.T, url, key string, list [][]byte, texts ...string) map[string]any {
	t.Helper()
	var fields []string
	for _, s := range texts {
		fields = append(fields, "text", s)
	}
	body, kind := form(t, list, append(fields, "textualise", "true")...)
	_, text := post(t, url+"/features", kind, body, "X-Api-Key", key)
	f := decode[struct{ Images, Texts, Textualised [][]float32 }](t, text)
	want := map[string]any{"IMAGE_FEATURES": slices.Concat(f.Images...), "TEXT_FEATURES": slices.Concat(f.Texts...), "TEXTUALISED_FEATURES": slices.Concat(f.Textualised...)}
	body, kind = form(t, list, "decode", "beam", "beam", "3")
	_, text = post(t, url+"/caption", kind, body, "X-Api-Key", key)
	for i, way := range []string{"DIRECT", "TEXTUALISED"} {
		var captions []string
		var logProbs []float64
		for _, p := range decode[captioned](t, text).Photos {
			captions, logProbs = append(captions, p.Captions[i].Text), append(logProbs, p.Captions[i].LogProb)
		}
		want[way], want[way+"_LOGPROB"] = captions, logProbs
	}
	return want
}

// TestKServe compares outputs with what /features and /caption answer, bit for bit: from JSON
// and binary data, from files and prepared pixels, to JSON and binary data, and compressed.
func TestKServe(t *testing.T) {
	url, s, _ := start(t, nil)
	list, texts := photos(t)[:3], []string{"a red cup", "a blue bird on a table"}
	want := wantedOutputs(t, url, "", list, texts...)
	encoded := make([]string, len(list))
	var pixels []byte
	var numbers [][]float32
	m, _, err := s.models.get("")
	if err != nil {
		t.Fatal(err)
	}
	defer m.uses.Done()
	for i, p := range list {
		encoded[i] = base64.StdEncoding.EncodeToString(p)
		one, err := m.clip.Pixels(p, 1e7)
		if err != nil {
			t.Fatal(err)
		}
		pixels, _ = binary.Append(pixels, binary.LittleEndian, one)
		numbers = append(numbers, one)
	}
	asJSON := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}

	size := m.clip.Model.ImageSize()
	image, text := binaryStrings(list...), binaryStrings([]byte(texts[0]), []byte(texts[1]))
	inBinary := fmt.Sprintf(`{"name":"IMAGE","datatype":"BYTES","shape":[3],"parameters":{"binary_data_size":%d}},{"name":"TEXT","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":%d}}`, len(image), len(text))
	const options = `"decode":"beam","beam":3`
	plain := fmt.Sprintf(`{"id":"a","parameters":{%s},"inputs":[{"name":"IMAGE","datatype":"BYTES","shape":[3],"data":%s},{"name":"TEXT","datatype":"BYTES","shape":[2],"data":%s}]}`, options, asJSON(encoded), asJSON(texts))
	compressed := func(w io.WriteCloser, b *bytes.Buffer) string {
		w.Write([]byte(plain))
		w.Close()
		return b.String()
	}
	var gz, deflated bytes.Buffer
	pixelsOf := func(data any) string {
		return fmt.Sprintf(`{"parameters":{%s},"inputs":[{"name":"PIXELS","datatype":"FP32","shape":[3,3,%d,%d],"data":%s}]}`, options, size, size, asJSON(data))
	}
	var nested [][][][]float32
	for _, p := range numbers {
		var photo [][][]float32
		for channel := range slices.Chunk(p, int(size*size)) {
			photo = append(photo, slices.Collect(slices.Chunk(channel, int(size))))
		}
		nested = append(nested, photo)
	}
	photosOnly := []string{"IMAGE_FEATURES", "TEXTUALISED_FEATURES", "DIRECT", "DIRECT_LOGPROB", "TEXTUALISED", "TEXTUALISED_LOGPROB"}
	everything := append([]string{"TEXT_FEATURES"}, photosOnly...)
	for name, c := range map[string]struct {
		body    string
		after   [][]byte
		headers []string
		model   string
		names   []string
		binary  int // outputs in binary form
	}{
		"JSON":        {body: plain, names: everything},
		"binary":      {body: `{"inputs":[` + inBinary + `],"parameters":{"binary_data_output":true,` + options + `}}`, after: [][]byte{image, text}, names: everything, binary: 7},
		"some binary": {body: `{"inputs":[` + inBinary + `],"parameters":{"binary_data_output":true,` + options + `},"outputs":[{"name":"DIRECT","parameters":{"binary_data":false}},{"name":"TEXT_FEATURES"}]}`, after: [][]byte{image, text}, names: []string{"DIRECT", "TEXT_FEATURES"}, binary: 1},
		"pixels": {body: fmt.Sprintf(`{"inputs":[{"name":"PIXELS","datatype":"FP32","shape":[3,3,%d,%d],"parameters":{"binary_data_size":%d}}],"parameters":{%s}}`, size, size, len(pixels), options),
			after: [][]byte{pixels}, names: photosOnly},
		"pixels in JSON":   {body: pixelsOf(slices.Concat(numbers...)), names: photosOnly},
		"pixels in lists":  {body: pixelsOf(nested), names: photosOnly},
		"one pipeline":     {body: strings.Replace(plain, `"inputs"`, `"model_name":"world:direct","inputs"`, 1), model: "world:direct", names: []string{"IMAGE_FEATURES", "TEXT_FEATURES", "TEXTUALISED_FEATURES", "DIRECT", "DIRECT_LOGPROB"}},
		"one output":       {body: strings.Replace(plain, `"inputs"`, `"outputs":[{"name":"TEXT_FEATURES"},{"name":"TEXTUALISED"}],"inputs"`, 1), names: []string{"TEXT_FEATURES", "TEXTUALISED"}},
		"a version":        {body: plain, model: "world/versions/1", names: everything},
		"gzip":             {body: compressed(gzip.NewWriter(&gz), &gz), headers: []string{"Content-Encoding", "gzip"}, names: everything},
		"deflate":          {body: compressed(zlib.NewWriter(&deflated), &deflated), headers: []string{"Content-Encoding", "deflate"}, names: everything},
		"empty parameters": {body: strings.Replace(plain, `{`+options+`}`, "null", 1), names: everything},
	} {
		t.Run(name, func(t *testing.T) {
			body, headers := binaryRequest(c.body, c.after...)
			if c.after == nil {
				headers = c.headers
			}
			if c.model == "" {
				c.model = "world"
			}
			answer, text := post(t, url+"/v2/models/"+c.model+"/infer", "application/octet-stream", body, headers...)
			a, got := outputs(t, answer, text)
			if len(got) != len(c.names) || a.ModelVersion != "1" || !strings.HasPrefix(c.model, a.ModelName) || a.ID != "" && a.ID != "a" {
				t.Errorf("%d outputs of %s, version %s, id %q; want %v", len(got), a.ModelName, a.ModelVersion, a.ID, c.names)
			}
			binary := 0
			for _, o := range a.Outputs {
				if !slices.Contains(c.names, o.Name) {
					t.Errorf("unexpected %s", o.Name)
				}
				n := len(list)
				if o.Name == "TEXT_FEATURES" {
					n = len(texts)
				}
				if o.Shape[0] != n || (len(o.Shape) == 2) != strings.HasSuffix(o.Name, "FEATURES") || len(o.Shape) == 2 && o.Shape[1] != m.clip.Width() {
					t.Errorf("%s has shape %v", o.Name, o.Shape)
				}
				if o.Parameters.Size > 0 {
					binary++
				}
				if name != "empty parameters" && fmt.Sprint(got[o.Name]) != fmt.Sprint(want[o.Name]) {
					t.Errorf("%s: got %.200s, want %.200s", o.Name, fmt.Sprint(got[o.Name]), fmt.Sprint(want[o.Name]))
				}
			}
			if binary != c.binary {
				t.Errorf("%d binary outputs, want %d", binary, c.binary)
			}
		})
	}
}

// TestKServeMetadata reads what the server says about itself and a model, whose name has a slash.
func TestKServeMetadata(t *testing.T) {
	url, s, _ := start(t, func(o *Options) {
		o.Version = "v9"
		o.Models[0].Name = "cyclecap/world"
	})
	get := func(method, path string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequest(method, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, _ := io.ReadAll(answer.Body)
		return answer, strings.TrimSpace(string(b))
	}
	m, _, _ := s.models.get("")
	m.uses.Done()
	model := fmt.Sprintf(`{"inputs":[{"name":"IMAGE","datatype":"BYTES","shape":[-1]},{"name":"PIXELS","datatype":"FP32","shape":[-1,3,%[1]d,%[1]d]},{"name":"TEXT","datatype":"BYTES","shape":[-1]}],`+
		`"name":"cyclecap/world","outputs":[{"name":"IMAGE_FEATURES","datatype":"FP32","shape":[-1,%[2]d]},{"name":"TEXT_FEATURES","datatype":"FP32","shape":[-1,%[2]d]},{"name":"TEXTUALISED_FEATURES","datatype":"FP32","shape":[-1,%[2]d]},`+
		`{"name":"DIRECT","datatype":"BYTES","shape":[-1]},{"name":"DIRECT_LOGPROB","datatype":"FP64","shape":[-1]},{"name":"TEXTUALISED","datatype":"BYTES","shape":[-1]},{"name":"TEXTUALISED_LOGPROB","datatype":"FP64","shape":[-1]}],`+
		`"platform":"cyclecap","versions":["1"]}`, m.clip.Model.ImageSize(), m.clip.Width())
	const ready = `{"name":"cyclecap/world","ready":true}`
	for _, c := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/v2", 200, `{"extensions":["binary_tensor_data","model_repository"],"name":"cyclecap","version":"v9"}`},
		{"POST", "/v2", 405, "has GET, HEAD"},
		{"GET", "/v2/health/live", 200, `{"live":true}`},
		{"GET", "/v2/health/ready", 200, `{"ready":true}`},
		{"GET", "/v2/models/cyclecap/world", 200, model},
		{"GET", "/v2/models/cyclecap%2Fworld", 200, model},
		{"GET", "/v2/models/cyclecap/world/versions/1", 200, model},
		{"GET", "/v2/models/cyclecap/world/versions/2", 404, "version"},
		{"GET", "/v2/models/cyclecap/world/ready", 200, ready},
		{"GET", "/v2/models/cyclecap%2Fworld/versions/1/ready", 200, ready},
		{"GET", "/v2/models/world", 404, "cyclecap/world"},
		{"GET", "/v2/models/", 404, "version"},
		{"GET", "/v2/models/cyclecap/world/infer", 405, "has POST"},
		{"POST", "/v2/models/cyclecap/world/ready", 405, "has GET, HEAD"},
		{"PUT", "/v2/models/cyclecap/world/ready", 405, "has GET, HEAD"},
		{"OPTIONS", "/v2/models/cyclecap/world/infer", 405, "has POST"},
		{"POST", "/v2/repository/index", 200, `[{"name":"cyclecap/world","version":"1","state":"READY","reason":""}]`},
		{"GET", "/v2/repository/index", 405, "has POST"},
		{"GET", "/v2/nothing", 404, `{"error":"`},
		{"GET", "/nothing", 404, `{"error":{"message":"`},
	} {
		answer, text := get(c.method, c.path)
		if answer.StatusCode != c.status || c.status == 200 && text != c.want || !strings.Contains(text, c.want) || answer.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %s %s, want %d %s", c.method, c.path, answer.Status, text, c.status, c.want)
		}
		if allow := answer.Header.Get("Allow"); (allow != "") != (c.status == 405) || c.status == 405 && c.want != "has "+allow {
			t.Errorf("%s %s: %s with Allow %q", c.method, c.path, answer.Status, answer.Header.Get("Allow"))
		}
	}
	s.ready.Store(false)
	for _, path := range []string{"/v2/health/ready", "/v2/models/cyclecap/world/ready"} {
		if answer, text := get("GET", path); answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" {
			t.Errorf("%s while not ready: %s %s", path, answer.Status, text)
		}
	}
	s.ready.Store(true)
}

// TestKServeBad sends what is wrong in one way each.
func TestKServeBad(t *testing.T) {
	url, _, _ := start(t, func(o *Options) { o.MaxItems, o.MaxBody = 4, 1<<20 })
	huge := int64(math.MaxInt64)
	in := func(fields string) string { return `{"inputs":[{` + fields + `}]}` }
	const text = `"name":"TEXT","datatype":"BYTES","shape":[1],"data":["a"]`
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	z.Write(make([]byte, 2<<20))
	z.Close()
	for name, c := range map[string]struct {
		body    string
		headers []string
		status  int
		says    string
	}{
		"empty":              {"", nil, 400, "empty"},
		"no inputs":          {`{}`, nil, 400, "no input"},
		"unknown key":        {`{"input":[]}`, nil, 400, "input"},
		"unknown parameter":  {`{"inputs":[{` + text + `}],"parameters":{"beams":3}}`, nil, 400, "beams"},
		"unknown input":      {in(`"name":"IMAGES","datatype":"BYTES","shape":[1],"data":["a"]`), nil, 400, "IMAGE, PIXELS, TEXT"},
		"unknown output":     {`{"inputs":[{` + text + `}],"outputs":[{"name":"CAPTION"}]}`, nil, 400, "IMAGE_FEATURES"},
		"classification":     {`{"inputs":[{` + text + `}],"outputs":[{"name":"TEXT_FEATURES","parameters":{"classification":3}}]}`, nil, 400, "classification"},
		"output twice":       {`{"inputs":[{` + text + `}],"outputs":[{"name":"TEXT_FEATURES"},{"name":"TEXT_FEATURES"}]}`, nil, 400, "twice"},
		"input twice":        {`{"inputs":[{` + text + `},{` + text + `}]}`, nil, 400, "twice"},
		"output needs image": {`{"inputs":[{` + text + `}],"outputs":[{"name":"DIRECT"}]}`, nil, 400, "IMAGE or PIXELS"},
		"output needs text":  {`{"inputs":[{"name":"IMAGE","datatype":"BYTES","shape":[1],"data":["a"]}],"outputs":[{"name":"TEXT_FEATURES"}]}`, nil, 400, "TEXT"},
		"unused":             {`{"inputs":[{` + text + `},{"name":"IMAGE","datatype":"BYTES","shape":[1],"data":["a"]}],"outputs":[{"name":"TEXT_FEATURES"}]}`, nil, 400, "no output"},
		"both images":        {`{"inputs":[{"name":"IMAGE","datatype":"BYTES","shape":[1],"data":["a"]},{"name":"PIXELS","datatype":"FP32","shape":[1,3,96,96],"data":[]}]}`, nil, 400, "PIXELS"},
		"datatype":           {in(`"name":"TEXT","datatype":"FP32","shape":[1],"data":["a"]`), nil, 400, "BYTES"},
		"no shape":           {in(`"name":"TEXT","datatype":"BYTES","data":["a"]`), nil, 400, "shape"},
		"rank":               {in(`"name":"TEXT","datatype":"BYTES","shape":[1,1],"data":["a"]`), nil, 400, "shape"},
		"zero":               {in(`"name":"TEXT","datatype":"BYTES","shape":[0],"data":[]`), nil, 400, "shape"},
		"negative":           {in(`"name":"TEXT","datatype":"BYTES","shape":[-1],"data":["a"]`), nil, 400, "shape"},
		"huge":               {in(fmt.Sprintf(`"name":"TEXT","datatype":"BYTES","shape":[%d],"data":["a"]`, huge)), nil, 400, "shape"},
		"too many":           {in(`"name":"TEXT","datatype":"BYTES","shape":[5],"data":["a"]`), nil, 413, "--max-items"},
		"overflow":           {in(`"name":"PIXELS","datatype":"FP32","shape":[4611686018427387904,3,96,96],"data":[1]`), nil, 400, "shape"},
		"other size":         {in(`"name":"PIXELS","datatype":"FP32","shape":[1,3,97,96],"data":[1]`), nil, 400, "shape"},
		"few elements":       {in(`"name":"TEXT","datatype":"BYTES","shape":[2],"data":["a"]`), nil, 400, "fewer than 2"},
		"many elements":      {in(`"name":"TEXT","datatype":"BYTES","shape":[1],"data":["a","b"]`), nil, 400, "more than 1"},
		"not strings":        {in(`"name":"TEXT","datatype":"BYTES","shape":[1],"data":[1]`), nil, 400, "string"},
		"null":               {in(`"name":"TEXT","datatype":"BYTES","shape":[1],"data":[null]`), nil, 400, "string"},
		"no list":            {in(`"name":"TEXT","datatype":"BYTES","shape":[1],"data":"a"`), nil, 400, "list"},
		"null data":          {in(`"name":"TEXT","datatype":"BYTES","shape":[1],"data":null`), nil, 400, "list"},
		"no data":            {in(`"name":"TEXT","datatype":"BYTES","shape":[1]`), nil, 400, "neither"},
		"lists in a list":    {in(`"name":"TEXT","datatype":"BYTES","shape":[1],"data":[["a"]]`), nil, 400, "string"},
		"no picture":         {in(`"name":"IMAGE","datatype":"BYTES","shape":[1],"data":["aGVsbG8="]`), nil, 400, "inputs[0].data[0]"},
		"no base64":          {in(`"name":"IMAGE","datatype":"BYTES","shape":[1],"data":["!"]`), nil, 400, "base64"},
		"beam":               {`{"inputs":[{"name":"IMAGE","datatype":"BYTES","shape":[1],"data":["a"]}],"parameters":{"beam":1000}}`, nil, 400, "beam"},
		"binary and data":    {in(`"name":"TEXT","datatype":"BYTES","shape":[1],"data":["a"],"parameters":{"binary_data_size":0}`), nil, 400, "both"},
		"no binary":          {in(`"name":"TEXT","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}`), nil, 400, "binary_data_size"},
		"negative binary":    {in(`"name":"TEXT","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":-5}`), nil, 400, "binary_data_size"},
		"huge binary":        {in(fmt.Sprintf(`"name":"TEXT","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":%d}`, huge)), nil, 400, "binary_data_size"},
		"header":             {in(text), []string{kserveHeader, "x"}, 400, kserveHeader},
		"empty header":       {in(text), []string{kserveHeader, ""}, 400, kserveHeader},
		"negative header":    {in(text), []string{kserveHeader, "-1"}, 400, kserveHeader},
		"long header":        {in(text), []string{kserveHeader, "100000"}, 400, kserveHeader},
		"short header":       {in(text), []string{kserveHeader, "5"}, 400, "JSON"},
		"something after":    {in(text) + "abc", []string{kserveHeader, strconv.Itoa(len(in(text)))}, 400, "3 bytes after"},
		"model name":         {`{"model_name":"other","inputs":[{` + text + `}]}`, nil, 400, "model_name"},
		"encoding":           {in(text), []string{"Content-Encoding", "br"}, 415, "gzip"},
		"not gzip":           {in(text), []string{"Content-Encoding", "gzip"}, 400, "gzip"},
		"cut gzip":           {bomb.String()[:100], []string{"Content-Encoding", "gzip"}, 400, "body"},
		"bomb":               {bomb.String(), []string{"Content-Encoding", "gzip"}, 413, "--max-body"},
		"content type":       {in(text), []string{"Content-Type", "text/plain"}, 415, "Content-Type"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, got := post(t, url+"/v2/models/world/infer", "application/json", strings.NewReader(c.body), c.headers...)
			if e := decode[struct{ Error string }](t, got).Error; answer.StatusCode != c.status || !strings.Contains(e, c.says) {
				t.Errorf("got %d %s, want %d with %q", answer.StatusCode, got, c.status, c.says)
			}
		})
	}
	for name, c := range map[string]struct {
		tensor string
		data   []byte
		says   string
	}{
		"BYTES cut in a length":   {`"name":"TEXT","datatype":"BYTES","shape":[1]`, []byte{1, 0, 0}, "ends in element 0"},
		"BYTES cut in an element": {`"name":"TEXT","datatype":"BYTES","shape":[2]`, append(binaryStrings([]byte("a")), 255, 255, 255, 255, 1), "ends in element 1"},
		"BYTES too many":          {`"name":"TEXT","datatype":"BYTES","shape":[1]`, binaryStrings([]byte("a"), nil), "follow"},
		"not UTF-8":               {`"name":"TEXT","datatype":"BYTES","shape":[1]`, binaryStrings([]byte{255}), "UTF-8"},
		"FP32 size":               {`"name":"PIXELS","datatype":"FP32","shape":[1,3,96,96]`, make([]byte, 4*3*96*96-1), "110592 bytes, got 110591"},
		"FP32 NaN":                {`"name":"PIXELS","datatype":"FP32","shape":[1,3,96,96]`, bytes.Repeat([]byte{255}, 4*3*96*96), "NaN"},
		"FP32 large":              {`"name":"PIXELS","datatype":"FP32","shape":[1,3,96,96]`, bytes.Repeat([]byte{0, 0, 0, 0x7f}, 3*96*96), "preprocessing"},
	} {
		t.Run(name, func(t *testing.T) {
			body, headers := binaryRequest(in(fmt.Sprintf(`%s,"parameters":{"binary_data_size":%d}`, c.tensor, len(c.data))), c.data)
			answer, got := post(t, url+"/v2/models/world/infer", "application/octet-stream", body, headers...)
			if e := decode[struct{ Error string }](t, got).Error; answer.StatusCode != 400 || !strings.Contains(e, c.says) {
				t.Errorf("got %d %s, want 400 with %q", answer.StatusCode, got, c.says)
			}
		})
	}
}

// FuzzKServe sends any body with any header to a model: no panic, nothing but answers and
// errors of the client.
func FuzzKServe(f *testing.F) {
	o := DefaultOptions()
	o.Models, o.MaxItems, o.MaxBody = []ModelConfig{worldModel()}, 2, 1<<16
	s, err := New(o)
	if err != nil {
		f.Fatal(err)
	}
	s.worker.start()
	if err := s.Load(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		s.worker.stop()
		s.models.replace(nil)
	})
	text := binaryStrings([]byte("a cup"))
	head := fmt.Sprintf(`{"inputs":[{"name":"TEXT","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}`, len(text))
	f.Add([]byte(head+string(text)), strconv.Itoa(len(head)), "")
	f.Add([]byte(`{"id":"1","model_name":"world","inputs":[{"name":"TEXT","datatype":"BYTES","shape":[2],"data":["a","b"]}],"outputs":[{"name":"TEXT_FEATURES","parameters":{"binary_data":true}}]}`), "", "")
	f.Add([]byte(`{"inputs":[{"name":"IMAGE","datatype":"BYTES","shape":[1],"data":["/9j/4AAQSkZJRgAB"]}],"parameters":{"decode":"sample","seed":1,"temperature":0.5,"normalize":true}}`), "", "")
	f.Add([]byte(`{"inputs":[{"name":"PIXELS","datatype":"FP32","shape":[1,3,96,96],"data":[[[[1e300,-0.5]]]]}]}`), "", "gzip")
	f.Fuzz(func(t *testing.T, body []byte, header, encoding string) {
		r := httptest.NewRequest(http.MethodPost, "/v2/models/world/infer", bytes.NewReader(body))
		r.Host = "localhost"
		if header != "" {
			r.Header.Set(kserveHeader, header)
		}
		r.Header.Set("Content-Encoding", encoding)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code == http.StatusTooManyRequests || w.Code != http.StatusOK && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
