package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestPeer asks a peer that prints noise, raises an error, answers, is slow and is gone.
func TestPeer(t *testing.T) {
	p, err := startPeer("sh", "-c", `echo '{"ready": true}'
		read request; echo noise; echo '{"error": "ValueError: no"}'
		read request; echo '{"result": {"seconds": 2}}'
		read request; exec sleep 60`)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if _, err := p.wait(time.Minute); err != nil {
		t.Fatal(err)
	}
	var raised *pythonError
	if err := p.ask(time.Minute, "time", nil, nil); !errors.As(err, &raised) || raised.text != "ValueError: no" {
		t.Errorf("an exception is the error %v", err)
	}
	var to struct{ Seconds float64 }
	if err := p.ask(time.Minute, "time", args{"repeats": 3}, &to); err != nil || to.Seconds != 2 {
		t.Errorf("got %+v, %v", to, err)
	}
	if err := p.ask(100*time.Millisecond, "time", nil, nil); !errors.Is(err, errSlow) {
		t.Errorf("a slow answer is the error %v", err)
	}
	if err := p.ask(time.Minute, "time", nil, nil); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("asking a process that was ended is the error %v", err)
	}
}
