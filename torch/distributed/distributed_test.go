package distributed_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/distributed"
	"cyclecap/torch/nn"

	"github.com/google/go-cmp/cmp"
)

// A test starts this program again as the processes of a group, which run one
// of these.
var workers = map[string]func(g *distributed.Group, out *json.Encoder) error{
	"collectives": collectives,
	"refused":     refused,
	"gradients":   gradients,
	"strangers":   strangers,
	"overlaps":    overlaps,
	"reduces":     reduces,
	"likeDDP":     likeDDP,
	"dies":        dies,
	"hangs":       hangs,
	"killed":      killed,
	"fails":       fails,
	"leaves":      leaves,
	"bytes":       gatherBytes,
}

const workerVariable = "CYCLECAP_TEST_WORKER"

func TestMain(m *testing.M) {
	torch.SetNumThreads(1)
	if name := os.Getenv(workerVariable); name != "" {
		if err := work(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func work(name string) error {
	o, err := distributed.FromEnv()
	if err != nil {
		return err
	}
	o.Timeout = 20 * time.Second
	switch name {
	case "dies", "killed", "fails", "leaves":
		o.Timeout = time.Hour // its error does not come of a timeout
	case "hangs":
		o.Timeout = 2 * time.Second
	}
	g, err := distributed.InitProcessGroup(context.Background(), o)
	if err != nil {
		return err
	}
	defer g.Close()
	return torch.Scope(func() error { return workers[name](g, json.NewEncoder(os.Stdout)) })
}

// freePort gives a port of the loopback interface that nobody uses now.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// spawn runs a worker as two processes and gives what each printed. Their
// standard input stays open. Where the second one is to die or hang, it is
// killed once the first one has ended.
func spawn(t *testing.T, name string) [2]string {
	t.Helper()
	if !distributed.IsAvailable() {
		t.Skip("this libtorch has no c10d with Gloo")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	port := freePort(t)
	var out, errs [2]bytes.Buffer
	var commands [2]*exec.Cmd
	for rank := range commands {
		c := exec.CommandContext(ctx, os.Args[0])
		c.Env = append(os.Environ(), workerVariable+"="+name, "RANK="+strconv.Itoa(rank), "LOCAL_RANK="+strconv.Itoa(rank),
			"WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1", "MASTER_PORT="+strconv.Itoa(port), "GLOO_SOCKET_IFNAME=lo")
		c.Stdout, c.Stderr = &out[rank], &errs[rank]
		if _, err := c.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		commands[rank] = c
	}
	for rank, c := range commands {
		killed := rank == 1 && (name == "dies" || name == "hangs")
		if killed {
			c.Process.Kill()
		}
		err := c.Wait()
		if err != nil && !killed {
			t.Errorf("%s, rank %d: %v\n%s", name, rank, err, &errs[rank])
		}
	}
	return [2]string{out[0].String(), out[1].String()}
}

// decode reads a worker's line.
func decode[T any](t *testing.T, line string) T {
	t.Helper()
	var v T
	if err := json.NewDecoder(strings.NewReader(line)).Decode(&v); err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	return v
}

type collected struct {
	Rank, LocalRank, Size int
	Sum, Avg              []float32
	SumInt, Broadcast     []int64
	Gathered              [][]int64
	LargeWrong            int
}

func collectives(g *distributed.Group, out *json.Encoder) error {
	r := int64(g.Rank())
	c := collected{Rank: g.Rank(), LocalRank: g.LocalRank(), Size: g.Size()}
	sum := torch.FromSlice([]float32{1, 2, float32(10 * (r + 1))})
	avg := torch.FromSlice([]float32{1, 2, float32(10 * (r + 1))}).SetRequiresGrad(true) // a parameter, say
	ints := torch.FromSlice([]int64{1 << 40, r})
	cast := torch.FromSlice([]int64{r, r + 1})
	for _, f := range []func() error{
		func() error { return g.AllReduce(sum, distributed.Sum) },
		func() error { return g.AllReduce(avg, distributed.Avg) },
		func() error { return g.AllReduce(ints, distributed.Sum) },
		func() error { return g.Broadcast(cast, 1) },
		func() error {
			all, err := g.AllGather(torch.FromSlice([]int64{r, r, 7}))
			for _, a := range all {
				c.Gathered = append(c.Gathered, torch.ToSlice[int64](a))
			}
			return err
		},
	} {
		if err := f(); err != nil {
			return err
		}
	}
	c.Sum, c.Avg, c.SumInt, c.Broadcast = torch.ToSlice[float32](sum), torch.ToSlice[float32](avg), torch.ToSlice[int64](ints), torch.ToSlice[int64](cast)

	// 10M floats, whose sums are known: rank r holds (r+1) times 0, 1, … 999.
	large := torch.Empty([]int64{10_000_000})
	torch.Data(large, func(data []float32) {
		for i := range data {
			data[i] = float32(i%1000) * float32(r+1)
		}
	})
	if err := errors.Join(g.Barrier(), g.AllReduce(large, distributed.Sum)); err != nil {
		return err
	}
	torch.Data(large, func(data []float32) {
		for i := range data {
			if data[i] != float32(i%1000)*3 {
				c.LargeWrong++
			}
		}
	})
	return out.Encode(c)
}

func TestCollectives(t *testing.T) {
	for rank, line := range spawn(t, "collectives") {
		got := decode[collected](t, line)
		want := collected{Rank: rank, LocalRank: rank, Size: 2,
			Sum: []float32{2, 4, 30}, Avg: []float32{1, 2, 15}, SumInt: []int64{1 << 41, 1}, Broadcast: []int64{1, 2},
			Gathered: [][]int64{{0, 0, 7}, {1, 1, 7}}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// refused makes calls that fail in both processes before anything is sent:
// the group stays good.
func refused(g *distributed.Group, out *json.Encoder) error {
	var texts []string
	for _, err := range []error{
		g.AllReduce(torch.Ones([]int64{4, 6}).T(), distributed.Sum),
		g.AllReduce(torch.Ones([]int64{2}, torch.WithDType(torch.Int64)), distributed.Avg),
		g.AllReduce(torch.Empty([]int64{2}, torch.WithDevice(torch.Meta)), distributed.Sum),
		g.AllReduce(torch.Ones([]int64{2}), distributed.ReduceOp(9)),
		g.Broadcast(torch.Ones([]int64{2}), 2),
		g.AllReduce(torch.Ones([]int64{2}), distributed.Sum),
	} {
		texts = append(texts, fmt.Sprint(err))
	}
	g.Close()
	g.Close()
	return out.Encode(append(texts, fmt.Sprint(g.Barrier())))
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, line := range spawn(t, "refused") {
		got := decode[[]string](t, line)
		want := []string{
			"all_reduce(float32[6 4]): the tensor is not contiguous",
			"an average requires a floating point dtype, got Long",
			"a meta tensor has no data to send",
			"unknown reduction 9",
			"root must be between 0 and 1, got 2",
			"<nil>",
			"the group is closed",
		}
		if len(got) != len(want) {
			t.Fatalf("%q", got)
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%q does not say %q", got[i], want[i])
			}
		}
	}
}

// mlp is a small net with a parameter that no loss reaches and one that is
// frozen.
type mlp struct {
	A, B           *nn.LinearModule
	Unused, Frozen torch.Tensor
}

func newMLP() *mlp {
	torch.ManualSeed(1)
	return &mlp{nn.Linear(5, 7, true), nn.Linear(7, 3, true),
		torch.Ones([]int64{3}).SetRequiresGrad(true).Keep(), torch.Ones([]int64{3}).Keep()}
}

func (m *mlp) params() []torch.Tensor {
	return []torch.Tensor{m.A.Weight, m.A.Bias, m.B.Weight, m.B.Bias, m.Unused, m.Frozen}
}

// batch gives rows of a fixed batch of 8.
func batch(from, to int64) (x, y torch.Tensor) {
	torch.ManualSeed(2)
	x, y = torch.Randn([]int64{8, 5}), torch.Randn([]int64{8, 3})
	return x.Narrow(0, from, to-from), y.Narrow(0, from, to-from)
}

// backward runs the net on rows of the batch.
func (m *mlp) backward(from, to int64) {
	x, y := batch(from, to)
	m.B.Forward(m.A.Forward(x).Tanh()).MseLoss(y).Backward()
}

func (m *mlp) grads() map[string][]float64 {
	out := map[string][]float64{}
	for i, p := range m.params() {
		if g := p.Grad(); g.Defined() {
			out[strconv.Itoa(i)] = torch.ToSlice[float64](g)
		}
	}
	return out
}

func gradients(g *distributed.Group, out *json.Encoder) error {
	m := newMLP()
	r := int64(g.Rank())
	m.backward(4*r, 4*r+4)
	if r == 1 {
		m.A.Bias.SetGrad(torch.Tensor{}) // as if its share had not used it
	}
	if err := distributed.AverageGradients(g, m.params()); err != nil {
		return err
	}
	first := m.grads()
	// A second step, on the same list, and with more than one bucket.
	big := torch.Ones([]int64{distributed.BucketBytes/4 + 1}).SetRequiresGrad(true)
	big.SetGrad(torch.Ones(big.Shape()).MulScalar(float64(1 + 2*r)))
	params := append(m.params(), big)
	for _, p := range m.params() {
		p.SetGrad(torch.Tensor{})
	}
	m.backward(4*r, 4*r+4)
	if err := distributed.AverageGradients(g, params); err != nil {
		return err
	}
	mean := torch.ToSlice[float32](big.Grad())
	for i, v := range mean {
		if v != 2 {
			return fmt.Errorf("element %d of the large gradient is %v, not 2", i, v)
		}
	}
	return out.Encode([]map[string][]float64{first, m.grads()})
}

// The average over two halves of a batch is the gradient of the whole.
func TestAverageGradients(t *testing.T) {
	t.Parallel()
	lines := spawn(t, "gradients")
	var whole, half map[string][]float64
	if err := torch.Scope(func() error {
		m := newMLP()
		m.backward(0, 8)
		whole = m.grads()
		m = newMLP()
		m.backward(0, 4)
		half = m.grads()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	withoutBias := map[string][]float64{}
	for k, v := range whole {
		withoutBias[k] = v
	}
	withoutBias["1"] = nil
	for _, v := range half["1"] { // rank 1 had none: zero
		withoutBias["1"] = append(withoutBias["1"], v/2)
	}
	close := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 1e-6 })
	got := [2][]map[string][]float64{decode[[]map[string][]float64](t, lines[0]), decode[[]map[string][]float64](t, lines[1])}
	if diff := cmp.Diff(got[0], got[1]); diff != "" {
		t.Errorf("the processes differ: %s", diff)
	}
	if diff := cmp.Diff([]map[string][]float64{withoutBias, whole}, got[0], close); diff != "" {
		t.Error(diff)
	}
	if _, ok := got[0][0]["4"]; ok {
		t.Error("a parameter that no process used has a gradient")
	}
	if cmp.Equal(whole, half, close) {
		t.Error("the two halves of the batch are alike: the test shows nothing")
	}
}

// overlaps changes all gradients between the backward pass and FinalizeBackward. Those that the backward pass has
// sent are not affected, and those of the last bucket are.
func overlaps(g *distributed.Group, out *json.Encoder) error {
	first := torch.Ones([]int64{3}).SetRequiresGrad(true)
	large := torch.Ones([]int64{distributed.FirstBucketBytes / 4}).SetRequiresGrad(true)
	r, err := distributed.NewReducer(g, []torch.Tensor{first, large})
	if err != nil {
		return err
	}
	defer r.Close()
	var sums [][]float32
	for step := range 3 { // the buffers of a step are used again
		g.WantStop(step == 1 && g.Rank() == 1)
		first.SetGrad(torch.Tensor{})
		large.SetGrad(torch.Tensor{})
		if err := r.PrepareForBackward(); err != nil {
			return err
		}
		loss := first.Sum().Add(large.Sum()).MulScalar(float64(1 + 2*g.Rank() + step))
		loss.Backward()
		torch.NoGrad(func() {
			first.Grad().Fill_(100)
			large.Grad().Fill_(100)
		})
		means, stopping, err := r.FinalizeBackward(torch.Scalar0(float32(g.Rank())), torch.Scalar0(float32(5)))
		if err != nil {
			return err
		}
		sums = append(sums, []float32{torch.ToSlice[float32](first.Grad())[2], torch.ToSlice[float32](large.Grad())[7],
			torch.ToSlice[float32](means[0])[0], torch.ToSlice[float32](means[1])[0], torch.ToSlice[float32](stopping)[0]})
	}
	return out.Encode(sums)
}

func TestReducerOverlaps(t *testing.T) {
	t.Parallel()
	want := [][]float32{{100, 2, 0.5, 5, 0}, {100, 3, 0.5, 5, 1}, {100, 4, 0.5, 5, 0}}
	for rank, line := range spawn(t, "overlaps") {
		if diff := cmp.Diff(want, decode[[][]float32](t, line)); diff != "" {
			t.Errorf("rank %d: %s", rank, diff)
		}
	}
}

// reduces is gradients with a Reducer, in as many processes as there are; it also misuses one.
func reduces(g *distributed.Group, out *json.Encoder) error {
	m := newMLP()
	r, err := distributed.NewReducer(g, m.params())
	if err != nil {
		return err
	}
	rows := 8 / int64(g.Size())
	var all []map[string][]float64
	for range 2 {
		for _, p := range m.params() {
			p.SetGrad(torch.Tensor{})
		}
		if err := r.PrepareForBackward(); err != nil {
			return err
		}
		m.backward(rows*int64(g.Rank()), rows*int64(g.Rank())+rows)
		if g.Rank() == 1 {
			m.A.Bias.SetGrad(torch.Tensor{}) // as if its share had not used it
		}
		if _, _, err := r.FinalizeBackward(); err != nil {
			return err
		}
		all = append(all, m.grads())
	}
	if err := r.PrepareForBackward(); err != nil {
		return err
	}
	m.backward(0, rows)
	second := torch.Scope(func() error { m.backward(0, rows); return nil })
	if second == nil || !strings.Contains(second.Error(), "a second backward pass has changed a gradient") {
		return fmt.Errorf("a second backward pass: %v", second)
	}
	r.Close()
	r.Close()
	if err := r.PrepareForBackward(); err == nil || !strings.Contains(err.Error(), "closed") {
		return fmt.Errorf("a closed reducer: %v", err)
	}
	m.backward(0, rows) // its hooks are gone
	return out.Encode(all)
}

// TestReducer checks the average of several processes, whose bits are the same in each.
func TestReducer(t *testing.T) {
	t.Parallel()
	var whole, without map[string][]float64
	if err := torch.Scope(func() error {
		m := newMLP()
		m.backward(0, 8)
		whole = m.grads()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{2, 4} {
		lines := spawnAll(t, "reduces", size, true)
		first := decode[[]map[string][]float64](t, lines[0])
		without = maps.Clone(whole)
		without["1"] = first[0]["1"] // rank 1 had none; TestAverageGradients has the value
		for rank, line := range lines {
			got := decode[[]map[string][]float64](t, line)
			if diff := cmp.Diff(first, got); diff != "" {
				t.Errorf("ranks 0 and %d of %d differ: %s", rank, size, diff)
			}
			close := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 1e-6 })
			if diff := cmp.Diff([]map[string][]float64{without, without}, got, close); diff != "" {
				t.Error(diff)
			}
			if cmp.Equal(whole["1"], got[0]["1"], close) {
				t.Error("the missing gradient does not count as zero")
			}
		}
	}
}

func likeDDP(g *distributed.Group, out *json.Encoder) error {
	var params []torch.Tensor
	var n float32
	for _, shape := range [][]int64{{7, 5}, {7}, {3, 7}, {3}} {
		p := torch.Ones(shape).SetRequiresGrad(true)
		grad := make([]float32, p.Numel())
		for i := range grad {
			n++
			grad[i] = n / float32(3+4*g.Rank())
		}
		p.SetGrad(torch.FromSlice(grad, shape...))
		params = append(params, p)
	}
	if err := distributed.AverageGradients(g, params); err != nil {
		return err
	}
	var grads [][]float32
	for _, p := range params {
		grads = append(grads, torch.ToSlice[float32](p.Grad()))
	}
	return out.Encode(grads)
}

// The fixture is what DistributedDataParallel makes of the same gradients
// (testdata/make_fixtures.py), bit for bit: float32 goes through JSON
// unchanged.
func TestDistributedDataParallel(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/ddp.json")
	if err != nil {
		t.Fatal(err)
	}
	want := decode[struct{ Gradients [][]float32 }](t, string(text)).Gradients
	for rank, line := range spawn(t, "likeDDP") {
		if diff := cmp.Diff(want, decode[[][]float32](t, line)); diff != "" {
			t.Errorf("rank %d: %s", rank, diff)
		}
	}
}

// strangers have nets of different sizes.
func strangers(g *distributed.Group, out *json.Encoder) error {
	p := torch.Ones([]int64{3 + int64(g.Rank())}).SetRequiresGrad(true)
	return out.Encode(fmt.Sprint(distributed.AverageGradients(g, []torch.Tensor{p})))
}

func TestDifferentNets(t *testing.T) {
	t.Parallel()
	for rank, line := range spawn(t, "strangers") {
		want := fmt.Sprintf("rank %d has 1 (%d elements), rank %d has 1 (%d elements)", rank, 3+rank, 1-rank, 4-rank)
		if got := decode[string](t, line); !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}

// report encodes an error that must be one of a lost process.
func report(out *json.Encoder, err error) error {
	var e *torch.Error
	if !errors.As(err, &e) || e.Kind != torch.DistError {
		return fmt.Errorf("got %v, want a DistError", err)
	}
	return out.Encode(err.Error())
}

func dies(g *distributed.Group, out *json.Encoder) error {
	if err := g.Barrier(); err != nil {
		return err
	}
	if g.Rank() == 1 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	x := torch.Ones([]int64{1000})
	err := g.AllReduce(x, distributed.Sum)
	if again := g.AllReduce(x, distributed.Sum); again == nil {
		return errors.New("the group works on without rank 1")
	}
	return report(out, err)
}

// The death of a process is noticed, and not only that it is late: with a
// timeout of an hour, this test ends within spawn's minute or fails.
func TestPeerDies(t *testing.T) {
	t.Parallel()
	out := spawn(t, "dies")
	got := decode[string](t, out[0])
	t.Log(got)
	for _, want := range []string{"rank 0 of 2", "all_reduce(float32[1000])", "another process has ended", "rank 1 has ended without leaving the group"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
	if out[1] != "" {
		t.Errorf("the killed process printed %q", out[1])
	}
}

// hangs: rank 1 stays alive but does not come.
func hangs(g *distributed.Group, out *json.Encoder) error {
	if g.Rank() == 1 {
		io.Copy(io.Discard, os.Stdin) // until it is killed
	}
	return report(out, g.AllReduce(torch.Ones([]int64{1000}), distributed.Sum))
}

func TestPeerHangs(t *testing.T) {
	t.Parallel()
	got := decode[string](t, spawn(t, "hangs")[0])
	t.Log(got)
	for _, want := range []string{"Timed out waiting 2000ms", "is more than 2s late"} { // Gloo's words, and ours
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}

func TestBackend(t *testing.T) {
	_, err := distributed.InitProcessGroup(t.Context(), distributed.Options{WorldSize: 1, MasterAddr: "localhost", MasterPort: 1, Backend: "mpi"})
	if want := `Backend must be "gloo", "nccl" or empty, got "mpi"`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestFromEnv(t *testing.T) {
	good := map[string]string{"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node0", "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": ""}
	for _, c := range []struct {
		name   string
		change map[string]string
		want   []string // parts of the error; none: it is good
	}{
		{"good", nil, nil},
		{"all missing", map[string]string{"RANK": "", "LOCAL_RANK": "", "WORLD_SIZE": ""}, []string{distributed.ErrNotLaunched.Error()}},
		{"some missing", map[string]string{"RANK": "", "MASTER_PORT": ""}, []string{"RANK, MASTER_PORT not set"}},
		{"not numbers", map[string]string{"WORLD_SIZE": "two", "MASTER_ADDR": ""}, []string{`WORLD_SIZE must be a number, got "two"`, "MASTER_ADDR not set"}},
		{"rank too large", map[string]string{"RANK": "2"}, []string{"RANK must be between 0 and 1 for a WORLD_SIZE of 2, got 2"}},
		{"negative", map[string]string{"LOCAL_RANK": "-1", "RANK": "-1"}, []string{
			"distributed: RANK must be between 0 and 1 for a WORLD_SIZE of 2, got -1", "; LOCAL_RANK must be between 0 and 1 for a WORLD_SIZE of 2, got -1"}},
		{"no process", map[string]string{"WORLD_SIZE": "0"}, []string{"WORLD_SIZE must be at least 1, got 0"}},
		{"port", map[string]string{"MASTER_PORT": "70000"}, []string{"MASTER_PORT must be between 1 and 65535, got 70000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range good {
				if w, ok := c.change[k]; ok {
					v = w
				}
				t.Setenv(k, v)
			}
			got, err := distributed.FromEnv()
			if len(c.want) == 0 {
				want := distributed.Options{Rank: 1, LocalRank: 1, WorldSize: 2, MasterAddr: "node0", MasterPort: 29500}
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Error(diff, err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if errors.Is(err, distributed.ErrNotLaunched) != (c.name == "all missing") {
				t.Errorf("ErrNotLaunched: %v", err)
			}
		})
	}
}

// join calls InitProcessGroup with a timeout of a second.
func join(ctx context.Context, rank, size int, addr string, port int) error {
	g, err := distributed.InitProcessGroup(ctx, distributed.Options{Rank: rank, WorldSize: size, MasterAddr: addr, MasterPort: port, Timeout: time.Second})
	g.Close()
	return err
}

func TestInitErrors(t *testing.T) {
	if !distributed.IsAvailable() {
		err := join(t.Context(), 0, 1, "127.0.0.1", freePort(t))
		if err == nil || !strings.Contains(err.Error(), "has no c10d with Gloo") {
			t.Errorf("got %v", err)
		}
		return
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	used, silent := listen(), listen()
	cancelled, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("stop is asked"))
	for _, c := range []struct {
		name string
		err  func() error
		want []string
	}{
		{"port in use", func() error { return join(t.Context(), 0, 2, "127.0.0.1", used.Addr().(*net.TCPAddr).Port) }, []string{"rank 0 of 2", "is in use", "set MASTER_PORT"}},
		{"nobody there", func() error { return join(t.Context(), 1, 2, "127.0.0.1", freePort(t)) }, []string{"rank 1 of 2", "no answer for 1s", "connection refused", "check that rank 0 has been started"}},
		{"no such name", func() error { return join(t.Context(), 1, 2, "no-such-host.invalid", 29500) }, []string{"no-such-host.invalid", "MASTER_ADDR"}},
		{"others do not come", func() error { return join(t.Context(), 0, 2, "127.0.0.1", freePort(t)) }, []string{"not all processes joined", "within 1s: rank 1 missing", "check that all 2 have been started"}},
		{"larger size", func() error {
			port := freePort(t)
			go join(t.Context(), 1, 3, "127.0.0.1", port)
			time.Sleep(100 * time.Millisecond) // its second attempt is in time
			return join(t.Context(), 0, 2, "127.0.0.1", port)
		}, []string{"not all processes joined", "rank 1 was started with WORLD_SIZE=3"}},
		// Rank 0 waits for rank 2 and does not mind rank 1, which has found
		// everyone that it wants.
		{"smaller size", func() error {
			port := freePort(t)
			go join(t.Context(), 0, 3, "127.0.0.1", port)
			return join(t.Context(), 1, 2, "127.0.0.1", port)
		}, []string{"not all processes joined", "rank 0 was started with WORLD_SIZE=3"}},
		{"cancelled", func() error { return join(cancelled, 1, 2, "127.0.0.1", freePort(t)) }, []string{"stop is asked"}},
		{"cancelled while it waits", func() error {
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				// Rank 1 tries whether the meeting point can be reached, and then
				// connects again to wait for the others.
				for range 2 {
					if c, err := silent.Accept(); err == nil {
						t.Cleanup(func() { c.Close() })
					}
				}
				cancel(errors.New("enough of waiting"))
			}()
			return join(ctx, 1, 2, "127.0.0.1", silent.Addr().(*net.TCPAddr).Port)
		}, []string{"stopped waiting", "enough of waiting"}},
		{"bad options", func() error { return join(t.Context(), 2, 2, "", 0) }, []string{"RANK must be between 0 and 1 for a WORLD_SIZE of 2, got 2", "MASTER_ADDR must be the host name", "MASTER_PORT must be between 1 and 65535, got 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := c.err()
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

// A group of one, real or nil, changes nothing.
func TestAlone(t *testing.T) {
	t.Parallel()
	if !distributed.IsAvailable() {
		t.Skip("this libtorch has no c10d with Gloo")
	}
	real, err := distributed.InitProcessGroup(t.Context(), distributed.Options{WorldSize: 1, MasterAddr: "localhost", MasterPort: freePort(t), Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	for _, g := range []*distributed.Group{real, nil} {
		if err := torch.Scope(func() error {
			x := torch.FromSlice([]float32{1, 2})
			p := torch.Ones([]int64{2}).SetRequiresGrad(true)
			p.Mul(x).Sum().Backward()
			all, err := g.AllGather(x)
			if err := errors.Join(err, g.AllReduce(x, distributed.Sum), g.AllReduce(x, distributed.Avg), g.Broadcast(x, 0), g.Barrier(),
				distributed.AverageGradients(g, []torch.Tensor{p})); err != nil {
				return err
			}
			got := []any{g.Rank(), g.LocalRank(), g.Size(), torch.ToSlice[float32](x), torch.ToSlice[float32](all[0]), torch.ToSlice[float32](p.Grad())}
			if diff := cmp.Diff([]any{0, 0, 1, []float32{1, 2}, []float32{1, 2}, []float32{1, 2}}, got); diff != "" {
				t.Error(diff)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// TestWaiting checks what a process says while it waits for others.
func TestWaiting(t *testing.T) {
	t.Parallel()
	if !distributed.IsAvailable() {
		t.Skip("this libtorch has no c10d with Gloo")
	}
	port := freePort(t)
	var wait sync.WaitGroup
	for _, c := range []struct {
		rank int
		addr string
		want string
	}{
		{0, "127.0.0.1", fmt.Sprintf("rank 0 of 4: waiting for the other processes at 127.0.0.1:%d: ranks 1, 3 missing", port)},
		{2, "127.0.0.1", fmt.Sprintf("rank 2 of 4: waiting for the other processes at 127.0.0.1:%d: ranks 1, 3 missing", port)},
		{1, "127.0.0.2", fmt.Sprintf("rank 1 of 4: waiting for rank 0 at 127.0.0.2:%d", port)},
	} {
		wait.Go(func() {
			said := make(chan string, 10)
			_, err := distributed.InitProcessGroup(t.Context(), distributed.Options{Rank: c.rank, WorldSize: 4, MasterAddr: c.addr, MasterPort: port,
				Timeout: time.Hour, Rendezvous: 7 * time.Second, Waiting: func(text string) { said <- text }})
			if err == nil {
				t.Errorf("rank %d: it joined", c.rank)
			}
			close(said)
			var texts []string
			for text := range said {
				texts = append(texts, text)
			}
			if diff := cmp.Diff([]string{c.want}, texts); diff != "" {
				t.Errorf("rank %d: %s", c.rank, diff)
			}
		})
	}
	wait.Wait()
}

// TestInterruptedWhileWaiting interrupts one of three processes that wait for a fourth.
func TestInterruptedWhileWaiting(t *testing.T) {
	t.Parallel()
	if !distributed.IsAvailable() {
		t.Skip("this libtorch has no c10d with Gloo")
	}
	for _, interrupted := range []int{0, 2} {
		port := freePort(t)
		var wait sync.WaitGroup
		for rank := range 3 {
			wait.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				o := distributed.Options{Rank: rank, WorldSize: 4, MasterAddr: "127.0.0.1", MasterPort: port, Timeout: time.Hour}
				if rank == interrupted {
					o.Waiting = func(string) { cancel() }
				}
				_, err := distributed.InitProcessGroup(ctx, o)
				if !errors.Is(err, context.Canceled) || errors.Is(err, distributed.ErrInterrupted) != (rank != interrupted) {
					t.Errorf("rank %d was interrupted, and rank %d returned %v", interrupted, rank, err)
				}
			})
		}
		wait.Wait()
	}
}
