package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cyclecap/internal/experimenttest"
	"cyclecap/torch/distributed"
)

// groupVariable makes the test binary run the command line with the arguments in it.
const groupVariable = "CYCLECAP_TEST_ARGS"

// process is one of a group.
type process struct {
	*exec.Cmd
	out, err bytes.Buffer
}

// result waits for the end of a process.
func (p *process) result() result {
	p.Wait()
	return result{p.ProcessState.ExitCode(), p.out.String(), p.err.String()}
}

// startGroup starts a command line in several processes, as torchrun does.
func startGroup(t *testing.T, size int, args ...string) []*process {
	t.Helper()
	if !distributed.IsAvailable() {
		t.Skip("this libtorch has no c10d with Gloo")
	}
	port := freePort(t)
	text, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]*process, size)
	for rank := range list {
		p := &process{Cmd: exec.CommandContext(t.Context(), os.Args[0])}
		p.Env = append(os.Environ(), groupVariable+"="+string(text), fmt.Sprint("WORLD_SIZE=", size), "MASTER_ADDR=127.0.0.1",
			fmt.Sprint("MASTER_PORT=", port), fmt.Sprint("RANK=", rank), fmt.Sprint("LOCAL_RANK=", rank), "GLOO_SOCKET_IFNAME=lo")
		p.Stdin = strings.NewReader(photos[rank] + "\n") // what is left of an input that they share
		p.Stdout, p.Stderr = &p.out, &p.err
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		list[rank] = p
	}
	return list
}

// freePort returns a port of the loopback interface that nobody uses now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// runGroup runs a command line in several processes to its end.
func runGroup(t *testing.T, size int, args ...string) []result {
	t.Helper()
	var list []result
	for _, p := range startGroup(t, size, args...) {
		list = append(list, p.result())
	}
	return list
}

// okGroup runs a command line that must succeed in all processes, and returns their outputs.
func okGroup(t *testing.T, size int, args ...string) (outs []string) {
	t.Helper()
	for rank, r := range runGroup(t, size, args...) {
		if r.code != 0 {
			t.Fatalf("rank %d of %d: exit code %d\n%s", rank, size, r.code, r.err)
		}
		outs = append(outs, r.out)
	}
	return outs
}

// loseOne kills one of the processes once ready is true. The others must end within 30 seconds and name it.
func loseOne(t *testing.T, list []*process, victim int, ready func() bool) {
	t.Helper()
	for begin := time.Now(); !ready(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			for _, p := range list {
				p.Process.Kill()
				t.Log(p.result().err)
			}
			t.Fatal("the processes did not come to the point where one is to be killed")
		}
	}
	list[victim].Process.Kill()
	begin := time.Now()
	for rank, p := range list {
		r := p.result()
		if rank == victim {
			continue
		}
		if want := fmt.Sprintf("rank %d has ended without leaving the group", victim); r.code != 1 || !strings.Contains(r.err, want) {
			t.Errorf("rank %d: exit code %d, and no %q:\n%s", rank, r.code, want, r.err)
		}
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("the others ended after %v", took)
	}
}

// The features of several processes are those of one.
func TestFeaturesInAGroup(t *testing.T) {
	dir := t.TempDir()
	for name, args := range setsOf(t, dir) {
		for _, out := range []string{name + ".safetensors", name + ".npy", name + "/"} {
			if name != "tars" && strings.HasSuffix(out, ".npy") {
				continue
			}
			whole := filepath.Join(dir, "one", out)
			if strings.HasSuffix(out, "/") {
				whole += "/"
			}
			if err := os.MkdirAll(filepath.Dir(filepath.Clean(whole)), 0o777); err != nil {
				t.Fatal(err)
			}
			ok(t, append(slices.Clone(args), whole)...)
		}
		for size := 2; size <= 4; size++ {
			for _, out := range []string{name + ".safetensors", name + ".npy", name + "/"} {
				if name != "tars" && (strings.HasSuffix(out, ".npy") || size != 3) {
					continue
				}
				many := filepath.Join(dir, fmt.Sprint(size), out)
				if strings.HasSuffix(out, "/") {
					many += "/"
				}
				if err := os.MkdirAll(filepath.Dir(filepath.Clean(many)), 0o777); err != nil {
					t.Fatal(err)
				}
				okGroup(t, size, append(slices.Clone(args), many)...)
				if strings.HasSuffix(out, "/") {
					same(t, many, contentsOf(t, filepath.Join(dir, "one", out)), contentsOf(t, many))
					continue
				}
				sameFiles(t, filepath.Join(dir, "one", out), many)
			}
		}
	}
}

// sameFiles checks that a file, and the table of inputs of a .npy file, have the bytes of another one.
func sameFiles(t *testing.T, want, got string) {
	t.Helper()
	paths := [][2]string{{want, got}}
	if a, found := strings.CutSuffix(want, ".npy"); found {
		paths = append(paths, [2]string{a + ".parquet", strings.TrimSuffix(got, ".npy") + ".parquet"})
	}
	for _, p := range paths {
		a, b := must[[]byte](t)(os.ReadFile(p[0])), must[[]byte](t)(os.ReadFile(p[1]))
		if !bytes.Equal(a, b) {
			t.Errorf("%s has %d bytes that differ from the %d of %s", p[1], len(b), len(a), p[0])
		}
	}
}

// Photos that cannot be read are the failure of rank 0 alone, so that a launcher does not end the others.
func TestBadPhotosInAGroup(t *testing.T) {
	dir := t.TempDir()
	bad := put(t, filepath.Join(dir, "bad.jpg"), []byte("no photo"))
	a := put(t, filepath.Join(dir, "a.tar"), tarOf(t, photos[0]))
	b := put(t, filepath.Join(dir, "b.tar"), tarOf(t, photos[1], bad))
	out := filepath.Join(dir, "out.npy")
	for rank, r := range runGroup(t, 2, "features", "--clip", clipF, "--images", a, b, "-o", out) {
		if want := 1 - rank; r.code != want {
			t.Errorf("rank %d: exit code %d, want %d\n%s", rank, r.code, want, r.err)
		}
		if want := "1 of 3 photos could not be read"; strings.Contains(r.err, want) != (rank == 0) {
			t.Errorf("rank %d: %q\n%s", rank, want, r.err)
		}
	}
	if _, err := os.Stat(out); err != nil {
		t.Error(err)
	}
}

// Processes that read different inputs write nothing.
func TestDifferentInputsInAGroup(t *testing.T) {
	dir := t.TempDir()
	for rank, r := range runGroup(t, 2, "features", "--clip", clipF, "--images", "-", "-o", filepath.Join(dir, "out.npy")) {
		if r.code != 1 || !strings.Contains(r.err, "ranks 0 and 1 have different inputs") {
			t.Errorf("rank %d: exit code %d\n%s", rank, r.code, r.err)
		}
	}
	empty(t, dir)
}

// TestFeaturesLoseOne kills one of several processes while they compute, and runs the command again.
func TestFeaturesLoseOne(t *testing.T) {
	dir := t.TempDir()
	var tars []string
	for i := range 40 {
		files := slices.Repeat(photos[i%5:i%5+1], 40)
		tars = append(tars, put(t, filepath.Join(dir, fmt.Sprintf("%d.tar", i)), tarOf(t, files...)))
	}
	args := append([]string{"features", "--clip", clipF, "--images"}, tars...)
	one := filepath.Join(dir, "one.npy")
	ok(t, append(slices.Clone(args), "-o", one)...)
	for size := 2; size <= 4; size++ {
		out := filepath.Join(dir, fmt.Sprintf("%d.npy", size))
		args := append(slices.Clone(args), "-o", out)
		victim := size - 1
		if size == 3 {
			victim = 0 // it holds the rendezvous
		}
		loseOne(t, startGroup(t, size, args...), victim, func() bool {
			_, err := os.Stat(filepath.Join(out+".parts", fmt.Sprintf("part-%d.safetensors", victim)))
			return err == nil
		})
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%d processes were done before one was killed", size)
		}
		kept := 0
		for _, r := range runGroup(t, size, args...) {
			if r.code != 0 {
				t.Fatal(r.err)
			}
			kept += strings.Count(r.err, "computed before")
		}
		if kept == 0 {
			t.Error("nothing was kept")
		}
		sameFiles(t, one, out)
	}
}

// The captions of several processes are those of one, in its order, on standard output and in a file.
func TestCaptionsInAGroup(t *testing.T) {
	dir := t.TempDir()
	bad := put(t, filepath.Join(dir, "bad.jpg"), []byte("no photo"))
	var inputs []string
	for i := range 5 {
		inputs = append(inputs, put(t, filepath.Join(dir, fmt.Sprintf("%d.tar", i)), tarOf(t, photos[i:]...)))
	}
	inputs = append(inputs, photos[0], photos[3])
	for _, json := range []bool{true, false} {
		args := []string{"caption", "--clip", clipF, "--decoder", mapperF, "--gpt2", gptF, "--generator", genF, "--batch", "2"}
		if json {
			args = append(args, "--json", "--decode", "beam")
		}
		args = append(args, inputs...)
		one := run("", args...)
		if one.code != 0 || len(one.out) == 0 {
			t.Fatal(one.err)
		}
		for size := 2; size <= 4; size++ {
			if !json && size > 2 {
				break
			}
			for rank, out := range okGroup(t, size, args...) {
				if rank == 0 && out != one.out || rank > 0 && out != "" {
					t.Errorf("rank %d of %d has %q, and one process %q", rank, size, out, one.out)
				}
			}
		}
		out := filepath.Join(dir, "captions")
		for size := 1; size <= 2; size++ {
			for _, text := range okGroup(t, size, append(args, "-o", out)...) {
				if text != "" {
					t.Errorf("standard output has %q", text)
				}
			}
			if text := must[[]byte](t)(os.ReadFile(out)); string(text) != one.out {
				t.Errorf("%d processes wrote %q, want %q", size, text, one.out)
			}
			if _, err := os.Stat(out + ".partial"); err == nil {
				t.Error("the journal is left")
			}
		}
	}
	// Photos that cannot be read are the failure of rank 0 alone.
	out := filepath.Join(dir, "bad.txt")
	for rank, r := range runGroup(t, 2, "caption", "--clip", clipF, "--decoder", mapperF, "--gpt2", gptF, "-o", out, inputs[0], bad) {
		if r.code != 1-rank || strings.Contains(r.err, "1 of 6 photos could not be captioned") != (rank == 0) {
			t.Errorf("rank %d: exit code %d\n%s", rank, r.code, r.err)
		}
	}
	if n := strings.Count(string(must[[]byte](t)(os.ReadFile(out))), "\n"); n != 5 {
		t.Errorf("%d captions", n)
	}
	for _, r := range runGroup(t, 2, "caption", "--clip", clipF, "--decoder", mapperF, "--gpt2", gptF, "--decode", "sample", photos[0]) {
		r.fails(t, 2, "--decode sample is for one process")
	}
}

// TestCaptionsLoseOne kills one of several processes while they caption, and runs the command again, in
// another number of processes.
func TestCaptionsLoseOne(t *testing.T) {
	dir := t.TempDir()
	args := []string{"caption", "--clip", clipF, "--decoder", mapperF, "--gpt2", gptF, "--batch", "2", "--json"}
	for i := range 40 {
		args = append(args, put(t, filepath.Join(dir, fmt.Sprintf("%d.tar", i)), tarOf(t, photos[i%5:]...)))
	}
	one := ok(t, args...)
	for size := 2; size <= 4; size++ {
		out := filepath.Join(dir, fmt.Sprint(size))
		args := append(slices.Clone(args), "-o", out)
		loseOne(t, startGroup(t, size, args...), size-1, func() bool {
			data, _ := os.ReadFile(out + ".partial")
			return bytes.Count(data, []byte("\n")) > 2*size
		})
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%d processes were done before one was killed", size)
		}
		put(t, out+".partial", append(must[[]byte](t)(os.ReadFile(out+".partial")), "{\"part\": 7, \"se"...)) // half a line
		r := runGroup(t, size-1, args...)
		if r[0].code != 0 || !strings.Contains(r[0].err, "captioned before") {
			t.Fatal(r[0].err)
		}
		if text := must[[]byte](t)(os.ReadFile(out)); string(text) != one {
			t.Errorf("%d processes, and then %d, wrote other captions", size, size-1)
		}
	}
	// Another command does not continue these captions.
	out := filepath.Join(dir, "other")
	put(t, out+".partial", []byte("{}\n"))
	run("", append(slices.Clone(args), "-o", out, "--normalize", "yes")...).fails(t, 1, out+".partial is of other photos, models or options")
}

// evalFiles writes annotations of n images, whose photos are those of these tests, and two files of results.
func evalFiles(t *testing.T, dir string, n int) (annotations, results, other string) {
	t.Helper()
	type object = map[string]any
	var images, captions, own, others []object
	for i := range n {
		images = append(images, object{"id": i, "file_name": filepath.Base(photos[i%5])})
		for k := range 1 + i%3 {
			captions = append(captions, object{"id": 10*i + k, "image_id": i, "caption": fmt.Sprintf("a photo with %d things and %d people", i%7, k)})
		}
		own = append(own, object{"image_id": n - 1 - i, "caption": fmt.Sprintf("a photo of %d people", i%4)})
		others = append(others, object{"image_id": i, "caption": fmt.Sprintf("%d things on a table", i%6)})
	}
	text := func(name string, v any) string {
		return put(t, filepath.Join(dir, name), must[[]byte](t)(json.Marshal(v)))
	}
	return text("annotations.json", object{"images": images, "annotations": captions}), text("own.json", own), text("other.json", others)
}

// The scores of several processes are those of one, and only rank 0 prints.
func TestEvalInAGroup(t *testing.T) {
	dir := t.TempDir()
	annotations, own, other := evalFiles(t, dir, 150)
	model := must[string](t)(textCLIP())
	with := []string{"--clip", model, "--images", filepath.Dir(photos[0])}
	for name, more := range map[string][]string{
		"clipscore": append(slices.Clone(with), "--json"),
		"compared":  append(slices.Clone(with), "--compare", other),
		"cheap":     nil, // nothing to share: the others wait
	} {
		args := append([]string{"eval", "--annotations", annotations, "--results", own, "--metrics", "BLEU,CIDEr", "--per-image"}, filepath.Join(dir, "one.json"))
		args = append(args, more...)
		one := ok(t, args...)
		for size := 2; size <= 3; size++ {
			args[8] = filepath.Join(dir, fmt.Sprintf("%d.json", size))
			for rank, out := range okGroup(t, size, args...) {
				if rank == 0 && out != one || rank > 0 && out != "" {
					t.Errorf("%s: rank %d of %d has %q, and one process %q", name, rank, size, out, one)
				}
			}
			sameFiles(t, filepath.Join(dir, "one.json"), args[8])
		}
	}
}

// Processes that cannot score an image say so and end, as one does.
func TestEvalFailsInAGroup(t *testing.T) {
	dir := t.TempDir()
	annotations, own, _ := evalFiles(t, dir, 150)
	model := must[string](t)(textCLIP())
	images := filepath.Join(dir, "images")
	if err := os.Mkdir(images, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, path := range photos[1:] { // the first is missing
		put(t, filepath.Join(images, filepath.Base(path)), must[[]byte](t)(os.ReadFile(path)))
	}
	args := []string{"eval", "--annotations", annotations, "--results", own, "--clip", model, "--images", images}
	one := run("", args...)
	last := strings.Split(strings.TrimSpace(one.err), "\n")
	message := last[len(last)-1]
	if one.code != 1 || !strings.Contains(message, filepath.Base(photos[0])) {
		t.Fatalf("one process: exit code %d\n%s", one.code, one.err)
	}
	for rank, r := range runGroup(t, 3, args...) {
		if r.code != 1 || r.out != "" || !strings.Contains(r.err, message) {
			t.Errorf("rank %d: exit code %d, and no %q:\n%s", rank, r.code, message, r.err)
		}
	}
	// A failure of rank 0 alone, which nobody shares.
	for rank, r := range runGroup(t, 3, "eval", "--annotations", annotations, "--results", own, "--metrics", "METEOR", "--meteor-data", dir) {
		if r.code != 1 || strings.Contains(r.err, "METEOR is not computed") != (rank == 0) {
			t.Errorf("rank %d: exit code %d\n%s", rank, r.code, r.err)
		}
	}
}

// torchrun starts a command line in several processes of torchrun, each through a shell script with parameters,
// which ends with exec "$1".
func torchrun(t *testing.T, size, restarts int, script string, parameters []string, args ...string) *exec.Cmd {
	t.Helper()
	// It comes with the libtorch of a Python environment.
	torch, err := os.ReadFile("../build/libtorch")
	if err != nil {
		t.Skip("no ../build/libtorch, which names the libtorch in use:", err)
	}
	torchrun := filepath.Join(strings.TrimSpace(string(torch)), "../../../../bin/torchrun")
	// `make setup` installs libtorch without the Python packages that torchrun needs, and
	// `make references` with them.
	if out, err := exec.Command(torchrun, "--help").CombinedOutput(); err != nil {
		t.Skipf("this libtorch comes without a torchrun that runs: %v\n%s", err, out)
	}
	text, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	file := put(t, filepath.Join(t.TempDir(), "process.sh"), []byte(script))
	c := exec.CommandContext(t.Context(), torchrun, append([]string{"--nproc-per-node", fmt.Sprint(size), "--max-restarts", fmt.Sprint(restarts),
		"--master-port", fmt.Sprint(freePort(t)), "--no-python", "sh", file, os.Args[0]}, parameters...)...)
	c.Env = append(os.Environ(), groupVariable+"="+string(text), "OMP_NUM_THREADS=1", "GLOO_SOCKET_IFNAME=lo")
	return c
}

// TestTorchrun kills a process that torchrun has started: --max-restarts goes on from the parts that are done.
func TestTorchrun(t *testing.T) {
	dir := t.TempDir()
	args := []string{"features", "--clip", clipF, "--images"}
	for i := range 20 {
		args = append(args, put(t, filepath.Join(dir, fmt.Sprintf("%d.tar", i)), tarOf(t, slices.Repeat(photos[i%5:i%5+1], 40)...)))
	}
	one, out := filepath.Join(dir, "one.npy"), filepath.Join(dir, "out.npy")
	ok(t, append(slices.Clone(args), "-o", one)...)
	const script = `if [ "$RANK/$TORCHELASTIC_RESTART_COUNT" = 1/0 ]; then
	(while [ ! -e "$2.parts/part-1.safetensors" ]; do sleep 0.1; done; kill -9 $$) &
fi
exec "$1"`
	c := torchrun(t, 3, 1, script, []string{out}, append(args, "-o", out)...)
	said, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, want := range []string{"rank 1 has ended without leaving the group", "that was computed before"} {
		if !strings.Contains(strings.ReplaceAll(string(said), "parts that were", "part that was"), want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	sameFiles(t, one, out)
}

// TestTorchrunRun kills a process of a run in its features, and after torchrun has restarted both, one in the training of the
// decoder. The second restart continues from the last checkpoint, and the files are those of a run that was not disturbed.
func TestTorchrunRun(t *testing.T) {
	dir := t.TempDir()
	conf := put(t, filepath.Join(dir, "x.toml"), []byte(experimenttest.Small))
	run := func(output string) []string {
		args := []string{"run", conf, "--resume"}
		for _, set := range []string{"output=" + output, "threads=1", "bridges.use=[direct,cyclegan]", "world.train=600", "train.clip.width=256", "train.clip.layers=24",
			"train.decoder.layers=4", "train.decoder.checkpoint_every=5", "train.cyclegan.batch=300"} {
			args = append(args, "--set", set)
		}
		return args
	}
	one, out := filepath.Join(dir, "one"), filepath.Join(dir, "out")
	okGroup(t, 2, run(one)...)
	const script = `case "$RANK/$TORCHELASTIC_RESTART_COUNT" in
1/0) stage=features/train-images begun= ;;
0/1) stage=seed-0/decoder-texts begun=last.safetensors ;;
*) exec "$1" ;;
esac
(
	while [ ! -e "$2/$stage/$begun" ]; do sleep 0.05; done
	sleep 0.3
	kill -9 $$
	[ ! -e "$2/$stage/stage.json" ] || echo "$stage was complete too early"
	[ ! "$begun" ] || head -n 5 "$2/$stage/metrics.jsonl" >"$2.log"
) &
exec "$1"`
	said, err := torchrun(t, 2, 2, script, []string{out}, run(out)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, want := range []string{"features/train-images: rank 1 has ended without leaving the group", "rank 0 has ended without leaving the group"} {
		if !strings.Contains(string(said), want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	if strings.Contains(string(said), "complete too early") {
		t.Errorf("a process was killed after its stage:\n%s", said)
	}
	// The lines of a log have times, which differ where a training begins again.
	before, after := must[[]byte](t)(os.ReadFile(out+".log")), must[[]byte](t)(os.ReadFile(filepath.Join(out, "seed-0/decoder-texts/metrics.jsonl")))
	if bytes.Count(before, []byte("\n")) != 5 || !bytes.HasPrefix(after, before) {
		t.Errorf("the training began again: its log had\n%s\nand has\n%s", before, after)
	}
	for _, pattern := range []string{"clip/clip.safetensors", "seed-0/decoder-*/decoder.pt", "seed-0/cyclegan/*.pt", "seed-0/captions-*/results.json"} {
		paths, err := filepath.Glob(filepath.Join(one, pattern))
		if err != nil || len(paths) == 0 {
			t.Errorf("no %s, %v", pattern, err)
		}
		for _, want := range paths {
			sameFiles(t, want, out+strings.TrimPrefix(want, one))
		}
	}
}
