package weights_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
	"cyclecap/torch/torchtest"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

type expectedTensor struct {
	DType string
	Shape []int64
	Data  string
}

func expected(t *testing.T) map[string]map[string]expectedTensor {
	t.Helper()
	text, err := os.ReadFile("testdata/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Files map[string]map[string]expectedTensor
	}
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	if len(e.Files) < 8 {
		t.Fatalf("only %d files are described", len(e.Files))
	}
	return e.Files
}

// contents gives the tensors of a state dict in the form of expected.json.
func contents(t *testing.T, sd *nn.StateDict) map[string]expectedTensor {
	t.Helper()
	out := map[string]expectedTensor{}
	err := torch.Scope(func() error {
		for _, name := range sd.Names() {
			x, _ := sd.Get(name)
			c := x.Contiguous()
			e := expectedTensor{DType: x.DType().String(), Shape: x.Shape()}
			if c.Numel() > 0 {
				torch.Data(c.View([]int64{-1}).ViewDType(torch.Uint8), func(data []uint8) {
					e.Data = base64.StdEncoding.EncodeToString(data)
				})
			}
			out[name] = e
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func load(t *testing.T, path string) *nn.StateDict {
	t.Helper()
	f, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	sd, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	return sd
}

// TestRead holds every form to what Python wrote.
func TestRead(t *testing.T) {
	for name, want := range expected(t) {
		t.Run(name, func(t *testing.T) {
			before := torch.Alive()
			sd := load(t, filepath.Join("testdata", name))
			if diff := cmp.Diff(want, contents(t, sd)); diff != "" {
				t.Error(diff)
			}
			sd.Close()
			if after := torch.Alive(); after != before {
				t.Errorf("%d tensors are left", after-before)
			}
		})
	}
}

// TestShared: tensors of one storage share it, and writing to a tensor never
// writes to the file.
func TestShared(t *testing.T) {
	sum, err := os.ReadFile("testdata/zip.pt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"zip.pt", "legacy.pt"} {
		sd := load(t, filepath.Join("testdata", name))
		err := torch.Scope(func() error {
			tied, _ := sd.Get("tied")
			strided, _ := sd.Get("strided")
			tied.Fill_(9)
			if strided.Max().Item() != 9 || strided.Min().Item() != 9 {
				t.Errorf("%s: tied tensors do not share their memory", name)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		sd.Close()
	}
	if now, err := os.ReadFile("testdata/zip.pt"); err != nil || !bytes.Equal(now, sum) {
		t.Error("writing to a tensor wrote to its file")
	}
}

func TestCheckpoint(t *testing.T) {
	f, err := weights.Open("testdata/checkpoint.pt")
	if err != nil {
		t.Fatal(err)
	}
	if f.Root != "state_dict" || len(f.Ignored) == 0 || f.Meta["epoch"] != "7" || f.Meta["note"] != "a checkpoint" {
		t.Errorf("root %q, %d ignored, %v", f.Root, len(f.Ignored), f.Meta)
	}
}

// TestRoundTrip writes what was read, in both formats, and reads it again.
func TestRoundTrip(t *testing.T) {
	for _, from := range []string{"zip.pt", "legacy.pt", "script.pt", "single.safetensors"} {
		for _, ext := range []string{".pt", ".safetensors"} {
			t.Run(from+" as "+ext, func(t *testing.T) {
				sd := load(t, filepath.Join("testdata", from))
				defer sd.Close()
				to := filepath.Join(t.TempDir(), "copy"+ext)
				if err := weights.Save(context.Background(), to, sd, map[string]string{"normalize_prefix": "true"}); err != nil {
					t.Fatal(err)
				}
				back := load(t, to)
				defer back.Close()
				f, err := weights.Open(to)
				if err != nil {
					t.Fatal(err)
				}
				if got := f.Meta["normalize_prefix"]; got != "true" {
					t.Errorf("the metadata is %v", f.Meta)
				}
				if diff := cmp.Diff(expected(t)[from], contents(t, back)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// TestFailedWrite: a write that fails or is interrupted leaves the last good
// file and nothing beside it.
func TestFailedWrite(t *testing.T) {
	sd := load(t, "testdata/zip.pt")
	defer sd.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, "good.pt")
	if err := os.WriteFile(path, []byte("the last good file"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, p := range []string{path, strings.TrimSuffix(path, ".pt") + ".safetensors"} {
		if err := weights.Save(ctx, p, sd, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if text, _ := os.ReadFile(path); string(text) != "the last good file" {
		t.Error("the last good file is gone")
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("files are left: %v", list)
	}
	for _, bad := range []string{filepath.Join(dir, "no", "such", "folder.pt"), filepath.Join(dir, "x.onnx"), dir + "/."} {
		if err := weights.CheckSave(bad); err == nil {
			t.Errorf("CheckSave(%q) finds nothing wrong", bad)
		}
		if err := weights.Save(context.Background(), bad, sd, nil); err == nil {
			t.Errorf("Save(%q) succeeded", bad)
		}
	}
}

// zipFile makes a zip file of entries; deflate compresses them.
func zipFile(t *testing.T, deflate bool, entries map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, data := range entries {
		method := zip.Store
		if deflate {
			method = zip.Deflate
		}
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		w.Write(data)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// stateDict is the pickle of {"w": tensor} with a storage of numel elements
// and a tensor of an offset, a size and a stride.
func stateDict(numel, offset, size, stride int64) []byte {
	var b bytes.Buffer
	str := func(s string) {
		b.WriteByte('X')
		binary.Write(&b, binary.LittleEndian, uint32(len(s)))
		b.WriteString(s)
	}
	num := func(v int64) {
		b.Write([]byte{0x8a, 8})
		binary.Write(&b, binary.LittleEndian, v)
	}
	b.WriteString("\x80\x02}(")
	str("w")
	b.WriteString("ctorch._utils\n_rebuild_tensor_v2\n((")
	str("storage")
	b.WriteString("ctorch\nFloatStorage\n")
	str("0")
	str("cpu")
	num(numel)
	b.WriteString("tQ")
	num(offset)
	b.WriteString("(")
	num(size)
	num(size)
	b.WriteString("t(")
	num(stride)
	num(1)
	b.WriteString("t\x89}tRu.")
	return b.Bytes()
}

func safetensorsFile(length uint64, header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, length)
	return append(append(b, header...), make([]byte, data)...)
}

func plainSafetensors(header string, data int) []byte {
	return safetensorsFile(uint64(len(header)), header, data)
}

// TestRefused has every kind of bad file, and what its error must say.
func TestRefused(t *testing.T) {
	good, err := os.ReadFile("testdata/zip.pt")
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := os.ReadFile("testdata/legacy.pt")
	if err != nil {
		t.Fatal(err)
	}
	single, err := os.ReadFile("testdata/single.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	pt := func(pickle []byte) []byte {
		return zipFile(t, false, map[string][]byte{"a/data.pkl": pickle, "a/data/0": data, "a/version": []byte("3\n")})
	}
	// A list that holds itself, ten times at each of forty levels.
	var bomb bytes.Buffer
	bomb.WriteString("\x80\x02]q\x000")
	for i := range 40 {
		bomb.WriteString("](" + strings.Repeat("h"+string(rune(i)), 10) + "eq" + string(rune(i+1)) + "0")
	}
	bomb.WriteString("}X\x01\x00\x00\x00ah\x28s.")
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":                     {nil, "empty"},
		"text":                      {[]byte("these are no weights, whatever they are called\n"), "a text file"},
		"html":                      {[]byte("<!DOCTYPE html><html><body>not found</body></html>"), "HTML"},
		"git lfs pointer":           {[]byte("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "git lfs pull"},
		"numpy":                     {[]byte("\x93NUMPY\x01\x00v\x00{'descr': '<f4'}"), "NumPy"},
		"npz":                       {zipFile(t, false, map[string][]byte{"a.npy": data}), "NumPy"},
		"zip of something else":     {zipFile(t, false, map[string][]byte{"readme.txt": data}), "data.pkl"},
		"a pickle of something":     {[]byte("\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01u."), "pickle"},
		"os.system":                 {pt([]byte("\x80\x02cos\nsystem\n(X\x04\x00\x00\x00true" + "tR.")), "os.system"},
		"os.system, protocol 4":     {pt([]byte("\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.")), "posix.system"},
		"builtins.eval":             {pt([]byte("\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.")), "builtins.eval"},
		"os.system, old form":       {append(append([]byte{}, legacy[:0]...), []byte("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00.\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.")...), "os.system"},
		"tensor behind the storage": {pt(stateDict(16, 0, 5, 5)), "past the end of its storage"},
		"offset behind the storage": {pt(stateDict(16, 1<<40, 2, 2)), "past the end of its storage"},
		"negative offset":           {pt(stateDict(16, -4, 2, 2)), "offset -4"},
		"negative stride":           {pt(stateDict(16, 0, 2, -1)), "strides"},
		"storage behind the entry":  {pt(stateDict(1000, 0, 2, 2)), "64 bytes"},
		"shape that overflows":      {pt(stateDict(16, 0, 1<<40, 0)), "elements"},
		"negative shape":            {pt(stateDict(16, 0, -2, 1)), "shape"},
		"storage of 2^62 elements":  {pt(stateDict(1<<62, 0, 2, 2)), "storage"},
		"zip bomb":                  {zipFile(t, true, map[string][]byte{"a/data.pkl": stateDict(16, 0, 2, 2), "a/data/0": make([]byte, 50<<20), "a/version": []byte("3")}), "compressed"},
		"missing storage":           {zipFile(t, false, map[string][]byte{"a/data.pkl": stateDict(16, 0, 2, 2), "a/version": []byte("3")}), "missing"},
		"big endian":                {zipFile(t, false, map[string][]byte{"a/data.pkl": stateDict(16, 0, 2, 2), "a/data/0": data, "a/byteorder": []byte("big")}), "byte order"},
		"list that never ends":      {pt(bomb.Bytes()), "without end"},
		"pickle that ends early":    {pt([]byte("\x80\x02}(X\xff\xff\xff\xff")), "unexpected end of data"},
		"truncated zip":             {good[:len(good)*2/3], "truncated"},
		"truncated old form":        {legacy[:len(legacy)-40], "truncated"},
		"truncated safetensors":     {single[:len(single)-40], "truncated"},
		"header of 2^60 bytes":      {safetensorsFile(1<<60, `{"a":{}}`, 100), "header of 1152921504606846976 bytes"},
		"header behind the end":     {safetensorsFile(5000, `{"a":{}}`, 100), "header"},
		"header that is no JSON":    {plainSafetensors(`{"a": [}`, 0), "header"},
		"overlapping tensors": {plainSafetensors(
			`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12), "overlaps"},
		"hole":               {plainSafetensors(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), "belong to no tensor"},
		"bytes at the end":   {plainSafetensors(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 8), "after the last tensor"},
		"offsets past end":   {plainSafetensors(`{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}`, 8), "truncated"},
		"wrong size":         {plainSafetensors(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8), "takes 12"},
		"unknown dtype":      {plainSafetensors(`{"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}`, 8), "F31"},
		"a name twice":       {plainSafetensors(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), `duplicate key "a"`},
		"shape, safetensors": {plainSafetensors(`{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}`, 8), "elements"},
		"negative dimension": {plainSafetensors(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 4), "shape"},
		"fractional shape":   {plainSafetensors(`{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}`, 4), "header"},
		"reversed offsets":   {plainSafetensors(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 4), "bytes 4 to 0"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file.pt")
			if err := os.WriteFile(path, c.file, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := weights.Open(path)
			if err == nil {
				t.Fatal("it was read")
			}
			var e *weights.Error
			if !errors.As(err, &e) || e.Path != path {
				t.Errorf("the error does not carry the path: %v", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %q, want %q in it", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %q", err)
			}
		})
	}
	for file, want := range map[string]string{
		"testdata/refused-module.pt":    "state_dict()",
		"testdata/refused-sparse.pt":    "_rebuild_sparse_tensor",
		"testdata/refused-quantised.pt": "_rebuild_qtensor",
		"testdata":                      "contains neither model.safetensors",
		"testdata/none.pt":              "no such file",
	} {
		if _, err := weights.Open(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", file, err, want)
		}
	}
}

// TestWrongRole: a file used as what it is not is named for what it is.
func TestWrongRole(t *testing.T) {
	open := func(path string) *weights.File {
		f, err := weights.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	const dir = "../internal/parity/testdata/small/"
	if _, _, err := weights.LoadDecoder(open(dir + "clip.pt")); err == nil || !strings.Contains(err.Error(), "OpenAI CLIP") {
		t.Errorf("a CLIP as decoder: %v", err)
	}
	if _, err := weights.LoadCLIP(open(dir+"decoder.pt"), nil); err == nil || !strings.Contains(err.Error(), "ClipCap mapper") {
		t.Errorf("a decoder as CLIP: %v", err)
	}
	if _, err := weights.LoadGPT2(open("testdata/zip.pt"), nil); err == nil || !strings.Contains(err.Error(), "float32") {
		t.Errorf("something as GPT-2: %v", err)
	}
	if _, err := weights.LoadGenerator(open(dir + "gpt2")); err == nil || !strings.Contains(err.Error(), "GPT-2") {
		t.Errorf("a GPT-2 as generator: %v", err)
	}
}

// TestVersions changes one tensor of a file between a forward and a backward pass that
// uses another. Autograd must not take this for a change of the other.
func TestVersions(t *testing.T) {
	for _, name := range []string{"m.pt", "m.safetensors"} {
		path := filepath.Join(t.TempDir(), name)
		err := torch.Scope(func() error {
			sd := nn.NewStateDict()
			sd.Add("a", torch.Ones([]int64{64, 64}))
			sd.Add("b", torch.Ones([]int64{64, 64}))
			if err := weights.Save(context.Background(), path, sd, nil); err != nil {
				return err
			}
			sd = load(t, path)
			defer sd.Close()
			a, _ := sd.Get("a")
			b, _ := sd.Get("b")
			x := torch.Ones([]int64{64, 64}).SetRequiresGrad(true)
			y := x.MM(a).Sum()
			b.AddScalar_(1)
			y.Backward()
			if got := x.Grad().Max().Item(); got != 64 {
				t.Errorf("%s: gradient %v, want 64", name, got)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// batchNorm2d is torch.nn.BatchNorm2d as a user would write it.
type batchNorm2d struct {
	Weight, Bias            torch.Tensor
	RunningMean, RunningVar torch.Tensor `buffer:"true"`
	NumBatchesTracked       torch.Tensor `buffer:"true"`
}

func (b *batchNorm2d) Forward(x torch.Tensor) torch.Tensor {
	b.NumBatchesTracked.AddScalar_(1)
	return torch.BatchNorm(x, b.Weight, b.Bias, b.RunningMean, b.RunningVar, true, 0.1, 1e-5, true)
}

type convNet struct {
	Conv1 *nn.ConvModule
	Bn1   *batchNorm2d
	Conv2 *nn.ConvModule
	Bn2   *batchNorm2d
}

func newConvNet() *convNet {
	norm := func(c int64) *batchNorm2d {
		return &batchNorm2d{
			Weight: torch.Ones([]int64{c}).Keep(), Bias: torch.Zeros([]int64{c}).Keep(),
			RunningMean: torch.Zeros([]int64{c}).Keep(), RunningVar: torch.Ones([]int64{c}).Keep(),
			NumBatchesTracked: torch.Zeros([]int64{}, torch.WithDType(torch.Int64)).Keep(),
		}
	}
	return &convNet{nn.Conv2d(1, 8, []int64{3}, nn.ConvOptions{Padding: []int64{1}}), norm(8), nn.Conv2d(8, 16, []int64{3}, nn.ConvOptions{Padding: []int64{1}, Bias: true}), norm(16)}
}

// TestFineTune trains a network with batch norm, whose statistics change in the forward
// pass, from a file: with the same results as the network that was saved.
func TestFineTune(t *testing.T) {
	for _, name := range []string{"net.pt", "net.safetensors"} {
		path := filepath.Join(t.TempDir(), name)
		err := torch.Scope(func() error {
			torch.ManualSeed(1)
			x := torch.Randn([]int64{4, 1, 8, 8})
			train := func(m *convNet) torch.Tensor {
				nn.SetRequiresGrad(m, true)
				opt := optim.SGD(nn.Parameters(m), optim.SGDOptions{LR: 0.1})
				defer opt.Close()
				for range 3 {
					opt.ZeroGrad()
					m.Bn2.Forward(m.Conv2.Forward(m.Bn1.Forward(m.Conv1.Forward(x)).Relu())).Sigmoid().Sum().Backward()
					opt.Step()
				}
				return torch.Cat([]torch.Tensor{m.Conv1.Weight.Flatten(), m.Bn1.RunningVar, m.Bn2.RunningMean, m.Bn2.Weight})
			}
			m, loaded := newConvNet(), newConvNet()
			defer nn.Close(m)
			defer nn.Close(loaded)
			if err := weights.Save(context.Background(), path, nn.StateDictOf(m), nil); err != nil {
				return err
			}
			if err := nn.LoadStateDict(loaded, load(t, path)); err != nil {
				return err
			}
			torchtest.Bits(t, train(loaded), train(m), name, ": after a training from the file")
			if n := loaded.Bn1.NumBatchesTracked.Item(); n != 3 {
				t.Errorf("%s: %v batches were counted", name, n)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
