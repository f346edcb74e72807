// Httpserver answers requests with a network. Without -addr it asks itself, with 16 clients at a time, compares
// each answer with that to the same request alone, and ends.
//
//	go run ./examples/httpserver -addr localhost:8080
//	curl -d '[[1, 2, 3, 4], [5, 6, 7, 8]]' localhost:8080
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// A handler answers a list of rows with what the network computes of each. The executor computes for all requests
// on one OS thread, since libtorch has a thread pool for each OS thread that calls it.
type handler struct {
	net      *nn.SequentialModule
	executor *torch.Executor
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var rows [][]float32
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&rows); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := []float32{}
	err := h.executor.Do(func() error { // a scope, which frees the tensors of the request
		if len(rows) == 0 {
			return nil
		}
		list := make([]torch.Tensor, len(rows))
		for i, row := range rows {
			list[i] = torch.FromSlice(row)
		}
		// Rows of a wrong width are an error of Do, not a panic.
		torch.InferenceMode(func() { out = torch.ToSlice[float32](h.net.Forward(torch.Stack(list))) })
		return nil
	})
	var bad *torch.Error
	switch {
	case errors.As(err, &bad) && bad.Kind != torch.OutOfMemoryError:
		http.Error(w, bad.Error(), http.StatusBadRequest)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer, err := json.Marshal(out) // fails if a result is not finite
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(answer)
}

func main() {
	addr := flag.String("addr", "", "answer at this address until interrupted")
	flag.Parse()
	if err := run(*addr); err != nil {
		log.Fatal(err)
	}
}

func run(addr string) error {
	h := handler{executor: torch.NewExecutor()}
	defer h.executor.Close()
	err := torch.Scope(func() error {
		torch.ManualSeed(0)
		h.net = nn.Sequential(nn.Linear(4, 64, true), nn.GELU("none"), nn.Linear(64, 1, true), nn.Flatten(0, -1))
		return nil
	})
	if err != nil {
		return err
	}
	defer nn.Close(h.net)
	ask := addr == ""
	if ask {
		addr = "localhost:0"
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server := &http.Server{Handler: h}
	if ask {
		go func() {
			clients("http://" + listener.Addr().String())
			stop()
		}()
	} else {
		fmt.Printf("answering at http://%s\n", listener.Addr())
	}
	// Requests that have begun are answered before the network is freed.
	closed := make(chan error, 1)
	go func() {
		<-ctx.Done()
		closed <- server.Shutdown(context.Background())
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return <-closed
}

// clients asks the server, first one request at a time, and then 16 clients the same requests at once.
func clients(url string) {
	ask := func(body string) string {
		answer, err := http.Post(url, "application/json", strings.NewReader(body))
		if err != nil {
			return err.Error()
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%d %s", answer.StatusCode, strings.TrimSpace(string(text)))
	}
	fmt.Println(ask("[[1, 2, 3]]")) // the network has 4 inputs
	const n, times = 16, 20
	var bodies, want [n]string
	for i := range n {
		row := fmt.Sprintf("[%d, 2, 3, 4]", i)
		bodies[i] = "[" + strings.Join([]string{row, row, row}[:1+i%3], ", ") + "]"
		want[i] = ask(bodies[i])
	}
	fmt.Println(want[0])
	var same atomic.Int64
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			for range times {
				if got := ask(bodies[i]); got == want[i] && strings.HasPrefix(got, "200 ") {
					same.Add(1)
				}
			}
		})
	}
	group.Wait()
	fmt.Printf("%d of %d answers are the same as alone; %d tensors are alive\n", same.Load(), n*times, torch.Alive())
}
