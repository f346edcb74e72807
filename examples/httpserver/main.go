// Httpserver answers requests with a network: each in a scope of its own, which frees its
// tensors. It asks itself with 16 clients at a time and then ends.
//
//	go run ./examples/httpserver
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// A handler answers a list of rows with what the network computes of them.
type handler struct{ net *nn.SequentialModule }

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var rows [][]float32
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&rows); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var out []float32
	err := torch.Scope(func() error {
		list := make([]torch.Tensor, len(rows))
		for i, row := range rows {
			list[i] = torch.FromSlice(row)
		}
		// Without gradients; a wrong width is an error of Scope, not a panic.
		torch.InferenceMode(func() { out = torch.ToSlice[float32](h.net.Forward(torch.Stack(list)).Flatten()) })
		return nil
	})
	var bad *torch.Error
	switch {
	case errors.As(err, &bad):
		http.Error(w, bad.Error(), http.StatusBadRequest)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		json.NewEncoder(w).Encode(out)
	}
}

func main() {
	var net *nn.SequentialModule
	err := torch.Scope(func() error {
		torch.ManualSeed(0)
		net = nn.Sequential(nn.Linear(4, 64, true), nn.GELU("none"), nn.Linear(64, 1, true))
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	defer nn.Close(net)
	server := httptest.NewServer(handler{net})
	defer server.Close()
	ask := func(body string) (int, string) {
		answer, err := http.Post(server.URL, "application/json", strings.NewReader(body))
		if err != nil {
			return 0, err.Error()
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, strings.TrimSpace(string(text))
	}
	fmt.Println(ask("[[1, 2, 3]]")) // the network has 4 inputs
	_, want := ask("[[1, 2, 3, 4]]")
	var mu sync.Mutex
	answers := map[string]int{}
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range 20 {
				_, got := ask("[[1, 2, 3, 4]]")
				mu.Lock()
				answers[got]++
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	fmt.Printf("%d of 320 answers are %s; %d tensors are alive\n", answers[want], want, torch.Alive())
}
