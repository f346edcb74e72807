package serve

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kserveRoutes are those of KServe's Open Inference Protocol (v2), with Triton's extension for
// binary tensors. Names of models with slashes may be escaped or not: tritonclient does not.
func (s *Server) kserveRoutes(mux *http.ServeMux) {
	s.handle(mux, "GET /v2", func(w http.ResponseWriter, r *http.Request) error {
		return writeJSON(w, http.StatusOK, map[string]any{"name": "cyclecap", "version": s.o.Version, "extensions": []string{"binary_tensor_data", "model_repository"}})
	})
	s.handle(mux, "GET /v2/health/live", func(w http.ResponseWriter, r *http.Request) error {
		return writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	})
	s.handle(mux, "GET /v2/health/ready", func(w http.ResponseWriter, r *http.Request) error {
		if !s.isReady() {
			return notReady()
		}
		return writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
	})
	s.handle(mux, "GET /v2/models/{path...}", s.kserveModel)
	s.handle(mux, "POST /v2/models/{path...}", s.kserveModel)
	s.handle(mux, "/v2/models/{path...}", s.kserveModel) // 405: which methods there are depends on the path
	s.handle(mux, "POST /v2/repository/index", s.kserveIndex)
}

// kserveVersion is the only version of each model.
const kserveVersion = "1"

// kserveModel answers what is asked of a model: /v2/models/NAME[/versions/V][/ready or /infer].
func (s *Server) kserveModel(w http.ResponseWriter, r *http.Request) error {
	name, version, action := kservePath(r.URL.EscapedPath())
	allow := "GET, HEAD"
	if action == "infer" {
		allow = "POST"
	}
	if !slices.Contains(strings.Split(allow, ", "), r.Method) {
		return wrongMethod(w, r, allow)
	}
	if name == "" || version != kserveVersion {
		return &Error{Status: http.StatusNotFound, Code: "model_not_found", Message: fmt.Sprintf("no model %.100q of version %.50q; each model has version %s alone", name, version, kserveVersion)}
	}
	m, way, err := s.models.get(name)
	if err != nil {
		return err
	}
	defer m.uses.Done()
	k := &kserveRequest{m: m, name: name, ways: m.ways()}
	if strings.Contains(name, ":") {
		k.ways = []string{way}
	}
	switch {
	case action == "infer":
		return s.kserveInfer(w, r, k)
	case action == "ready" && !s.isReady():
		return notReady()
	case action == "ready":
		return writeJSON(w, http.StatusOK, map[string]any{"name": name, "ready": true})
	}
	return writeJSON(w, http.StatusOK, map[string]any{"name": name, "versions": []string{kserveVersion}, "platform": "cyclecap", "inputs": k.inputs(), "outputs": k.outputs()})
}

// kservePath takes an escaped path apart. The version is the only one if the path has none.
func kservePath(path string) (name, version, action string) {
	parts := strings.Split(strings.TrimPrefix(path, "/v2/models/"), "/")
	if n := len(parts); n > 1 && (parts[n-1] == "ready" || parts[n-1] == "infer") {
		action, parts = parts[n-1], parts[:n-1]
	}
	version = kserveVersion
	if n := len(parts); n > 2 && parts[n-2] == "versions" {
		version, parts = parts[n-1], parts[:n-2]
	}
	for i, p := range parts {
		parts[i], _ = url.PathUnescape(p) // EscapedPath is always valid
	}
	return strings.Join(parts, "/"), version, action
}

// kserveIndex lists the models, as Triton's repository extension does. All are ready.
func (s *Server) kserveIndex(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Ready      bool           `json:"ready"`
		Parameters map[string]any `json:"parameters"`
	}
	// tritonclient sends an empty body.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return readError(err)
	}
	if len(body) > 0 {
		if err := parseJSON(body, &q, true); err != nil {
			return err
		}
	}
	type entry struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		State   string `json:"state"`
		Reason  string `json:"reason"`
	}
	list := []entry{}
	for _, m := range s.models.all() {
		list = append(list, entry{m.Name, kserveVersion, "READY", ""})
		m.uses.Done()
	}
	return writeJSON(w, http.StatusOK, list)
}

// Types of tensors.
const (
	kserveBytes = "BYTES" // strings of bytes
	kserveFP32  = "FP32"
	kserveFP64  = "FP64"
)

// A kserveTensor describes an input or an output of a model, or is one of an answer.
type kserveTensor struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"` // -1: any size
	// Of an answer: Data is a []string, []float32 or []float64. Binary is what follows the
	// JSON instead.
	Parameters map[string]int `json:"parameters,omitempty"`
	Data       any            `json:"data,omitempty"`
	Binary     []byte         `json:"-"`
}

// A kserveRequest is what a client asks of a model.
type kserveRequest struct {
	m    *model
	name string // of the model, as the client calls it
	ways []string

	body kserveBody
	task *task
	want []kserveTensor // outputs
}

// kserveBody is the JSON of a request.
type kserveBody struct {
	ID         string           `json:"id"`
	ModelName  string           `json:"model_name"` // kserve's client repeats it here
	Parameters kserveParameters `json:"parameters"`
	Inputs     []kserveInput    `json:"inputs"`
	Outputs    []struct {
		Name       string `json:"name"`
		Parameters struct {
			BinaryData *bool `json:"binary_data"`
		} `json:"parameters"`
	} `json:"outputs"`
}

type kserveParameters struct {
	decodeRequest
	Normalize        bool `json:"normalize"`
	BinaryDataOutput bool `json:"binary_data_output"`
}

type kserveInput struct {
	Name       string  `json:"name"`
	Datatype   string  `json:"datatype"`
	Shape      []int64 `json:"shape"`
	Parameters struct {
		BinaryDataSize *int64 `json:"binary_data_size"`
	} `json:"parameters"`
	Data json.RawMessage `json:"data"`

	binary []byte // nil if Data has the elements
}

func (k *kserveRequest) inputs() []kserveTensor {
	size := k.m.clip.Model.ImageSize()
	list := []kserveTensor{{Name: "IMAGE", Datatype: kserveBytes, Shape: []int64{-1}}, {Name: "PIXELS", Datatype: kserveFP32, Shape: []int64{-1, 3, size, size}}}
	if k.m.texts {
		list = append(list, kserveTensor{Name: "TEXT", Datatype: kserveBytes, Shape: []int64{-1}})
	}
	return list
}

func (k *kserveRequest) outputs() []kserveTensor {
	width := int64(k.m.clip.Width())
	list := []kserveTensor{{Name: "IMAGE_FEATURES", Datatype: kserveFP32, Shape: []int64{-1, width}}}
	if k.m.texts {
		list = append(list, kserveTensor{Name: "TEXT_FEATURES", Datatype: kserveFP32, Shape: []int64{-1, width}})
	}
	if k.m.captioner.Generator != nil {
		list = append(list, kserveTensor{Name: "TEXTUALISED_FEATURES", Datatype: kserveFP32, Shape: []int64{-1, width}})
	}
	for _, way := range k.ways {
		list = append(list, kserveTensor{Name: strings.ToUpper(way), Datatype: kserveBytes, Shape: []int64{-1}}, kserveTensor{Name: strings.ToUpper(way) + "_LOGPROB", Datatype: kserveFP64, Shape: []int64{-1}})
	}
	return list
}

// named returns the tensor with a name, or says which there are.
func named(param, name string, list []kserveTensor) (kserveTensor, error) {
	var names []string
	for _, t := range list {
		if t.Name == name {
			return t, nil
		}
		names = append(names, t.Name)
	}
	return kserveTensor{}, bad("unknown_tensor", param, "%s: no %.50q; this model has %s", param, name, strings.Join(names, ", "))
}

func (s *Server) kserveInfer(w http.ResponseWriter, r *http.Request, k *kserveRequest) error {
	if err := s.readKServe(r, k); err != nil {
		return err
	}
	if err := s.compute(w, k.task); err != nil {
		return err
	}
	answer := struct {
		ID           string         `json:"id,omitempty"`
		ModelName    string         `json:"model_name"`
		ModelVersion string         `json:"model_version"`
		Outputs      []kserveTensor `json:"outputs"`
	}{k.body.ID, k.name, kserveVersion, nil}
	var after [][]byte
	for i, t := range k.want {
		k.fill(&t)
		binary := k.body.Parameters.BinaryDataOutput
		if len(k.body.Outputs) > 0 && k.body.Outputs[i].Parameters.BinaryData != nil {
			binary = *k.body.Outputs[i].Parameters.BinaryData
		}
		if binary {
			b := kserveBinary(t.Data)
			t.Parameters, t.Data = map[string]int{"binary_data_size": len(b)}, nil
			after = append(after, b)
		}
		answer.Outputs = append(answer.Outputs, t)
	}
	if after == nil {
		return writeJSON(w, http.StatusOK, answer)
	}
	head, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(kserveHeader, strconv.Itoa(len(head)))
	for _, b := range append([][]byte{head}, after...) {
		if _, err := w.Write(b); err != nil {
			return nil // the client has gone
		}
	}
	return nil
}

// kserveHeader has the length of the JSON before binary tensors.
const kserveHeader = "Inference-Header-Content-Length"

// readKServe reads a request and decodes its pictures.
func (s *Server) readKServe(r *http.Request, k *kserveRequest) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Header.Get("Content-Type") != "" && (err != nil || kind != "application/json" && kind != "application/octet-stream") {
		return &Error{Status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type",
			Message: fmt.Sprintf("Content-Type %.100q: must be application/json, or application/octet-stream with %s", r.Header.Get("Content-Type"), kserveHeader)}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return readError(err)
	}
	if err := k.parse(body, r.Header.Values(kserveHeader)); err != nil {
		return err
	}
	k.task = &task{ctx: r.Context(), model: k.m, normalize: k.body.Parameters.Normalize}
	if err := k.choose(); err != nil {
		return err
	}
	if len(k.task.ways) > 0 {
		if k.task.options, err = k.body.Parameters.options(k.m); err != nil {
			return err
		}
	}
	counts := map[string]int64{}
	for i := range k.body.Inputs {
		counts[k.body.Inputs[i].Name] = k.body.Inputs[i].Shape[0]
		// Each is small enough that the sum cannot overflow.
		if err := s.checkCount(int(counts["IMAGE"]+counts["PIXELS"]), int(counts["TEXT"])); err != nil {
			return err
		}
	}
	for i := range k.body.Inputs {
		if err := s.readKServeInput(r, k, i); err != nil {
			return err
		}
	}
	return nil
}

// parse reads the JSON of a request, hands its inputs their binary data, and checks all that
// does not depend on the elements.
func (k *kserveRequest) parse(body []byte, header []string) error {
	after := []byte{}
	if len(header) > 0 {
		n, err := strconv.ParseUint(header[0], 10, 63)
		if err != nil || len(header) > 1 || n > uint64(len(body)) {
			return bad("invalid_header", kserveHeader, "%s %.30q: must be the length of the JSON at the beginning of the body, which has %d bytes", kserveHeader, header, len(body))
		}
		body, after = body[:n], body[n:]
	}
	if err := parseJSON(body, &k.body, true); err != nil {
		return err
	}
	if n := k.body.ModelName; n != "" && n != k.name {
		return invalid("model_name", "%.100q is not the model of the URL, %q", n, k.name)
	}
	seen := map[string]bool{}
	for i := range k.body.Inputs {
		in, param := &k.body.Inputs[i], fmt.Sprintf("inputs[%d]", i)
		t, err := named(param, in.Name, k.inputs())
		if err != nil {
			return err
		}
		if seen[in.Name] {
			return invalid(param, "%s is there twice", in.Name)
		}
		seen[in.Name] = true
		if in.Datatype != t.Datatype {
			return invalid(param+".datatype", "%s is %s, got %.20q", t.Name, t.Datatype, in.Datatype)
		}
		if len(in.Shape) != len(t.Shape) || in.Shape[0] < 1 || in.Shape[0] > math.MaxInt32 || !slices.Equal(in.Shape[1:], t.Shape[1:]) {
			return invalid(param+".shape", "%s has shape %v with -1 for at least 1, got %.100s", t.Name, t.Shape, fmt.Sprint(in.Shape))
		}
		switch size := in.Parameters.BinaryDataSize; {
		case size == nil && in.Data == nil:
			return invalid(param, "%s has neither data nor binary_data_size", t.Name)
		case size == nil:
		case in.Data != nil:
			return invalid(param, "%s has both data and binary_data_size", t.Name)
		case *size < 0 || *size > int64(len(after)):
			return invalid(param+".parameters.binary_data_size", "must be between 0 and the %d bytes that are left after the JSON and the inputs before, got %d", len(after), *size)
		default:
			in.binary, after = after[:*size:*size], after[*size:]
		}
	}
	if len(after) > 0 {
		return bad("invalid_body", "", "the body has %d bytes after its JSON and its inputs (%s, binary_data_size)", len(after), kserveHeader)
	}
	if seen["IMAGE"] && seen["PIXELS"] {
		return invalid("inputs", "IMAGE and PIXELS are the same photos in two forms; send one of them")
	}
	if len(seen) == 0 {
		return bad("no_input", "inputs", "no input in the request")
	}
	return nil
}

// choose sets the outputs, and what the task must compute for them.
func (k *kserveRequest) choose() error {
	has := func(name string) bool {
		return slices.ContainsFunc(k.body.Inputs, func(in kserveInput) bool { return in.Name == name })
	}
	photos, texts := has("IMAGE") || has("PIXELS"), has("TEXT")
	from := func(t kserveTensor) bool { return t.Name == "TEXT_FEATURES" }
	if len(k.body.Outputs) == 0 {
		for _, t := range k.outputs() {
			if from(t) && texts || !from(t) && photos {
				k.want = append(k.want, t)
			}
		}
	}
	for i, o := range k.body.Outputs {
		param := fmt.Sprintf("outputs[%d]", i)
		t, err := named(param, o.Name, k.outputs())
		switch {
		case err != nil:
			return err
		case from(t) && !texts:
			return invalid(param, "%s needs the input TEXT", t.Name)
		case !from(t) && !photos:
			return invalid(param, "%s needs the input IMAGE or PIXELS", t.Name)
		case slices.ContainsFunc(k.want, func(w kserveTensor) bool { return w.Name == t.Name }):
			return invalid(param, "%s is there twice", t.Name)
		}
		k.want = append(k.want, t)
	}
	of := func(t kserveTensor) bool { return !from(t) }
	if texts && !slices.ContainsFunc(k.want, from) {
		return invalid("inputs", "no output in the list of outputs needs TEXT")
	}
	if photos && !slices.ContainsFunc(k.want, of) {
		return invalid("inputs", "no output in the list of outputs needs IMAGE or PIXELS")
	}
	for _, t := range k.want {
		if t.Name == "TEXTUALISED_FEATURES" {
			k.task.translate = true
		}
	}
	for _, way := range k.ways {
		if slices.ContainsFunc(k.want, func(t kserveTensor) bool { return strings.TrimSuffix(t.Name, "_LOGPROB") == strings.ToUpper(way) }) {
			k.task.ways = append(k.task.ways, way)
		}
	}
	return nil
}

// readKServeInput reads the elements of an input into the task.
func (s *Server) readKServeInput(r *http.Request, k *kserveRequest, i int) (err error) {
	in, param := &k.body.Inputs[i], fmt.Sprintf("inputs[%d]", i)
	if in.Name == "PIXELS" {
		flat, err := in.floats(param)
		if err != nil {
			return err
		}
		k.task.photos = slices.Collect(slices.Chunk(flat, len(flat)/int(in.Shape[0])))
		return nil
	}
	list, err := in.strings(param)
	if err != nil {
		return err
	}
	if in.Name == "TEXT" {
		for j, b := range list {
			if !utf8.Valid(b) {
				return invalid(fmt.Sprintf("%s.data[%d]", param, j), "it is not UTF-8")
			}
			k.task.texts = append(k.task.texts, string(b))
		}
		return nil
	}
	pictures := make([]picture, len(list))
	for j, b := range list {
		at := fmt.Sprintf("%s.data[%d]", param, j)
		pictures[j] = picture{param: at, data: b}
		if in.binary == nil {
			if pictures[j], err = s.parsePicture(r.Context(), at, string(b)); err != nil {
				return err
			}
		}
	}
	k.task.photos, err = s.prepare(r.Context(), k.m, pictures)
	return err
}

// maxPixelValue bounds the values of PIXELS: those of photos lie between -3 and 3, and values
// that overflow in the network would look like damaged weights.
const maxPixelValue = 100

// floats returns the elements of an input of type FP32.
func (in *kserveInput) floats(param string) (out []float32, err error) {
	n := int64(1)
	for _, d := range in.Shape { // parse and checkCount have bounded them
		n *= d
	}
	if in.binary != nil {
		if int64(len(in.binary)) != 4*n {
			return nil, invalid(param+".parameters.binary_data_size", "FP32 of shape %v has %d bytes, got %d", in.Shape, 4*n, len(in.binary))
		}
		out = make([]float32, n)
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(in.binary[4*i:]))
		}
	} else if err := in.elements(param, func(t json.Token) error {
		v, ok := t.(json.Number)
		if !ok {
			return errors.New("want a number")
		}
		f, err := strconv.ParseFloat(string(v), 32)
		out = append(out, float32(f))
		if err != nil {
			return fmt.Errorf("%.30s is out of range", v)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for i, v := range out {
		if !(v >= -maxPixelValue && v <= maxPixelValue) { // NaN is neither
			return nil, invalid(param, "PIXELS must be between -%d and %d, as CLIP's preprocessing makes them; element %d is %v", maxPixelValue, maxPixelValue, i, v)
		}
	}
	return out, nil
}

// strings returns the elements of an input of type BYTES: in JSON strings, and as binary data
// each after its length (4 bytes, little endian).
func (in *kserveInput) strings(param string) (out [][]byte, err error) {
	if in.binary == nil {
		err := in.elements(param, func(t json.Token) error {
			s, ok := t.(string)
			out = append(out, []byte(s))
			if !ok {
				return errors.New("want a string")
			}
			return nil
		})
		return out, err
	}
	rest := in.binary
	for range in.Shape[0] {
		if len(rest) < 4 || uint64(binary.LittleEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return nil, invalid(param, "the binary data ends in element %d of %d", len(out), in.Shape[0])
		}
		n := binary.LittleEndian.Uint32(rest)
		out, rest = append(out, rest[4:4+n]), rest[4+n:]
	}
	if len(rest) > 0 {
		return nil, invalid(param, "%d bytes of binary data follow the %d elements", len(rest), in.Shape[0])
	}
	return out, nil
}

// elements calls each for the elements of a tensor in JSON: a flat list, or lists in lists as
// the shape says. It reads one at a time, since a list of any values would need many times the
// memory of the body.
func (in *kserveInput) elements(param string, each func(json.Token) error) error {
	d := json.NewDecoder(bytes.NewReader(in.Data))
	d.UseNumber()
	count := 0
	var list func(shape []int64) error
	list = func(shape []int64) error {
		if t, err := d.Token(); err != nil || t != json.Delim('[') {
			return errors.New("want a list")
		}
		for range shape[0] {
			if !d.More() {
				return fmt.Errorf("a list has fewer than %d elements", shape[0])
			}
			if len(shape) > 1 {
				if err := list(shape[1:]); err != nil {
					return err
				}
				continue
			}
			t, err := d.Token()
			if err == nil {
				err = each(t)
			}
			if err != nil {
				return fmt.Errorf("element %d: %w", count, err)
			}
			count++
		}
		if t, err := d.Token(); err != nil || t != json.Delim(']') {
			return fmt.Errorf("a list has more than %d elements", shape[0])
		}
		return nil
	}
	shape := in.Shape
	if inner, ok := bytes.CutPrefix(in.Data, []byte("[")); ok && !bytes.HasPrefix(bytes.TrimLeft(inner, " \t\r\n"), []byte("[")) {
		flat := int64(1)
		for _, n := range shape {
			flat *= n
		}
		shape = []int64{flat}
	}
	if err := list(shape); err != nil {
		return invalid(param+".data", "%s of shape %v: %v", in.Name, in.Shape, err)
	}
	return nil
}

// fill sets the shape and the elements of an output.
func (k *kserveRequest) fill(t *kserveTensor) {
	t.Shape = slices.Clone(t.Shape)
	switch t.Name {
	case "IMAGE_FEATURES":
		t.Shape[0], t.Data = int64(len(k.task.photos)), k.task.imageRows
	case "TEXTUALISED_FEATURES":
		t.Shape[0], t.Data = int64(len(k.task.photos)), k.task.translatedRows
	case "TEXT_FEATURES":
		t.Shape[0], t.Data = int64(len(k.task.texts)), k.task.textRows
	default:
		way, scores := strings.CutSuffix(t.Name, "_LOGPROB")
		list := k.task.captions[strings.ToLower(way)]
		t.Shape[0] = int64(len(list))
		texts, logProbs := make([]string, len(list)), make([]float64, len(list))
		for i, c := range list {
			texts[i], logProbs[i] = c[0].Text, c[0].LogProb
		}
		if t.Data = texts; scores {
			t.Data = logProbs
		}
	}
}

// kserveBinary returns the elements of a tensor as binary data.
func kserveBinary(data any) (b []byte) {
	switch list := data.(type) {
	case []string:
		for _, s := range list {
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
		}
	case []float32:
		for _, v := range list {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	case []float64:
		for _, v := range list {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	return b
}
