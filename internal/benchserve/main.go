// Command benchserve compares `cyclecap serve` with servers in Python that have the same models:
// infinity, and the one of testdata/reference/serve_peer.py, which is what a team would write with
// FastAPI and transformers. They take turns on the same machine, with the same number of threads.
//
//	go run ./internal/benchserve -seconds 10 -rounds 3
//
// For each kind of request it measures how many items are answered in a second while 1, 8 and 64
// clients ask without a pause, and how long an answer takes at half of the best peer's
// throughput, with requests at random times. Memory is the peak of the process.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cyclecap/internal/processor"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/shirou/gopsutil/v4/process"
)

// A server is a process that answers requests.
type server struct {
	name  string
	args  []string
	url   string
	model string          // what it calls its model
	kinds map[string]bool // kinds of requests that it knows
	cmd   *exec.Cmd
}

// own is the number of servers that are ours, which come first.
const own = 4

// A request is a kind of request: its body for each photo or text.
type request struct {
	name   string
	path   string
	bodies func(s *server) [][]byte
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "benchserve:", err)
		os.Exit(1)
	}
}

func run() error {
	seconds := flag.Int("seconds", 10, "length of a measurement")
	rounds := flag.Int("rounds", 3, "number of measurements of each kind")
	threads := flag.Int("threads", 2, "threads of each server")
	dir := flag.String("dir", "work/bench-serve", "folder of the random weights, created if missing")
	python := flag.String("python", "build/fastapi/bin/python", "Python with torch, transformers and FastAPI")
	infinity := flag.String("infinity", "build/infinity/bin/infinity_emb", "infinity's program")
	only := flag.String("only", "", "measure only the requests that match this regular expression")
	asJSON := flag.String("json", "", "also write the results to this file")
	markdown := flag.Bool("markdown", false, "print the tables as Markdown")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if _, err := os.Stat(filepath.Join(*dir, "decoder.pt")); errors.Is(err, os.ErrNotExist) {
		c := exec.Command(*python, "testdata/reference/serve_peer.py", "make", *dir)
		c.Stderr = os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("serve_peer.py make: %w", err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	n := strconv.Itoa(*threads)
	ours := []string{"bin/cyclecap", "serve", "--clip", *dir + "/clip", "--decoder", *dir + "/decoder.pt", "--gpt2", *dir + "/gpt2", "--threads", n,
		"--normalize", "yes", "--max-tokens", "20", "--queue", "256", "--queue-timeout", "10m", "--listen", "127.0.0.1:{port}"}
	all := map[string]bool{"texts": true, "images": true, "captions": true}
	servers := []*server{
		{name: "cyclecap", args: ours, kinds: all, model: "default"},
		{name: "--batch-window 5ms", args: append(slices.Clone(ours), "--batch-window", "5ms"), kinds: all, model: "default"},
		{name: "--fast", args: append(slices.Clone(ours), "--fast"), kinds: all, model: "default"},
		{name: "--dtype int8", args: append(slices.Clone(ours), "--dtype", "int8"), kinds: all, model: "default"},
		{name: "FastAPI + transformers", args: []string{*python, "testdata/reference/serve_peer.py", "run", *dir, "--port", "{port}", "--threads", n}, kinds: all, model: "default"},
		{name: "infinity", args: []string{*infinity, "v2", "--model-id", *dir + "/clip", "--served-model-name", "default", "--engine", "torch", "--device", "cpu", "--url-prefix", "/v1",
			"--port", "{port}"}, kinds: map[string]bool{"texts": true, "images": true}, model: "default"},
	}
	for _, s := range servers {
		if err := s.start(ctx, *threads); err != nil {
			return err
		}
		defer s.stop()
	}
	photos, err := photos()
	if err != nil {
		return err
	}
	requests := []request{
		{"texts", "/v1/embeddings", func(s *server) [][]byte { return embeddings(s, "", texts) }},
		{"images", "/v1/embeddings", func(s *server) [][]byte { return embeddings(s, "image", uris(photos)) }},
		{"captions", "/caption", func(s *server) [][]byte { return captions(photos) }},
	}
	var results []result
	for _, r := range requests {
		if !pattern.MatchString(r.name) {
			continue
		}
		for _, clients := range []int{1, 8, 64} {
			rates := map[string][]float64{}
			for round := range *rounds {
				for _, s := range turn(servers, round) {
					if !s.kinds[r.name] {
						continue
					}
					rate, err := s.saturate(ctx, r, clients, time.Duration(*seconds)*time.Second)
					if err != nil {
						return fmt.Errorf("%s, %s, %d clients: %w", s.name, r.name, clients, err)
					}
					rates[s.name] = append(rates[s.name], rate)
					fmt.Fprintf(os.Stderr, "%s, %d clients, round %d: %s: %.1f a second\n", r.name, clients, round+1, s.name, rate)
				}
			}
			results = append(results, result{Kind: r.name, Clients: clients, Rates: rates})
		}
		// Half of what the best peer can do is half of the load that users have it for.
		load := best(results, r.name, servers[own:]) / 2
		waits := map[string][]float64{}
		for round := range *rounds {
			for _, s := range turn(servers, round) {
				if !s.kinds[r.name] {
					continue
				}
				list, err := s.pace(ctx, r, load, time.Duration(*seconds)*time.Second)
				if err != nil {
					return fmt.Errorf("%s, %s at %.1f a second: %w", s.name, r.name, load, err)
				}
				waits[s.name] = append(waits[s.name], list...)
			}
		}
		results = append(results, result{Kind: r.name, Load: load, Waits: waits})
	}
	memory := map[string]float64{}
	for _, s := range servers {
		memory[s.name] = s.peak()
	}
	if *asJSON != "" {
		b, err := json.MarshalIndent(map[string]any{"results": results, "peak_mib": memory}, "", "  ")
		if err == nil {
			err = os.WriteFile(*asJSON, b, 0o666)
		}
		if err != nil {
			return err
		}
	}
	show(results, memory, servers, *markdown)
	fmt.Printf("%d threads for each server, %s, %d rounds of %d seconds.\n", *threads, processor.Name(), *rounds, *seconds)
	return nil
}

// turn returns the servers in another order in each round.
func turn(list []*server, round int) []*server {
	k := round % len(list)
	return slices.Concat(list[k:], list[:k])
}

// A result is the throughput for a number of clients, or the waits at a load.
type result struct {
	Kind    string               `json:"kind"`
	Clients int                  `json:"clients,omitempty"`
	Rates   map[string][]float64 `json:"rates,omitempty"` // answers a second, by round
	Load    float64              `json:"load,omitempty"`  // requests a second
	Waits   map[string][]float64 `json:"waits,omitempty"` // seconds
}

// best returns the highest median throughput of some servers.
func best(results []result, kind string, servers []*server) (most float64) {
	for _, r := range results {
		for _, s := range servers {
			if r.Kind == kind && len(r.Rates[s.name]) > 0 {
				most = max(most, quantile(r.Rates[s.name], 0.5))
			}
		}
	}
	return most
}

// start starts a server and waits until it answers.
func (s *server) start(ctx context.Context, threads int) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	args := slices.Clone(s.args)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{port}", port)
	}
	s.url = "http://127.0.0.1:" + port
	s.cmd = exec.Command(args[0], args[1:]...)
	log, err := os.CreateTemp("", "benchserve-*.log")
	if err != nil {
		return err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	n := strconv.Itoa(threads)
	s.cmd.Env = append(os.Environ(), "OMP_NUM_THREADS="+n, "MKL_NUM_THREADS="+n, "HF_HUB_OFFLINE=1", "DO_NOT_TRACK=1", "INFINITY_ANONYMOUS_USAGE_STATS=0", "INFINITY_BETTERTRANSFORMER=0", "INFINITY_VECTOR_DISK_CACHE=0", "TOKENIZERS_PARALLELISM=false")
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		for _, path := range []string{"/readyz", "/health"} {
			if r, err := http.Get(s.url + path); err == nil {
				r.Body.Close()
				if r.StatusCode == http.StatusOK {
					return nil
				}
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(begin) > 5*time.Minute {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%s does not answer:\n%s", s.name, text)
		}
	}
}

func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { s.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		s.cmd.Process.Kill()
	}
}

// peak returns the largest resident memory of a server and its children, MiB.
func (s *server) peak() (mib float64) {
	p, err := process.NewProcess(int32(s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	children, _ := p.Children()
	for _, c := range append(children, p) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Pid))
		if m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status); err == nil && m != nil {
			kib, _ := strconv.ParseFloat(string(m[1]), 64)
			mib += kib / 1024
		}
	}
	return mib
}

// client has a connection for each of many clients.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: 5 * time.Minute}

// ask sends a request. An answer that is not 200 is an error: it would make the server look fast.
func (s *server) ask(ctx context.Context, path string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", answer.Status, text)
	}
	return err
}

// saturate has clients ask without a pause, and returns the number of answers a second.
func (s *server) saturate(ctx context.Context, r request, clients int, length time.Duration) (float64, error) {
	bodies := r.bodies(s)
	if err := s.ask(ctx, r.path, bodies[0]); err != nil { // not counted
		return 0, err
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	var failed error
	answers, last := 0, time.Duration(0)
	begin := time.Now()
	for i := range clients {
		wait.Go(func() {
			for k := i; time.Since(begin) < length && ctx.Err() == nil; k += clients {
				err := s.ask(ctx, r.path, bodies[k%len(bodies)])
				mu.Lock()
				if err != nil {
					failed = err
				}
				answers, last = answers+1, time.Since(begin)
				stop := failed != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wait.Wait()
	return float64(answers) / last.Seconds(), errors.Join(failed, ctx.Err())
}

// pace sends requests at random times, rate of them a second on average, and returns how long
// each took.
func (s *server) pace(ctx context.Context, r request, rate float64, length time.Duration) (seconds []float64, err error) {
	bodies := r.bodies(s)
	if err := s.ask(ctx, r.path, bodies[0]); err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 2)) // the same times for every server
	var wait sync.WaitGroup
	var mu sync.Mutex
	begin := time.Now()
	at := time.Duration(0)
	for i := 0; ctx.Err() == nil; i++ {
		at += time.Duration(rng.ExpFloat64() / rate * float64(time.Second))
		if at > length {
			break
		}
		due := begin.Add(at)
		time.Sleep(time.Until(due))
		wait.Go(func() {
			e := s.ask(ctx, r.path, bodies[i%len(bodies)])
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, e)
			seconds = append(seconds, time.Since(due).Seconds())
		})
	}
	wait.Wait()
	return seconds, errors.Join(err, ctx.Err())
}

// texts are captions of COCO's kind.
var texts = []string{"A man riding a wave on top of a surfboard.", "Two dogs playing in the snow.", "A plate of food with a fork and a knife on a table.",
	"A red double decker bus driving down a city street.", "A cat sitting on a laptop.", "A group of people flying kites in a field.", "A kitchen with a stove and a sink.",
	"A young boy holding a baseball bat."}

// photos returns photos of COCO's kind and size.
func photos() (list [][]byte, err error) {
	paths, err := filepath.Glob("testdata/photos/0*.jpg")
	for _, p := range paths {
		b, e := os.ReadFile(p)
		if e != nil {
			return nil, e
		}
		list = append(list, b)
	}
	if len(list) == 0 {
		return nil, errors.New("no photos in testdata/photos; run this in the project's folder")
	}
	return list, err
}

func uris(photos [][]byte) (list []string) {
	for _, p := range photos {
		list = append(list, "data:image/jpeg;base64,"+base64.StdEncoding.EncodeToString(p))
	}
	return list
}

// embeddings returns requests of one input each, in OpenAI's form.
func embeddings(s *server, modality string, inputs []string) (list [][]byte) {
	for _, in := range inputs {
		body := map[string]any{"model": s.model, "input": []string{in}, "encoding_format": "float"}
		if modality != "" {
			body["modality"] = modality
		}
		b, _ := json.Marshal(body)
		list = append(list, b)
	}
	return list
}

func captions(photos [][]byte) (list [][]byte) {
	for _, p := range photos {
		b, _ := json.Marshal(map[string]any{"images": []string{base64.StdEncoding.EncodeToString(p)}})
		list = append(list, b)
	}
	return list
}

func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// show prints the tables.
func show(results []result, memory map[string]float64, servers []*server, markdown bool) {
	peers := servers[own:]
	t := table.NewWriter()
	header := table.Row{"requests", "clients"}
	for _, s := range servers {
		header = append(header, s.name)
	}
	t.AppendHeader(append(header, "cyclecap / best peer", "window / best peer", "fast / best peer", "int8 / best peer"))
	for _, r := range results {
		if r.Clients == 0 {
			continue
		}
		row := table.Row{r.Kind, r.Clients}
		for _, s := range servers {
			if list := r.Rates[s.name]; list == nil {
				row = append(row, "")
			} else {
				row = append(row, fmt.Sprintf("%.1f", quantile(list, 0.5)))
			}
		}
		for _, s := range servers[:own] {
			row = append(row, ratios(r, s, peers))
		}
		t.AppendRow(row)
	}
	w := table.NewWriter()
	header = table.Row{"requests", "a second"}
	for _, s := range servers {
		header = append(header, s.name)
	}
	w.AppendHeader(header)
	for _, r := range results {
		if r.Load == 0 {
			continue
		}
		row := table.Row{r.Kind, fmt.Sprintf("%.1f", r.Load)}
		for _, s := range servers {
			if list := r.Waits[s.name]; len(list) == 0 {
				row = append(row, "")
			} else {
				row = append(row, fmt.Sprintf("%.0f / %.0f", 1000*quantile(list, 0.5), 1000*quantile(list, 0.95)))
			}
		}
		w.AppendRow(row)
	}
	row := table.Row{"peak memory, MiB", ""}
	for _, s := range servers {
		row = append(row, fmt.Sprintf("%.0f", memory[s.name]))
	}
	w.AppendRow(row)
	for i, t := range []table.Writer{t, w} {
		fmt.Println([]string{"Answers a second (medians), and ours divided by the best peer's of each round (min / median / max):", "p50 / p95 in ms at half of the best peer's throughput:"}[i])
		if markdown {
			fmt.Println("\n" + t.RenderMarkdown() + "\n")
		} else {
			fmt.Println(t.Render())
		}
	}
}

// ratios are ours divided by the best peer's, in each round.
func ratios(r result, ours *server, peers []*server) string {
	var list []float64
	for i, v := range r.Rates[ours.name] {
		most := 0.0
		for _, p := range peers {
			if rates := r.Rates[p.name]; i < len(rates) {
				most = max(most, rates[i])
			}
		}
		list = append(list, v/most)
	}
	return fmt.Sprintf("%.2f / %.2f / %.2f", slices.Min(list), quantile(list, 0.5), slices.Max(list))
}
