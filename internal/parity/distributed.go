package parity

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/distributed"
	"cyclecap/torch/nn"
)

// Together runs testdata/reference/distributed.py as rank 0 of a group whose
// rank 1 is this process, and compares what the collectives bring here with
// what PyTorch computes without them.
func Together(ctx context.Context, python, script string) (Row, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return Row{}, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, python, script)
	c.Env = append(os.Environ(), "RANK=0", "LOCAL_RANK=0", "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1", "MASTER_PORT="+strconv.Itoa(port))
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Start(); err != nil {
		return Row{}, err
	}
	got, err := take(ctx, port)
	if err != nil {
		cancel()
	}
	if e := c.Wait(); err == nil && e != nil {
		err = e
	}
	if err != nil {
		return Row{}, fmt.Errorf("%s: %w\n%s", script, err, &errs)
	}
	var want map[string][][]float64
	if err := json.Unmarshal(out.Bytes(), &want); err != nil {
		return Row{}, fmt.Errorf("%s: %w: %q", script, err, &out)
	}
	var ours, theirs []float64
	for _, name := range []string{"sum", "broadcast", "gathered", "gradients"} {
		ours, theirs = append(ours, slices.Concat(got[name]...)...), append(theirs, slices.Concat(want[name]...)...)
	}
	return Row{What: "collectives and averaged gradients, Python and Go in one group", Reference: "torch.distributed",
		Difference: compare.Numbers(ours, theirs)}, nil
}

// take is rank 1: it runs the collectives of distributed.py.
func take(ctx context.Context, port int) (map[string][][]float64, error) {
	threads := torch.NumThreads()
	torch.SetNumThreads(1)
	defer torch.SetNumThreads(threads)
	g, err := distributed.InitProcessGroup(ctx, distributed.Options{
		Rank: 1, LocalRank: 1, WorldSize: 2, MasterAddr: "127.0.0.1", MasterPort: port, Timeout: time.Minute})
	if err != nil {
		return nil, err
	}
	defer g.Close()
	got := map[string][][]float64{}
	err = torch.Scope(func() error {
		put := func(name string, t torch.Tensor) { got[name] = append(got[name], torch.ToSlice[float64](t)) }
		sum := torch.Arange(0, 1000, torch.WithDType(torch.Float32)).DivScalar(7)
		if err := g.AllReduce(sum, distributed.Sum); err != nil {
			return err
		}
		put("sum", sum)
		root := torch.FromSlice([]int64{1, 1, 1})
		if err := g.Broadcast(root, 1); err != nil {
			return err
		}
		put("broadcast", root)
		all, err := g.AllGather(torch.FromSlice([]float64{1.5, -1}))
		if err != nil {
			return err
		}
		for _, t := range all {
			put("gathered", t)
		}
		if err := g.Barrier(); err != nil {
			return err
		}

		torch.ManualSeed(1)
		a, b := nn.Linear(5, 7, true), nn.Linear(7, 3, true)
		defer nn.Close(a)
		defer nn.Close(b)
		torch.ManualSeed(2)
		x, y := torch.Randn([]int64{8, 5}).Narrow(0, 4, 4), torch.Randn([]int64{8, 3}).Narrow(0, 4, 4)
		b.Forward(a.Forward(x).Tanh()).MseLoss(y).Backward()
		for _, p := range []torch.Tensor{a.Weight, a.Bias, b.Weight, b.Bias} {
			grad := p.Grad().Contiguous()
			if err := g.AllReduce(grad, distributed.Avg); err != nil {
				return err
			}
			put("gradients", grad)
		}
		return nil
	})
	return got, err
}
